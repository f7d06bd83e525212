//! The HTTP API: bytes to a typed action, and its outcome back to bytes.

mod handler;
mod openapi;
mod reply;
mod route;
mod server;

pub use openapi::DOCUMENT;
pub use server::{BindError, Server, WRITERS, bind};
