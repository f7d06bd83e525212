//! Any method and target is a route or an error, and a trailing slash makes no difference.

#![no_main]

use job_scheduler::http::{MAX_WAIT_SECONDS, Reply, Route};
use job_scheduler::job::JobName;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &str| {
    let (method, target) = line.split_once(' ').unwrap_or(("GET", line));
    let parsed = Route::parse(method, target);
    if let Ok(Route::GetJob {
        wait: Some(wait), ..
    }) = &parsed
    {
        assert!(wait.as_secs() <= MAX_WAIT_SECONDS);
    }
    if let Ok(Route::GetJob { name, .. } | Route::DeleteJob { name }) = &parsed
        && let Some(name) = JobName::parse(name)
    {
        assert!(!name.as_str().contains(['/', '.', '%']));
    }
    if let Err(error) = &parsed {
        let reply = Reply::from(error);
        assert!((400..500).contains(&reply.code) && !reply.body.is_empty());
    }
    if !target.contains(['?', '#']) && !target.ends_with('/') {
        assert_eq!(Route::parse(method, &format!("{target}/")), parsed);
    }
});
