import java.math.BigDecimal;
import java.util.Map;
import java.util.List;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.JobApi;
import org.openapitools.client.model.JobScheduleDescription;
import org.openapitools.client.model.JobStatus;
import org.openapitools.client.model.ProgressReport;

/** create, list, get, wait, report, stop, delete. The component sleeps for as many seconds as its payload says. */
public class Flow {
    public static void main(String[] arguments) throws Exception {
        JobApi jobs = new JobApi(new ApiClient().setBasePath(arguments[0]));

        JobScheduleDescription request = new JobScheduleDescription()
                .payload("0").jobId("java").variables(Map.of("LANGUAGE", "java"));
        String key = "java-" + System.nanoTime();
        JobStatus job = jobs.createJob(request, key, null, null);
        String name = job.getName();
        check(name.startsWith("compute-") && "java".equals(job.getJobId()), job);
        check(jobs.createJob(request, key, null, null).getName().equals(name), "the same key is the same job");

        List<JobStatus> all = jobs.getJobs(null, "java", 9);
        check(all.stream().anyMatch(other -> other.getName().equals(name)), all);
        check(jobs.getJob(name, null).getCreated().equals(job.getCreated()), job);

        JobStatus done = jobs.getJob(name, "30s");
        check(done.getStatus() == JobStatus.StatusEnum.SUCCEEDED && !done.getEnded().isEmpty(), done);
        check(done.getPodStatuses().get(0).getExitCode() == 0 && "slept".equals(done.getResult()), done);

        String other = jobs.createJob(new JobScheduleDescription().payload("60"), null, null, null).getName();
        jobs.putJobProgress(other, new ProgressReport().percent(BigDecimal.valueOf(25)).message("a quarter"));
        check(jobs.getJob(other, null).getProgress().getPercent() == 25, other);
        check(jobs.stopJob(other).getStatus().equals("Success"), other);
        JobStatus stopped = jobs.getJob(other, "30s");
        check(stopped.getStatus() == JobStatus.StatusEnum.STOPPED && !stopped.getEnded().isEmpty(), stopped);

        for (String each : List.of(name, other)) {
            check(jobs.deleteJob(each).getCode() == 200, each);
        }
        try {
            jobs.getJob(name, null);
            check(false, "a deleted job is there");
        } catch (ApiException e) {
            check(e.getCode() == 404 && e.getResponseBody().contains("NotFound"), e);
        }
    }

    static void check(boolean holds, Object seen) {
        if (!holds) {
            throw new AssertionError(seen);
        }
    }
}
