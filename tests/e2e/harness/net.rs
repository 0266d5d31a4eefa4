//! Addresses that no other test uses. All of 127/8 is local, so each process takes its own part of it: a port that is
//! closed stays closed, and one that is given up can be taken again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, SockRef, Socket, Type};

use super::PATIENCE;

static NEXT: AtomicU32 = AtomicU32::new(2);

/// A loopback address of this process' own.
pub(crate) fn loopback() -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let serial = NEXT.fetch_add(1, Ordering::Relaxed) % 250 + 2;
    Ipv4Addr::new(127, u8::try_from(serial).unwrap(), high, low.max(1))
}

/// An address on which nobody listens.
pub(crate) fn closed() -> SocketAddr {
    closed_at(loopback().into())
}

/// Another port of that address on which nobody listens.
pub(crate) fn closed_at(ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Connects from `source`, if given.
pub(crate) fn connect(source: Option<IpAddr>, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&target.into(), PATIENCE)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Closes with a reset instead of a goodbye.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).ok();
    drop(stream);
}

/// A listener whose queue is full: a connection to it is neither accepted nor refused.
pub(crate) struct Blackhole {
    pub(crate) addr: SocketAddr,
    _listener: Socket,
    _queued: Vec<Socket>,
}

impl Blackhole {
    pub(crate) fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from((loopback(), 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let queued = (0..8)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                // In progress is all it will ever be.
                let _ = socket.connect(&addr.into());
                socket
            })
            .collect();
        Self { addr, _listener: listener, _queued: queued }
    }
}
