//! Which requests are served: whose, and not those that a browser may have been tricked into.
//!
//! Whoever can start a job runs a command, so no web page may. A page of another site gives itself away by `Origin`,
//! which browsers send with every POST and DELETE and no page can forge. A page whose host name was rebound to this
//! machine's address (DNS rebinding) has an `Origin` that agrees with its `Host`: only the name tells, so on a machine
//! where browsers run, the names that are served are known ones.

use super::peer::{Peers, Stranger};
use std::net::{IpAddr, TcpStream};

/// What a scheduler answers to.
#[derive(Clone, Debug)]
pub struct Guard {
    /// `None`: every name, as in a cluster, where there are many and no browsers.
    hosts: Option<Hosts>,
    peers: Peers,
}

#[derive(Clone, Debug)]
struct Hosts {
    names: Vec<String>,
    /// Served at any port, as one is that a forwarded port leads to.
    allowed: Vec<String>,
    port: u16,
    /// Whether every address is served: no name has been rebound where there is none.
    any_address: bool,
}

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// Not one `Host`, or not one that is served.
    Host { given: String, served: String },
    /// It comes from another site's page.
    Origin { given: String },
}

impl Guard {
    /// Serves requests to any name.
    pub fn any_host() -> Guard {
        Guard {
            hosts: None,
            peers: Peers::Anybody,
        }
    }

    /// Serves requests to an address, to `localhost` and to `name`; to every address if it is not a loopback address.
    pub fn only(address: IpAddr, port: u16, name: &str) -> Guard {
        let address_text = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        Guard {
            hosts: Some(Hosts {
                names: vec!["localhost".to_string(), address_text, name.to_string()],
                allowed: Vec::new(),
                port,
                any_address: !address.is_loopback(),
            }),
            peers: Peers::Anybody,
        }
    }

    /// Serves the connections of these users alone.
    pub fn of(self, peers: Peers) -> Guard {
        Guard { peers, ..self }
    }

    /// Judges a connection by whose it is.
    pub fn check_peer(&self, stream: &TcpStream) -> Result<(), Stranger> {
        self.peers.check(stream)
    }

    /// Serves requests to these names too, at any port.
    pub fn and(mut self, names: &[String]) -> Guard {
        if let Some(hosts) = &mut self.hosts {
            hosts.allowed.extend(names.iter().cloned());
        }
        self
    }

    /// Judges a request by its `Host` and `Origin` headers.
    pub fn check<'a>(
        &self,
        mut hosts: impl Iterator<Item = &'a str>,
        mut origins: impl Iterator<Item = &'a str>,
    ) -> Result<(), Refusal> {
        let (host, second) = (hosts.next().unwrap_or_default(), hosts.next());
        if let Some(served) = &self.hosts
            && (second.is_some() || !served.has(host))
        {
            return Err(Refusal::Host {
                given: host.to_string(),
                served: served.first(),
            });
        }
        let is_same = |origin: &str| {
            let authority = origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://"));
            authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
        };
        match origins.find(|origin| !is_same(origin)) {
            Some(other) => Err(Refusal::Origin {
                given: other.to_string(),
            }),
            None => Ok(()),
        }
    }
}

impl Hosts {
    fn first(&self) -> String {
        format!("localhost:{}", self.port)
    }

