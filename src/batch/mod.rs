//! Batches: many jobs as one, all of them or none. What a caller sends for one, the names of its
//! jobs, and its status, which follows from theirs. Pure.

pub mod request;
pub mod status;
pub mod summary;

use crate::job::{JobName, Timestamp};

/// The most jobs of a batch.
pub const MAX_JOBS: usize = 1000;

/// Characters of a batch's name that tell its component: 12 of the component's at most, and random
/// ones.
const COMPONENT: usize = 16;
const OF_COMPONENT: usize = 12;
/// Random characters at the end of a name.
const RANDOM: usize = 8;

/// A new batch's name, as Radix makes it: `batch-<16 characters>-<yyyymmddhhmmss>-<8 of a-z0-9>`.
pub fn generate_name(
    component: &str,
    now: Timestamp,
    random: &mut fastrand::Rng,
) -> Option<JobName> {
    let cut: String = component.chars().take(OF_COMPONENT).collect();
    let mut digits = |count: usize| -> String {
        let digit = |_| char::from_digit(random.u32(0..36), 36).unwrap_or('0');
        (0..count).map(digit).collect()
    };
    let padding = digits(COMPONENT - cut.len());
    let name = format!("batch-{cut}{padding}-{}-{}", now.compact(), digits(RANDOM));
    JobName::parse(&name)
}

/// The names of a batch's first `count` jobs, in their order: `<batch>-<8 of a-z0-9>`. They follow
/// from the batch's, so that a request that is sent again finds the jobs that it made before.
pub fn job_names(batch: &JobName, count: usize) -> Option<Vec<JobName>> {
    let mut names: Vec<JobName> = Vec::with_capacity(count);
    let mut taken = std::collections::HashSet::with_capacity(count);
    let mut seed = 0_u64;
    while names.len() < count {
        let name = JobName::parse(&format!("{batch}-{}", digits_of(batch, seed)))?;
        seed += 1;
        // By chance two may be the same.
        if taken.insert(name.clone()) {
            names.push(name);
        }
    }
    Some(names)
}

/// A digest of a job's place in a batch.
pub fn place_digest(batch: &JobName, index: u32) -> u128 {
    let text = format!("{batch}#{index}");
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let bytes = digest.as_ref().first_chunk().copied();
    bytes.map_or(0, u128::from_be_bytes)
}

/// The part of a job's name that its batch's has not, under which Radix knows it in its batch.
pub fn short_name<'a>(batch: &JobName, job: &'a JobName) -> Option<&'a str> {
    job.as_str().strip_prefix(batch.as_str())?.strip_prefix('-')
}

/// Digits in base 36 that look random and are always the same for the same batch and number.
pub fn digits_of(batch: &JobName, number: u64) -> String {
    let text = format!("{batch}/{number}");
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let digit = |byte: &u8| char::from_digit(u32::from(*byte) % 36, 36).unwrap_or('0');
    digest.as_ref().iter().take(RANDOM).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::at(1_787_736_409); // 2026-08-26T09:26:49Z

    #[test]
    fn a_batchs_name_has_46_characters() {
        let check = |component: &str, begin: &str| {
            let mut random = fastrand::Rng::with_seed(1);
            let name = generate_name(component, NOW, &mut random).unwrap();
            assert_eq!(name.as_str().len(), 46, "{name}");
            assert!(name.as_str().starts_with(begin), "{name}");
            assert!(name.as_str().contains("-20260826092649-"), "{name}");
        };
        check("compute", "batch-compute");
        check("c", "batch-c");
        check("a-component-of-a-long-name", "batch-a-component-");
    }

    #[test]
    fn the_names_of_jobs_follow_from_the_batchs() {
        let batch = JobName::parse("batch-compute8f3kq9x2a-20260821092649-hrwl53mw").unwrap();
        let names = job_names(&batch, MAX_JOBS).unwrap();
        let mut once = names.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), MAX_JOBS);
        assert!(names.iter().all(|name| name.as_str().len() == 55));
        assert_eq!(job_names(&batch, 3).unwrap(), names[..3]);
        let other = JobName::parse("batch-compute8f3kq9x2a-20260821092649-hrwl53mx").unwrap();
        assert_ne!(job_names(&other, 1), job_names(&batch, 1));
        let short = short_name(&batch, &names[0]).unwrap();
        assert_eq!(format!("{batch}-{short}"), names[0].as_str());
        assert_eq!(short_name(&other, &names[0]), None);
    }
}
