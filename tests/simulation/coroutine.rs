//! Code of the scheduler that runs until it asks something of the world, and goes on once the
//! simulation answers.
//!
//! One thread runs all of it. A [`Task`] has a stack of its own, so that any function of the
//! scheduler may be left in the middle: for a while, or for ever, as when its process ends.

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use job_scheduler::backend::kubernetes::api::{Api, ApiError, Call, Format, Patience};
use job_scheduler::clock::Source;
use job_scheduler::job::JobName;
use job_scheduler::scheduler::{BatchView, JobError, JobView, SubmitError};
use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Debug builds of serde's code need most of it.
const STACK_BYTES: usize = 512 * 1024;

/// What code asks of the world.
pub enum Ask {
    Call(Asked),
    Open(Asked),
    /// The next bytes of a watch.
    Read(u32),
    Sleep(Duration),
}

/// A call as it was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: &'static str,
    pub path: String,
    pub body: Vec<u8>,
    pub patience: Patience,
}

impl Asked {
    fn of(call: &Call) -> Asked {
        Asked {
            method: call.method,
            path: call.path.to_string(),
            body: call.body.map_or_else(Vec::new, |(_, body)| body.to_vec()),
            patience: call.patience,
        }
    }

    /// Method and path, as errors name the call.
    pub fn name(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{} {path}", self.method)
    }

    /// Method and resource: what coverage is counted by.
    pub fn kind(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        let resource = ["jobs", "secrets", "services", "pods"]
            .into_iter()
            .find(|one| path.contains(&format!("/{one}")))
            .unwrap_or("?");
        let dry = if self.path.contains("dryRun") {
            " dry"
        } else {
            ""
        };
        format!("{} {resource}{dry}", self.method)
    }
}

/// The world's answer.
pub enum Answer {
    Go,
    Called(Result<Vec<u8>, ApiError>),
    Opened(Result<u32, ApiError>),
    Read(io::Result<Vec<u8>>),
}

/// What came of a task.
pub enum Done {
    Submit(Result<JobView, SubmitError>),
    Batch(Result<BatchView, SubmitError>),
    BatchAsked(Result<(), JobError>),
    Named(Result<JobName, JobError>),
    Counted(Result<usize, JobError>),
    Viewed(Result<JobView, JobError>),
    Worked,
    Watched,
}

pub enum Step {
    Asks(Ask),
    Done(Done),
}

/// Code that runs by turns.
pub struct Task(Option<Coroutine<Answer, Ask, Done, DefaultStack>>);

thread_local! {
    static YIELDER: Cell<*const Yielder<Answer, Ask>> = const { Cell::new(ptr::null()) };
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

impl Task {
    pub fn new(run: impl FnOnce() -> Done + 'static) -> Task {
        let stack = STACKS.with_borrow_mut(Vec::pop);
        let stack = stack.unwrap_or_else(|| DefaultStack::new(STACK_BYTES).unwrap());
        Task(Some(Coroutine::with_stack(stack, move |yielder, _| {
            YIELDER.set(yielder);
            run()
        })))
    }

    /// Goes on until the code asks for something or ends. A panic of it goes on in the caller.
    pub fn resume(&mut self, answer: Answer) -> Step {
        let Some(coroutine) = &mut self.0 else {
            panic!("a task that has ended was resumed")
        };
        let result = coroutine.resume(answer);
        YIELDER.set(ptr::null());
        match result {
            CoroutineResult::Yield(ask) => Step::Asks(ask),
            CoroutineResult::Return(done) => Step::Done(done),
        }
    }
}

impl Drop for Task {
    /// Ends the code where it stands; its values are dropped, as unlike in a process that is
    /// killed, memory must be given back. Nothing that is dropped may ask the world for anything.
    fn drop(&mut self) {
        let Some(mut coroutine) = self.0.take() else {
            return;
        };
        if !coroutine.done() {
            coroutine.force_unwind();
        }
        YIELDER.set(ptr::null());
        STACKS.with_borrow_mut(|stacks| stacks.push(coroutine.into_stack()));
    }
}

/// Whether a task runs now.
pub fn runs() -> bool {
    !YIELDER.get().is_null()
}

/// Leaves the running task until it is resumed.
#[allow(unsafe_code)]
fn suspend(ask: Ask) -> Answer {
    let yielder = YIELDER.get();
    assert!(
        !yielder.is_null(),
        "a call to the world by code that must not make any"
    );
    // SAFETY: it was set by the task that runs, on whose stack the yielder lives until the task
    // ends: each resume sets it again here or in `Task::new`, and null is set whenever a task is
    // left.
    let answer = unsafe { &*yielder }.suspend(ask);
    YIELDER.set(yielder);
    answer
}

/// The connection to the world.
pub struct Line;

impl Api for Line {
    fn send(&self, call: &Call) -> Result<Vec<u8>, ApiError> {
        match suspend(Ask::Call(Asked::of(call))) {
            Answer::Called(answer) => answer,
            _ => panic!("a call was answered with something else"),
        }
    }

    fn open(&self, call: &Call) -> Result<(Format, Box<dyn Read + Send>), ApiError> {
        match suspend(Ask::Open(Asked::of(call))) {
            Answer::Opened(Ok(stream)) => Ok((
                Format::Json,
                Box::new(Frames {
                    stream,
                    rest: Vec::new(),
                    at: 0,
                }),
            )),
            Answer::Opened(Err(error)) => Err(error),
            _ => panic!("an open was answered with something else"),
        }
    }
}

/// A watch's bytes.
struct Frames {
    stream: u32,
    rest: Vec<u8>,
    at: usize,
}

impl Read for Frames {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.rest.len() {
            self.rest = match suspend(Ask::Read(self.stream)) {
                Answer::Read(bytes) => bytes?,
                _ => panic!("a read was answered with something else"),
            };
            self.at = 0;
        }
        let read = (&self.rest[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

/// Simulated time in microseconds, shared by all.
pub type Now = Arc<AtomicU64>;

/// The simulation's second 0, by the world's clocks.
pub const EPOCH: u64 = 1_790_000_000;

/// What the monotonic clock shows at a simulated time.
pub fn instant(micros: u64) -> Instant {
    static ZERO: OnceLock<Instant> = OnceLock::new();
    *ZERO.get_or_init(Instant::now) + Duration::from_micros(micros)
}

/// The simulated time at which the monotonic clock shows as much, or just more.
pub fn micros(at: Instant) -> u64 {
    u64::try_from((at - instant(0)).as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// The clocks and the randomness of one process.
pub struct Clocks {
    pub now: Now,
    /// By how much the wall clock is wrong, in microseconds.
    pub skew: i64,
    pub random: AtomicU64,
}

impl Source for Clocks {
    fn micros(&self) -> u64 {
        let now = EPOCH * 1_000_000 + self.now.load(Ordering::Relaxed);
        now.saturating_add_signed(self.skew)
    }

    fn instant(&self) -> Instant {
        instant(self.now.load(Ordering::Relaxed))
    }

    fn random(&self) -> u64 {
        mix(self.random.fetch_add(1, Ordering::Relaxed))
    }

    fn sleep(&self, time: Duration) {
        match suspend(Ask::Sleep(time)) {
            Answer::Go => {}
            _ => panic!("a sleep was answered with something else"),
        }
    }
}

/// A number that looks random, of each number another.
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
