//! Ports of the machine, at which its jobs listen themselves.

use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};

const TAKEN: &str = "is taken by another process";

/// Where a job that listens at a port is reached.
pub fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Why a process that starts now could not listen at a port: somebody else does, or it may not. What is
/// told goes on from the port's number.
pub fn check(port: u16) -> Result<(), String> {
    bind(port).map_err(|e| match e.kind() {
        ErrorKind::AddrInUse => TAKEN.to_string(),
        _ => format!("cannot be used: {e}"),
    })
}

/// Does what a server does, up to listening: nobody who asks is to meet this process instead.
fn bind(port: u16) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // All addresses, as a server in a container has it: who listens at one of them is in its way.
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_port_is_free_until_somebody_listens_and_after() {
        for address in ["127.0.0.1:0", "127.0.0.2:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let taken = Err(TAKEN.to_string());
            assert_eq!(check(port), taken, "{address}");
            drop(listener);
            assert_eq!(check(port), Ok(()), "{address}");
        }
    }
}
