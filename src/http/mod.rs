//! The HTTP API: bytes to a typed action, and its outcome back to bytes.

mod component;
mod console;
mod events;
mod guard;
mod handler;
mod openapi;
mod peer;
mod reply;
mod route;
mod server;

pub use guard::Guard;
pub use openapi::DOCUMENT;
pub use peer::Peers;
#[cfg(fuzzing)]
pub use reply::Reply;
#[cfg(fuzzing)]
pub use route::{MAX_WAIT_SECONDS, Route};
pub use server::{BindError, Server, WRITERS, bind, bind_all};
