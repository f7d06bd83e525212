//! Sockets and threads: the only user of tiny_http.
//!
//! `http` threads take requests and answer from memory; `upload` threads, made as needed and bounded, read long bodies, so
//! that a slow client holds up nobody else; `write` threads call the backend; `park` keeps the requests that wait.

mod parking;

use super::handler::handle;
use super::reply::Reply;
use super::route::{Cost, Route, RouteError};
use crate::job::JobName;
use crate::scheduler::{MAX_PAYLOAD_BYTES, Scheduler};
use crate::sync::{Lock, spawn};
use parking::Parking;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel,
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tiny_http::Request;

/// A payload of one mebibyte in JSON, were every byte of it escaped as `\u0000`, and room for the other fields.
const MAX_BODY_BYTES: usize = 6 * MAX_PAYLOAD_BYTES + 256 * 1024;
/// Bodies up to this are read before a request is handed to us (tiny_http's choice).
const SMALL_BODY_BYTES: usize = 1024;
/// Threads that answer from memory.
const READERS: usize = 2;
/// Threads that call the backend: the API server is at its best with about 8 callers.
pub const WRITERS: usize = 8;
/// Requests that wait for one of them.
const WAITING_REQUESTS: usize = 256;
/// Long bodies that are read at once.
const MAX_UPLOADS: usize = 64;
/// A body that has not arrived by then will not.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests that wait for a job to finish.
const MAX_PARKED: usize = 1000;
/// A client that takes nothing for so long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is kept this long without a byte from its client.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// The address cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fix = match self.cause.kind() {
            io::ErrorKind::AddrInUse => {
                "another process has this port: stop it, or choose another port"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need rights that this process does not have"
            }
            _ => "choose an address of this machine",
        };
        write!(
            f,
            "cannot listen on {}: {}: {fix}",
            self.address, self.cause
        )
    }
}

/// A listening socket whose accepted connections inherit what tiny_http does not set: no Nagle delay, keepalive,
/// timeouts.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(60))
            .with_interval(Duration::from_secs(15));
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        socket.set_read_timeout(Some(IDLE_TIMEOUT))?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        Ok(socket.into())
    };
    open().map_err(|cause| BindError { address, cause })
}

/// A running server.
pub struct Server {
    inner: Arc<tiny_http::Server>,
    stopping: Arc<AtomicBool>,
    parker: Sender<Parked>,
    readers: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

/// A request whose body has arrived, on its way to a writer.
struct Pending {
    request: Request,
    route: Result<Route, RouteError>,
    body: Vec<u8>,
}

/// News for the thread that keeps waiting requests.
enum Parked {
    Request {
        job: JobName,
        deadline: Instant,
        request: Request,
    },
    Settled(JobName),
    Stop,
}

/// What the `http` threads share.
struct Front {
    scheduler: Arc<Scheduler>,
    writers: SyncSender<Pending>,
    parker: Sender<Parked>,
    parked: Arc<AtomicUsize>,
    uploads: AtomicUsize,
}

impl Server {
    /// Serves a scheduler on a listener from [`bind`].
    pub fn start(listener: TcpListener, scheduler: &Arc<Scheduler>) -> io::Result<Server> {
        let inner = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let inner = Arc::new(inner);
        let stopping = Arc::new(AtomicBool::new(false));
        let (writers, pending) = sync_channel(WAITING_REQUESTS);
        let (parker, news) = channel();
        let parked = Arc::new(AtomicUsize::new(0));
        let mut others = Vec::new();
        let pending = Arc::new(Lock::new(pending));
        for number in 0..WRITERS {
            let (pending, scheduler) = (pending.clone(), scheduler.clone());
            others.push(spawn(format!("write-{number}"), move || {
                write_loop(&pending, &scheduler)
            })?);
        }
        others.push({
            let (scheduler, parked) = (scheduler.clone(), parked.clone());
            spawn("park", move || park_loop(&news, &scheduler, &parked))?
        });
        scheduler.on_settled({
            let (parker, parked) = (parker.clone(), parked.clone());
            Box::new(move |job| {
                // Who comes to wait later looks again first.
                if parked.load(Ordering::Acquire) > 0 {
                    let _ = parker.send(Parked::Settled(job.clone()));
                }
            })
        });
        let front = Arc::new(Front {
            scheduler: scheduler.clone(),
            writers,
            parker: parker.clone(),
            parked,
            uploads: AtomicUsize::new(0),
        });
        let mut readers = Vec::new();
        for number in 0..READERS {
            let (inner, front, stopping) = (inner.clone(), front.clone(), stopping.clone());
            readers.push(spawn(format!("http-{number}"), move || {
                read_loop(&inner, &front, &stopping)
            })?);
        }
        Ok(Server {
            inner,
            stopping,
            parker,
            readers,
            others,
        })
    }

