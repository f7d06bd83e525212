//! From a request's head to its answer: who answers what, and the bounds on it.

use super::body::{BODY_TIMEOUT, Body, Framing, Kind};
use super::event_stream::{List, Reader};
use super::exchange::{Exchange, SEND_TIMEOUT, new_id};
use super::input::Input;
use super::log_stream;
use super::waiting::{MAX_WAITING, Waiting};
use crate::backend::LogOptions;
use crate::http::events::Events;
use crate::http::guard::Guard;
use crate::http::handler::{Headers, handle, list, list_batches};
use crate::http::reply::Reply;
use crate::http::route::{Cost, Route};
use crate::index::MAX_FOLLOWERS;
use crate::job::{JobFilter, JobName};
use crate::logs::JobLog;
use crate::scheduler::Scheduler;
use crate::sync::{Giver, Lock, Taker, handover};
use crate::trace::TraceContext;
use std::io::{self, ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of lists in memory at once, beyond which no other is made.
const MAX_LIST_BYTES: usize = 16 << 20;
/// Requests that wait for a thread that calls the backend.
const MAX_PENDING: usize = 256;
/// Logs that are sent at once.
const MAX_LOGS: usize = 16;

/// What the connections share.
pub struct Front {
    pub scheduler: Arc<Scheduler>,
    pub guard: Guard,
    writers: Giver<Call>,
    waiting: Arc<Waiting>,
    body_bytes: Arc<AtomicUsize>,
    making_list: Lock<()>,
    list_bytes: AtomicUsize,
    logs: AtomicUsize,
    events: Events,
    is_draining: AtomicBool,
    is_stopping: AtomicBool,
}

/// A call of the backend, for a thread that makes them.
type Call = Box<dyn FnOnce() + Send>;

impl Front {
    /// The front, and what it hands to the threads that call the backend for it.
    pub fn new(scheduler: &Arc<Scheduler>, guard: &Guard) -> (Front, Taker<Call>) {
        let (writers, calls) = handover(MAX_PENDING);
        let waiting: Arc<Waiting> = Arc::default();
        let told = waiting.clone();
        scheduler.on_settled(Box::new(move |job| told.tell(job)));
        let front = Front {
            scheduler: scheduler.clone(),
            guard: guard.clone(),
            writers,
            waiting,
            body_bytes: Arc::default(),
            making_list: Lock::new(()),
            list_bytes: AtomicUsize::new(0),
            logs: AtomicUsize::new(0),
            events: Events::new(new_id()),
            is_draining: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
        };
        (front, calls)
    }

    /// Requests are answered as before, and no connection goes on after its next answer.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
        self.scheduler.call_followers();
    }

    /// Whether a connection is closed with its next answer.
    pub fn closes_connections(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst) || self.is_stopping()
    }

    /// Who waits is answered, and no connection goes on after its next answer.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.waiting.tell_all();
        self.scheduler.call_followers();
    }

    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// Reads a request's body and answers it.
    pub fn serve(&self, exchange: &mut Exchange, input: &mut Input) {
        let body = match self.read_body(exchange, input) {
            Ok(body) => body,
            Err(reply) => {
                exchange.persists = false;
                return exchange.respond(reply);
            }
        };
        let route = exchange.route.clone();
        if let Err(refused) = route.as_ref().map_or(Ok(()), |r| self.wait(exchange, r)) {
            return exchange.respond(refused);
        }
        let reply = match route {
            Ok(Route::ListJobs(filter)) => {
                let list = || list(&self.scheduler, &filter);
                return self.with_list(list, |list| exchange.respond(list));
            }
            Ok(Route::ListBatches { summary }) => {
                let list = || list_batches(&self.scheduler, summary);
                return self.with_list(list, |list| exchange.respond(list));
            }
            Ok(ref route @ Route::GetBatch { .. }) => {
                let batch = || handle(&self.scheduler, route, &Headers::default(), &[]);
                return self.with_list(batch, |batch| exchange.respond(batch));
            }
            Ok(Route::Events) => return self.send_events(exchange),
            Ok(Route::GetLog { name, options }) => return self.send_log(exchange, &name, options),
            Ok(route) => match route.cost() {
                Cost::Backend => self.write(exchange, route, body),
                Cost::Memory => answer(&self.scheduler, &route, &Headers::default(), &body.bytes),
            },
            Err(error) => (&error).into(),
        };
        exchange.respond(reply);
    }

    fn read_body(&self, exchange: &Exchange, input: &mut Input) -> Result<Body, Reply> {
        let head = &exchange.head;
        let takes_batch = exchange.route.as_ref().is_ok_and(Route::takes_batch);
        let kind = if takes_batch {
            Kind::Batch
        } else {
            Kind::Plain
        };
        let framing = Framing::of(head, kind)?;
        let is_awaited = head.lists("Expect", "100-continue") && !head.is_before_1_1();
        if is_awaited && framing != Framing::Length(0) && input.is_empty() {
            if let Err(error) = &exchange.route {
                return Err(error.into());
            }
            // A client that is gone is seen when its body is read.
            let _ = (&mut &*exchange.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let body = Body::read(framing, kind, input, &self.body_bytes, BODY_TIMEOUT);
        Ok(body?)
    }

    /// Returns when the job, or all jobs of the batch, that is asked for with `wait` has finished,
    /// or after that time.
    fn wait(&self, exchange: &Exchange, route: &Route) -> Result<(), Reply> {
        let scheduler = &self.scheduler;
        let (name, wait) = match route {
            Route::GetJob { name, wait } | Route::GetBatch { name, wait, .. } => {
                (JobName::parse(name), wait)
            }
            Route::GetBatchJob { batch, job, wait } => {
                (scheduler.job_in_batch(batch, job).ok(), wait)
            }
            _ => (None, &None),
        };
        let wait = wait.filter(|wait| !wait.is_zero());
        let (Some(name), Some(wait)) = (name, wait) else {
            return Ok(());
        };
        let is_unfinished = || match (route, scheduler.get(name.as_str())) {
            (Route::GetBatch { .. }, _) => scheduler.is_batch_unfinished(&name),
            (_, job) => job.is_ok_and(|job| !job.record.job.status.is_finished()),
        };
        if !is_unfinished() {
            return Ok(());
        }
        // A client that has closed its half of the connection may wait as well.
        let is_over = || !is_unfinished() || self.is_stopping();
        let count = &scheduler.metrics().parked;
        let deadline = exchange.began + wait;
        match self.waiting.wait(&name, deadline, count, is_over) {
            true => Ok(()),
            false => Err(Reply::too_many_waiting(MAX_WAITING)),
        }
    }

    /// Lists may be large: they are made one at a time, and none while clients are slow to take
    /// many.
    fn with_list<T>(&self, make: impl FnOnce() -> Reply, send: impl FnOnce(Reply) -> T) -> T {
        let began = Instant::now();
        let alone = self.making_list.lock();
        while self.list_bytes.load(Ordering::Acquire) >= MAX_LIST_BYTES {
            if began.elapsed() > SEND_TIMEOUT {
                return send(Reply::busy());
            }
            thread::sleep(Duration::from_millis(5));
        }
        // Each reader of events has one, and with `answer` it would have more on its stack.
        let reply = whatever_comes(make);
        let bytes = reply.body.len();
        self.list_bytes.fetch_add(bytes, Ordering::AcqRel);
        drop(alone);
        let sent = send(reply);
        self.list_bytes.fetch_sub(bytes, Ordering::AcqRel);
        sent
    }

    /// Has the backend called, by one of few threads.
    fn write(&self, exchange: &Exchange, route: Route, body: Body) -> Reply {
        let (sender, receiver) = sync_channel(1);
        let head = &exchange.head;
        let headers = Headers {
            key: head.value("Idempotency-Key").map(str::to_string),
            trace: TraceContext::of(head.values("traceparent"), head.values("tracestate")),
        };
        let scheduler = self.scheduler.clone();
        let call = move || {
            let reply = answer(&scheduler, &route, &headers, &body.bytes);
            // Who asked waits for it.
            let _ = sender.send(reply);
        };
        match self.writers.give(Box::new(call)) {
            Ok(()) => receiver.recv().unwrap_or_else(|_| Reply::panicked()),
            Err(_) => Reply::busy(),
        }
    }

    fn send_events(&self, exchange: &mut Exchange) {
        let Some(follower) = self.scheduler.follower() else {
            return exchange.respond(Reply::too_many_readers(MAX_FOLLOWERS));
        };
        if !self.scheduler.is_ready() {
            return exchange.respond(Reply::not_ready());
        }
        let reader = Reader {
            scheduler: &self.scheduler,
            events: &self.events,
            follower,
        };
        let list = |kind, send: &mut dyn FnMut(&[u8]) -> io::Result<()>| {
            let make = || match kind {
                List::Jobs => list(&self.scheduler, &JobFilter::default()),
                List::Batches => list_batches(&self.scheduler, true),
            };
            self.with_list(make, |list| match list.code {
                200 => send(&list.body),
                _ => Err(ErrorKind::TimedOut.into()),
            })
        };
        reader.serve(exchange, &list, || self.closes_connections());
    }

    fn send_log(&self, exchange: &mut Exchange, name: &str, options: LogOptions) {
        if self.logs.fetch_add(1, Ordering::AcqRel) >= MAX_LOGS {
            exchange.respond(Reply::too_many_logs(MAX_LOGS));
        } else {
            match JobLog::open(&self.scheduler, name, options) {
                Ok(mut log) => log_stream::send(exchange, &mut log, || self.is_stopping()),
                Err(e) => exchange.respond(e.into()),
            }
        }
        self.logs.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The reply to a request whose body has arrived. A panic is that request's alone.
fn answer(scheduler: &Scheduler, route: &Route, headers: &Headers, body: &[u8]) -> Reply {
    whatever_comes(|| handle(scheduler, route, headers, body))
}

fn whatever_comes(reply: impl FnOnce() -> Reply) -> Reply {
    catch_unwind(AssertUnwindSafe(reply)).unwrap_or_else(|_| Reply::panicked())
}
