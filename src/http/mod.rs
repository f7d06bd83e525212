//! The HTTP API: bytes to a typed action, and its outcome back to bytes.

mod handler;
mod reply;
mod route;
mod server;

pub use server::{BindError, Server, WRITERS, bind};
