//! The commands that ask a scheduler: all that an image without a shell has to ask with.
//!
//! Standard output has the result alone: a name, a table, a log, or with `--output json` the
//! scheduler's own answer. What happens meanwhile goes to standard error.

mod addresses;
mod api;
mod show;

use crate::cli::{Action, ClientOptions, Output, Payload, RunOptions};
use crate::job::Timestamp;
pub use addresses::{Address, Published, publish};
use addresses::{Unclear, find, pick};
use api::{Answer, Api, NoAnswer};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use show::{Colour, JobState};
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where a scheduler is looked for if nothing says where one is.
const DEFAULT_URL: &str = "http://127.0.0.1:8000";
/// The most that a payload may have: what one Secret holds.
const MAX_PAYLOAD_BYTES: u64 = 1 << 20;
/// How long a scheduler that has not answered yet is asked again: one that is being replaced is
/// back within it.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// The same for one that has answered before.
const PATIENCE: Duration = Duration::from_secs(60);
/// What one question waits for a job, and how often a terminal shows anew where it stands.
const LONG_WAIT: Duration = Duration::from_secs(60);
const TERMINAL_WAIT: Duration = Duration::from_secs(1);
/// Between two questions that were answered at once.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How a job ended, as an exit code.
const SUCCEEDED: u8 = 0;
const FAILED: u8 = 1;
const STOPPED: u8 = 3;

/// Why a command is not done.
#[derive(Debug)]
pub enum ClientError {
    /// The scheduler is not known.
    Where(String),
    /// The payload cannot be read or sent.
    Payload(String),
    /// There is no answer.
    NoAnswer(NoAnswer),
    /// The scheduler refuses, and says why.
    Refused {
        code: u16,
        message: String,
        retry_after: Option<Duration>,
    },
    /// Something else than a scheduler answers.
    NotAScheduler { url: String, code: u16 },
    /// The job has not finished in time.
    Timeout { name: String },
    /// The log broke off.
    Log(io::Error),
    /// Standard output cannot be written.
    Output(io::Error),
}

impl ClientError {
    pub fn exit_code(&self) -> u8 {
        match self {
            ClientError::Where(_) | ClientError::Payload(_) => 2,
            ClientError::Refused { code, .. } => match code {
                413 | 422 => 2,
                404 => 4,
                _ => 5,
            },
            ClientError::NoAnswer(_) | ClientError::NotAScheduler { .. } | ClientError::Log(_) => 5,
            ClientError::Timeout { .. } => 6,
            ClientError::Output(_) => 1,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Where(message) | ClientError::Payload(message) => f.write_str(message),
            ClientError::NoAnswer(e) => e.fmt(f),
            ClientError::Refused { message, .. } => f.write_str(message),
            ClientError::NotAScheduler { url, code } => write!(
                f,
                "{url}: what answers there (with {code}) is no job-scheduler: give its --url"
            ),
            ClientError::Timeout { name } => {
                write!(f, "{name} has not finished within --timeout; it goes on")
            }
            ClientError::Log(e) => write!(f, "the log broke off: {e}"),
            ClientError::Output(e) => write!(f, "standard output: {e}"),
        }
    }
}

/// Does what is asked for, and gives the exit code.
pub fn run(options: &ClientOptions) -> Result<u8, ClientError> {
    let url = url(options)?;
    let client = Client {
        api: Api::new(&url),
        url,
        output: options.output,
        colour: options.colour,
    };
    match &options.action {
        Action::Run(run) => client.run(run),
        Action::List { statuses } => client.list(statuses),
        Action::Get { name } => client.get(name),
        Action::Logs { name, follow, tail } => client.logs(name, *follow, *tail),
        Action::Wait { name, timeout } => {
            let state = client.wait(name, *timeout)?;
            client.print_end(&state)
        }
        Action::Stop { names } => client.each(names, "POST", "/stop"),
        Action::Delete { names } => client.each(names, "DELETE", ""),
        Action::StopAll => client.act("POST", "/api/v1/jobs/stop"),
        Action::Restart { name } => client.restart(name),
    }
}

