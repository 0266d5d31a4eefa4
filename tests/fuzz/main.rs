//! Fuzzing on stable: each target is a plain function over bytes, driven by a seeded loop that mutates the kept inputs.
//!
//! `FUZZ_ROUNDS` and `FUZZ_SEED` make it longer and other; `README.md` tells how to run the targets under libFuzzer.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a property that does not hold is a panic")]

#[path = "../e2e/harness/random.rs"]
mod random;
mod targets;

use random::Random;
use std::path::Path;

/// Enough for a few seconds in an unoptimised build.
const ROUNDS: u64 = 20_000;

/// Inputs grow no larger: limits that are meant for more have tests of their own.
const BYTES_MAX: usize = 2048;

/// What is spliced into inputs beside single bytes.
const WORDS: &[&str] = &[
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "\"",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "ffffffffffffffff",
    "GET / HTTP/1.1\r\n",
    "POST /v2/svc/x?y HTTP/1.1\r\n",
    "HTTP/1.0",
    "Host: x\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: upgrade\r\n",
    "Upgrade: websocket\r\n",
    "http://x",
    "/v2/",
    "..",
    "%2F",
    "for=",
    "127.0.0.1",
    "10.0.0.1",
    "[::1]:80",
    "{\"",
    "\":\"",
    "\\ud800",
    "null",
    "1e999",
];

#[test]
fn heads() {
    drive("head", targets::head::check);
}

#[test]
fn plain_requests() {
    drive("plain", targets::plain::check);
}

#[test]
fn answers() {
    drive("answer", targets::answer::check);
}

#[test]
fn chunks() {
    drive("chunks", targets::chunks::check);
}

#[test]
fn paths() {
    drive("target", targets::target::check);
}

#[test]
fn forwarded_fields() {
    drive("forwarded", targets::forwarded::check);
}

#[test]
fn registry_bodies() {
    drive("registry", targets::registry::check);
}

/// Gives the function the kept inputs, then mutations of them.
fn drive(name: &str, check: fn(&[u8])) {
    let kept = kept(name);
    assert!(!kept.is_empty(), "no inputs are kept for {name}");
    kept.iter().for_each(|input| check(input));
    let seed = number("FUZZ_SEED").unwrap_or(0x5eed_f00d);
    let mut random = Random(seed.max(1));
    for round in 0..number("FUZZ_ROUNDS").unwrap_or(ROUNDS) {
        let input = mutated(&kept, &mut random);
        // The panic's own message says what, this says with which input.
        if std::panic::catch_unwind(|| check(&input)).is_err() {
            panic!("{name}, FUZZ_SEED={seed}, round {round}: {}", input.escape_ascii());
        }
    }
}

/// The inputs in the repository: files of this target's own, and for what reads requests, the corpus of raw bytes.
fn kept(name: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut paths: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn mutated(kept: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = kept[random.below(kept.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] = random.next().to_le_bytes()[0],
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => drop(bytes.splice(at..at, random.bytes(5))),
            3 => drop(bytes.splice(at..at, random.pick(WORDS).bytes())),
            4 => {
                let end = at + random.below(bytes.len() - at + 1);
                drop(bytes.drain(at..end));
            }
            5 => {
                let other = &kept[random.below(kept.len())];
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let end = at + random.below((bytes.len() - at).min(64) + 1);
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

#[expect(clippy::disallowed_methods, reason = "tests have no configuration")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
