//! List, watch, resume, relist on 410, back off on errors: a state machine for each kind that is
//! watched.

use super::api::{ApiError, ApiStatus, Calls, Format, Patience};
use super::protobuf::{Message, decode};
use super::wire::{Event, JobObject, PodObject, decode_object};
use crate::backend::Observer;
use crate::clock::Clock;
use crate::job::{Attempt, Job, JobList, JobName, ListBegun};
use crate::metrics::Metrics;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Objects asked for in one answer of a list, at most.
const MAX_PAGE: usize = 500;
/// Watches in a row that break off without a word until everything is listed again.
const MAX_BROKEN: u32 = 2;
/// A frame holds one object, and etcd keeps none of 2 MiB.
const MAX_FRAME_BYTES: u64 = 8 << 20;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// With its jitter it leaves time to be well within 5 s of the API server's return.
const MAX_BACKOFF: Duration = Duration::from_secs(3);
/// A watch that lived so long worked, whether or not there was anything to tell.
const SETTLED: Duration = Duration::from_millis(500);

/// A kind of object that is watched, and how its observer hears of it.
pub trait Watched: 'static {
    type Object: DeserializeOwned + for<'a> Message<'a>;
    /// What is kept of an object of a list.
    type Listed;
    /// For log lines and metrics: one of [`crate::metrics::KINDS`].
    const KIND: &'static str;
    /// Below the namespace.
    const RESOURCE: &'static str;
    fn version(object: &Self::Object) -> &str;
    fn relist_begins(observer: &dyn Observer) -> ListBegun;
    /// `None` for an object that is not ours, or gone for us.
    fn listed(object: Self::Object) -> Option<Self::Listed>;
    fn relisted(observer: &dyn Observer, all: Vec<Self::Listed>, version: u64, begun: ListBegun);
    fn seen(observer: &dyn Observer, object: Self::Object);
    fn gone(observer: &dyn Observer, object: Self::Object);
}

pub struct Jobs;

impl Watched for Jobs {
    type Object = JobObject;
    type Listed = Job;
    const KIND: &'static str = "jobs";
    const RESOURCE: &'static str = "apis/batch/v1/namespaces/{namespace}/jobs";

    fn version(object: &JobObject) -> &str {
        &object.metadata.resource_version
    }

    fn relist_begins(observer: &dyn Observer) -> ListBegun {
        observer.jobs_relist_begins()
    }

    fn listed(object: JobObject) -> Option<Job> {
        // A Job on its way out (its deletion waits for somebody's finalizer) is gone for us.
        match object.metadata.deletion_timestamp {
            Some(_) => None,
            None => object.into_job(),
        }
    }

    fn relisted(observer: &dyn Observer, jobs: Vec<Job>, version: u64, begun: ListBegun) {
        observer.jobs_relisted(JobList { jobs, version }, begun);
    }

    fn seen(observer: &dyn Observer, object: JobObject) {
        if object.metadata.deletion_timestamp.is_some() {
            return Jobs::gone(observer, object);
        }
        if let Some(job) = object.into_job() {
            observer.job_seen(job);
        }
    }

    fn gone(observer: &dyn Observer, object: JobObject) {
        if let Some(job) = object.into_job() {
            observer.job_gone(&job);
        }
    }
}

pub struct Pods;

impl Watched for Pods {
    type Object = PodObject;
    type Listed = (JobName, Attempt);
    const KIND: &'static str = "pods";
    const RESOURCE: &'static str = "api/v1/namespaces/{namespace}/pods";

    fn version(object: &PodObject) -> &str {
        &object.metadata.resource_version
    }

    fn relist_begins(_: &dyn Observer) -> ListBegun {
        ListBegun::default()
    }

    fn listed(object: PodObject) -> Option<(JobName, Attempt)> {
        object.into_attempt()
    }

    fn relisted(observer: &dyn Observer, attempts: Vec<(JobName, Attempt)>, _: u64, _: ListBegun) {
        observer.attempts_relisted(attempts);
    }

