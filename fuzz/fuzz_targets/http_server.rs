//! Whatever a client sends to the server, its answers are whole and of HTTP/1.1, none is a 500,
//! nothing comes after the last, and others are served meanwhile. The first byte of the input says
//! into how many writes the rest is cut.

#![no_main]

use job_scheduler::backend::Observer;
use job_scheduler::backend::kubernetes::{Access, Client, Kubernetes};
use job_scheduler::clock::Clock;
use job_scheduler::config;
use job_scheduler::http::{self, Guard, Server};
use job_scheduler::index::Bounds;
use job_scheduler::job::JobList;
use job_scheduler::scheduler::{Limits, Scheduler};
use libfuzzer_sys::fuzz_target;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

static SERVER: OnceLock<(Server, u16)> = OnceLock::new();
static RUNS: AtomicU32 = AtomicU32::new(0);

/// A scheduler that knows of no jobs, and whose API server refuses connections: every POST that it
/// takes is 503.
fn start() -> (Server, u16) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/radixconfig.yaml");
    let component = config::load(file.as_ref())
        .unwrap()
        .job_component("dev", "compute")
        .unwrap();
    let access = Access {
        url: "http://127.0.0.1:1".to_string(),
        token_file: None,
        ca_file: None,
        connections: 1,
    };
    let client = Client::new(&access, Arc::default()).unwrap();
    let kubernetes = Kubernetes::new(
        Arc::new(client),
        Clock::real(),
        component.clone(),
        Vec::new(),
        Arc::default(),
    );
    let limits = Limits {
        history: 10,
        bounds: Bounds {
            unfinished: 1000,
            running: 0,
            waiting: 0,
        },
    };
    let scheduler = Arc::new(Scheduler::new(
        component,
        Arc::new(kubernetes),
        limits,
        Clock::real(),
        Arc::default(),
    ));
    let begun = scheduler.jobs_relist_begins();
    scheduler.jobs_relisted(JobList::default(), begun);
    scheduler.attempts_relisted(Vec::new());
    let listener = http::bind(([0, 0, 0, 0], 0).into()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let guard = Guard::service("compute", "demo-dev", "cluster.local");
    (Server::start(listener, &scheduler, &guard).unwrap(), port)
}

/// One of many addresses of this machine, as closed connections keep their ports for a minute.
fn connect() -> TcpStream {
    let port = SERVER.get_or_init(start).1;
    let [_, a, b, c] = RUNS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let stream = TcpStream::connect((Ipv4Addr::new(127, a, b, c.max(1)), port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(8)))
        .unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fuzz_target!(|input: &[u8]| {
    let Some((cuts, sent)) = input.split_first() else {
        return;
    };
    // The answer to HEAD has a length and no body.
    if sent.windows(4).any(|word| word == b"HEAD") {
        return;
    }
    let mut stream = connect();
    let mut other = connect();
    other
        .write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let piece = sent.len() / usize::from(cuts % 4 + 1) + 1;
    for piece in sent.chunks(piece) {
        // It need not listen to the end.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    let answers = received(&mut stream);
    check(&answers);
    let live = received(&mut other);
    assert!(live.starts_with(b"HTTP/1.1 200 OK\r\n") && check(&live) == 1);
});

/// All that comes until the server closes. One that waits longer than a client does panics.
fn received(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => panic!("{e} after {}", String::from_utf8_lossy(&bytes)),
    }
    bytes
}

/// How many answers they are.
fn check(mut bytes: &[u8]) -> usize {
    let (mut count, mut is_last) = (0, false);
    while !bytes.is_empty() {
        let text = String::from_utf8_lossy(bytes);
        assert!(!is_last, "after the last answer: {text}");
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n");
        let (head, rest) = bytes.split_at(end.unwrap_or_else(|| panic!("{text}")) + 4);
        let head = std::str::from_utf8(head).unwrap();
        let code: u16 = head.strip_prefix("HTTP/1.1 ").unwrap()[..3]
            .parse()
            .unwrap();
        bytes = rest;
        if code == 100 {
            continue;
        }
        assert!(
            code == 200 || (400..=505).contains(&code) && code != 500,
            "{head}"
        );
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        assert!(header("X-Request-Id: ").is_some(), "{head}");
        let length: usize = header("Content-Length: ").unwrap().parse().unwrap();
        assert!(length <= rest.len(), "{text}");
        bytes = &rest[length..];
        is_last = header("Connection: close").is_some();
        count += 1;
    }
    count
}
