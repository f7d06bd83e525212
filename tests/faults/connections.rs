//! Clients that are many, slow, or silent do not stop others from being served.

use crate::harness::cluster::Namespace;
use crate::harness::http::Connection;
use crate::harness::scheduler::{JOBS, Scheduler};
use crate::harness::{holds, percentile, within};
use crate::proxy::Proxy;
use serde_json::{Value, json};
use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Long for an answer from memory, on a machine that has much to do.
const SOON: Duration = Duration::from_secs(2);

#[test]
fn connections_opened_at_once_are_all_served() {
    let namespace = Namespace::new("burst", "");
    let proxy = Proxy::start();
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &[]);
    let mut served = 0;
    for size in [16, 64, 200] {
        let mut all: Vec<_> = (0..size)
            .map(|_| Connection::local(scheduler.port, SOON).unwrap())
            .collect();
        for connection in &mut all {
            connection.send("GET", JOBS, &[], b"").unwrap();
        }
        for (number, connection) in all.iter_mut().enumerate() {
            let answer = connection.receive();
            assert!(
                answer.is_ok_and(|answer| answer.code == 200),
                "connection {number} of {size} was not served within {SOON:?}, while the others are kept alive"
            );
            served += 1;
        }
    }
    println!("{served} connections in bursts of up to 200, kept alive: all served");
}

#[test]
#[ignore = "takes 80 s"]
fn a_scheduler_that_nobody_calls_stays() {
    let namespace = Namespace::new("idle", "");
    let proxy = Proxy::start();
    let mut scheduler = Scheduler::start(&namespace, &proxy.url(), &[]);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(80) {
        assert_eq!(scheduler.exit_status(), None, "after {:?}", began.elapsed());
        sleep(Duration::from_secs(1));
    }
    assert_eq!(scheduler.get(JOBS).code, 200);
    println!("80 s without a connection: still there");
}

/// A connection that has been served once.
fn settled(scheduler: &Scheduler) -> Connection<std::net::TcpStream> {
    let mut connection = Connection::local(scheduler.port, Duration::from_secs(20)).unwrap();
    let answer = connection.ask("GET", "/health/live", &[], b"").unwrap();
    assert_eq!(answer.code, 200);
    connection
}

#[test]
fn a_thousand_requests_wait_and_the_next_is_told() {
    const WAITING: usize = 1000;
    let (namespace, proxy) = (Namespace::new("wait", ""), Proxy::start());
    namespace.quota(json!({"pods": "0"}));
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &[]);
    let name = scheduler.submit(&json!({"payload": "p"}));
    let mut all: Vec<_> = (0..WAITING).map(|_| settled(&scheduler)).collect();
    let before = scheduler.proc_status("Threads");
    let path = format!("{JOBS}/{name}?wait=60s");
    for connection in &mut all {
        connection.send("GET", &path, &[], b"").unwrap();
    }
    let mut next = settled(&scheduler);
    // Or the next would take the place of one that is still on its way.
    within(Duration::from_secs(20), || {
        let metrics = String::from_utf8(scheduler.get("/metrics").body).unwrap();
        let parked = metrics
            .lines()
            .find_map(|line| line.strip_prefix("job_scheduler_parked_requests "));
        holds(parked == Some("1000"), || format!("{parked:?} wait"))
    });
    let answer = next
        .ask("GET", &format!("{JOBS}/{name}?wait=1s"), &[], b"")
        .unwrap();
    assert_eq!(answer.code, 429, "{answer}");
    assert!(answer.head.header("Retry-After").is_some(), "{answer}");
    // Threads that a moment of many connections made are let go after a few seconds.
    let during = within(Duration::from_secs(20), || {
        let during = scheduler.proc_status("Threads");
        holds(during <= before + 2, || {
            format!("waiting costs threads: {before} before, {during} while they wait")
        })
        .map(|()| during)
    });
    let began = Instant::now();
    assert_eq!(scheduler.get(JOBS).code, 200);
    let served = began.elapsed();
    let began = Instant::now();
    assert_eq!(
        scheduler
            .ask("DELETE", &format!("{JOBS}/{name}"), &[], b"")
            .unwrap()
            .code,
        200
    );
    for connection in &mut all {
        assert_eq!(connection.receive().unwrap().code, 404);
    }
    println!(
        "{WAITING} requests waited, the next got 429; threads {before} before and {during} while they waited; another GET took {served:.1?}; \
         all were answered {:.1?} after the job's end",
        began.elapsed()
    );
    assert!(served < SOON);
}

