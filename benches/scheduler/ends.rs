//! What a caller waits for: from the POST to the first line of the job's code, from the end of its
//! container to the answer of `?wait`, and the whole, beside the Job's own condition Complete.

use crate::harness::cluster::Namespace;
use crate::harness::scheduler::{JOBS, Scheduler};
use crate::harness::{percentile, told, within};
use crate::raw::Raw;
use crate::table::{Row, Table};
use crate::{COMPONENT, SOME, captured, start_with};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread::scope;
use std::time::{Duration, Instant, SystemTime};

/// Jobs one after the other, and as many at once.
const JOBS_TIMED: usize = 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// When what happened to a job.
struct Times {
    posted: Instant,
    posted_by_the_clock: SystemTime,
    answered: Instant,
}

pub fn ends(table: &mut Table) {
    let namespace = Namespace::new("ends", COMPONENT);
    let writes = captured(&namespace, &json!({"payload": "p", "command": ["true"]}));
    let scheduler = start_with(
        &namespace,
        &["--max-jobs", "1000000", "--history-limit", "1000"],
    );
    let told = told::watch(&namespace);
    // The first pulls the image.
    run(&scheduler);
    for unfinished in [0, SOME] {
        if unfinished > 0 {
            Raw::new(&namespace, 8).held_jobs(&writes, unfinished);
            within(PATIENCE, || {
                let known = scheduler.list().len();
                let is_known = known >= unfinished;
                crate::harness::holds(is_known, || format!("{known} jobs known"))
            });
        }
        let one_by_one: BTreeMap<String, Times> =
            (0..JOBS_TIMED).map(|_| run(&scheduler)).collect();
        let at_once = Mutex::new(BTreeMap::new());
        scope(|scope| {
            for _ in 0..JOBS_TIMED {
                scope.spawn(|| {
                    let (name, times) = run(&scheduler);
                    at_once.lock().unwrap().insert(name, times);
                });
            }
        });
        let at_once = at_once.into_inner().unwrap();
        for (how, jobs) in [("one by one", one_by_one), ("20 at once", at_once)] {
            let jobs_text = format!("{how}, beside {unfinished} unfinished jobs");
            rows(table, &jobs_text, &namespace, &told, &jobs);
        }
    }
}

/// Runs a job to its end, as it is told to who waits for it.
fn run(scheduler: &Scheduler) -> (String, Times) {
    let request = json!({"payload": "p", "command": ["echo", "here"]});
    let (posted, posted_by_the_clock) = (Instant::now(), SystemTime::now());
    let name = scheduler.submit(&request);
    let mut connection = scheduler.connect().unwrap();
    let path = format!("{JOBS}/{name}?wait=9s");
    loop {
        let answer = connection.ask("GET", &path, &[], b"").unwrap();
        match answer.json()["status"].as_str() {
            Some("Succeeded") => break,
            Some("Running") if posted.elapsed() < PATIENCE => {}
            _ => panic!("{answer}"),
        }
    }
    let times = Times {
        posted,
        posted_by_the_clock,
        answered: Instant::now(),
    };
    (name, times)
}

fn rows(
    table: &mut Table,
    how: &str,
    namespace: &Namespace,
    told: &Mutex<told::Told>,
    jobs: &BTreeMap<String, Times>,
) {
    within(PATIENCE, || {
        let told = told.lock().unwrap();
        let missing = jobs.keys().find(|job| !told.conditions.contains_key(*job));
        missing.map_or(Ok(()), |job| Err(format!("no condition of {job}")))
    });
    let told = told.lock().unwrap();
    let (mut first_lines, mut answers) = (Vec::new(), Vec::new());
    let (mut wholes, mut conditions) = (Vec::new(), Vec::new());
    for (job, times) in jobs {
        let line = first_line(namespace, job);
        first_lines.push(
            line.duration_since(times.posted_by_the_clock)
                .unwrap_or_default(),
        );
        answers.push(
            times
                .answered
                .saturating_duration_since(told.containers[job]),
        );
        wholes.push(times.answered - times.posted);
        conditions.push(told.conditions[job].1 - times.posted);
    }
    let ms = |times: &mut Vec<Duration>, percent| percentile(times, percent).as_secs_f64() * 1e3;
    table.add(Row::figure(
        &format!("POST to the first line of the job, {how}"),
        format!("{:.0} ms (median)", ms(&mut first_lines, 50)),
    ));
    for (percent, bound) in [(50, 10.0), (99, 50.0)] {
        let label = format!("container's end to the answer of ?wait, p{percent}, {how}");
        table.add(Row::bound(&label, ms(&mut answers, percent), bound, "ms"));
    }
    let (whole, condition) = (ms(&mut wholes, 50), ms(&mut conditions, 50));
    table.add(Row::beside(
        &format!("POST to the answer of ?wait, median, {how}"),
        format!("{whole:.0} ms"),
        format!(
            "the Job's condition Complete: {condition:.0} ms; {:.2} of it",
            whole / condition
        ),
    ));
}

/// When the job wrote its first line, as its container's log has it.
fn first_line(namespace: &Namespace, job: &str) -> SystemTime {
    let pods = namespace.core_path("pods");
    let selector = format!("labelSelector=batch.kubernetes.io%2Fjob-name%3D{job}");
    let found = namespace.api.list(&format!("{pods}?{selector}"));
    let pod = found.first().map(crate::harness::cluster::name_of).unwrap();
    let path = format!("{pods}/{pod}/log?timestamps=true");
    let log = namespace.api.call("GET", &path, None).body;
    let log = String::from_utf8_lossy(&log).into_owned();
    let stamp = log.split(' ').next().unwrap_or_default();
    let format = &time::format_description::well_known::Rfc3339;
    let at = time::OffsetDateTime::parse(stamp, format);
    at.unwrap_or_else(|e| panic!("{e}: {log}")).into()
}
