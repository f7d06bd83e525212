//! A reader of events.

use super::PATIENCE;
use super::local::Place;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub const EVENTS: &str = "/api/v1/events";

/// An event as it came.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: String,
    pub id: String,
    pub data: Value,
}

fn name(told: &Value) -> String {
    told["name"].as_str().unwrap_or_default().to_string()
}

fn by_name(list: &Value) -> BTreeMap<String, Value> {
    let all = list.as_array().unwrap().iter();
    all.map(|one| (name(one), one.clone())).collect()
}

/// A response that goes on: its head, and the connection behind it.
pub struct Reader {
    pub head: String,
    body: BufReader<TcpStream>,
    /// The state of each job, as the events tell.
    pub jobs: BTreeMap<String, Value>,
    /// That of each batch.
    pub batches: BTreeMap<String, Value>,
    pub last_id: String,
}

impl Reader {
    pub fn open(place: &Place) -> Reader {
        Reader::open_with(place, "")
    }

    /// With further lines of the request's head, each with its end.
    pub fn open_with(place: &Place, lines: &str) -> Reader {
        let host = format!("localhost:{}", place.ports[0]);
        let mut stream = TcpStream::connect(&host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {EVENTS} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut body = BufReader::with_capacity(4096, stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(body.read_line(&mut head).unwrap() > 0, "{head}");
        }
        Reader {
            head,
            body,
            jobs: BTreeMap::new(),
            batches: BTreeMap::new(),
            last_id: String::new(),
        }
    }

    pub fn again(&self, place: &Place) -> Reader {
        let id = format!("Last-Event-ID: {}\r\n", self.last_id);
        Reader {
            jobs: self.jobs.clone(),
            batches: self.batches.clone(),
            last_id: self.last_id.clone(),
            ..Reader::open_with(place, &id)
        }
    }

    pub fn code(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub fn stream(&self) -> &TcpStream {
        self.body.get_ref()
    }

    /// The lines up to an empty one; `None` at the end.
    pub fn block(&mut self) -> std::io::Result<Option<Vec<String>>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.body.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.trim_end() {
                "" => return Ok(Some(lines)),
                line => lines.push(line.to_string()),
            }
        }
    }

    /// The next event, which changes what is known; `None` at the end.
    pub fn next(&mut self) -> Option<Event> {
        match self.try_next() {
            Err(e) if e.kind() == ErrorKind::ConnectionReset => None,
            event => event.unwrap(),
        }
    }

    fn try_next(&mut self) -> std::io::Result<Option<Event>> {
        while let Some(lines) = self.block()? {
            let field = |name: &str| {
                let field = format!("{name}: ");
                let line = lines.iter().find_map(|line| line.strip_prefix(&field));
                line.map(str::to_string)
            };
            let Some(kind) = field("event") else {
                let is_known = |l: &String| l.starts_with(':') || l.starts_with("retry: ");
                assert!(lines.iter().all(is_known), "{lines:?}");
                continue;
            };
            let data: Value = serde_json::from_str(&field("data").unwrap()).unwrap();
            if kind == "batches" {
                // The list comes right after it, and whoever has that has both.
                assert_eq!(field("id"), None);
                self.batches = by_name(&data);
                continue;
            }
            let id = field("id").unwrap();
            self.last_id = id.clone();
            let event = Event { kind, id, data };
            self.take(&event);
            return Ok(Some(event));
        }
        Ok(None)
    }

    fn take(&mut self, event: &Event) {
        let name = name(&event.data);
        match event.kind.as_str() {
            "list" => self.jobs = by_name(&event.data),
            "job" => drop(self.jobs.insert(name, event.data.clone())),
            "batch" => drop(self.batches.insert(name, event.data.clone())),
            "gone" => drop((self.jobs.remove(&name), self.batches.remove(&name))),
            other => panic!("{other}"),
        }
    }

    /// Reads until the batch is so.
    #[track_caller]
    pub fn until_batch(&mut self, name: &str, is_so: impl Fn(Option<&Value>) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self.batches.get(name)) {
            assert!(Instant::now() < deadline, "{:?}", self.batches);
            self.next().unwrap_or_else(|| panic!("{:?}", self.batches));
        }
    }

    /// Reads until it is so.
    #[track_caller]
    pub fn until(&mut self, what: &str, is_so: impl Fn(&BTreeMap<String, Value>) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.jobs) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.jobs);
            self.next()
                .unwrap_or_else(|| panic!("{what}: ended, {:?}", self.jobs));
        }
    }

    /// What comes until nothing has come for a time.
    pub fn until_silent(&mut self, time: Duration) -> Vec<Event> {
        self.stream().set_read_timeout(Some(time)).unwrap();
        let events = std::iter::from_fn(|| self.try_next().ok()?).collect();
        self.stream().set_read_timeout(Some(PATIENCE)).unwrap();
        events
    }
}
