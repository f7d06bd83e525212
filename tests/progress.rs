//! How far jobs are, as they say themselves, and who is told: local mode, jobs that are real
//! processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};
use support::api::{Api, JOBS, Response};
use support::events::Reader;
use support::eventually;
use support::local::Place;

const SHELL: &str = "command: [sh, -c]\nargs: ['sleep 100']";

fn submit(api: &mut Api, script: &str) -> String {
    let job = api.submit(&json!({"args": [script]}));
    job["name"].as_str().unwrap().to_string()
}

fn put(api: &mut Api, job: &str, body: &str) -> Response {
    api.ask("PUT", &format!("{JOBS}/{job}/progress"), body)
}

fn stop(api: &mut Api, job: &str) {
    let response = api.ask("POST", &format!("{JOBS}/{job}/stop"), "");
    assert_eq!(response.code, 200, "{}", response.json());
    api.wait_for(job, "Stopped");
}

/// What the scheduler's folder has of a job.
fn record(place: &Place, job: &str) -> String {
    let path = place.data().join("test-dev/compute/records").join(job);
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
}

#[test]
fn a_job_finds_in_its_environment_where_to_say_how_far_it_is() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let report = r#"'{"percent": 42.5, "message": "half of it"}'"#;
    let script = format!("curl -sf -X PUT -d {report} \"$JOB_PROGRESS_URL\"; sleep 100");
    let job = submit(&mut api, &script);
    let mut reader = Reader::open(&place);
    reader.until("it says how far it is", |jobs| {
        jobs.get(&job)
            .is_some_and(|job| job["progress"].is_object())
    });
    let progress = api.job(&job)["progress"].clone();
    assert_eq!(
        (&progress["percent"], &progress["message"]),
        (&json!(42), &json!("half of it"))
    );
    let updated = progress["updated"].as_str().unwrap();
    assert!(updated.ends_with('Z') && updated.len() == 20, "{progress}");
    assert_eq!(api.list()[0]["progress"], progress);
    scheduler.end();
}

