//! The process: start, signals, configuration, logs (SPEC §12).

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::gateway::PROGRAM;
use crate::harness::process::{Finished, run};
use crate::harness::scripts::{gated, script, text};
use crate::harness::{After, Conn, Gate, Gateway, PATIENCE, Upstream, eventually, get, head, now, post};

/// Runs the program to its end with these arguments and variables.
fn finished(arguments: &[&str], env: &[(&str, &str)]) -> Finished {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    run(command, &env, PATIENCE)
}

/// Checks a configuration file.
fn checked(toml: &str, env: &[(&str, &str)]) -> Finished {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vertice.toml");
    std::fs::write(&path, toml).unwrap();
    finished(&["check", "--config", path.to_str().unwrap()], env)
}

#[test]
fn sigterm_ends_an_idle_gateway_fast_with_0() {
    for signal in ["TERM", "INT"] {
        let mut gateway = Gateway::start();
        let upstream = Upstream::start(text("ok"));
        gateway.register("svc", &upstream);
        gateway.data(get("/v2/svc/x")).expect(200);
        let mut idle = Conn::open(gateway.gateway);
        idle.ask(&get("/v2/svc/x")).expect(200);
        let start = now();
        gateway.process.signal(signal);
        let status = gateway.process.exit_within(PATIENCE);
        assert_eq!(status.code(), Some(0), "{signal}");
        assert!(start.elapsed() < Duration::from_secs(4), "{signal}: {:?}", start.elapsed());
        assert!(idle.closes_within(PATIENCE));
    }
}

