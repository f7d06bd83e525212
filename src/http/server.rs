//! Sockets and threads: the only user of tiny_http.
//!
//! An `http` thread takes requests and answers from memory, and is replaced while a client holds it up; `upload` threads,
//! made as needed and bounded, read long bodies, so that a slow client holds up nobody else; `write` threads call the
//! backend; `park` keeps the requests that wait; `log` threads, bounded, send what jobs write.

mod order;
mod parking;
mod pulse;
mod relief;
mod streaming;

use super::guard::Guard;
use super::handler::handle;
use super::reply::Reply;
use super::route::{Cost, Route, RouteError, label};
use crate::job::JobName;
use crate::scheduler::{MAX_PAYLOAD_BYTES, Scheduler};
use crate::sync::{Giver, Taker, handover, spawn};
use order::{Order, Turn};
use parking::Parking;
use pulse::Activity;
use relief::held_up;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};
use tiny_http::Request;

/// A payload of one mebibyte in JSON, were every byte of it escaped as `\u0000`, and room for the other fields.
const MAX_BODY_BYTES: usize = 6 * MAX_PAYLOAD_BYTES + 256 * 1024;
/// Bodies up to this are read before a request is handed to us (tiny_http's choice).
const SMALL_BODY_BYTES: usize = 1024;
/// Threads that call the backend: as many as clients that are to be served at full speed. Each call is mostly waiting, for the
/// API server's processors or for etcd's disk, and a request that waits for a thread here is not among those that share
/// either. With 32 clients and 16 writers, requests waited for a writer half of their time, and 0.80 as many jobs were made as
/// by the two writes alone; with 32 writers, 0.95 (measured).
///
/// Each that is in use costs some 0.2 MB with its connection; as the one that was idle for the shortest time goes first, few
/// clients use few of them.
pub const WRITERS: usize = 32;
/// Requests that wait for one of them.
const WAITING_REQUESTS: usize = 256;
/// Long bodies that are read at once.
const MAX_UPLOADS: usize = 64;
/// Bytes of long bodies that are held at once, from their reading to their answer. What a writer makes of a body takes about
/// four times as much again, and all of it must fit in the 128 MiB that the scheduler's pod may have.
const MAX_HELD_BYTES: usize = 22 << 20;
/// A body that has not arrived by then will not.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests that wait for a job to finish.
const MAX_PARKED: usize = 1000;
/// A client that takes nothing for so long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is kept this long without a byte from its client.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Bodies announced to be longer than this are not waited for.
const MAX_DRAINED_BYTES: usize = 1 << 30;
/// Connections set aside; more is an attack that a restart answers best.
const MAX_SET_ASIDE: usize = 100;
static SET_ASIDE: AtomicUsize = AtomicUsize::new(0);

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
        if address.ip() == Ipv6Addr::UNSPECIFIED {
            // All addresses, as said, whatever the system's default.
            socket.set_only_v6(false)?;
        }
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

/// As [`bind`], on all addresses: IPv6 and IPv4, or IPv4 alone where the system has no other.
pub fn bind_all(port: u16) -> Result<TcpListener, BindError> {
    bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).or_else(|error| {
        match error.cause.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
            _ => bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)),
        }
    })
}

/// A running server.
pub struct Server {
    stopping: Arc<AtomicBool>,
    parker: Sender<Parked>,
    pulse: Thread,
    relief: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
}

/// A request on its way to its answer.
struct Exchange {
    request: Request,
    route: Result<Route, RouteError>,
    /// Comes back in a header, and stands in the log.
    id: String,
    began: Instant,
    /// Of one that another thread answers than the one that took it. The last field: the request goes first.
    turn: Option<Turn>,
}

/// A request whose body has arrived, on its way to a writer.
struct Pending {
    exchange: Exchange,
    body: Vec<u8>,
    /// Given back with the answer.
    _held: Option<Held>,
}

