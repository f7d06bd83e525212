//! The HTTP API: bytes to a typed action, and its outcome back to bytes.

mod guard;
mod handler;
#[cfg(not(fuzzing))]
mod reply;
#[cfg(fuzzing)]
pub mod reply;
#[cfg(not(fuzzing))]
mod route;
#[cfg(fuzzing)]
pub mod route;
mod server;

pub use guard::Guard;
pub use server::{BindError, Server, WRITERS, bind};
