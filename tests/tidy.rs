//! Keeps the rooms apart: the arrows of `src/ARCHITECTURE.md`, one importer for each big dependency, and no loose ends.
//!
//! Every rule is a function over one file's path and text that returns what it has against it, and has a test which proves
//! that it fires. Comments and string literals are not code; `#[cfg(test)]` modules may do what the rest may not.

use std::fs;
use std::path::Path;

/// `(dependency, where it may be used, why there)`. A place is a file, or a directory when it ends in `/`.
const IMPORTERS: &[(&str, &[&str], &str)] = &[
    (
        "redis",
        &[
            "src/gateway/store/",
            "src/gateway/config/store.rs", // has its URLs read as they will be when it is connected to
        ],
        "persistence has one door",
    ),
    ("rusqlite", &["src/gateway/store/"], "persistence has one door"),
    ("rustls", &["src/gateway/accept/tls.rs", "src/gateway/config/tls.rs", "src/gateway/server.rs"], "TLS has one door"),
    ("h2", &["src/gateway/accept/"], "HTTP/2 on our side is the accept room's"),
    ("prometheus", &["src/gateway/telemetry/"], "metric names exist once, as fields of one struct"),
    ("opentelemetry", &["src/gateway/telemetry/"], "one event is one log line, its metrics and its span"),
    (
        "pingora",
        &[
            "src/gateway/accept/",     // stands in front of Pingora's own server app
            "src/gateway/edge.rs",     // the full lane implements its ProxyHttp
            "src/gateway/edge/",       // its phases
            "src/gateway/express/",    // the other lane runs inside a Pingora service
            "src/gateway/upstream.rs", // the peer template that hangs on an instance
            "src/gateway/server.rs",   // wires the services together
            "src/gateway/probe.rs",    // active probes use its connectors
        ],
        "decisions must not depend on who moves the bytes",
    ),
    (
        "std::env",
        &["src/gateway/main.rs", "src/gateway/config/raw.rs", "src/client/bin/", "src/client/examples/"],
        "the environment is read once",
    ),
    ("std::time::Instant::now", &["src/gateway/clock.rs", "src/client/clock.rs"], "elsewhere time is an argument"),
    ("std::time::SystemTime::now", &["src/gateway/clock.rs", "src/client/clock.rs"], "elsewhere time is an argument"),
    (
        "tokio::time::Instant::now",
        &["src/gateway/clock.rs", "src/gateway/accept/"],
        "deadlines of tokio's own timers while a connection has no request yet; elsewhere time is an argument",
    ),
];

/// `(room, rooms and crates that it must not know)`.
const ARROWS: &[(&str, &[&str])] = &[
    ("src/gateway/proxy/", &["crate::registrar", "crate::store", "crate::config", "crate::control", "vertice_api"]),
    ("src/gateway/control/", &["crate::proxy", "crate::edge", "crate::accept", "crate::express", "pingora"]),
    (
        "src/gateway/express/",
        &["crate::edge", "crate::control", "crate::registrar", "crate::store", "crate::config", "vertice_api"],
    ),
    ("src/gateway/", &["crate::server"]),
    (
        "src/gateway/cli/",
        &[
            "crate::accept",
            "crate::config",
            "crate::control",
            "crate::edge",
            "crate::proxy",
            "crate::registrar",
            "crate::store",
            "crate::upstream",
            "pingora",
            "tokio",
        ],
    ),
    ("src/core/", &["vertice_api", "vertice_client", "vertice_gateway"]),
    ("src/api/", &["vertice_core", "vertice_client", "vertice_gateway"]),
    ("src/client/", &["vertice_gateway"]),
    // A program of 5 MB has no use for it.
    ("src/client/sidecar/", &["crate::discovery"]),
];

/// Who may import the wiring.
const WIRED_BY: &[&str] = &["src/gateway/main.rs", "src/gateway/demo.rs", "src/gateway/server/"];

/// What the core must not touch: it is told the time and the seed, and does no I/O.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::collections::hash_map::RandomState",
];

/// `(manifest, its only dependencies)`.
const DEPENDENCIES: &[(&str, &[&str])] = &[
    ("src/core/Cargo.toml", &["foldhash"]),
    ("src/api/Cargo.toml", &["serde", "schemars", "serde_json"]), // the last two optional: for the gateway's description
    ("src/client/Cargo.toml", &["vertice-core", "vertice-api", "rustix", "serde_json", "signal-hook", "thiserror", "ureq"]),
];

