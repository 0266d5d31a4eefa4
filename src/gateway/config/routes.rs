//! Requests that lead to a service without `/v2/`: the sections `[[routes]]`.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;

use vertice_core::grammar::is_token_byte;
use vertice_core::name::ServiceName;
use vertice_core::policy::{Policy, Timeouts};
use vertice_core::route::{Clash, HeaderPattern, HostPattern, PathPattern, Pattern, SHAPES_MAX, StaticRoute, clashes};

use super::policy::{read_priority, read_timeouts};
use super::raw::Value;
use super::reader::Reader;
use super::routing::ServiceSettings;
use super::value;

/// Paths that the gateway answers itself. A route inside one of them could never be reached.
const OWN_PATHS: [&str; 11] = [
    "/v2",
    "/gateway",
    "/health",
    "/livez",
    "/readyz",
    "/metrics",
    "/register",
    "/heartbeat",
    "/deregister",
    "/services",
    "/openapi.json",
];

/// How many header fields a route may look at.
const HEADERS_MAX: usize = 8;

/// No longer method arrives: see the limits of a request's head.
const METHOD_BYTES_MAX: usize = 32;

const HEADER_NAME_BYTES_MAX: usize = 128;
const HEADER_VALUE_BYTES_MAX: usize = 1024;

/// The sections `[[routes]]`; a route takes what it does not say itself from its service.
pub(super) fn read_routes(
    r: &mut Reader<'_>,
    base: &Policy,
    services: &BTreeMap<ServiceName, ServiceSettings>,
) -> Vec<StaticRoute> {
    let timeouts_of = |service: &ServiceName| services.get(service).map_or(base, |settings| &settings.policy).timeouts;
    r.within("routes", |r| {
        let mut read = Routes::default();
        for index in r.children() {
            r.within(&index, |r| read_listed_route(r, &index, timeouts_of, &mut read));
        }
        for clash in clashes(&read.patterns) {
            refuse_clash(r, &clash, &read.places);
        }
        read.routes
    })
}

/// Asks for every key of a route once.
pub(super) fn read_sample(r: &mut Reader<'_>, base: &Policy) {
    r.within("routes", |r| {
        r.within("*", |r| {
            read_route(r, "*", |_| base.timeouts, &mut Routes::default());
            r.within("headers", |r| r.text("*"));
        });
    });
}

/// What was read so far. A route with a mistake elsewhere can still be in the way of others, so patterns count by themselves.
#[derive(Default)]
struct Routes {
    routes: Vec<StaticRoute>,
    names: BTreeSet<String>,
    patterns: Vec<Pattern>,
    /// Of each pattern, where its route is in the list, and that route's name.
    places: Vec<(String, String)>,
}

fn read_listed_route(r: &mut Reader<'_>, index: &str, timeouts_of: impl Fn(&ServiceName) -> Timeouts, read: &mut Routes) {
    if index.parse::<u64>().is_err() {
        return r.refuse_section("routes is a list without names: write [[routes]]".to_owned());
    }
    let route = read_route(r, index, timeouts_of, read);
    read.routes.extend(route);
}

fn read_route(
    r: &mut Reader<'_>,
    index: &str,
    timeouts_of: impl Fn(&ServiceName) -> Timeouts,
    read: &mut Routes,
) -> Option<StaticRoute> {
    let name = required(r, "name", value::label);
    let pattern = read_pattern(r);
    let service = required(r, "service", |value| value::service_name(value::text(value)?));
    let rewrite = read_rewrite(r);
    let allow_half_close = r.optional_boolean("allow_half_close");
    let preserve_host = r.optional_boolean("preserve_host");
    let body_bytes = r.optional_bytes("body_bytes");
    let priority = read_priority(r);
    let base = service.as_ref().map_or_else(Timeouts::default, timeouts_of);
    let timeouts = r.within("timeouts", |r| read_timeouts(r, base));
    check_name(r, name.as_ref(), &mut read.names);
    if let Some(pattern) = &pattern {
        read.patterns.push(pattern.clone());
        read.places.push((index.to_owned(), name.clone().unwrap_or_default()));
    }
    Some(StaticRoute {
        name: name?.into(),
        pattern: pattern?,
        service: service?,
        rewrite,
        timeouts: (timeouts != base).then_some(timeouts),
        allow_half_close,
        preserve_host,
        body_bytes,
        priority,
    })
}

