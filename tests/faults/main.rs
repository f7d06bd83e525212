//! Faults, on a real cluster: the built binary outside of it, and between them a proxy that breaks
//! things.
//!
//! `scripts/with-cluster` gives it what it needs, `KUBECONFIG` and kubectl. Each test has a
//! namespace of its own, prints how often it tried, and allows nothing to be lost and nothing to be
//! done twice. Those that take long are ignored unless asked for. Their jobs mostly need not run: a
//! quota of no pods makes a thousand of them cost nothing.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../harness/mod.rs"]
mod harness;
mod proxy;

mod answers;
mod batches;
mod connections;
mod crash;
mod ends;
mod outage;
mod process;
mod queue;
mod real;
mod watching;
