import java.math.BigDecimal;
import java.util.Map;
import java.util.List;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.BatchApi;
import org.openapitools.client.api.JobApi;
import org.openapitools.client.model.BatchScheduleDescription;
import org.openapitools.client.model.BatchStatus;
import org.openapitools.client.model.JobScheduleDescription;
import org.openapitools.client.model.JobStatus;
import org.openapitools.client.model.ProgressReport;
import org.openapitools.client.model.RadixJobComponentConfig;

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
        batch(new BatchApi(new ApiClient().setBasePath(arguments[0])), key + "-batch");
    }

    static void batch(BatchApi batches, String key) throws Exception {
        BatchScheduleDescription request = new BatchScheduleDescription()
                .batchId("java")
                .defaultRadixJobComponentConfig(new RadixJobComponentConfig().timeLimitSeconds(100L))
                .jobScheduleDescriptions(List.of(
                        new JobScheduleDescription().payload("0"), new JobScheduleDescription().payload("60")));
        BatchStatus batch = batches.createBatch(request, key, null, null);
        String name = batch.getName();
        check("java".equals(batch.getBatchId()) && batch.getEnded() == null, batch);
        String first = batch.getJobStatuses().get(0).getName();
        String second = batch.getJobStatuses().get(1).getName();
        JobStatus done = batches.getBatchJob(name, first, "30s");
        check(done.getStatus() == JobStatus.StatusEnum.SUCCEEDED && "slept".equals(done.getResult()), done);
        BatchStatus summary = batches.getBatch(name, null, true);
        check(summary.getJobCounts().get("Succeeded") == 1 && summary.getProgress().getPercent() == 50, summary);
        batches.stopBatchJob(name, second.substring(second.lastIndexOf('-') + 1));
        BatchStatus over = batches.getBatch(name, "30s", null);
        check(over.getStatus() == BatchStatus.StatusEnum.COMPLETED && over.getEnded() != null, over);
        check(batches.restartBatch(name, null).getJobStatuses().get(1).getName().equals(second), over);
        check(batches.deleteBatch(name).getCode() == 200, name);
        check(batches.getBatches(true).stream().noneMatch(other -> other.getName().equals(name)), name);
    }

    static void check(boolean holds, Object seen) {
        if (!holds) {
            throw new AssertionError(seen);
        }
    }
}
