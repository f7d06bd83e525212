//! Which user of this machine a connection comes from.
//!
//! Linux tells it of the other end's socket, which is on the same machine: the one that has this
//! connection's two addresses the other way round.

use crate::sync::Lock;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// The kernel answers at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

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
    // Of a kernel that does not answer, or a sandbox that does not let it be asked, the tables are
    // read, which takes longer with each connection of the machine.
    ask_kernel(there, here).or_else(|_| read_tables(there, here))
}

/// Asks the kernel for one socket by its addresses.
///
/// Source: sock_diag(7), `struct inet_diag_req_v2` and `struct inet_diag_msg`.
fn ask_kernel(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
    const SOCK_DIAG: i32 = 4;
    const BY_FAMILY: u16 = 20;
    const ERROR: u16 = 2;
    const REQUEST: u16 = 1;
    const LENGTH: usize = 72;
    let (local_ip, remote_ip) = (local.ip().to_canonical(), remote.ip().to_canonical());
    let family = if local_ip.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let mut request = Vec::with_capacity(LENGTH);
    // The header: length, type, flags, sequence number, sender.
    request.extend((LENGTH as u32).to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    // Family, protocol, no extensions, and a socket of any state.
    let byte = |number: i32| u8::try_from(number).unwrap_or(0);
    request.extend([byte(family), byte(libc::IPPROTO_TCP), 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(local.port().to_be_bytes());
    request.extend(remote.port().to_be_bytes());
    request.extend(address_bytes(local_ip));
    request.extend(address_bytes(remote_ip));
    // Any interface, and no cookie.
    request.extend([0; 4]);
    request.extend([0xff; 8]);

    let protocol = socket2::Protocol::from(SOCK_DIAG);
    let domain = socket2::Domain::from(libc::AF_NETLINK);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(protocol))?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.send(&request)?;
    let mut buffer = [0; 512];
    let count = (&socket).read(&mut buffer)?;
    let answer = buffer.get(..count).unwrap_or_default();
    let word = |place: usize| {
        let bytes = answer.get(place..place + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok());
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    match kind.map(u16::from_ne_bytes).ok_or_else(malformed)? {
        BY_FAMILY => {
            let (user, inode) = (word(80), word(84));
            // A socket that no process has any more is said to be root's.
            Ok(user.filter(|_| inode.is_some_and(|inode| inode != 0)))
        }
        ERROR => match word(16).map(u32::cast_signed).ok_or_else(malformed)? {
            code if code == -libc::ENOENT => Ok(None),
            code => Err(io::Error::from_raw_os_error(-code)),
        },
        _ => Err(malformed()),
    }
}

/// In the network's order, and as long as one of IPv6.
fn address_bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

/// Looks for the socket in the tables of all, one reader at a time.
fn read_tables(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
    static ONE: Lock<()> = Lock::new(());
    let _one = ONE.lock();
    // A client may reach an IPv4 address through an IPv6 socket.
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(table) = File::open(file) else {
            continue;
        };
        if let Some(user) = find(BufReader::new(table), local, remote) {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

/// The user of the socket that has these addresses.
fn find(table: impl BufRead, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let same = |field: &str, wanted: SocketAddr| {
        parse_address(field).is_some_and(|(ip, port)| {
            ip.to_canonical() == wanted.ip().to_canonical() && port == wanted.port()
        })
    };
    let mut lines = table.lines().skip(1).map_while(Result::ok);
    lines.find_map(|line| {
        let mut fields = line.split_whitespace();
        let (own, other) = (fields.nth(1)?, fields.next()?);
        if !same(own, local) || !same(other, remote) {
            return None;
        }
        let (user, inode) = (fields.nth(4)?, fields.nth(1)?);
        // As above.
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
            find(TABLE.as_bytes(), address(port), address(8000))
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
            let (here, there) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            assert_eq!(ask_kernel(there, here).unwrap(), Some(own));
            assert_eq!(read_tables(there, here).unwrap(), Some(own));
            assert_eq!(Peers::OwnUser.check(&stream), Ok(()));
            drop(client);
        }
    }

    #[test]
    fn an_ipv4_address_may_be_reached_through_ipv6() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let Ok(client) = TcpStream::connect(format!("[::ffff:127.0.0.1]:{port}")) else {
            return; // a machine without IPv6
        };
        let (stream, _) = listener.accept().unwrap();
        assert_eq!(Peers::OwnUser.check(&stream), Ok(()));
        drop(client);
    }

    #[test]
    fn a_connection_that_its_client_has_closed_is_nobodys() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        drop(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let (stream, _) = listener.accept().unwrap();
        let (here, there) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        assert_eq!(ask_kernel(there, here).unwrap(), None);
        assert_eq!(read_tables(there, here).unwrap(), None);
        assert_eq!(Peers::OwnUser.check(&stream), Err(Stranger::Unknown));
        assert_eq!(Peers::Anybody.check(&stream), Ok(()));
    }
}
