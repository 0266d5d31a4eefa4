//! A connection to an instance.

use super::pool::{self, Upstream};
use crate::proxy::cause::Cause;
use crate::proxy::pooled;
use pingora::protocols::l4::ext::get_tcp_info;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use vertice_core::time::Moment;

/// One that waits for a request; for one that `is_sent_once` the kernel is asked about it (see [`crate::proxy::pooled`]).
pub(super) fn waiting(
    address: SocketAddr,
    now: Moment,
    (is_sent_once, ask_kernel): (bool, bool),
    keepalive: Duration,
) -> Option<Upstream> {
    loop {
        let upstream = pool::take(address, now, ask_kernel)?;
        if !is_sent_once || !is_spent(&upstream.socket, keepalive) {
            return Some(upstream);
        }
    }
}

fn is_spent(socket: &TcpStream, keepalive: Duration) -> bool {
    let info = get_tcp_info(socket.as_raw_fd());
    info.is_ok_and(|info| pooled::is_spent(info.tcpi_state, info.tcpi_last_data_recv, Some(keepalive)))
}

/// A new one.
///
/// # Errors
/// Why there is none.
pub(super) async fn fresh(address: SocketAddr, within: Duration) -> Result<Upstream, Cause> {
    let socket = match timeout(within, TcpStream::connect(address)).await {
        Err(_) => return Err(Cause::ConnectTimedOut),
        Ok(Err(error)) => return Err(why(&error)),
        Ok(Ok(socket)) => socket,
    };
    socket.set_nodelay(true).map_err(|_| Cause::NoConnection)?;
    Ok(Upstream { socket, says_much: false })
}

fn why(error: &io::Error) -> Cause {
    match error.kind() {
        ErrorKind::TimedOut => Cause::ConnectTimedOut,
        ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse => Cause::NoPort,
        _ if is_out_of_descriptors(error) => Cause::NoPort,
        _ => Cause::NoConnection,
    }
}

/// `EMFILE` and `ENFILE`, which have no kind of their own.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].iter().any(|errno| code == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_not_held_against_the_instance() {
        let of = |errno: rustix::io::Errno| why(&io::Error::from_raw_os_error(errno.raw_os_error()));
        use rustix::io::Errno;
        for ours in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::ADDRINUSE] {
            assert_eq!(of(ours), Cause::NoPort);
        }
        assert_eq!((of(Errno::CONNREFUSED), of(Errno::HOSTUNREACH)), (Cause::NoConnection, Cause::NoConnection));
        assert_eq!(of(Errno::TIMEDOUT), Cause::ConnectTimedOut);
    }
}