/// The scheduler to ask: the one that is given, or one that listens on this machine.
fn url(options: &ClientOptions) -> Result<String, ClientError> {
    if let Some(url) = &options.url {
        return Ok(url.clone());
    }
    let addresses = options.data_dir.as_deref().map(find).unwrap_or_default();
    let job = match &options.action {
        Action::Get { name }
        | Action::Logs { name, .. }
        | Action::Wait { name, .. }
        | Action::Restart { name } => Some(name),
        Action::Stop { names } | Action::Delete { names } => names.first(),
        Action::Run(_) | Action::List { .. } | Action::StopAll => None,
    };
    let component = options.component.as_deref();
    match pick(&addresses, component, job.map(String::as_str)) {
        Ok(address) => Ok(address.url.clone()),
        Err(Unclear::Nothing) if component.is_none() => Ok(DEFAULT_URL.to_string()),
        Err(Unclear::Nothing) => Err(ClientError::Where(
            "no scheduler runs on this machine: start `job-scheduler local`, or give --url".into(),
        )),
        Err(Unclear::Unknown { known }) => Err(ClientError::Where(format!(
            "--component {}: is not one of this machine's: give one of {}",
            component.unwrap_or_default(),
            known.join(", ")
        ))),
        Err(Unclear::Several { known }) => Err(ClientError::Where(format!(
            "several job components are served on this machine: give --component or --url of one of {}",
            known.join(", ")
        ))),
    }
}

struct Client {
    api: Api,
    url: String,
    output: Output,
    colour: bool,
}

/// A job, and the answer that it was read from.
struct Seen {
    job: JobState,
    body: String,
}

