//! Runs on-demand jobs for the components of an application.

pub mod config;
pub mod request;