#[test]
fn wrong_reports_are_refused_by_name() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let job = submit(&mut api, "sleep 100");
    let long = format!(r#"{{"percent": 1, "message": "{}"}}"#, "x".repeat(257));
    let larger = format!(r#"{{"percent": 1, "message": "{}"}}"#, "x".repeat(8000));
    for (body, code, named) in [
        ("", 400, "JSON"),
        ("{", 400, "JSON"),
        ("40", 422, "object"),
        ("{}", 422, "percent"),
        (r#"{"percent": 101}"#, 422, "percent"),
        (r#"{"percent": "40"}"#, 422, "percent"),
        (r#"{"percent": 40, "message": 1}"#, 422, "message"),
        (r#"{"percent": 40, "messages": ""}"#, 422, "messages"),
        (&long, 422, "message"),
        (&larger, 413, "bytes"),
    ] {
        let response = put(&mut api, &job, body);
        let message = response.json()["message"].to_string();
        assert!(
            response.code == code && message.contains(named),
            "{body}: {message}"
        );
    }
    assert!(api.job(&job)["progress"].is_null());
    assert_eq!(put(&mut api, "none", r#"{"percent": 1}"#).code, 404);
    let get = api.ask("GET", &format!("{JOBS}/{job}/progress"), "");
    assert_eq!((get.code, get.header("allow")), (405, Some("PUT")));

    assert_eq!(put(&mut api, &job, r#"{"percent": 7}"#).code, 200);
    assert_eq!(
        put(&mut api, &job, r#"{"percent": 8, "message": null}"#).code,
        200
    );
    let progress = &api.job(&job)["progress"];
    assert!(
        progress["percent"] == 8 && progress["message"].is_null(),
        "{progress}"
    );
    stop(&mut api, &job);
    let finished = put(&mut api, &job, r#"{"percent": 9}"#);
    assert_eq!(finished.code, 400, "{}", finished.json());
    assert_eq!(api.job(&job)["progress"]["percent"], 8);
    scheduler.end();
}

#[test]
fn ten_reports_a_second_are_taken_of_each_job() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&["--cpus", "2"]);
    let mut api = scheduler.api();
    let [job, other] = [(); 2].map(|()| submit(&mut api, "sleep 100"));
    let begun = Instant::now();
    let mut taken = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        let response = put(&mut api, &job, r#"{"percent": 1}"#);
        match response.code {
            200 => taken += 1,
            _ => assert_eq!(
                (response.code, response.header("retry-after")),
                (429, Some("1"))
            ),
        }
    }
    assert!((20..=31).contains(&taken), "{taken} in two seconds");
    assert_eq!(put(&mut api, &other, r#"{"percent": 1}"#).code, 200);
    scheduler.end();
}

/// Whatever ends the scheduler.
#[test]
fn progress_outlives_the_scheduler_and_ends_with_a_restart() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&["--cpus", "2"]);
    let mut api = scheduler.api();
    let [ended, running] = [(); 2].map(|()| submit(&mut api, "sleep 100"));
    for percent in [5, 6, 7] {
        let body = json!({"percent": percent, "message": "some"}).to_string();
        assert_eq!(put(&mut api, &ended, &body).code, 200);
        assert_eq!(put(&mut api, &running, &body).code, 200);
    }
    let written = |job: &str| record(&place, job).matches("\"Progress\"").count();
    assert_eq!(written(&ended), 0, "not at each report");
    stop(&mut api, &ended);
    eventually("its end is written with it", || {
        (written(&ended) == 1).then_some(())
    });
    let begun = Instant::now();
    eventually("it is kept now and then", || {
        (written(&running) == 1).then_some(())
    });
    assert!(
        begun.elapsed() < Duration::from_secs(12),
        "{:?}",
        begun.elapsed()
    );
    scheduler.kill();

    let scheduler = place.start(&["--cpus", "2"]);
    let mut api = scheduler.api();
    for job in [&ended, &running] {
        let progress = &api.job(job)["progress"];
        assert!(
            progress["percent"] == 7 && progress["message"] == "some",
            "{progress}"
        );
    }
    let restarted = api
        .ask("POST", &format!("{JOBS}/{ended}/restart"), "")
        .json();
    assert!(
        restarted["name"] == ended.as_str() && restarted["progress"].is_null(),
        "{restarted}"
    );
    api.wait_for(&ended, "Running");
    scheduler.kill();
    let scheduler = place.start(&["--cpus", "2"]);
    assert!(scheduler.api().job(&ended)["progress"].is_null());
    scheduler.end();
}

/// What a reader has seen: of each job, the last percent, and when it came.
type Seen = BTreeMap<String, (u64, Instant)>;

/// Readers, and changes that all of them are told of.
const READERS: usize = 64;
const JOBS_THAT_REPORT: usize = 50;
const REPORTS: usize = 20;

#[test]
fn many_readers_see_the_last_state_of_each_job_at_once() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&["--cpus", "100"]);
    let mut api = scheduler.api();
    let jobs: Vec<String> = (0..JOBS_THAT_REPORT)
        .map(|_| submit(&mut api, "exec sleep 100"))
        .collect();
    for job in &jobs {
        api.wait_for(job, "Running");
    }
    // Once, so that what a request of its kind takes is there before.
    for job in &jobs {
        assert_eq!(put(&mut api, job, r#"{"percent": 0}"#).code, 200);
    }
    drop(Reader::open(&place));
    thread::sleep(Duration::from_secs(2));
    let before = scheduler.status("VmRSS");

    let last = u64::try_from(REPORTS).unwrap();
    let readers: Vec<Reader> = (0..READERS).map(|_| Reader::open(&place)).collect();
    let events = Mutex::new(0);
    let (seen, told) = thread::scope(|scope| {
        let read = |mut reader: Reader| {
            let (mut seen, mut count) = (Seen::new(), 0);
            while seen.len() < jobs.len() || seen.values().any(|(percent, _)| *percent < last) {
                let event = reader.next().unwrap();
                count += 1;
                let name = event.data["name"].as_str().map(str::to_string);
                let percent = event.data["progress"]["percent"].as_u64();
                if let Some((name, percent)) = name.zip(percent) {
                    let before = seen.insert(name, (percent, Instant::now()));
                    assert!(
                        before.is_none_or(|(before, _)| before <= percent),
                        "an older state"
                    );
                }
            }
            *events.lock().unwrap() += count;
            (seen, reader)
        };
        let readers: Vec<_> = readers
            .into_iter()
            .map(|reader| scope.spawn(move || read(reader)))
            .collect();
        let mut told = BTreeMap::new();
        let mut due = Instant::now();
        for percent in 1..=REPORTS {
            for job in &jobs {
                let body = json!({"percent": percent}).to_string();
                let at = Instant::now();
                assert_eq!(put(&mut api, job, &body).code, 200, "{percent}");
                told.insert(job.clone(), at);
            }
            // Ten a second of each job.
            due += Duration::from_millis(110);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let seen: Vec<_> = readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect();
        (seen, told)
    });
    let after = scheduler.status("VmRSS");
    let delays = seen
        .iter()
        .flat_map(|(seen, _)| seen)
        .map(|(job, (_, at))| *at - told[job]);
    let mut delays: Vec<Duration> = delays.collect();
    delays.sort();
    let (p50, max) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    let events = *events.lock().unwrap();
    println!(
        "{READERS} readers, {} changes in {events} events: the last state of a job is seen after \
         p50 {p50:?}, max {max:?}; resident {before} kB before the readers came, {after} kB now",
        JOBS_THAT_REPORT * REPORTS
    );
    assert!(
        max < Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 100 }),
        "{max:?}"
    );
    // The test's own build keeps more of everything on its stacks.
    let allowed = if cfg!(debug_assertions) { 4096 } else { 2048 };
    assert!(
        after.saturating_sub(before) <= allowed,
        "{before} kB, {after} kB"
    );
    let known: Vec<&BTreeMap<String, Value>> =
        seen.iter().map(|(_, reader)| &reader.jobs).collect();
    assert!(
        known.windows(2).all(|pair| pair[0] == pair[1]),
        "all know the same"
    );
    scheduler.end();
}
