//! Reads what a predecessor wrote as metadata: a JSON object, or what Python's `str(dict)` made of one. Nothing is evaluated.
//!
//! One grammar covers both: strings in either quotes with the escapes of either language, numbers, the constants of either,
//! and nesting. Only texts stay what they are; everything else is kept as it was written.

use std::collections::BTreeMap;

/// Longer texts are refused.
const BYTES_MAX: usize = 64 * 1024;
/// Deeper nesting is refused.
const DEPTH_MAX: usize = 16;
/// More entries are refused.
const ENTRIES_MAX: usize = 1_024;

/// The entries of a dictionary. `None` when the text is not one, or is absurdly large.
pub(super) fn dictionary(text: &str) -> Option<BTreeMap<String, String>> {
    if text.len() > BYTES_MAX {
        return None;
    }
    let mut reader = Reader { rest: text };
    let mut entries = BTreeMap::new();
    reader.space();
    reader.expect('{')?;
    reader.sequence('}', |reader| {
        let key = reader.string()?;
        reader.space();
        reader.expect(':')?;
        reader.space();
        let value = reader.shown_value()?;
        entries.insert(key, value);
        (entries.len() <= ENTRIES_MAX).then_some(())
    })?;
    reader.space();
    reader.rest.is_empty().then_some(entries)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn expect(&mut self, wanted: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }

    /// What stands before `end`, separated by commas, one of which may stand before it.
    fn sequence(&mut self, end: char, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        loop {
            self.space();
            if self.peek()? == end {
                return self.expect(end);
            }
            item(self)?;
            self.space();
            if self.peek()? != end {
                self.expect(',')?;
            }
        }
    }

    /// A value as text.
    fn shown_value(&mut self) -> Option<String> {
        if self.at_string() {
            return self.string();
        }
        let before = self.rest;
        self.value(0)?;
        let written = &before[..before.len() - self.rest.len()];
        Some(match written {
            "None" => "null".to_owned(),
            "True" => "true".to_owned(),
            "False" => "false".to_owned(),
            written => written.to_owned(),
        })
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        if self.at_string() {
            return self.string().map(drop);
        }
        match self.peek()? {
            '[' => self.nested('[', ']', depth),
            '(' => self.nested('(', ')', depth),
            '{' => {
                self.expect('{')?;
                self.sequence('}', |reader| {
                    reader.value(depth + 1)?;
                    reader.space();
                    // A set has no values.
                    if reader.peek()? == ':' {
                        reader.expect(':')?;
                        reader.space();
                        reader.value(depth + 1)?;
                    }
                    Some(())
                })
            }
            _ => self.word(),
        }
    }

    fn nested(&mut self, start: char, end: char, depth: usize) -> Option<()> {
        self.expect(start)?;
        self.sequence(end, |reader| reader.value(depth + 1))
    }

    /// A number or a constant.
    fn word(&mut self) -> Option<()> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_');
        let length = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(length);
        let constants =
            ["None", "True", "False", "null", "true", "false", "nan", "inf", "-inf", "NaN", "Infinity", "-Infinity"];
        let is_number = word.parse::<f64>().is_ok();
        self.rest = rest;
        (!word.is_empty() && (is_number || constants.contains(&word))).then_some(())
    }

    /// Whether a string is next, perhaps with one of Python's prefixes.
    fn at_string(&self) -> bool {
        let bare = self.rest.strip_prefix(['u', 'b']).unwrap_or(self.rest);
        bare.starts_with(['"', '\''])
    }

    fn string(&mut self) -> Option<String> {
        self.rest = self.rest.strip_prefix(['u', 'b']).unwrap_or(self.rest);
        let quote = self.next().filter(|c| matches!(c, '"' | '\''))?;
        let mut text = String::new();
        loop {
            match self.next()? {
                c if c == quote => return Some(text),
                '\\' => text.extend(self.escaped()?),
                c => text.push(c),
            }
        }
    }

    /// What an escape stands for; nothing for a continued line.
    fn escaped(&mut self) -> Option<Option<char>> {
        let c = match self.next()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'a' => '\u{7}',
            'v' => '\u{b}',
            '0' => '\0',
            'x' => char::from_u32(self.hex(2)?)?,
            'u' => self.utf16()?,
            'U' => char::from_u32(self.hex(8)?).unwrap_or(char::REPLACEMENT_CHARACTER),
            '\n' => return Some(None),
            c => c,
        };
        Some(Some(c))
    }

    /// `\uXXXX`, or two of them that stand for one character.
    fn utf16(&mut self) -> Option<char> {
        let first = self.hex(4)?;
        let before = self.rest;
        if (0xD800..0xDC00).contains(&first) && self.rest.starts_with("\\u") {
            self.rest = &self.rest[2..];
            let second = self.hex(4)?;
            if (0xDC00..0xE000).contains(&second) {
                return char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00));
            }
            self.rest = before;
        }
        Some(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex(&mut self, digits: usize) -> Option<u32> {
        let (text, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(text, 16).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<Vec<(String, String)>> {
        Some(dictionary(text)?.into_iter().collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn what_python_writes() {
        for (text, expected) in [
            ("{}", &[][..]),
            ("{'version': '1.2', 'n': 3, 'x': -1.5e3}", &[("n", "3"), ("version", "1.2"), ("x", "-1.5e3")]),
            (r#"{'quote': "it's", 'both': 'it\'s "so"'}"#, &[("both", "it's \"so\""), ("quote", "it's")]),
            ("{'a': None, 'b': True, 'c': False}", &[("a", "null"), ("b", "true"), ("c", "false")]),
            (
                "{'tags': ['a', 'b'], 'at': (1, 2,), 'in': {'x': {1, 2}}}",
                &[("at", "(1, 2,)"), ("in", "{'x': {1, 2}}"), ("tags", "['a', 'b']")],
            ),
            (r"{'e': '\x41\u00e9\U0001F600\n\\', u'u': u'v'}", &[("e", "Aé😀\n\\"), ("u", "v")]),
            (" { 'a' : 'b' , } ", &[("a", "b")]),
        ] {
            assert_eq!(read(text), pairs(expected), "{text}");
        }
    }

    #[test]
    fn what_json_writes() {
        assert_eq!(
            read(r#"{"a":"b\u00e9\ud83d\ude00\/","n":null,"t":true}"#),
            pairs(&[("a", "bé😀/"), ("n", "null"), ("t", "true")])
        );
    }

    #[test]
    fn what_is_no_dictionary() {
        for text in ["", "None", "[1]", "{'a'}", "{'a': }", "{'a': b}", "{'a': 'b'", "{'a': '\\x4'}", "{'a': 1} x", "{1: 2}"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read(&format!("{{'a': {}{}}}", "[".repeat(100_000), "]".repeat(100_000))), None, "too large");
        assert_eq!(read(&format!("{{'a': {}{}}}", "[".repeat(1000), "]".repeat(1000))), None, "too deep");
        assert_eq!(read("{'a': __import__('os').system('x')}"), None);
    }

    /// As Python shows a string: single quotes, unless it holds one and no double ones.
    fn python(text: &str) -> String {
        let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
        let mut shown = String::from(quote);
        for c in text.chars() {
            match c {
                '\\' => shown += "\\\\",
                '\n' => shown += "\\n",
                '\t' => shown += "\\t",
                '\r' => shown += "\\r",
                c if c == quote => shown.extend(['\\', c]),
                c if c.is_control() && u32::from(c) < 256 => shown += &format!("\\x{:02x}", u32::from(c)),
                c => shown.push(c),
            }
        }
        shown.push(quote);
        shown
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}|[{}\\[\\]()'\"\\\\:,ux0-9 a-fNTF.]{0,60}") {
            let _ = dictionary(&text);
        }

        #[test]
        fn what_either_writes_comes_back(entries in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..8)) {
            let json = serde_json::to_string(&entries).unwrap();
            prop_assert_eq!(dictionary(&json), Some(entries.clone()), "{}", json);
            let shown: Vec<String> = entries.iter().map(|(key, value)| format!("{}: {}", python(key), python(value))).collect();
            let shown = format!("{{{}}}", shown.join(", "));
            prop_assert_eq!(dictionary(&shown), Some(entries), "{}", shown);
        }
    }
}