    fn seen(observer: &dyn Observer, object: PodObject) {
        if let Some((job, attempt)) = object.into_attempt() {
            observer.attempt_seen(&job, attempt);
        }
    }

    fn gone(observer: &dyn Observer, object: PodObject) {
        if let Some((job, attempt)) = object.into_attempt() {
            // Its last state comes with the deletion: a pod may end and be removed in one go.
            let name = attempt.name.clone();
            observer.attempt_seen(&job, attempt);
            observer.attempt_gone(&job, &name);
        }
    }
}

/// Where a watch stands.
#[derive(Debug, PartialEq)]
enum State {
    /// Nothing is known, or too old: list everything.
    List,
    /// All until this resourceVersion is known: watch from there. `broken` watches in a row came to
    /// nothing from it.
    Watch { version: String, broken: u32 },
}

/// Why a watch ended.
#[derive(Debug)]
enum End {
    /// The server's time was up, or the connection's: go on from the last version.
    Stream { version: String },
    /// The connection broke off: go on from the last version, but for one that always breaks.
    Broken { version: String, cause: String },
    /// The version is too old, or the server has an error where events should be: list again, as
    /// client-go does. Asked again from the same version, it might say the same for ever.
    Error { cause: String },
}

/// What a watch was good for.
#[derive(Default)]
struct Life {
    /// Since it was answered.
    lived: Duration,
    frames: u64,
}

impl Life {
    fn worked(&self) -> bool {
        self.frames > 0 || self.lived >= SETTLED
    }
}

/// How long to pause between steps: longer with each one that came to nothing, and from the start
/// again after a watch that worked. A list that succeeds proves no watch.
#[derive(Default)]
struct Pace {
    failures: u32,
}

impl Pace {
    /// After a watch. Even one that worked is not followed by the next at once, or a server that
    /// ends each of them after a frame would be asked without pause.
    fn after_watch(&mut self, life: &Life, jitter: f64) -> Duration {
        if life.worked() {
            self.failures = 0;
        }
        self.after_failure(jitter).saturating_sub(life.lived)
    }

    fn after_failure(&mut self, jitter: f64) -> Duration {
        let pause = backoff(self.failures, jitter);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

/// Watches one kind in one namespace until `stop`.
pub struct Watch<'a> {
    pub calls: &'a Calls,
    pub clock: &'a Clock,
    pub observer: &'a dyn Observer,
    pub namespace: &'a str,
    /// A label selector, not yet percent-encoded.
    pub selector: &'a str,
    pub metrics: &'a Metrics,
    pub stop: &'a AtomicBool,
}

impl Watch<'_> {
    /// Runs for as long as the process.
    pub fn run<T: Watched>(&self) {
        let mut state = State::List;
        let mut pace = Pace::default();
        while !self.stop.load(Ordering::Relaxed) {
            let pause;
            (state, pause) = self.step::<T>(state, &mut pace);
            self.clock.sleep(pause);
        }
    }

    /// Goes on from `state`. Returns the next one and how long to pause before it.
    fn step<T: Watched>(&self, state: State, pace: &mut Pace) -> (State, Duration) {
        let complain = |cause: &str, pause: Duration| {
            log::warn!(
                "watch={} backoff={}ms error=\"{cause}\"",
                T::KIND,
                pause.as_millis()
            );
        };
        let State::Watch { version, broken } = state else {
            return match self.counted_list::<T>() {
                Ok(version) => (State::Watch { version, broken: 0 }, Duration::ZERO),
                Err(e) => {
                    let pause = pace.after_failure(self.clock.jitter());
                    complain(&e.to_string(), pause);
                    (State::List, pause)
                }
            };
        };
        let (end, life) = self.watch::<T>(version);
        let pause = pace.after_watch(&life, self.clock.jitter());
        match end {
            End::Stream { version } => {
                if !life.worked() {
                    complain("the watch ended at once", pause);
                }
                (State::Watch { version, broken: 0 }, pause)
            }
            End::Broken { version, cause } => {
                complain(&cause, pause);
                match broken + 1 {
                    _ if life.frames > 0 => (State::Watch { version, broken: 0 }, pause),
                    broken if broken >= MAX_BROKEN => (State::List, pause),
                    broken => (State::Watch { version, broken }, pause),
                }
            }
            End::Error { cause } => {
                complain(&format!("{cause}: listing again"), pause);
                (State::List, pause)
            }
        }
    }

