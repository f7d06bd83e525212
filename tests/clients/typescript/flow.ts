// create, list, get, wait, report, stop, delete. The component sleeps for as many seconds as its payload says.
import { BatchApi, BatchStatusStatusEnum, Configuration, JobApi, JobStatusStatusEnum, ResponseError } from "./client";

async function main(basePath: string) {
    const jobs = new JobApi(new Configuration({ basePath }));

    const request = { payload: "0", jobId: "typescript", variables: { LANGUAGE: "typescript" } };
    const idempotencyKey = `typescript-${Date.now()}`;
    const job = await jobs.createJob({ idempotencyKey, jobCreation: request });
    check(job.name.startsWith("compute-") && job.jobId === "typescript", job);
    check((await jobs.createJob({ idempotencyKey, jobCreation: request })).name === job.name, job);

    check((await jobs.getJobs({ jobId: "typescript", limit: 9 })).some((other) => other.name === job.name), job);
    const got = await jobs.getJob({ jobName: job.name });
    check(got.created.getTime() === job.created.getTime(), got);

    const done = await jobs.getJob({ jobName: job.name, wait: "30s" });
    check(done.status === JobStatusStatusEnum.Succeeded && done.ended !== "", done);
    check(done.podStatuses?.[0].exitCode === 0 && done.result === "slept", done);

    const other = await jobs.createJob({ jobCreation: { payload: "60" } });
    await jobs.putJobProgress({ jobName: other.name, progressReport: { percent: 25, message: "a quarter" } });
    check((await jobs.getJob({ jobName: other.name })).progress?.percent === 25, other);
    check((await jobs.stopJob({ jobName: other.name })).status === "Success", other);
    const stopped = await jobs.getJob({ jobName: other.name, wait: "30s" });
    check(stopped.status === JobStatusStatusEnum.Stopped && stopped.ended !== "", stopped);

    for (const jobName of [job.name, other.name]) {
        check((await jobs.deleteJob({ jobName })).code === 200, jobName);
    }
    const gone = await jobs.getJob({ jobName: job.name }).then(
        () => undefined,
        (error: unknown) => error,
    );
    check(gone instanceof ResponseError && gone.response.status === 404, gone);

    const batches = new BatchApi(new Configuration({ basePath }));
    const batchCreation = {
        batchId: "typescript",
        defaultRadixJobComponentConfig: { timeLimitSeconds: 100 },
        jobScheduleDescriptions: [{ payload: "0" }, { payload: "60" }],
    };
    const batch = await batches.createBatch({ idempotencyKey: `${idempotencyKey}-batch`, batchCreation });
    const batchName = batch.name;
    const [first, second] = batch.jobStatuses ?? [];
    check(batch.batchId === "typescript" && batch.ended === null, batch);
    const slept = await batches.getBatchJob({ batchName, jobName: first.name, wait: "30s" });
    check(slept.status === JobStatusStatusEnum.Succeeded && slept.result === "slept", slept);
    const summary = await batches.getBatch({ batchName, summary: true });
    check(summary.jobCounts["Succeeded"] === 1 && summary.progress.percent === 50, summary);
    const short = second.name.slice(second.name.lastIndexOf("-") + 1);
    await batches.stopBatchJob({ batchName, jobName: short });
    const over = await batches.getBatch({ batchName, wait: "30s" });
    check(over.status === BatchStatusStatusEnum.Completed && over.ended instanceof Date, over);
    const again = await batches.restartBatch({ batchName });
    check(again.jobStatuses?.[1].name === second.name, again);
    check((await batches.deleteBatch({ batchName })).code === 200, batchName);
    check((await batches.getBatches()).every((other) => other.name !== batchName), batchName);
}

function check(holds: boolean, seen: unknown) {
    if (!holds) {
        throw new Error(JSON.stringify(seen));
    }
}

main(process.argv[2]).catch((error) => {
    console.error(error);
    process.exit(1);
});