    /// Takes no more requests, finishes those that were taken, and joins the threads.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        for _ in &self.readers {
            self.inner.unblock();
        }
        let _ = self.parker.send(Parked::Stop);
        // The writers' channel closes with the last reader and upload.
        for thread in self.readers.into_iter().chain(self.others) {
            let _ = thread.join();
        }
    }
}

fn read_loop(server: &tiny_http::Server, front: &Arc<Front>, stopping: &AtomicBool) {
    loop {
        match server.recv() {
            Ok(request) => front.take(request),
            Err(_) if stopping.load(Ordering::Acquire) => return,
            Err(e) => {
                // tiny_http accepts no more after one failed accept: start again rather than listen in vain.
                log::error!("the server accepts no more connections: {e}");
                std::process::exit(1);
            }
        }
    }
}

impl Front {
    fn take(self: &Arc<Self>, request: Request) {
        let route = Route::parse(request.method().as_str(), request.url());
        if has_unread_body(&request) {
            self.upload(request, route);
        } else if let Ok(Route::GetJob {
            name,
            wait: Some(wait),
        }) = &route
        {
            self.park(request, name, *wait);
        } else if route.as_ref().map_or(Cost::Memory, Route::cost) == Cost::Memory {
            let reply = answer(&self.scheduler, &request, &route, &[]);
            respond(request, &reply);
        } else {
            self.hand_over(request, route);
        }
    }