impl Client {
    fn run(&self, options: &RunOptions) -> Result<u8, ClientError> {
        let body = body(options)?;
        let key = match &options.idempotency_key {
            Some(key) => key.clone(),
            None => format!("run-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
        };
        let started = self.submit(body.as_bytes(), &key)?;
        let name = started.job.name.clone();
        if options.follow {
            note(&name);
            match self.print_log(&name, true, None) {
                Ok(()) => {}
                // Its end can be waited for all the same.
                Err(e) if options.wait => note(&format!("job-scheduler: {e}")),
                Err(e) => return Err(e),
            }
        } else if self.output == Output::Text {
            print(&format!("{name}\n"))?;
        } else if !options.wait {
            print_answer(&started.body)?;
        }
        if !options.wait {
            return Ok(SUCCEEDED);
        }
        let seen = self.wait(&name, options.timeout)?;
        match self.output {
            Output::Text => note(&self.shown(&seen.job)),
            Output::Json => print_answer(&seen.body)?,
        }
        Ok(code(&seen.job))
    }

    /// Starts the job. The key makes it safe to send it again, as long as it is not clear what has
    /// become of it.
    fn submit(&self, body: &[u8], key: &str) -> Result<Seen, ClientError> {
        let headers = [("Idempotency-Key", key)];
        let waits = Duration::ZERO;
        let path = "/api/v1/jobs";
        let mut patience = Patience::new(FIRST_PATIENCE);
        loop {
            let sent = self.api.call("POST", path, &headers, Some(body), waits);
            let error = match self.checked(sent) {
                Ok(answer) => return self.job(answer),
                Err(error) => error,
            };
            patience.take(error)?;
        }
    }

    fn list(&self, statuses: &[String]) -> Result<u8, ClientError> {
        let body = self.ask("GET", "/api/v1/jobs", Duration::ZERO)?.body;
        let wanted = |status: &str| {
            let mut statuses = statuses.iter();
            statuses.len() == 0 || statuses.any(|wanted| wanted.eq_ignore_ascii_case(status))
        };
        match self.output {
            Output::Json if statuses.is_empty() => print_answer(&body)?,
            Output::Json => {
                let mut jobs: Vec<Value> = self.parsed(&body)?;
                jobs.retain(|job| job["status"].as_str().is_some_and(wanted));
                print_answer(&Value::from(jobs).to_string())?;
            }
            Output::Text => {
                let mut jobs: Vec<JobState> = self.parsed(&body)?;
                jobs.retain(|job| wanted(&job.status));
                let colour = self.colour(&io::stdout());
                print(&show::list(&jobs, Timestamp::now(), colour))?;
            }
        }
        Ok(SUCCEEDED)
    }

    fn get(&self, name: &str) -> Result<u8, ClientError> {
        let answer = self.ask("GET", &path(name, ""), Duration::ZERO)?;
        match self.output {
            Output::Json => print_answer(&answer.body)?,
            Output::Text => {
                let job = self.job(answer)?.job;
                let colour = self.colour(&io::stdout());
                print(&show::job(&job, Timestamp::now(), colour))?;
            }
        }
        Ok(SUCCEEDED)
    }

    fn logs(&self, name: &str, follow: bool, tail: Option<u32>) -> Result<u8, ClientError> {
        self.print_log(name, follow, tail).map(|()| SUCCEEDED)
    }

    fn print_log(&self, name: &str, follow: bool, tail: Option<u32>) -> Result<(), ClientError> {
        let tail = tail
            .map(|lines| format!("&tail={lines}"))
            .unwrap_or_default();
        let path = path(name, &format!("/logs?follow={follow}{tail}"));
        let mut log = match self.api.log(&path).map_err(ClientError::NoAnswer)? {
            Ok(log) => log,
            Err(answer) => return Err(self.refused(answer)),
        };
        let mut buffer = [0; 16 * 1024];
        let mut last = b'\n';
        loop {
            let count = match log.read(&mut buffer) {
                Ok(0) => {
                    // What is said next begins a line of its own, and the log stays as it is.
                    if last != b'\n' {
                        note("");
                    }
                    return Ok(());
                }
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(ClientError::Log(e)),
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            last = bytes.last().copied().unwrap_or(last);
            if !print_bytes(bytes)? {
                return Ok(());
            }
        }
    }

    /// Waits for a job's end, and shows where it stands meanwhile.
    fn wait(&self, name: &str, timeout: Option<Duration>) -> Result<Seen, ClientError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut progress = Progress::new(self.colour(&io::stderr()));
        let mut patience = Patience::new(FIRST_PATIENCE);
        // The first answer shows at once where it stands.
        let mut longest = Duration::ZERO;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let wait = left.map_or(longest, |left| left.min(longest));
            let asked = Instant::now();
            // Rounded up, or the last part of a second would be asked for again and again.
            let seconds = wait.as_millis().div_ceil(1000);
            let path = path(name, &format!("?wait={seconds}s"));
            match self
                .ask("GET", &path, wait)
                .and_then(|answer| self.job(answer))
            {
                Ok(seen) if seen.job.is_finished() => {
                    progress.end();
                    return Ok(seen);
                }
                Ok(seen) => {
                    progress.show(&seen.job);
                    longest = match progress.is_terminal {
                        true => TERMINAL_WAIT,
                        false => LONG_WAIT,
                    };
                    patience = Patience::new(PATIENCE);
                    // A scheduler that is about to end answers early.
                    if asked.elapsed() < wait.min(PAUSE) {
                        sleep(PAUSE);
                    }
                }
                Err(error) => {
                    progress.end();
                    patience.take(error)?;
                }
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                progress.end();
                let name = name.to_string();
                return Err(ClientError::Timeout { name });
            }
        }
    }

    fn print_end(&self, seen: &Seen) -> Result<u8, ClientError> {
        match self.output {
            Output::Text => {
                let colour = self.colour(&io::stdout());
                let line = show::progress(&seen.job, Timestamp::now(), colour);
                print(&format!("{line}\n"))?;
            }
            Output::Json => print_answer(&seen.body)?,
        }
        Ok(code(&seen.job))
    }

