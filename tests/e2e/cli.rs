//! The commands that ask a running gateway, as a person or a script uses them.

use std::io;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::gateway::PROGRAM;
use crate::harness::process::{Finished, Process, run};
use crate::harness::scripts::{script, status, text};
use crate::harness::upstream::Script;
use crate::harness::{After, Exchange, Gate, Gateway, PATIENCE, Upstream, delete, eventually, get, net, post, wait_for};

/// Runs the program to its end with these words and variables.
#[track_caller]
fn cli(line: &str, env: &[(&str, &str)]) -> Finished {
    let mut command = Command::new(PROGRAM);
    command.args(line.split_whitespace());
    let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    run(command, &env, PATIENCE)
}

/// The same through a shell, in which `$V` is the program.
#[track_caller]
fn shell(line: &str, env: &[(&str, &str)]) -> Finished {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    let mut env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    env.push(("V".to_owned(), PROGRAM.to_owned()));
    run(command, &env, PATIENCE)
}

/// Asks this gateway.
#[track_caller]
fn ask(gateway: &Gateway, line: &str) -> Finished {
    cli(line, &[("VERTICE_REGISTRY_URL", &format!("http://{}", gateway.registry))])
}

impl Finished {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self
    }

    /// What was printed, as words by line.
    fn table(&self) -> Vec<Vec<&str>> {
        self.stdout.lines().map(|line| line.split_whitespace().collect()).collect()
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}

fn register(gateway: &Gateway, service: &str, id: &str, more: Value) {
    let mut body =
        json!({"service_name": service, "endpoint": format!("http://127.0.0.9:{id}"), "instance_id": format!("i:{id}")});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    gateway.api(post("/register", &body)).expect(201);
}

#[test]
fn status_tells_how_the_gateway_is() {
    let gateway = Gateway::start();
    register(&gateway, "abc_service", "81", json!({}));
    register(&gateway, "abc_service", "82", json!({"status": "unhealthy"}));
    let shown = ask(&gateway, "status").expect(0);
    for line in [
        format!("gateway   serving at http://{}", gateway.registry),
        "health    healthy".to_owned(),
        "  redis   disabled".to_owned(),
        "services  1, with 2 instances, 1 of them healthy".to_owned(),
        "breakers  none open".to_owned(),
    ] {
        assert!(shown.stdout.lines().any(|shown| shown == line), "{line}: {}", shown.stdout);
    }
    assert!(shown.stdout.contains(&format!("build {}", gateway.status()["build"].as_str().unwrap())), "{}", shown.stdout);
    let document = ask(&gateway, "status --json").expect(0).json();
    assert_eq!(document["health"]["status"], "healthy");
    assert_eq!(document["status"]["gateway"], "operational");
    assert_eq!(document["url"], format!("http://{}", gateway.registry));
}

#[test]
fn status_fails_when_the_gateway_does_not_serve() {
    let url = format!("http://{}", net::closed());
    let finished = cli(&format!("status --url {url}"), &[]).expect(1);
    assert!(
        finished.stderr.starts_with("failed to show the status: ") && finished.stderr.contains(&url),
        "{}",
        finished.stderr
    );
    assert_eq!(finished.stdout, "");

    let health = r#"{"status":"degraded","active_services":2,"uptime_seconds":5,"components":{"leases":{"status":"healthy"}}}"#;
    let draining = Upstream::start(routes(&[("/health", "503 Service Unavailable", health)]));
    let finished = cli(&format!("status --url {}", draining.url()), &[]).expect(1);
    assert!(finished.stdout.contains("not serving") && finished.stdout.contains("degraded"), "{}", finished.stdout);
    let document = cli(&format!("status --json --url {}", draining.url()), &[]).expect(1).json();
    assert_eq!(document["health"]["active_services"], 2);
    assert_eq!(document["status"], Value::Null);
}

