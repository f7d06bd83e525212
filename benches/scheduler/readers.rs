//! Who follows the events: when each reader is told of a job's last state, and what 64 of them cost.

use crate::harness::percentile;
use crate::harness::scheduler::{JOBS, Scheduler};
use crate::table::{Row, Table};
use serde_json::json;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

/// As many as may.
const READERS: usize = 64;
/// Each says so often how far it is.
const CHANGED: usize = 100;
const CHANGES: usize = 10;

/// In local mode, where the jobs wait: what is measured is how changes are told.
pub fn readers(table: &mut Table) {
    let scheduler = Scheduler::start_local("command: [sleep, '600']");
    let names: Vec<String> = (0..CHANGED).map(|_| scheduler.submit(&json!({}))).collect();
    sleep(Duration::from_secs(1));
    let before = scheduler.proc_status("VmRSS");
    let mut seen = Vec::new();
    let mut last = HashMap::new();
    scope(|scope| {
        let readers = (0..READERS).map(|_| {
            let stream = open(&scheduler);
            scope.spawn(move || read(stream))
        });
        let readers: Vec<_> = readers.collect();
        sleep(Duration::from_secs(1));
        let mut api = scheduler.connect().unwrap();
        for percent in 1..=CHANGES {
            for name in &names {
                let path = format!("{JOBS}/{name}/progress");
                let body = json!({"percent": percent}).to_string();
                let answer = api.ask("PUT", &path, &[], body.as_bytes()).unwrap();
                assert_eq!(answer.code, 200, "{answer}");
                last.insert(name.clone(), Instant::now());
            }
        }
        seen.extend(readers.into_iter().map(|reader| reader.join().unwrap()));
    });
    let mut late: Vec<Duration> = Vec::new();
    for reader in &seen {
        assert_eq!(
            reader.len(),
            CHANGED,
            "each is told of each job's last state"
        );
        let of = |(name, at): (&String, &Instant)| at.saturating_duration_since(last[name]);
        late.extend(reader.iter().map(of));
    }
    let after = scheduler.proc_status("VmRSS");
    let ms = |percent| percentile(&mut late.clone(), percent).as_secs_f64() * 1e3;
    table.add(Row::figure(
        &format!(
            "{READERS} readers, {} changes: told of a job's last state",
            CHANGED * CHANGES
        ),
        format!("p50 {:.1} ms, slowest {:.1} ms", ms(50), ms(100)),
    ));
    table.add(Row::bound(
        "resident, with them more by",
        after.saturating_sub(before) as f64 * 1024.0 / 1e6,
        2.0,
        "MB",
    ));
}

fn open(scheduler: &Scheduler) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", scheduler.port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let host = format!("127.0.0.1:{}", scheduler.port);
    write!(
        stream,
        "GET /api/v1/events HTTP/1.1\r\nHost: {host}\r\n\r\n"
    )
    .unwrap();
    BufReader::new(stream)
}

/// Reads until it knows all jobs as they are in the end; when it was told of each.
fn read(mut stream: BufReader<TcpStream>) -> HashMap<String, Instant> {
    let (mut told, mut line) = (HashMap::new(), String::new());
    let end = format!("\"percent\":{CHANGES},");
    while told.len() < CHANGED {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "it was cut");
        // One job on a line, as it has so few bytes; a list has none that is so far.
        if line.contains(&end) {
            let name = line
                .split("\"name\":\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            told.insert(name.unwrap().to_string(), Instant::now());
        }
    }
    told
}
