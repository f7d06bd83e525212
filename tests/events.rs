//! Events over HTTP, as they are sent: local mode, jobs that are real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use std::io::Read;
use std::time::{Duration, Instant};
use support::api::{Api, JOBS};
use support::contract;
use support::events::{EVENTS, Reader};
use support::eventually;
use support::local::Place;

const SHELL: &str = "command: [sh, -c]\nargs: ['true']";
/// Readers at once.
const MAX_READERS: usize = 64;

fn submit(api: &mut Api, script: &str) -> String {
    let job = api.submit(&json!({"args": [script]}));
    job["name"].as_str().unwrap().to_string()
}

fn metric(api: &mut Api, name: &str) -> String {
    let text = String::from_utf8(api.ask("GET", "/metrics", "").body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().to_string()
}

#[test]
fn a_reader_is_told_of_all_jobs_and_then_of_what_changes() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let first = submit(&mut api, "true");
    api.wait_for(&first, "Succeeded");

    let mut reader = Reader::open(&place);
    assert_eq!(reader.code(), "200", "{}", reader.head);
    assert!(
        reader
            .head
            .contains("\r\nContent-Type: text/event-stream\r\n"),
        "{}",
        reader.head
    );
    assert!(
        reader.head.contains("\r\nCache-Control: no-store\r\n"),
        "{}",
        reader.head
    );
    let list = reader.next().unwrap();
    assert_eq!(
        (list.kind.as_str(), &list.data),
        ("list", &Value::from(api.list()))
    );

    let second = submit(&mut api, "sleep 0.3; exit 3");
    let mut statuses: Vec<String> = Vec::new();
    while statuses.last().is_none_or(|last| last != "Failed") {
        let event = reader.next().unwrap();
        assert_eq!(
            (event.kind.as_str(), &event.data["name"]),
            ("job", &json!(second))
        );
        statuses.push(event.data["status"].as_str().unwrap().to_string());
    }
    statuses.dedup();
    assert_eq!(statuses, ["Running", "Failed"]);
    let path = format!("{JOBS}/{second}");
    reader.until("it has ended", |jobs| {
        jobs[&second]["podStatuses"][0]["exitCode"] == 3
    });
    assert_eq!(reader.jobs[&second], api.job(&second));
    assert_eq!(api.ask("DELETE", &path, "").code, 200);
    let gone = reader.next().unwrap();
    assert_eq!(
        (gone.kind.as_str(), gone.data),
        ("gone", json!({"name": second}))
    );
    assert_eq!(reader.jobs.len(), 1);

    let head = api.ask("HEAD", EVENTS, "");
    assert_eq!((head.code, head.header("connection")), (200, Some("close")));
    scheduler.end();
}

/// Whatever happened meanwhile, of jobs that are there and of those that are gone.
#[test]
fn who_comes_again_is_told_what_it_missed_and_no_more() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let [kept, deleted] = [(); 2].map(|()| submit(&mut api, "true"));
    for job in [&kept, &deleted] {
        api.wait_for(job, "Succeeded");
    }
    let mut reader = Reader::open(&place);
    reader.next().unwrap();
    let mut reader = reader.again(&place);
    assert!(
        reader.until_silent(Duration::from_millis(300)).is_empty(),
        "it has missed nothing"
    );

    api.ask("DELETE", &format!("{JOBS}/{deleted}"), "");
    let made = submit(&mut api, "true");
    api.wait_for(&made, "Succeeded");
    let mut reader = reader.again(&place);
    reader.until("the end of a job", |jobs| {
        jobs.get(&made)
            .is_some_and(|job| job["status"] == "Succeeded")
            && jobs.len() == 2
    });
    let last = reader.last_id.clone();
    let event = reader.until_silent(Duration::from_millis(300));
    assert!(event.is_empty(), "{event:?}");
    let listed = api.list();
    assert!(
        listed
            .iter()
            .all(|job| reader.jobs[job["name"].as_str().unwrap()] == *job)
    );
    scheduler.end();

    // Another process knows nothing of that.
    let scheduler = place.start(&[]);
    let (mark, number) = last.split_once('-').unwrap();
    for id in [&last, "", "x", mark, number, &format!("{mark}-99999999")] {
        let mut reader = Reader::open_with(&place, &format!("Last-Event-ID: {id}\r\n"));
        let event = reader.next().unwrap();
        assert_eq!(
            (event.kind.as_str(), event.data.as_array().unwrap().len()),
            ("list", 2)
        );
        assert!(!event.id.starts_with(mark), "{id}");
        // Nor of what has not happened yet.
        let (mark, _) = event.id.split_once('-').unwrap();
        let later = format!("Last-Event-ID: {mark}-99999999\r\n");
        assert_eq!(
            Reader::open_with(&place, &later).next().unwrap().kind,
            "list"
        );
    }
    scheduler.end();
}

