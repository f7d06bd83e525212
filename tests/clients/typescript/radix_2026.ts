// A batch's whole life, as clients of Radix have it. The component sleeps for as many seconds as its payload says.
import { BatchApi, BatchStatusStatusEnum, Configuration, JobStatusStatusEnum, ResponseError } from "./client";

async function main(url: string) {
    const batches = new BatchApi(new Configuration({ basePath: url + "/api/v1" }));

    const batch = await batches.createBatch({
        batchCreation: {
            batchId: "my-batch-42",
            defaultRadixJobComponentConfig: { timeLimitSeconds: 200, variables: { EPOCHS: "5" } },
            jobScheduleDescriptions: [
                { jobId: "my-job-1", payload: "0" },
                { jobId: "my-job-2", payload: "60" },
            ],
        },
    });
    check(batch.batchId === "my-batch-42" && batch.batchType === "batch", batch);
    check(!batch.ended, batch);
    const [first, second] = batch.jobStatuses ?? [];
    check(first.jobId === "my-job-1" && second.jobId === "my-job-2", batch);
    const batchName = batch.name;
    check((await batches.getBatches()).some((other) => other.name === batchName), batchName);

    await until(async () => {
        const job = await batches.getBatchJob({ batchName, jobName: first.name });
        return job.status === JobStatusStatusEnum.Succeeded && job.ended instanceof Date;
    });
    const short = second.name.slice(second.name.lastIndexOf("-") + 1);
    check((await batches.stopBatchJob({ batchName, jobName: short })).status === "Success", second);
    await until(async () => {
        const over = await batches.getBatch({ batchName });
        return over.status === BatchStatusStatusEnum.Completed && over.ended instanceof Date;
    });
    await refused(400, () => batches.stopBatch({ batchName }));
    check((await batches.stopAllBatches()).status === "Success", batchName);
    check((await batches.deleteBatch({ batchName })).code === 200, batchName);
    await refused(404, () => batches.getBatch({ batchName }));
}

async function until(isOver: () => Promise<boolean>) {
    for (let tries = 0; tries < 600; tries += 1) {
        if (await isOver()) {
            return;
        }
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error("it takes too long");
}

async function refused(code: number, ask: () => Promise<unknown>) {
    const error = await ask().then(
        () => undefined,
        (error: unknown) => error,
    );
    check(error instanceof ResponseError && error.response.status === code, error);
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
