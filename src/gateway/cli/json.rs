//! The registry's JSON for people and programs: laid out, but never read and written anew, so that no number, no order and no
//! field that this version does not know gets lost.

use super::text::is_treacherous;
use serde::de::IgnoredAny;
use std::fmt::Write;

/// The text of one JSON document.
///
/// # Errors
/// It is none; the end of a sentence.
pub(super) fn document(body: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| error.to_string())?;
    Ok(text)
}

/// A document laid out over several lines. Anything but JSON gives something odd, but safe.
pub(super) fn pretty(document: &str) -> String {
    let mut out = String::with_capacity(document.len() * 2);
    let mut walk = Walk::default();
    let mut depth: usize = 0;
    let mut rest = document.chars().filter(|&c| walk.is_kept(c)).peekable();
    let mut string = Inside::default();
    while let Some(c) = rest.next() {
        if string.covers(c) {
            push(&mut out, c);
            continue;
        }
        match c {
            '{' | '[' if matches!(rest.peek(), Some('}' | ']')) => out.push(c),
            '{' | '[' => {
                depth += 1;
                out.push(c);
                new_line(&mut out, depth);
            }
            '}' | ']' if out.ends_with(['{', '[']) => out.push(c),
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => push(&mut out, c),
        }
    }
    out
}

/// A document on one line.
pub(super) fn line(document: &str) -> String {
    let mut out = String::with_capacity(document.len());
    let mut walk = Walk::default();
    document.chars().filter(|&c| walk.is_kept(c)).for_each(|c| push(&mut out, c));
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    (0..depth).for_each(|_| out.push_str("  "));
}

/// Inside strings JSON allows characters that a terminal would act on; their escapes mean the same.
fn push(out: &mut String, c: char) {
    if is_treacherous(c) {
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    } else {
        out.push(c);
    }
}

/// Tells white space between tokens from that in strings.
#[derive(Default)]
struct Walk(Inside);

impl Walk {
    fn is_kept(&mut self, c: char) -> bool {
        self.0.covers(c) || !matches!(c, ' ' | '\n' | '\r' | '\t')
    }
}

/// Whether a string is open, quotes included.
#[derive(Default)]
struct Inside {
    open: bool,
    escaped: bool,
}

impl Inside {
    fn covers(&mut self, c: char) -> bool {
        let was_open = self.open;
        match c {
            _ if self.escaped => self.escaped = false,
            '\\' if self.open => self.escaped = true,
            '"' => self.open = !self.open,
            _ => {}
        }
        was_open || self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn laid_out() {
        let text = r#"{"b":[1.50,{}, [],{"x":null}],"a":"q\"{,:\\"}"#;
        let shown =
            "{\n  \"b\": [\n    1.50,\n    {},\n    [],\n    {\n      \"x\": null\n    }\n  ],\n  \"a\": \"q\\\"{,:\\\\\"\n}";
        assert_eq!(pretty(text), shown);
        assert_eq!(line(shown), text.replace(", [", ",["));
        assert_eq!(pretty("[ ]"), "[]");
    }

    #[test]
    fn no_character_of_a_string_acts_on_the_terminal() {
        let text = "{\"a\":\"\u{9b}31m\u{202e}\u{7f}\"}";
        assert_eq!(line(text), r#"{"a":"\u009b31m\u202e\u007f"}"#);
        assert_eq!(serde_json::from_str::<Value>(&line(text)).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [&b"<html>"[..], b"", b"{}{}", b"\"\xff\""] {
            assert!(document(bad).is_err(), "{bad:?}");
        }
        assert_eq!(document(b" [1] ").unwrap(), " [1] ");
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), any::<String>().prop_map(Value::from)];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_meaning_stays(value in value()) {
            let text = value.to_string();
            prop_assert_eq!(&serde_json::from_str::<Value>(&pretty(&text)).unwrap(), &value);
            prop_assert_eq!(&serde_json::from_str::<Value>(&line(&pretty(&text))).unwrap(), &value);
            prop_assert!(!line(&text).contains(is_treacherous));
        }

        #[test]
        fn anything_else_does_no_harm(text: String) {
            pretty(&text);
            prop_assert!(!line(&text).contains(is_treacherous));
        }
    }
}