#[test]
fn the_places_in_the_queue_are_told() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&["--cpus", "1"]);
    let mut api = scheduler.api();
    let mut reader = Reader::open(&place);
    let jobs: Vec<String> = (0..4).map(|_| submit(&mut api, "sleep 100")).collect();
    let place_of = |jobs: &Value, name: &str| jobs[name]["queuePosition"].as_u64();
    reader.until("they wait", |known| {
        let known = json!(known);
        let mut waiting = jobs.iter().skip(1).zip(1..);
        waiting.all(|(job, place)| place_of(&known, job) == Some(place))
    });
    api.ask("POST", &format!("{JOBS}/{}/stop", jobs[0]), "");
    reader.until("they have moved up", |known| {
        let known = json!(known);
        let mut waiting = jobs.iter().skip(1).zip(0..);
        waiting.all(|(job, place)| place_of(&known, job) == Some(place).filter(|p| *p > 0))
    });
    scheduler.end();
}

#[test]
fn where_nothing_happens_a_comment_comes_now_and_then() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&[]);
    let mut reader = Reader::open(&place);
    reader.next().unwrap();
    let begun = Instant::now();
    assert_eq!(reader.block().unwrap(), Some(vec![":".to_string()]));
    let waited = begun.elapsed().as_secs_f64();
    assert!((14.0..18.0).contains(&waited), "{waited}");
    scheduler.end();
}

#[test]
fn no_more_read_than_may_and_who_is_gone_counts_no_more() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let mut readers: Vec<Reader> = (0..MAX_READERS).map(|_| Reader::open(&place)).collect();
    assert!(
        readers
            .iter_mut()
            .all(|reader| reader.next().unwrap().kind == "list")
    );
    assert_eq!(metric(&mut api, "job_scheduler_event_readers "), "64");
    let refused = api.ask("GET", EVENTS, "");
    assert_eq!(
        (refused.code, refused.header("retry-after")),
        (503, Some("5"))
    );
    let message = refused.json()["message"].to_string();
    assert!(message.contains("64 read the events"), "{message}");
    readers.pop();
    eventually("there is room again", || {
        (metric(&mut api, "job_scheduler_event_readers ") == "63").then_some(())
    });
    let mut reader = Reader::open(&place);
    assert_eq!(reader.next().unwrap().kind, "list");

    // The end lets them go at once.
    let begun = Instant::now();
    scheduler.end();
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        readers
            .iter_mut()
            .chain([&mut reader])
            .all(|reader| reader.next().is_none())
    );
}

/// One that takes nothing, however much is told meanwhile.
#[test]
fn a_slow_reader_is_cut() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&["--history-limit", "300"]);
    let mut api = scheduler.api();
    let large = json!({"jobId": "𝄞".repeat(253)});
    let names: Vec<Value> = (0..300)
        .map(|_| api.submit(&large)["name"].clone())
        .collect();
    api.wait_for(names[299].as_str().unwrap(), "Succeeded");
    // The buffers of both kernels hold less than a list.
    let slow = Reader::open(&place);
    let begun = Instant::now();
    eventually("it is cut", || {
        (metric(&mut api, "job_scheduler_event_readers ") == "0").then_some(())
    });
    let took = begun.elapsed().as_secs_f64();
    assert!((4.0..22.0).contains(&took), "{took}");
    let mut rest = Vec::new();
    let _ = slow.stream().read_to_end(&mut rest);
    let list = api.ask("GET", JOBS, "").body;
    assert!(rest.len() < list.len(), "{} of {}", rest.len(), list.len());
    scheduler.end();
}

#[test]
fn an_event_stream_is_guarded_as_any_other_request() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let host = format!("localhost:{}", place.ports[0]);
    let evil = [("Host", host.as_str()), ("Origin", "https://evil.example")];
    assert_eq!(api.ask_with("GET", EVENTS, &evil, "").code, 403);
    assert_eq!(
        api.ask_with("GET", EVENTS, &[("Host", "evil.example")], "")
            .code,
        403
    );
    assert_eq!(
        api.ask("POST", EVENTS, "").header("allow"),
        Some("GET, HEAD")
    );
    let own = format!("http://{host}");
    let mut reader = Reader::open_with(&place, &format!("Origin: {own}\r\n"));
    let event = reader.next().unwrap();
    let body = format!("id: {}\nevent: list\ndata: []\n\n", event.id);
    let headers = [("Content-Type", "text/event-stream"), ("X-Request-Id", "1")];
    contract::check("GET", EVENTS, 200, &headers, body.as_bytes());
    scheduler.end();
}
