//! A proxy between a scheduler and the API server that does what networks and servers do on a bad
//! day.
//!
//! The scheduler speaks plain HTTP to it; it speaks TLS to the API server. Each connection has a
//! thread and a connection of its own to the API server.

use crate::harness::cluster::{ApiServer, TlsStream};
use crate::harness::http::{Head, read_body, read_chunk};
use crate::harness::scheduler::free_port;
use std::collections::HashMap;
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

/// What the scheduler asks.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// With the query.
    pub path: String,
    pub authorization: String,
    pub accept: String,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn is_watch(&self) -> bool {
        self.path.contains("watch=1")
    }

    /// A create below a resource, `jobs` or `secrets`, that is meant (a dry run is not).
    pub fn creates(&self, resource: &str) -> bool {
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        self.method == "POST"
            && path.ends_with(&format!("/{resource}"))
            && !query.contains("dryRun")
    }
}

/// What becomes of a request.
pub enum Fault {
    /// Answered here; the API server is not asked. Headers are whole lines.
    Answer {
        code: u16,
        headers: Vec<String>,
        body: String,
    },
    /// Another fault, after a while.
    Later(Duration, Box<Fault>),
    /// The API server does it, and the connection breaks before its answer.
    LoseAnswer,
    /// The API server does it, and the connection breaks after so many bytes of its answer.
    CutAnswer(usize),
    /// The API server does it, and its answer comes so many bytes at a time, with a pause after
    /// each.
    Trickle(usize, Duration),
    /// The connection breaks, and the API server is not asked.
    Unsent,
    /// The connection breaks, and the API server is asked later, by [`Proxy::deliver`].
    HoldBack,
}

impl Fault {
    /// An error as Kubernetes gives it.
    pub fn status(code: u16, reason: &str, headers: &[&str]) -> Fault {
        let headers = headers.iter().map(|header| header.to_string()).collect();
        let body = format!(
            r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"a fault of the test's","reason":"{reason}","code":{code}}}"#
        );
        Fault::Answer {
            code,
            headers,
            body,
        }
    }
}

/// What becomes of a frame of a watch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FrameFault {
    Repeat,
    /// The frame is lost with its connection.
    Cut,
    /// Half of it arrives, then the connection breaks.
    CutInside,
    /// An event that says the version is too old takes its place, and the watch ends.
    Expired,
}

type Rule = Box<dyn Fn(&Asked) -> Option<Fault> + Send>;
type FrameRule = Box<dyn Fn(&str) -> Option<FrameFault> + Send>;

/// What the proxy saw, in order.
pub struct Entry {
    pub at: Instant,
    pub what: Event,
}

pub enum Event {
    /// A request came in.
    Asked(Asked),
    /// A frame of a watch went out: protobuf, what is no text in it replaced.
    Frame(String),
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Through,
    /// Nobody listens.
    Refuse,
    /// Connections are accepted, and nothing goes through them.
    Stall,
    End,
}

struct Shared {
    api: ApiServer,
    port: u16,
    mode: Mutex<Mode>,
    mode_changed: Condvar,
    rules: Mutex<Vec<Rule>>,
    frame_rule: Mutex<Option<FrameRule>>,
    connections: Mutex<HashMap<u64, Peer>>,
    /// Connections up to this number are dead, and nobody is told.
    dead: AtomicU64,
    /// Requests that were held back, as they are to be sent.
    held: Mutex<Vec<Vec<u8>>>,
    journal: Mutex<Vec<Entry>>,
}

struct Peer {
    stream: TcpStream,
    is_watch: bool,
}

