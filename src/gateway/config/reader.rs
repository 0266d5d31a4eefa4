//! Takes values out of a document, one key at a time, and remembers every mistake instead of stopping at the first.
//!
//! A key that nobody asks for is a mistake too, so that a typo never means a default.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::environment;
use super::mistake::{ConfigErrors, Mistake, nearest};
use super::raw::{Document, Entry, Item, Key, Origin, Value, shown};
use super::secret::Secret;
use super::source::ReadFile;
use super::value;

/// See the module. Keys are relative to the section that is being read ([`Reader::within`]).
pub(super) struct Reader<'a> {
    document: &'a Document,
    read_file: ReadFile<'a>,
    section: Key,
    asked: BTreeSet<Key>,
    mistakes: Vec<Mistake>,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(document: &'a Document, read_file: ReadFile<'a>) -> Self {
        Self { document, read_file, section: Key::new(), asked: BTreeSet::new(), mistakes: Vec::new(), warnings: Vec::new() }
    }

    /// The warnings, or every mistake.
    pub(super) fn finish(self) -> Result<Vec<String>, ConfigErrors> {
        ConfigErrors::of(self.mistakes).map(|()| self.warnings)
    }

    /// How files are read.
    pub(super) fn files(&self) -> ReadFile<'a> {
        self.read_file
    }

    /// Every key that was asked for.
    pub(super) fn into_asked(self) -> BTreeSet<Key> {
        self.asked
    }

    /// Lets `read` read the section `name` of the present one.
    pub(super) fn within<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.section.push(name.to_owned());
        let result = read(self);
        self.section.pop();
        result
    }

    /// The names of the tables in this section: those that the operator chose.
    pub(super) fn children(&self) -> Vec<String> {
        self.document.children(&self.section)
    }

    /// The names of the values that stand directly in this section.
    pub(super) fn names(&self) -> Vec<String> {
        self.document.names(&self.section)
    }

    /// A mistake of this section as a whole; nothing in it is reported as unknown any more.
    pub(super) fn refuse_section(&mut self, message: String) {
        let section = self.section.clone();
        let inside = self.document.entries().map(|(key, _)| key).filter(|key| key.starts_with(&section));
        self.asked.extend(inside.cloned());
        self.asked.insert(section.clone());
        let origin = self.document.table_origin(&section);
        self.mistakes.push(Mistake::new(origin, Some(shown(&section)), message));
    }

    /// A mistake about the value of `key` that shows only beside another value.
    pub(super) fn refuse(&mut self, key: &str, message: String) {
        let origin = self.place(key);
        self.mistakes.push(Mistake::new(origin, Some(shown(&self.key(key))), message));
    }

    /// The same for a key that is given from the top.
    pub(super) fn refuse_at(&mut self, key: &[&str], message: String) {
        match key {
            [] => {}
            [key] => self.refuse(key, message),
            [section, rest @ ..] => self.within(section, |r| r.refuse_at(rest, message)),
        }
    }

    /// Where the value of `key` stands, or failing that its section.
    pub(super) fn place(&self, key: &str) -> Origin {
        let entry = self.document.candidates(&self.key(key)).first();
        entry.map_or_else(|| self.document.table_origin(&self.section), |entry| entry.origin.clone())
    }

    /// A mistake about two values that do not fit together, shown at whichever of them was written.
    pub(super) fn refuse_pair(&mut self, key: &str, other: &str, message: String) {
        let written = !self.document.candidates(&self.key(key)).is_empty();
        self.refuse(if written { key } else { other }, message);
    }

    /// Something the operator should know.
    pub(super) fn warn(&mut self, message: String) {
        self.warnings.push(message);
    }

    /// What `key` of another section says, which reads it and reports what is wrong with it.
    pub(super) fn peek<T>(&self, section: &str, key: &str, parse: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let key = vec![section.to_owned(), key.to_owned()];
        self.document.candidates(&key).iter().find_map(|entry| parse(&entry.value))
    }

    /// Whether nobody wrote `key`.
    pub(super) fn is_absent(&self, key: &str) -> bool {
        self.document.candidates(&self.key(key)).is_empty()
    }

    /// Whether `key` was written by someone who means this program, not only by the predecessor's environment.
    pub(super) fn is_ours(&self, key: &str) -> bool {
        let key = self.key(key);
        self.document.candidates(&key).iter().any(|entry| !matches!(entry.origin, Origin::Predecessor(_)))
    }

    /// The value of `key` as `parse` understands it.
    ///
    /// What the predecessor's variable says wrongly is only warned about, and the next source counts.
    pub(super) fn value<T>(&mut self, key: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        let key = self.ask(key);
        let document = self.document;
        for Entry { value, origin, .. } in document.candidates(&key) {
            match (parse(value), origin) {
                (Ok(value), _) => return Some(value),
                (Err(message), Origin::Predecessor(_)) => self.ignored(origin, &message),
                (Err(message), _) => {
                    self.mistakes.push(Mistake::new(origin.clone(), Some(shown(&key)), message));
                    return None;
                }
            }
        }
        None
    }

    /// The values of the list `key`; a single value is a list of one, and in a variable commas separate.
    pub(super) fn list<T>(&mut self, key: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Option<Vec<T>> {
        let key = self.ask(key);
        let document = self.document;
        let entry = document.candidates(&key).first()?;
        let parsed = items(entry).into_iter().filter_map(|item| match (parse(&item.value), &item.origin) {
            (Ok(value), _) => Some(value),
            (Err(message), Origin::Predecessor(_)) => {
                self.ignored(&item.origin, &message);
                None
            }
            (Err(message), _) => {
                self.mistakes.push(Mistake::new(item.origin.clone(), Some(shown(&key)), message));
                None
            }
        });
        Some(parsed.collect())
    }

    /// A duration within `range`.
    pub(super) fn duration(&mut self, key: &str, default: Duration, range: RangeInclusive<Duration>) -> Duration {
        self.value(key, |value| in_range(value::duration(value)?, &range, humantime::format_duration)).unwrap_or(default)
    }

    /// A duration within `range`, or none: 0 or an empty text says so.
    pub(super) fn optional_duration(
        &mut self,
        key: &str,
        default: Option<Duration>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let parse = |value: &Value| match value {
            Value::Text(text) if text.trim().is_empty() => Ok(None),
            value => match value::duration(value)? {
                Duration::ZERO => Ok(None),
                duration => in_range(duration, &range, humantime::format_duration).map(Some),
            },
        };
        self.value(key, parse).unwrap_or(default)
    }

    /// A whole number within `range`.
    pub(super) fn integer<N: TryFrom<u64> + PartialOrd + Display + Copy>(
        &mut self,
        key: &str,
        default: N,
        range: RangeInclusive<N>,
    ) -> N {
        let parse = |value: &Value| {
            let number = value::integer(value)?;
            match N::try_from(number) {
                Ok(number) => in_range(number, &range, |n| n),
                Err(_) => Err(out_of_range(number, *range.start(), *range.end())),
            }
        };
        self.value(key, parse).unwrap_or(default)
    }

    /// A whole number within `range`, or none: 0 or an empty text says so.
    pub(super) fn optional_integer(&mut self, key: &str, default: Option<u32>, range: RangeInclusive<u32>) -> Option<u32> {
        let parse = |value: &Value| match value {
            Value::Text(text) if text.trim().is_empty() => Ok(None),
            value => match value::integer(value)? {
                0 => Ok(None),
                number => match u32::try_from(number) {
                    Ok(number) => in_range(number, &range, |n| n).map(Some),
                    Err(_) => Err(out_of_range(number, *range.start(), *range.end())),
                },
            },
        };
        self.value(key, parse).unwrap_or(default)
    }

    /// A number of bytes within `range`.
    pub(super) fn bytes(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.value(key, |value| in_range(value::bytes(value)?, &range, |n| format!("{n} bytes"))).unwrap_or(default)
    }

    /// A number of bytes, or none: 0 or an empty text says so. `None` when nothing was written.
    pub(super) fn optional_bytes(&mut self, key: &str) -> Option<Option<u64>> {
        let parse = |value: &Value| match value {
            Value::Text(text) if text.trim().is_empty() => Ok(0),
            value => value::bytes(value),
        };
        self.value(key, parse).map(|bytes| Some(bytes).filter(|bytes| *bytes > 0))
    }

    /// A truth value.
    pub(super) fn boolean(&mut self, key: &str, default: bool) -> bool {
        self.optional_boolean(key).unwrap_or(default)
    }

    /// A truth value, if one was written.
    pub(super) fn optional_boolean(&mut self, key: &str) -> Option<bool> {
        self.value(key, value::boolean)
    }

    /// A text, if a non-empty one was written.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.value(key, |value| value::text(value).map(str::to_owned)).filter(|text| !text.is_empty())
    }

    /// A short name, if a non-empty one was written.
    pub(super) fn label(&mut self, key: &str) -> Option<String> {
        let parse = |value: &Value| match value {
            Value::Text(text) if text.trim().is_empty() => Ok(None),
            value => value::label(value).map(Some),
        };
        self.value(key, parse).flatten()
    }

    /// One of `choices`, in any case.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, default: T, choices: &[(&str, T)]) -> T {
        self.choice_or(key, default, choices, &[])
    }

    /// One of `choices`, in any case; `synonyms` are understood as well but not advertised.
    pub(super) fn choice_or<T: Copy>(&mut self, key: &str, default: T, choices: &[(&str, T)], synonyms: &[(&str, T)]) -> T {
        let parse = |value: &Value| {
            let given = value::text(value)?;
            let same = |(name, _): &&(&str, T)| name.eq_ignore_ascii_case(given);
            choices.iter().chain(synonyms).find(same).map(|(_, choice)| *choice).ok_or_else(|| {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                format!("{} is not one of {}", value::given(value), names.join(", "))
            })
        };
        self.value(key, parse).unwrap_or(default)
    }

    /// Addresses to bind, none of them twice (port 0 excepted: it is another port each time).
    pub(super) fn addresses(&mut self, key: &str, default: &[SocketAddr]) -> Vec<SocketAddr> {
        let addresses = self.list(key, value::address).unwrap_or_else(|| default.to_vec());
        for (index, address) in addresses.iter().enumerate() {
            if address.port() != 0 && addresses[..index].contains(address) {
                self.refuse(key, format!("{address} is listed twice"));
            }
        }
        addresses
    }

    /// Networks.
    pub(super) fn networks(&mut self, key: &str, default: &[IpNet]) -> Vec<IpNet> {
        self.list(key, value::network).unwrap_or_else(|| default.to_vec())
    }

    /// A secret, written as `key` or standing in the file that `key_file` names (a newline at its end does not count).
    pub(super) fn secret(&mut self, key: &str, parse: impl Fn(&str) -> Result<(), String>) -> Option<Secret> {
        let mut secrets = self.secrets(key, Separation::None, |text| parse(text).map(|()| Secret::new(text)))?;
        secrets.pop()
    }

    /// Secrets, written as the list `key` or standing in the file that `key_file` names, one a line.
    pub(super) fn secret_list<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        self.secrets(key, Separation::Each, parse).unwrap_or_default()
    }

    /// Messages never repeat what was given.
    fn secrets<T>(&mut self, key: &str, separation: Separation, parse: impl Fn(&str) -> Result<T, String>) -> Option<Vec<T>> {
        let (texts, key) = self.secret_texts(key, separation)?;
        let mut parsed = Vec::new();
        for (text, origin) in texts {
            match (text.and_then(|text| parse(&text)), &origin) {
                (Ok(value), _) => parsed.push(value),
                (Err(message), Origin::Predecessor(_)) => self.ignored(&origin, &message),
                (Err(message), _) => self.mistakes.push(Mistake::new(origin, Some(shown(&key)), message)),
            }
        }
        Some(parsed)
    }

    /// The texts of a secret with their places, and the key they were found under.
    fn secret_texts(&mut self, key: &str, separation: Separation) -> Option<(Vec<Placed>, Key)> {
        let document = self.document;
        let (plain_key, file_key) = (self.ask(key), self.ask(&format!("{key}_file")));
        let plain = document.candidates(&plain_key).first();
        let file = document.candidates(&file_key).first();
        match (plain, file) {
            (None, None) => None,
            (Some(plain), Some(file)) if plain.origin.rank() == file.origin.rank() => {
                let message = format!("set together with {}; give only one of them", file.origin);
                self.mistakes.push(Mistake::new(plain.origin.clone(), Some(shown(&plain_key)), message));
                None
            }
            (Some(plain), file) if file.is_none_or(|file| plain.origin.rank() < file.origin.rank()) => {
                Some((written_secrets(plain, separation), plain_key))
            }
            (_, file) => Some((self.secrets_of_file(file?, separation), file_key)),
        }
    }

    fn secrets_of_file(&self, entry: &Entry, separation: Separation) -> Vec<Placed> {
        let texts = value::text(&entry.value).and_then(|path| {
            let content = (self.read_file)(Path::new(path));
            content.map_err(|cause| format!("failed to read {}: {cause}", value::shortened(path)))
        });
        let placed = |text: Result<String, String>| (text, entry.origin.clone());
        match texts {
            Err(message) => vec![placed(Err(message))],
            Ok(content) if separation == Separation::Each => {
                let lines: Vec<&str> = content.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
                let lines = if lines.is_empty() { vec![""] } else { lines };
                lines.into_iter().map(|line| placed(Ok(line.to_owned()))).collect()
            }
            Ok(content) => {
                let line = content.strip_suffix('\n').unwrap_or(&content);
                vec![placed(Ok(line.strip_suffix('\r').unwrap_or(line).to_owned()))]
            }
        }
    }

    /// Makes a mistake of everything written that nobody asked for.
    pub(super) fn refuse_unknown(&mut self, known: &BTreeSet<Key>) {
        let document = self.document;
        let values = document.entries().filter(|(key, _)| !self.asked.contains(*key));
        let values = values.map(|(key, entry)| (key, &entry.key_origin));
        let tables = document.empty_tables().filter(|(key, _)| !is_section(key, known) && !self.asked.contains(*key));
        let unknown: Vec<Mistake> = values.chain(tables).map(|(key, origin)| unknown_key(key, origin, known)).collect();
        self.mistakes.extend(unknown);
    }

    fn ignored(&mut self, origin: &Origin, message: &str) {
        self.warnings.push(format!("{origin} is ignored: {message}"));
    }

    fn ask(&mut self, key: &str) -> Key {
        let key = self.key(key);
        self.asked.insert(key.clone());
        key
    }

    fn key(&self, key: &str) -> Key {
        [&self.section[..], &[key.to_owned()]].concat()
    }
}

