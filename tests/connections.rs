//! HTTP as clients speak it, byte by byte, against local mode.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use support::api::JOBS;
use support::local::{Place, Running};
use support::{PATIENCE, eventually};

/// A component whose jobs write their payload to a file of their name.
const JOB: &str = r#"command: ["sh", "-c", "cat $JOB_PAYLOAD_FILE > $SCRATCH/$RADIX_JOB_NAME"]
payload: {path: /args}
secrets: [SCRATCH]"#;
/// Long for an answer from memory, on a machine that has much to do.
const SOON: Duration = Duration::from_secs(2);

/// A connection, and every byte of it.
struct Wire {
    stream: TcpStream,
    host: String,
}

impl Wire {
    fn open(place: &Place) -> Wire {
        let host = format!("localhost:{}", place.ports[0]);
        let stream = TcpStream::connect(("127.0.0.1", place.ports[0])).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { stream, host }
    }

    /// Sends a request: its first line, headers as `A: b | C: d`, and whatever comes after the
    /// head.
    fn send(&mut self, first: &str, headers: &str, rest: &str) {
        let mut text = format!("{first}\r\nHost: {}\r\n", self.host);
        for header in headers.split(" | ").filter(|header| !header.is_empty()) {
            text += &format!("{header}\r\n");
        }
        self.write(&format!("{text}\r\n{rest}"));
    }

    fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    /// An answer: its code, its head and its body.
    fn answer(&mut self) -> (u16, String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match self.stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                outcome => panic!("{outcome:?} after {}", String::from_utf8_lossy(&head)),
            }
        }
        let head = String::from_utf8(head).unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut length = head
            .lines()
            .filter_map(|l| l.strip_prefix("Content-Length: "));
        let length = length.next().map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        (code, head, String::from_utf8(body).unwrap())
    }

    #[track_caller]
    fn expect(&mut self, code: u16) -> String {
        let (given, head, body) = self.answer();
        assert_eq!(given, code, "{head}{body}");
        body
    }

    /// Nothing comes any more.
    #[track_caller]
    fn expect_end(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            Err(e) => panic!("{e}"),
        }
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

#[track_caller]
fn is_alive(place: &Place) {
    let began = Instant::now();
    let mut wire = Wire::open(place);
    wire.send("GET /health/live HTTP/1.1", "", "");
    wire.expect(200);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// The payload that a job got.
fn payload(place: &Place, job: &str) -> String {
    let job: Value = serde_json::from_str(job).unwrap();
    let name = job["name"].as_str().unwrap().to_string();
    eventually("the job has its payload", || {
        std::fs::read_to_string(place.scratch.join(&name))
            .ok()
            .filter(|text| !text.is_empty())
    })
}

fn start(place: &Place) -> Running<'_> {
    place.start(&["--history-limit", "1000"])
}

/// What Java's `java.net.http.HttpClient` sends with its defaults, and `curl --http2`.
#[test]
fn who_offers_an_upgrade_is_answered_as_any_other() {
    let place = Place::new(&[("compute", JOB)]);
    let scheduler = start(&place);
    let upgrade = "Connection: Upgrade, HTTP2-Settings | Upgrade: h2c | \
                   HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA";
    let mut wire = Wire::open(&place);
    let began = Instant::now();
    for (framing, body) in [
        ("Content-Length: 18", "{\"payload\": \"abc\"}"),
        (
            "Transfer-Encoding: chunked",
            "12\r\n{\"payload\": \"abc\"}\r\n0\r\n\r\n",
        ),
    ] {
        wire.send(
            &format!("POST {JOBS} HTTP/1.1"),
            &format!("{upgrade} | {framing}"),
            body,
        );
        assert_eq!(payload(&place, &wire.expect(200)), "abc");
    }
    wire.send(&format!("GET {JOBS} HTTP/1.1"), upgrade, "");
    wire.expect(200);
    assert!(began.elapsed() < 2 * SOON);

    // One whose body does not come.
    let mut silent = Wire::open(&place);
    silent.send(
        &format!("POST {JOBS} HTTP/1.1"),
        &format!("{upgrade} | Content-Length: 18"),
        "",
    );
    for _ in 0..10 {
        is_alive(&place);
    }
    scheduler.end();
}

