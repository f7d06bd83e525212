//! The log of a job, over HTTP as it is sent: local mode, jobs that are real processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::api::{Api, JOBS};
use support::eventually;
use support::local::Place;

const SHELL: &str = "command: [sh, -c]\nargs: ['echo hello']";
/// How many logs a scheduler sends at once.
const MAX_STREAMS: usize = 16;

fn script(script: &str) -> Value {
    json!({"args": [script]})
}

fn submit(api: &mut Api, script: &str) -> String {
    let job = api.submit(&json!({"args": [script]}));
    job["name"].as_str().unwrap().to_string()
}

/// A response that is still being read: its head, and the connection behind it.
struct Stream {
    head: String,
    body: BufReader<TcpStream>,
}

impl Stream {
    fn open(place: &Place, version: &str, target: &str) -> Stream {
        let host = format!("localhost:{}", place.ports[0]);
        let mut stream = TcpStream::connect(&host).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        write!(
            stream,
            "GET {target} HTTP/{version}\r\nHost: {host}\r\n\r\n"
        )
        .unwrap();
        let mut body = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(body.read_line(&mut head).unwrap() > 0, "{head}");
        }
        Stream { head, body }
    }

    fn follow(place: &Place, job: &str) -> Stream {
        Stream::open(place, "1.1", &format!("{JOBS}/{job}/logs?follow=true"))
    }

    fn code(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// The next chunk; `None` at the end.
    fn chunk(&mut self) -> Option<String> {
        let mut size = String::new();
        self.body.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        self.body.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        (size > 0).then(|| String::from_utf8(chunk).unwrap())
    }

    fn rest(&mut self) -> String {
        std::iter::from_fn(|| self.chunk()).collect()
    }
}

#[test]
fn a_finished_jobs_log_is_whole_or_its_last_lines() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let job = submit(&mut api, "seq 1 20000; echo done >&2; exit 3");
    api.wait_for(&job, "Failed");

    let mut whole = Stream::open(&place, "1.1", &format!("{JOBS}/{job}/logs"));
    for header in [
        "HTTP/1.1 200 OK",
        "Content-Type: text/plain; charset=utf-8",
        "Transfer-Encoding: chunked",
        "X-Content-Type-Options: nosniff",
        "X-Request-Id: ",
    ] {
        assert!(whole.head.contains(header), "{}", whole.head);
    }
    let expected: String = (1..=20000).map(|n| format!("{n}\n")).collect();
    assert_eq!(whole.rest(), expected + "done\n");

    let get =
        |query: &str| Stream::open(&place, "1.1", &format!("{JOBS}/{job}/logs?{query}")).rest();
    assert_eq!(get("tail=2"), "20000\ndone\n");
    assert_eq!(get("tail=0"), "");
    assert_eq!(get("tail=2&follow=true"), "20000\ndone\n");

    let mut old = Stream::open(&place, "1.0", &format!("{JOBS}/{job}/logs?tail=1"));
    assert!(old.head.contains("Connection: close"), "{}", old.head);
    let mut text = String::new();
    old.body.read_to_string(&mut text).unwrap();
    assert_eq!(text, "done\n");
    scheduler.end();
}

#[test]
fn a_log_is_followed_as_it_is_written_from_before_the_start_to_the_end() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&["--cpus", "1"]);
    let mut api = scheduler.api();
    let resources = json!({"requests": {"cpu": "1"}});
    let go = place.scratch.join("go");
    let wait = format!(
        "echo one; while ! test -e {}; do sleep 0.05; done; echo two",
        go.display()
    );
    let mut first = script(&wait);
    first["resources"] = resources.clone();
    let first = api.submit(&first)["name"].as_str().unwrap().to_string();
    let mut log = Stream::follow(&place, &first);
    assert_eq!(log.chunk().unwrap(), "one\n");

    // There is room for one at a time.
    let mut second = script("echo three");
    second["resources"] = resources;
    let second = api.submit(&second)["name"].as_str().unwrap().to_string();
    assert_eq!(api.job(&second)["status"], "Waiting");
    let mut nothing = Stream::open(&place, "1.1", &format!("{JOBS}/{second}/logs"));
    assert_eq!(nothing.rest(), "");
    let mut later = Stream::follow(&place, &second);
    std::fs::write(&go, "").unwrap();
    assert_eq!(log.rest(), "two\n");
    assert_eq!(later.rest(), "three\n");

    // Over the attempts, too.
    let again = json!({"args": ["echo attempt; exit 1"], "backoffLimit": 1, "resources": {}});
    let again = api.submit(&again)["name"].as_str().unwrap().to_string();
    assert_eq!(Stream::follow(&place, &again).rest(), "attempt\nattempt\n");
    scheduler.end();
}

#[test]
fn what_is_asked_for_wrongly_is_named() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&[]);
    let mut api = scheduler.api();
    let job = submit(&mut api, "true");
    let mut refused = |target: &str, code: u16, text: &str| {
        let answer = api.ask("GET", target, "");
        assert_eq!(answer.code, code, "{target}");
        let message = answer.json()["message"].as_str().unwrap().to_string();
        assert!(message.contains(text), "{message}");
    };
    refused(&format!("{JOBS}/compute-1/logs"), 404, "compute-1");
    refused(&format!("{JOBS}/{job}/logs?tail=x"), 400, "tail=x");
    refused(&format!("{JOBS}/{job}/logs?follow=1"), 400, "follow=1");
    scheduler.end();
}

#[test]
fn followers_are_bounded_and_make_room_as_they_leave_and_end_with_the_server() {
    let place = Place::new(&[("compute", SHELL)]);
    let scheduler = place.start(&["--grace-seconds", "1"]);
    let mut api = scheduler.api();
    let job = submit(&mut api, "echo up; sleep 1000");
    let mut logs: Vec<Stream> = (0..MAX_STREAMS)
        .map(|_| Stream::follow(&place, &job))
        .collect();
    for log in &mut logs {
        assert_eq!(log.code(), "200");
        assert_eq!(log.chunk().unwrap(), "up\n");
    }
    assert_eq!(Stream::follow(&place, &job).code(), "429");
    // The job is silent, so only the closed connections tell.
    logs.truncate(MAX_STREAMS / 2);
    eventually("there is room", || {
        let log = Stream::follow(&place, &job);
        (log.code() == "200").then_some(())
    });
    // The API is not held up.
    assert_eq!(api.ask("GET", JOBS, "").code, 200);
    let began = Instant::now();
    scheduler.signal("TERM");
    for log in &mut logs {
        assert_eq!(log.rest(), "");
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    scheduler.end();
}