/// A text, or why there is none, and where it was found.
type Placed = (Result<String, String>, Origin);

/// Whether what is written may hold several secrets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Separation {
    None,
    Each,
}

/// The elements of a list, however it was written.
fn items(entry: &Entry) -> Vec<Item> {
    let item = |value: Value| Item { value, origin: entry.origin.clone() };
    match (&entry.value, &entry.origin) {
        (Value::List(items), _) => items.clone(),
        (Value::Text(text), Origin::Variable(_) | Origin::Predecessor(_)) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(|part| item(Value::Text(part.to_owned()))).collect()
        }
        (single, _) => vec![item(single.clone())],
    }
}

fn written_secrets(entry: &Entry, separation: Separation) -> Vec<Placed> {
    let mut items = match separation {
        Separation::Each => items(entry),
        Separation::None => vec![Item { value: entry.value.clone(), origin: entry.origin.clone() }],
    };
    // An empty variable must not silently mean "no secret": it is what an unset variable in a compose file looks like.
    if items.is_empty() && matches!(entry.value, Value::Text(_)) {
        items.push(Item { value: Value::Text(String::new()), origin: entry.origin.clone() });
    }
    let text = |value: Value| match value {
        Value::Text(text) => Ok(text),
        _ => Err("a secret is a text; put it in quotes".to_owned()),
    };
    items.into_iter().map(|item| (text(item.value), item.origin)).collect()
}

