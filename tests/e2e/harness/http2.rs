//! HTTP/2 without TLS, both sides: a client that sees resets and trailers, and a scripted service.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{PATIENCE, net};

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A client's connection.
pub(crate) struct Http2 {
    runtime: Runtime,
    send: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
    authority: String,
}

impl Http2 {
    #[track_caller]
    pub(crate) fn open(target: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (send, connection) = runtime.block_on(async {
            let (send, connection) = h2::client::handshake(TcpStream::connect(target).await.unwrap()).await.unwrap();
            (send, tokio::spawn(connection))
        });
        Self { runtime, send, connection, authority: target.to_string() }
    }

    /// A request for a path here.
    pub(crate) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://{}{path}", self.authority))
    }

    /// Begins a request; its body goes into what is returned.
    #[track_caller]
    pub(crate) fn begin(&mut self, request: Request<()>, is_complete: bool) -> (ResponseFuture, SendStream<Bytes>) {
        self.try_begin(request, is_complete).unwrap()
    }

    pub(crate) fn try_begin(
        &mut self,
        request: Request<()>,
        is_complete: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.runtime.block_on(async {
            let mut ready = timeout(PATIENCE, self.send.clone().ready()).await.expect("room for a request")?;
            ready.send_request(request, is_complete)
        })
    }

    /// Whether the other side has not said that it takes no more requests.
    pub(crate) fn may_begin(&self) -> bool {
        self.runtime.block_on(async { timeout(PATIENCE, self.send.clone().ready()).await.is_ok_and(|ready| ready.is_ok()) })
    }

    /// Sends a request with a body and waits for its answer.
    pub(crate) fn ask(&mut self, request: Request<Vec<u8>>) -> Result<Answer, h2::Error> {
        let (parts, body) = request.into_parts();
        let (answer, mut stream) = self.try_begin(Request::from_parts(parts, ()), body.is_empty())?;
        if !body.is_empty() {
            // Who is answered before that need not send it any more.
            stream.send_data(body.into(), true).ok();
        }
        self.answer(answer)
    }

    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        let request = self.request("GET", path).body(Vec::new()).unwrap();
        self.ask(request).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Waits for an answer to its end.
    pub(crate) fn answer(&self, answer: ResponseFuture) -> Result<Answer, h2::Error> {
        self.runtime.block_on(async { timeout(PATIENCE, whole(answer)).await.expect("an answer in time") })
    }

    /// Waits for the connection to end, and tells why.
    pub(crate) fn end(mut self) -> Result<(), h2::Error> {
        let ended = self.runtime.block_on(async { timeout(PATIENCE, &mut self.connection).await });
        ended.expect("the connection ends").unwrap()
    }
}

async fn whole(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    let (parts, mut stream) = answer.await?.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?;
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
}

/// What a scripted service does with a request.
type Handler = Arc<dyn Fn(Request<RecvStream>, SendResponse<Bytes>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A scripted service that speaks nothing but HTTP/2.
pub(crate) struct Http2Upstream {
    pub(crate) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Http2Upstream {
    pub(crate) fn start<F>(handler: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let handler: Handler = Arc::new(move |request, respond| Box::pin(handler(request, respond)));
        let connections = Arc::<AtomicUsize>::default();
        let listener = runtime.block_on(TcpListener::bind((net::loopback(), 0))).unwrap();
        let addr = listener.local_addr().unwrap();
        let counted = connections.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, handler.clone()));
            }
        });
        Self { addr, connections, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(stream: TcpStream, handler: Handler) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(handler(request, respond));
    }
}

/// Answers with the request's head and body, and trailers.
pub(crate) async fn echo(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let (parts, mut stream) = request.into_parts();
    let mut text = format!("{} {}\n", parts.method, parts.uri).into_bytes();
    for (name, value) in &parts.headers {
        text.extend_from_slice(format!("{name}: {}\n", value.to_str().unwrap()).as_bytes());
    }
    text.push(b'\n');
    while let Some(Ok(data)) = stream.data().await {
        stream.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    if let Ok(Some(trailers)) = stream.trailers().await {
        text.extend_from_slice(format!("{trailers:?}").as_bytes());
    }
    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
    body.send_data(text.into(), false).unwrap();
    let trailers = HeaderMap::from_iter([("x-trailer".parse().unwrap(), "the end".parse().unwrap())]);
    body.send_trailers(trailers).unwrap();
}

/// Waits until the other side takes the request back, and tells the code.
pub(crate) async fn taken_back(respond: &mut SendResponse<Bytes>) -> Option<h2::Reason> {
    let reset = std::future::poll_fn(|cx| respond.poll_reset(cx));
    timeout(PATIENCE + Duration::from_secs(10), reset).await.ok()?.ok()
}
