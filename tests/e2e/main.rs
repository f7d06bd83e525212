//! The end-to-end test: the built binary and its image, on a real Kubernetes cluster, called from inside it.
//!
//! `scripts/e2e` runs it and gives it what it needs: `KUBECONFIG`, `SCHEDULER_IMAGE`, `JOB_IMAGE` and, on the project's
//! own cluster, `AUDIT_LOG`. Arguments are parts of the names of the tests to run.
//!
//! Two environments of one application are deployed once. Every test then has jobs of its own in them, and says what it
//! saw: that is printed, with its figures.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod api;
mod batches;
mod cluster;
mod control;
mod cost;
mod deployment;
mod errors;
mod events;
mod footprint;
mod isolation;
mod lifecycle;
mod logs;
mod overrides;
mod payload;
mod restart;
mod retention;
mod sidecar;
#[path = "../support/mod.rs"]
mod support;

use cluster::Cluster;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use support::contract;

/// A test: returns what it proved, a line each, and panics if it does not hold.
struct Test {
    name: &'static str,
    run: fn(&Cluster) -> Vec<String>,
}

macro_rules! tests {
    ($($module:ident::$name:ident)*) => { &[$(Test { name: stringify!($name), run: $module::$name }),*] };
}

/// One after the other: they measure, or look at what the schedulers ask of the API server.
const ALONE: &[Test] = tests![
    deployment::manifests_applied_twice_change_nothing
    deployment::the_scheduler_may_create_secrets_and_never_read_one
    isolation::a_schedulers_log_holds_no_payload_secret_or_token
    cost::no_get_reaches_the_api_server
    cost::a_post_with_a_payload_costs_two_writes_before_the_answer
    lifecycle::a_job_that_cannot_start_says_why_within_5_seconds
];

/// Beside each other.
const TOGETHER: &[Test] = tests![
    retention::the_10_latest_of_each_outcome_are_kept_with_their_secrets_and_services
    restart::a_restarted_scheduler_knows_every_job
    payload::payload_arrives_byte_for_byte
    overrides::a_failed_job_is_tried_again_as_often_as_asked
    overrides::a_job_ends_at_its_time_limit
    overrides::a_failure_policy_decides_by_exit_code
    overrides::a_request_overrides_its_component
    lifecycle::status_follows_the_exit_code
    control::a_job_is_stopped_and_restarted
    control::an_end_is_waited_for_without_polling
    control::a_request_that_is_sent_again_starts_no_second_job
    control::a_job_is_part_of_its_requests_trace
    logs::a_jobs_log_is_read_through_the_api
    logs::a_log_is_followed_to_the_jobs_end
    batches::a_batch_is_merged_as_radix_documents_it
    events::what_changes_is_told_as_it_does
    events::a_job_says_how_far_it_is
    lifecycle::answers_have_the_documented_fields
    lifecycle::a_job_leaves_a_result
    lifecycle::a_list_is_in_order_and_of_those_that_are_asked_for
    lifecycle::a_running_job_answers_by_its_name
    lifecycle::resources_are_reserved_while_a_job_runs_and_released_after
    lifecycle::a_job_that_uses_too_much_memory_says_so
    lifecycle::a_deleted_job_leaves_nothing
    isolation::components_and_environments_keep_to_themselves
    isolation::a_job_knows_where_it_is_and_has_its_secrets
    errors::every_wrong_request_is_told_what_is_wrong
    sidecar::an_application_has_its_scheduler_as_a_sidecar
    errors::health_is_told_at_its_own_paths
];

/// After all others, when the machine is quiet.
const AT_LAST: &[Test] = tests![
    footprint::the_api_is_that_of_every_backend
    footprint::ready_at_once_and_small
];

/// A job is mostly waited for, so more tests than processors run at once; a node of the project's own has 50 pods.
const THREADS: usize = 6;
/// The whole, or something hangs.
const LIMIT: Duration = Duration::from_secs(15 * 60);

fn main() -> ExitCode {
    let started = Instant::now();
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = |test: &&Test| filters.is_empty() || filters.iter().any(|f| test.name.contains(f));
    let chosen = |tests: &'static [Test]| tests.iter().filter(wanted).collect::<Vec<_>>();
    let report = Report::default();
    std::thread::scope(|scope| {
        let watchdog = scope.spawn(|| report.watch(started));
        match catch_unwind(Cluster::set_up) {
            Ok(cluster) => {
                println!("deployed in {:.1} s\n", started.elapsed().as_secs_f64());
                run(&cluster, chosen(ALONE), 1, &report);
                run(&cluster, chosen(TOGETHER), THREADS, &report);
                run(&cluster, chosen(AT_LAST), 1, &report);
                cluster.tear_down(report.failed());
            }
            Err(_) => report.lock().failed.push("the deployment"),
        }
        report.lock().done = true;
        watchdog.thread().unpark();
    });
    let state = report.lock();
    println!(
        "\ntest result: {}. {} passed; {} failed; {} skipped; finished in {:.1} s",
        if state.failed.is_empty() {
            "ok"
        } else {
            "FAILED"
        },
        state.passed,
        state.failed.len(),
        ALONE.len() + TOGETHER.len() + AT_LAST.len() - state.passed - state.failed.len(),
        started.elapsed().as_secs_f64()
    );
    for name in &state.failed {
        println!("failed: {name}");
    }
    if state.failed.is_empty() && state.passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(cluster: &Cluster, tests: Vec<&Test>, threads: usize, report: &Report) {
    let waiting = Mutex::new(tests.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let work = || {
                while let Some(test) = { waiting.lock().unwrap().next() } {
                    report.run(test, cluster);
                }
            };
            scope.spawn(work);
        }
    });
}

#[derive(Default)]
struct Report(Mutex<State>);

#[derive(Default)]
struct State {
    running: Vec<&'static str>,
    failed: Vec<&'static str>,
    passed: usize,
    done: bool,
}

impl Report {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn failed(&self) -> bool {
        !self.lock().failed.is_empty()
    }

    fn run(&self, test: &Test, cluster: &Cluster) {
        self.lock().running.push(test.name);
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (test.run)(cluster)));
        let seconds = started.elapsed().as_secs_f64();
        let mut state = self.lock();
        state.running.retain(|name| *name != test.name);
        match outcome {
            Ok(proved)
                if proved
                    .iter()
                    .any(|line| line.starts_with(cluster::NOT_TESTED)) =>
            {
                println!("test {} ... skipped", test.name);
                println!("    {}", proved.join("\n    "));
            }
            Ok(proved) => {
                state.passed += 1;
                println!("test {} ... ok ({seconds:.1} s)", test.name);
                for line in proved {
                    println!("    {line}");
                }
            }
            Err(cause) => {
                state.failed.push(test.name);
                let text = cause.downcast_ref::<String>().map(String::as_str);
                let text = text.or(cause.downcast_ref::<&str>().copied());
                println!("test {} ... FAILED ({seconds:.1} s)", test.name);
                println!("    {}", text.unwrap_or("a panic without words"));
            }
        }
    }

    /// Ends it all when it takes too long, and says what hangs.
    fn watch(&self, started: Instant) {
        while !self.lock().done {
            if started.elapsed() > LIMIT {
                println!(
                    "test result: FAILED. Gave up after {LIMIT:?} on {:?}",
                    self.lock().running
                );
                std::process::exit(1);
            }
            std::thread::park_timeout(Duration::from_secs(1));
        }
    }
}