    fn has(&self, host: &str) -> bool {
        let without_port = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let mut allowed = self.allowed.iter();
        if allowed.any(|name| name.eq_ignore_ascii_case(without_port)) {
            return true;
        }
        let Some((name, port)) = host.rsplit_once(':') else {
            return false;
        };
        let is_address = || {
            let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
            bare.unwrap_or(name).parse::<IpAddr>().is_ok()
        };
        port.parse() == Ok(self.port)
            && (self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
                || (self.any_address && is_address()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers, as `Host: a | Origin: b`, and whether they are served.
    #[track_caller]
    fn check(guard: &Guard, headers: &str, served: bool) {
        let with = |wanted: &str| -> Vec<&str> {
            let headers = headers.split(" | ").filter_map(|h| h.split_once(": "));
            headers
                .filter(|(n, _)| *n == wanted)
                .map(|(_, v)| v)
                .collect()
        };
        let (hosts, origins) = (with("Host"), with("Origin"));
        let outcome = guard.check(hosts.into_iter(), origins.into_iter());
        assert_eq!(outcome.is_ok(), served, "{headers}: {outcome:?}");
    }

    #[test]
    fn only_this_machines_names_are_served_on_it() {
        let guard = Guard::only([127, 0, 0, 1].into(), 8000, "compute");
        for host in [
            "127.0.0.1:8000",
            "localhost:8000",
            "LOCALHOST:8000",
            "compute:8000",
        ] {
            check(&guard, &format!("Host: {host}"), true);
        }
        for host in [
            // What a browser sends for a page of a name that was rebound to 127.0.0.1.
            "evil.example:8000",
            "localhost.evil.example:8000",
            "127.0.0.1.evil.example:8000",
            "localhost",
            "localhost:8001",
            "localhost:",
            "0.0.0.0:8000",
            "192.168.1.5:8000",
            "[::1]:8000",
            "",
        ] {
            check(&guard, &format!("Host: {host}"), false);
        }
        check(&guard, "", false);
        check(
            &guard,
            "Host: localhost:8000 | Host: evil.example:8000",
            false,
        );
        check(
            &Guard::only(std::net::Ipv6Addr::LOCALHOST.into(), 8000, "c"),
            "Host: [::1]:8000",
            true,
        );
    }

    #[test]
    fn a_name_that_is_allowed_is_served_at_any_port() {
        let allowed = ["scheduler".to_string(), "localhost".to_string()];
        let guard = Guard::only([127, 0, 0, 1].into(), 8000, "compute").and(&allowed);
        for host in ["scheduler:8000", "Scheduler", "localhost:9999"] {
            check(&guard, &format!("Host: {host}"), true);
        }
        for host in [
            "scheduler.evil.example:8000",
            "evil.example:8000",
            "127.0.0.1:9999",
        ] {
            check(&guard, &format!("Host: {host}"), false);
        }
        let other = "Host: localhost:9999 | Origin: http://localhost:3000";
        check(&guard, other, false);
    }

    #[test]
    fn every_address_is_served_where_the_network_is_let_in() {
        let guard = Guard::only([0, 0, 0, 0].into(), 8000, "compute");
        for host in ["192.168.1.5:8000", "[fe80::1]:8000", "localhost:8000"] {
            check(&guard, &format!("Host: {host}"), true);
        }
        check(&guard, "Host: evil.example:8000", false);
        check(&guard, "Host: 192.168.1.5:80", false);
    }

    #[test]
    fn no_other_sites_page_is_served_anywhere() {
        let local = Guard::only([127, 0, 0, 1].into(), 8000, "compute");
        for guard in [&Guard::any_host(), &local] {
            check(
                guard,
                "Host: localhost:8000 | Origin: http://localhost:8000",
                true,
            );
            for origin in [
                "https://evil.example",
                "http://localhost:3000",
                "http://localhost",
                "http://localhost:8000.evil.example",
                // A sandboxed frame, a file, a redirect across sites.
                "null",
                "",
            ] {
                let headers = format!("Host: localhost:8000 | Origin: {origin}");
                check(guard, &headers, false);
            }
            let both = "Origin: http://localhost:8000 | Origin: https://evil.example";
            check(guard, &format!("Host: localhost:8000 | {both}"), false);
        }
        check(&Guard::any_host(), "Host: compute:8000", true);
        check(&Guard::any_host(), "", true);
        check(&Guard::any_host(), "Origin: null", false);
        // The name was rebound: origin and host agree, so the name alone tells.
        check(
            &local,
            "Host: evil.example:8000 | Origin: http://evil.example:8000",
            false,
        );
    }
}
