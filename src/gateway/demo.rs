//! `vertice-gateway demo`: the gateway together with a small service and the same life cycle that the sidecar uses.

use crate::accept::Drain;
use crate::config::Config;
use crate::server::{Gateway, StartError};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use vertice_client::{Registration, RegistrationConfig, RegistryUrls, ServiceName};

/// The demonstration's service.
const SERVICE: &str = "hello_service";
/// How long anything in the demonstration may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the demonstration failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The gateway did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Something of the demonstration's own could not be set up.
    #[error("failed to set up the demo: {0}")]
    Setup(String),
    /// `--once`: an answer was not as it should be.
    #[error("FAIL: {0}")]
    Wrong(String),
}

/// Runs the demonstration; with `once` it sends its own requests and ends.
///
/// # Errors
/// [`DemoError`].
pub fn run(mut config: Config, once: bool) -> Result<(), DemoError> {
    // Its lines would bury the ones to paste.
    config.log.access = crate::config::AccessLog::Off;
    // Long enough for the demo's own registration to be taken back when Ctrl-C comes.
    config.shutdown.delay = config.shutdown.delay.max(Duration::from_millis(300));
    let setup = |error: &dyn std::fmt::Display| DemoError::Setup(error.to_string());
    let token = match config.registry.token.first() {
        None => None,
        Some(crate::config::Token::Plain(secret)) => {
            Some(vertice_client::Token::parse(secret.expose()).map_err(|e| setup(&e))?)
        }
        Some(crate::config::Token::Sha256(_)) => {
            return Err(DemoError::Setup("the registry token is configured as a hash; the demo needs it in clear".into()));
        }
    };
    let gateway = Gateway::prepare(config, None)?;
    let addresses = gateway.addresses().clone();
    let (Some(data), Some(registry)) = (addresses.gateway.first(), addresses.registry.first()) else {
        return Err(DemoError::Setup("both listeners must be on".into()));
    };
    let (data, registry) = (reachable(*data), reachable(*registry));
    let hello = hello_service().map_err(|e| setup(&e))?;
    let registration = {
        let name = ServiceName::parse(SERVICE).map_err(|e| setup(&e))?;
        let urls = RegistryUrls::parse(&format!("http://{registry}")).map_err(|e| setup(&e))?;
        let mut wanted = RegistrationConfig::new(name, format!("http://{hello}"), urls);
        wanted.health_url = Some(format!("http://{hello}/health"));
        wanted.token = token;
        Registration::start(wanted, |step| tracing::info!("sidecar: {step}")).map_err(|e| setup(&e))?
    };
    let drain = gateway.drain();
    let visitor = std::thread::Builder::new().name("demo".into()).spawn(move || {
        let result = visit(&registration, data, registry, once);
        if once {
            registration.stop();
            drain.request();
        } else {
            wait_for(&drain);
            registration.stop();
        }
        result
    });
    let visitor = visitor.map_err(|e| setup(&e))?;
    gateway.run()?;
    visitor.join().unwrap_or_else(|_| Err(DemoError::Wrong("the demo's own thread panicked".into())))
}

/// Keeps the registration until the gateway drains.
fn wait_for(drain: &Arc<Drain>) {
    while !drain.is_draining() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn visit(registration: &Registration, data: SocketAddr, registry: SocketAddr, once: bool) -> Result<(), DemoError> {
    if !registration.wait_registered(PATIENCE) {
        return Err(DemoError::Wrong("the demo service did not register".into()));
    }
    let mut told = format!("\nVértice Gateway: data plane on http://{data}, registry on http://{registry}\n\n");
    for (address, path, expected) in [
        (data, "/v2/hello_service/", "Hello from hello_service"),
        (data, "/services", SERVICE),
        (data, "/gateway/health-check/hello_service", "\"healthy\":true"),
    ] {
        let body = get(address, path).map_err(|error| DemoError::Wrong(format!("GET {path}: {error}")))?;
        if !body.contains(expected) {
            return Err(DemoError::Wrong(format!("GET {path} answered {body:?}, which lacks {expected:?}")));
        }
        // Writing to a String cannot fail.
        let _ = writeln!(told, "$ curl http://{address}{path}\n{}\n", body.trim_end());
    }
    if once {
        let _ = writeln!(told, "PASS");
    } else {
        let _ = writeln!(told, "Paste the lines after the dollar signs; stop with Ctrl-C.");
    }
    println!("{told}");
    Ok(())
}

/// The address as a client on this host reaches it.
fn reachable(listener: SocketAddr) -> SocketAddr {
    match listener.ip().is_unspecified() {
        true => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), listener.port()),
        false => listener,
    }
}

/// Sends a request of its own and returns the body of a 200.
fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let fail = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(fail)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").map_err(fail)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(fail)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no complete head")?;
    if head.starts_with("HTTP/1.1 200") {
        Ok(body.to_owned())
    } else {
        Err(head.lines().next().unwrap_or("nothing").to_owned())
    }
}

/// A service that says hello, on a free port of the loopback interface.
fn hello_service() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name("hello".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // One thread a connection would do for a demo, but a fixed few answers a connection are simpler still.
            let spawned = std::thread::Builder::new().name("hello-conn".into()).spawn(move || drop(serve(stream)));
            if spawned.is_err() {
                tracing::warn!("the demo service has no thread left");
            }
        }
    })?;
    Ok(address)
}

fn serve(stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream.try_clone()?).take(u64::MAX);
    loop {
        reader.set_limit(16 * 1024);
        let (mut target, mut line) = (String::new(), String::new());
        let mut length = 0;
        while reader.read_line(&mut line)? > 0 && line.trim_end() != "" {
            if target.is_empty() {
                target = line.split(' ').nth(1).unwrap_or("/").to_owned();
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
            line.clear();
        }
        if target.is_empty() {
            return Ok(());
        }
        reader.set_limit(length);
        std::io::copy(&mut reader, &mut std::io::sink())?;
        answer(&stream, &target)?;
    }
}

fn answer(mut stream: &TcpStream, target: &str) -> std::io::Result<()> {
    let (kind, body) = if target.starts_with("/health") {
        ("application/json", format!("{{\"status\":\"healthy\",\"version\":\"{}\"}}\n", env!("CARGO_PKG_VERSION")))
    } else {
        ("text/plain; charset=utf-8", format!("Hello from {SERVICE}: you asked for {target}\n"))
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes())
}
