//! Binding: one listening socket per worker on one address. What came with the process is made ready here, too.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Sockets bound to one address, one a worker.
pub struct Bound {
    /// The address; the port is the kernel's where 0 was asked for.
    pub address: SocketAddr,
    /// The sockets, non-blocking and listening.
    pub sockets: Vec<TcpListener>,
}

impl Bound {
    /// Sockets that somebody else has bound, made ready for workers.
    pub fn of(sockets: Vec<TcpListener>) -> io::Result<Bound> {
        let first = sockets.first().ok_or_else(|| io::Error::other("there is no socket"))?;
        let address = first.local_addr()?;
        for socket in &sockets {
            socket.set_nonblocking(true)?;
            SockRef::from(socket).set_tcp_nodelay(true)?;
        }
        Ok(Bound { address, sockets })
    }
}

/// Binds `count` sockets to one address.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Bound> {
    // With SO_REUSEPORT a second process of the same user could bind too, and would silently get half of the
    // connections. A first socket without it fails when anybody else listens there.
    let probe = socket(address, false)?;
    probe.bind(&address.into())?;
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    let sockets = (0..count)
        .map(|_| {
            let socket = socket(address, true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect::<io::Result<Vec<TcpListener>>>()?;
    Ok(Bound { address, sockets })
}

/// The address of a stored `host:port`; `:80` and `*:80` mean every address.
pub fn resolve(text: &str) -> io::Result<SocketAddr> {
    let text = match text.strip_prefix('*').unwrap_or(text) {
        rest if rest.starts_with(':') => format!("0.0.0.0{rest}"),
        _ => text.to_owned(),
    };
    text.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("the name has no address"))
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Accepted connections inherit it: one system call less for each of them.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Connections that wait to be accepted, per worker; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_an_error_and_port_0_is_one_port_for_all() {
        let bound = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        assert_ne!(bound.address.port(), 0);
        for socket in &bound.sockets {
            assert_eq!(socket.local_addr().unwrap(), bound.address);
        }
        assert!(bind(bound.address, 1).is_err());
    }

    #[test]
    fn stored_addresses_may_leave_the_host_out() {
        assert_eq!(resolve(":80").unwrap(), "0.0.0.0:80".parse().unwrap());
        assert_eq!(resolve("*:80").unwrap(), "0.0.0.0:80".parse().unwrap());
        assert_eq!(resolve("[::1]:80").unwrap(), "[::1]:80".parse().unwrap());
        assert!(resolve("80").is_err());
    }
}