/// Snapshots of shared state: `(receiver, the only file that replaces it)`.
const SWAPS: &[(&str, &str)] = &[
    ("table", "src/gateway/registrar/publish.rs"), // the one door to the routing table
    ("shown", "src/gateway/accept/tls.rs"),        // the certificate that a listener shows
    ("guard", "src/gateway/server.rs"),            // our own addresses, as the machine's interfaces change
    ("rules", "src/gateway/server/reloader.rs"),   // what a reload replaces: for requests,
    ("control", "src/gateway/server/reloader.rs"), // for local answers,
    ("app", "src/gateway/server/reloader.rs"),     // for connections,
    ("guard", "src/gateway/server/reloader.rs"),   // for endpoints,
    ("running", "src/gateway/server/reloader.rs"), // and what that was made of
    ("methods", "src/gateway/telemetry/service.rs"), // metric handles by status, as statuses are first seen
];

/// Written in pieces, so that this file does not find itself.
const LOOSE_ENDS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!"),
    concat!("unimplemented", "!"),
    concat!("#[", "ignore"),
    concat!("#[", "allow("),
    concat!("#![", "allow("),
];

const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "bench",
    "clippy.toml",
    "conf",
    "deny.toml",
    "docker",
    "monitoring",
    "rustfmt.toml",
    "src",
    "target",
    "tests",
];

const LINES_MAX: usize = 700;

const RULES: &[fn(&Source) -> Vec<String>] =
    &[importers, arrows, the_core_is_pure, dependencies, one_door_to_the_table, loose_ends, length];

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for dir in ["src", "tests", "bench"] {
        collect(&root.join(dir), &mut files);
    }
    assert!(files.len() > 10, "nothing was found to check below {}", root.display());
    let mut complaints: Vec<String> = top_level_entries(root).iter().filter_map(|name| stray(name)).collect();
    for file in files {
        let path = file.strip_prefix(root).expect("files below the root").to_string_lossy().replace('\\', "/");
        // Fixtures may be anything.
        if let Ok(text) = fs::read_to_string(&file) {
            let source = Source::new(&path, &text);
            complaints.extend(RULES.iter().flat_map(|rule| rule(&source)));
        }
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

fn collect(dir: &Path, files: &mut Vec<std::path::PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

fn top_level_entries(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root).expect("the root is readable").filter_map(Result::ok);
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

// Rules.

/// A dependency is used only where the table says.
fn importers(source: &Source) -> Vec<String> {
    let rule = |(dependency, places, why): &(&str, &[&str], &str)| {
        let elsewhere = !places.iter().any(|place| source.is_in(place));
        let used = source.paths.iter().any(|path| is_below(path, dependency));
        let complaint = || format!("{}: uses {dependency}; only {} may: {why}", source.path, places.join(", "));
        (source.path.starts_with("src/") && elsewhere && used).then(complaint)
    };
    IMPORTERS.iter().filter_map(rule).collect()
}

/// Rooms know only the rooms that their arrows point at.
fn arrows(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for (room, strangers) in ARROWS.iter().filter(|(room, _)| source.is_in(room)) {
        for stranger in *strangers {
            let wiring = WIRED_BY.iter().any(|place| source.is_in(place));
            let exempt = *stranger == "crate::server" && wiring;
            if !exempt && source.paths.iter().any(|path| is_below(path, stranger)) {
                complaints.push(format!("{}: mentions {stranger}, which {room} must not know", source.path));
            }
        }
    }
    complaints
}

fn the_core_is_pure(source: &Source) -> Vec<String> {
    let impure = |name: &&&str| source.paths.iter().any(|path| is_below(path, name));
    let complaint = |name: &&str| format!("{}: mentions {name}, but the core is pure", source.path);
    if source.is_in("src/core/") { IMPURE.iter().filter(impure).map(complaint).collect() } else { Vec::new() }
}

/// The small packages stay small: a new dependency is a decision, and is written down here.
fn dependencies(source: &Source) -> Vec<String> {
    let Some((_, allowed)) = DEPENDENCIES.iter().find(|(manifest, _)| *manifest == source.path) else { return Vec::new() };
    let mut inside = false;
    let mut complaints = Vec::new();
    for line in source.text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]") && !line.contains("dev-dependencies");
            continue;
        }
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default().trim_matches('"');
        if inside && !name.is_empty() && !name.starts_with('#') && !allowed.contains(&name) {
            complaints.push(format!("{}: depends on {name}; only {} are allowed", source.path, allowed.join(", ")));
        }
    }
    complaints
}

