//! Request heads: the verdict does not depend on the pieces, a second and naive reading agrees, and what is accepted means the
//! same when it is written down again.

use std::net::Ipv6Addr;
use vertice_gateway::accept::head::{BodyLength, Head, HeadLimits, HeadReader, Verdict, check as read};

pub(crate) fn check(bytes: &[u8]) {
    let limits = HeadLimits::default();
    let whole = read(bytes, &limits);
    let mut reader = HeadReader::new(limits);
    let pieces = super::cuts(bytes).into_iter().map(|end| reader.advance(&bytes[..end])).find(|v| *v != Verdict::NeedMore);
    assert_eq!(pieces.unwrap_or(Verdict::NeedMore), whole, "cut into pieces");
    match (&whole, naive(bytes)) {
        (Verdict::Complete(head), Some(reading)) => {
            assert_eq!(head.head_len, reading.end, "where it ends");
            assert_eq!(&bytes[head.target.clone()], reading.target, "the target");
            assert_eq!(head.body, reading.body, "the body");
            assert_eq!(head.http10, reading.http10);
            assert_eq!(head.websocket, reading.websocket, "the upgrade");
            same_when_written_again(bytes, head, &limits);
        }
        (Verdict::Complete(head), None) => panic!("accepted, but not by the naive reading: {head:?}"),
        (Verdict::Refused(refusal), Some(_)) => panic!("refused, but not by the naive reading: {refusal:?}"),
        (Verdict::NeedMore, Some(_)) => panic!("complete by the naive reading"),
        (_, None) => {}
    }
}

fn same_when_written_again(bytes: &[u8], head: &Head, limits: &HeadLimits) {
    let target = head.rewritten_target(bytes).unwrap_or_else(|| bytes[head.target.clone()].to_vec());
    assert!(target.starts_with(b"/"), "everything behind reads paths");
    let before = &bytes[head.head_start..head.target.start];
    let again = [before, &target, &bytes[head.target.end..head.head_len]].concat();
    let Verdict::Complete(second) = read(&again, limits) else { panic!("not accepted again: {}", again.escape_ascii()) };
    assert_eq!(&again[second.target.clone()], target);
    assert_eq!((second.body, second.http10, second.websocket), (head.body, head.http10, head.websocket));
    assert_eq!(second.rewritten_target(&again), None);
}

struct Reading<'a> {
    end: usize,
    target: &'a [u8],
    body: BodyLength,
    http10: bool,
    websocket: bool,
}

/// The same grammar, read without any care for speed, pieces or explanations.
fn naive(bytes: &[u8]) -> Option<Reading<'_>> {
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let length = bytes[start..].windows(4).position(|window| window == b"\r\n\r\n")?;
    let end = start + length + 4;
    let text: Vec<&[u8]> = split(&bytes[start..end - 4], b"\r\n");
    if text.iter().any(|line| line.contains(&b'\r') || line.contains(&b'\n') || line.is_empty()) {
        return None;
    }
    let words: Vec<&[u8]> = split(text[0], b" ");
    let [method, target, version] = words[..] else { return None };
    let http10 = match version {
        b"HTTP/1.0" => true,
        b"HTTP/1.1" => false,
        _ => return None,
    };
    if !is_token(method) || method.len() > 32 || method == b"CONNECT" || method == b"TRACE" {
        return None;
    }
    let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
    for line in &text[1..] {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = trim(&line[colon + 1..]);
        if !is_token(&line[..colon]) || value.iter().any(|byte| (*byte < 32 && *byte != 9) || *byte == 127) {
            return None;
        }
        fields.push((String::from_utf8(line[..colon].to_ascii_lowercase()).ok()?, value.to_vec()));
    }
    let all = |name: &str| fields.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_slice()).collect::<Vec<_>>();
    let host = match all("host")[..] {
        [] if http10 => None,
        [host] if is_authority(host) => Some(host.to_ascii_lowercase()),
        _ => return None,
    };
    check_target(target, host.as_deref())?;
    let body = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => BodyLength::None,
        ([length], []) => BodyLength::Length(number(length)?),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && !http10 => BodyLength::Chunked,
        _ => return None,
    };
    let websocket = upgrade(&all("connection"), &all("upgrade"), method, body, http10)?;
    (fields.len() <= 128 && target.len() <= 16_384).then_some(Reading { end, target, body, http10, websocket })
}

fn check_target(target: &[u8], host: Option<&[u8]>) -> Option<()> {
    let query_at = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at(query_at);
    let fine = |part: &[u8], not: &[u8]| part.iter().all(|byte| (33..127).contains(byte) && !not.contains(byte));
    if !fine(path, b"#<>`") || !fine(query, b"#<>\"") {
        return None;
    }
    if target.starts_with(b"/") {
        return Some(());
    }
    let lower = target.to_ascii_lowercase();
    let rest = lower.strip_prefix(b"http://").or(lower.strip_prefix(b"https://"))?;
    let authority = rest.split(|byte| matches!(byte, b'/' | b'?')).next()?;
    (is_authority(authority) && Some(authority) == host).then_some(())
}

fn upgrade(connection: &[&[u8]], upgrade: &[&[u8]], method: &[u8], body: BodyLength, http10: bool) -> Option<bool> {
    let options: Vec<Vec<u8>> = connection
        .iter()
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|option| option.trim_ascii().to_ascii_lowercase())
        .filter(|option| !option.is_empty())
        .collect();
    const NOT_NAMED: &str = "authorization content-encoding content-length content-type cookie host transfer-encoding \
                             x-forwarded-for x-forwarded-host x-forwarded-proto";
    let bad = |option: &Vec<u8>| !is_token(option) || NOT_NAMED.split(' ').any(|name| name.as_bytes() == option.as_slice());
    if options.len() > 9 || options.iter().any(bad) {
        return None;
    }
    let protocols: Vec<Vec<u8>> = upgrade
        .iter()
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|protocol| protocol.trim_ascii().to_ascii_lowercase())
        .collect();
    if !protocols.iter().any(|protocol| protocol.starts_with(b"websocket")) {
        return Some(false);
    }
    if upgrade.len() != 1 || !upgrade[0].eq_ignore_ascii_case(b"websocket") {
        return None;
    }
    if http10 {
        return Some(false);
    }
    let has_body = !matches!(body, BodyLength::None | BodyLength::Length(0));
    let asked = options.iter().any(|option| option == b"upgrade");
    (asked && method == b"GET" && !has_body).then_some(true)
}

fn is_authority(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (host_ok, rest) = match text.strip_prefix('[') {
        Some(inside) => match inside.split_once(']') {
            Some((address, rest)) => (address.parse::<Ipv6Addr>().is_ok(), rest),
            None => return false,
        },
        None => {
            let host = text.split(':').next().unwrap_or_default();
            let fine = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=%".contains(c);
            (!host.is_empty() && host.chars().all(fine), &text[host.len()..])
        }
    };
    let port_ok = rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.is_empty() || is_port(port));
    host_ok && port_ok
}

fn is_port(text: &str) -> bool {
    number(text.as_bytes()).is_some_and(|port| port < 65_536)
}

fn number(bytes: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse::<u64>().ok().filter(|number| *number <= i64::MAX as u64)
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn split<'a>(bytes: &'a [u8], by: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(by.len()).position(|window| window == by) {
        parts.push(&rest[..at]);
        rest = &rest[at + by.len()..];
    }
    parts.push(rest);
    parts
}
