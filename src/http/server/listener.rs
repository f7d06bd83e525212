//! The socket that is listened on.

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

/// Connections that have come and were not accepted yet.
const BACKLOG: i32 = 1024;

/// The address cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fix = match self.cause.kind() {
            io::ErrorKind::AddrInUse => {
                "another process has this port: stop it, or choose another port"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need rights that this process does not have"
            }
            _ => "choose an address of this machine",
        };
        write!(
            f,
            "cannot listen on {}: {}: {fix}",
            self.address, self.cause
        )
    }
}

/// A listening socket whose connections have no Nagle delay and end when their client's machine is
/// gone.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        if address.ip() == Ipv6Addr::UNSPECIFIED {
            // All addresses, as said, whatever the system's default.
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        // Linux hands these on to accepted connections.
        socket.set_tcp_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(60))
            .with_interval(Duration::from_secs(15));
        socket.set_tcp_keepalive(&keepalive)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|cause| BindError { address, cause })
}

/// As [`bind`], on all addresses: IPv6 and IPv4, or IPv4 alone where the system has no other.
pub fn bind_all(port: u16) -> Result<TcpListener, BindError> {
    bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).or_else(|error| {
        match error.cause.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
            _ => bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)),
        }
    })
}
