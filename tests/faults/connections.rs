//! Clients that are many, slow, or silent do not stop others from being served.

use crate::harness::cluster::Namespace;
use crate::harness::http::Connection;
use crate::harness::scheduler::{JOBS, Scheduler};
use crate::harness::{holds, within};
use crate::proxy::Proxy;
use serde_json::json;
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
    within(Duration::from_secs(10), || {
        let answer = next
            .ask("GET", &format!("{JOBS}/{name}?wait=1s"), &[], b"")
            .unwrap();
        holds(answer.code == 429, || answer.to_string())
    });
    let answer = next
        .ask("GET", &format!("{JOBS}/{name}?wait=1s"), &[], b"")
        .unwrap();
    assert!(answer.head.header("Retry-After").is_some(), "{answer}");
    let during = scheduler.proc_status("Threads");
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
    assert!(during <= before + 2, "waiting costs threads");
    assert!(served < SOON);
}

#[test]
fn half_open_connections_stop_nobody() {
    const HALF_OPEN: usize = 2000;
    let (namespace, proxy) = (Namespace::new("half", ""), Proxy::start());
    namespace.quota(json!({"pods": "0"}));
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &[]);
    let mut half_open = Vec::new();
    for _ in 0..HALF_OPEN {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", scheduler.port)).unwrap();
        stream
            .write_all(b"GET /api/v1/jobs HTTP/1.1\r\nHost: x\r\n")
            .unwrap();
        half_open.push(stream);
    }
    sleep(Duration::from_secs(1));
    let mut slowest = Duration::ZERO;
    let tries = 100;
    for number in 0..tries {
        let began = Instant::now();
        assert_eq!(scheduler.get(JOBS).code, 200);
        if number % 10 == 0 {
            scheduler.submit(&json!({"payload": "p"}));
        }
        slowest = slowest.max(began.elapsed());
    }
    println!(
        "{HALF_OPEN} half-open connections: {tries} clients served, the slowest in {slowest:.1?}; {} threads, {} MB resident",
        scheduler.proc_status("Threads"),
        scheduler.proc_status("VmRSS") / 1000
    );
    assert!(slowest < SOON);
}

#[test]
fn slow_uploads_stop_nobody() {
    const SLOW: usize = 40;
    let (namespace, proxy) = (Namespace::new("upload", ""), Proxy::start());
    namespace.quota(json!({"pods": "0"}));
    let scheduler = Scheduler::start(&namespace, &proxy.url(), &[]);
    let mut slow: Vec<_> = (0..SLOW).map(|_| settled(&scheduler)).collect();
    for connection in &mut slow {
        let head = format!("POST {JOBS} HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n{{");
        connection
            .stream
            .get_mut()
            .write_all(head.as_bytes())
            .unwrap();
    }
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
    println!(
        "{SLOW} slow uploads: {tries} POSTs of 10 bytes and 100 kB served, the slowest in {slowest:.1?}"
    );
    assert!(slowest < SOON);
}