#[test]
fn who_waits_to_send_its_body_is_told_to_go_on() {
    let place = Place::new(&[("compute", JOB)]);
    let scheduler = start(&place);
    let mut wire = Wire::open(&place);
    for (framing, body) in [
        ("Content-Length: 18", "{\"payload\": \"abc\"}"),
        (
            "Transfer-Encoding: chunked",
            "12\r\n{\"payload\": \"abc\"}\r\n0\r\n\r\n",
        ),
    ] {
        let expect = format!("Expect: 100-Continue | {framing}");
        wire.send(&format!("POST {JOBS} HTTP/1.1"), &expect, "");
        // A client may take long.
        is_alive(&place);
        let (code, head, _) = wire.answer();
        assert_eq!(
            (code, head.as_str()),
            (100, "HTTP/1.1 100 Continue\r\n\r\n")
        );
        wire.write(body);
        assert_eq!(payload(&place, &wire.expect(200)), "abc");
        // It need not wait.
        wire.send(&format!("POST {JOBS} HTTP/1.1"), &expect, body);
        assert_eq!(payload(&place, &wire.expect(200)), "abc");
    }
    wire.send("GET /health/live HTTP/1.1", "Expect: 100-continue", "");
    wire.expect(200);
    // What is not wanted is not asked for.
    for (first, headers, code) in [
        (
            format!("POST {JOBS} HTTP/1.1"),
            "Expect: 100-continue | Content-Length: 99999999",
            413,
        ),
        (
            "POST /nowhere HTTP/1.1".to_string(),
            "Expect: 100-continue | Content-Length: 9",
            404,
        ),
    ] {
        let mut wire = Wire::open(&place);
        wire.send(&first, headers, "");
        let (given, head, body) = wire.answer();
        assert!(
            given == code && head.contains("Connection: close"),
            "{head}{body}"
        );
        wire.expect_end();
    }
    scheduler.end();
}

/// As .NET's PostAsJsonAsync and Node's streams send them.
#[test]
fn small_chunked_bodies_are_taken_whatever_their_number() {
    const CLIENTS: usize = 40;
    let place = Place::new(&[("compute", JOB)]);
    let scheduler = start(&place);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Wire::open(&place)).collect();
    for wire in &mut clients {
        wire.send(
            &format!("POST {JOBS} HTTP/1.1"),
            "Transfer-Encoding: chunked",
            "",
        );
    }
    for wire in &mut clients {
        wire.write("10\r\n{\"payload\": \"x\"}\r\n");
    }
    for wire in &mut clients {
        // With a trailer, as gRPC's and Node's clients may add.
        wire.write("0\r\nX-Checksum: abc\r\n\r\n");
    }
    for wire in &mut clients {
        wire.expect(200);
        wire.send("GET /health/live HTTP/1.1", "", "");
        wire.expect(200);
    }
    scheduler.end();
}

