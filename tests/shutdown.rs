//! How `serve` ends: the built binary, and an API server that knows of no job.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::api::Api;
use support::local::free_port;
use support::{Scratch, eventually};

/// Lists are empty, and watches say nothing.
fn api_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer(stream.unwrap()));
        }
    });
    url
}

fn answer(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut first = String::new();
        let mut line = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
        if first.contains("watch=") {
            let head = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            continue;
        }
        let list =
            r#"{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}"#;
        let text = format!("{head}Content-Length: {}\r\n\r\n{list}", list.len());
        stream.write_all(text.as_bytes()).unwrap();
    }
}

struct Serve {
    _scratch: Scratch,
    child: Child,
    port: u16,
}

impl Serve {
    fn start() -> Serve {
        let scratch = Scratch::new();
        let config = scratch.join("radixconfig.yaml");
        let text = "{metadata: {name: a}, spec: {environments: [{name: dev}], jobs: \
                    [{name: compute, image: i, schedulerPort: 8000}]}}";
        std::fs::write(&config, text).unwrap();
        let port = free_port();
        let child = Command::new(env!("CARGO_BIN_EXE_job-scheduler"))
            .args(["serve", "--component=compute", "--environment=dev"])
            .args(["--address=127.0.0.1", &format!("--port={port}")])
            .arg(format!("--config={}", config.display()))
            .arg(format!("--kube-url={}", api_server()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let serve = Serve {
            _scratch: scratch,
            child,
            port,
        };
        eventually("it is ready", || {
            let mut api = Api::new(&format!("127.0.0.1:{port}"));
            let host = [("Host", "localhost")];
            let answer = api.try_ask("GET", "/health/ready", &host, "");
            answer.ok().filter(|response| response.code == 200)
        });
        serve
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        TcpStream::connect(("127.0.0.1", self.port))
    }

    /// How long it went on, and that it ended well.
    fn ended(&mut self, since: Instant) -> Duration {
        let child = &mut self.child;
        let status = eventually("it ends", || child.try_wait().unwrap());
        assert!(status.success(), "{status}");
        since.elapsed()
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answer to a GET of all jobs, as far as it comes before the connection is closed or for a moment.
fn ask(stream: &mut TcpStream) -> String {
    stream
        .write_all(b"GET /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn on_sigterm_it_answers_on_and_closes_each_connection_until_its_address_is_out_of_use() {
    let mut serve = Serve::start();
    let mut kept = serve.connect().unwrap();
    let before = ask(&mut kept);
    assert!(
        before.ends_with("[]") && !before.contains("Connection: close"),
        "{before}"
    );
    let begun = Instant::now();
    serve.signal("TERM");
    // Connections that were there, and those that are sent here still.
    std::thread::sleep(Duration::from_secs(1));
    for mut stream in [kept, serve.connect().unwrap()] {
        let after = ask(&mut stream);
        assert!(
            after.starts_with("HTTP/1.1 200 ") && after.contains("Connection: close"),
            "{after}"
        );
    }
    let took = serve.ended(begun);
    assert!((5.0..8.0).contains(&took.as_secs_f64()), "{took:?}");
    assert!(serve.connect().is_err(), "refused, not swallowed");
}

#[test]
fn on_sigterm_who_follows_the_jobs_is_let_go_at_once() {
    let mut serve = Serve::start();
    let mut reader = serve.connect().unwrap();
    let request = b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    reader.write_all(request).unwrap();
    let mut told = Vec::new();
    while !told.ends_with(b"event: list\ndata: []\n\n") {
        let mut bytes = [0; 1000];
        let count = reader.read(&mut bytes).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&told));
        told.extend_from_slice(&bytes[..count]);
    }
    let begun = Instant::now();
    serve.signal("TERM");
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "it is over");
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    // One that comes now is told what there is, and is let go as well.
    let mut reader = serve.connect().unwrap();
    reader.write_all(request).unwrap();
    let mut told = String::new();
    reader.read_to_string(&mut told).unwrap();
    assert!(told.ends_with("event: list\ndata: []\n\n"), "{told}");
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    serve.signal("TERM");
    assert!(serve.ended(begun) < Duration::from_secs(5));
}

#[test]
fn a_second_signal_or_an_interrupt_ends_it_at_once() {
    let mut serve = Serve::start();
    let begun = Instant::now();
    serve.signal("TERM");
    std::thread::sleep(Duration::from_millis(200));
    serve.signal("TERM");
    assert!(serve.ended(begun) < Duration::from_secs(4));
    let mut serve = Serve::start();
    let begun = Instant::now();
    serve.signal("INT");
    assert!(serve.ended(begun) < Duration::from_secs(4));
}