/// Asks on a connection of its own each time, for so long; returns how long the answers took.
fn served_meanwhile(scheduler: &Scheduler, how_long: Duration) -> Vec<Duration> {
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < how_long {
        let asked = Instant::now();
        assert_eq!(scheduler.get(JOBS).code, 200);
        took.push(asked.elapsed());
        sleep(Duration::from_millis(5));
    }
    took
}

/// What others see of `clients`: the 99th percentile of their answers, without and with them.
#[track_caller]
fn others_see<T>(scheduler: &Scheduler, what: &str, clients: impl FnOnce() -> T) -> T {
    let time = Duration::from_secs(3);
    let without = percentile(&mut served_meanwhile(scheduler, time), 99);
    let clients = clients();
    let mut took = served_meanwhile(scheduler, time);
    let with = percentile(&mut took, 99);
    println!(
        "{what}: {} other clients served, p99 {with:.1?}, and {without:.1?} without them; {} threads, {} MB resident",
        took.len(),
        scheduler.proc_status("Threads"),
        scheduler.proc_status("VmRSS") / 1000
    );
    assert!(with < Duration::from_millis(100) + without, "{what}");
    clients
}

/// Sends requests without waiting for answers, in one write.
fn pipeline(connection: &mut Connection<std::net::TcpStream>, requests: &[(&str, &str, &str)]) {
    let mut bytes = String::new();
    for (method, path, body) in requests {
        let length = body.len();
        bytes.push_str(&format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
    }
    let stream = connection.stream.get_mut();
    stream.write_all(bytes.as_bytes()).unwrap();
}

#[test]
fn requests_behind_one_that_waits_stop_nobody_and_are_answered_in_order() {
    const EACH: usize = 8;
    const AHEAD: usize = 100;
    let (namespace, proxy) = (Namespace::new("behind", ""), Proxy::start());
    namespace.quota(json!({"pods": "0"}));
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &[]);
    let name = scheduler.submit(&json!({"payload": "p"}));
    let job = format!("{JOBS}/{name}");
    let (wait, follow) = (format!("{job}?wait=20s"), format!("{job}/logs?follow=true"));
    let mut waiting: Vec<_> = (0..EACH).map(|_| settled(&scheduler)).collect();
    for connection in &mut waiting {
        let behind = [("GET", "/health/live", ""), ("GET", JOBS, "")];
        let first = ("GET", wait.as_str(), "");
        let again = ("GET", job.as_str(), "");
        pipeline(connection, &[&[first], &behind[..], &[again]].concat());
    }
    let mut following: Vec<_> = (0..EACH).map(|_| settled(&scheduler)).collect();
    for connection in &mut following {
        pipeline(connection, &[("GET", &follow, ""), ("GET", JOBS, "")]);
    }
    let mut greedy = settled(&scheduler);
    let many = vec![("GET", "/health/live", ""); AHEAD];
    pipeline(
        &mut greedy,
        &[&[("GET", wait.as_str(), "")], &many[..]].concat(),
    );
    let mut took = served_meanwhile(&scheduler, Duration::from_secs(3));
    // A list behind a submit has its job.
    let mut writing = settled(&scheduler);
    let submit = ("POST", JOBS, "{\"jobId\": \"behind\"}");
    pipeline(&mut writing, &[submit, ("GET", JOBS, ""), submit]);
    let submitted = writing.receive().unwrap().json()["name"].clone();
    let listed = writing.receive().unwrap().json();
    let has = |list: &Value| {
        list.as_array()
            .unwrap()
            .iter()
            .any(|job| job["name"] == submitted)
    };
    assert!(has(&listed), "{submitted} in {listed}");
    assert_eq!(writing.receive().unwrap().code, 200);

    let deleted = scheduler.ask("DELETE", &job, &[], b"").unwrap();
    assert_eq!(deleted.code, 200, "{deleted}");
    let mut answered = 3;
    let mut expect = |connection: &mut Connection<std::net::TcpStream>, code: u16, what: &str| {
        let answer = connection.receive().unwrap();
        assert_eq!(answer.code, code, "{what}: {answer}");
        answered += 1;
        answer
    };
    for connection in &mut waiting {
        expect(connection, 404, "the one that waited");
        let live = expect(connection, 200, "the one behind it").json();
        assert_eq!(live["message"], "the scheduler is alive");
        assert!(has(&expect(connection, 200, "the list").json()));
        expect(connection, 404, "the last");
        expect_served(connection);
    }
    for connection in &mut following {
        let log = expect(connection, 200, "the log");
        assert!(log.body.is_empty() && log.head.is_chunked(), "{log}");
        assert!(has(&expect(connection, 200, "the list").json()));
        expect_served(connection);
    }
    expect(&mut greedy, 404, "the one that waited");
    for _ in 0..AHEAD {
        expect(&mut greedy, 200, "one of many");
    }
    expect_served(&mut greedy);
    let (usual, slowest) = (percentile(&mut took, 90), percentile(&mut took, 100));
    println!(
        "{} connections with requests behind one that waits: {} other clients served meanwhile (90 % within {usual:.1?}, the slowest in \
         {slowest:.1?}), {answered} answers in order",
        2 * EACH + 2,
        took.len()
    );
    assert!(usual < Duration::from_millis(200) && slowest < SOON);
}

