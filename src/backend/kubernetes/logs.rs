//! The log of a pod.
//!
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod>

use super::api::{ApiError, Calls};
use crate::backend::LogOptions;
use std::fmt::Write;
use std::io::{self, ErrorKind, Read};

/// The container is named, for others may have been put beside it.
pub fn path(namespace: &str, pod: &str, container: &str, options: LogOptions) -> String {
    let mut path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}");
    if options.follow {
        path.push_str("&follow=true");
    }
    if let Some(lines) = options.tail {
        // Writing to a String always succeeds.
        let _ = write!(path, "&tailLines={lines}");
    }
    path
}

/// The log, as it comes.
pub struct PodLog {
    calls: Calls,
    path: String,
    /// `None` while nothing has come: a followed log is answered with its first line, and not
    /// before.
    open: Option<Box<dyn Read + Send>>,
}

impl PodLog {
    pub fn open(calls: &Calls, path: String) -> Result<PodLog, ApiError> {
        let mut log = PodLog {
            calls: calls.clone(),
            path,
            open: None,
        };
        match log.try_open() {
            Ok(()) | Err(ApiError::TimedOut { .. }) => Ok(log),
            Err(e) => Err(e),
        }
    }

    fn try_open(&mut self) -> Result<(), ApiError> {
        self.open = Some(self.calls.log(&self.path)?);
        Ok(())
    }
}

impl Read for PodLog {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(open) = &mut self.open {
            return open.read(buffer);
        }
        match self.try_open() {
            Ok(()) => self.read(buffer),
            Err(e @ ApiError::TimedOut { .. }) => {
                Err(io::Error::new(ErrorKind::TimedOut, e.to_string()))
            }
            Err(e) => Err(io::Error::other(e.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::kubernetes::{Access, Client};
    use crate::clock::Clock;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::thread::{sleep, spawn};
    use std::time::Duration;

    fn options(follow: bool, tail: Option<u32>) -> LogOptions {
        LogOptions { follow, tail }
    }

    #[test]
    fn the_path_says_which_part() {
        let check = |options, expected: &str| {
            let path = path("app-dev", "compute-1-x", "compute", options);
            let rest = path.strip_prefix("/api/v1/namespaces/app-dev/pods/compute-1-x/log?");
            assert_eq!(rest, Some(expected));
        };
        check(options(false, None), "container=compute");
        check(
            options(true, Some(10)),
            "container=compute&follow=true&tailLines=10",
        );
    }

    /// An API server that is silent before its first line and again in the middle.
    #[test]
    fn a_silent_log_is_waited_for_and_loses_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = spawn(move || {
            for silent in [true, false] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                if silent {
                    // Until the client has enough of it.
                    assert!(lines.next().is_none_or(|line| line.is_err()));
                    continue;
                }
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(b"4\r\none\n\r\n").unwrap();
                sleep(Duration::from_millis(1500));
                stream.write_all(b"4\r\ntwo\n\r\n0\r\n\r\n").unwrap();
            }
        });
        let access = Access {
            url,
            token_file: None,
            ca_file: None,
            connections: 1,
        };
        let client = Client::new(&access, Arc::default()).ok().unwrap();
        let client = Calls::new(Arc::new(client), Clock::real());
        let mut log = PodLog::open(&client, "/log".to_string()).ok().unwrap();
        let (mut text, mut silences, mut buffer) = (Vec::new(), 0, [0; 100]);
        loop {
            match log.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => text.extend(buffer.iter().take(count)),
                Err(e) if e.kind() == ErrorKind::TimedOut => silences += 1,
                Err(e) => panic!("{e}"),
            }
        }
        server.join().unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "one\ntwo\n");
        assert!(silences >= 1, "{silences}");
    }
}
