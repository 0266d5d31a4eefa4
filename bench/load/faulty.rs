//! An instance that can be told how to fail, for the rig.
//!
//! `bench-faulty PORT` listens there (0: on any port), prints the port, and does what the last line of its input says, from the
//! next request on; see [`Mood`]. It prints each of these lines when it is in force. Any path, bodies with `Content-Length`.

use std::io::{self, BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nsound\n";
const HEAD_END: &[u8] = b"\r\n\r\n";
/// How long the one that flaps is sound, and how long it is not.
const FLAP: Duration = Duration::from_millis(300);

/// How requests are answered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    /// `sound`: at once.
    Sound,
    /// `refuse`: it is not there; nobody listens, and connections end.
    Refuse,
    /// `reset`: the request is read and the connection reset.
    Reset,
    /// `hang`: the request is read and nothing follows.
    Hang,
    /// `garbage`: an answer that is not HTTP.
    Garbage,
    /// `slow MS`: after so long.
    Slow(Duration),
    /// `cut`: the answer's head and half of its body, then a reset.
    Cut,
    /// `flap`: sound for 300 ms, resetting for 300 ms, and so on.
    Flap,
    /// `unavailable`: 503.
    Unavailable,
    /// `impatient`: sound, but a connection is closed without a word up to 20 ms after its answer.
    Impatient,
    /// `deaf`: connections are accepted and never read from.
    Deaf,
    /// `workers N MS`: N requests at once, each takes so long; the others wait for them, without end, in turn.
    Workers(usize, Duration),
}

struct Instance {
    mood: watch::Receiver<Mood>,
    /// When the workers are free again.
    free: std::sync::Mutex<Vec<Instant>>,
    /// For pauses that differ.
    served: AtomicU64,
    begun: Instant,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    let mut listener = Some(TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?);
    let address =
        listener.as_ref().map(TcpListener::local_addr).transpose()?.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, port).into());
    say(&address.port().to_string())?;
    let (lines, mut orders) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || io::stdin().lock().lines().map_while(Result::ok).all(|line| lines.blocking_send(line).is_ok()));
    let (change, mood) = watch::channel(Mood::Sound);
    let instance = Arc::new(Instance { mood, free: Vec::new().into(), served: AtomicU64::new(0), begun: Instant::now() });
    loop {
        tokio::select! {
            line = orders.recv() => {
                let Some(line) = line else { return Ok(()) };
                let mood = Mood::read(&line).ok_or_else(|| io::Error::other(format!("unknown order: {line}")))?;
                match (mood, &listener) {
                    (Mood::Refuse, _) => listener = None,
                    (_, None) => listener = Some(TcpListener::bind(address).await?),
                    _ => {}
                }
                change.send_replace(mood);
                say(&line)?;
            }
            Some(Ok((stream, _))) = accepted(listener.as_ref()) => {
                stream.set_nodelay(true)?;
                let instance = instance.clone();
                // A connection that breaks is its client's affair.
                tokio::spawn(async move { instance.serve(stream).await.ok() });
            }
        }
    }
}

/// `None` where nobody listens: that never happens in a select which has other hopes.
async fn accepted(listener: Option<&TcpListener>) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    match listener {
        Some(listener) => Some(listener.accept().await),
        None => std::future::pending().await,
    }
}

impl Mood {
    fn read(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let millis = |word: &str| word.parse().ok().map(Duration::from_millis);
        Some(match words.as_slice() {
            ["sound"] => Self::Sound,
            ["refuse"] => Self::Refuse,
            ["reset"] => Self::Reset,
            ["hang"] => Self::Hang,
            ["garbage"] => Self::Garbage,
            ["slow", ms] => Self::Slow(millis(ms)?),
            ["cut"] => Self::Cut,
            ["flap"] => Self::Flap,
            ["unavailable"] => Self::Unavailable,
            ["impatient"] => Self::Impatient,
            ["deaf"] => Self::Deaf,
            ["workers", count, ms] => Self::Workers(count.parse().ok()?, millis(ms)?),
            _ => return None,
        })
    }
}

impl Instance {
    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut mood = self.mood.clone();
        let (mut bytes, mut has_served) = (Vec::with_capacity(16 * 1024), false);
        loop {
            let is = *mood.borrow_and_update();
            tokio::select! {
                request = read_request(&mut stream, &mut bytes), if is != Mood::Deaf => if !request? { return Ok(()) },
                changed = mood.changed() => {
                    if changed.is_err() || *mood.borrow() == Mood::Refuse {
                        return Ok(());
                    }
                    continue;
                }
                () = sleep(self.patience()), if is == Mood::Impatient && has_served => return Ok(()),
            }
            let mood = *self.mood.borrow();
            if !self.answer(&mut stream, mood).await? {
                return Ok(());
            }
            has_served = true;
        }
    }

    /// Whether the connection is kept.
    async fn answer(&self, stream: &mut TcpStream, mood: Mood) -> io::Result<bool> {
        match mood {
            Mood::Sound | Mood::Deaf | Mood::Impatient => {}
            Mood::Flap if (self.begun.elapsed().as_millis() / FLAP.as_millis()).is_multiple_of(2) => {}
            Mood::Refuse => return Ok(false),
            Mood::Reset | Mood::Flap => return reset(stream),
            Mood::Hang => {
                // Until the other side has had enough.
                let _ = stream.read(&mut [0]).await;
                return Ok(false);
            }
            Mood::Garbage => {
                stream.write_all(b"\0\x01SSH-2.0-OpenSSH_9.2\r\n\r\n").await?;
                return Ok(false);
            }
            Mood::Slow(time) => sleep(time).await,
            Mood::Cut => {
                stream.write_all(&ANSWER[..ANSWER.len() - 3]).await?;
                // The reset must not overtake what came before it.
                sleep(Duration::from_millis(5)).await;
                return reset(stream);
            }
            Mood::Unavailable => {
                stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await?;
                return Ok(true);
            }
            Mood::Workers(count, time) => sleep_until(self.turn(count, time)).await,
        }
        stream.write_all(ANSWER).await?;
        Ok(true)
    }

    /// How long a connection may be idle where there is little patience.
    fn patience(&self) -> Duration {
        let nth = self.served.fetch_add(1, Ordering::Relaxed);
        Duration::from_micros(nth * 7_919 % 20_000)
    }

    /// When the next request is done; its work is done even if its client leaves, as by a thread.
    fn turn(&self, count: usize, time: Duration) -> Instant {
        let mut free = self.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        free.resize(count, now);
        let Some(first) = free.iter_mut().min() else { return now };
        *first = (*first).max(now) + time;
        *first
    }
}

/// Prints a line at once.
fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")?;
    io::stdout().flush()
}

fn reset(stream: &TcpStream) -> io::Result<bool> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
    Ok(false)
}

/// Whether there was one; what follows it is kept.
async fn read_request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        if let Some(at) = bytes.windows(HEAD_END.len()).position(|window| window == HEAD_END) {
            let head_len = at + HEAD_END.len();
            let length = head_len + content_length(&bytes[..head_len]);
            if bytes.len() >= length {
                bytes.drain(..length);
                return Ok(true);
            }
        }
        if stream.read_buf(bytes).await? == 0 {
            return Ok(false);
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    let pairs = head.lines().filter_map(|line| line.split_once(':'));
    let value =
        pairs.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value.trim()).next_back();
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}