/// The connection goes on.
fn expect_served(connection: &mut Connection<std::net::TcpStream>) {
    let answer = connection.ask("GET", "/health/live", &[], b"").unwrap();
    assert_eq!(answer.code, 200, "{answer}");
}

#[test]
fn clients_that_take_no_answers_stop_nobody() {
    const SILENT: usize = 4;
    let (namespace, proxy) = (Namespace::new("silent", ""), Proxy::start());
    namespace.quota(json!({"pods": "0"}));
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &[]);
    // More than fits into the buffers between the two, 16 MB.
    let many = vec![("GET", "/openapi.json", ""); 300];
    let what = format!(
        "{SILENT} clients that take none of {} answers",
        SILENT * many.len()
    );
    others_see(&scheduler, &what, || {
        let mut silent: Vec<_> = (0..SILENT).map(|_| settled(&scheduler)).collect();
        for connection in &mut silent {
            pipeline(connection, &many);
        }
        silent
    });
}

#[test]
fn half_open_connections_stop_nobody() {
    const HALF_OPEN: usize = 2000;
    let (namespace, proxy) = (Namespace::new("half", ""), Proxy::start());
    namespace.quota(json!({"pods": "0"}));
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &[]);
    let half_open = others_see(
        &scheduler,
        &format!("{HALF_OPEN} half-open connections"),
        || {
            let open = |_| {
                let mut stream =
                    std::net::TcpStream::connect(("127.0.0.1", scheduler.port)).unwrap();
                let head = b"GET /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\n";
                stream.write_all(head).unwrap();
                stream
            };
            (0..HALF_OPEN).map(open).collect::<Vec<_>>()
        },
    );
    scheduler.submit(&json!({"payload": "p"}));
    drop(half_open);
}

#[test]
fn slow_uploads_stop_nobody() {
    const SLOW: usize = 64;
    let (namespace, proxy) = (Namespace::new("upload", ""), Proxy::start());
    namespace.quota(json!({"pods": "0"}));
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &[]);
    let head =
        format!("POST {JOBS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n{{");
    let mut slow = others_see(&scheduler, &format!("{SLOW} slow uploads"), || {
        let mut slow: Vec<_> = (0..SLOW).map(|_| settled(&scheduler)).collect();
        for connection in &mut slow {
            let stream = connection.stream.get_mut();
            stream.write_all(head.as_bytes()).unwrap();
        }
        slow
    });
    let mut slowest = Duration::ZERO;
    let tries = 20;
    for number in 0..tries {
        for connection in &mut slow {
            connection.stream.get_mut().write_all(b" ").unwrap();
        }
        let payload = "x".repeat(if number % 2 == 0 { 10 } else { 100_000 });
        let began = Instant::now();
        scheduler.submit(&json!({"payload": payload}));
        slowest = slowest.max(began.elapsed());
    }
    println!("{tries} POSTs of 10 bytes and 100 kB served meanwhile, the slowest in {slowest:.1?}");
    assert!(slowest < SOON);
}

#[test]
#[ignore = "takes 35 s"]
fn a_body_that_does_not_come_is_408() {
    let (namespace, proxy) = (Namespace::new("late", ""), Proxy::start());
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &[]);
    let framings = [
        "Content-Length: 10",
        "Content-Length: 5000",
        "Transfer-Encoding: chunked",
    ];
    let late = framings.map(|framing| {
        let mut connection = Connection::local(scheduler.port, Duration::from_secs(40)).unwrap();
        let head = format!("POST {JOBS} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
        let stream = connection.stream.get_mut();
        stream.write_all(head.as_bytes()).unwrap();
        connection
    });
    let began = Instant::now();
    for mut connection in late {
        let answer = connection.receive().unwrap();
        assert_eq!(answer.code, 408, "{answer}");
        assert_eq!(answer.head.header("Connection"), Some("close"));
    }
    println!(
        "3 bodies that did not come: 408 after {:.1?}",
        began.elapsed()
    );
}
