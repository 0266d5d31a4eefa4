//! How a name leads to an instance: registry, environment, configuration, aliases, static routes (SPEC §4).

use crate::harness::scripts::{echo, text};
use crate::harness::{Gateway, Upstream, get, net, post};
use serde_json::json;

#[test]
fn an_unknown_service_is_503_with_the_predecessors_sentence() {
    let gateway = Gateway::start();
    let answer = gateway.data(get("/v2/unheard_service/x"));
    let problem = answer.problem(503, "no_route");
    assert_eq!(
        problem["detail"],
        "Service 'unheard_service' is not available. It may be down or not registered in the service registry."
    );
    assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
}

#[test]
fn known_without_a_usable_instance_is_not_unknown() {
    let gateway = Gateway::start();
    let body = json!({"service_name": "asleep", "endpoint": "http://127.0.0.1:9", "status": "draining"});
    gateway.api(post("/register", &body)).expect(201);
    let answer = gateway.data(get("/v2/asleep/x"));
    answer.problem(503, "no_instance");
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn the_environment_says_where_unregistered_services_are() {
    let upstream = Upstream::start(echo());
    let gateway = Gateway::builder()
        .env("MAXIMUS_CORE_SERVICE_URL", &upstream.url())
        .env("ORACULO_URL", &upstream.url())
        .env("VISION_SERVICE_URL", &upstream.url())
        .env("LEGACY_ENDPOINT", &format!("{}/base", upstream.url()))
        .start();
    for (target, expected) in [
        ("/v2/maximus_core_service/a?b=c", "/a?b=c"),
        ("/v2/maximus_core/a", "/a"),
        ("/v2/oraculo/a", "/a"),
        ("/v2/vision/a", "/a"),
        ("/v2/vision_service/a", "/a"),
        ("/v2/legacy/a", "/base/a"),
    ] {
        gateway.data(get(target)).expect(200);
        assert_eq!(upstream.last().target, expected, "{target}");
    }
    gateway.data(get("/v2/legacy_service/a")).problem(503, "no_route");
}

#[test]
fn the_most_specific_variable_wins() {
    let [url, service_url, endpoint] = ["url", "service_url", "endpoint"].map(|name| Upstream::start(text(name)));
    let gateway = Gateway::builder()
        .env("VISION_URL", &url.url())
        .env("VISION_SERVICE_URL", &service_url.url())
        .env("VISION_ENDPOINT", &endpoint.url())
        .env("RADAR_SERVICE_URL", &service_url.url())
        .env("RADAR_ENDPOINT", &endpoint.url())
        .start();
    assert_eq!(gateway.data(get("/v2/vision/x")).expect(200).text(), "url");
    assert_eq!(gateway.data(get("/v2/radar/x")).expect(200).text(), "service_url");
}

#[test]
fn variables_that_are_no_service_lead_nowhere() {
    let trap = Upstream::start(text("trap"));
    let gateway = Gateway::builder()
        .env("DATABASE_URL", "postgres://user:secret@db/x")
        .env("QUEUE_URL", "redis://127.0.0.1:1")
        .env("BROKEN_URL", "http://")
        .env("EMPTY_URL", "")
        .env("JAEGER_ENDPOINT", &trap.url())
        .env("VERTICE_REGISTRY_URL", &trap.url())
        .env("REDIS_URL", &trap.url())
        .start();
    for service in ["database", "queue", "broken", "empty", "jaeger", "vertice_registry", "registry", "redis"] {
        gateway.data(get(&format!("/v2/{service}/x"))).problem(503, "no_route");
    }
    assert_eq!(trap.count(), 0);
}

#[test]
fn the_environment_can_be_ignored() {
    let upstream = Upstream::start(echo());
    let gateway = Gateway::builder().env("VISION_URL", &upstream.url()).env("VERTICE_ROUTING__ENV_FALLBACK", "false").start();
    gateway.data(get("/v2/vision/x")).problem(503, "no_route");
}

#[test]
fn the_registry_beats_the_environment_and_that_the_configuration() {
    let [registered, env, config] = ["registered", "env", "config"].map(|name| Upstream::start(text(name)));
    let toml = format!("[services.vision]\nurl = \"{0}\"\n[services.fixed]\nurl = \"{0}\"\n", config.url());
    let gateway = Gateway::builder().config(&toml).env("VISION_URL", &env.url()).start();
    let asked = |service: &str| gateway.data(get(&format!("/v2/{service}/x"))).expect(200).text();
    assert_eq!(asked("fixed"), "config");
    assert_eq!(asked("vision"), "env");
    gateway.register("vision", &registered);
    assert_eq!(asked("vision"), "registered");
    gateway.api(crate::harness::delete("/deregister/vision")).expect(200);
    assert_eq!(asked("vision"), "env");
}

#[test]
fn fallbacks_are_not_registrations() {
    let upstream = Upstream::start(echo());
    let toml = format!("[services.fixed]\nurl = \"{}\"\n", upstream.url());
    let gateway = Gateway::builder().config(&toml).env("VISION_URL", &upstream.url()).start();
    gateway.data(get("/v2/fixed/x")).expect(200);
    gateway.data(get("/v2/vision/x")).expect(200);
    assert_eq!(gateway.services(), Vec::<String>::new());
    gateway.api(get("/services/vision")).problem(404, "not_found");
}

#[test]
fn names_in_the_style_of_variables_are_understood() {
    let gateway = Gateway::start();
    let upstream = Upstream::start(echo());
    gateway.register("maximus_core_service", &upstream);
    for name in ["maximus_core_service", "MAXIMUS_CORE_SERVICE_URL", "MAXIMUS_CORE_SERVICE"] {
        gateway.data(get(&format!("/v2/{name}/Path/URL?X=Y"))).expect(200);
        assert_eq!(upstream.last().target, "/Path/URL?X=Y", "{name}");
    }
}

#[test]
fn old_names_lead_to_new_ones() {
    let gateway = Gateway::builder().config("[routing.aliases]\nold_name = \"new_name\"\n").start();
    let [ip, immune, new] = ["ip", "immune", "new"].map(|name| Upstream::start(text(name)));
    gateway.register("ip_intel_service", &ip);
    gateway.register("active_immune_core_service", &immune);
    gateway.register("new_name", &new);
    for (old, expected) in [("ip_intelligence_service", "ip"), ("active_immune_core", "immune"), ("old_name", "new")] {
        assert_eq!(gateway.data(get(&format!("/v2/{old}/x"))).expect(200).text(), expected);
    }
}

#[test]
fn static_routes_rewrite_the_prefix_and_nothing_else() {
    let toml = r#"
        [[routes]]
        name = "search"
        prefix = "/api/google/search"
        service = "google_osint_service"
        rewrite = "/search"

        [[routes]]
        name = "deep"
        prefix = "/api/google/search/deep"
        service = "deep_service"
        rewrite = "/"

        [[routes]]
        name = "kept"
        prefix = "/kept"
        service = "google_osint_service"
    "#;
    let gateway = Gateway::builder().config(toml).start();
    let (google, deep) = (Upstream::start(echo()), Upstream::start(echo()));
    gateway.register("google_osint_service", &google);
    gateway.register("deep_service", &deep);
    for (target, expected) in [
        ("/api/google/search/basic?q=a%2Fb", "/search/basic?q=a%2Fb"),
        ("/api/google/search", "/search"),
        ("/api/google/search?x=1", "/search?x=1"),
        ("/api/google/search/a/../b//c", "/search/a/../b//c"),
        ("/kept/x", "/kept/x"),
    ] {
        gateway.data(get(target)).expect(200);
        assert_eq!(google.last().target, expected, "{target}");
    }
    gateway.data(get("/api/google/search/deep/down")).expect(200);
    assert_eq!(deep.last().target, "/down");
    gateway.data(get("/api/google/searching")).problem(404, "not_found");
    gateway.data(get("/api/google")).problem(404, "not_found");
    assert_eq!(gateway.metrics().only("http_requests_total", &[("route", "deep"), ("service", "deep_service")]), 1.0);
}

#[test]
fn a_static_route_to_nobody_is_503() {
    let toml = "[[routes]]\nname = \"lost\"\nprefix = \"/lost\"\nservice = \"lost_service\"\n";
    let gateway = Gateway::builder().config(toml).start();
    let problem = gateway.data(get("/lost/x")).problem(503, "no_route");
    assert!(problem["detail"].as_str().unwrap().starts_with("Service 'lost_service' is not available."));
}

#[test]
fn a_dead_fallback_fails_like_a_dead_instance() {
    let gateway = Gateway::builder().env("VISION_URL", &format!("http://{}", net::closed())).start();
    gateway.data(get("/v2/vision/x")).problem(502, "upstream_connect");
}

#[test]
fn traffic_is_shared_among_the_instances() {
    let gateway = Gateway::start();
    let all: Vec<_> = (0..3).map(|_| Upstream::start(echo())).collect();
    all.iter().for_each(|upstream| gateway.register("shared", upstream));
    for _ in 0..60 {
        gateway.data(get("/v2/shared/x")).expect(200);
    }
    let counts: Vec<_> = all.iter().map(Upstream::count).collect();
    assert_eq!(counts.iter().sum::<usize>(), 60);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn a_weight_of_zero_means_no_traffic_and_round_robin_follows_weights() {
    let gateway = Gateway::builder().config("[balance]\nalgorithm = \"round_robin\"\n").start();
    let all: Vec<_> = (0..3).map(|_| Upstream::start(echo())).collect();
    for (upstream, weight) in all.iter().zip([0, 10, 30]) {
        let body = json!({
            "service_name": "weighted", "endpoint": upstream.url(), "instance_id": upstream.addr.to_string(), "weight": weight
        });
        gateway.api(post("/register", &body)).expect(201);
    }
    for _ in 0..80 {
        gateway.data(get("/v2/weighted/x")).expect(200);
    }
    let counts: Vec<_> = all.iter().map(Upstream::count).collect();
    assert_eq!(counts[0], 0, "{counts:?}");
    assert!((15..=25).contains(&counts[1]), "{counts:?}");
}
