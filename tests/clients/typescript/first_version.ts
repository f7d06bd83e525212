// All that the first version of the API has.
import { Configuration, JobApi, JobStatusStatusEnum, ResponseError } from "./client";

async function main(url: string) {
    const jobs = new JobApi(new Configuration({ basePath: `${url}/api/v1` }));

    const jobName = (await jobs.createJob({ jobCreation: { payload: "0" } })).name;
    // Its document has one job where there is a list: whoever uses it reads the list by hand.
    const listed = (await (await jobs.getJobsRaw()).raw.json()) as { name: string }[];
    check(listed.some((job) => job.name === jobName), listed);

    let job = await jobs.getJob({ jobName });
    while (job.status === JobStatusStatusEnum.Running) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        job = await jobs.getJob({ jobName });
    }
    check(job.status === JobStatusStatusEnum.Succeeded && job.ended !== "", job);

    check((await jobs.deleteJob({ jobName })).status === "Success", jobName);
    const gone = await jobs.getJob({ jobName }).then(
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
