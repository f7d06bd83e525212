//! Any body of a POST of a batch is a batch within its bounds or a message, which stays on one line
//! and short.

#![no_main]

use job_scheduler::batch::MAX_JOBS;
use job_scheduler::batch::request::parse_batch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    match parse_batch(body) {
        Ok(batch) => {
            assert!((1..=MAX_JOBS).contains(&batch.jobs.len()));
            let in_bounds = |priority: i8| (-100..=100).contains(&priority);
            assert!(batch.jobs.iter().all(|job| in_bounds(job.priority)));
            assert_eq!(parse_batch(body).unwrap(), batch);
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.is_empty() && message.len() < 64 * 1024);
            assert!(!message.contains(['\n', '\r', '\0']), "{message:?}");
        }
    }
});