#[test]
fn a_request_under_way_finishes_during_the_drain() {
    let mut gateway = Gateway::start();
    let (arrived, gate) = (Gate::new(), Gate::new());
    let upstream = Upstream::start(gated(&arrived, &gate));
    gateway.register("slow", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&get("/v2/slow/x"));
    arrived.wait(1);
    gateway.process.terminate();
    let address = gateway.gateway;
    eventually("the listener to close", || std::net::TcpStream::connect(address).is_err());
    assert!(gateway.process.is_alive());
    gate.open();
    let answer = conn.response("GET").expect(200);
    assert_eq!(answer.text(), "late");
    assert!(answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")), "{answer:?}");
    assert_eq!(gateway.process.exit_within(PATIENCE).code(), Some(0));
}

#[test]
fn whoever_had_connected_is_served_during_the_drain() {
    let mut gateway = Gateway::start();
    let upstream = Upstream::start(text("ok"));
    gateway.register("svc", &upstream);
    // While it is stopped, the kernel connects clients that the gateway has not accepted yet.
    gateway.process.signal("STOP");
    let mut clients: Vec<Conn> = (0..200).map(|_| Conn::open(gateway.gateway)).collect();
    clients.iter_mut().step_by(2).for_each(|client| client.start(&get("/v2/svc/x")));
    gateway.process.terminate();
    gateway.process.signal("CONT");
    for (number, client) in clients.iter_mut().enumerate().step_by(2) {
        let answer = client.try_response("GET").unwrap_or_else(|error| panic!("client {number}: {error}"));
        assert_eq!(answer.status, 200);
    }
    assert_eq!(gateway.process.exit_within(PATIENCE).code(), Some(0));
}

#[test]
fn an_upload_under_way_finishes_during_the_drain() {
    let mut gateway = Gateway::start();
    let arrived = Gate::new();
    let counting = arrived.clone();
    let upstream = Upstream::start(script(move |exchange| {
        while let Some(piece) = exchange.read_piece()? {
            counting.add(piece.len() as u64);
        }
        exchange.answer("200 OK", &[], b"got it")?;
        Ok(After::KeepAlive)
    }));
    gateway.register("slow", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.send("POST /v2/slow/x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nfirst");
    arrived.wait(5);
    gateway.process.terminate();
    let address = gateway.gateway;
    eventually("the listener to close", || std::net::TcpStream::connect(address).is_err());
    conn.send("other");
    assert_eq!(conn.response("POST").expect(200).text(), "got it");
    assert_eq!(gateway.process.exit_within(PATIENCE).code(), Some(0));
}

#[test]
fn the_drain_is_bounded() {
    let mut gateway = Gateway::builder().env("VERTICE_SHUTDOWN__GRACE", "500ms").start();
    let (arrived, gate) = (Gate::new(), Gate::new());
    let upstream = Upstream::start(gated(&arrived, &gate));
    gateway.register("endless", &upstream);
    let mut conn = Conn::open(gateway.gateway);
    conn.start(&get("/v2/endless/x"));
    arrived.wait(1);
    let start = now();
    gateway.process.terminate();
    assert_eq!(gateway.process.exit_within(PATIENCE).code(), Some(0));
    let took = start.elapsed();
    assert!((400..6000).contains(&took.as_millis()), "{took:?}");
    gate.open();
}

#[test]
fn readiness_says_no_while_the_listeners_still_accept() {
    let mut gateway = Gateway::builder().env("VERTICE_SHUTDOWN__DELAY", "3s").start();
    let upstream = Upstream::start(text("ok"));
    gateway.register("svc", &upstream);
    gateway.process.terminate();
    eventually("readiness to end", || gateway.data(get("/readyz")).status == 503);
    let health = gateway.api(get("/health"));
    assert_eq!(health.status, 503);
    assert!(health.json()["components"].is_object(), "the same object: {}", health.text());
    gateway.data(get("/livez")).expect(200);
    assert_eq!(gateway.data(get("/v2/svc/x")).expect(200).text(), "ok");
    assert_eq!(gateway.process.exit_within(PATIENCE).code(), Some(0));
}

#[test]
fn it_runs_without_a_file_and_without_a_subcommand() {
    let dir = tempfile::tempdir().unwrap();
    let ports = dir.path().join("ports.json");
    let env = [
        ("VERTICE_GATEWAY__LISTEN", "127.0.0.1:0"),
        ("VERTICE_REGISTRY__LISTEN", "127.0.0.1:0"),
        ("VERTICE_SERVER__PORT_FILE", ports.to_str().unwrap()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut process = crate::harness::process::Process::start(Command::new(PROGRAM), &env, "plain", dir.path());
    eventually("the port file", || ports.exists());
    let addresses: Value = serde_json::from_str(&std::fs::read_to_string(&ports).unwrap()).unwrap();
    get("/health").send(addresses["gateway"][0].as_str().unwrap().parse().unwrap()).expect(200);
    assert!(dir.path().join("vertice-data").exists(), "the default store is ./vertice-data");
    process.terminate();
    assert_eq!(process.exit_within(PATIENCE).code(), Some(0));
}

#[test]
fn every_mistake_of_the_file_is_told_with_its_place() {
    let toml = "[lease]\nttl = \"soon\"\n\n[nonsense]\nkey = 1\n\n[limits]\nhead_deadline = -5\nhead_byte = 10\n\n\
                [[routes]]\nname = \"x\"\n";
    for finished in [checked(toml, &[]), {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vertice.toml");
        std::fs::write(&path, toml).unwrap();
        finished(&["run", "--config", path.to_str().unwrap()], &[])
    }] {
        assert_eq!(finished.code, Some(78), "{}", finished.stderr);
        let told = finished.stdout + &finished.stderr;
        for expected in [":2:", "lease.ttl", "nonsense", ":8:", "head_deadline", "head_byte", "prefix", "service"] {
            assert!(told.contains(expected), "{expected} is missing in:\n{told}");
        }
    }
}

#[test]
fn a_file_that_is_no_toml_or_not_there_is_78() {
    let broken = checked("[lease\nttl = 5\n", &[]);
    assert_eq!(broken.code, Some(78));
    assert!((broken.stdout + &broken.stderr).contains(":1:"));
    let missing = finished(&["check", "--config", "/nowhere/vertice.toml"], &[]);
    assert_eq!(missing.code, Some(78));
    assert!((missing.stdout + &missing.stderr).contains("/nowhere/vertice.toml"));
}

#[test]
fn mistaken_variables_are_told_by_name() {
    let env = [
        ("VERTICE_LEASE__TTL", "soon"),
        ("VERTICE_LEASE__TLL", "5s"),
        ("VERTICE_NOWHERE__KEY", "1"),
        ("VERTICE_GATEWAY__LISTEN", "somewhere"),
        ("VERTICE_REGISTRY_URL", "http://not-an-override"),
        ("VERTICE_ODD", "not ours"),
    ];
    let result = finished(&["check"], &env);
    assert_eq!(result.code, Some(78), "{}", result.stderr);
    let told = result.stdout + &result.stderr;
    for (name, _) in &env[..4] {
        assert!(told.contains(name), "{name} is missing in:\n{told}");
    }
    assert!(!told.contains("VERTICE_REGISTRY_URL") && !told.contains("VERTICE_ODD"), "{told}");
}

#[test]
fn a_redis_that_cannot_be_meant_is_a_mistake_of_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("ca.pem");
    std::fs::write(&garbage, "no certificate\n").unwrap();
    let ca = |path: &str| ("VERTICE_STORE__REDIS__CA_FILE", path.to_owned());
    let url = |url: &str| ("VERTICE_STORE__REDIS__URL", url.to_owned());
    for (env, key, says) in [
        (vec![url("redis://:geheim@localhost/first")], "store.redis.url", "database number"),
        (vec![url("redis://:geheim@localhost:99999")], "store.redis.url", "did not parse"),
        (vec![url("rediss://:geheim@localhost#geheim")], "store.redis.url", "fragment"),
        (vec![url("redis://:geheim@localhost?protocol=geheim")], "store.redis.url", "protocol"),
        (vec![url("rediss://:geheim@localhost"), ca("/nowhere/ca.pem")], "store.redis.ca_file", "/nowhere/ca.pem"),
        (vec![url("rediss://:geheim@localhost"), ca(garbage.to_str().unwrap())], "store.redis.ca_file", "no certificate"),
    ] {
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let listen = [("VERTICE_GATEWAY__LISTEN", "127.0.0.1:0"), ("VERTICE_REGISTRY__LISTEN", "127.0.0.1:0")];
        for command in ["run", "check"] {
            let result = finished(&[command], &[&listen[..], &env].concat());
            assert_eq!(result.code, Some(78), "{command} {env:?}: {}", result.stderr);
            assert!(result.stderr.contains(key) && result.stderr.contains(says), "{command} {env:?}: {}", result.stderr);
            assert!(!result.stderr.contains("geheim"), "{}", result.stderr);
        }
    }
}

#[test]
fn a_good_configuration_is_0() {
    let good = checked("[lease]\nttl = \"1m 30s\"\n[timeouts]\nfirst_byte = \"250ms\"\n", &[("VERTICE_LOG__LEVEL", "warn")]);
    assert_eq!(good.code, Some(0), "{}", good.stderr);
    assert_eq!(finished(&["check"], &[]).code, Some(0));
}

#[test]
fn wrong_usage_is_2() {
    for arguments in [&["fly"][..], &["run", "--unknown"], &["--config"]] {
        let result = finished(arguments, &[]);
        assert_eq!(result.code, Some(2), "{arguments:?}: {}", result.stderr);
        assert!(!result.stderr.is_empty());
    }
    for arguments in [&["--help"][..], &["--version"]] {
        let result = finished(arguments, &[]);
        assert_eq!(result.code, Some(0));
        assert!(result.stdout.contains("vertice"), "{}", result.stdout);
    }
}

#[test]
fn an_address_in_use_is_a_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for variable in ["VERTICE_GATEWAY__LISTEN", "VERTICE_REGISTRY__LISTEN"] {
        let mut env = vec![("VERTICE_GATEWAY__LISTEN", "127.0.0.1:0"), ("VERTICE_REGISTRY__LISTEN", "127.0.0.1:0")];
        env.retain(|(name, _)| *name != variable);
        env.push((variable, &address));
        let start = now();
        let result = finished(&["run"], &env);
        assert_eq!(result.code, Some(1), "{}", result.stderr);
        assert!(result.stderr.contains(&address), "{}", result.stderr);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}

#[test]
fn a_redis_that_is_not_there_is_told_and_never_an_end() {
    let gateway = Gateway::builder().env("REDIS_HOST", "redis.invalid").env("REDIS_PORT", "tcp://10.0.0.1:6379").start();
    let upstream = Upstream::start(text("ok"));
    gateway.register("svc", &upstream);
    assert_eq!(gateway.data(get("/v2/svc/x")).expect(200).text(), "ok");
    let answer = gateway.api(get("/health")).expect(200);
    let health = answer.json();
    assert_eq!((&health["status"], &health["redis"]), (&json!("degraded"), &json!("unhealthy")), "{health}");
    assert!(
        health["components"]["redis"]["detail"].as_str().is_some_and(|detail| detail.contains("redis.invalid")),
        "{health}"
    );
    assert_eq!(gateway.status()["store"]["kind"], "redis");
    let log = gateway.process.stderr();
    let errors = log.lines().filter(|line| line.contains("ERROR") && line.contains("Redis")).count();
    assert_eq!(errors, 1, "{log}");
    gateway.api(get("/readyz")).expect(200);
}

#[test]
fn the_access_log_is_one_json_line_a_request_and_can_be_off() {
    let on = Gateway::builder().env("VERTICE_LOG__ACCESS", "json").start();
    let upstream = Upstream::start(text("ok"));
    on.register("svc", &upstream);
    on.data(get("/v2/svc/x?secret=hidden").header("X-Request-ID", "logged-1")).expect(200);
    on.data(get("/v2/nobody/x").header("X-Request-ID", "logged-2")).expect(503);
    let line = |id: &str| -> Option<Value> {
        let output = on.process.stdout();
        let line = output.lines().find(|line| line.contains(id))?;
        Some(serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
    };
    eventually("both lines", || line("logged-1").is_some() && line("logged-2").is_some());
    let (good, bad) = (line("logged-1").unwrap(), line("logged-2").unwrap());
    assert_eq!((&good["http.response.status_code"], &bad["http.response.status_code"]), (&json!(200), &json!(503)));
    assert_eq!((&good["http.request.method"], &good["url.path"]), (&json!("GET"), &json!("/v2/svc/x")));
    assert_eq!((&good["vertice.service"], &bad["vertice.reason"]), (&json!("svc"), &json!("no_route")));
    assert!(!on.process.stdout().contains("hidden"), "queries may carry secrets");
    let off = Gateway::builder().env("VERTICE_LOG__ACCESS", "off").start();
    off.register("svc", &upstream);
    off.data(get("/v2/svc/x")).expect(200);
    assert_eq!(off.process.stdout(), "");
}

#[test]
fn probes_fill_no_log_unless_they_fail_or_somebody_wants_them() {
    let with = [("VERTICE_LOG__ACCESS", "json"), ("VERTICE_SHUTDOWN__DELAY", "60s")];
    let builder = with.iter().fold(Gateway::builder().config(""), |builder, (name, value)| builder.env(name, value));
    let gateway = builder.start();
    let configure = |toml: &str| {
        std::fs::write(gateway.dir().join("vertice.toml"), toml).unwrap();
        let answer = gateway.api(post("/gateway/reload", &json!({}))).expect(200).json();
        assert_eq!(answer["restart_needed"], json!([]), "{answer}");
    };
    let probe = |id: &str| {
        for path in ["/health", "/livez", "/readyz?verbose=1", "/metrics"] {
            gateway.data(get(path).header("X-Request-ID", id)).expect(200);
            gateway.api(get(path).header("X-Request-ID", id)).expect(200);
        }
        gateway.data(head("/readyz").header("X-Request-ID", id)).expect(200);
    };
    let lines = |id: &str| gateway.process.stdout().lines().filter(|line| line.contains(id)).count();
    probe("probe-1");
    gateway.data(post("/readyz", &json!({})).header("X-Request-ID", "wrong-method")).expect(405);
    gateway.data(get("/healthy").header("X-Request-ID", "no-probe")).expect(404);
    // Lines come in the order in which requests end.
    gateway.api(get("/services").header("X-Request-ID", "no-probe")).expect(200);
    eventually("the lines of what is no probe, or failed", || lines("no-probe") == 2 && lines("wrong-method") == 1);
    assert_eq!(lines("probe-1"), 0, "{}", gateway.process.stdout());

    configure("[log]\naccess_probes = true\n");
    probe("probe-2");
    eventually("a line for each probe", || lines("probe-2") == 9);
    configure("");

    gateway.process.signal("TERM");
    let is_draining = || gateway.data(get("/readyz").header("X-Request-ID", "not-ready")).status == 503;
    eventually("readiness to say no", is_draining);
    eventually("a line of that", || lines("not-ready") > 0);
    gateway.process.signal("KILL");
}

#[test]
fn a_line_break_in_a_header_or_path_cannot_forge_a_log_line() {
    let gateway = Gateway::builder().env("VERTICE_LOG__ACCESS", "json").start();
    let nasty = "x\\n{\"forged\":true}\u{e9}";
    gateway.data(get("/v2/nobody/a%0Ab").header("User-Agent", nasty));
    gateway.api(post("/register", &json!({"service_name": "a\nforged", "endpoint": "http://127.0.0.1:9"}))).expect(422);
    eventually("a line", || gateway.process.stdout().contains("nobody"));
    for line in gateway.process.stdout().lines().chain(gateway.process.stderr().lines()) {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(value.get("forged"), None);
    }
}

#[test]
fn the_registry_paths_of_the_data_port_can_be_switched_off() {
    let gateway = Gateway::builder().env("VERTICE_GATEWAY__REGISTRY_API", "false").start();
    let upstream = Upstream::start(text("ok"));
    gateway.register("svc", &upstream);
    let body = json!({"service_name": "svc", "endpoint": upstream.url()});
    gateway.data(post("/register", &body)).problem(404, "not_found");
    gateway.data(get("/services")).problem(404, "not_found");
    gateway.data(get("/v2/svc/x")).expect(200);
    gateway.data(get("/health")).expect(200);
}

#[test]
fn the_first_answer_comes_soon_after_the_start() {
    let start = now();
    let gateway = Gateway::start();
    gateway.data(get("/health")).expect(200);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_hangup_does_not_end_it() {
    let mut gateway = Gateway::start();
    let upstream = Upstream::start(text("ok"));
    gateway.register("svc", &upstream);
    for _ in 0..3 {
        gateway.process.signal("HUP");
        assert_eq!(gateway.data(get("/v2/svc/x")).expect(200).text(), "ok");
    }
    assert!(gateway.process.is_alive());
}
