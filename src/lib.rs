//! An HTTP API that runs on-demand jobs on Kubernetes, or on one machine without it.
//!
//! Modules in the order data flows: [`cli`] and [`config`] are read once; [`http`] turns a request
//! into a typed action; [`scheduler`] has the use cases; [`index`] is its picture of the jobs,
//! [`queue`] what is left to do, [`retention`] what to let go; [`backend`] runs the jobs and
//! reports what it observes; [`logs`] reads what they write; [`job`] is what all of them speak of.
//! [`serve`] puts these together for a cluster, and [`local`] for one machine; [`manifests`] stands
//! apart, and prints the objects that run `serve`. [`client`] asks a scheduler over HTTP, and knows
//! nothing of the rest; [`validate`] checks a file.
//! [`batch`] is what is asked for of many jobs as one, and how those stand together.
//! [`trace`] reads which trace a request is part of, and [`finished`] whether a job has ended. What
//! the commands print for people is aligned by `columns`.
//!
//! Invariants:
//! - A request is acknowledged only once the backend has the job and its payload durably. The
//!   process may be killed on any line and started again: all state that matters is in the backend.
//! - A GET never calls the backend, but for the one of a log. What this process created or deleted
//!   is in the index before its caller is answered.
//! - Every task of the queue may be done again without harm.
//! - The scheduler's account can create Secrets and never read one.
//! - `job`, `index`, `queue` and `retention` import neither `http` nor `backend`.
//!
//! Absent on purpose: an async runtime, a Kubernetes client library, a database, leader election
//! (one scheduler runs per component and environment).

pub mod backend;
pub mod batch;
pub mod cli;
pub mod client;
pub mod clock;
mod columns;
pub mod config;
pub mod finished;
#[cfg(test)]
mod golden;
pub mod http;
pub mod index;
pub mod job;
pub mod local;
pub mod logging;
pub mod logs;
pub mod manifests;
pub mod metrics;
pub mod process;
pub mod queue;
pub mod request;
pub mod retention;
pub mod scheduler;
pub mod serve;
pub mod sync;
pub mod trace;
pub mod validate;
