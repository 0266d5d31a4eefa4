//! The configuration as an operator meets it: files, variables and messages.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use vertice_core::name::ServiceName;
use vertice_core::policy::Algorithm;
use vertice_core::route::{PathPattern, StaticRoute};

use super::raw::{Document, shown};
use super::source::{known_keys, parse_with};
use super::*;

const SHIPPED: &str = include_str!("../../../conf/vertice.toml");

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn read(text: &str, pairs: &[(&str, &str)]) -> Config {
    parse(text, "f", &env(pairs)).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The lines of all mistakes.
fn mistakes(text: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    let errors = parse(text, "f", &env(pairs)).expect_err("mistakes were expected");
    errors.to_string().lines().map(str::to_owned).collect()
}

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

/// The shipped file with its commented keys in force.
fn uncommented() -> String {
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest.to_owned(),
        _ => line.to_owned(),
    };
    SHIPPED.lines().map(|line| uncomment(line) + "\n").collect()
}

#[test]
fn the_shipped_file_says_exactly_the_defaults() {
    assert_eq!(read(SHIPPED, &[]), Config::default());
}

#[test]
fn the_shipped_file_has_every_key_and_no_other() {
    let document = Document::parse(&uncommented(), "conf/vertice.toml").unwrap();
    let general = |key: &Vec<String>| {
        let mut key = key.clone();
        match key[0].as_str() {
            "routes" if key[2] == "headers" => (key[1], key[3]) = ("*".to_owned(), "*".to_owned()),
            "services" | "routes" | "rate_limits" => key[1] = "*".to_owned(),
            "routing" if key.len() == 3 => key[2] = "*".to_owned(),
            _ => {}
        }
        shown(&key)
    };
    let documented: BTreeSet<String> = document.entries().map(|(key, _)| general(key)).collect();
    let known: BTreeSet<String> = known_keys().iter().map(|key| shown(key)).collect();
    assert_eq!(documented, known);
    for key in
        ["services.<name>.url", "routes[n].prefix", "routes[n].headers.<name>", "routing.aliases.<name>", "registry.token_file"]
    {
        assert!(known.contains(key), "{key}");
    }
}

#[test]
fn the_examples_of_the_shipped_file_are_valid() {
    let alternatives = |line: &&str| {
        let files = [
            "token_file",
            "url_file",
            "secret_file",
            "password_file",
            "sentinel_password_file",
            "ca_file",
            "certificate = ",
            "key = \"/etc",
        ];
        !files.iter().any(|key| line.starts_with(key))
    };
    let text: String = uncommented().lines().filter(alternatives).map(|line| line.to_owned() + "\n").collect();
    let config = read(&text, &[]);
    assert_eq!(config.routes.len(), 2);
    assert_eq!(config.services.len(), 1);
    assert_eq!(config.rate_limits.len(), 1);
    assert_eq!(config.registry.token.len(), 1);
    assert!(config.store.redis.is_some());
}

#[test]
fn the_development_file_is_valid() {
    let config = read(include_str!("../../../conf/dev.toml"), &[]);
    assert!(config.gateway.listen.iter().chain(&config.registry.listen).all(|address| address.ip().is_loopback()));
    assert_eq!(config.store.kind, StoreKind::Memory);
}

/// Samples are `good-*.toml` and `bad-*.toml`; a bad one ends with its messages, one in each line that begins with `#: `.
#[test]
fn the_samples_say_what_they_should() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config");
    let (mut good, mut bad) = (0, 0);
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let sample = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#: ")).collect();
        let result = parse(&text, &sample, &env(&[]));
        if sample.starts_with("good-") {
            good += 1;
            assert!(result.is_ok() && expected.is_empty(), "{sample}: {result:?}");
        } else {
            bad += 1;
            let shown = result.expect_err(&sample).to_string();
            let found: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix(&format!("{sample}:"))).collect();
            assert_eq!(found, expected, "{sample}");
            assert_eq!(found.len(), shown.lines().count(), "{sample}: a message without the file's name");
        }
    }
    assert!(good >= 2 && bad >= 5, "samples are missing: {good} good, {bad} bad");
}