    fn counted_list<T: Watched>(&self) -> Result<String, ApiError> {
        self.metrics.relist(T::KIND);
        let version = self.list::<T>()?;
        self.heard::<T>();
        Ok(version)
    }

    /// Something came of this kind.
    fn heard<T: Watched>(&self) {
        self.metrics.watch_heard(T::KIND, self.clock.now());
    }

    fn list<T: Watched>(&self) -> Result<String, ApiError> {
        let begun = T::relist_begins(self.observer);
        let (all, version) = list_all::<T>(self.calls, self.namespace, self.selector)?;
        log::debug!("watch={} listed={}", T::KIND, all.len());
        T::relisted(self.observer, all, number(&version), begun);
        Ok(version)
    }

    fn watch<T: Watched>(&self, version: String) -> (End, Life) {
        // The server ends a watch after this; spread, so that not all come back at once.
        let seconds = self.clock.rng().u32(240..480);
        let query = format!(
            "watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}"
        );
        let opened = self
            .calls
            .watch(&path::<T>(self.namespace, self.selector, &query));
        let began = self.clock.instant();
        let frames = Cell::new(0);
        let end = match opened {
            Ok((format, stream)) => {
                let heard = || {
                    frames.set(frames.get() + 1);
                    self.heard::<T>()
                };
                follow::<T>(stream, format, version, self.observer, self.stop, &heard)
            }
            Err(e) if e.code().is_some() => End::Error {
                cause: e.to_string(),
            },
            Err(e) => End::Broken {
                version,
                cause: e.to_string(),
            },
        };
        self.metrics.watch_ended(T::KIND);
        let life = Life {
            lived: self.clock.instant() - began,
            frames: frames.get(),
        };
        (end, life)
    }
}

fn path<T: Watched>(namespace: &str, selector: &str, query: &str) -> String {
    let resource = T::RESOURCE.replace("{namespace}", namespace);
    let selector = selector
        .replace('=', "%3D")
        .replace(',', "%2C")
        .replace('/', "%2F");
    format!("/{resource}?labelSelector={selector}&{query}")
}

/// Lists all pages; a page whose continuation is too old fails the list. Returns what is kept of
/// the objects, and the version that they are of.
pub fn list_all<T: Watched>(
    calls: &Calls,
    namespace: &str,
    selector: &str,
) -> Result<(Vec<T::Listed>, String), ApiError> {
    let (mut all, mut token, mut limit) = (Vec::new(), String::new(), MAX_PAGE);
    loop {
        let query = format!("limit={limit}&continue={}", encode_token(&token));
        let path = path::<T>(namespace, selector, &query);
        let page: Page<T::Object> = match calls.list(&path, Patience::List) {
            Ok(page) => page,
            // It may be too much for one answer: jobs can be long.
            Err(ApiError::Lost { .. } | ApiError::Malformed { .. }) if limit > 1 => {
                limit /= 2;
                continue;
            }
            Err(e) => return Err(e),
        };
        // A page at a time: what is kept of an object is a tenth of it.
        all.extend(page.items.into_iter().filter_map(T::listed));
        token = page.metadata.r#continue;
        if token.is_empty() {
            return Ok((all, page.metadata.resource_version));
        }
    }
}