pub struct Proxy {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    pub fn start() -> Proxy {
        let shared = Arc::new(Shared {
            api: ApiServer::of_kubeconfig(),
            port: free_port(),
            mode: Mutex::new(Mode::Through),
            mode_changed: Condvar::new(),
            rules: Mutex::default(),
            frame_rule: Mutex::default(),
            connections: Mutex::default(),
            dead: AtomicU64::new(0),
            held: Mutex::default(),
            journal: Mutex::default(),
        });
        let acceptor = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&shared)
        });
        Proxy {
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// For `--kube-url`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.shared.port)
    }

    /// Asked of every request from now on; the first rule that has a fault for it decides.
    pub fn rule(&self, rule: impl Fn(&Asked) -> Option<Fault> + Send + 'static) {
        lock(&self.shared.rules).push(Box::new(rule));
    }

    /// Asked of every frame of every watch from now on.
    pub fn frame_rule(&self, rule: impl Fn(&str) -> Option<FrameFault> + Send + 'static) {
        *lock(&self.shared.frame_rule) = Some(Box::new(rule));
    }

    /// No more faults.
    pub fn behave(&self) {
        lock(&self.shared.rules).clear();
        *lock(&self.shared.frame_rule) = None;
        self.set(Mode::Through);
    }

    /// As if the API server were not there: its connections break, and new ones are refused.
    pub fn refuse(&self) {
        self.set(Mode::Refuse);
        self.cut(|_| true);
    }

    /// As if it hung: connections stay, and are made, and nothing is answered.
    pub fn stall(&self) {
        self.set(Mode::Stall);
    }

    /// As if the machine behind the connections there are were gone without a word: nothing comes
    /// of them any more, and new ones reach another.
    pub fn forget_connections(&self) {
        let last = lock(&self.shared.connections).keys().max().copied();
        (self.shared.dead).store(last.unwrap_or(0), Ordering::Release);
    }

    /// After [`Proxy::stall`], as if it were started again: all that was asked meanwhile is lost.
    pub fn restart(&self) {
        self.cut(|_| true);
        self.set(Mode::Through);
    }

    /// After [`Proxy::stall`], as if it woke up: all that was asked meanwhile is done now.
    pub fn go_on(&self) {
        self.set(Mode::Through);
    }

    /// Breaks the connections of all watches; returns how many.
    pub fn cut_watches(&self) -> usize {
        self.cut(|peer| peer.is_watch)
    }

    /// Sends what was held back, in order; returns the codes of the answers. It may be sent again.
    pub fn deliver(&self) -> Vec<u16> {
        let held = lock(&self.shared.held);
        let mut server = BufReader::new(self.shared.api.connect().unwrap());
        let mut send = |request: &Vec<u8>| {
            server.get_mut().write_all(request).unwrap();
            server.get_mut().flush().unwrap();
            let head = Head::read(&mut server).unwrap().unwrap();
            read_body(&head, &mut server).unwrap();
            head.code()
        };
        held.iter().map(&mut send).collect()
    }

    pub fn journal(&self) -> MutexGuard<'_, Vec<Entry>> {
        lock(&self.shared.journal)
    }

    fn cut(&self, which: impl Fn(&Peer) -> bool) -> usize {
        let mut connections = lock(&self.shared.connections);
        let mut count = 0;
        for peer in connections.values().filter(|peer| which(peer)) {
            let _ = peer.stream.shutdown(Shutdown::Both);
            count += 1;
        }
        connections.retain(|_, peer| !which(peer));
        count
    }

    fn set(&self, mode: Mode) {
        *lock(&self.shared.mode) = mode;
        self.shared.mode_changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Mode::End);
        self.cut(|_| true);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(shared: &Arc<Shared>) {
    let mut listener: Option<TcpListener> = None;
    let mut last = 0;
    loop {
        match *lock(&shared.mode) {
            Mode::End => return,
            Mode::Refuse => listener = None,
            Mode::Through | Mode::Stall => {
                listener.get_or_insert_with(|| {
                    let listener = TcpListener::bind(("127.0.0.1", shared.port)).unwrap();
                    listener.set_nonblocking(true).unwrap();
                    listener
                });
            }
        }
        let Some(Ok((stream, _))) = listener.as_ref().map(TcpListener::accept) else {
            sleep(Duration::from_millis(1));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_nodelay(true).unwrap();
        last += 1;
        let number = last;
        let peer = Peer {
            stream: stream.try_clone().unwrap(),
            is_watch: false,
        };
        lock(&shared.connections).insert(number, peer);
        let shared = shared.clone();
        std::thread::spawn(move || {
            // An error is a connection that broke, which is the day's business.
            let _ = Relay::new(&shared, stream, number).run();
            if let Some(peer) = lock(&shared.connections).remove(&number) {
                let _ = peer.stream.shutdown(Shutdown::Both);
            }
        });
    }
}

/// One connection of the scheduler's.
struct Relay<'a> {
    shared: &'a Shared,
    number: u64,
    client: BufReader<TcpStream>,
    server: Option<BufReader<TlsStream>>,
}

/// The fault took the connection.
fn broken() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