fn in_range<T: PartialOrd + Copy, D: Display>(value: T, range: &RangeInclusive<T>, show: impl Fn(T) -> D) -> Result<T, String> {
    if range.contains(&value) { Ok(value) } else { Err(out_of_range(show(value), show(*range.start()), show(*range.end()))) }
}

fn out_of_range(value: impl Display, low: impl Display, high: impl Display) -> String {
    format!("{value} is out of range; allowed is {low} to {high}")
}

/// Whether a table `key` may exist, with or without anything in it.
fn is_section(key: &[String], known: &BTreeSet<Key>) -> bool {
    known.iter().any(|known| known.len() > key.len() && fits(key, &known[..key.len()]))
}

/// Whether `key` has the form of `pattern`, where `*` stands for any name.
fn fits(key: &[String], pattern: &[String]) -> bool {
    key.len() == pattern.len() && key.iter().zip(pattern).all(|(name, wanted)| wanted == "*" || name == wanted)
}

fn unknown_key(key: &[String], origin: &Origin, known: &BTreeSet<Key>) -> Mistake {
    let key_text = shown(key);
    let takes_value = (1..key.len()).rev().find(|depth| known.iter().any(|known| fits(&key[..*depth], known)));
    let message = if is_section(key, known) {
        format!("'{key_text}' is a section and takes no value of its own")
    } else if let Some(depth) = takes_value {
        format!("unknown key '{key_text}': '{}' takes a value, not a table", shown(&key[..depth]))
    } else {
        let candidates = known.iter().map(|pattern| with_names_of(key, pattern));
        let variable = matches!(origin, Origin::Variable(_));
        let spelled = |text: String, key: &[String]| if variable { environment::variable_of(key) } else { text };
        let suggestion = nearest_key(&key_text, candidates).map(|(text, key)| spelled(text, &key));
        let hint = suggestion.map(|name| format!(" (did you mean '{name}'?)")).unwrap_or_default();
        format!("unknown key '{key_text}'{hint}")
    };
    Mistake::new(origin.clone(), None, message)
}

fn nearest_key(given: &str, candidates: impl Iterator<Item = Key>) -> Option<(String, Key)> {
    let by_text: std::collections::BTreeMap<String, Key> = candidates.map(|key| (shown(&key), key)).collect();
    nearest(given, by_text.keys().cloned()).and_then(|text| by_text.get_key_value(&text).map(|(t, k)| (t.clone(), k.clone())))
}

/// `pattern` with the names that the operator chose in `key`.
fn with_names_of(key: &[String], pattern: &[String]) -> Key {
    let same_section = key.first() == pattern.first() && key.len() == pattern.len();
    let name = |(depth, wanted): (usize, &String)| match key.get(depth) {
        Some(given) if same_section && wanted == "*" => given.clone(),
        _ => wanted.clone(),
    };
    pattern.iter().enumerate().map(name).collect()
}
