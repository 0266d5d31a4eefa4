//! A load balancer in front of several gateways: one after another, per request, and the next one when a connection is
//! refused. It repeats nothing that was sent, so that what a gateway lost stays lost and is seen.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use super::http::{Headers, Response, header, parse_head};
use super::{Conn, net};

/// Header of a 502 of the balancer's own: the gateway that took the request and gave no answer.
pub(crate) const LOST_BY: &str = "x-lost-by";

/// A running load balancer.
pub(crate) struct Balancer {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    gateways: Vec<SocketAddr>,
    next: AtomicUsize,
    stopping: AtomicBool,
}

impl Balancer {
    /// Starts on an address of its own, in front of these.
    pub(crate) fn start(gateways: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind((net::loopback(), 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { gateways, next: AtomicUsize::new(0), stopping: AtomicBool::new(false) });
        let acceptor = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Self { addr, shared, acceptor: Some(acceptor) }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor.
        TcpStream::connect(self.addr).ok();
        self.acceptor.take().map(JoinHandle::join);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        let shared = shared.clone();
        // Ends when the client closes.
        std::thread::spawn(move || serve(stream, &shared));
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let client = stream.peer_addr()?.ip().to_string();
    let mut conn = Conn::over(stream)?;
    loop {
        let head = String::from_utf8_lossy(&conn.until(b"\r\n\r\n")?).into_owned();
        let (first, mut headers) = parse_head(&head);
        let length = header(&headers, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let body = conn.exactly(length)?;
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case("connection") && !name.eq_ignore_ascii_case("x-forwarded-for"));
        headers.push(("X-Forwarded-For".to_owned(), client.clone()));
        headers.push(("Connection".to_owned(), "close".to_owned()));
        conn.try_send(shared.answer(&first, &headers, &body))?;
    }
}

impl Shared {
    /// The bytes of the answer to a request.
    fn answer(&self, first: &str, headers: &Headers, body: &[u8]) -> Vec<u8> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        for attempt in 0..self.gateways.len() {
            let gateway = self.gateways[(turn + attempt) % self.gateways.len()];
            // Refused: nobody there. Anything later is the gateway's.
            let Ok(mut conn) = Conn::open_from(None, gateway) else { continue };
            let mut bytes = render(first, headers);
            bytes.extend_from_slice(body);
            let method = first.split(' ').next().unwrap_or_default();
            let answer = conn.try_send(bytes).and_then(|()| conn.try_response(method));
            return match answer {
                Ok(response) if response.complete => with_length(&response),
                Ok(_) => own_answer(&format!("{LOST_BY}: {gateway}"), "cut off"),
                Err(error) => own_answer(&format!("{LOST_BY}: {gateway}"), &error.to_string()),
            };
        }
        own_answer("x-nobody: there", "every gateway refused")
    }
}

fn render(first: &str, headers: &Headers) -> Vec<u8> {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{first}\r\n{lines}\r\n").into_bytes()
}

/// The answer as it goes to the client: whole, so it has a length whatever framing it came with.
fn with_length(response: &Response) -> Vec<u8> {
    let ours = ["connection", "content-length", "transfer-encoding"];
    let is_ours = |name: &str| ours.iter().any(|own| name.eq_ignore_ascii_case(own));
    let mut headers: Headers = response.headers.iter().filter(|(name, _)| !is_ours(name)).cloned().collect();
    headers.push(("Content-Length".to_owned(), response.body.len().to_string()));
    let mut bytes = render(&format!("HTTP/1.1 {} Relayed", response.status), &headers);
    bytes.extend_from_slice(&response.body);
    bytes
}

fn own_answer(marker: &str, why: &str) -> Vec<u8> {
    format!("HTTP/1.1 502 Bad Gateway\r\n{marker}\r\nContent-Length: {}\r\n\r\n{why}", why.len()).into_bytes()
}
