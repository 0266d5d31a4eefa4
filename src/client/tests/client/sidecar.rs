//! What an operator sees of the sidecar.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::harness::{Reply, Server, Sidecar, healthy, registry_answer, run_sidecar};

const FAST: [(&str, &str); 2] = [("HEARTBEAT_INTERVAL", "200ms"), ("INITIAL_WAIT_TIMEOUT", "60")];

#[test]
fn registers_within_a_second_of_the_first_200() {
    // The service answers 503 twice before it is ready.
    let service = Server::start(|number, _| if number < 2 { Reply::Json(503, String::new()) } else { healthy() });
    let registry = Server::registry();
    let more = [("VERTICE_REGISTRY_TOKEN", "t0ken"), ("SERVICE_TAGS", "a,b"), ("ZONE", "z1"), ("SERVICE_WEIGHT", "7")];
    let mut sidecar = Sidecar::start(service.address, &registry.url(), &more);

    let register = registry.next();
    let probes = [service.next(), service.next(), service.next()];
    assert_eq!(probes[2].line(), "GET /health");
    let delay = register.at - probes[2].at;
    assert!(delay < Duration::from_secs(1), "registered {delay:?} after the first 200");

    assert_eq!(register.line(), "POST /register");
    assert_eq!(register.header("x-registry-token"), Some("t0ken"));
    assert_eq!(register.header("content-type"), Some("application/json"));
    let port = service.address.port();
    assert_eq!(
        register.json(),
        json!({
            "service_name": "osint_service", "endpoint": format!("http://127.0.0.1:{port}"), "health_endpoint": "/health",
            "metadata": {"status": "healthy", "version": "1.2.3"}, "instance_id": format!("127.0.0.1:{port}"),
            "weight": 7, "zone": "z1", "version": "1.2.3", "tags": ["a", "b"], "status": "healthy",
        })
    );

    let mut lines = Vec::new();
    for text in [
        "Waiting for service to be ready (max 60s)",
        "Service is READY (responded with 200 OK after 3 attempts)",
        "Starting registration process",
        "Service registered successfully",
        "Starting heartbeat loop (interval: 30s)",
    ] {
        lines.push(sidecar.wait_line(text));
    }
    for line in lines {
        let (time, message) = line.split_once(" INFO ").unwrap();
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{line}");
        assert!(message.starts_with(['W', 'S']), "{line}");
    }
}

#[test]
fn registers_anyway_after_the_wait_and_reports_when_it_is_ready() {
    let service = Server::start(|_, _| Reply::Json(503, String::new()));
    let registry = Server::registry();
    let mut sidecar = Sidecar::start(service.address, &registry.url(), &[("INITIAL_WAIT_TIMEOUT", "500ms")]);
    let register = registry.next().json();
    assert_eq!((&register["status"], &register["version"]), (&json!("starting"), &json!("unknown")));
    let line = sidecar.wait_line("not ready after 0.5s");
    assert!(line.contains(" WARN "), "{line}");
    sidecar.wait_line("Service registered successfully");

    service.follow(|_, _| healthy());
    // It had no version before: that takes a registration.
    let register = registry.next_where(|request| request.target == "/register").json();
    assert_eq!((&register["status"], &register["version"]), (&json!("healthy"), &json!("1.2.3")));
}