#[test]
fn no_file_gives_the_documented_defaults() {
    let config = Config::default();
    assert_eq!(config.gateway.listen, ["0.0.0.0:8000".parse().unwrap()]);
    assert_eq!(config.registry.listen, ["0.0.0.0:8888".parse().unwrap()]);
    assert_eq!(config.lease.ttl, Duration::from_secs(60));
    assert_eq!(config.policy, vertice_core::policy::Policy::default());
    assert_eq!(config.limits.head_bytes, 65_536);
    assert_eq!(config.store.path, PathBuf::from("./vertice-data"));
    assert_eq!(config.routing.aliases[&name("active_immune_core")], name("active_immune_core_service"));
    assert!(config.store.redis.is_none() && config.registry.token.is_empty());
    assert_eq!(config.warnings.len(), 1, "only the missing token: {:?}", config.warnings);
}

#[test]
fn our_variable_beats_the_predecessors_and_that_the_file() {
    let file = "[health]\ncache_ttl = 1\n";
    let ttl = |pairs: &[(&str, &str)]| read(file, pairs).health.cache_ttl.as_secs();
    let ours = ("VERTICE_HEALTH__CACHE_TTL", "3s");
    assert_eq!(ttl(&[]), 1);
    assert_eq!(ttl(&[("GATEWAY_CACHE_TTL", "2")]), 2);
    assert_eq!(ttl(&[("GATEWAY_CACHE_TTL", "2"), ours]), 3);
    assert_eq!(ttl(&[ours]), 3);
}

#[test]
fn a_wrong_predecessor_variable_is_a_warning_and_the_file_counts() {
    let config = read("[health]\ncache_ttl = 1\n", &[("GATEWAY_CACHE_TTL", "abc"), ("LOG_LEVEL", "NOTSET")]);
    assert_eq!(config.health.cache_ttl.as_secs(), 1);
    assert_eq!(config.log.level, LogLevel::Info);
    let warned = |variable: &str| config.warnings.iter().any(|w| w.contains(variable) && w.contains("is ignored"));
    assert!(warned("GATEWAY_CACHE_TTL") && warned("LOG_LEVEL"), "{:?}", config.warnings);
}

#[test]
fn every_wrong_variable_is_named() {
    let found = mistakes(
        "",
        &[
            ("VERTICE_TIMEOUTS__CONNECT", "fast"),
            ("VERTICE_TIMEOUT__CONNECT", "1s"),
            ("VERTICE_LIMITS__HEAD_FIELDS", "1000"),
            ("VERTICE_GATEWAY__LISTEN", "127.0.0.1:0,localhost:8000"),
            ("VERTICE_NOTHING__LIKE_IT", "1"),
            ("VERTICE_LEASE__", "1"),
        ],
    );
    let expected = [
        "environment variable VERTICE_GATEWAY__LISTEN: gateway.listen: \"localhost:8000\" is not an address; \
         give ip:port, for example \"0.0.0.0:8000\" or \"[::1]:8000\"",
        "environment variable VERTICE_LEASE__: unknown key 'lease.\"\"'",
        "environment variable VERTICE_LIMITS__HEAD_FIELDS: limits.head_fields: 1000 is out of range; allowed is 8 to 256",
        "environment variable VERTICE_NOTHING__LIKE_IT: unknown key 'nothing.like_it'",
        "environment variable VERTICE_TIMEOUTS__CONNECT: timeouts.connect: \"fast\" is not a duration; \
         give for example \"250ms\", \"1m 30s\" or a number of seconds",
        "environment variable VERTICE_TIMEOUT__CONNECT: unknown key 'timeout.connect' \
         (did you mean 'VERTICE_TIMEOUTS__CONNECT'?)",
    ];
    assert_eq!(found, expected);
}

#[test]
fn variables_with_one_underscore_are_not_ours() {
    let foreign = [("VERTICE_REGISTRY_URL", "http://a"), ("VERTICE_REGISTRY_TOKEN", "x"), ("VERTICE_CONFIG", "y")];
    let config = read("", &foreign);
    assert_eq!(config, Config::default());
}