    /// Reads a long body where a slow client holds up nobody, then hands the request over.
    fn upload(self: &Arc<Self>, request: Request, route: Result<Route, RouteError>) {
        if self.uploads.fetch_add(1, Ordering::AcqRel) >= MAX_UPLOADS {
            self.uploads.fetch_sub(1, Ordering::AcqRel);
            return refuse(request, &Reply::busy());
        }
        let front = self.clone();
        let run = move || {
            front.hand_over(request, route);
            front.uploads.fetch_sub(1, Ordering::AcqRel);
        };
        if let Err(e) = spawn("upload", run) {
            // The request went with the thread that could not start, and its client sees the connection close.
            log::error!("no thread for a request's body: {e}");
            self.uploads.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn hand_over(&self, mut request: Request, route: Result<Route, RouteError>) {
        let body = match read_body(&mut request) {
            Ok(body) => body,
            Err(reply) => return refuse(request, &reply),
        };
        match self.writers.try_send(Pending {
            request,
            route,
            body,
        }) {
            Ok(()) => {}
            Err(TrySendError::Full(pending) | TrySendError::Disconnected(pending)) => {
                respond(pending.request, &Reply::busy());
            }
        }
    }

    fn park(&self, request: Request, name: &str, wait: Duration) {
        let unfinished = self
            .scheduler
            .get(name)
            .ok()
            .filter(|job| !job.record.job.status.is_finished());
        let Some(job) = unfinished.filter(|_| !wait.is_zero()) else {
            let reply = answer(&self.scheduler, &request, &Ok(get(name)), &[]);
            return respond(request, &reply);
        };
        if self.parked.fetch_add(1, Ordering::AcqRel) >= MAX_PARKED {
            self.parked.fetch_sub(1, Ordering::AcqRel);
            return respond(request, &Reply::too_many_waiting(MAX_PARKED));
        }
        let deadline = Instant::now() + wait;
        let _ = self.parker.send(Parked::Request {
            job: job.record.job.name.clone(),
            deadline,
            request,
        });
    }
}

fn get(name: &str) -> Route {
    Route::GetJob {
        name: name.to_string(),
        wait: None,
    }
}

fn write_loop(pending: &Lock<Receiver<Pending>>, scheduler: &Scheduler) {
    loop {
        let received = pending.lock().recv();
        let Ok(Pending {
            request,
            route,
            body,
        }) = received
        else {
            return;
        };
        let reply = answer(scheduler, &request, &route, &body);
        respond(request, &reply);
    }
}

fn park_loop(news: &Receiver<Parked>, scheduler: &Scheduler, parked: &AtomicUsize) {
    let mut parking = Parking::new();
    let finish = |job: &JobName, request: Request| {
        let reply = answer(scheduler, &request, &Ok(get(job.as_str())), &[]);
        respond(request, &reply);
        parked.fetch_sub(1, Ordering::AcqRel);
    };
    loop {
        let deadline = parking.next_deadline();
        let received = match deadline {
            Some(deadline) => news.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => news.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(Parked::Request {
                job,
                deadline,
                request,
            }) => {
                let waits = scheduler
                    .get(job.as_str())
                    .is_ok_and(|view| !view.record.job.status.is_finished());
                match waits {
                    true => parking.park(job, deadline, request),
                    false => finish(&job, request),
                }
            }
            Ok(Parked::Settled(job)) => {
                for request in parking.take(&job) {
                    finish(&job, request);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Parked::Stop) | Err(RecvTimeoutError::Disconnected) => {
                for (job, request) in parking.drain() {
                    finish(&job, request);
                }
                return;
            }
        }
        for (job, request) in parking.expired(Instant::now()) {
            finish(&job, request);
        }
    }
}

/// The reply to a request whose body has arrived. A panic is that request's alone.
fn answer(
    scheduler: &Scheduler,
    request: &Request,
    route: &Result<Route, RouteError>,
    body: &[u8],
) -> Reply {
    match route {
        Ok(route) => {
            let key = header(request, "Idempotency-Key");
            catch_unwind(AssertUnwindSafe(|| handle(scheduler, route, key, body)))
                .unwrap_or_else(|_| Reply::panicked())
        }
        Err(error) => error.into(),
    }
}

fn header<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    request
        .headers()
        .iter()
        .find(|header| header.field.equiv(name))
        .map(|header| header.value.as_str())
}

fn has_unread_body(request: &Request) -> bool {
    let is_chunked = || header(request, "Transfer-Encoding").is_some();
    request
        .body_length()
        .map_or_else(is_chunked, |length| length > SMALL_BODY_BYTES)
}

fn read_body(request: &mut Request) -> Result<Vec<u8>, Reply> {
    let announced = request.body_length();
    if let Some(length) = announced.filter(|length| *length > MAX_BODY_BYTES) {
        return Err(Reply::body_too_large(MAX_BODY_BYTES, Some(length)));
    }
    let bad = |message: String| Reply::failure(400, "BadRequest", &message);
    let deadline = Instant::now() + UPLOAD_TIMEOUT;
    let mut body = Vec::with_capacity(announced.unwrap_or(0));
    let mut reader = request.as_reader().take(MAX_BODY_BYTES as u64 + 1);
    let mut chunk = [0; 16 * 1024];
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => body.extend(chunk.iter().take(count)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(bad(format!("the body did not arrive: {e}"))),
        }
        if Instant::now() > deadline {
            return Err(bad(format!(
                "the body did not arrive within {} s",
                UPLOAD_TIMEOUT.as_secs()
            )));
        }
    }
    match announced {
        Some(length) if body.len() < length => Err(bad(format!(
            "the body ended after {} of {length} bytes",
            body.len()
        ))),
        _ if body.len() > MAX_BODY_BYTES => Err(Reply::body_too_large(MAX_BODY_BYTES, None)),
        _ => Ok(body),
    }
}

fn respond(request: Request, reply: &Reply) {
    log::debug!(
        "method={} path={} code={}",
        request.method(),
        request.url(),
        reply.code
    );
    let bytes = reply.render(*request.method() != tiny_http::Method::Head);
    let mut writer = request.into_writer();
    // A client that is gone needs no answer.
    let _ = writer.write_all(&bytes).and_then(|()| writer.flush());
}

/// Bodies announced to be longer than this are not waited for.
const MAX_DRAINED_BYTES: usize = 1 << 30;
/// Connections set aside; more is an attack that a restart answers best.
const MAX_SET_ASIDE: usize = 100;
static SET_ASIDE: AtomicUsize = AtomicUsize::new(0);

/// Answers a request whose body is not wanted: the answer goes first, then tiny_http reads the rest away.
fn refuse(request: Request, reply: &Reply) {
    log::debug!(
        "method={} path={} code={} event=refused",
        request.method(),
        request.url(),
        reply.code
    );
    let announced = request.body_length().unwrap_or(0);
    let response = tiny_http::Response::from_data(reply.body.clone()).with_status_code(reply.code);
    let json = [("Content-Type", "application/json".to_string())];
    let response = json
        .iter()
        .chain(&reply.headers)
        .fold(
            response,
            |response, (name, value)| match tiny_http::Header::from_bytes(*name, value.as_str()) {
                Ok(header) => response.with_header(header),
                Err(()) => response,
            },
        );
    if announced <= MAX_DRAINED_BYTES {
        let _ = request.respond(response);
        return;
    }
    // tiny_http would allocate as much as the client announced, and fail for all: keep the connection out of its reach.
    std::mem::forget(request.upgrade("none", response));
    if SET_ASIDE.fetch_add(1, Ordering::Relaxed) >= MAX_SET_ASIDE {
        log::error!(
            "{MAX_SET_ASIDE} requests announced bodies of over {MAX_DRAINED_BYTES} bytes: starting again"
        );
        std::process::exit(1);
    }
}
