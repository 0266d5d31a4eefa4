//! Rate limits (SPEC §5): per service, route, client and key; what clients are told.

use crate::harness::gateway::Builder;
use crate::harness::scripts::text;
use crate::harness::{Gateway, Request, Response, Upstream, eventually, get};

/// A quota that nobody gets back while a test runs.
fn limit(name: &str, by: &str, burst: u32, more: &str) -> String {
    format!("[[rate_limits]]\nname = \"{name}\"\nrate = \"1/h\"\nburst = {burst}\nby = \"{by}\"\n{more}\n")
}

fn start(config: &str) -> (Gateway, Upstream) {
    start_with(Gateway::builder(), config)
}

/// With `one_service` and `two_service`.
fn start_with(builder: Builder, config: &str) -> (Gateway, Upstream) {
    let gateway = builder.config(config).start();
    let upstream = Upstream::start(text("here"));
    gateway.register("one_service", &upstream);
    gateway.register("two_service", &upstream);
    (gateway, upstream)
}

fn one() -> Request {
    get("/v2/one_service/x")
}

fn two() -> Request {
    get("/v2/two_service/x")
}

/// How many of these are let through before one is refused.
#[track_caller]
fn admitted(gateway: &Gateway, request: &Request) -> usize {
    let answers = (0..100).map(|_| gateway.data(request.clone()));
    answers.take_while(|answer| answer.status != 429).inspect(|answer| assert_eq!(answer.status, 200)).count()
}

fn number(answer: &Response, field: &str, parameter: &str) -> u64 {
    let value = answer.header(field).unwrap_or_else(|| panic!("no {field} in {:?}", answer.headers));
    let parameter = value.split(';').find_map(|part| part.strip_prefix(parameter)?.strip_prefix('='));
    parameter.unwrap().parse().unwrap()
}

#[test]
fn who_is_over_the_limit_is_told_so_and_when_to_come_back() {
    let (gateway, upstream) = start(&limit("hourly", "service", 3, ""));
    for left in [2, 1, 0] {
        let answer = gateway.data(one()).expect(200);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"hourly\";q=1;w=3600"));
        assert!(answer.header("ratelimit").unwrap().starts_with("\"hourly\";r="), "{:?}", answer.headers);
        assert_eq!(number(&answer, "ratelimit", "r"), left);
        let reset = number(&answer, "ratelimit", "t");
        assert!(((3 - left) * 3600 - 60..=(3 - left) * 3600).contains(&reset), "{reset}");
    }
    let refused = gateway.data(one());
    refused.problem(429, "rate_limited");
    let retry: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3540..=3600).contains(&retry), "{retry}");
    assert_eq!(number(&refused, "ratelimit", "r"), 0);
    assert_eq!(upstream.count(), 3, "who is refused costs the service nothing");
    assert_eq!(admitted(&gateway, &two()), 3, "another service has its own quota");
    let metrics = gateway.metrics();
    assert_eq!(metrics.only("vertice_limit_hits_total", &[("limit", "rate_limit")]), 2.0);
    assert_eq!(metrics.only("vertice_rate_limited_total", &[("rate_limit", "hourly")]), 2.0);
    eventually("the gauge", || gateway.metrics().sum("vertice_rate_limit_keys", &[("rate_limit", "hourly")]) == 2.0);
    assert!(gateway.data(get("/health")).expect(200).header("ratelimit").is_none(), "its own paths are not limited");
}

#[test]
fn a_quota_comes_back() {
    let (gateway, _upstream) = start("[[rate_limits]]\nname = \"a\"\nrate = \"20/s\"\nburst = 1\nby = \"service\"\n");
    eventually("a refusal", || gateway.data(one()).status == 429);
    eventually("a request that is let through", || gateway.data(one()).status == 200);
}

#[test]
fn clients_are_told_apart_by_whom_a_trusted_proxy_names() {
    let trusting = Gateway::builder().env("VERTICE_SERVER__TRUSTED_PROXIES", "127.0.0.0/8");
    let (gateway, _upstream) = start_with(trusting, &limit("a", "client", 2, ""));
    let from = |address: &str| one().header("X-Forwarded-For", address);
    for client in ["192.0.2.1", "192.0.2.2", "2001:db8:1:2::1"] {
        assert_eq!(admitted(&gateway, &from(client)), 2, "{client}");
    }
    assert_eq!(admitted(&gateway, &from("2001:db8:1:2:ffff::1")), 0, "one /64 is one client");
    assert_eq!(admitted(&gateway, &from("2001:db8:1:3::1")), 2);
}

#[test]
fn a_client_cannot_invent_addresses() {
    let (gateway, _upstream) = start(&limit("a", "client", 2, ""));
    assert_eq!(
        (0..9)
            .map(|n| gateway.data(one().header("X-Forwarded-For", &format!("192.0.2.{n}"))))
            .filter(|a| a.status == 200)
            .count(),
        2
    );
}

#[test]
fn keys_have_quotas_and_those_beyond_the_limit_share_one() {
    let (gateway, _upstream) = start(&limit("a", "header:X-API-Key", 2, "keys_max = 3"));
    let with = |key: &str| one().header("x-api-key", key);
    assert_eq!(admitted(&gateway, &with("k1")), 2);
    assert_eq!(admitted(&gateway, &with("k2")), 2);
    assert_eq!(admitted(&gateway, &one()), 2, "without a key it is the client");
    assert_eq!((1..=9).map(|n| admitted(&gateway, &with(&format!("flood{n}")))).sum::<usize>(), 2);
    assert!(gateway.metrics().only("vertice_limit_hits_total", &[("limit", "rate_limit_keys")]) >= 9.0);
    assert_eq!(gateway.metrics().only("vertice_rate_limited_total", &[("rate_limit", "a")]), 12.0);
}

#[test]
fn limits_hold_for_the_services_and_routes_they_name_and_each_on_its_own() {
    let routes = "[[routes]]\nname = \"r\"\nprefix = \"/r\"\nservice = \"one_service\"\n\
                  [[routes]]\nname = \"s\"\nprefix = \"/s\"\nservice = \"one_service\"\n";
    let config = [
        limit("service", "service", 5, "services = [\"one_service\"]"),
        limit("route", "route", 2, "routes = [\"r\", \"s\"]"),
        routes.to_owned(),
    ];
    let (gateway, _upstream) = start(&config.concat());
    assert_eq!(admitted(&gateway, &get("/r")), 2);
    assert_eq!(gateway.data(get("/r")).header("ratelimit-policy"), Some("\"route\";q=1;w=3600"));
    assert_eq!(admitted(&gateway, &get("/s")), 2, "who is refused by one is not counted by the other");
    assert_eq!(admitted(&gateway, &one()), 1);
    let unlimited = gateway.data(two()).expect(200);
    assert!(unlimited.header("ratelimit").is_none() && unlimited.header("ratelimit-policy").is_none());
    assert_eq!(admitted(&gateway, &two()), 100);
}
