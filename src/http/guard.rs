//! Which requests are served: whose, and not those that a browser may have been tricked into.
//!
//! Whoever can start a job runs a command, so no web page may. A page of another site gives itself
//! away by `Origin`, which browsers send with every POST and DELETE and no page can forge. A page
//! whose host name was rebound to a scheduler's address (DNS rebinding), such as the local end of
//! `kubectl port-forward`, has an `Origin` that agrees with its `Host`: only the name tells. So the
//! names that are served are known ones, which nobody else can have in the public DNS, and
//! addresses, which cannot be rebound.

use super::peer::{Peers, Stranger};
use std::net::{IpAddr, TcpStream};

/// What a scheduler answers to.
#[derive(Clone, Debug)]
pub struct Guard {
    names: Vec<String>,
    /// Served at any port, as one is that a forwarded port leads to.
    allowed: Vec<String>,
    /// `None`: any.
    port: Option<u16>,
    /// Whether every address is served: no name has been rebound where there is none.
    any_address: bool,
    peers: Peers,
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
    /// Serves requests to a Service `name` of a cluster, by each name that DNS has for it in
    /// `domain`, to `localhost` and to every address: at any port, as it may be forwarded.
    pub fn service(name: &str, namespace: &str, domain: &str) -> Guard {
        let names = [
            "localhost".to_string(),
            name.to_string(),
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.{domain}"),
        ];
        Guard {
            names: names.into(),
            allowed: Vec::new(),
            port: None,
            any_address: true,
            peers: Peers::Anybody,
        }
    }

    /// Serves requests to an address, to `localhost` and to `name`; to every address if it is not a
    /// loopback address.
    pub fn only(address: IpAddr, port: u16, name: &str) -> Guard {
        let address_text = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        Guard {
            names: vec!["localhost".to_string(), address_text, name.to_string()],
            allowed: Vec::new(),
            port: Some(port),
            any_address: !address.is_loopback(),
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
        self.allowed.extend(names.iter().cloned());
        self
    }

    /// Judges a request by its `Host` and `Origin` headers.
    pub fn check<'a>(
        &self,
        mut hosts: impl Iterator<Item = &'a str>,
        mut origins: impl Iterator<Item = &'a str>,
    ) -> Result<(), Refusal> {
        let (host, second) = (hosts.next().unwrap_or_default(), hosts.next());
        if second.is_some() || !self.has(host) {
            return Err(Refusal::Host {
                given: host.to_string(),
                served: self.first(),
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
    fn first(&self) -> String {
        match self.port {
            Some(port) => format!("localhost:{port}"),
            None => self.names.get(1).cloned().unwrap_or_default(),
        }
    }

    fn has(&self, host: &str) -> bool {
        // No page is from nowhere.
        if host.is_empty() && self.port.is_none() {
            return true;
        }
        let is_bare_address = host.ends_with(']') || host.parse::<IpAddr>().is_ok();
        let split = host.rsplit_once(':').filter(|_| !is_bare_address);
        let (name, port) = split.map_or((host, None), |(name, port)| (name, Some(port)));
        let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
        if port.is_some_and(|port| !is_port(port)) {
            return false;
        }
        if is_one_of(&self.allowed, name) {
            return true;
        }
        let is_address = || {
            let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
            bare.unwrap_or(name).parse::<IpAddr>().is_ok()
        };
        let is_at_port = |own: u16| port.is_some_and(|port| port.parse() == Ok(own));
        self.port.is_none_or(is_at_port)
            && (is_one_of(&self.names, name) || (self.any_address && is_address()))
    }
}

fn is_one_of(names: &[String], name: &str) -> bool {
    // A name may be told to be whole by a dot.
    let name = name.strip_suffix('.').unwrap_or(name);
    names.iter().any(|own| own.eq_ignore_ascii_case(name))
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

    fn service() -> Guard {
        Guard::service("compute", "app-dev", "cluster.local")
    }

    #[test]
    fn a_service_is_served_by_its_own_names_and_addresses() {
        for host in [
            "compute",
            "compute:8000",
            "Compute.app-dev:8000",
            "compute.app-dev.svc",
            "compute.app-dev.svc.cluster.local:8000",
            "compute.app-dev.svc.cluster.local.",
            // kubectl port-forward.
            "localhost:9999",
            "127.0.0.1:9999",
            "[::1]:9999",
            // Probes, Prometheus, the API server's proxy.
            "10.42.0.17:8000",
            "[fd00::17]:8000",
            "[fd00::17]",
            "10.42.0.17",
        ] {
            check(&service(), &format!("Host: {host}"), true);
        }
        for host in [
            "evil.example:8000",
            "compute.evil.example:8000",
            "compute.app-dev.svc.evil.example:8000",
            "compute.app-dev.svc.cluster.local.evil.example",
            "other.app-dev:8000",
            "compute.other-dev.svc",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example:8000@compute",
            "compute:",
            "compute:0",
            "compute:8000:8000",
            "[::1",
            "::1:8000x",
            "\u{1a}",
        ] {
            check(&service(), &format!("Host: {host}"), false);
        }
        check(&service(), "Host: compute | Host: compute", false);
        let guard = service().and(&["jobs.example".to_string()]);
        check(&guard, "Host: jobs.example:8443", true);
        check(
            &guard,
            "Host: jobs.example | Origin: https://jobs.example",
            true,
        );
        check(&guard, "Host: other.example", false);
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
        for guard in [&service(), &local] {
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
        check(&service(), "Host: compute:8000", true);
        check(&service(), "", true);
        check(&service(), "Origin: null", false);
        // The name was rebound: origin and host agree, so the name alone tells.
        check(
            &local,
            "Host: evil.example:8000 | Origin: http://evil.example:8000",
            false,
        );
    }
}