pub(super) fn required<T>(r: &mut Reader<'_>, key: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
    if r.is_absent(key) {
        r.refuse(key, "missing".to_owned());
    }
    r.value(key, parse)
}

/// None when one part of it is refused: without that part the route would take other requests than it should.
fn read_pattern(r: &mut Reader<'_>) -> Option<Pattern> {
    let (path, hosts) = (read_path(r), read_distinct(r, "host", host));
    let (methods, headers) = (read_distinct(r, "methods", method), r.within("headers", read_headers));
    Some(Pattern { path: path?, hosts: hosts?, methods: methods?, headers: headers? })
}

/// A host alone is all of its paths.
fn read_path(r: &mut Reader<'_>) -> Option<PathPattern> {
    let (exact, prefix) = (r.value("path", free(value::path)), r.value("prefix", free(value::path_prefix)));
    match (r.is_absent("path"), r.is_absent("prefix")) {
        (false, false) => {
            r.refuse("prefix", "path and prefix exclude each other".to_owned());
            None
        }
        (true, true) if r.is_absent("host") => {
            r.refuse("prefix", "missing; a route has a path, a prefix or a host".to_owned());
            None
        }
        (true, true) => Some(PathPattern::Prefix("/".into())),
        _ => exact.map(|path| PathPattern::Exact(path.into())).or(prefix.map(|prefix| PathPattern::Prefix(prefix.into()))),
    }
}