/// Replacing what an `ArcSwap` holds: `x.store(value)` without a memory ordering, `x.swap(…)` likewise, and `x.rcu(…)`.
fn one_door_to_the_table(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for method in [".store(", ".swap(", ".rcu("] {
        for (at, _) in source.code.match_indices(method) {
            let arguments = balanced(&source.code[at + method.len()..]);
            let atomic = ["Ordering", "Relaxed", "Release", "AcqRel", "SeqCst"].iter().any(|word| arguments.contains(word));
            let receiver = receiver(&source.code[..at]);
            let known = SWAPS.contains(&(receiver, source.path.as_str()));
            // `slice.swap(a, b)` has two arguments and no `Arc`.
            let slice = method == ".swap(" && !arguments.contains("Arc");
            if source.is_in("src/gateway/") && !arguments.trim().is_empty() && !atomic && !slice && !known {
                complaints.push(format!("{}: replaces `{receiver}`; only registrar/publish.rs publishes", source.path));
            }
        }
    }
    complaints
}

fn loose_ends(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for needle in LOOSE_ENDS.iter().filter(|needle| line.contains(*needle)) {
            complaints.push(format!("{}:{}: has a {needle}", source.path, number + 1));
        }
    }
    complaints
}

fn length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let complaint = || {
        format!(
            "{}: has {lines} lines, more than {LINES_MAX}: these are two nouns, or its tests want a file of their own",
            source.path
        )
    };
    let long = source.path.starts_with("src/") && source.path.ends_with(".rs") && lines > LINES_MAX;
    long.then(complaint).into_iter().collect()
}

fn stray(name: &str) -> Option<String> {
    let known = name.starts_with('.') || TOP_LEVEL.contains(&name) || name == "vertice-data";
    (!known).then(|| format!("{name}: the top level is fixed; it belongs into one of {}", TOP_LEVEL.join(" ")))
}

// Reading Rust, as far as the rules need it.

/// A file with what its rules look at.
struct Source {
    path: String,
    text: String,
    /// The text without comments, literals and test modules; empty when it is no Rust, or a test.
    code: String,
    /// Every path that the code imports or mentions, imports resolved.
    paths: Vec<String>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let is_test = path.ends_with("tests.rs") || path.split('/').any(|part| part == "tests");
        let code = if is_test || !path.ends_with(".rs") { String::new() } else { without_test_modules(&code_of(text)) };
        let paths = paths_of(&code, path);
        Self { path: path.to_owned(), text: text.to_owned(), code, paths }
    }

    fn is_in(&self, place: &str) -> bool {
        if place.ends_with('/') { self.path.starts_with(place) } else { self.path == place }
    }
}

/// Whether `path` is `root` or something inside. A crate's name also covers its family: `pingora` covers `pingora_core`.
fn is_below(path: &str, root: &str) -> bool {
    let rest = path.strip_prefix(root);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || (!root.contains("::") && rest.starts_with('_')))
}

/// The text with comments and the insides of literals blanked out.
fn code_of(text: &str) -> String {
    let (bytes, mut code, mut at) = (text.as_bytes(), String::new(), 0);
    while at < bytes.len() {
        let rest = &text[at..];
        let skipped = comment_length(rest).or_else(|| literal_length(rest, last_word(&code)));
        match skipped {
            Some(length) => {
                code.push(' ');
                code.extend(rest[..length].chars().filter(|&c| c == '\n'));
                at += length;
            }
            None => {
                let c = rest.chars().next().unwrap_or(' ');
                code.push(c);
                at += c.len_utf8();
            }
        }
    }
    code
}

fn comment_length(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    rest.strip_prefix("/*")?;
    let (mut depth, mut at) = (1, 2);
    while depth > 0 {
        let (open, close) = (rest[at..].find("/*"), rest[at..].find("*/")?);
        if let Some(open) = open.filter(|&open| open < close) {
            (depth, at) = (depth + 1, at + open + 2);
        } else {
            (depth, at) = (depth - 1, at + close + 2);
        }
    }
    Some(at)
}

