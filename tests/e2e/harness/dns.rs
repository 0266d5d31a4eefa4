//! A stub name server on UDP whose answers a test can change.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::net;

/// What is said about a name.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Addresses(Vec<Ipv4Addr>),
    /// No such name.
    Unknown,
    /// The server's own failure.
    Failure,
    /// Nothing is said.
    Silence,
}

/// A running name server. Names it was told nothing about are unknown.
pub(crate) struct Dns {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<BTreeMap<String, Answer>>,
    mute: AtomicBool,
    stopping: AtomicBool,
    queries: AtomicUsize,
}

impl Dns {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind((net::loopback(), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let addr = socket.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = shared.clone();
            move || serve(&socket, &shared)
        });
        Self { addr, shared, thread: Some(thread) }
    }

    pub(crate) fn set(&self, name: &str, answer: Answer) {
        self.shared.answers.lock().unwrap().insert(name.to_owned(), answer);
    }

    pub(crate) fn set_address(&self, name: &str, address: SocketAddr) {
        let SocketAddr::V4(address) = address else { panic!("the stub speaks IPv4 only") };
        self.set(name, Answer::Addresses(vec![*address.ip()]));
    }

    /// Stops answering anything, or starts again.
    pub(crate) fn mute(&self, mute: bool) {
        self.shared.mute.store(mute, Ordering::SeqCst);
    }

    /// How many questions came.
    pub(crate) fn queries(&self) -> usize {
        self.shared.queries.load(Ordering::SeqCst)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn serve(socket: &UdpSocket, shared: &Shared) {
    let mut packet = [0; 1500];
    while !shared.stopping.load(Ordering::SeqCst) {
        let Ok((length, peer)) = socket.recv_from(&mut packet) else { continue };
        shared.queries.fetch_add(1, Ordering::SeqCst);
        if shared.mute.load(Ordering::SeqCst) {
            continue;
        }
        if let Some(answer) = reply(&packet[..length], shared) {
            socket.send_to(&answer, peer).ok();
        }
    }
}

/// The reply to a query of one question (RFC 1035 §4).
fn reply(query: &[u8], shared: &Shared) -> Option<Vec<u8>> {
    let (name, end) = question(query)?;
    let asks_for_a = query.get(end..end + 2)? == [0, 1];
    let answer = shared.answers.lock().unwrap().get(&name).cloned().unwrap_or(Answer::Unknown);
    let (code, addresses) = match answer {
        Answer::Silence => return None,
        Answer::Failure => (2, vec![]),
        Answer::Unknown => (3, vec![]),
        Answer::Addresses(addresses) if asks_for_a => (0, addresses),
        Answer::Addresses(_) => (0, vec![]),
    };
    let mut packet = query[..2].to_vec();
    packet.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(addresses.len()).ok()?, 0, 0, 0, 0]);
    packet.extend(&query[12..end + 4]);
    for address in addresses {
        // A pointer to the question's name, type A, class IN, one second to live, four bytes.
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        packet.extend(address.octets());
    }
    Some(packet)
}

/// The name asked for, in lower case without the last dot, and where it ends.
fn question(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}
