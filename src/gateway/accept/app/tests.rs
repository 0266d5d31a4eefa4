use super::*;
use crate::accept::head::{BodyLength, check};
use crate::accept::{BindError, BoundListener, Entrance, Workers, is_malformed_body, service};
use parking_lot::Mutex;
use pingora::ErrorSource;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, HttpProxy, ProxyHttp, Session, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::services::Service;
use pingora::upstreams::peer::HttpPeer;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use vertice_core::chunks::ChunkFraming;

/// Longer than anything here takes, short enough to see that it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

struct Proxy {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, (): &mut ()) -> pingora::Result<bool> {
        if session.req_header().uri.path() != "/local" {
            return Ok(false);
        }
        let mut header = ResponseHeader::build(200, None)?;
        header.insert_header("Content-Length", "5")?;
        session.write_response_header(Box::new(header), false).await?;
        session.write_response_body(Some(Bytes::from_static(b"local")), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &pingora::Error, (): &mut ()) -> FailToProxy {
        let code = if is_malformed_body(error) { 400 } else { 502 };
        if code == 400 || *error.esource() != ErrorSource::Downstream {
            let _ = session.respond_error(code).await;
        }
        FailToProxy { error_code: code, can_reuse_downstream: false }
    }
}

#[derive(Default)]
struct Observer {
    refused: Mutex<Vec<Reason>>,
}

impl AcceptObserver for Observer {
    fn refused_stream(&self, refusal: &Refusal, _client: Option<SocketAddr>) -> http::Response<Bytes> {
        self.refused.lock().push(refusal.reason);
        http::Response::new(Bytes::from(refusal.detail))
    }

    fn refused(&self, refusal: &Refusal, _client: Option<SocketAddr>) -> Bytes {
        self.refused.lock().push(refusal.reason);
        let (status, detail) = (refusal.reason.status(), refusal.detail);
        let length = detail.len();
        format!("HTTP/1.1 {status} Refused\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{detail}").into()
    }
}

/// An upstream that answers `METHOD target body`, and to `/held` only when it is released.
struct Upstream {
    address: SocketAddr,
    release: Arc<Semaphore>,
    /// Gets a permit when a client of `/held` has gone before its answer.
    abandoned: Arc<Semaphore>,
    /// Gets a permit when a request for `/held` has arrived.
    holding: Arc<Semaphore>,
}

