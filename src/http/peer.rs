//! Which user of this machine a connection comes from.
//!
//! Linux tells it of the other end's socket, which is on the same machine: the line of `/proc/net/tcp`
//! that has this connection's two addresses the other way round (proc_pid_net(5)).

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};

/// Whose connections are served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Peers {
    /// Anybody's, on this machine and elsewhere.
    Anybody,
    /// Those of this process's own user, and root's.
    OwnUser,
}

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stranger {
    /// It is this user's.
    User(u32),
    /// The kernel does not say whose it is, such as of one that the other end has closed already.
    Unknown,
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fix = "a job runs as the user that started the scheduler, who alone may ask it: start one \
                   of your own, or start this one with --allow-other-users";
        match self {
            Stranger::User(user) => write!(f, "the connection is the user {user}'s: {fix}"),
            Stranger::Unknown => write!(f, "the connection is of a user that is not known: {fix}"),
        }
    }
}

impl Peers {
    /// Judges a connection by whose it is.
    pub fn check(self, stream: &TcpStream) -> Result<(), Stranger> {
        if self == Peers::Anybody {
            return Ok(());
        }
        match user(stream) {
            Ok(Some(0)) => Ok(()),
            Ok(Some(user)) if user == rustix::process::geteuid().as_raw() => Ok(()),
            Ok(Some(user)) => Err(Stranger::User(user)),
            Ok(None) | Err(_) => Err(Stranger::Unknown),
        }
    }
}

/// The user of the other end, if it is on this machine.
fn user(stream: &TcpStream) -> io::Result<Option<u32>> {
    let (here, there) = (stream.local_addr()?, stream.peer_addr()?);
    // A client may reach an IPv4 address through an IPv6 socket.
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let table = fs::read_to_string(file).unwrap_or_default();
        if let Some(user) = find(&table, there, here) {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

/// The user of the socket that has these addresses.
fn find(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let same = |field: &str, wanted: SocketAddr| {
        parse_address(field).is_some_and(|(ip, port)| {
            ip.to_canonical() == wanted.ip().to_canonical() && port == wanted.port()
        })
    };
    let mut lines = table.lines().skip(1).map(str::split_whitespace);
    lines.find_map(|mut fields| {
        let (own, other) = (fields.nth(1)?, fields.next()?);
        if !same(own, local) || !same(other, remote) {
            return None;
        }
        let (user, inode) = (fields.nth(4)?, fields.nth(1)?);
        // A socket that no process has any more is said to be root's.
        (inode != "0").then(|| user.parse().ok())?
    })
}

/// `0100007F:1F40`: the address in the machine's own order of bytes, in words of 32 bits, and the
/// port as a number.
fn parse_address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |number: usize| {
        let digits = address.get(number * 8..number * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            IpAddr::from(bytes)
        }
        _ => return None,
    };
    Some((ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
         0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 100 1 0 100 0 0 10 0\n   \
         1: 0100007F:9C40 0100007F:1F40 01 00000000:00000000 00:00000000 00000000  1001        0 101 1 0 20 4 30 10 -1\n   \
         2: 0100007F:9C41 0100007F:1F40 05 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20 4 30 10 -1\n   \
         3: 0000000000000000FFFF00000100007F:9C42 0000000000000000FFFF00000100007F:1F40 01 00000000:00000000 \
         00:00000000 00000000     7        0 102 1 0 20 4 30 10 -1\n";

    #[test]
    fn the_other_ends_user_is_found_by_its_addresses() {
        let user = |port: u16| {
            let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
            find(TABLE, address(port), address(8000))
        };
        assert_eq!(user(40_000), Some(1001));
        assert_eq!(user(40_001), None, "nobody has the socket");
        assert_eq!(user(40_002), Some(7), "through IPv6");
        assert_eq!(user(8000), None, "a listener");
        assert_eq!(user(1), None);
    }

    #[test]
    fn an_own_connection_is_served() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue; // a machine without IPv6
            };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().unwrap();
            let own = rustix::process::geteuid().as_raw();
            assert_eq!(user(&stream).unwrap(), Some(own));
            assert_eq!(Peers::OwnUser.check(&stream), Ok(()));
            drop(client);
        }
    }

    #[test]
    fn a_connection_that_its_client_has_closed_is_nobodys() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        drop(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let (stream, _) = listener.accept().unwrap();
        assert_eq!(Peers::OwnUser.check(&stream), Err(Stranger::Unknown));
        assert_eq!(Peers::Anybody.check(&stream), Ok(()));
    }
}