/// A share of [`MAX_HELD_BYTES`], given back when dropped.
struct Held {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl Held {
    fn take(of: &Arc<AtomicUsize>, bytes: usize) -> Option<Held> {
        let held = Held {
            of: of.clone(),
            bytes,
        };
        let before = of.fetch_add(bytes, Ordering::AcqRel);
        // One that is too many gives its share back as it is dropped here.
        (before + bytes <= MAX_HELD_BYTES).then_some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// News for the thread that keeps waiting requests.
enum Parked {
    Exchange {
        job: JobName,
        deadline: Instant,
        exchange: Box<Exchange>,
    },
    Settled(JobName),
    Stop,
}

/// What the threads share that take requests and hand them over.
struct Front {
    inner: Arc<tiny_http::Server>,
    order: Order,
    /// How often the thread that takes requests was woken for one that had been put aside, and has not looked yet.
    wakes: AtomicUsize,
    scheduler: Arc<Scheduler>,
    writers: Giver<Pending>,
    parker: Sender<Parked>,
    uploads: AtomicUsize,
    held: Arc<AtomicUsize>,
    activity: Arc<Activity>,
    pulse: Thread,
    /// Logs that are being sent.
    streams: AtomicUsize,
    stopping: Arc<AtomicBool>,
    guard: Guard,
}

impl Server {
    /// Serves a scheduler on a listener from [`bind`].
    pub fn start(
        listener: TcpListener,
        scheduler: &Arc<Scheduler>,
        guard: &Guard,
    ) -> io::Result<Server> {
        let listening = listener.local_addr()?;
        let inner = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let inner = Arc::new(inner);
        let stopping = Arc::new(AtomicBool::new(false));
        let activity = Arc::new(Activity::default());
        let (writers, pending) = handover(WAITING_REQUESTS);
        let (parker, news) = channel();
        let mut others = Vec::new();
        let pulse = {
            let (activity, stopping) = (activity.clone(), stopping.clone());
            spawn("pulse", move || pulse::run(listening, &activity, &stopping))?
        };
        let pulse_thread = pulse.thread().clone();
        others.push(pulse);
        for number in 0..WRITERS {
            let (pending, scheduler) = (pending.clone(), scheduler.clone());
            others.push(spawn(format!("write-{number}"), move || {
                write_loop(&pending, &scheduler)
            })?);
        }
        others.push({
            let scheduler = scheduler.clone();
            spawn("park", move || park_loop(&news, &scheduler))?
        });
        scheduler.on_settled({
            let (parker, metrics) = (parker.clone(), scheduler.shared_metrics());
            Box::new(move |job| {
                // Who comes to wait later looks again first.
                if metrics.parked.load(Ordering::Acquire) > 0 {
                    let _ = parker.send(Parked::Settled(job.clone()));
                }
            })
        });
        let front = Arc::new(Front {
            inner,
            order: Order::default(),
            wakes: AtomicUsize::new(0),
            scheduler: scheduler.clone(),
            writers,
            parker: parker.clone(),
            uploads: AtomicUsize::new(0),
            held: Arc::default(),
            activity,
            pulse: pulse_thread.clone(),
            streams: AtomicUsize::new(0),
            stopping: stopping.clone(),
            guard: guard.clone(),
        });
        let relief = spawn("relief", move || relief::run(&front))?;
        Ok(Server {
            stopping,
            parker,
            pulse: pulse_thread,
            relief,
            others,
        })
    }

    /// Takes no more requests, finishes those that were taken, and joins the threads.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        let _ = self.parker.send(Parked::Stop);
        self.pulse.unpark();
        self.relief.thread().unpark();
        // The writers end when the last reader, upload and log has let go of the front.
        for thread in [self.relief].into_iter().chain(self.others) {
            let _ = thread.join();
        }
    }
}

impl Front {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Has the thread that takes requests take up one that was put aside.
    fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::AcqRel);
        self.inner.unblock();
    }