/// Strings, raw strings and characters; `before` is the word before them (`r`, `b`, `br`, `c`, or something else).
fn literal_length(rest: &str, before: &str) -> Option<usize> {
    let raw = matches!(before, "r" | "br" | "cr");
    if raw && (rest.starts_with('#') || rest.starts_with('"')) {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        let inside = rest[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(hashes + 1 + inside.find(&end)? + end.len());
    }
    if rest.starts_with('"') {
        return Some(closing('"', rest));
    }
    let inside = rest.strip_prefix('\'')?;
    let second = inside.chars().nth(1)?;
    // A character, not a lifetime.
    (inside.starts_with('\\') || second == '\'').then(|| closing('\'', rest))
}

fn closing(quote: char, rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Test modules come last in a file, so everything from the first one on is left out.
fn without_test_modules(code: &str) -> String {
    let marker = "#[cfg(test)]";
    let starts = code.match_indices(marker).map(|(at, _)| at);
    let mut modules = starts.filter(|at| {
        let item = code[at + marker.len()..].trim_start();
        item.starts_with("mod ") && item.find('{') < item.find(';')
    });
    modules.next().map_or(code, |at| &code[..at]).to_owned()
}

/// Every `a::b::c` in the code. `use` trees are expanded, first segments that were imported are replaced by what they stand
/// for, and `super::super` is followed up to the crate.
fn paths_of(code: &str, file: &str) -> Vec<String> {
    let tokens = tokens_of(code);
    let mut imports: Vec<(String, String)> = Vec::new();
    let mut mentioned = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        // `use<…>` names what a type captures and imports nothing.
        if tokens[at] == "use" && tokens.get(at + 1) != Some(&"<") {
            at = use_tree(&tokens, at + 1, "", &mut imports);
        } else if is_word(tokens[at]) {
            let mut path = tokens[at].to_owned();
            while tokens.get(at + 1) == Some(&"::") && tokens.get(at + 2).is_some_and(|next| is_word(next)) {
                path = format!("{path}::{}", tokens[at + 2]);
                at += 2;
            }
            mentioned.push(path);
            at += 1;
        } else {
            at += 1;
        }
    }
    let resolved = mentioned.into_iter().filter(|path| path.contains("::")).map(|path| {
        let (first, rest) = path.split_once("::").unwrap_or((&path, ""));
        let import = imports.iter().find(|(name, _)| name == first);
        import.map_or_else(|| path.clone(), |(_, full)| format!("{full}::{rest}"))
    });
    let all: Vec<String> = resolved.chain(imports.iter().map(|(_, full)| full.clone())).collect();
    all.into_iter().map(|path| from_the_crate(&path, file)).collect()
}

/// Reads one tree of a `use` item; returns where it ends.
fn use_tree(tokens: &[&str], mut at: usize, prefix: &str, imports: &mut Vec<(String, String)>) -> usize {
    let mut path = prefix.to_owned();
    while let Some(&token) = tokens.get(at) {
        match token {
            "::" => at += 1,
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|&token| token != "}") {
                    at = use_tree(tokens, at, &path, imports);
                    at += usize::from(tokens.get(at) == Some(&","));
                }
                return at + 1;
            }
            "as" => {
                let alias = tokens.get(at + 1).copied().unwrap_or_default();
                imports.push((alias.to_owned(), path));
                return at + 2;
            }
            "," | "}" | ";" => break,
            "self" if !prefix.is_empty() => at += 1,
            _ => {
                path = if path.is_empty() { token.to_owned() } else { format!("{path}::{token}") };
                at += 1;
            }
        }
    }
    let name = path.rsplit("::").next().unwrap_or_default().to_owned();
    imports.push((name, path));
    at
}

/// `super::config::X` in `src/gateway/proxy/pick.rs` is `crate::proxy::config::X`.
fn from_the_crate(path: &str, file: &str) -> String {
    let inside = file.strip_prefix("src/gateway/").unwrap_or(file).trim_end_matches(".rs");
    let mut module: Vec<&str> = inside.split('/').filter(|part| *part != "mod").collect();
    let mut rest = path;
    if !rest.starts_with("super::") {
        return path.to_owned();
    }
    while let Some(tail) = rest.strip_prefix("super::") {
        module.pop();
        rest = tail;
    }
    let above: String = module.iter().map(|part| format!("{part}::")).collect();
    format!("crate::{above}{rest}")
}

