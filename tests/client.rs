//! The commands that ask a scheduler, as their users see them: against local mode, by standard output, standard error
//! and the exit code.

// Clippy knows a test by its attribute, and not the functions that it calls.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::eventually;
use support::local::{Place, free_port};

/// Prints its payload, waits as long as it is told, and ends as it is told.
const JOB: &str = "payload: {path: /in}\n\
                   command: [sh, -c, 'cat \"$JOB_PAYLOAD_FILE\"; sleep ${SECONDS_:-0}; exit ${CODE:-0}']";

fn client(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_job-scheduler"));
    command
        .args(arguments)
        .env("JOB_SCHEDULER_DATA_DIR", place.data())
        .env_remove("JOB_SCHEDULER_URL")
        .stdin(Stdio::null());
    command
}

/// Runs a command, and gives its exit code, standard output and standard error.
#[track_caller]
fn run(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    parts(client(place, arguments).output().unwrap())
}

fn parts(output: Output) -> (i32, String, String) {
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// Starts a job, and gives its name.
#[track_caller]
fn started(place: &Place, arguments: &[&str]) -> String {
    let arguments = [&["run"], arguments].concat();
    let (code, out, err) = run(place, &arguments);
    assert_eq!((code, err.as_str()), (0, ""));
    out.trim_end().to_string()
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn the_exit_code_says_how_a_job_ended() {
    let place = Place::new(&[("compute", JOB)]);
    let _scheduler = place.start(&[]);
    let (code, out, err) = run(&place, &["run", "--payload", "x", "--wait"]);
    let name = out.trim_end();
    assert_eq!(code, 0);
    // A second may pass while it runs.
    assert!(err.contains(&format!("{name} Succeeded in ")), "{err}");
    let (code, _, err) = run(
        &place,
        &["run", "--payload", "x", "--wait", "--variable", "CODE=7"],
    );
    assert_eq!(code, 1);
    assert!(err.contains(" Failed in "), "{err}");
    assert!(err.ends_with("s: exit code 7\n"), "{err}");

    let long = ["--payload", "x", "--variable", "SECONDS_=600"];
    let stopped = started(&place, &long);
    let waiting = client(&place, &["wait", &stopped])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (code, out, _) = run(&place, &["stop", &stopped]);
    assert_eq!(
        (code, out),
        (0, format!("job {stopped} successfully stopped\n"))
    );
    assert_eq!(parts(waiting.wait_with_output().unwrap()).0, 3);

    let deleted = started(&place, &long);
    let waiting = client(&place, &["wait", &deleted])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (code, out, _) = run(&place, &["delete", &deleted]);
    assert_eq!(
        (code, out),
        (0, format!("job {deleted} successfully deleted\n"))
    );
    let (code, _, err) = parts(waiting.wait_with_output().unwrap());
    assert_eq!(code, 4, "{err}");

    let late = started(&place, &long);
    let (code, _, err) = run(&place, &["wait", "--timeout", "1s", &late]);
    assert_eq!(code, 6);
    assert!(
        err.ends_with("has not finished within --timeout; it goes on\n"),
        "{err}"
    );
    assert_eq!(run(&place, &["stop", "--all"]).0, 0);
    assert_eq!(run(&place, &["wait", &late]).0, 3);
}

#[test]
fn a_payload_comes_from_anywhere_to_the_byte() {
    let place = Place::new(&[("compute", JOB)]);
    let _scheduler = place.start(&[]);
    let payload = " {\"x\": \"æ\"}\r\n\n";
    let (code, out, _) = run(&place, &["run", "--payload", payload, "--wait", "--follow"]);
    assert_eq!((code, out.as_str()), (0, payload));

    let file = place.scratch.join("payload");
    std::fs::write(&file, payload).unwrap();
    let (code, out, _) = run(
        &place,
        &["run", "-wf", "--payload-file", file.to_str().unwrap()],
    );
    assert_eq!((code, out.as_str()), (0, payload));

    let mut piped = client(&place, &["run", "-", "--wait", "--follow"]);
    let mut child = piped
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(payload.as_bytes())
        .unwrap();
    let (code, out, _) = parts(child.wait_with_output().unwrap());
    assert_eq!((code, out.as_str()), (0, payload));

    let (code, _, err) = run(&place, &["run", "--payload-file", "/dev/zero"]);
    assert_eq!(code, 2);
    assert_eq!(
        err,
        "job-scheduler: /dev/zero: is over 1048576 bytes, the most that a payload may have\n"
    );
}

#[test]
fn what_follows_the_dashes_runs_in_place_of_the_command() {
    let place = Place::new(&[("compute", JOB)]);
    let _scheduler = place.start(&[]);
    let words = [
        "run",
        "-wf",
        "--",
        "sh",
        "-c",
        "echo \"$0 $1\"; exit 3",
        "--wait",
        "-x",
    ];
    let (code, out, _) = run(&place, &words);
    assert_eq!((code, out.as_str()), (1, "--wait -x\n"));
}

#[test]
fn json_is_what_the_scheduler_answers() {
    let place = Place::new(&[("compute", JOB)]);
    let scheduler = place.start(&[]);
    let arguments = [
        "run",
        "--payload",
        "x",
        "--job-id",
        "order 17",
        "--wait",
        "-o",
        "json",
    ];
    let (code, out, _) = run(&place, &arguments);
    let job = json(&out);
    assert_eq!(code, 0);
    assert_eq!(
        (&job["status"], &job["jobId"]),
        (&"Succeeded".into(), &"order 17".into())
    );
    let name = job["name"].as_str().unwrap();
    assert_eq!(json(&run(&place, &["get", name, "-o", "json"]).1), job);
    assert_eq!(json(&run(&place, &["wait", name, "-o", "json"]).1), job);
    assert_eq!(
        json(&run(&place, &["list", "-o", "json"]).1),
        Value::from(vec![job.clone()])
    );
    let none = run(&place, &["list", "-o", "json", "--status", "Failed"]);
    assert_eq!(none.1, "[]\n");
    let (code, out, _) = run(&place, &["restart", name, "-o", "json"]);
    assert_eq!((code, &json(&out)["restartOf"]), (0, &job["name"]));
    let (code, out, _) = run(&place, &["delete", name, "-o", "json"]);
    assert_eq!((code, &json(&out)["status"]), (0, &"Success".into()));
    scheduler.end();
}

#[test]
fn people_get_tables() {
    let place = Place::new(&[("compute", JOB)]);
    let _scheduler = place.start(&[]);
    assert_eq!(
        run(&place, &["list"]),
        (0, "no jobs\n".to_string(), String::new())
    );
    let name = started(&place, &["--payload", "x", "--variable", "CODE=2"]);
    assert_eq!(run(&place, &["wait", &name]).0, 1);
    let (_, list, _) = run(&place, &["list"]);
    let lines: Vec<_> = list.lines().collect();
    assert!(
        lines[0].starts_with("NAME ") && lines[0].ends_with("MESSAGE"),
        "{list}"
    );
    assert!(
        lines[1].starts_with(&name) && lines[1].ends_with("exit code 2"),
        "{list}"
    );
    let (_, one, _) = run(&place, &["get", &name]);
    assert!(
        one.contains("Status:   Failed\n") && one.contains("ATTEMPT "),
        "{one}"
    );
    // No colours in a file.
    assert!(!list.contains('\x1b') && !one.contains('\x1b'));
    let (_, log, _) = run(&place, &["logs", &name]);
    assert_eq!(log, "x");
    let (code, out, err) = run(&place, &["stop", "compute-no", "compute-nope"]);
    assert_eq!((code, out.as_str()), (4, ""));
    assert_eq!(err.lines().count(), 2, "{err}");
}

#[test]
fn one_of_several_components_is_named_or_follows_from_the_job() {
    let place = Place::new(&[("compute", JOB), ("etl", JOB)]);
    let scheduler = place.start(&[]);
    let (code, _, err) = run(&place, &["list"]);
    assert_eq!(code, 2);
    assert!(
        err.contains("give --component or --url of one of compute (http://127.0.0.1:"),
        "{err}"
    );
    let name = started(&place, &["--component", "etl", "--payload", "x"]);
    assert!(name.starts_with("etl-"), "{name}");
    assert_eq!(run(&place, &["wait", &name]).0, 0);
    let url = format!("http://127.0.0.1:{}/api/v1", place.ports[0]);
    assert_eq!(run(&place, &["list", "--url", &url]).1, "no jobs\n");
    scheduler.end();
    let (code, _, err) = run(&place, &["list", "--component", "etl"]);
    assert_eq!(code, 2);
    assert!(err.contains("no scheduler runs on this machine"), "{err}");
}

#[test]
fn what_does_not_answer_or_is_something_else_is_told() {
    let place = Place::new(&[("compute", JOB)]);
    let url = format!("http://127.0.0.1:{}", free_port());
    let (code, _, err) = run(&place, &["list", "--url", &url]);
    assert_eq!(code, 5);
    assert_eq!(
        err,
        format!(
            "job-scheduler: {url}: nothing listens there: start the scheduler, or give --url\n"
        )
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        stream
            .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            .unwrap();
    });
    let (code, _, err) = run(&place, &["list", "--url", &url]);
    other.join().unwrap();
    assert_eq!(code, 5);
    assert!(
        err.contains("what answers there (with 403) is no job-scheduler"),
        "{err}"
    );
}

/// A wait goes on over a restart of the scheduler, and so does a submit.
#[test]
fn a_scheduler_that_is_replaced_is_asked_again() {
    let place = Place::new(&[("compute", JOB)]);
    let scheduler = place.start(&[]);
    let long = ["--payload", "x", "--variable", "SECONDS_=600"];
    let name = started(&place, &long);
    let url = format!("http://127.0.0.1:{}", place.ports[0]);
    let mut waiting = client(&place, &["wait", &name, "--url", &url])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It says where the job stands once it has been answered.
    said(&mut waiting, "Running");
    scheduler.kill();
    said(&mut waiting, "trying again");
    let submitting = client(&place, &["run", "--payload", "y", "--url", &url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let _scheduler = place.start(&[]);
    // What was running when the scheduler was killed is Failed.
    assert_eq!(waiting.wait().unwrap().code(), Some(1));
    let (code, out, _) = parts(submitting.wait_with_output().unwrap());
    assert_eq!((code, out.starts_with("compute-")), (0, true));
}

/// Reads a child's standard error until it has said something.
#[track_caller]
fn said(child: &mut Child, what: &str) {
    let mut seen = Vec::new();
    let stderr = child.stderr.as_mut().unwrap();
    while !String::from_utf8_lossy(&seen).contains(what) {
        let mut byte = [0];
        assert_eq!(
            stderr.read(&mut byte).unwrap(),
            1,
            "{}",
            String::from_utf8_lossy(&seen)
        );
        seen.push(byte[0]);
    }
}

/// The answer to the first submit is lost: the second must not make a second job.
#[test]
fn a_lost_answer_makes_no_second_job() {
    let place = Place::new(&[("compute", JOB)]);
    let _scheduler = place.start(&[]);
    let scheduler = ("127.0.0.1", place.ports[0]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let proxy = std::thread::spawn(move || {
        for attempt in 0..2 {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let mut length = 0;
            // Head and body come at once, or one after the other.
            while !request[..length].ends_with(b"}") {
                length += client.read(&mut request[length..]).unwrap();
            }
            let mut server = TcpStream::connect(scheduler).unwrap();
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            let host = format!("127.0.0.1:{}", scheduler.1);
            let own = client.local_addr().unwrap().to_string();
            server
                .write_all(text.replace(&own, &host).as_bytes())
                .unwrap();
            server.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            server.read_to_end(&mut answer).unwrap();
            assert!(
                answer.starts_with(b"HTTP/1.1 200"),
                "{}",
                String::from_utf8_lossy(&answer)
            );
            if attempt == 1 {
                client.write_all(&answer).unwrap();
            }
        }
    });
    let (code, out, err) = run(&place, &["run", "--payload", "x", "--url", &url]);
    proxy.join().unwrap();
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("trying again"), "{err}");
    let (_, list, _) = run(&place, &["list", "-o", "json"]);
    let jobs = json(&list);
    assert_eq!(jobs.as_array().unwrap().len(), 1, "{list}");
    assert_eq!(jobs[0]["name"], out.trim_end());
}

#[test]
fn whoever_stops_reading_ends_the_command() {
    let place = Place::new(&[("compute", JOB)]);
    let _scheduler = place.start(&[]);
    let name = started(&place, &["--", "sh", "-c", "while echo line; do :; done"]);
    let mut logs = client(&place, &["logs", "-f", &name])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = logs.stdout.take().unwrap();
    out.read_exact(&mut [0; 100]).unwrap();
    drop(out);
    let begun = Instant::now();
    let status = eventually("the command ends", || logs.try_wait().unwrap());
    assert!(
        status.success() && begun.elapsed() < Duration::from_secs(30),
        "{status}"
    );
    assert_eq!(run(&place, &["stop", &name]).0, 0);
}

/// What bash offers after the words.
fn offered(words: &[&str]) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_job-scheduler");
    let list: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "source <({program} completions bash); COMP_WORDS=({}); COMP_CWORD={}; _job_scheduler; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        list.join(" "),
        words.len() - 1
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_string).collect()
}

#[test]
fn bash_completes_commands_flags_and_words() {
    assert_eq!(offered(&["job-scheduler", "re"]), ["restart"]);
    assert_eq!(
        offered(&["job-scheduler", "run", "--pay"]),
        ["--payload", "--payload-file"]
    );
    assert_eq!(
        offered(&["job-scheduler", "completions", ""]),
        ["bash", "zsh", "fish"]
    );
    assert_eq!(offered(&["job-scheduler", "help", "o"]), ["openapi"]);
    assert!(offered(&["job-scheduler", "validate", "Cargo"]).contains(&"Cargo.toml".to_string()));
}
