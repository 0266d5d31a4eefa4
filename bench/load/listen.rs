//! Listening with room for a thousand clients that connect at once: the standard library's queue is shorter, and who does not fit
//! in comes again a second later, which then looks like the proxy's fault.

use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

const BACKLOG: i32 = 4096;

/// On any port of this machine.
pub(crate) fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
