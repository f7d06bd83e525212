//! Which finished jobs to let go. Pure.

use crate::job::{JobName, Status, Timestamp};

/// The finished jobs beyond the `limit` latest of each outcome, oldest first.
///
/// Latest is by when a job finished, so that one that ran for hours is not gone the moment it ends; those of the same second
/// go by the version of their record, which grows from change to change.
pub fn excess(
    jobs: impl IntoIterator<Item = (JobName, Status, (Timestamp, u64))>,
    limit: usize,
) -> Vec<JobName> {
    let mut finished: Vec<_> = jobs
        .into_iter()
        .filter(|(_, status, _)| status.is_finished())
        .collect();
    finished.sort_by(|(a, _, a_end), (b, _, b_end)| b_end.cmp(a_end).then_with(|| b.cmp(a)));
    let mut let_go: Vec<JobName> = Status::ALL
        .into_iter()
        .flat_map(|outcome| {
            finished
                .iter()
                .filter(move |(_, status, _)| *status == outcome)
                .skip(limit)
        })
        .map(|(name, _, _)| name.clone())
        .collect();
    let_go.reverse();
    let_go
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(jobs: &str, limit: usize, expected: &str) {
        let parsed = jobs.split_whitespace().map(|job| {
            let mut parts = job.split(':');
            let name = JobName::parse(parts.next().unwrap()).unwrap();
            let status = match parts.next().unwrap() {
                "ok" => Status::Succeeded,
                "bad" => Status::Failed,
                "stopped" => Status::Stopped,
                _ => Status::Running,
            };
            let end = Timestamp(parts.next().unwrap().parse().unwrap());
            let version = parts.next().map_or(0, |version| version.parse().unwrap());
            (name, status, (end, version))
        });
        let names: Vec<_> = excess(parsed, limit)
            .iter()
            .map(JobName::to_string)
            .collect();
        assert_eq!(names.join(" "), expected, "{jobs}");
    }

    #[test]
    fn keeps_the_latest_of_each_outcome() {
        check("", 1, "");
        check("a:ok:1 b:ok:2 c:ok:3", 3, "");
        check("a:ok:1 b:ok:2 c:ok:3", 2, "a");
        check("a:ok:1 b:bad:2 c:ok:3 d:bad:4", 1, "b a");
        check("a:stopped:1 b:stopped:2 c:ok:3", 1, "a");
        check("a:ok:1 b:ok:2", 0, "a b");
    }

    #[test]
    fn latest_is_by_the_end_then_by_version_then_by_name() {
        check("long:ok:9 b:ok:2 c:ok:3", 1, "b c");
        check("a:ok:5 b:ok:5 c:ok:5", 1, "a b");
        check("a:ok:5:9 b:ok:5:8 c:ok:5:7", 1, "c b");
        check("a:ok:4:9 b:ok:5:8", 1, "a");
    }

    #[test]
    fn never_lets_go_of_an_unfinished_job() {
        check("a:running:1 b:running:2 c:running:3", 0, "");
    }
}
