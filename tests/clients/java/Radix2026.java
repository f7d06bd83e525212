import java.util.List;
import java.util.Map;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.BatchApi;
import org.openapitools.client.model.BatchScheduleDescription;
import org.openapitools.client.model.BatchStatus;
import org.openapitools.client.model.JobScheduleDescription;
import org.openapitools.client.model.JobStatus;
import org.openapitools.client.model.RadixJobComponentConfig;

/** A batch's whole life, as clients of Radix have it. The component sleeps for as many seconds as its payload says. */
public class Radix2026 {
    public static void main(String[] arguments) throws Exception {
        BatchApi batches = new BatchApi(new ApiClient().setBasePath(arguments[0] + "/api/v1"));

        BatchScheduleDescription request = new BatchScheduleDescription()
                .batchId("my-batch-42")
                // Generator 7 sends lists that nobody set as empty ones, which are the image's own.
                .defaultRadixJobComponentConfig(new RadixJobComponentConfig().timeLimitSeconds(200L)
                        .variables(Map.of("EPOCHS", "5")).command(null).args(null))
                .jobScheduleDescriptions(List.of(job("my-job-1", "0"), job("my-job-2", "60")));
        BatchStatus batch = batches.createBatch(request);
        String name = batch.getName();
        check("my-batch-42".equals(batch.getBatchId()) && "batch".equals(batch.getBatchType()), batch);
        check(batch.getEnded() == null, batch);
        String first = batch.getJobStatuses().get(0).getName();
        String second = batch.getJobStatuses().get(1).getName();
        check(batches.getBatches().stream().anyMatch(other -> other.getName().equals(name)), name);

        JobStatus job;
        while ((job = batches.getBatchJob(name, first)).getStatus() != JobStatus.StatusEnum.SUCCEEDED) {
            Thread.sleep(50);
        }
        check(job.getEnded() != null && job.getBatchName().equals(name), job);
        String shortName = second.substring(second.lastIndexOf('-') + 1);
        check("Success".equals(batches.stopBatchJob(name, shortName).getStatus()), second);
        while ((batch = batches.getBatch(name)).getStatus() != BatchStatus.StatusEnum.COMPLETED) {
            Thread.sleep(50);
        }
        check(batch.getEnded() != null, batch);
        refused(400, () -> batches.stopBatch(name));
        check("Success".equals(batches.stopAllBatches().getStatus()), name);
        check(batches.deleteBatch(name).getCode() == 200, name);
        refused(404, () -> batches.getBatch(name));
    }

    static JobScheduleDescription job(String id, String payload) {
        return new JobScheduleDescription().jobId(id).payload(payload).command(null).args(null);
    }

    interface Call {
        void call() throws ApiException;
    }

    static void refused(int code, Call call) {
        try {
            call.call();
            check(false, "it is not refused");
        } catch (ApiException e) {
            check(e.getCode() == code, e);
        }
    }

    static void check(boolean holds, Object seen) {
        if (!holds) {
            throw new AssertionError(seen);
        }
    }
}