#[test]
fn a_body_whose_end_is_not_sure_starts_no_job() {
    let place = Place::new(&[("compute", JOB)]);
    let scheduler = start(&place);
    // What would be served if the body were taken for the next request.
    let smuggled = format!(
        "POST {JOBS} HTTP/1.1\r\nHost: localhost:{}\r\n\r\n",
        place.ports[0]
    );
    let chunked = "Transfer-Encoding: chunked";
    for (headers, code) in [
        ("Content-Length: -1", 400),
        ("Content-Length: +1", 400),
        ("Content-Length: 2, 2", 400),
        ("Content-Length: 2 | Content-Length: 3", 400),
        ("Content-Length: x", 400),
        ("Content-Length:", 400),
        ("Content-Length: 18446744073709551617", 413),
        ("Content-Length: 2000000000", 413),
        // More than there is memory.
        ("Content-Length: 9000000000000000000", 413),
        ("Content-Length: 2 | Transfer-Encoding: chunked", 400),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: identity", 501),
        ("Transfer-Encoding : chunked", 400),
        ("Content-Length : 2", 400),
        (chunked, 400),
    ] {
        for expect in ["", " | Expect: 100-continue"] {
            let mut wire = Wire::open(&place);
            let headers = format!("{headers}{expect}");
            wire.send(&format!("POST {JOBS} HTTP/1.1"), &headers, &smuggled);
            let (given, head, body) = wire.answer();
            assert!(
                given == code && head.contains("Connection: close"),
                "{headers}: {head}{body}"
            );
            assert!(body.contains("\"status\":\"Failure\""), "{body}");
            wire.expect_end();
        }
    }
    let whole = "10\r\n{\"payload\": \"x\"}\r\n0\r\n\r\n";
    let length = "Content-Length: 16";
    for (headers, sent) in [
        (length, ""),
        (length, "{\"payload\":"),
        (chunked, ""),
        (chunked, "0"),
        (chunked, "0\r\n"),
        (chunked, "10\r\n"),
        (chunked, &whole[..10]),
        (chunked, "2\r\n{}\r\n"),
        (chunked, &whole[..whole.len() - 1]),
    ] {
        let mut wire = Wire::open(&place);
        wire.send(&format!("POST {JOBS} HTTP/1.1"), headers, sent);
        wire.stream.shutdown(Shutdown::Write).unwrap();
        wire.expect(400);
        wire.expect_end();
    }
    let mut old = Wire::open(&place);
    old.send(&format!("POST {JOBS} HTTP/1.0"), chunked, whole);
    old.expect(400);
    let mut wire = Wire::open(&place);
    wire.send(&format!("GET {JOBS} HTTP/1.1"), "", "");
    assert_eq!(wire.expect(200), "[]");
    scheduler.end();
}

#[test]
fn heads_are_bounded_in_size_number_and_time() {
    let place = Place::new(&[("compute", JOB)]);
    let scheduler = start(&place);
    is_alive(&place);
    let mut slow = Wire::open(&place);
    slow.write("GET /health/live HTTP/1.1\r\n");
    let began = Instant::now();

    let before = scheduler.status("VmRSS");
    for (lines, what) in [
        ("a:\r\n", "small headers"),
        ("a: 0123456789abcdef\r\n", "headers"),
    ] {
        let mut wire = Wire::open(&place);
        let many = lines.repeat(8_000_000 / lines.len());
        let text = format!("GET /health/live HTTP/1.1\r\nHost: x\r\n{many}\r\n");
        let mut writer = wire.stream.try_clone().unwrap();
        // The server does not take it all.
        let sent = thread::spawn(move || writer.write_all(text.as_bytes()));
        let (code, _, body) = wire.answer();
        assert_eq!(code, 431, "{what}: {body}");
        let _ = sent.join().unwrap();
    }
    let mut endless = Wire::open(&place);
    let mut writer = endless.stream.try_clone().unwrap();
    let sent = thread::spawn(move || writer.write_all(&[b'a'; 1_000_000]));
    endless.expect(431);
    let _ = sent.join().unwrap();
    let grown = scheduler.status("VmRSS").saturating_sub(before);
    assert!(grown < 4096, "{grown} kB more for 17 MB of heads");

    // The most that is taken.
    let mut wire = Wire::open(&place);
    let large = format!("X: {} | Y: {}", "x".repeat(8000), "y".repeat(8000));
    wire.send("GET /health/live HTTP/1.1", &large, "");
    wire.expect(200);

    // A byte now and then does not help.
    while began.elapsed() < Duration::from_secs(9) {
        slow.write("a:\r\n");
        thread::sleep(Duration::from_millis(500));
    }
    slow.expect(408);
    slow.expect_end();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(16), "{took:?}");
    scheduler.end();
}

