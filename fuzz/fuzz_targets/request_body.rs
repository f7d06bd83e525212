//! Any body of a POST is a request or a message, which stays on one line and short.

#![no_main]

use job_scheduler::request::{parse_request, request_key};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let key = request_key("k", body).unwrap();
    assert_eq!(request_key("k", body), Ok(key));
    match parse_request(body) {
        Ok(request) => {
            assert!((-100..=100).contains(&request.priority));
            assert_eq!(parse_request(body).unwrap(), request);
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.is_empty() && message.len() < 64 * 1024);
            assert!(!message.contains(['\n', '\r', '\0']), "{message:?}");
        }
    }
});
