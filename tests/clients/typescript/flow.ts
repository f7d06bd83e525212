// create, list, get, wait, report, stop, delete. The component sleeps for as many seconds as its payload says.
import { Configuration, JobApi, JobStatusStatusEnum, ResponseError } from "./client";

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