fn tokens_of(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(c) = rest.chars().next() {
        let length = match c {
            _ if c.is_alphanumeric() || c == '_' => rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => c.len_utf8(),
        };
        let (token, tail) = rest.split_at(length);
        tokens.push(token);
        rest = tail.trim_start();
    }
    tokens
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The identifier that the text ends with.
fn last_word(text: &str) -> &str {
    let start = text.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
    text.get(start..).unwrap_or_default()
}

/// The name of what a method is called on: `table` in `self.table` and in `self.table[n]`.
fn receiver(text: &str) -> &str {
    let whole = text.strip_suffix(']').and_then(|inside| inside.rfind('[')).map_or(text, |at| &text[..at]);
    last_word(whole)
}

/// What stands before the parenthesis that closes the one just opened.
fn balanced(rest: &str) -> &str {
    let mut depth = 1;
    for (at, c) in rest.char_indices() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if depth == 0 {
            return &rest[..at];
        }
    }
    rest
}

// Proof that each rule fires, and only then.

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) -> usize {
        rule(&Source::new(path, text)).len()
    }

    #[test]
    fn importers_fires() {
        for (path, text) in [
            ("src/gateway/registrar/mod.rs", "use redis::Client;"),
            ("src/gateway/proxy/pick.rs", "let x = prometheus::Counter::new();"),
            ("src/gateway/proxy/pick.rs", "use {std::sync::Arc, pingora::proxy::Session};"),
            ("src/gateway/control/mod.rs", "fn f(s: &pingora_core::protocols::Stream) {}"),
            ("src/gateway/server.rs", "let x = std::env::var(\"X\");"),
            ("src/gateway/server.rs", "use std::{env, fs};"),
            ("src/gateway/server.rs", "use std::time::{Duration, Instant}; let x = Instant::now();"),
            ("src/gateway/server.rs", "use std::time; let x = time::Instant::now();"),
            ("src/gateway/server.rs", "use std::time::SystemTime as Wall; let x = Wall::now();"),
            ("src/gateway/proxy/pick.rs", "use tokio::time::Instant; let x = Instant::now();"),
        ] {
            assert_eq!(complaints(importers, path, text), 1, "{path}: {text}");
        }
        for (path, text) in [
            ("src/gateway/store/redis.rs", "use redis::Client;"),
            ("src/gateway/edge.rs", "use pingora::proxy::Session;"),
            ("src/gateway/edge/ending.rs", "use pingora::proxy::Session;"),
            ("src/gateway/clock.rs", "use std::time::Instant; fn f() { Instant::now(); }"),
            ("src/gateway/server.rs", "use std::time::Instant; fn f(at: Instant) {}"),
            ("src/gateway/server.rs", "fn f() -> impl Fn() + use<> { || { g(); } }"),
            ("src/gateway/server.rs", "// std::env::var\nlet x = \"pingora::x\"; /* redis::y */"),
            ("src/gateway/server.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use std::env; }"),
            ("tests/e2e/main.rs", "use std::time::Instant; let x = Instant::now();"),
        ] {
            assert_eq!(complaints(importers, path, text), 0, "{path}: {text}");
        }
    }

    #[test]
    fn arrows_fires() {
        for (path, text) in [
            ("src/gateway/proxy/admit.rs", "use crate::config::Config;"),
            ("src/gateway/proxy/admit.rs", "use crate::{clock, registrar::Handle};"),
            ("src/gateway/proxy/admit.rs", "fn f(x: super::super::store::Store) {}"),
            ("src/gateway/proxy/mod.rs", "use super::control::x;"),
            ("src/gateway/proxy/admit.rs", "use vertice_api::paths;"),
            ("src/gateway/control/mod.rs", "let x = crate::proxy::headers::random();"),
            ("src/gateway/control/mod.rs", "use pingora::http::ResponseHeader;"),
            ("src/gateway/edge.rs", "use crate::server::X;"),
            ("src/core/route.rs", "use vertice_api::paths;"),
            ("src/api/paths.rs", "use vertice_core::name::ServiceName;"),
        ] {
            assert_eq!(complaints(arrows, path, text), 1, "{path}: {text}");
        }
        for (path, text) in [
            ("src/gateway/proxy/admit.rs", "use crate::clock; use super::pick; use crate::upstream::Table;"),
            ("src/gateway/proxy/admit.rs", "// not crate::config\nlet x = \"crate::config\";"),
            ("src/gateway/main.rs", "crate::server::run();"),
            ("src/gateway/edge.rs", "use crate::control; use crate::proxy;"),
        ] {
            assert_eq!(complaints(arrows, path, text), 0, "{path}: {text}");
        }
    }

    #[test]
    fn the_core_is_pure_fires() {
        for text in [
            "use std::fs;",
            "use std::{collections::BTreeMap, thread};",
            "fn f(x: std::net::TcpStream) {}",
            "use std::time::{Duration, Instant};",
        ] {
            assert_eq!(complaints(the_core_is_pure, "src/core/lease.rs", text), 1, "{text}");
        }
        let fine = "use std::net::IpAddr; use std::time::Duration; use std::sync::atomic::AtomicU64;";
        assert_eq!(complaints(the_core_is_pure, "src/core/lease.rs", fine), 0);
        assert_eq!(complaints(the_core_is_pure, "src/core/tests/sim.rs", "use std::thread;"), 0);
    }

    #[test]
    fn dependencies_fires() {
        let manifest =
            |dependency: &str| format!("[package]\nname = \"x\"\n[dependencies]\n{dependency}\n[lints]\nworkspace = true");
        for bad in ["tokio = \"1\"", "serde.workspace = true", "\"rand\" = { version = \"1\" }"] {
            assert_eq!(complaints(dependencies, "src/core/Cargo.toml", &manifest(bad)), 1, "{bad}");
        }
        assert_eq!(complaints(dependencies, "src/core/Cargo.toml", "[build-dependencies]\ncc = \"1\""), 1);
        assert_eq!(complaints(dependencies, "src/core/Cargo.toml", "[target.'cfg(unix)'.dependencies]\nlibc = \"1\""), 1);
        let fine = manifest("# a comment\nfoldhash.workspace = true\n\n[dev-dependencies]\nproptest.workspace = true");
        assert_eq!(complaints(dependencies, "src/core/Cargo.toml", &fine), 0);
    }

    #[test]
    fn one_door_to_the_table_fires() {
        for text in [
            "self.table.store(Arc::new(new));",
            "table.store(next);",
            "shared.table.swap(Arc::new(x));",
            "snapshot.rcu(|old| old.clone());",
            "self.tables[n].store(next);",
        ] {
            assert_eq!(complaints(one_door_to_the_table, "src/gateway/edge.rs", text), 1, "{text}");
        }
        for text in ["stop.store(true, Ordering::Release);", "a.swap(0, 1);", "flag.swap(true, SeqCst);", "x.store();"] {
            assert_eq!(complaints(one_door_to_the_table, "src/gateway/edge.rs", text), 0, "{text}");
        }
        assert_eq!(complaints(one_door_to_the_table, "src/gateway/registrar/publish.rs", "table.store(Arc::new(new));"), 0);
    }

    #[test]
    fn loose_ends_fires() {
        for needle in LOOSE_ENDS {
            assert_eq!(complaints(loose_ends, "tests/e2e/main.rs", &format!("fn f() {{}}\n// {needle} x\n")), 1);
        }
        assert_eq!(complaints(loose_ends, "src/core/x.rs", "#[expect(lint, reason = \"r\")] // all done!"), 0);
    }

    #[test]
    fn length_fires() {
        assert_eq!(complaints(length, "src/gateway/edge.rs", &"\n".repeat(LINES_MAX + 1)), 1);
        assert_eq!(complaints(length, "src/gateway/edge.rs", &"\n".repeat(LINES_MAX)), 0);
        assert_eq!(complaints(length, "tests/tidy.rs", &"\n".repeat(LINES_MAX + 1)), 0);
    }

    #[test]
    fn stray_fires() {
        assert!(stray("scripts").is_some() && stray("Makefile").is_some());
        assert!(TOP_LEVEL.iter().all(|name| stray(name).is_none()) && stray(".gitignore").is_none());
    }

    #[test]
    fn literals_and_comments_are_not_code() {
        let text = "a /* x /* y */ z */ b // c\nd \"e \\\" f\" g r#\"h \" i\"# j 'k' '\\'' l<'m> n '\"' o";
        let code = code_of(text);
        let words: Vec<&str> = code.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        assert_eq!(words, ["a", "b", "d", "g", "r", "j", "l", "m", "n", "o"]);
    }
}
