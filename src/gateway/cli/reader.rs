//! Whether somebody still reads standard output: `watch | head -1` shall end with the line, not with the next change after it.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Waits until the other end of standard output is closed, and tells that it is; `false` when that cannot be known. Waits for
/// ever where there is no other end.
pub(super) fn wait_until_gone() -> bool {
    let stdout = std::io::stdout();
    loop {
        // Errors and hang-ups are told without being asked for.
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        match poll(&mut watched, None) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP),
            Err(_) => return false,
        }
    }
}
