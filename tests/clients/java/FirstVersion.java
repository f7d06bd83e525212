import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.JobApi;
import org.openapitools.client.model.JobScheduleDescription;
import org.openapitools.client.model.JobStatus;

/** All that the first version of the API has. */
public class FirstVersion {
    public static void main(String[] arguments) throws Exception {
        JobApi jobs = new JobApi(new ApiClient().setBasePath(arguments[0] + "/api/v1"));

        String name = jobs.createJob(new JobScheduleDescription().payload("0")).getName();
        // Its document has one job where there is a list: whoever uses it reads the list by hand.
        check(jobs.getJobsCall(null).execute().body().string().contains(name), name);

        JobStatus job = jobs.getJob(name);
        while (job.getStatus() == JobStatus.StatusEnum.RUNNING) {
            Thread.sleep(50);
            job = jobs.getJob(name);
        }
        check(job.getStatus() == JobStatus.StatusEnum.SUCCEEDED && !job.getEnded().isEmpty(), job);

        check(jobs.deleteJob(name).getStatus().equals("Success"), name);
        try {
            jobs.getJob(name);
            check(false, "a deleted job is there");
        } catch (ApiException e) {
            check(e.getCode() == 404, e);
        }
    }

    static void check(boolean holds, Object seen) {
        if (!holds) {
            throw new AssertionError(seen);
        }
    }
}