impl Upstream {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let none = || Arc::new(Semaphore::new(0));
        let address = listener.local_addr().unwrap();
        let upstream = Arc::new(Self { address, release: none(), abandoned: none(), holding: none() });
        let shared = upstream.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(shared.clone().serve(stream));
            }
        });
        upstream
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        while let Some((line, body)) = read_request(&mut stream).await {
            if line.contains(" websocket") {
                stream.write_all(b"HTTP/1.1 101 OK\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await.unwrap();
                let (mut from, mut to) = stream.into_split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                return;
            }
            if line.contains("/held") {
                self.holding.add_permits(1);
                tokio::select! {
                    _ = stream.read_u8() => return self.abandoned.add_permits(1),
                    permit = self.release.acquire() => permit.unwrap().forget(),
                }
            }
            let text = format!("{line} {}", String::from_utf8_lossy(&body));
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

/// Method and target (and `websocket`), and the decoded body.
async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let head = loop {
        match check(&bytes, &HeadLimits::default()) {
            Verdict::Complete(head) => break head,
            Verdict::Refused(refusal) => panic!("sent upstream: {refusal:?}: {}", bytes.escape_ascii()),
            Verdict::NeedMore => {}
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let line = String::from_utf8_lossy(&bytes[..head.target.end]).into_owned();
    let line = if head.websocket { format!("{line} websocket") } else { line };
    let mut body = bytes.split_off(head.head_len);
    let mut framing = ChunkFraming::new();
    let mut followed = 0;
    loop {
        match head.body {
            BodyLength::None => break,
            BodyLength::Length(length) if body.len() as u64 == length => break,
            BodyLength::Length(_) => {}
            BodyLength::Chunked => {
                followed += framing.advance(&body[followed..]).unwrap();
                if framing.is_done() {
                    break;
                }
            }
        }
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    let text = String::from_utf8_lossy(&body);
    let decoded = match head.body {
        BodyLength::Chunked => text.split("\r\n").skip(1).step_by(2).collect::<String>().into_bytes(),
        _ => body,
    };
    Some((line, decoded))
}

struct Rig {
    app: Arc<AcceptApp<HttpProxy<Proxy>>>,
    observer: Arc<Observer>,
    upstream: Arc<Upstream>,
    drain: Arc<Drain>,
}

fn app(
    settings: AcceptSettings,
    upstream: SocketAddr,
    drain: Arc<Drain>,
    observer: Arc<Observer>,
) -> AcceptApp<HttpProxy<Proxy>> {
    let proxy = http_proxy(&Arc::new(ServerConf::default()), Proxy { upstream });
    AcceptApp::new(Arc::new(proxy), settings, drain, observer)
}

impl Rig {
    async fn start(settings: AcceptSettings) -> Self {
        let (drain, observer) = (Arc::new(Drain::default()), Arc::new(Observer::default()));
        let upstream = Upstream::start().await;
        let app = Arc::new(app(settings, upstream.address, drain.clone(), observer.clone()));
        Self { app, observer, upstream, drain }
    }

    fn connect(&self) -> Client<DuplexStream> {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let app = self.app.clone();
        tokio::spawn(async move {
            let (_keep, shutdown) = tokio::sync::watch::channel(false);
            app.process_new(Box::new(server), &shutdown).await
        });
        Client { stream: client, unread: Vec::new() }
    }
}

struct Client<S> {
    stream: S,
    unread: Vec<u8>,
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Client<S> {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Status, `Connection` and body of the next answer; none when the connection has ended instead.
    async fn answer(&mut self) -> Option<(u16, String, String)> {
        timeout(PATIENCE, self.read_answer()).await.expect("an answer in time")
    }

    async fn read_answer(&mut self) -> Option<(u16, String, String)> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; 16];
            let mut response = httparse::Response::new(&mut fields);
            if let httparse::Status::Complete(head_len) = response.parse(&self.unread).unwrap() {
                let field = |name: &str| {
                    let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
                    found.map(|field| String::from_utf8_lossy(field.value).into_owned()).unwrap_or_default()
                };
                let end = head_len + field("content-length").parse().unwrap_or(0);
                if self.unread.len() >= end {
                    let (status, connection) = (response.code.unwrap(), field("connection"));
                    let body = String::from_utf8_lossy(&self.unread[head_len..end]).into_owned();
                    self.unread.drain(..end);
                    return Some((status, connection, body));
                }
            }
            if self.stream.read_buf(&mut self.unread).await.ok()? == 0 {
                assert!(self.unread.is_empty(), "half an answer: {}", self.unread.escape_ascii());
                return None;
            }
        }
    }

    async fn body(&mut self) -> String {
        let (status, _, body) = self.answer().await.expect("an answer");
        assert_eq!(status, 200, "{body}");
        body
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn post(target: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn post_chunked(target: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n")
}

#[tokio::test]
async fn a_request_may_be_cut_anywhere() {
    let rig = Rig::start(AcceptSettings::default()).await;
    let mut client = rig.connect();
    for request in [post("/p", "hello"), post_chunked("/p", "hello")] {
        for cut in 1..request.len() {
            client.send(&request[..cut]).await;
            tokio::task::yield_now().await;
            client.send(&request[cut..]).await;
            assert_eq!(client.body().await, "POST /p hello", "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let rig = Rig::start(AcceptSettings::default()).await;
    let mut client = rig.connect();
    let requests = [get("/a"), post("/b", "one"), post_chunked("/c", "two"), get("http://x/d?e"), post_chunked("/f", "three")];
    client.send(requests.concat()).await;
    for expected in ["GET /a ", "POST /b one", "POST /c two", "GET /d?e ", "POST /f three"] {
        assert_eq!(client.body().await, expected);
    }
}

#[tokio::test]
async fn a_request_may_arrive_while_the_last_answer_is_pending() {
    let rig = Rig::start(AcceptSettings::default()).await;
    let mut client = rig.connect();
    client.send(get("/held")).await;
    rig.upstream.holding.acquire().await.unwrap().forget();
    let next = [post("/next", "body"), get("/last")].concat();
    let (first, rest) = next.split_at(20);
    client.send(first).await;
    tokio::task::yield_now().await;
    client.send(rest).await;
    rig.upstream.release.add_permits(1);
    for expected in ["GET /held ", "POST /next body", "GET /last "] {
        assert_eq!(client.body().await, expected);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_request_upstream() {
    let rig = Rig::start(AcceptSettings::default()).await;
    let mut client = rig.connect();
    client.send(get("/held")).await;
    rig.upstream.holding.acquire().await.unwrap().forget();
    drop(client);
    timeout(PATIENCE, rig.upstream.abandoned.acquire()).await.expect("upstream sees the end").unwrap().forget();
    assert!(rig.drain.drained(Instant::now() + PATIENCE).await);
}

#[tokio::test]
async fn an_upgraded_connection_carries_anything_both_ways() {
    let rig = Rig::start(AcceptSettings::default()).await;
    let mut client = rig.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().0, 101);
    let message = b"GET / HTTP/1.1\r\n\r\n\0\xff".repeat(1000);
    client.send(&message).await;
    let mut echo = vec![0; message.len()];
    timeout(PATIENCE, client.stream.read_exact(&mut echo)).await.unwrap().unwrap();
    assert!(echo == message);
}

#[tokio::test]
async fn a_refused_request_ends_its_connection_and_reaches_nobody() {
    let rig = Rig::start(AcceptSettings::default()).await;
    let mut client = rig.connect();
    let smuggled = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    client.send([get("/ok"), smuggled.into(), get("/never")].concat()).await;
    assert_eq!(client.body().await, "GET /ok ");
    let (status, connection, _) = client.answer().await.unwrap();
    assert_eq!((status, connection.as_str()), (400, "close"));
    assert_eq!(client.answer().await, None);
    assert_eq!(*rig.observer.refused.lock(), [Reason::BadRequest]);
}

#[tokio::test]
async fn a_malformed_chunk_is_the_clients_mistake_and_ends_the_connection() {
    let rig = Rig::start(AcceptSettings::default()).await;
    let mut client = rig.connect();
    client.send("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n").await;
    assert_eq!(client.answer().await.unwrap().0, 400);
    assert_eq!(client.answer().await, None);
}

#[tokio::test]
async fn a_slow_head_is_answered_408_and_silence_with_silence() {
    let short = Duration::from_millis(30);
    let settings = AcceptSettings { head_deadline: short, idle_keepalive: short, ..AcceptSettings::default() };
    let rig = Rig::start(settings).await;
    let mut slow = rig.connect();
    slow.send("GET / HTTP/1.1\r\nHo").await;
    assert_eq!(slow.answer().await.unwrap().0, 408);
    assert_eq!(slow.answer().await, None);

    let mut silent = rig.connect();
    assert_eq!(silent.answer().await, None);
    silent = rig.connect();
    silent.send(get("/a")).await;
    assert_eq!(silent.body().await, "GET /a ");
    assert_eq!(silent.answer().await, None);
    assert_eq!(*rig.observer.refused.lock(), [Reason::RequestTimeout]);
}

#[tokio::test]
async fn a_connection_over_the_limit_is_told_so() {
    let rig = Rig::start(AcceptSettings { connections_max: 1, ..AcceptSettings::default() }).await;
    let mut first = rig.connect();
    first.send(get("/a")).await;
    assert_eq!(first.body().await, "GET /a ");
    assert_eq!(rig.connect().answer().await.unwrap().0, 503);
    first.send(get("/b")).await;
    assert_eq!(first.body().await, "GET /b ", "the first one is not disturbed");
    drop(first);
    assert!(rig.drain.drained(Instant::now() + PATIENCE).await);
    let mut next = rig.connect();
    next.send(get("/c")).await;
    assert_eq!(next.body().await, "GET /c ");
}

#[tokio::test]
async fn draining_closes_idle_connections_and_finishes_what_is_in_flight() {
    let rig = Rig::start(AcceptSettings::default()).await;
    let (mut kept, mut busy, mut fresh) = (rig.connect(), rig.connect(), rig.connect());
    kept.send(get("/a")).await;
    assert_eq!(kept.body().await, "GET /a ");
    busy.send(get("/held")).await;
    rig.upstream.holding.acquire().await.unwrap().forget();

    rig.drain.begin();
    assert_eq!(kept.answer().await, None);
    assert_eq!(rig.drain.in_flight(), 1);
    fresh.send(get("/b")).await;
    let (status, connection, _) = fresh.answer().await.unwrap();
    assert_eq!((status, connection.as_str()), (200, "close"), "we listen still, so a new connection is served");

    let (mut about_to_ask, mut unused) = (rig.connect(), rig.connect());
    while rig.drain.connections() < 3 {
        tokio::task::yield_now().await;
    }
    rig.drain.stop_listening();
    tokio::task::yield_now().await;
    about_to_ask.send(get("/c")).await;
    assert_eq!(about_to_ask.body().await, "GET /c ", "it had connected while we listened");
    rig.upstream.release.add_permits(1);
    assert_eq!(busy.body().await, "GET /held ");
    assert_eq!(busy.answer().await, None);
    assert_eq!(unused.answer().await, None, "an unused connection closes soon after");
    assert!(rig.drain.drained(Instant::now() + PATIENCE).await);
    assert_eq!(rig.drain.in_flight(), 0);
}

/// Real sockets, because only they reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_survives_the_body_that_nobody_read() {
    let (_workers, address) = listen(AcceptSettings::default()).await;
    let mut client = Client { stream: TcpStream::connect(address).await.unwrap(), unread: Vec::new() };
    client.send("POST /local HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n").await;
    let (status, connection, body) = client.answer().await.unwrap();
    assert_eq!((status, connection.as_str(), body.as_str()), (200, "close", "local"));
    // A client that looks for the answer only after its body must find a live connection until then.
    client.stream.write_all(&[b'x'; 1_000_000]).await.expect("the body is still taken");
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.stream.read(&mut [0]).await.expect("an orderly end"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_knows_its_port_refuses_a_taken_one_and_closes_on_demand() {
    let listener = BoundListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr();
    let taken = BoundListener::bind(address).unwrap_err();
    assert!(matches!(taken, BindError::InUse(at) if at == address), "{taken}");
    assert!(taken.to_string().contains(&address.to_string()));

    // Before anyone accepts, clients wait instead of being refused.
    let mut early = Client { stream: TcpStream::connect(address).await.unwrap(), unread: Vec::new() };
    early.send(get("/local")).await;
    let (drain, observer) = (Arc::new(Drain::default()), Arc::new(Observer::default()));
    let app = app(AcceptSettings::default(), address, drain.clone(), observer);
    let workers = Workers::start("test", 2).unwrap();
    let app = Arc::new(app);
    let entrance = Entrance { listeners: vec![listener], apps: vec![app.clone(), app] };
    let mut service = service("test", &workers, vec![entrance], drain.clone());
    let (_keep, shutdown) = tokio::sync::watch::channel(false);
    let accepting = tokio::spawn(async move { service.start_service(None, shutdown, 1).await });
    assert_eq!(early.body().await, "local");

    drain.stop_listening();
    timeout(PATIENCE, accepting).await.expect("the service ends").unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
    assert_eq!(early.answer().await, None);
    assert!(drain.drained(Instant::now() + PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_to_be_accepted_when_the_listener_closes_is_served() {
    let listener = BoundListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr();
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(Client { stream: TcpStream::connect(address).await.unwrap(), unread: Vec::new() });
    }
    waiting[0].send(get("/local")).await;

    let drain = Arc::new(Drain::default());
    drain.stop_listening();
    let app = app(AcceptSettings::default(), address, drain.clone(), Arc::default());
    let workers = Workers::start("test", 2).unwrap();
    let app = Arc::new(app);
    let entrance = Entrance { listeners: vec![listener], apps: vec![app.clone(), app] };
    let mut service = service("test", &workers, vec![entrance], drain.clone());
    let (_keep, shutdown) = tokio::sync::watch::channel(false);
    let accepting = tokio::spawn(async move { service.start_service(None, shutdown, 1).await });
    waiting[1].send(get("/local")).await;
    for client in &mut waiting[..2] {
        assert_eq!(client.body().await, "local");
    }
    timeout(PATIENCE, accepting).await.expect("the service ends").unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
    assert!(drain.drained(Instant::now() + PATIENCE).await);
}

async fn listen(settings: AcceptSettings) -> (Workers, SocketAddr) {
    let listener = BoundListener::bind("[::]:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let drain = Arc::<Drain>::default();
    let app = app(settings, address, drain.clone(), Arc::default());
    let workers = Workers::start("test", 2).unwrap();
    let app = Arc::new(app);
    let entrance = Entrance { listeners: vec![listener], apps: vec![app.clone(), app] };
    let mut service = service("test", &workers, vec![entrance], drain.clone());
    tokio::spawn(async move {
        let (_keep, shutdown) = tokio::sync::watch::channel(false);
        service.start_service(None, shutdown, 1).await;
    });
    (workers, address)
}

/// The promise of `head::check` about targets, held against the type that Pingora sends upstream.
#[test]
fn what_is_accepted_as_a_target_is_kept_by_pingora() {
    for byte in 0..=u8::MAX {
        for target in [[b"/p", &[byte][..], b"x"].concat(), [b"/p?q", &[byte][..], b"x"].concat()] {
            let request = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
            let accepted = matches!(check(&request, &HeadLimits::default()), Verdict::Complete(_));
            let kept = RequestHeader::build("GET", &target, None).is_ok_and(|header| header.raw_path() == target);
            if byte.is_ascii_graphic() {
                assert_eq!(accepted, kept, "{}", target.escape_ascii());
            } else {
                assert!(!accepted, "{}", target.escape_ascii());
            }
        }
    }
}