/// A path that `parse` understands and that the gateway does not answer itself.
fn free(parse: fn(&Value) -> Result<String, String>) -> impl Fn(&Value) -> Result<String, String> {
    move |value| {
        let path = parse(value)?;
        let inside = |own: &&str| path.strip_prefix(*own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        match OWN_PATHS.into_iter().find(|own| inside(own)) {
            Some(own) => Err(format!("{path:?} cannot be routed: the gateway answers {own} itself")),
            None => Ok(path),
        }
    }
}

/// A list in which nothing is twice: empty when nobody wrote it, `None` when something in it is refused.
fn read_distinct<T: PartialEq + Display>(
    r: &mut Reader<'_>,
    key: &str,
    parse: impl Fn(&Value) -> Result<T, String>,
) -> Option<Vec<T>> {
    let is_refused = Cell::new(false);
    let items = r.list(key, |value| parse(value).inspect_err(|_| is_refused.set(true)));
    let Some(items) = items else { return Some(Vec::new()) };
    let twice = (1..items.len()).find(|at| items[..*at].contains(&items[*at]));
    match twice {
        Some(at) => r.refuse(key, format!("{} is listed twice", items[at])),
        None if items.is_empty() && !is_refused.get() => r.refuse(key, "an empty list; leave it out to match any".to_owned()),
        None => return Some(items).filter(|_| !is_refused.get()),
    }
    None
}

fn host(value: &Value) -> Result<HostPattern, String> {
    HostPattern::parse(value::text(value)?).map_err(|why| format!("{} is not a host: it {why}", value::given(value)))
}

fn method(value: &Value) -> Result<Arc<str>, String> {
    let text = value::text(value)?;
    if text.is_empty() || text.len() > METHOD_BYTES_MAX || !text.bytes().all(is_token_byte) {
        return Err(format!("{} is not a method; give for example \"GET\"", value::given(value)));
    }
    if text.bytes().any(|b| b.is_ascii_lowercase()) {
        return Err(format!("{} is not in upper case, and methods are compared with their case", value::given(value)));
    }
    if text == "CONNECT" {
        return Err("requests with CONNECT are refused before they are routed".to_owned());
    }
    Ok(text.into())
}

/// The fields in the order of their names.
fn read_headers(r: &mut Reader<'_>) -> Option<Vec<HeaderPattern>> {
    let names = r.names();
    if names.len() > HEADERS_MAX {
        r.refuse_section(format!("{} header fields; a route may look at {HEADERS_MAX}", names.len()));
        return None;
    }
    let mut headers: Vec<HeaderPattern> = Vec::new();
    for name in &names {
        let Some(header) = read_header(r, name) else { continue };
        if headers.iter().any(|earlier| earlier.name == header.name) {
            r.refuse(name, "given twice: names of header fields have no case".to_owned());
        } else {
            headers.push(header);
        }
    }
    Some(headers).filter(|headers| headers.len() == names.len())
}

fn read_header(r: &mut Reader<'_>, name: &str) -> Option<HeaderPattern> {
    let value = r.value(name, header_value);
    if name.is_empty() || name.len() > HEADER_NAME_BYTES_MAX || !name.bytes().all(is_token_byte) {
        r.refuse(name, format!("{} is not the name of a header field", value::shortened(name)));
        return None;
    }
    if name.eq_ignore_ascii_case("host") {
        r.refuse(name, "hosts are matched by the route's own key host".to_owned());
        return None;
    }
    Some(HeaderPattern { name: name.to_ascii_lowercase().into(), value: value? })
}

/// `"*"` asks for the field, whatever its value.
fn header_value(value: &Value) -> Result<Option<Arc<str>>, String> {
    match value::text(value)? {
        "*" => Ok(None),
        text if text.is_empty() || text.len() > HEADER_VALUE_BYTES_MAX || text.chars().any(char::is_control) => {
            let given = value::given(value);
            Err(format!("{given} is not a value to match; 1 to {HEADER_VALUE_BYTES_MAX} bytes, or \"*\" for any"))
        }
        text => Ok(Some(text.into())),
    }
}

/// `strip` is a rewrite to nothing, which as a path is `/`. What replaces a whole path is one itself.
fn read_rewrite(r: &mut Reader<'_>) -> Option<Arc<str>> {
    let strip = r.boolean("strip", false);
    let rewrite = r.value("rewrite", if r.is_absent("path") { value::path_prefix } else { value::path });
    match rewrite {
        Some(_) if strip => {
            r.refuse("strip", "strip and rewrite exclude each other".to_owned());
            None
        }
        Some(rewrite) => Some(rewrite.into()),
        None => strip.then(|| "/".into()),
    }
}

/// Refuses a name that is taken.
fn check_name(r: &mut Reader<'_>, name: Option<&String>, names: &mut BTreeSet<String>) {
    let Some(name) = name else { return };
    if name == "v2" {
        r.refuse("name", "\"v2\" is the name of the built-in route".to_owned());
    }
    if !names.insert(name.clone()) {
        r.refuse("name", format!("{name:?} is the name of an earlier route too"));
    }
}

fn refuse_clash(r: &mut Reader<'_>, clash: &Clash, places: &[(String, String)]) {
    let (index, name) = &places[clash.route()];
    let other = |r: &mut Reader<'_>, at: usize| {
        let (index, name) = &places[at];
        let place = r.within(index, |r| r.place(pattern_key(r)));
        format!("{name:?} ({place})")
    };
    let message = match clash {
        Clash::Conflict { earlier, request, .. } => {
            let other = other(r, *earlier);
            format!("route {name:?} is in conflict with {other}: {request} matches both, and neither is more specific")
        }
        Clash::Shadowed { by, .. } => format!("route {name:?} can never win: {} takes all its requests", other(r, *by)),
        Clash::Crowded { .. } => {
            format!("route {name:?} looks at one set of header fields too many for one host and path; at most {SHAPES_MAX}")
        }
    };
    r.within(index, |r| r.refuse(pattern_key(r), message));
}

/// The key that shows which requests the route takes.
fn pattern_key(r: &Reader<'_>) -> &'static str {
    ["path", "prefix", "host"].into_iter().find(|key| !r.is_absent(key)).unwrap_or("prefix")
}
