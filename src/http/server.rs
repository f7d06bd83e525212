//! Sockets and threads: the only user of tiny_http.

use super::guard::Guard;
use super::handler::handle;
use super::reply::Reply;
use super::route::{Route, RouteError};
use crate::scheduler::{MAX_PAYLOAD_BYTES, Scheduler};
use crate::sync::{Lock, spawn};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// A payload of one mebibyte in JSON, were every byte of it escaped as `\u0000`, and room for the other fields.
const MAX_BODY_BYTES: usize = 6 * MAX_PAYLOAD_BYTES + 256 * 1024;
/// Bodies up to this are read before a request is handed to us (tiny_http's choice).
const SMALL_BODY_BYTES: usize = 1024;
/// Threads that answer from memory.
const READERS: usize = 2;
/// Threads that read bodies and call the backend: the API server is at its best with about 8 callers.
pub const WRITERS: usize = 8;
/// Requests that wait for one of them.
const WAITING_REQUESTS: usize = 256;
/// A client that takes nothing for so long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is kept this long without a request.
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
    readers: Vec<JoinHandle<()>>,
    writers: Vec<JoinHandle<()>>,
}

/// A request on its way to a writer.
struct Pending {
    request: tiny_http::Request,
    route: Result<Route, RouteError>,
}

impl Server {
    /// Serves a scheduler on a listener from [`bind`].
    pub fn start(
        listener: TcpListener,
        scheduler: &Arc<Scheduler>,
        guard: &Guard,
    ) -> io::Result<Server> {
        let inner = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let inner = Arc::new(inner);
        let stopping = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = sync_channel(WAITING_REQUESTS);
        let receiver = Arc::new(Lock::new(receiver));
        let mut server = Server {
            inner: inner.clone(),
            stopping: stopping.clone(),
            readers: Vec::new(),
            writers: Vec::new(),
        };
        for number in 0..WRITERS {
            let (receiver, scheduler) = (receiver.clone(), scheduler.clone());
            server
                .writers
                .push(spawn(format!("write-{number}"), move || {
                    write_loop(&receiver, &scheduler)
                })?);
        }
        for number in 0..READERS {
            let (inner, sender, scheduler) = (inner.clone(), sender.clone(), scheduler.clone());
            let (stopping, guard) = (stopping.clone(), guard.clone());
            let run = move || read_loop(&inner, &sender, &scheduler, &guard, &stopping);
            server.readers.push(spawn(format!("http-{number}"), run)?);
        }
        Ok(server)
    }

    /// Takes no more requests, finishes those that were taken, and joins the threads.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        for _ in &self.readers {
            self.inner.unblock();
        }
        // The writers' channel closes with the last reader.
        for thread in self.readers.into_iter().chain(self.writers) {
            let _ = thread.join();
        }
    }
}

fn read_loop(
    server: &tiny_http::Server,
    writers: &SyncSender<Pending>,
    scheduler: &Scheduler,
    guard: &Guard,
    stopping: &AtomicBool,
) {
    loop {
        let request = match server.recv() {
            Ok(request) => request,
            Err(_) if stopping.load(Ordering::Acquire) => return,
            Err(e) => {
                // tiny_http accepts no more after one failed accept: start again rather than listen in vain.
                log::error!("the server accepts no more connections: {e}");
                std::process::exit(1);
            }
        };
        let route = match guard.check(values(&request, "Host"), values(&request, "Origin")) {
            Ok(()) => Route::parse(request.method().as_str(), request.url()),
            Err(refusal) => Err(RouteError::Refused(refusal)),
        };
        let is_quick = route.as_ref().map_or(true, Route::is_read);
        if is_quick && !has_unread_body(&request) {
            let reply = answer(scheduler, &route, &[]);
            respond(request, &reply);
            continue;
        }
        // A body is read where a slow client holds up nobody who only asks.
        match writers.try_send(Pending { request, route }) {
            Ok(()) => {}
            Err(TrySendError::Full(pending) | TrySendError::Disconnected(pending)) => {
                refuse(pending.request, &Reply::busy());
            }
        }
    }
}

fn values<'a>(
    request: &'a tiny_http::Request,
    name: &'static str,
) -> impl Iterator<Item = &'a str> {
    let headers = request.headers().iter();
    let named = headers.filter(move |header| header.field.equiv(name));
    named.map(|header| header.value.as_str())
}

fn write_loop(requests: &Lock<Receiver<Pending>>, scheduler: &Scheduler) {
    loop {
        let received = requests.lock().recv();
        let Ok(Pending { mut request, route }) = received else {
            return;
        };
        match read_body(&mut request) {
            Ok(body) => {
                let reply = answer(scheduler, &route, &body);
                respond(request, &reply);
            }
            Err(reply) => refuse(request, &reply),
        }
    }
}

fn answer(scheduler: &Scheduler, route: &Result<Route, RouteError>, body: &[u8]) -> Reply {
    match route {
        Ok(route) => guarded(|| handle(scheduler, route, body)),
        Err(error) => error.into(),
    }
}

/// A panic is that request's alone.
fn guarded(answer: impl FnOnce() -> Reply) -> Reply {
    catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|_| Reply::panicked())
}

fn has_unread_body(request: &tiny_http::Request) -> bool {
    let is_chunked = || {
        request
            .headers()
            .iter()
            .any(|header| header.field.equiv("Transfer-Encoding"))
    };
    request
        .body_length()
        .map_or_else(is_chunked, |length| length > SMALL_BODY_BYTES)
}

fn read_body(request: &mut tiny_http::Request) -> Result<Vec<u8>, Reply> {
    let announced = request.body_length();
    if let Some(length) = announced.filter(|length| *length > MAX_BODY_BYTES) {
        return Err(Reply::body_too_large(MAX_BODY_BYTES, Some(length)));
    }
    let mut body = Vec::with_capacity(announced.unwrap_or(0));
    let read = request
        .as_reader()
        .take(MAX_BODY_BYTES as u64 + 1)
        .read_to_end(&mut body);
    match (read, announced) {
        (Err(e), _) => Err(Reply::failure(
            400,
            "BadRequest",
            &format!("the body did not arrive: {e}"),
        )),
        (Ok(read), Some(length)) if read < length => Err(Reply::failure(
            400,
            "BadRequest",
            &format!("the body ended after {read} of {length} bytes"),
        )),
        (Ok(read), _) if read > MAX_BODY_BYTES => Err(Reply::body_too_large(MAX_BODY_BYTES, None)),
        (Ok(_), _) => Ok(body),
    }
}

fn respond(request: tiny_http::Request, reply: &Reply) {
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
fn refuse(request: tiny_http::Request, reply: &Reply) {
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