#[test]
fn variables_reach_lists_services_routes_and_aliases() {
    let file = "[services.my-svc]\nurl = 'http://a'\n[[routes]]\nname = 'r'\nprefix = '/r'\nservice = 'my-svc'\n";
    let config = read(
        file,
        &[
            ("VERTICE_GATEWAY__LISTEN", "127.0.0.1:0, [::1]:0"),
            ("VERTICE_REGISTRY__LISTEN", ""),
            ("VERTICE_SERVICES__MY_SVC__BALANCE__ALGORITHM", "ROUND_ROBIN"),
            ("VERTICE_SERVICES__OTHER__URL", "http://b:1/x"),
            ("VERTICE_ROUTES__0__PREFIX", "/s/"),
            ("VERTICE_ROUTING__ALIASES__OLD_NAME", "new_name"),
        ],
    );
    assert_eq!(config.gateway.listen.len(), 2);
    assert!(config.registry.listen.is_empty());
    assert_eq!(config.policy_of(&name("my-svc")).balance.algorithm, Algorithm::RoundRobin);
    assert_eq!(*config.policy_of(&name("unheard_of")), config.policy);
    assert_eq!(config.services[&name("other")].url.as_ref().unwrap().to_string(), "http://b:1/x");
    assert_eq!(config.routes[0].pattern.path.as_str(), "/s");
    assert_eq!(config.routing.aliases.len(), 3);
}

#[test]
fn timeouts_come_from_route_service_and_default_in_this_order() {
    let config = read(
        "[timeouts]\nconnect = 1\nfirst_byte = 2\nrequest = 9\n\
         [services.svc]\ntimeouts = { connect = 3, first_byte = 4, request = 0 }\npreserve_host = true\n\
         [[routes]]\nname = 'a'\nprefix = '/a'\nservice = 'svc'\ntimeouts.connect = '5'\n\
         [[routes]]\nname = 'b'\nprefix = '/b'\nservice = 'svc'\npreserve_host = false\n",
        &[],
    );
    let route = config.routes[0].timeouts.unwrap();
    let seconds = (route.connect.as_secs(), route.first_byte.as_secs(), route.silence.as_secs(), route.request);
    assert_eq!(seconds, (5, 4, 60, None));
    assert_eq!(config.routes[1].timeouts, None, "nothing of its own");
    assert_eq!((config.routes[0].preserve_host, config.routes[1].preserve_host), (None, Some(false)));
    assert!(config.policy_of(&name("svc")).preserve_host && !config.policy.preserve_host);
    assert_eq!(config.policy.timeouts.request, Some(Duration::from_secs(9)));
}

/// The only route of a file.
fn route(more: &str) -> StaticRoute {
    read(&format!("[[routes]]\nname = 'a'\nservice = 'svc'\n{more}\n"), &[]).routes.remove(0)
}

#[test]
fn prefixes_are_kept_stripped_or_rewritten() {
    let rewrite = |more: &str| route(more).rewrite;
    assert_eq!(rewrite("prefix = '/a/'"), None);
    assert_eq!(rewrite("prefix = '/a/'\nstrip = false"), None);
    assert_eq!(rewrite("prefix = '/a/'\nstrip = true").as_deref(), Some("/"));
    assert_eq!(rewrite("prefix = '/a/'\nrewrite = '/b/'").as_deref(), Some("/b"));
    assert_eq!(rewrite("path = '/a/'\nrewrite = '/b/'").as_deref(), Some("/b/"), "a whole path becomes a whole path");
}

#[test]
fn routes_take_what_their_keys_say_together() {
    let everything = route(
        "host = ['Shop.Example.com.', '*.example.org']\npath = '/a/'\nmethods = ['GET', 'HEAD']\n\
         headers = { X-Canary = '1', accept-language = '*' }",
    );
    let shown: Vec<String> = everything.pattern.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["shop.example.com", "*.example.org"]);
    assert_eq!(everything.pattern.path, PathPattern::Exact("/a/".into()));
    assert_eq!(everything.pattern.methods.join(" "), "GET HEAD");
    let headers = everything.pattern.headers.iter().map(|header| (&*header.name, header.value.as_deref()));
    assert_eq!(headers.collect::<Vec<_>>(), [("x-canary", Some("1")), ("accept-language", None)]);
    let host_alone = route("host = '*.example.org'").pattern;
    assert_eq!((host_alone.path, host_alone.hosts.len()), (PathPattern::Prefix("/".into()), 1));
    assert!(host_alone.methods.is_empty() && host_alone.headers.is_empty());
}