#[test]
fn healthcheck_asks_the_listeners_of_the_configuration() {
    let mut gateway = Gateway::start();
    let listen = [gateway.gateway.to_string(), gateway.registry.to_string()];
    let env = [("VERTICE_GATEWAY__LISTEN", listen[0].as_str()), ("VERTICE_REGISTRY__LISTEN", listen[1].as_str())];
    let healthy = cli("healthcheck", &env).expect(0);
    assert_eq!(healthy.stdout, format!("http://{} serves\nhttp://{} serves\n", listen[0], listen[1]));
    assert_eq!(healthy.stderr, "");

    let file = gateway.dir().join("listeners.toml");
    let toml = format!("gateway.listen = []\nregistry.listen = [\"{}\"]\n", listen[1]);
    std::fs::write(&file, toml).unwrap();
    let one = cli(&format!("healthcheck --config {}", file.display()), &[]).expect(0);
    assert_eq!(one.stdout, format!("http://{} serves\n", listen[1]));

    // One of the two does not serve.
    let draining = Upstream::start(routes(&[("/health", "503 Service Unavailable", r#"{"status":"degraded"}"#)]));
    let half = [env[0], ("VERTICE_REGISTRY__LISTEN", &draining.addr.to_string())];
    let refused = cli("healthcheck", &half).expect(1);
    assert!(refused.stderr.contains(&format!("{} answered 503", draining.url())), "{}", refused.stderr);

    gateway.process.kill();
    let dead = cli("healthcheck", &env).expect(1);
    assert!(
        dead.stderr.starts_with(&format!("failed to check the health: failed to reach the registry at http://{}", listen[0]))
    );
    let unknown = cli("healthcheck", &[("VERTICE_GATEWAY__LISTEN", "127.0.0.1:0")]).expect(1);
    assert!(unknown.stderr.contains("port 0"), "{}", unknown.stderr);
    cli("healthcheck", &[("VERTICE_GATEWAY__LISTEN", "nowhere")]).expect(78);
}

#[test]
fn a_health_check_does_not_wait_for_a_gateway_that_hangs() {
    let silent = Upstream::start(script(|exchange| exchange.hold()));
    let listen = silent.addr.to_string();
    let env = [("VERTICE_GATEWAY__LISTEN", listen.as_str()), ("VERTICE_REGISTRY__LISTEN", "")];
    assert!(cli("healthcheck", &env).expect(1).stderr.contains("timeout"));
}

#[test]
fn services_are_listed_and_filtered() {
    let gateway = Gateway::start();
    let nothing = ask(&gateway, "services").expect(0);
    assert_eq!((nothing.stdout.as_str(), nothing.stderr.as_str()), ("", "no services registered\n"));
    assert_eq!(ask(&gateway, "services --json").expect(0).stdout, "[]\n");

    register(&gateway, "b_service", "81", json!({"zone": "z-1", "version": "2.0", "tags": ["blue"]}));
    register(&gateway, "b_service", "82", json!({"zone": "z-2", "version": "1.0", "status": "unhealthy"}));
    register(&gateway, "a_service", "83", json!({}));
    assert_eq!(
        ask(&gateway, "services").expect(0).table(),
        [
            vec!["NAME", "INSTANCES", "BEST", "ENDPOINT", "STATUS", "VERSION"],
            vec!["a_service", "1/1", "http://127.0.0.9:83", "healthy", "-"],
            vec!["b_service", "1/2", "http://127.0.0.9:81", "degraded", "1.0,", "2.0"],
        ]
    );
    for (filter, names) in [
        ("--zone z-1", vec!["b_service"]),
        ("--zone z-1 --version 1.0", vec![]),
        ("--tag blue", vec!["b_service"]),
        ("--status healthy", vec!["a_service", "b_service"]),
        ("--version 1.0", vec!["b_service"]),
    ] {
        let document = ask(&gateway, &format!("services --json {filter}")).expect(0).json();
        let found: Vec<&str> = document.as_array().unwrap().iter().map(|s| s["service_name"].as_str().unwrap()).collect();
        assert_eq!(found, names, "{filter}");
    }
    assert_eq!(ask(&gateway, "services --zone nowhere").expect(0).stderr, "no services match\n");
}

#[test]
fn instances_are_listed() {
    let gateway = Gateway::start();
    register(
        &gateway,
        "b_service",
        "82",
        json!({"weight": 7, "zone": "z-2", "version": "1.0", "ttl": 3600, "status": "draining"}),
    );
    register(&gateway, "b_service", "81", json!({}));
    register(&gateway, "a_service", "83", json!({}));
    let finished = ask(&gateway, "instances").expect(0);
    let table = finished.table();
    assert_eq!(table[0].join(" "), "SERVICE INSTANCE ENDPOINT STATUS BREAKER WEIGHT ZONE VERSION TTL LEFT LAST HEARTBEAT");
    let ids: Vec<_> = table[1..].iter().map(|row| (row[0], row[1])).collect();
    assert_eq!(ids, [("a_service", "i:83"), ("b_service", "i:81"), ("b_service", "i:82")]);
    assert_eq!(table[3][2..8], ["http://127.0.0.9:82", "draining", "closed", "7", "z-2", "1.0"]);
    assert!(finished.stdout.lines().all(|line| line.trim_end() == line), "{}", finished.stdout);
    let columns: Vec<_> = finished.stdout.lines().map(|line| line.find("http").or(line.find("ENDPOINT"))).collect();
    assert!(columns.iter().all(|column| column == &columns[0]), "{}", finished.stdout);

    assert_eq!(ask(&gateway, "instances a_service").expect(0).table().len(), 2);
    let absent = ask(&gateway, "instances no_service").expect(1);
    assert!(absent.stderr.starts_with("failed to list the instances of no_service: "), "{}", absent.stderr);
    assert!(absent.stderr.contains("Service 'no_service' not found"), "{}", absent.stderr);
    assert_eq!(absent.stdout, "");
}

#[test]
fn json_is_what_the_registry_gave() {
    let body = r#"{"service_name":"x","endpoint":"http://a:1","health_endpoint":"/","registered_at":1.50,"last_heartbeat":2,"ttl_remaining":3,"instances":[],"index":9,"a field of later":{"z":1e2,"a":null}}"#;
    let registry = Upstream::start(text(body));
    let shown = cli(&format!("instances x --json --url {}", registry.url()), &[]).expect(0).stdout;
    assert!(shown.starts_with("{\n  \"service_name\": \"x\",\n"), "{shown}");
    let unspaced: String = shown.replace("\": ", "\":").lines().map(str::trim_start).collect();
    assert_eq!(unspaced, body);

    let page = Upstream::start(text("<html>"));
    for line in ["services --json", "services", "instances x --json", "status"] {
        let finished = cli(&format!("{line} --url {}", page.url()), &[]).expect(1);
        assert_eq!(finished.stdout, "", "{line}");
        assert!(finished.stderr.contains("failed to read the answer 200"), "{line}: {}", finished.stderr);
    }
}

#[test]
fn what_strangers_write_does_not_act_on_the_terminal() {
    let treacherous = "\x1b]0;owned\x07 \u{9b}2J \u{202e}txt\r\n";
    let instance = json!({
        "instance_id": treacherous, "endpoint": treacherous, "health_endpoint": "/", "metadata": {"k": treacherous}, "weight": 1,
        "zone": treacherous, "version": treacherous, "status": treacherous, "breaker": treacherous,
        "registered_at": 1.0, "last_heartbeat": 1.0, "ttl_remaining": 1
    });
    let service = json!({
        "service_name": treacherous, "endpoint": treacherous, "health_endpoint": "/", "registered_at": 1.0, "last_heartbeat": 1.0,
        "ttl_remaining": 1, "instances": [instance]
    });
    let registry = Upstream::start(text(&json!([service]).to_string()));
    let refusing = Upstream::start(status("404 Not Found", &json!({"detail": treacherous}).to_string()));
    for line in [
        format!("services --url {}", registry.url()),
        format!("services --json --url {}", registry.url()),
        format!("instances --color never --url {}", registry.url()),
        format!("instances x --url {}", refusing.url()),
        format!("drain x --url {}", refusing.url()),
    ] {
        let finished = cli(&line, &[]);
        let all = finished.stdout + &finished.stderr;
        assert!(all.contains("owned"), "{line}: {all:?}");
        let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!all.contains(acts), "{line}: {all:?}");
    }
}

#[test]
fn the_next_registry_answers_when_one_does_not() {
    let gateway = Gateway::start();
    register(&gateway, "abc_service", "81", json!({}));
    let urls = format!("http://{},http://{}", net::closed(), gateway.registry);
    for line in [format!("services --url {urls}"), format!("status --url {urls}")] {
        assert!(cli(&line, &[]).expect(0).stdout.contains(if line.starts_with("status") { "serving" } else { "abc_service" }));
    }
    // The argument counts more than the variable.
    let finished =
        cli(&format!("services --url http://{}", gateway.registry), &[("VERTICE_REGISTRY_URL", "http://127.0.0.1:1")]);
    assert!(finished.expect(0).stdout.contains("abc_service"));
}

#[test]
fn reload_tells_what_came_of_it() {
    let gateway = Gateway::builder().config("[timeouts]\nfirst_byte = \"5s\"\n").start();
    let write = |toml: &str| std::fs::write(gateway.dir().join("vertice.toml"), toml).unwrap();
    let reload = format!("reload --url http://{}", gateway.registry);
    assert_eq!(cli(&reload, &[]).expect(0).stdout, "Nothing to change\n");
    write("[timeouts]\nfirst_byte = \"6s\"\n[gateway]\nworkers = 7\n");
    assert_eq!(cli(&reload, &[]).expect(0).stdout, "Configuration reloaded\n  gateway.workers waits for a restart\n");
    write("[timeouts]\nfirst_byte = \"soon\"\n[limits]\nsurprise = 1\n");
    let refused = cli(&reload, &[]).expect(1);
    assert!(["timeouts.first_byte", "limits.surprise"].iter().all(|key| refused.stderr.contains(key)), "{}", refused.stderr);
    assert_eq!(cli(&format!("{reload} --json"), &[]).expect(1).stdout, "");
}

#[test]
fn what_is_set_up_wrongly_is_told_apart_from_what_is_typed_wrongly() {
    for (line, env, code, says) in [
        ("services", ("VERTICE_REGISTRY_URL", "https://a"), 78, "VERTICE_REGISTRY_URL"),
        ("services", ("VERTICE_REGISTRY_TOKEN", "two words"), 78, "VERTICE_REGISTRY_TOKEN"),
        ("services --token-file /nowhere/token", ("A", "b"), 78, "/nowhere/token"),
        ("services --url https://a", ("A", "b"), 2, "no TLS"),
        ("--config x.toml services", ("A", "b"), 2, "--config"),
        ("services --config x.toml", ("A", "b"), 2, "--config"),
        ("drain", ("A", "b"), 2, "<SERVICE>"),
    ] {
        let finished = cli(line, &[env]).expect(code);
        assert!(finished.stderr.contains(says), "{line}: {}", finished.stderr);
        assert!(!finished.stderr.contains("two words"), "{}", finished.stderr);
    }
    // The server's own option still stands on either side.
    for line in ["--config /nowhere.toml check", "check --config /nowhere.toml", "--config /nowhere.toml"] {
        let finished = cli(line, &[]).expect(78);
        assert!(finished.stderr.contains("/nowhere.toml"), "{line}: {}", finished.stderr);
    }
}

#[test]
fn the_servers_configuration_is_not_read() {
    let gateway = Gateway::start();
    let env = [("VERTICE_CONFIG", "/nowhere.toml"), ("VERTICE_LEASE__TTL", "nonsense")];
    let registry = ("VERTICE_REGISTRY_URL", &*format!("http://{}", gateway.registry));
    cli("status", &[env[0], env[1], registry]).expect(0);
}

#[test]
fn a_silent_registry_is_not_waited_for() {
    let hole = net::Blackhole::new();
    let silent = Upstream::start(script(Exchange::hold));
    for url in [format!("http://{}", hole.addr), silent.url()] {
        let finished = cli(&format!("services --timeout 300ms --url {url}"), &[]).expect(1);
        assert!(finished.stderr.contains(&url), "{}", finished.stderr);
    }
}

#[test]
fn drain_asks_for_what_was_typed() {
    let answer = r#"{"message":"Draining","service_name":"x","instances":["a:1","b:2"],"seconds":90}"#;
    let registry = Upstream::start(text(answer));
    let url = registry.url();
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();

    let finished = cli(&format!("drain x --for 1m30s --url {url}"), &[]);
    finished.expect(2);
    let finished = cli(&format!("drain x --for 90 --url {url} --token-file {}", token.display()), &[]).expect(0);
    assert_eq!(finished.stdout, "x: 2 instances get no new requests for 1m30s\n  a:1\n  b:2\n");
    assert_eq!(registry.last().header("x-registry-token"), Some("s3cret"));
    for (line, target) in [
        ("drain x", "/gateway/drain/x?for=30s"),
        ("drain x --for 1500ms", "/gateway/drain/x?for=1500ms"),
        ("drain x --instance [::1]:80 --undo", "/gateway/drain/x?for=0s&instance_id=%5B::1%5D:80"),
        ("drain a/b --for 24h", "/gateway/drain/a%2Fb?for=86400s"),
    ] {
        let document = cli(&format!("{line} --json --url {url}"), &[("REGISTRY_AUTH_TOKEN", "other")]).expect(0).json();
        assert_eq!(document["seconds"], 90);
        let seen = registry.last();
        assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", target));
        assert_eq!(seen.header("x-registry-token"), Some("other"));
    }
}

#[test]
fn drain_takes_an_instance_out_and_back() {
    let gateway = Gateway::start();
    register(&gateway, "abc_service", "81", json!({}));
    register(&gateway, "abc_service", "82", json!({}));
    let statuses = || {
        let shown = ask(&gateway, "instances abc_service").expect(0);
        shown.table()[1..].iter().map(|row| row[3].to_owned()).collect::<Vec<_>>()
    };
    let drained = ask(&gateway, "drain abc_service --instance i:82 --for 1h").expect(0);
    assert_eq!(drained.stdout, "abc_service: 1 instance gets no new requests for 1h\n  i:82\n");
    assert_eq!(statuses(), ["healthy", "draining"]);
    let undone = ask(&gateway, "drain abc_service --undo").expect(0);
    assert!(undone.stdout.starts_with("abc_service: 2 instances take requests again"), "{}", undone.stdout);
    assert_eq!(statuses(), ["healthy", "healthy"]);
    for (line, cause) in [
        ("drain no_service", "not registered"),
        ("drain abc_service --instance i:99", "has no instance 'i:99'; it has i:81, i:82."),
    ] {
        let refused = ask(&gateway, line).expect(1);
        assert!(refused.stderr.starts_with("failed to drain ") && refused.stderr.contains(cause), "{}", refused.stderr);
    }
    // The data plane has no such call.
    let elsewhere = cli(&format!("drain abc_service --url http://{}", gateway.gateway), &[]).expect(1);
    assert!(elsewhere.stderr.starts_with("failed to drain abc_service: "), "{}", elsewhere.stderr);
}

#[test]
fn drain_says_why_it_cannot() {
    let service = r#"{"service_name":"x","endpoint":"http://a","health_endpoint":"/","registered_at":1,"last_heartbeat":1,"ttl_remaining":1,"instances":[]}"#;
    let older = Upstream::start(routes(&[("/services/x", "200 OK", service)]));
    let finished = cli(&format!("drain x --url {}", older.url()), &[]).expect(1);
    assert!(finished.stderr.contains("older than this command"), "{}", finished.stderr);
    let finished = cli(&format!("drain y --url {}", older.url()), &[]).expect(1);
    assert!(finished.stderr.starts_with("failed to drain y: ") && finished.stderr.contains("404"), "{}", finished.stderr);
    let closed = Upstream::start(status("401 Unauthorized", r#"{"detail":"Invalid registry token"}"#));
    let finished = cli(&format!("drain x --url {}", closed.url()), &[]).expect(1);
    assert!(
        finished.stderr.contains("Invalid registry token") && finished.stderr.contains("--token-file"),
        "{}",
        finished.stderr
    );
}

/// A registry that answers these targets with these statuses and JSON bodies, and 404 otherwise.
fn routes(known: &[(&str, &str, &str)]) -> Script {
    let known: Vec<_> = known.iter().map(|(t, s, b)| ((*t).to_owned(), (*s).to_owned(), (*b).to_owned())).collect();
    script(move |exchange| {
        exchange.read_body()?;
        let found = known.iter().find(|(target, ..)| *target == exchange.seen.target);
        let (status, body) = found.map_or(("404 Not Found", "{}"), |(_, status, body)| (status.as_str(), body.as_str()));
        let headers = [("Content-Type", "application/json"), ("X-Vertice-Index", "7")];
        exchange.answer(status, &headers, body.as_bytes())?;
        Ok(After::KeepAlive)
    })
}

fn service(name: &str, index: u64, ids: &[&str]) -> Value {
    let instance = |id: &&str| {
        json!({
            "instance_id": id, "endpoint": format!("http://{id}"), "health_endpoint": "/", "metadata": {}, "weight": 100, "zone": null,
            "version": null, "status": "healthy", "breaker": "closed", "registered_at": 1.0, "last_heartbeat": 1.0, "ttl_remaining": 9
        })
    };
    let instances: Vec<Value> = ids.iter().map(instance).collect();
    json!({
        "service_name": name, "endpoint": "http://a", "health_endpoint": "/", "metadata": {}, "registered_at": 1.0,
        "last_heartbeat": 1.0, "ttl_remaining": 9, "instances": instances, "index": index
    })
}

fn change(service: &Value, index: u64) -> String {
    format!("event: change\nid: {index}\ndata: {service}\n\n")
}

/// A registry with this list at index 7, whose streams say what `stream` writes.
fn streaming(list: Value, stream: impl Fn(&mut Exchange) -> io::Result<After> + Send + Sync + 'static) -> Upstream {
    let list = list.to_string();
    Upstream::start(script(move |exchange| {
        exchange.read_body()?;
        if exchange.seen.header("accept") != Some("text/event-stream") {
            let headers = [("Content-Type", "application/json"), ("X-Vertice-Index", "7")];
            exchange.answer("200 OK", &headers, list.as_bytes())?;
            return Ok(After::KeepAlive);
        }
        exchange.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
        stream(exchange)
    }))
}

fn watching(line: &str, dir: &std::path::Path) -> Process {
    let mut command = Command::new(PROGRAM);
    command.args(line.split_whitespace());
    Process::start(command, &[], "watch", dir)
}

/// The lines of `watch` without the time.
fn told(process: &Process) -> Vec<String> {
    process.stdout().lines().filter_map(|line| Some(line.split_once("  ")?.1.to_owned())).collect()
}

#[test]
fn watch_goes_on_where_it_was_cut_off() {
    let registry =
        streaming(json!([service("x", 7, &["a:1"])]), |exchange| match exchange.seen.header("last-event-id").unwrap() {
            "7" => {
                exchange.write("id: 7\n\n: keep-alive\n\n")?;
                exchange.write(change(&service("x", 8, &["a:1", "b:2"]), 8))?;
                exchange.write("event: change\nid: 9\ndata: {\"service_na")?;
                Ok(After::Reset)
            }
            "8" => {
                exchange.write("id: 8\n\n")?;
                exchange.write("event: change\nid: 9\ndata: {\"service_name\":\"x\",\"deleted\":true}\n\n")?;
                exchange.hold()
            }
            other => panic!("resumed after {other}"),
        });
    let dir = tempfile::tempdir().unwrap();
    let process = watching(&format!("watch --url {}", registry.url()), dir.path());
    eventually("three changes", || told(&process).len() >= 3);
    assert_eq!(told(&process), ["x  b:2  registered at http://b:2, healthy", "x  a:1  removed", "x  b:2  removed"]);
    let stderr = process.stderr();
    let notes: Vec<&str> = stderr.lines().collect();
    assert_eq!(notes[0], format!("watching 1 services at {}", registry.url()));
    assert!(notes[1].starts_with("failed to watch: ") && notes[1].ends_with("; trying again"), "{stderr}");
    assert!(notes[2].starts_with("watching again"), "{stderr}");
}

#[test]
fn watch_compares_when_the_registry_cannot_go_on() {
    let lists = Arc::new(Gate::new());
    let counted = lists.clone();
    let registry = Upstream::start(script(move |exchange| {
        exchange.read_body()?;
        if exchange.seen.header("accept") == Some("text/event-stream") {
            exchange.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
            if exchange.seen.header("last-event-id") == Some("7") {
                exchange.write("id: 70\n\nevent: reset\nid: 70\ndata: {}\n\n")?;
                return exchange.hold();
            }
            assert_eq!(exchange.seen.header("last-event-id"), Some("71"));
            exchange.write(change(&service("same", 72, &[]), 72))?;
            return exchange.hold();
        }
        let (index, list) = match counted.count() {
            0 => ("7", json!([service("gone", 7, &["a:1"]), service("same", 7, &["b:2"])])),
            _ => ("71", json!([service("new", 71, &["c:3"]), service("same", 71, &["b:2"])])),
        };
        counted.open();
        exchange.answer("200 OK", &[("X-Vertice-Index", index)], list.to_string().as_bytes())?;
        Ok(After::KeepAlive)
    }));
    let dir = tempfile::tempdir().unwrap();
    let process = watching(&format!("watch --json --url {}", registry.url()), dir.path());
    let lines = wait_for("three changes", || {
        let text = process.stdout();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (lines.len() >= 3).then_some(lines)
    });
    assert_eq!(lines[0], json!({"service_name": "gone", "deleted": true}));
    assert_eq!(lines[1], service("new", 71, &["c:3"]));
    assert_eq!(lines[2], service("same", 72, &[]));
    assert_eq!(process.stderr().lines().count(), 1, "{}", process.stderr());
}

#[test]
fn watch_ends_with_its_reader() {
    let registry = streaming(json!([]), |exchange| {
        exchange.write(change(&service("x", 8, &["a:1"]), 8))?;
        exchange.hold()
    });
    // Nothing follows the first line, so the end is not noticed by writing.
    let finished = shell(&format!("{{ $V watch --url {}; echo code $? >&2; }} | head -1", registry.url()), &[]).expect(0);
    assert!(finished.stdout.ends_with("x  a:1  registered at http://a:1, healthy\n"), "{}", finished.stdout);
    assert_eq!(finished.stderr, format!("watching 0 services at {}\ncode 0\n", registry.url()));
}

#[test]
fn watch_ends_by_ctrl_c() {
    let registry = streaming(json!([]), Exchange::hold);
    let dir = tempfile::tempdir().unwrap();
    let mut process = watching(&format!("watch --url {}", registry.url()), dir.path());
    eventually("the watch to begin", || process.stderr().contains("watching"));
    process.signal("INT");
    let ended = process.exit_within(PATIENCE);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(2));
    assert_eq!(process.stderr().lines().count(), 1, "{}", process.stderr());
}

#[test]
fn watch_says_when_there_is_nothing_to_watch_with() {
    let old = Upstream::start(text("[]"));
    let finished = cli(&format!("watch --url {}", old.url()), &[]).expect(1);
    assert!(finished.stderr.contains("too old to be watched"), "{}", finished.stderr);
    let no_stream = Upstream::start(routes(&[("/services?detail=1", "200 OK", "[]"), ("/services", "200 OK", "[]")]));
    let finished = cli(&format!("watch --url {}", no_stream.url()), &[]).expect(1);
    assert!(finished.stderr.contains("no stream of events"), "{}", finished.stderr);
    let finished = cli(&format!("watch --url http://{}", net::closed()), &[]).expect(1);
    assert!(finished.stderr.starts_with("failed to watch: failed to reach"), "{}", finished.stderr);
}

#[test]
fn output_that_nobody_reads_or_keeps() {
    let gateway = Gateway::start();
    register(&gateway, "abc_service", "81", json!({}));
    let registry = ("VERTICE_REGISTRY_URL", &*format!("http://{}", gateway.registry));
    for command in ["instances", "services --json", "status", "completions bash", "watch --help"] {
        let finished = shell(&format!("{{ $V {command}; echo code $? >&2; }} | true"), &[registry]).expect(0);
        assert_eq!(finished.stderr, "code 0\n", "{command}");
    }
    let finished = shell("$V services > /dev/full", &[registry]).expect(1);
    assert!(finished.stderr.starts_with("failed to write the output: "), "{}", finished.stderr);
}

#[test]
fn colour_and_width_are_for_terminals() {
    let gateway = Gateway::start();
    register(&gateway, "abc_service", "81", json!({"version": "a-version-with-a-long-name"}));
    let url = format!("http://{}", gateway.registry);
    let on_terminal = |env: &[(&str, &str)], options: &str| {
        // A terminal of 60 columns.
        let line = format!("script -qec 'stty cols 60; $V services --url {url} {options}' /dev/null");
        shell(&line, env).expect(0).stdout.replace('\r', "")
    };
    let xterm = ("TERM", "xterm");
    let coloured = on_terminal(&[xterm], "");
    assert!(coloured.contains("\x1b[32mhealthy\x1b[0m"), "{coloured:?}");
    let plain = on_terminal(&[xterm, ("NO_COLOR", "1")], "");
    assert!(!plain.contains('\x1b') && plain.contains('…'), "{plain:?}");
    assert!(plain.lines().all(|line| line.chars().count() <= 60), "{plain}");
    assert!(!on_terminal(&[xterm], "--color never").contains('\x1b'));
    assert!(on_terminal(&[xterm, ("NO_COLOR", "1")], "--color always").contains('\x1b'));

    let piped = ask(&gateway, "services").expect(0).stdout;
    assert!(!piped.contains(['\x1b', '…']), "{piped}");
    assert!(ask(&gateway, "services --color always").expect(0).stdout.contains("\x1b[32mhealthy"));
}

#[test]
fn help_shows_examples_and_version_shows_the_build() {
    for command in ["status", "services", "instances", "watch", "drain", "completions"] {
        let help = cli(&format!("{command} --help"), &[]).expect(0).stdout;
        assert!(help.contains(&format!("vertice-gateway {command}")) && help.contains("Examples:"), "{help}");
        assert!(command == "completions" || help.contains("Exit codes:"), "{help}");
        assert!(!help.contains("--config"), "{help}");
    }
    let gateway = Gateway::start();
    let version = cli("--version", &[]).expect(0).stdout;
    let (status, answer) = (gateway.status(), gateway.data(get("/gateway/status")));
    answer.expect(200);
    let expected =
        format!("vertice-gateway {} (build {})\n", status["version"].as_str().unwrap(), status["build"].as_str().unwrap());
    assert_eq!(version, expected);
}

#[test]
fn shells_accept_their_completions() {
    for (name, mark) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef vertice-gateway"),
        ("fish", "complete -c vertice-gateway"),
        ("elvish", "edit:"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let script = cli(&format!("completions {name}"), &[]).expect(0).stdout;
        assert!(script.contains(mark) && script.contains("instances") && script.contains("token-file"), "{name}");
    }
    let checked = shell("$V completions bash | bash -n", &[]).expect(0);
    assert_eq!(checked.stderr, "");
}

#[test]
fn watch_shows_what_a_gateway_sees() {
    let mut gateway = Gateway::start();
    register(&gateway, "other_service", "80", json!({}));
    let url = format!("http://{}", gateway.registry);
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let all = watching(&format!("watch --url {url}"), dirs[0].path());
    let one = watching(&format!("watch abc_service --json --url {url}"), dirs[1].path());
    let lines = |process: &Process, count: usize| {
        wait_for("lines of a watch", || (process.stdout().lines().count() >= count).then(|| told(process)))
    };
    eventually("both watches to begin", || [&all, &one].iter().all(|process| process.stderr().contains("watching")));

    register(&gateway, "abc_service", "81", json!({}));
    assert_eq!(lines(&all, 1)[0], "abc_service  i:81  registered at http://127.0.0.9:81, healthy");
    let heartbeat = json!({"service_name": "abc_service", "instance_id": "i:81", "status": "unhealthy"});
    gateway.api(post("/heartbeat", &heartbeat)).expect(200);
    assert_eq!(lines(&all, 2)[1], "abc_service  i:81  status healthy -> unhealthy");
    register(&gateway, "other_service", "82", json!({}));
    assert_eq!(lines(&all, 3)[2], "other_service  i:82  registered at http://127.0.0.9:82, healthy");

    // Another process knows nothing of the indexes of this one, and everything of its services.
    gateway.crash_and_restart();
    eventually("the watches to go on", || [&all, &one].iter().all(|process| process.stderr().contains("watching again")));
    gateway.api(delete("/deregister/abc_service")).expect(200);
    eventually("the removal", || told(&all).iter().any(|line| line == "abc_service  i:81  removed"));
    let objects = wait_for("the removal as JSON", || {
        let text = one.stdout();
        let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        objects.last().is_some_and(|object| object["deleted"] == true).then_some(objects)
    });
    assert!(objects.iter().all(|object| object["service_name"] == "abc_service"), "{objects:?}");
    assert_eq!(objects[0]["instances"][0]["status"], "healthy");
    assert_eq!(objects[1]["instances"][0]["status"], "unhealthy");
    gateway.assert_sound();
}

#[test]
fn watch_waits_for_a_service_that_is_not_there() {
    let gateway = Gateway::start();
    let dir = tempfile::tempdir().unwrap();
    let process = watching(&format!("watch abc_service --url http://{}", gateway.registry), dir.path());
    eventually("the watch to begin", || process.stderr().contains("watching abc_service"));
    register(&gateway, "abc_service", "81", json!({}));
    eventually("the registration", || told(&process) == ["abc_service  i:81  registered at http://127.0.0.9:81, healthy"]);
}
