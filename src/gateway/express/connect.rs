//! A connection to an instance.

use super::pool::{self, Upstream};
use crate::proxy::cause::Cause;
use crate::proxy::pooled;
use pingora::protocols::l4::ext::get_tcp_info;
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
        Ok(Err(error)) => return Err(Cause::of_connecting(&error)),
        Ok(Ok(socket)) => socket,
    };
    socket.set_nodelay(true).map_err(|_| Cause::NoConnection)?;
    Ok(Upstream { socket, says_much: false })
}