#[test]
fn retries_until_the_registry_accepts() {
    let service = Server::service();
    let registry = Server::start(|number, request| match number {
        0 => Reply::Json(500, r#"{"detail":"Redis is away"}"#.into()),
        1 => Reply::Json(422, r#"{"detail":"1 field"}"#.into()),
        _ => registry_answer(request, 60),
    });
    let mut sidecar = Sidecar::start(service.address, &registry.url(), &[]);
    let line = sidecar.wait_line("Registration failed");
    assert!(line.contains("answered 500: Redis is away"), "{line}");
    assert!(sidecar.wait_line("Retrying registration in").ends_with("Retrying registration in 1 seconds"));
    assert!(sidecar.wait_line("Retrying registration in").ends_with("Retrying registration in 2 seconds"));
    sidecar.wait_line("Service registered successfully");
    let (first, second, third) = (registry.next(), registry.next(), registry.next());
    let (one, two) = (second.at - first.at, third.at - second.at);
    assert!(one >= Duration::from_millis(500) && one < Duration::from_secs(2), "{one:?}");
    assert!(two >= Duration::from_millis(1000) && two < Duration::from_secs(4), "{two:?}");
}

#[test]
fn registers_again_when_the_registry_has_forgotten_it() {
    let service = Server::service();
    let registry = Server::start(|number, request| match number {
        2 => Reply::Json(404, r#"{"detail":"Service 'osint_service' not registered"}"#.into()),
        _ => registry_answer(request, 60),
    });
    let mut sidecar = Sidecar::start(service.address, &registry.url(), &FAST);
    let requests: Vec<_> = (0..5).map(|_| registry.next()).collect();
    let lines: Vec<_> = requests.iter().map(|request| request.line()).collect();
    assert_eq!(lines, ["POST /register", "POST /heartbeat", "POST /heartbeat", "POST /register", "POST /heartbeat"]);
    let at_once = requests[3].at - requests[2].at;
    assert!(at_once < Duration::from_millis(500), "{at_once:?}");
    let port = service.address.port();
    assert_eq!(
        requests[1].json(),
        json!({"service_name": "osint_service", "instance_id": format!("127.0.0.1:{port}"), "status": "healthy"})
    );
    sidecar.wait_line("registering again");
}

#[test]
fn takes_the_registration_back_on_sigterm_and_sigint() {
    for signal in ["TERM", "INT"] {
        let (service, registry) = (Server::service(), Server::registry());
        let mut sidecar = Sidecar::start(service.address, &registry.url(), &[("REGISTRY_AUTH_TOKEN", "t0ken")]);
        sidecar.wait_line("Starting heartbeat loop");
        let (code, took, log) = sidecar.end(signal);
        assert_eq!(code, Some(0), "{log:#?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(log.last().unwrap().ends_with("Service deregistered"), "{log:#?}");
        let request = registry.next_where(|request| request.method == "DELETE");
        let port = service.address.port();
        assert_eq!(request.target, format!("/deregister/osint_service?instance_id=127.0.0.1:{port}"));
        assert_eq!(request.header("x-registry-token"), Some("t0ken"));
    }
}

#[test]
fn ends_quickly_whatever_it_is_doing() {
    let hang = || Server::start(|_, _| Reply::Stall(Vec::new()));
    // A registration that hangs.
    let (service, registry) = (Server::service(), hang());
    let mut sidecar = Sidecar::start(service.address, &registry.url(), &[]);
    assert_eq!(registry.next().line(), "POST /register");
    assert!(sidecar.is_running());
    let (code, took, log) = sidecar.end("TERM");
    assert_eq!(code, Some(0), "{log:#?}");
    assert!(took < Duration::from_millis(2500), "{took:?}");
    assert!(registry.next().line().starts_with("DELETE /deregister/osint_service"));

    // A heartbeat that hangs, while the farewell works.
    let registry = Server::start(|_, request| match request {
        Some(request) if request.target == "/heartbeat" => Reply::Stall(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
        _ => registry_answer(request, 60),
    });
    let sidecar = Sidecar::start(service.address, &registry.url(), &FAST);
    registry.next_where(|request| request.target == "/heartbeat");
    let (code, took, log) = sidecar.end("TERM");
    assert_eq!(code, Some(0), "{log:#?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(log.last().unwrap().ends_with("Service deregistered"), "{log:#?}");

    // A probe that hangs, nothing registered yet.
    let (service, registry) = (hang(), Server::registry());
    let sidecar = Sidecar::start(service.address, &registry.url(), &[]);
    service.next();
    let (code, took, log) = sidecar.end("TERM");
    assert_eq!(code, Some(0), "{log:#?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(log.last().unwrap().ends_with("Shutting down"), "{log:#?}");
}

#[test]
fn keeps_running_whatever_the_registry_answers() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\nConnection: close\r\n\r\n";
    let replies = vec![
        Reply::Json(500, "{".into()),
        Reply::Raw(b"\x16\x03\x01\x00\xff garbage\r\n\r\n".to_vec()),
        Reply::Reset,
        Reply::Raw(Vec::new()),
        Reply::Json(200, "<html>hello</html>".into()),
        Reply::Json(200, "[".repeat(50_000)),
        Reply::Raw(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(200_000)).into_bytes()),
        Reply::Raw([head.as_bytes(), &vec![b' '; 200_000]].concat()),
        Reply::Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\n".to_vec()),
        Reply::Raw(b"HTTP/1.1 302 Found\r\nLocation: /register\r\nContent-Length: 0\r\n\r\n".to_vec()),
        Reply::Json(401, r#"{"detail":"Invalid registry token"}"#.into()),
        Reply::Json(429, r#"{"detail":["odd"]}"#.into()),
    ];
    let count = replies.len();
    let service = Server::service();
    // The registration works; then every heartbeat gets another answer, and after them all is well again.
    let registry = Server::start(move |number, request| match number.checked_sub(1).and_then(|n| replies.get(n)) {
        Some(reply) => reply.clone(),
        None => registry_answer(request, 3600),
    });
    let mut sidecar = Sidecar::start(service.address, &registry.url(), &FAST);
    for _ in 0..count {
        let line = sidecar.wait_line("Heartbeat failed");
        assert!(!line.contains('\u{fffd}') && line.len() < 1500, "{line}");
    }
    sidecar.wait_line("Heartbeats work again");
    assert_eq!(sidecar.end("TERM").0, Some(0));
}

#[test]
fn keeps_running_whatever_the_service_answers() {
    let json = |body: &str| Reply::Json(200, body.to_owned());
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n{\"version\":\"9\",\"x\":\"".as_slice(), &vec![b'x'; 1_000_000]].concat();
    let replies = vec![
        Reply::Raw(b"\x00\x01\x02\r\n\r\n".to_vec()),
        Reply::Reset,
        Reply::Raw(Vec::new()),
        Reply::Raw(b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_vec()),
        Reply::Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{".to_vec()),
        Reply::Raw(endless),
        json(&"[".repeat(60_000)),
        json(r#"{"status":["x"],"version":{"a":1}}"#),
        json(r#"{"status":"degraded","version":"2.0.0\r\nX: y"}"#),
    ];
    let count = replies.len();
    let service = Server::start(move |number, _| replies.get(number.min(count - 1)).unwrap().clone());
    let registry = Server::registry();
    let sidecar = Sidecar::start(service.address, &registry.url(), &FAST);
    let last = registry.next_where(|request| request.target == "/register" && request.json()["version"] != "unknown");
    assert_eq!(last.json()["version"], "2.0.0X: y");
    assert_eq!(last.json()["status"], "degraded");
    assert_eq!(sidecar.end("TERM").0, Some(0));
}

/// A service that is well exactly as long as the flag says so.
fn switched() -> (Server, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&well);
    let service =
        Server::start(move |_, _| if flag.load(Ordering::SeqCst) { healthy() } else { Reply::Json(503, "{}".into()) });
    (service, well)
}

#[test]
fn gate_report_tells_the_registry() {
    let (service, well) = switched();
    let registry = Server::registry();
    let mut sidecar = Sidecar::start(service.address, &registry.url(), &FAST);
    sidecar.wait_line("Starting heartbeat loop");
    well.store(false, Ordering::SeqCst);
    let heartbeat = registry.next_where(|request| request.target == "/heartbeat" && request.json()["status"] == "unhealthy");
    assert_eq!(heartbeat.json()["metadata"], json!({"status": "unhealthy", "version": "1.2.3"}));
    sidecar.wait_line("Service status changed from healthy to unhealthy");
    well.store(true, Ordering::SeqCst);
    registry.next_where(|request| request.target == "/heartbeat" && request.json()["status"] == "healthy");
    sidecar.wait_line("Service status changed from unhealthy to healthy");
}

#[test]
fn a_changed_health_does_not_wait_for_the_next_heartbeat() {
    let (service, well) = switched();
    let registry = Server::registry();
    let mut sidecar = Sidecar::start(service.address, &registry.url(), &[("HEARTBEAT_INTERVAL", "3600")]);
    sidecar.wait_line("Starting heartbeat loop (interval: 3600s)");
    well.store(false, Ordering::SeqCst);
    registry.next_where(|request| request.target == "/heartbeat" && request.json()["status"] == "unhealthy");
}

#[test]
fn gate_strict_lets_the_lease_lapse() {
    let (service, well) = switched();
    let registry = Server::start(|_, request| registry_answer(request, 5));
    let gate = [FAST[0], ("SIDECAR_HEALTH_GATE", "strict")];
    let mut sidecar = Sidecar::start(service.address, &registry.url(), &gate);
    sidecar.wait_line("Starting heartbeat loop");
    well.store(false, Ordering::SeqCst);
    sidecar.wait_line("no heartbeats until it recovers");
    drop(registry.drain(|| true));
    // Ten more probes, during which two seconds of heartbeats would have been due.
    drop(service.drain(|| true));
    let mut probes = 0;
    let silent = registry.drain(|| {
        probes += service.drain(|| true).len();
        probes >= 10
    });
    assert!(silent.is_empty(), "{silent:?}");
    well.store(true, Ordering::SeqCst);
    sidecar.wait_line("Service recovered");
    let first = registry.next().json();
    assert_eq!(first["status"], "healthy");
}

#[test]
fn fails_over_to_the_next_registry_and_stays_there() {
    let service = Server::service();
    let (first, second) = (Server::registry(), Server::registry());
    let urls = format!("{},{}/", first.url(), second.url());
    let mut sidecar = Sidecar::start(service.address, &urls, &FAST);
    sidecar.wait_line("Starting heartbeat loop");
    assert_eq!(first.next().line(), "POST /register");
    first.next_where(|request| request.target == "/heartbeat");

    // The first one starts to fail; the second knows nothing of the lease.
    first.follow(|_, _| Reply::Reset);
    second.follow(|_, request| match request {
        Some(request) if request.target == "/heartbeat" => {
            Reply::Json(404, r#"{"detail":"Service 'osint_service' not registered"}"#.into())
        }
        _ => registry_answer(request, 60),
    });
    assert_eq!(second.next().line(), "POST /heartbeat");
    assert_eq!(second.next().line(), "POST /register");
    second.follow(|_, request| registry_answer(request, 60));

    // Sticks to the second, though the first is back.
    first.follow(|_, request| registry_answer(request, 60));
    second.next_where(|request| request.target == "/heartbeat");
    drop(first.drain(|| true));
    for _ in 0..3 {
        second.next_where(|request| request.target == "/heartbeat");
    }
    let (code, _, log) = sidecar.end("TERM");
    assert_eq!(code, Some(0), "{log:#?}");
    second.next_where(|request| request.method == "DELETE");
    assert!(first.drain(|| true).is_empty(), "the first registry was asked again");
}

#[test]
fn every_mistake_in_the_environment_is_told_at_once() {
    let output = run_sidecar(
        &[],
        &[
            ("SERVICE_NAME", "Osint"),
            ("SERVICE_PORT", "tcp://10.0.0.1:80"),
            ("REGISTRY_URL", "a:1"),
            ("HEARTBEAT_INTERVAL", "often"),
        ],
    );
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    for name in ["SERVICE_NAME", "SERVICE_HOST", "SERVICE_PORT", "REGISTRY_URL", "HEARTBEAT_INTERVAL"] {
        assert_eq!(text.matches(&format!("\n  {name} ")).count(), 1, "{name}: {text}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn its_health_is_that_the_registry_lists_it() {
    let flat = r#"{"service_name":"osint_service","endpoint":"http://osint:8049","health_endpoint":"/health","metadata":{},
        "registered_at":1.5,"last_heartbeat":2.5,"ttl_remaining":60"#;
    let instance = |id: &str| {
        format!(
            r#"{flat},"instances":[{{"instance_id":"{id}","endpoint":"http://osint:8049","health_endpoint":"/health",
            "metadata":{{}},"weight":1,"status":"healthy","breaker":"closed","registered_at":1.5,"last_heartbeat":2.5,
            "ttl_remaining":60}}],"index":1}}"#
        )
    };
    for (status, body, code, says) in [
        (200, instance("osint:8049"), 0, "osint_service is registered as osint:8049"),
        // As the predecessor answers.
        (200, format!("{flat}}}"), 0, "osint_service is registered as osint:8049"),
        (200, instance("osint-2:8049"), 1, "not its instance osint:8049"),
        (404, String::new(), 1, "osint_service is not registered"),
        (500, r#"{"detail":"Redis is away"}"#.to_owned(), 1, "Redis is away"),
    ] {
        let registry = Server::start(move |_, _| Reply::Json(status, body.clone()));
        let url = registry.url();
        let variables =
            [("SERVICE_NAME", "osint_service"), ("SERVICE_HOST", "osint"), ("SERVICE_PORT", "8049"), ("REGISTRY_URL", &url)];
        let output = run_sidecar(&["healthcheck"], &variables);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(says), "{says}: {text}");
        assert_eq!(registry.next().line(), "GET /services/osint_service");
    }
    assert_eq!(run_sidecar(&["healthcheck"], &[]).status.code(), Some(78));
}

#[test]
fn help_version_and_usage() {
    let help = run_sidecar(&["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("INITIAL_WAIT_TIMEOUT") && text.contains("SIDECAR_HEALTH_GATE"), "{text}");
    let version = run_sidecar(&["--version"], &[]);
    assert_eq!(String::from_utf8(version.stdout).unwrap(), format!("vertice-sidecar {}\n", env!("CARGO_PKG_VERSION")));
    let odd = run_sidecar(&["--verbose"], &[]);
    assert_eq!(odd.status.code(), Some(2));
    assert!(String::from_utf8(odd.stderr).unwrap().contains("--verbose"));
}

#[test]
fn stays_small() {
    let (service, registry) = (Server::service(), Server::registry());
    let mut sidecar = Sidecar::start(service.address, &registry.url(), &[("HEARTBEAT_INTERVAL", "100ms")]);
    sidecar.wait_line("Starting heartbeat loop");
    for _ in 0..20 {
        registry.next_where(|request| request.target == "/heartbeat");
    }
    let (resident, ticks) = (sidecar.resident_kib(), sidecar.cpu_ticks());
    println!("sidecar after 20 heartbeats: {resident} KiB resident, {ticks} ticks (10 ms) of processor time");
    // An unoptimised binary is twice as large; the promise is about the released one.
    let most = if cfg!(debug_assertions) { 10 * 1024 } else { 5 * 1024 };
    assert!(resident < most, "{resident} KiB");
    assert!(ticks < 50, "{ticks} ticks for 20 heartbeats");
}