/// Reads frames until the stream ends.
fn follow<T: Watched>(
    stream: impl Read,
    format: Format,
    mut version: String,
    observer: &dyn Observer,
    stop: &AtomicBool,
    heard: &dyn Fn(),
) -> End {
    let mut stream = BufReader::new(stream);
    let mut frame = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match read_frame(&mut stream, format, &mut frame) {
            Ok(true) => {}
            Ok(false) => return End::Stream { version },
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
                return End::Broken {
                    version,
                    cause: "the watch was cut inside a frame".to_string(),
                };
            }
            // An idle or broken connection is no news: go on from the last version on another one.
            Err(e) => {
                return End::Broken {
                    version,
                    cause: format!("the watch broke off: {e}"),
                };
            }
        }
        match take_frame::<T>(&frame, format, &version, observer) {
            Ok(newer) => {
                heard();
                version = newer.unwrap_or(version);
            }
            Err(FrameError(cause)) => return End::Error { cause },
        }
    }
    End::Stream { version }
}

/// Reads the next frame into `frame`; `false` at the end of the stream.
fn read_frame(stream: &mut impl BufRead, format: Format, frame: &mut Vec<u8>) -> io::Result<bool> {
    frame.clear();
    if stream.fill_buf()?.is_empty() {
        return Ok(false);
    }
    let is_whole = match format {
        Format::Json => {
            stream.take(MAX_FRAME_BYTES).read_until(b'\n', frame)?;
            frame.last() == Some(&b'\n')
        }
        Format::Protobuf => {
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            let length = u64::from(u32::from_be_bytes(length));
            let read = stream
                .take(length.min(MAX_FRAME_BYTES))
                .read_to_end(frame)?;
            u64::try_from(read).is_ok_and(|read| read == length)
        }
    };
    match is_whole {
        true => Ok(true),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(fuzzing)]
pub fn follow_to_end<T: Watched>(stream: &[u8], format: Format, observer: &dyn Observer) {
    let stop = AtomicBool::new(false);
    follow::<T>(stream, format, String::new(), observer, &stop, &|| ());
}

struct FrameError(String);

/// One frame of a watch, told to the observer unless it was told already: all is known up to
/// `known`. Returns the version up to which all is known now, where that is new.
fn take_frame<T: Watched>(
    frame: &[u8],
    format: Format,
    known: &str,
    observer: &dyn Observer,
) -> Result<Option<String>, FrameError> {
    let Frame { r#type, object } = match format {
        Format::Json => read_line(frame)?,
        Format::Protobuf => read_event(frame)?,
    };
    let version = T::version(&object).to_string();
    // Events come in the order of their versions, so this one was sent twice.
    let is_old = number(&version) <= number(known) && number(known) > 0;
    match r#type.as_str() {
        "ADDED" | "MODIFIED" | "DELETED" if is_old => return Ok(None),
        "ADDED" | "MODIFIED" => T::seen(observer, object),
        "DELETED" => T::gone(observer, object),
        "BOOKMARK" => {}
        other => return Err(not_understood(&format!("it is of unknown type {other:?}"))),
    }
    Ok((!version.is_empty()).then_some(version))
}