    /// Does the same with each job, whatever comes of the others; the first error is the outcome.
    fn each(&self, names: &[String], method: &str, action: &str) -> Result<u8, ClientError> {
        let mut outcome = Ok(SUCCEEDED);
        for name in names {
            match self.act(method, &path(name, action)) {
                Ok(_) => {}
                Err(e) if outcome.is_ok() => outcome = Err(e),
                Err(e) => note(&format!("job-scheduler: {e}")),
            }
        }
        outcome
    }

    fn act(&self, method: &str, path: &str) -> Result<u8, ClientError> {
        let answer = self.ask(method, path, Duration::ZERO)?;
        match self.output {
            Output::Json => print_answer(&answer.body)?,
            Output::Text => print(&format!("{}\n", message(&answer.body).unwrap_or_default()))?,
        }
        Ok(SUCCEEDED)
    }

    fn restart(&self, name: &str) -> Result<u8, ClientError> {
        let answer = self.ask("POST", &path(name, "/restart"), Duration::ZERO)?;
        match self.output {
            Output::Json => print_answer(&answer.body)?,
            Output::Text => print(&format!("{}\n", self.job(answer)?.job.name))?,
        }
        Ok(SUCCEEDED)
    }

    fn ask(&self, method: &str, path: &str, waits: Duration) -> Result<Answer, ClientError> {
        self.checked(self.api.call(method, path, &[], None, waits))
    }

    fn checked(&self, answer: Result<Answer, NoAnswer>) -> Result<Answer, ClientError> {
        let answer = answer.map_err(ClientError::NoAnswer)?;
        match answer.code {
            200..300 => Ok(answer),
            _ => Err(self.refused(answer)),
        }
    }

    fn refused(&self, answer: Answer) -> ClientError {
        let code = answer.code;
        match message(&answer.body) {
            Some(message) => ClientError::Refused {
                code,
                message,
                retry_after: answer.retry_after,
            },
            None => ClientError::NotAScheduler {
                url: self.url.clone(),
                code,
            },
        }
    }

    fn job(&self, answer: Answer) -> Result<Seen, ClientError> {
        let job = self.parsed(&answer.body)?;
        let body = answer.body;
        Ok(Seen { job, body })
    }

    fn parsed<'b, T: Deserialize<'b>>(&self, body: &'b str) -> Result<T, ClientError> {
        serde_json::from_str(body).map_err(|_| ClientError::NotAScheduler {
            url: self.url.clone(),
            code: 200,
        })
    }

    fn shown(&self, job: &JobState) -> String {
        show::progress(job, Timestamp::now(), self.colour(&io::stderr()))
    }

    fn colour(&self, stream: &impl IsTerminal) -> Colour {
        match self.colour && stream.is_terminal() {
            true => Colour::On,
            false => Colour::Off,
        }
    }
}

/// How a finished job ended.
fn code(job: &JobState) -> u8 {
    match job.status.as_str() {
        "Succeeded" => SUCCEEDED,
        "Stopped" => STOPPED,
        _ => FAILED,
    }
}

/// What an answer says, if it is a Status object.
fn message(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    let status: Status = serde_json::from_str(body).ok()?;
    Some(status.message)
}

/// The path of a job; what no name has is encoded.
fn path(name: &str, rest: &str) -> String {
    let mut path = String::from("/api/v1/jobs/");
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => path.push(byte.into()),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path + rest
}