    /// Whether an end of `recv` is due to [`Front::wake`].
    fn was_woken(&self) -> bool {
        let one_less = |wakes: usize| wakes.checked_sub(1);
        (self.wakes)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less)
            .is_ok()
    }

    fn take(self: &Arc<Self>, request: Request) {
        self.activity.note(&self.pulse);
        if let Some(exchange) = self.put_aside(Exchange::begin(request, &self.guard)) {
            self.dispatch(exchange);
        }
    }

    fn dispatch(self: &Arc<Self>, mut exchange: Exchange) {
        if exchange.turn.is_none() && !exchange.is_answered_at_once() {
            let peer = exchange.request.remote_addr().copied();
            exchange.turn = peer.map(|peer| Turn::begin(self, peer));
        }
        if exchange.has_unread_body() {
            self.upload(exchange);
        } else if let Ok(Route::GetJob {
            name,
            wait: Some(wait),
        }) = &exchange.route
        {
            let (name, wait) = (name.clone(), *wait);
            self.park(exchange, &name, wait);
        } else if let Ok(Route::GetLog { name, options }) = &exchange.route {
            let (name, options) = (name.clone(), *options);
            self.stream(exchange, name, options);
        } else if exchange.is_answered_at_once() {
            let reply = answer(&self.scheduler, &exchange, &exchange.route, &[]);
            exchange.respond(&reply, &self.scheduler);
        } else {
            self.hand_over(exchange, None);
        }
    }

    /// Reads a long body where a slow client holds up nobody, then hands the request over.
    fn upload(self: &Arc<Self>, exchange: Exchange) {
        // One of unknown length may be as long as any; one that is too long is refused before it is read.
        let length = exchange.request.body_length().unwrap_or(MAX_BODY_BYTES);
        let Some(held) = Held::take(&self.held, length.min(MAX_BODY_BYTES)) else {
            return exchange.refuse(&Reply::busy(), &self.scheduler);
        };
        if self.uploads.fetch_add(1, Ordering::AcqRel) >= MAX_UPLOADS {
            self.uploads.fetch_sub(1, Ordering::AcqRel);
            return exchange.refuse(&Reply::busy(), &self.scheduler);
        }
        let front = self.clone();
        let run = move || {
            front.hand_over(exchange, Some(held));
            front.uploads.fetch_sub(1, Ordering::AcqRel);
        };
        if let Err(e) = spawn("upload", run) {
            // The request went with the thread that could not start, and its client sees the connection close.
            log::error!("no thread for a request's body: {e}");
            self.uploads.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn hand_over(&self, mut exchange: Exchange, held: Option<Held>) {
        let body = match read_body(&mut exchange.request) {
            Ok(body) => body,
            Err(reply) => return exchange.refuse(&reply, &self.scheduler),
        };
        let given = self.writers.give(Pending {
            exchange,
            body,
            _held: held,
        });
        if let Err(pending) = given {
            pending.exchange.respond(&Reply::busy(), &self.scheduler);
        }
    }

    fn park(&self, exchange: Exchange, name: &str, wait: Duration) {
        let unfinished = self
            .scheduler
            .get(name)
            .ok()
            .filter(|job| !job.record.job.status.is_finished());
        let Some(job) = unfinished.filter(|_| !wait.is_zero()) else {
            let reply = answer(&self.scheduler, &exchange, &exchange.route, &[]);
            return exchange.respond(&reply, &self.scheduler);
        };
        let parked = &self.scheduler.metrics().parked;
        if parked.fetch_add(1, Ordering::AcqRel) >= MAX_PARKED {
            parked.fetch_sub(1, Ordering::AcqRel);
            return exchange.respond(&Reply::too_many_waiting(MAX_PARKED), &self.scheduler);
        }
        let (job, deadline) = (job.record.job.name.clone(), exchange.began + wait);
        let exchange = Box::new(exchange);
        let _ = self.parker.send(Parked::Exchange {
            job,
            deadline,
            exchange,
        });
    }
}

impl Exchange {
    fn begin(request: Request, guard: &Guard) -> Exchange {
        let route = match guard.check(values(&request, "Host"), values(&request, "Origin")) {
            Ok(()) => Route::parse(request.method().as_str(), request.url()),
            Err(refusal) => Err(RouteError::Refused(refusal)),
        };
        let given = header(&request, "X-Request-Id").filter(|id| is_request_id(id));
        let id = given.map_or_else(|| format!("{:016x}", fastrand::u64(..)), str::to_string);
        Exchange {
            request,
            route,
            id,
            began: Instant::now(),
            turn: None,
        }
    }

    /// By whoever took it, from memory.
    fn is_answered_at_once(&self) -> bool {
        let is_from_memory = match &self.route {
            Ok(Route::GetJob { wait: Some(_), .. } | Route::GetLog { .. }) => false,
            Ok(route) => route.cost() == Cost::Memory,
            Err(_) => true,
        };
        is_from_memory && !self.has_unread_body()
    }

    fn has_unread_body(&self) -> bool {
        let is_chunked = || header(&self.request, "Transfer-Encoding").is_some();
        self.request
            .body_length()
            .map_or_else(is_chunked, |length| length > SMALL_BODY_BYTES)
    }

    /// Answers a request whose body has been read.
    fn respond(mut self, reply: &Reply, scheduler: &Scheduler) {
        let turn = self.turn.take();
        let (mut writer, bytes) = self.into_answer(reply, scheduler);
        // A client that is gone needs no answer.
        let _ = held_up(|| writer.write_all(&bytes).and_then(|()| writer.flush()));
        drop(writer);
        drop(turn);
    }

    /// The answer to a request whose body has been read, and where it goes to.
    fn into_answer(self, reply: &Reply, scheduler: &Scheduler) -> (Box<dyn Write + Send>, Vec<u8>) {
        self.record(reply, scheduler);
        let bytes = reply.render(&self.id, *self.request.method() != tiny_http::Method::Head);
        (self.request.into_writer(), bytes)
    }

    /// Answers a request whose body is not wanted: the answer goes first, then tiny_http reads the rest away.
    fn refuse(self, reply: &Reply, scheduler: &Scheduler) {
        self.record(reply, scheduler);
        let announced = self.request.body_length().unwrap_or(0);
        let response =
            tiny_http::Response::from_data(reply.body.clone()).with_status_code(reply.code);
        let own = [
            ("Content-Type", reply.content_type.to_string()),
            ("X-Request-Id", self.id),
        ];
        let response =
            own.iter()
                .chain(&reply.headers)
                .fold(
                    response,
                    |response, (name, value)| match tiny_http::Header::from_bytes(
                        *name,
                        value.as_str(),
                    ) {
                        Ok(header) => response.with_header(header),
                        Err(()) => response,
                    },
                );
        if announced <= MAX_DRAINED_BYTES {
            let _ = held_up(|| self.request.respond(response));
            return;
        }
        // tiny_http would allocate as much as the client announced, and fail for all: keep the connection out of its
        // reach.
        std::mem::forget(held_up(|| self.request.upgrade("none", response)));
        if SET_ASIDE.fetch_add(1, Ordering::Relaxed) >= MAX_SET_ASIDE {
            log::error!(
                "{MAX_SET_ASIDE} requests announced bodies of over {MAX_DRAINED_BYTES} bytes: starting again"
            );
            std::process::exit(1);
        }
    }

    fn record(&self, reply: &Reply, scheduler: &Scheduler) {
        let took = self.began.elapsed();
        scheduler
            .metrics()
            .request(label(&self.route), reply.code, took);
        log::debug!(
            "request={} method={} path={} code={} ms={}",
            self.id,
            self.request.method(),
            self.request.url().split('?').next().unwrap_or_default(),
            reply.code,
            took.as_millis()
        );
    }
}

/// A caller's own request id is taken over if it can do no harm in a header or a log.
fn is_request_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn get(name: &str) -> Route {
    Route::GetJob {
        name: name.to_string(),
        wait: None,
    }
}

fn write_loop(pending: &Taker<Pending>, scheduler: &Scheduler) {
    while let Some(Pending {
        exchange,
        body,
        _held,
    }) = pending.take()
    {
        let reply = answer(scheduler, &exchange, &exchange.route, &body);
        exchange.respond(&reply, scheduler);
    }
}

fn park_loop(news: &Receiver<Parked>, scheduler: &Scheduler) {
    let mut parking = Parking::new();
    let finish = |job: &JobName, exchange: Box<Exchange>| {
        let reply = answer(scheduler, &exchange, &Ok(get(job.as_str())), &[]);
        exchange.respond(&reply, scheduler);
        scheduler.metrics().parked.fetch_sub(1, Ordering::AcqRel);
    };
    loop {
        let deadline = parking.next_deadline();
        let received = match deadline {
            Some(deadline) => news.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => news.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(Parked::Exchange {
                job,
                deadline,
                exchange,
            }) => {
                let waits = scheduler
                    .get(job.as_str())
                    .is_ok_and(|view| !view.record.job.status.is_finished());
                match waits {
                    true => parking.park(job, deadline, exchange),
                    false => finish(&job, exchange),
                }
            }
            Ok(Parked::Settled(job)) => {
                for exchange in parking.take(&job) {
                    finish(&job, exchange);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Parked::Stop) | Err(RecvTimeoutError::Disconnected) => {
                for (job, exchange) in parking.drain() {
                    finish(&job, exchange);
                }
                return;
            }
        }
        for (job, exchange) in parking.expired(Instant::now()) {
            finish(&job, exchange);
        }
    }
}

/// The reply to a request whose body has arrived. A panic is that request's alone.
fn answer(
    scheduler: &Scheduler,
    exchange: &Exchange,
    route: &Result<Route, RouteError>,
    body: &[u8],
) -> Reply {
    match route {
        Ok(route) => {
            let key = header(&exchange.request, "Idempotency-Key");
            catch_unwind(AssertUnwindSafe(|| handle(scheduler, route, key, body)))
                .unwrap_or_else(|_| Reply::panicked())
        }
        Err(error) => error.into(),
    }
}

fn values<'a>(request: &'a Request, name: &'static str) -> impl Iterator<Item = &'a str> {
    let headers = request.headers().iter();
    let named = headers.filter(move |header| header.field.equiv(name));
    named.map(|header| header.value.as_str())
}

fn header<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    request
        .headers()
        .iter()
        .find(|header| header.field.equiv(name))
        .map(|header| header.value.as_str())
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
