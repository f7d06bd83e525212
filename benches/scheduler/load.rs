//! Load on one machine: few threads, many connections, and no more work for each answer than to find its end.

use crate::harness::http::Connection;
use crate::harness::scheduler::{JOBS, free_port};
use crate::harness::{unique, within};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

/// Threads of the load generator, each with so many connections: enough to keep a server busy on two processors.
const THREADS: usize = 2;
const CONNECTIONS: usize = 8;
/// As many as a scheduler has to answer from memory. On two processors two are slower.
const BARE_THREADS: usize = 1;

pub fn get_request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").into_bytes()
}

/// A connection that reads answers into one buffer.
struct Quick {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Quick {
    fn connect(port: u16) -> Quick {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        Quick {
            stream,
            buffer: vec![0; 64 << 10],
            filled: 0,
        }
    }

    /// A connection that has been served once: tiny_http is known to leave some of a burst of new ones unserved.
    fn settled(port: u16) -> Quick {
        let mut connection = Quick::connect(port);
        connection.ask(&get_request("/health/live"));
        connection
    }

    fn send(&mut self, request: &[u8]) {
        self.filled = 0;
        self.stream.write_all(request).unwrap();
    }

    /// Reads an answer to its end; returns its status code.
    fn receive(&mut self) -> u16 {
        let mut total = usize::MAX;
        while self.filled < total {
            if self.filled == self.buffer.len() {
                self.buffer.resize(2 * self.filled, 0);
            }
            let count = self.stream.read(&mut self.buffer[self.filled..]).unwrap();
            assert!(count > 0, "the connection was closed");
            self.filled += count;
            if total == usize::MAX {
                let read = &self.buffer[..self.filled];
                if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                    total = end + 4 + content_length(&read[..end]);
                }
            }
        }
        let code = self.buffer.get(9..12).map(String::from_utf8_lossy);
        code.and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// Sends until the answer is a 200: an API server that has too much to do is tried again.
    fn ask(&mut self, request: &[u8]) {
        loop {
            self.send(request);
            match self.receive() {
                200 => return,
                503 => sleep(Duration::from_millis(20)),
                code => panic!(
                    "{code}: {}",
                    String::from_utf8_lossy(&self.buffer[..self.filled])
                ),
            }
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let (_, length) = lines
        .find(|(name, _)| name.eq_ignore_ascii_case("Content-Length"))
        .unwrap();
    length.parse().unwrap()
}

/// As many requests as a server answers.
pub fn requests_per_second(port: u16, request: &[u8], duration: Duration) -> f64 {
    let drive = || {
        let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| Quick::settled(port)).collect();
        let (mut count, began) = (0, Instant::now());
        while began.elapsed() < duration {
            for connection in &mut connections {
                connection.send(request);
            }
            for connection in &mut connections {
                assert_eq!(connection.receive(), 200);
            }
            count += CONNECTIONS;
        }
        count as f64 / began.elapsed().as_secs_f64()
    };
    scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(drive)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    })
}

/// How long single requests take, one every 2 ms, until `over`.
pub fn time_each(
    port: u16,
    request: &[u8],
    over: &AtomicBool,
    times: &Mutex<Vec<(Instant, Duration)>>,
) {
    let mut connection = Quick::connect(port);
    while !over.load(Ordering::Acquire) {
        let began = Instant::now();
        connection.ask(request);
        times.lock().unwrap().push((began, began.elapsed()));
        sleep(Duration::from_millis(2));
    }
}

/// Clients that submit one job after the other, on connections that they keep.
pub struct Submitters {
    connections: Vec<Quick>,
    request: Vec<u8>,
}

impl Submitters {
    pub fn new(port: u16, body: &str, clients: usize) -> Submitters {
        let request = format!(
            "POST {JOBS} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Submitters {
            connections: (0..clients).map(|_| Quick::settled(port)).collect(),
            request: request.into_bytes(),
        }
    }

    /// How long they take for `count` jobs in all.
    pub fn time(&mut self, count: usize) -> Duration {
        let (clients, request) = (self.connections.len(), &self.request);
        let began = Instant::now();
        scope(|scope| {
            for (number, connection) in self.connections.iter_mut().enumerate() {
                let share = count / clients + usize::from(number < count % clients);
                scope.spawn(move || {
                    for _ in 0..share {
                        connection.ask(request);
                    }
                });
            }
        });
        began.elapsed()
    }
}

/// A bare tiny_http in a process of its own.
pub struct Bare {
    child: Child,
    pub port: u16,
}

impl Bare {
    /// Answers everything with `body`.
    pub fn start(body: &[u8]) -> Bare {
        let (port, file) = (free_port(), std::env::temp_dir().join(unique()));
        std::fs::write(&file, body).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["bare", &port.to_string()])
            .arg(&file)
            .spawn()
            .unwrap();
        within(Duration::from_secs(5), || {
            let answer = Connection::local(port, Duration::from_secs(1))
                .and_then(|mut connection| connection.ask("GET", "/", &[], b""));
            answer.map_err(|e| e.to_string())
        });
        std::fs::remove_file(&file).unwrap();
        Bare { child, port }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process behind [`Bare`]: tiny_http at its best, without Nagle's delay.
pub fn serve_bare(port: u16, body: Vec<u8>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    socket.bind(&address.into()).unwrap();
    socket.listen(1024).unwrap();
    let server =
        tiny_http::Server::from_listener(std::net::TcpListener::from(socket), None).unwrap();
    scope(|scope| {
        for _ in 0..BARE_THREADS {
            scope.spawn(|| {
                loop {
                    let request = server.recv().unwrap();
                    let json =
                        tiny_http::Header::from_bytes("Content-Type", "application/json").unwrap();
                    let response =
                        tiny_http::Response::from_data(body.as_slice()).with_header(json);
                    let _ = request.respond(response);
                }
            });
        }
    });
}
