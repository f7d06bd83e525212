//! Which finished jobs to let go. Pure.

use crate::job::{JobName, Status, Timestamp};
use std::collections::{HashMap, HashSet};

/// How long the key of a request stands for its job, in seconds from the job's end.
const KEY_PROMISE_SECONDS: i64 = 15 * 60;
/// How wrong the scheduler's clock may be, in seconds.
const CLOCK_ERROR_SECONDS: i64 = 60;
/// Jobs and batches that are kept, hidden, for their key alone: the latest.
const MAX_HIDDEN_FOR_KEYS: usize = 1000;
/// Jobs that are kept so, those of batches among them.
const MAX_HIDDEN_JOBS: usize = 10_000;

/// For how many more seconds the key of a job that finished at `end` stands for it; `None` if it
/// does no more.
pub fn key_stands(end: Timestamp, now: Timestamp) -> Option<u64> {
    let left = end.seconds() + KEY_PROMISE_SECONDS + CLOCK_ERROR_SECONDS - now.seconds();
    u64::try_from(left).ok().filter(|seconds| *seconds > 0)
}

/// Hidden jobs that nothing needs.
#[derive(Debug, Default, PartialEq)]
pub struct Needless {
    pub names: HashSet<JobName>,
    /// In how many seconds the next one will be needless, if there is one.
    pub next: Option<u64>,
}

/// A hidden job or batch whose payload nobody uses.
#[derive(Debug)]
pub struct Hidden {
    pub has_key: bool,
    /// How many jobs it counts for: a batch is one itself.
    pub size: usize,
    pub finished: Finished,
}

/// Of what is hidden, that whose key does not stand for it, or that is too much.
pub fn needless(hidden: impl IntoIterator<Item = Hidden>, now: Timestamp) -> Needless {
    let (mut result, mut needed) = (Needless::default(), Vec::new());
    for one in hidden {
        let (name, _, end) = one.finished;
        match key_stands(end.0, now).filter(|_| one.has_key) {
            Some(seconds) => needed.push((end, seconds, name, one.size)),
            None => drop(result.names.insert(name)),
        }
    }
    needed.sort();
    let (mut keys, mut jobs) = (0, 0);
    for (_, seconds, name, size) in needed.into_iter().rev() {
        (keys, jobs) = (keys + 1, jobs + size);
        match keys > MAX_HIDDEN_FOR_KEYS || jobs > MAX_HIDDEN_JOBS {
            true => drop(result.names.insert(name)),
            false => result.next = Some(seconds),
        }
    }
    result
}

/// A job or a batch that has finished: its outcome, and when it ended.
///
/// Latest is by when a job finished, so that one that ran for hours is not gone the moment it ends;
/// those of the same second go by the version of their record, which grows from change to change.
pub type Finished = (JobName, Status, (Timestamp, u64));

/// Divides what has finished into the `limit` latest of each outcome, and the others, oldest first.
pub fn divide(mut finished: Vec<Finished>, limit: usize) -> (Vec<Finished>, Vec<Finished>) {
    finished.sort_by(|(a, _, a_end), (b, _, b_end)| b_end.cmp(a_end).then_with(|| b.cmp(a)));
    let mut counts = HashMap::new();
    let is_kept = |(_, status, _): &Finished| {
        let count = counts.entry(*status).or_insert(0);
        *count += 1;
        *count <= limit
    };
    let (kept, mut others): (Vec<_>, Vec<_>) = finished.into_iter().partition(is_kept);
    others.reverse();
    (kept, others)
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
                _ => Status::Stopped,
            };
            let end = Timestamp::at(parts.next().unwrap().parse().unwrap());
            let version = parts.next().map_or(0, |version| version.parse().unwrap());
            (name, status, (end, version))
        });
        let (kept, others) = divide(parsed.collect(), limit);
        let names: Vec<_> = others.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names.join(" "), expected, "{jobs}");
        assert_eq!(
            kept.len() + others.len(),
            jobs.split_whitespace().count(),
            "{jobs}"
        );
    }

    #[test]
    fn keeps_the_latest_of_each_outcome() {
        check("", 1, "");
        check("a:ok:1 b:ok:2 c:ok:3", 3, "");
        check("a:ok:1 b:ok:2 c:ok:3", 2, "a");
        check("a:ok:1 b:bad:2 c:ok:3 d:bad:4", 1, "a b");
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
    fn a_hidden_job_is_needed_while_its_key_stands_for_it() {
        let (ago, now) = (
            |seconds: i64| Timestamp::at(10_000 - seconds),
            Timestamp::at(10_000),
        );
        let check = |jobs: &[(&str, bool, i64)], names: &[&str], next: Option<u64>| {
            let hidden = jobs.iter().map(|(name, has_key, seconds)| {
                let name = JobName::parse(name).unwrap();
                // A batch tells its size in its name.
                let size = name.as_str().strip_prefix("batch-");
                Hidden {
                    has_key: *has_key,
                    size: size.map_or(1, |size| size.parse().unwrap()),
                    finished: (name, Status::Failed, (ago(*seconds), 1)),
                }
            });
            let names = names.iter().filter_map(|name| JobName::parse(name));
            let expected = Needless {
                names: names.collect(),
                next,
            };
            assert_eq!(needless(hidden, now), expected, "{jobs:?}");
        };
        check(&[("a", true, 899), ("b", true, 5)], &[], Some(61));
        check(&[("a", true, 959), ("b", true, 960)], &["b"], Some(1));
        check(&[("a", false, 5)], &["a"], None);
        let names: Vec<String> = (0..1003).map(|number| format!("j-{number:04}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), true, 9)).collect();
        check(&many, &["j-0000", "j-0001", "j-0002"], Some(951));
        // All of a batch's jobs count.
        let batches = ["batch-5000", "batch-4999", "a"];
        check(&batches.map(|name| (name, true, 9)), &[], Some(951));
        let batches = [("batch-9999", true, 9), ("batch-2", true, 8)];
        check(&batches, &["batch-9999"], Some(952));
    }
}