#[test]
fn one_bound_alone_moves_the_default_of_the_other() {
    let config = read("limits.head_bytes = '8KiB'\nbreaker.open = '10m'\nretry.backoff_min = '1s'\n", &[]);
    assert_eq!(config.limits.uri_bytes, 8 * 1024);
    assert_eq!(config.policy.breaker.open_max, Duration::from_secs(600));
    assert_eq!(config.policy.retry.backoff_max, Duration::from_secs(1));
}

#[test]
fn an_alias_to_itself_switches_a_shipped_one_off() {
    let config = read("[routing.aliases]\nactive_immune_core = 'active_immune_core'\n", &[]);
    assert_eq!(config.routing.aliases.into_keys().collect::<Vec<_>>(), [name("ip_intelligence_service")]);
}

#[test]
fn the_environment_tells_where_services_are() {
    let nmap = ("NMAP_SERVICE_URL", "http://10.0.0.7:8047");
    let config = read("", &[nmap]);
    assert_eq!(config.env_services["nmap"].to_string(), "http://10.0.0.7:8047");
    assert_eq!(config.env_services["nmap_service"], config.env_services["nmap"]);
    assert!(read("routing.env_fallback = false", &[nmap]).env_services.is_empty());
}

#[test]
fn tokens_come_from_keys_variables_and_files() {
    let hash = format!("sha256:{}", "0".repeat(64));
    let file = |path: &Path| match path.to_str() {
        Some("/tokens") => Ok("one\r\n\ntwo\n".to_owned()),
        Some("/empty") => Ok("\n".to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let tokens = |text: &str, pairs: &[(&str, &str)]| {
        parse_with(text, "f", &env(pairs), &file).map(|config| config.registry.token).map_err(|errors| errors.to_string())
    };
    let plain = |text: &str| Token::Plain(Secret::new(text));

    assert_eq!(tokens("registry.token = 'a,b'", &[]), Ok(vec![plain("a,b")]));
    let list = format!("registry.token = ['a', '{hash}']");
    assert_eq!(tokens(&list, &[]), Ok(vec![plain("a"), Token::Sha256([0; 32])]));
    assert_eq!(tokens("", &[("VERTICE_REGISTRY__TOKEN", "a, b")]), Ok(vec![plain("a"), plain("b")]));
    assert_eq!(tokens("", &[("REGISTRY_AUTH_TOKEN", "a,b")]), Ok(vec![plain("a,b")]));
    assert_eq!(tokens("", &[("VERTICE_REGISTRY__TOKEN_FILE", "/tokens")]), Ok(vec![plain("one"), plain("two")]));
    assert_eq!(tokens("registry.token_file = '/tokens'", &[]).unwrap().len(), 2);
    let over = tokens("registry.token = 'a'", &[("VERTICE_REGISTRY__TOKEN_FILE", "/tokens")]);
    assert_eq!(over.unwrap().len(), 2, "the environment wins, in whatever form");

    let both = [("VERTICE_REGISTRY__TOKEN", "geheim"), ("VERTICE_REGISTRY__TOKEN_FILE", "/tokens")];
    let refused = [
        (tokens("", &both), "set together with environment variable VERTICE_REGISTRY__TOKEN_FILE"),
        (tokens("", &[("VERTICE_REGISTRY__TOKEN_FILE", "/gone")]), "registry.token_file: failed to read \"/gone\""),
        (tokens("", &[("VERTICE_REGISTRY__TOKEN_FILE", "/empty")]), "the token is empty"),
        (tokens("", &[("VERTICE_REGISTRY__TOKEN", "")]), "the token is empty"),
        (tokens("registry.token = 17", &[]), "f:1:18: registry.token: a secret is a text"),
        (tokens("registry.token = 'sha256:geheim'", &[]), "64 hex digits"),
    ];
    for (result, says) in refused {
        let message = result.unwrap_err();
        assert!(message.contains(says) && !message.contains("geheim"), "{says}: {message}");
    }
}

#[test]
fn a_secret_in_a_file_loses_only_its_last_newline() {
    let file = |_: &Path| Ok(" two words \r\n".to_owned());
    let variables = [("VERTICE_STORE__REDIS__PASSWORD_FILE", "/p"), ("REDIS_HOST", "redis")];
    let config = parse_with("", "f", &env(&variables), &file).unwrap();
    assert_eq!(config.store.redis.unwrap().password.unwrap().expose(), " two words ");
}

#[test]
fn redis_is_the_store_as_soon_as_it_is_configured() {
    let config = read(
        "",
        &[
            ("REDIS_HOST", "redis-master"),
            ("REDIS_PORT", "6380"),
            ("REDIS_PASSWORD", "geheim"),
            ("REDIS_SENTINELS", "s1:26380, s2"),
            ("REDIS_SENTINEL_MASTER", "vertice"),
        ],
    );
    let shown = format!("{config:?}");
    let redis = config.store.redis.unwrap();
    assert_eq!((redis.host.as_deref(), redis.port, redis.master.as_str()), (Some("redis-master"), 6380, "vertice"));
    assert_eq!(redis.sentinels, ["s1:26380", "s2:26379"]);
    assert_eq!(redis.password.unwrap().expose(), "geheim");
    assert!(!shown.contains("geheim"), "{shown}");
    assert_eq!(config.store.kind, StoreKind::Redis);
    assert!(!config.warnings.iter().any(|warning| warning.contains("Redis")), "{:?}", config.warnings);
    let unused = read("store.kind = 'embedded'", &[("REDIS_HOST", "redis")]);
    assert_eq!(unused.store.kind, StoreKind::Embedded);
    assert_eq!(unused.warnings.iter().filter(|warning| warning.contains("Redis")).count(), 1);
    let nowhere = mistakes("store.kind = 'redis'", &[]);
    assert!(nowhere.len() == 1 && nowhere[0].contains("store.kind: redis needs one of"), "{nowhere:?}");
    let slow = mistakes("[store.redis]\nhost = 'redis'\ntimeout = '1s'", &[]);
    assert!(slow.len() == 1 && slow[0].contains("store.redis.timeout"), "{slow:?}");
}

#[test]
fn authorities_without_tls_are_told_to_be_of_no_use() {
    let pem = rcgen::CertificateParams::new(["x".to_owned()]).unwrap();
    let pem = pem.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
    let read = |url: &str| {
        let text = format!("[store.redis]\nurl = '{url}'\nca_file = '/ca.pem'\n");
        parse_with(&text, "f", &env(&[]), &|_| Ok(pem.clone())).unwrap()
    };
    let is_warned = |config: &Config| config.warnings.iter().any(|warning| warning.contains("ca_file"));
    let tls = read("rediss://redis");
    assert!(!is_warned(&tls) && tls.store.redis.unwrap().authorities == Some(pem.clone()));
    assert!(is_warned(&read("redis://redis")));
    let off =
        parse_with("[store.redis]\nhost = 'redis'\nca_file = ''\n", "f", &env(&[]), &|_| Err(io::ErrorKind::NotFound.into()));
    assert!(!is_warned(&off.unwrap()));
}

#[test]
fn leftovers_of_redis_are_not_redis() {
    let leftovers = [("REDIS_PORT", "tcp://10.0.0.1:6379"), ("REDIS_PASSWORD", "x"), ("REDIS_HOST", ""), ("REDIS_URL", " ")];
    let config = read("", &leftovers);
    assert_eq!(config, Config::default());
    let kubernetes = read("", &[("REDIS_HOST", "redis"), leftovers[0]]);
    assert_eq!(kubernetes.store.redis.unwrap().port, 6379);
    let wrong = read("", &[("REDIS_URL", "http://u:geheim@redis")]);
    assert!(wrong.store.redis.is_none());
    assert!(wrong.warnings.iter().any(|w| w.contains("REDIS_URL is ignored")) && !format!("{wrong:?}").contains("geheim"));
    let ours = mistakes("store.redis.password = 'x'", &[]);
    assert_eq!(ours, ["f:1:24: store.redis.password: useless without url, host or sentinels, which tell where Redis is"]);
}

#[test]
fn the_other_variables_of_the_predecessor() {
    let config = read(
        "",
        &[("REPLICA_ID", "r-1"), ("ZONE", "eu:1"), ("LOG_LEVEL", "Warning"), ("JAEGER_ENDPOINT", "http://jaeger:4317")],
    );
    assert_eq!(config.server.replica_id.as_deref(), Some("r-1"));
    assert_eq!(config.server.zone.as_deref(), Some("eu:1"));
    assert_eq!(config.log.level, LogLevel::Warn);
    assert_eq!(config.trace_endpoint.as_deref(), Some("http://jaeger:4317"));
    assert!(config.warnings.iter().any(|warning| warning.starts_with("JAEGER_ENDPOINT")));
    assert!(config.env_services.is_empty());
    for (python, level) in [("DEBUG", LogLevel::Debug), ("CRITICAL", LogLevel::Error), ("info", LogLevel::Info)] {
        assert_eq!(read("", &[("LOG_LEVEL", python)]).log.level, level, "{python}");
    }
}

#[test]
fn the_token_warning_disappears_with_a_token_or_without_writers() {
    let warns = |text: &str| read(text, &[]).warnings.iter().any(|warning| warning.contains("token"));
    assert!(warns(""));
    assert!(!warns("registry.token = 'x'"));
    assert!(!warns("registry.listen = []\ngateway.registry_api = false"));
}

/// Keys and values that come near to what is meant, so that the search does not end at the first syntax error.
fn plausible_text() -> impl Strategy<Value = String> {
    let sections = [
        "gateway",
        "registry",
        "limits",
        "timeouts",
        "store.redis",
        "services.abc",
        "routing.aliases",
        "routes",
        "routes.headers",
    ];
    let keys = [
        "listen",
        "token",
        "connect",
        "url",
        "prefix",
        "path",
        "host",
        "methods",
        "headers",
        "name",
        "head_bytes",
        "sentinels",
        "x",
        "\"a.b\"",
        "timeouts.connect",
    ];
    let value = prop_oneof![
        "\"[^\"\\\\\\x00-\\x1f\\x7f]{0,20}\"",
        "-?[0-9]{1,25}",
        "-?[0-9]{1,3}\\.[0-9]{1,5}(e[0-9]{1,4})?",
        prop::sample::select(vec![
            "true",
            "[]",
            "[1, \"a\", [2]]",
            "{ a = 1 }",
            "[{ name = 'r' }]",
            "nan",
            "-inf",
            "1979-05-27"
        ])
        .prop_map(str::to_owned),
    ];
    let line = prop_oneof![
        (prop::sample::select(keys.to_vec()), value).prop_map(|(key, value)| format!("{key} = {value}")),
        prop::sample::select(sections.to_vec()).prop_map(|section| format!("[{section}]")),
        prop::sample::select(sections.to_vec()).prop_map(|section| format!("[[{section}]]")),
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,200}") {
        let _ = parse(&text, "f", &BTreeMap::new());
    }

    #[test]
    fn no_plausible_text_makes_it_panic(text in plausible_text()) {
        let file = |_: &Path| Err(io::ErrorKind::NotFound.into());
        if let Err(errors) = parse_with(&text, "f", &BTreeMap::new(), &file) {
            prop_assert!(!errors.mistakes().is_empty());
            for line in errors.to_string().lines() {
                prop_assert!(line.starts_with("f:"), "{}", line);
            }
        }
    }

    #[test]
    fn no_variable_makes_it_panic(
        variables in prop::collection::btree_map("(VERTICE_)?[A-Z_]{0,12}(__[A-Z0-9_]{0,8}){0,3}(_URL)?", "\\PC{0,20}", 0..8)
    ) {
        let _ = parse("", "f", &variables);
    }

    #[test]
    fn any_value_of_a_known_variable_is_taken_or_refused(index in 0usize..200, text in "\\PC{0,20}|[0-9]{0,30}[a-zA-Z]{0,3}") {
        let keys: Vec<Vec<String>> = known_keys().into_iter().collect();
        let key = &keys[index % keys.len()];
        let variable = format!("VERTICE_{}", key.join("__").replace('*', "0").to_uppercase());
        let file = |_: &Path| Err(io::ErrorKind::NotFound.into());
        if let Err(errors) = parse_with("", "f", &env(&[(&variable, &text)]), &file) {
            prop_assert!(!errors.to_string().contains("unknown key") || key.contains(&"*".to_owned()), "{}", errors);
        }
    }
}