impl Relay<'_> {
    fn new(shared: &Shared, stream: TcpStream, number: u64) -> Relay<'_> {
        Relay {
            shared,
            number,
            client: BufReader::new(stream),
            server: None,
        }
    }

    fn run(&mut self) -> io::Result<()> {
        while let Some(head) = Head::read(&mut self.client)? {
            let body = read_body(&head, &mut self.client)?;
            let mut line = head.first.split(' ');
            let asked = Asked {
                method: line.next().unwrap_or_default().to_string(),
                path: line.next().unwrap_or_default().to_string(),
                authorization: head.header("Authorization").unwrap_or_default().to_string(),
                accept: head.header("Accept").unwrap_or_default().to_string(),
                body,
            };
            self.note(Event::Asked(asked.clone()));
            self.wait_while_stalled()?;
            // Before the rules are looked at: a watch that did not meet a new one is cut by who cuts
            // after that is set.
            if let Some(peer) = lock(&self.shared.connections).get_mut(&self.number) {
                peer.is_watch = asked.is_watch();
            }
            let fault = lock(&self.shared.rules)
                .iter()
                .find_map(|rule| rule(&asked));
            let fault = match fault {
                Some(Fault::Later(wait, fault)) => {
                    sleep(wait);
                    Some(*fault)
                }
                fault => fault,
            };
            match fault {
                Some(Fault::Unsent) => return Err(broken()),
                Some(Fault::HoldBack) => {
                    let request = self.rewritten(&head, &asked);
                    lock(&self.shared.held).push(request);
                    return Err(broken());
                }
                Some(Fault::Answer {
                    code,
                    headers,
                    body,
                }) => self.answer(code, &headers, body.as_bytes())?,
                fault => self.pass_on(&head, &asked, fault)?,
            }
        }
        Ok(())
    }

    fn note(&self, what: Event) {
        let at = Instant::now();
        lock(&self.shared.journal).push(Entry { at, what });
    }

    fn wait_while_stalled(&self) -> io::Result<()> {
        let mut mode = lock(&self.shared.mode);
        let is_dead = || self.number <= self.shared.dead.load(Ordering::Acquire);
        while *mode == Mode::Stall || (*mode == Mode::Through && is_dead()) {
            mode = (self.shared.mode_changed)
                .wait(mode)
                .unwrap_or_else(PoisonError::into_inner);
        }
        match *mode {
            Mode::Through | Mode::Stall => Ok(()),
            Mode::Refuse | Mode::End => Err(broken()),
        }
    }

    fn answer(&mut self, code: u16, headers: &[String], body: &[u8]) -> io::Result<()> {
        let mut answer = format!("HTTP/1.1 {code} Because\r\nContent-Type: application/json\r\n");
        for header in headers {
            answer.push_str(header);
            answer.push_str("\r\n");
        }
        answer.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let mut answer = answer.into_bytes();
        answer.extend_from_slice(body);
        self.client.get_mut().write_all(&answer)?;
        Ok(())
    }

    fn pass_on(&mut self, head: &Head, asked: &Asked, fault: Option<Fault>) -> io::Result<()> {
        let request = self.rewritten(head, asked);
        let answer = match self.send(&request) {
            Ok(answer) => answer,
            Err(_) => {
                // The API server may have closed a kept connection.
                self.server = None;
                self.send(&request)?
            }
        };
        if asked.is_watch() && answer.code() == 200 {
            return self.relay_watch(&answer);
        }
        let server = self.server.as_mut().ok_or_else(broken)?;
        let body = read_body(&answer, server)?;
        self.wait_while_stalled()?;
        let mut bytes = format!("{}\r\n", answer.first);
        let content_type = answer.header("Content-Type").unwrap_or("application/json");
        bytes.push_str(&format!(
            "Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        let mut bytes = bytes.into_bytes();
        bytes.extend(body);
        let client = self.client.get_mut();
        match fault {
            Some(Fault::LoseAnswer) => return Err(broken()),
            Some(Fault::CutAnswer(count)) => {
                client.write_all(&bytes[..count.min(bytes.len())])?;
                client.flush()?;
                return Err(broken());
            }
            Some(Fault::Trickle(count, pause)) => {
                for part in bytes.chunks(count) {
                    client.write_all(part)?;
                    sleep(pause);
                }
            }
            _ => client.write_all(&bytes)?,
        }
        Ok(())
    }

    fn rewritten(&self, head: &Head, asked: &Asked) -> Vec<u8> {
        let mut request = format!("{}\r\nHost: {}\r\n", head.first, self.shared.api.address());
        let own = ["host", "content-length", "transfer-encoding", "connection"];
        for (name, value) in &head.headers {
            if !own.contains(&name.to_ascii_lowercase().as_str()) {
                request.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n", asked.body.len()));
        let mut request = request.into_bytes();
        request.extend_from_slice(&asked.body);
        request
    }

    fn send(&mut self, request: &[u8]) -> io::Result<Head> {
        if self.server.is_none() {
            self.server = Some(BufReader::new(self.shared.api.connect()?));
        }
        let server = self.server.as_mut().ok_or_else(broken)?;
        server.get_mut().write_all(request)?;
        server.get_mut().flush()?;
        Head::read(server)?.ok_or_else(broken)
    }

    /// Frame by frame, until either end is gone.
    fn relay_watch(&mut self, answer: &Head) -> io::Result<()> {
        let shared = self.shared;
        let server = self.server.as_mut().ok_or_else(broken)?;
        let gone = self.client.get_ref().try_clone()?;
        let socket = server.get_ref().sock.try_clone()?;
        // Ends the blocking read below once the scheduler's end is gone.
        std::thread::spawn(move || {
            let mut byte = [0];
            while gone.peek(&mut byte).is_ok_and(|count| count > 0) {
                sleep(Duration::from_millis(50));
            }
            let _ = socket.shutdown(Shutdown::Both);
        });
        let content_type = answer.header("Content-Type").ok_or_else(broken)?;
        assert_eq!(
            content_type,
            "application/vnd.kubernetes.protobuf;stream=watch"
        );
        let head = format!(
            "{}\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n",
            answer.first
        );
        self.client.get_mut().write_all(head.as_bytes())?;
        let mut rest = Vec::new();
        loop {
            let server = self.server.as_mut().ok_or_else(broken)?;
            let chunk = read_chunk(server)?;
            if chunk.is_empty() {
                self.wait_while_stalled()?;
                self.server = None;
                return self.client.get_mut().write_all(b"0\r\n\r\n");
            }
            rest.extend(chunk);
            while let Some(end) = frame_end(&rest) {
                let frame: Vec<u8> = rest.drain(..end).collect();
                self.wait_while_stalled()?;
                let text = String::from_utf8_lossy(&frame).into_owned();
                let fault = lock(&shared.frame_rule)
                    .as_ref()
                    .and_then(|rule| rule(&text));
                self.frame(&frame, fault)?;
                self.note(Event::Frame(text));
            }
        }
    }

    fn frame(&mut self, frame: &[u8], fault: Option<FrameFault>) -> io::Result<()> {
        let client = self.client.get_mut();
        let chunk = |bytes: &[u8]| {
            let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
            chunk.extend_from_slice(bytes);
            chunk.extend_from_slice(b"\r\n");
            chunk
        };
        match fault {
            None => client.write_all(&chunk(frame)),
            Some(FrameFault::Repeat) => {
                client.write_all(&chunk(frame))?;
                client.write_all(&chunk(frame))
            }
            Some(FrameFault::Cut) => Err(broken()),
            Some(FrameFault::CutInside) => {
                client.write_all(&chunk(&frame[..frame.len() / 2]))?;
                Err(broken())
            }
            Some(FrameFault::Expired) => {
                client.write_all(&chunk(&expired()))?;
                client.write_all(b"0\r\n\r\n")?;
                Err(broken())
            }
        }
    }
}

/// Where the first frame ends, if all of it is there: its length stands before it.
fn frame_end(bytes: &[u8]) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    (rest.len() >= length).then_some(4 + length)
}

/// The frame by which a watch is told that its version is too old.
fn expired() -> Vec<u8> {
    // All of it is shorter than 128 bytes, so that each length is one.
    let field = |number: u8, parts: &[&[u8]]| {
        let bytes = parts.concat();
        [&[number << 3 | 2, bytes.len() as u8], bytes.as_slice()].concat()
    };
    let code = [6 << 3, 0x9a, 0x03]; // 410
    let status = [
        field(3, &[b"too old resource version"]),
        field(4, &[b"Expired"]),
        code.to_vec(),
    ];
    let kind = field(1, &[&field(1, &[b"v1"]), &field(2, &[b"Status"])]);
    let object = field(1, &[b"k8s\0", &kind, &field(2, &[&status.concat()])]);
    let event = [field(1, &[b"ERROR"]), field(2, &[&object])].concat();
    [&(event.len() as u32).to_be_bytes(), event.as_slice()].concat()
}