/// Reads a line once, as what nearly every frame is, and only if it is none for what else it may
/// be.
fn read_line<T: DeserializeOwned>(line: &[u8]) -> Result<Frame<T>, FrameError> {
    let why = match serde_json::from_slice::<Frame<T>>(line) {
        Ok(frame) if frame.r#type != "ERROR" => return Ok(frame),
        Ok(_) => "an error without a status".to_string(),
        Err(e) => e.to_string(),
    };
    match serde_json::from_slice::<Frame<ApiStatus>>(line) {
        Ok(Frame { r#type, object }) if r#type == "ERROR" => Err(error(object)),
        _ => Err(not_understood(&why)),
    }
}

fn read_event<T: for<'a> Message<'a>>(frame: &[u8]) -> Result<Frame<T>, FrameError> {
    let event: Event = decode(frame).map_err(|e| not_understood(&e))?;
    if event.kind == b"ERROR" {
        return Err(decode_object(event.object).map_or_else(|e| not_understood(&e), error));
    }
    let object = decode_object(event.object).map_err(|e| not_understood(&e))?;
    let r#type = String::from_utf8_lossy(event.kind).into_owned();
    Ok(Frame { r#type, object })
}

/// What an event says that is an error.
fn error(status: ApiStatus) -> FrameError {
    FrameError(format!("{}: {}", status.code, status.message))
}

fn not_understood(why: &dyn Display) -> FrameError {
    FrameError(format!("a frame of the watch is not understood: {why}"))
}

/// Exponential, between half and all of it, so that many schedulers do not come back in step.
fn backoff(failures: u32, jitter: f64) -> Duration {
    FIRST_BACKOFF
        .saturating_mul(1 << failures.min(16))
        .min(MAX_BACKOFF)
        .mul_f64(0.5 + jitter / 2.0)
}

/// A resourceVersion, which is a decimal number that grows with each change; 0 for one that is not.
pub fn number(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}

/// Continue tokens are base64url, but for what a server may choose.
fn encode_token(token: &str) -> String {
    token
        .replace('%', "%25")
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D")
        .replace('&', "%26")
}

/// One page of a list.
#[derive(Deserialize)]
pub struct Page<T> {
    metadata: PageMetadata,
    pub items: Vec<T>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PageMetadata {
    resource_version: String,
    r#continue: String,
}

#[derive(Deserialize)]
struct Frame<T> {
    r#type: String,
    object: T,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Attempt, Job, JobName};
    use crate::sync::Lock;

    /// What was heard, in short, and all that was told of it.
    #[derive(Default)]
    struct Recorder(Lock<Vec<String>>, Lock<Vec<String>>);

    impl Recorder {
        fn note(&self, text: String) {
            self.0.lock().push(text);
        }
    }

    impl Observer for Recorder {
        fn jobs_relist_begins(&self) -> ListBegun {
            self.note("begin".into());
            ListBegun::default()
        }
        fn jobs_relisted(&self, list: JobList, _: ListBegun) {
            self.note(format!("jobs {}", list.jobs.len()));
        }
        fn job_seen(&self, job: Job) {
            self.note(format!("{}@{} {}", job.name, job.version, job.status));
            self.1.lock().push(format!("{job:?}"));
        }
        fn job_gone(&self, job: &Job) {
            self.note(format!("{} gone", job.name));
        }
        fn job_waited(&self, time: Duration) {
            self.note(format!("waited {time:?}"));
        }
        fn attempts_relisted(&self, attempts: Vec<(JobName, Attempt)>) {
            self.note(format!("attempts {}", attempts.len()));
        }
        fn attempt_seen(&self, job: &JobName, attempt: Attempt) {
            self.note(format!("{job}/{} {:?}", attempt.name, attempt.state));
            self.1.lock().push(format!("{attempt:?}"));
        }
        fn attempt_gone(&self, job: &JobName, attempt: &str) {
            self.note(format!("{job}/{attempt} gone"));
        }
    }

    fn life(millis: u64, frames: u64) -> Life {
        let lived = Duration::from_millis(millis);
        Life { lived, frames }
    }

    #[test]
    fn a_watch_that_worked_is_followed_by_the_next_at_once() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            // Broken off after hours, or ended by the server, with or without events.
            assert_eq!(pace.after_watch(&life(9_000_000, 50), 1.0), Duration::ZERO);
            assert_eq!(pace.after_watch(&life(300_000, 0), 1.0), Duration::ZERO);
        }
    }

    #[test]
    fn watches_that_end_at_once_are_paused_for_longer_each_time_until_one_works() {
        let mut pace = Pace::default();
        let mut pause = |millis, frames| pace.after_watch(&life(millis, frames), 1.0).as_millis();
        let pauses: Vec<_> = (0..7).map(|_| pause(0, 0)).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3000, 3000]);
        // One frame and the end, again and again: neither a spin nor a long silence.
        assert_eq!((pause(0, 1), pause(20, 1), pause(0, 1)), (100, 80, 100));
        assert_eq!((pause(0, 0), pause(0, 0)), (200, 400));
    }

    #[test]
    fn lists_that_succeed_do_not_hide_watches_that_fail() {
        let mut pace = Pace::default();
        assert_eq!(pace.after_failure(1.0).as_millis(), 100);
        // The version is too old as soon as it is listed.
        assert_eq!(pace.after_watch(&life(0, 0), 1.0).as_millis(), 200);
        assert_eq!(pace.after_watch(&life(0, 0), 1.0).as_millis(), 400);
    }

    #[test]
    fn an_error_is_no_frame_that_a_watch_worked_by() {
        let count = |stream: String| {
            let heard = Cell::new(0);
            let stop = AtomicBool::new(false);
            let observer = Recorder::default();
            let hear = || heard.set(heard.get() + 1);
            follow::<Jobs>(
                stream.as_bytes(),
                Format::Json,
                "1".into(),
                &observer,
                &stop,
                &hear,
            );
            heard.get()
        };
        let expired = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"old"}}"#;
        assert_eq!(count(format!("{expired}\n")), 0);
        assert_eq!(count(format!("{}{expired}\n", frame("ADDED", "a", 5))), 1);
    }

    /// What the observer hears of a stream, in short and whole, and how the stream ends.
    fn hear<T: Watched>(stream: &[u8], format: Format) -> (String, Vec<String>) {
        let recorder = Recorder::default();
        let stop = AtomicBool::new(false);
        let end = follow::<T>(stream, format, "1".into(), &recorder, &stop, &|| {});
        let end = match end {
            End::Stream { version } => format!("end@{version}"),
            End::Broken { version, cause } => format!("broken@{version} {cause}"),
            End::Error { cause } => format!("relist: {cause}"),
        };
        let mut heard = recorder.0.into_inner();
        heard.push(end);
        (heard.join(", "), recorder.1.into_inner())
    }

    fn check<T: Watched>(stream: &str, expected: &str) {
        assert_eq!(hear::<T>(stream.as_bytes(), Format::Json).0, expected);
    }

    /// The same events as a Kubernetes 1.34 sent them to two who watched, to the one in protobuf.
    fn check_both<T: Watched>(json: &str, hex: &str, expected: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b'\n').collect();
        let byte = |two: &[u8]| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap();
        let protobuf: Vec<u8> = digits.chunks(2).map(byte).collect();
        let of_json = hear::<T>(json.as_bytes(), Format::Json);
        assert_eq!(of_json.0, expected);
        assert_eq!(hear::<T>(&protobuf, Format::Protobuf), of_json);
        protobuf
    }

    #[test]
    fn protobuf_tells_what_json_tells() {
        let jobs = check_both::<Jobs>(
            include_str!("../../../testdata/watch/jobs.json"),
            include_str!("../../../testdata/watch/jobs.protobuf.hex"),
            "waits@19857 Waiting, stopped@19881 Running, bad@20718 Failed, good@21034 Succeeded, \
             stopped@21791 Stopping, good gone, relist: 410: too old resource version: 1 (1606)",
        );
        check_both::<Pods>(
            include_str!("../../../testdata/watch/pods.json"),
            include_str!("../../../testdata/watch/pods.protobuf.hex"),
            "nopull/nopull-ksz2s Failing, stopped/stopped-lx2kj Running, bad/bad-4szjg Failed, \
             good/good-blqwb Succeeded, stopped/stopped-lx2kj Failed, stopped/stopped-lx2kj gone, end@23207",
        );
        // Cut anywhere, it tells no more than it did until then, and never that it is at its end.
        let (cut, _) = hear::<Jobs>(&jobs[..5000], Format::Protobuf);
        assert_eq!(
            cut,
            "waits@19857 Waiting, stopped@19881 Running, broken@19881 the watch was cut inside a frame"
        );
        let (cut, _) = hear::<Jobs>(&jobs[..2], Format::Protobuf);
        assert_eq!(cut, "broken@1 the watch was cut inside a frame");
    }

    #[test]
    fn an_event_in_protobuf_that_is_none_is_an_error() {
        let heard = |frame: &[u8]| hear::<Jobs>(frame, Format::Protobuf).0;
        let cause = "relist: a frame of the watch is not understood:";
        assert_eq!(
            heard(&[0, 0, 0, 1, 0xff]),
            format!("{cause} malformed protobuf")
        );
        assert_eq!(
            heard(b"\0\0\0\x07\x0a\x05ADDED"),
            format!("{cause} malformed protobuf")
        );
        assert_eq!(
            heard(&[0xff; 20]),
            "broken@1 the watch was cut inside a frame"
        );
        let other = b"\0\0\0\x0f\x0a\x03NEW\x12\x08\x0a\x06k8s\0\x12\0";
        assert_eq!(
            heard(other),
            format!("{cause} it is of unknown type \"NEW\"")
        );
    }

    fn frame(kind: &str, name: &str, version: u32) -> String {
        format!(
            "{}\n",
            serde_json::json!({"type": kind, "object": {"kind": "Job", "metadata": {
                "name": name, "uid": "u", "resourceVersion": version.to_string(),
                "creationTimestamp": "2021-04-07T09:08:37Z"}, "spec": {}, "status": {}}})
        )
    }

    #[test]
    fn frames_are_told_and_the_version_advances() {
        let stream =
            frame("ADDED", "a", 5) + &frame("MODIFIED", "a", 6) + &frame("DELETED", "a", 7);
        check::<Jobs>(&stream, "a@5 Running, a@6 Running, a gone, end@7");
        check::<Jobs>("", "end@1");
    }

    #[test]
    fn a_bookmark_advances_the_version_alone() {
        let bookmark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"99"}}}"#;
        check::<Jobs>(&format!("{bookmark}\n"), "end@99");
    }

    #[test]
    fn an_expired_version_asks_for_a_relist() {
        let error = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"old"}}"#;
        check::<Jobs>(
            &format!("{}{error}\n", frame("ADDED", "a", 5)),
            "a@5 Running, relist: 410: old",
        );
        let error = r#"{"type":"ERROR","object":{"kind":"Status","code":500,"message":"oh"}}"#;
        check::<Jobs>(&format!("{error}\n"), "relist: 500: oh");
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        let (first, second) = (frame("ADDED", "a", 5), frame("DELETED", "a", 6));
        let repeated = format!("{first}{first}{second}{first}{second}");
        check::<Jobs>(&repeated, "a@5 Running, a gone, end@6");
    }

    #[test]
    fn a_cut_frame_is_not_taken() {
        let stream = frame("ADDED", "a", 5);
        let cut = format!("{stream}{}", &stream[..40]);
        check::<Jobs>(
            &cut,
            "a@5 Running, broken@5 the watch was cut inside a frame",
        );
    }

    #[test]
    fn a_job_on_its_way_out_is_gone() {
        let stream = frame("MODIFIED", "a", 5).replace(
            r#""name""#,
            r#""deletionTimestamp":"2021-04-07T09:08:37Z","name""#,
        );
        check::<Jobs>(&stream, "a gone, end@5");
    }

    #[test]
    fn a_deleted_pod_tells_its_last_state() {
        let frame = serde_json::json!({"type": "DELETED", "object": {"metadata": {
            "name": "p", "resourceVersion": "8", "creationTimestamp": "2021-04-07T09:08:37Z",
            "labels": {"batch.kubernetes.io/job-name": "a"}}, "status": {"phase": "Failed"}}});
        check::<Pods>(&format!("{frame}\n"), "a/p Failed, a/p gone, end@8");
    }

    #[test]
    fn backoff_grows_to_a_bound() {
        assert_eq!(backoff(0, 1.0), Duration::from_millis(100));
        assert_eq!(backoff(3, 0.0), Duration::from_millis(400));
        assert_eq!(backoff(40, 1.0), MAX_BACKOFF);
    }
}