/// The body of the request: what is given, and nothing else.
fn body(options: &RunOptions) -> Result<String, ClientError> {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(name.to_string(), value);
        }
    };
    set("payload", payload(&options.payload)?.map(Value::from));
    set("jobId", options.job_id.clone().map(Value::from));
    set("priority", options.priority.map(Value::from));
    set("image", options.image.clone().map(Value::from));
    set(
        "imageTagName",
        options.image_tag_name.clone().map(Value::from),
    );
    let variables = options.variables.iter();
    let variables: Map<String, Value> = variables
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect();
    set(
        "variables",
        (!variables.is_empty()).then_some(Value::Object(variables)),
    );
    set(
        "timeLimitSeconds",
        options.time_limit_seconds.map(Value::from),
    );
    set("backoffLimit", options.backoff_limit.map(Value::from));
    if let Some(words) = &options.command {
        set("command", Some(json!(words)));
        // The configured ones belong to the configured command.
        set("args", Some(json!([])));
    }
    Ok(Value::Object(fields).to_string())
}

fn payload(payload: &Payload) -> Result<Option<String>, ClientError> {
    let (name, bytes) = match payload {
        Payload::None => return Ok(None),
        Payload::Text(text) => return Ok(Some(text.clone())),
        Payload::File(file) => (
            file.display().to_string(),
            File::open(file).and_then(|file| read_bounded(&file)),
        ),
        Payload::StandardInput => ("standard input".to_string(), read_bounded(io::stdin())),
    };
    let problem = |problem: &str| Err(ClientError::Payload(format!("{name}: {problem}")));
    match bytes.map(String::from_utf8) {
        Err(e) => problem(&e.to_string()),
        Ok(Err(_)) => problem("is not UTF-8 text, as a payload is: encode it, such as with base64"),
        Ok(Ok(text)) if text.len() as u64 > MAX_PAYLOAD_BYTES => {
            problem("is over 1048576 bytes, the most that a payload may have")
        }
        Ok(Ok(text)) => Ok(Some(text)),
    }
}

fn read_bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_PAYLOAD_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// How long a scheduler that does not answer, or not yet, is asked again.
struct Patience {
    until: Instant,
    pause: Duration,
    said: bool,
}

impl Patience {
    fn new(length: Duration) -> Patience {
        Patience {
            until: Instant::now() + length,
            pause: Duration::from_millis(200),
            said: false,
        }
    }

    /// Waits a little, or gives the error back if it is of another kind or the time is over.
    fn take(&mut self, error: ClientError) -> Result<(), ClientError> {
        let asked = match &error {
            ClientError::NoAnswer(_) => None,
            ClientError::Refused {
                code: 429 | 503,
                retry_after,
                ..
            } => *retry_after,
            _ => return Err(error),
        };
        if Instant::now() >= self.until {
            return Err(error);
        }
        if !self.said {
            note(&format!("job-scheduler: {error}; trying again"));
            self.said = true;
        }
        let pause = self.pause.mul_f64(0.5 + fastrand::f64());
        sleep(pause.max(asked.unwrap_or_default().min(LONGEST_PAUSE)));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// Where a job stands, on standard error: one line that changes on a terminal, or else a line for
/// each change.
struct Progress {
    is_terminal: bool,
    colour: Colour,
    status: String,
}

impl Progress {
    fn new(colour: Colour) -> Progress {
        Progress {
            is_terminal: io::stderr().is_terminal(),
            colour,
            status: String::new(),
        }
    }

    fn show(&mut self, job: &JobState) {
        let line = show::progress(job, Timestamp::now(), self.colour);
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K{line}");
        } else if self.status != job.status {
            note(&line);
        }
        self.status = job.status.clone();
    }

    fn end(&mut self) {
        if self.is_terminal && !self.status.is_empty() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Says something beside the result. Whoever closed standard error does not want to know.
fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn print_answer(body: &str) -> Result<(), ClientError> {
    print(&format!("{}\n", body.trim_end()))
}

fn print(text: &str) -> Result<(), ClientError> {
    print_bytes(text.as_bytes()).map(|_| ())
}

/// Whether anybody still reads.
fn print_bytes(bytes: &[u8]) -> Result<bool, ClientError> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(ClientError::Output(e)),
    }
}