#[test]
fn what_is_not_http_1_1_is_told_so() {
    let place = Place::new(&[("compute", JOB)]);
    let scheduler = start(&place);
    for (sent, code) in [
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET /health/live HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        ("GET /health/live HTTP/3.0\r\n\r\n", 505),
        // A client that speaks TLS.
        ("\x16\x03\x01\x02\x00\x01\x00\x01", 400),
        ("hello\r\n\r\n", 400),
        ("GET /health/live HTTP/1.1\nHost: x\n\n", 400),
        (
            "GET /health/live HTTP/1.1\r\nHost: x\r\n continued\r\n\r\n",
            400,
        ),
        ("GET /health/live\r\n\r\n", 400),
    ] {
        let mut wire = Wire::open(&place);
        wire.write(sent);
        let (given, head, body) = wire.answer();
        assert!(
            given == code && head.contains("Connection: close"),
            "{sent}: {head}{body}"
        );
        let status: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&status["status"], &status["code"]),
            (&"Failure".into(), &code.into())
        );
        wire.expect_end();
    }
    for _ in 0..50 {
        is_alive(&place);
    }
    scheduler.end();
}

#[test]
fn unusual_requests_are_served() {
    let place = Place::new(&[("compute", JOB)]);
    let scheduler = start(&place);
    let mut wire = Wire::open(&place);
    let host = wire.host.clone();
    // As to a proxy, and with empty lines in front.
    for first in [
        format!("GET http://{host}{JOBS} HTTP/1.1"),
        format!("GET HTTP://{host}{JOBS}/?x=1 HTTP/1.1"),
        format!("\r\n\r\nGET {JOBS} HTTP/1.1"),
        format!("GET {JOBS}/ HTTP/1.1"),
    ] {
        wire.send(&first, "", "");
        assert_eq!(wire.expect(200), "[]", "{first}");
    }
    wire.send(
        &format!("GET http://rebound.example{JOBS} HTTP/1.1"),
        "",
        "",
    );
    wire.expect(403);
    // Any byte may be in a header.
    for header in [
        "X-Foo: é",
        "X-Foo: \u{1F600}",
        "User-Agent: \u{80}",
        "X-Request-Id: é",
    ] {
        wire.send(&format!("GET {JOBS} HTTP/1.1"), header, "");
        assert_eq!(wire.expect(200), "[]", "{header}");
    }
    wire.send(&format!("POST {JOBS} HTTP/1.1"), "Idempotency-Key: é", "");
    assert!(wire.expect(400).contains("Idempotency-Key"));
    wire.send(&format!("GET {JOBS}/é HTTP/1.1"), "", "");
    wire.expect(404);
    // HEAD has the same head and no body.
    wire.send(&format!("HEAD {JOBS} HTTP/1.1"), "", "");
    let mut head = [0; 4096];
    let count = wire.stream.read(&mut head).unwrap();
    let head = String::from_utf8_lossy(&head[..count]).into_owned();
    assert!(
        head.contains("Content-Length: 2\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    // The connection ends when it should.
    wire.send(
        "GET /health/live HTTP/1.1",
        "Connection: keep-alive, close",
        "",
    );
    let (code, head, _) = wire.answer();
    assert!(code == 200 && head.contains("Connection: close"));
    wire.expect_end();
    let mut old = Wire::open(&place);
    old.send("GET /health/live HTTP/1.0", "", "");
    old.expect(200);
    old.expect_end();
    scheduler.end();
}

#[test]
fn a_request_that_waits_may_have_a_body() {
    let place = Place::new(&[("compute", r#"command: ["sleep", "0.5"]"#)]);
    let scheduler = start(&place);
    let mut wire = Wire::open(&place);
    for (framing, body) in [
        ("Content-Length: 2", "{}".to_string()),
        ("Content-Length: 3000", " ".repeat(3000)),
        (
            "Transfer-Encoding: chunked",
            "2\r\n{}\r\n0\r\n\r\n".to_string(),
        ),
    ] {
        wire.send(&format!("POST {JOBS} HTTP/1.1"), "", "");
        let job: Value = serde_json::from_str(&wire.expect(200)).unwrap();
        let path = format!("{JOBS}/{}", job["name"].as_str().unwrap());
        wire.send(&format!("GET {path}?wait=60s HTTP/1.1"), framing, &body);
        let job: Value = serde_json::from_str(&wire.expect(200)).unwrap();
        assert_eq!(job["status"], "Succeeded", "{framing}");
        if framing.starts_with("Content-Length") {
            // So may one for a log.
            let mut old = Wire::open(&place);
            old.send(
                &format!("GET {path}/logs?follow=true HTTP/1.0"),
                framing,
                &body,
            );
            old.expect(200);
            old.expect_end();
        }
    }
    // Waiting is not in the latency of the others.
    wire.send("GET /metrics HTTP/1.1", "", "");
    let metrics = wire.expect(200);
    let count = |route: &str| {
        let name = "job_scheduler_http_request_duration_seconds_count";
        let prefix = format!("{name}{{route=\"{route}\",code=\"200\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&prefix));
        line.map(str::to_string)
    };
    assert_eq!((count("wait").as_deref(), count("get")), (Some("3"), None));
    assert!(
        !metrics.contains("queue_depth"),
        "jobs{{status=\"Waiting\"}} says it"
    );
    scheduler.end();
}

/// As `nc` does at the end of its input.
#[test]
fn who_has_closed_its_half_of_the_connection_is_answered() {
    let place = Place::new(&[("compute", r#"command: ["sleep", "3"]"#)]);
    let scheduler = start(&place);
    let mut wire = Wire::open(&place);
    wire.send(&format!("POST {JOBS} HTTP/1.1"), "", "");
    wire.stream.shutdown(Shutdown::Write).unwrap();
    let job: Value = serde_json::from_str(&wire.expect(200)).unwrap();
    wire.expect_end();
    let mut wire = Wire::open(&place);
    let path = format!("{JOBS}/{}?wait=60s", job["name"].as_str().unwrap());
    wire.send(&format!("GET {path} HTTP/1.1"), "", "");
    wire.stream.shutdown(Shutdown::Write).unwrap();
    let job: Value = serde_json::from_str(&wire.expect(200)).unwrap();
    assert_eq!(job["status"], "Succeeded");
    wire.expect_end();
    scheduler.end();
}

/// Nobody would start it again on one's own machine, and its end is that of all jobs.
#[test]
fn running_out_of_descriptors_ends_nothing() {
    const FILES: usize = 120;
    let place = Place::new(&[("compute", r#"command: ["sleep", "1000"]"#)]);
    let command = place.command(&["--grace-seconds", "0"]);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", &format!("ulimit -n {FILES}; exec \"$0\" \"$@\"")])
        .arg(command.get_program())
        .args(command.get_args())
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = limited.spawn().unwrap();
    eventually("it listens", || {
        TcpStream::connect(("127.0.0.1", place.ports[0])).ok()
    });
    eventually("it is ready", || {
        let mut wire = Wire::open(&place);
        wire.send("GET /health/ready HTTP/1.1", "", "");
        (wire.answer().0 == 200).then_some(())
    });
    let mut wire = Wire::open(&place);
    wire.send(&format!("POST {JOBS} HTTP/1.1"), "", "");
    let job: Value = serde_json::from_str(&wire.expect(200)).unwrap();
    let mut idle = Vec::new();
    for _ in 0..3 * FILES {
        idle.push(TcpStream::connect(("127.0.0.1", place.ports[0])).unwrap());
    }
    for _ in 0..20 {
        is_alive(&place);
    }
    for _ in 0..3 * FILES {
        let mut wire = Wire::open(&place);
        wire.send(
            &format!("POST {JOBS} HTTP/1.1"),
            "Content-Length: 2000000000",
            "{",
        );
        wire.expect(413);
        idle.push(wire.stream);
    }
    assert_eq!(child.try_wait().unwrap(), None);
    let mut wire = Wire::open(&place);
    wire.send(
        &format!("GET {JOBS}/{} HTTP/1.1", job["name"].as_str().unwrap()),
        "",
        "",
    );
    let job: Value = serde_json::from_str(&wire.expect(200)).unwrap();
    assert_eq!(job["status"], "Running");
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", "INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    child.wait().unwrap();
    place.no_process_is_left();
}

/// How long each of so many GETs took, on connections of their own in turn with one that is kept.
fn others(place: &Place, count: usize) -> Vec<Duration> {
    let mut kept = Wire::open(place);
    let mut took = Vec::new();
    for number in 0..count {
        let began = Instant::now();
        let mut own;
        let wire = if number % 2 == 0 {
            &mut kept
        } else {
            own = Wire::open(place);
            &mut own
        };
        wire.send(&format!("GET {JOBS} HTTP/1.1"), "", "");
        wire.expect(200);
        took.push(began.elapsed());
        thread::sleep(Duration::from_millis(2));
    }
    took.sort();
    took
}

/// The 99th percentile of what other clients see, and what it is without these.
#[track_caller]
fn nobody_is_held_up(place: &Place, what: &str, clients: impl FnOnce() -> Vec<Wire>) {
    const TRIES: usize = 400;
    let p99 = |took: Vec<Duration>| took[took.len() * 99 / 100];
    let without = p99(others(place, TRIES));
    let clients = clients();
    let with = p99(others(place, TRIES));
    println!("{what}: others' p99 is {with:.1?}, and {without:.1?} without them");
    let limit = Duration::from_millis(100) + without;
    assert!(with < limit, "{what}: {with:?}, {without:?} without them");
    drop(clients);
}

#[test]
fn slow_clients_hold_up_nobody() {
    let place = Place::new(&[("compute", JOB)]);
    let scheduler = start(&place);
    let mut wire = Wire::open(&place);
    for _ in 0..20 {
        wire.send(
            &format!("POST {JOBS} HTTP/1.1"),
            "Content-Length: 16",
            "{\"payload\": \"x\"}",
        );
        wire.expect(200);
    }
    let many = |count: usize, act: &dyn Fn(&mut Wire)| -> Vec<Wire> {
        let open = |_| {
            let mut wire = Wire::open(&place);
            act(&mut wire);
            wire
        };
        (0..count).map(open).collect()
    };
    nobody_is_held_up(&place, "2000 slow connections", || {
        many(2000, &|wire| {
            wire.write("GET /api/v1/jobs HTTP/1.1\r\nHost: x\r\n")
        })
    });
    nobody_is_held_up(&place, "64 slow uploads", || {
        many(64, &|wire| {
            wire.send(
                &format!("POST {JOBS} HTTP/1.1"),
                "Content-Length: 200000",
                "{",
            );
        })
    });
    nobody_is_held_up(&place, "64 slow chunked uploads", || {
        many(64, &|wire| {
            wire.send(
                &format!("POST {JOBS} HTTP/1.1"),
                "Transfer-Encoding: chunked",
                "5\r\n{",
            );
        })
    });
    nobody_is_held_up(&place, "4 clients that never read", || {
        many(4, &|wire| {
            // More than fits into the buffers between the two.
            let requests = format!("GET /openapi.json HTTP/1.1\r\nHost: {}\r\n\r\n", wire.host);
            wire.write(&requests.repeat(300));
        })
    });
    scheduler.end();
}

#[test]
fn who_waits_and_does_not_read_holds_up_no_other_who_waits() {
    let place = Place::new(&[("compute", r#"command: ["sleep", "1000"]"#)]);
    let scheduler = start(&place);
    let mut wire = Wire::open(&place);
    wire.send(&format!("POST {JOBS} HTTP/1.1"), "", "");
    let job: Value = serde_json::from_str(&wire.expect(200)).unwrap();
    let path = format!("{JOBS}/{}", job["name"].as_str().unwrap());
    let wait = format!("GET {path}?wait=60s HTTP/1.1");
    let mut silent: Vec<_> = (0..8).map(|_| Wire::open(&place)).collect();
    for wire in &mut silent {
        let document = format!("GET /openapi.json HTTP/1.1\r\nHost: {}\r\n\r\n", wire.host);
        wire.write(&document.repeat(300));
        wire.send(&wait, "", "");
    }
    let mut waiting: Vec<_> = (0..20).map(|_| Wire::open(&place)).collect();
    for wire in &mut waiting {
        wire.send(&wait, "", "");
    }
    thread::sleep(Duration::from_millis(500));
    wire.send(&format!("DELETE {path} HTTP/1.1"), "", "");
    wire.expect(200);
    let began = Instant::now();
    for wire in &mut waiting {
        wire.expect(404);
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    scheduler.end();
}

#[test]
fn requests_that_are_sent_ahead_are_answered_in_order() {
    let place = Place::new(&[("compute", r#"command: ["sleep", "1"]"#)]);
    let scheduler = start(&place);
    let mut wire = Wire::open(&place);
    wire.send(&format!("POST {JOBS} HTTP/1.1"), "", "");
    let job: Value = serde_json::from_str(&wire.expect(200)).unwrap();
    let path = format!("{JOBS}/{}", job["name"].as_str().unwrap());
    wire.send(&format!("GET {path}?wait=60s HTTP/1.1"), "", "");
    for _ in 0..200 {
        wire.send("GET /health/live HTTP/1.1", "", "");
        wire.send(
            &format!("POST {JOBS}/x/stop HTTP/1.1"),
            "Content-Length: 2",
            "{}",
        );
    }
    let job: Value = serde_json::from_str(&wire.expect(200)).unwrap();
    assert_eq!(job["status"], "Succeeded");
    for _ in 0..200 {
        wire.expect(200);
        wire.expect(404);
    }
    scheduler.end();
}

#[test]
fn connections_that_are_opened_at_once_are_all_served() {
    let place = Place::new(&[("compute", JOB)]);
    let scheduler = start(&place);
    for size in [16, 64, 200] {
        // They are kept: none is served because another has gone.
        let mut all: Vec<_> = (0..size).map(|_| Wire::open(&place)).collect();
        for wire in &mut all {
            wire.send(&format!("GET {JOBS} HTTP/1.1"), "", "");
        }
        let began = Instant::now();
        for wire in &mut all {
            wire.expect(200);
        }
        assert!(began.elapsed() < SOON, "{size}: {:?}", began.elapsed());
    }
    scheduler.end();
}

#[test]
fn nothing_is_left_of_clients_that_are_gone() {
    /// Threads that wait for the next connection, and are kept.
    const SPARE: u64 = 16;
    let place = Place::new(&[("compute", JOB)]);
    let scheduler = start(&place);
    is_alive(&place);
    let files = || {
        let path = format!("/proc/{}/fd", scheduler.child.id());
        std::fs::read_dir(path).unwrap().count() as u64
    };
    let before = (scheduler.status("Threads"), files());
    for first in [
        "PRI * HTTP/2.0",
        "GET /health/live HTTP/1.1",
        &format!("POST {JOBS} HTTP/1.1"),
    ] {
        for headers in [
            "Content-Length: 2000000000",
            "Content-Length: -1",
            "Transfer-Encoding: chunked",
            "Connection: Upgrade | Content-Length: 100",
            "Expect: 100-continue | Content-Length: 100",
        ] {
            let all: Vec<_> = (0..20).map(|_| Wire::open(&place)).collect();
            for mut wire in all {
                wire.send(first, headers, "5\r\n{");
            }
        }
    }
    eventually("all that served them is gone", || {
        let left = (scheduler.status("Threads"), files());
        (left.0 <= before.0 + SPARE && left.1 <= before.1 + SPARE).then_some(())
    });
    is_alive(&place);
    scheduler.end();
}
