//! What was written: the TOML document as a flat table of keys, each with its value and the place it stands at.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, Range};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::mistake::{ConfigErrors, Mistake};

/// A key as its segments: `timeouts.connect` is `["timeouts", "connect"]`; entries of a list of tables have their
/// number as a segment.
pub(super) type Key = Vec<String>;

/// Tables nested deeper than any key of ours are not looked into.
const DEPTH_MAX: usize = 8;

/// Where something was written.
///
/// The order is that in which mistakes are shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The file as a whole, or no place in particular.
    Whole(Arc<str>),
    /// A place in the file; lines and columns (in characters) count from 1.
    File(Arc<str>, usize, usize),
    /// A variable of this program, `VERTICE_SECTION__KEY`.
    Variable(String),
    /// A variable of the predecessor that is still honoured.
    Predecessor(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(file) => f.write_str(file),
            Self::File(file, line, column) => write!(f, "{file}:{line}:{column}"),
            Self::Variable(name) | Self::Predecessor(name) => {
                write!(f, "environment variable {name}")
            }
        }
    }
}

impl Origin {
    /// Which source wins: the lower number.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Variable(_) => 0,
            Self::Predecessor(_) => 1,
            Self::Whole(_) | Self::File(..) => 2,
        }
    }
}

/// A value as written. No `Debug`: it may be a secret.
#[derive(Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    List(Vec<Item>),
    /// Something that no key takes, in words.
    Other(&'static str),
}

/// An element of a list.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// A key's value from one source.
pub(super) struct Entry {
    pub(super) value: Value,
    /// Where the value stands.
    pub(super) origin: Origin,
    /// Where the key stands.
    pub(super) key_origin: Origin,
}

/// Everything that was written, by key.
pub(super) struct Document {
    file: Arc<str>,
    /// The values of a key, the winning source first.
    values: BTreeMap<Key, Vec<Entry>>,
    /// Where each table begins: an empty one has no value to show for itself.
    tables: BTreeMap<Key, Origin>,
}

impl Document {
    /// A document without keys.
    pub(super) fn empty(file: &str) -> Self {
        Self { file: file.into(), values: BTreeMap::new(), tables: BTreeMap::new() }
    }

    /// Reads `text` as TOML; reports one syntax error a line.
    pub(super) fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        let (table, errors) = DeTable::parse_recoverable(text);
        ConfigErrors::of(syntax_mistakes(text, file, &errors))?;
        let mut document = Self::empty(file);
        let place = Places::new(document.file.clone(), text);
        document.flatten(&place, &[], table.get_ref());
        Ok(document)
    }

    /// The file's name, as a place.
    pub(super) fn whole(&self) -> Origin {
        Origin::Whole(self.file.clone())
    }

    /// The values of `key`, the winning source first.
    pub(super) fn candidates(&self, key: &[String]) -> &[Entry] {
        self.values.get(key).map_or(&[], Vec::as_slice)
    }

    /// Every key that has a value, with the one that wins.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.values.iter().filter_map(|(key, entries)| Some((key, entries.first()?)))
    }

    /// The names of the values that stand directly below `key`.
    pub(super) fn names(&self, key: &[String]) -> Vec<String> {
        let behind = (Bound::Excluded(key), Bound::Unbounded);
        let below = self.values.range::<[String], _>(behind).map(|(other, _)| other).take_while(|other| other.starts_with(key));
        below.filter(|other| other.len() == key.len() + 1).map(|other| other[key.len()].clone()).collect()
    }

    /// Tables in which nothing was written.
    pub(super) fn empty_tables(&self) -> impl Iterator<Item = (&Key, &Origin)> {
        self.tables.iter().filter(|(key, _)| {
            // In key order, what is inside a table comes directly behind it.
            let behind = (Bound::Excluded(key.as_slice()), Bound::Unbounded);
            let value = self.values.range::<[String], _>(behind).next().map(|(next, _)| next);
            let table = self.tables.range::<[String], _>(behind).next().map(|(next, _)| next);
            !value.into_iter().chain(table).any(|next| next.starts_with(key))
        })
    }

    /// The segments that stand directly below `key` and are tables themselves, numbers in their order.
    pub(super) fn children(&self, key: &[String]) -> Vec<String> {
        let below =
            |other: &Key, depth: usize| (other.len() >= depth && other.starts_with(key)).then(|| other[key.len()].clone());
        let tables = self.tables.keys().filter_map(|other| below(other, key.len() + 1));
        let values = self.values.keys().filter_map(|other| below(other, key.len() + 2));
        let mut children: Vec<String> = tables.chain(values).collect();
        children.sort_by_cached_key(|name| (name.parse::<u64>().ok(), name.clone()));
        children.dedup();
        children
    }

    /// Where the table `key` begins, or failing that its first value.
    pub(super) fn table_origin(&self, key: &[String]) -> Origin {
        let first_value = || self.entries().find(|(other, _)| other.starts_with(key)).map(|(_, e)| &e.key_origin);
        self.tables.get(key).or_else(first_value).cloned().unwrap_or_else(|| self.whole())
    }

    /// Lays a variable's value over what the file says.
    pub(super) fn lay_over(&mut self, key: Key, value: Value, origin: Origin) {
        let key = self.spelled_as_in_file(key);
        let entries = self.values.entry(key).or_default();
        entries.push(Entry { value, key_origin: origin.clone(), origin });
        entries.sort_by_key(|entry| entry.origin.rank());
    }

    /// Variables cannot contain hyphens: `MY_SVC` means the file's `my-svc` when only that is there.
    fn spelled_as_in_file(&self, mut key: Key) -> Key {
        for depth in 0..key.len() {
            let siblings = self.children(&key[..depth]);
            if !siblings.contains(&key[depth])
                && let Some(same) = siblings.iter().find(|s| s.replace('-', "_") == key[depth])
            {
                key[depth].clone_from(same);
            }
        }
        key
    }

    fn flatten(&mut self, places: &Places<'_>, prefix: &[String], table: &DeTable<'_>) {
        for (name, value) in table {
            let key = [prefix, &[name.get_ref().to_string()]].concat();
            self.insert(places, key, places.at(&name.span()), value);
        }
    }

    fn insert(&mut self, places: &Places<'_>, key: Key, key_origin: Origin, spanned: &Spanned<DeValue<'_>>) {
        match spanned.get_ref() {
            DeValue::Table(table) if key.len() < DEPTH_MAX => {
                self.flatten(places, &key, table);
                self.tables.insert(key, key_origin);
            }
            DeValue::Array(array) if is_list_of_tables(array) && key.len() < DEPTH_MAX => {
                for (index, element) in array.iter().enumerate() {
                    let key = [&key[..], &[index.to_string()]].concat();
                    self.insert(places, key, places.at(&element.span()), element);
                }
            }
            value => {
                let value = places.value(value);
                let origin = places.at(&spanned.span());
                self.values.insert(key, vec![Entry { value, origin, key_origin }]);
            }
        }
    }
}

/// A key as an operator would write it: `routes[0].name`, `services."odd name".url`.
pub(super) fn shown(key: &[String]) -> String {
    let mut text = String::new();
    for (depth, segment) in key.iter().enumerate() {
        let in_list = depth == 1 && ["routes", "rate_limits"].contains(&&*key[0]);
        if in_list && (segment == "*" || segment.parse::<u64>().is_ok()) {
            text.push_str(&format!("[{}]", segment.replace('*', "n")));
            continue;
        }
        if depth > 0 {
            text.push('.');
        }
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if segment == "*" {
            text.push_str("<name>");
        } else if !segment.is_empty() && segment.chars().all(bare) {
            text.push_str(segment);
        } else {
            text.push_str(&format!("{segment:?}"));
        }
    }
    text
}

/// The place of byte `offset` of `text`.
pub(super) fn position(file: &str, text: &str, offset: usize) -> Origin {
    Places::new(file.into(), text).at(&(offset..offset))
}

/// Turns byte offsets into places.
struct Places<'a> {
    file: Arc<str>,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(file: Arc<str>, text: &'a str) -> Self {
        let behind_newlines = text.match_indices('\n').map(|(newline, _)| newline + 1);
        Self { file, text, line_starts: std::iter::once(0).chain(behind_newlines).collect() }
    }

    fn at(&self, span: &Range<usize>) -> Origin {
        let line = self.line_starts.partition_point(|start| *start <= span.start);
        let line_start = self.line_starts[line - 1];
        let column = self.text.get(line_start..span.start).map_or(0, |before| before.chars().count()) + 1;
        Origin::File(self.file.clone(), line, column)
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Value::Other("a number beyond 64 bits"), Value::Integer),
            DeValue::Float(number) => number.as_str().parse().map_or(Value::Other("an unreadable number"), Value::Float),
            DeValue::Boolean(truth) => Value::Boolean(*truth),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Array(array) => Value::List(array.iter().map(|e| self.item(e)).collect()),
            DeValue::Table(_) => Value::Other("a table"),
        }
    }

    fn item(&self, element: &Spanned<DeValue<'_>>) -> Item {
        let value = match element.get_ref() {
            DeValue::Array(_) => Value::Other("a list within a list"),
            scalar => self.value(scalar),
        };
        Item { value, origin: self.at(&element.span()) }
    }
}

fn is_list_of_tables(array: &DeArray<'_>) -> bool {
    let mut elements = array.iter().peekable();
    elements.peek().is_some() && elements.all(|e| matches!(e.get_ref(), DeValue::Table(_)))
}

/// The first syntax error of each line: the others on it are mostly its consequences.
fn syntax_mistakes(text: &str, file: &str, errors: &[toml::de::Error]) -> Vec<Mistake> {
    let mut mistakes: Vec<Mistake> = Vec::new();
    for error in errors {
        let origin = match error.span() {
            Some(span) => position(file, text, span.start),
            None => Origin::Whole(file.into()),
        };
        let same_line = |seen: &Mistake| match (&seen.origin, &origin) {
            (Origin::File(_, a, _), Origin::File(_, b, _)) => a == b,
            _ => false,
        };
        if !mistakes.iter().any(same_line) {
            let message = format!("not valid TOML: {}", error.message().replace('\n', " "));
            mistakes.push(Mistake::new(origin, None, message));
        }
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(dotted: &str) -> Key {
        dotted.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn every_value_knows_its_place() {
        let text = "[a]\n'ß' = 1\n[[routes]]\nname = 'x'\n[[routes]]\n  name = \"y\"\n";
        let document = Document::parse(text, "f").unwrap();
        let places: Vec<String> = document.entries().map(|(key, entry)| format!("{} {}", shown(key), entry.origin)).collect();
        let expected = ["a.\"ß\" f:2:7", "routes[0].name f:4:8", "routes[1].name f:6:10"];
        assert_eq!(places, expected);
        assert_eq!(document.table_origin(&key("routes.1")).to_string(), "f:5:1");
    }

    #[test]
    fn children_are_tables_in_order() {
        let rows: String = (0..11).map(|n| format!("[[routes]]\nn = {n}\n")).collect();
        let document = Document::parse(&format!("top = 1\n{rows}[services.x]\n"), "f").unwrap();
        assert_eq!(document.children(&key("routes")).join(" "), "0 1 2 3 4 5 6 7 8 9 10");
        assert_eq!(document.children(&[]), ["routes", "services"]);
    }

    #[test]
    fn a_variable_finds_the_hyphenated_name() {
        let mut document = Document::parse("[services.my-svc]\nurl = 'a'\n", "f").unwrap();
        let variable = Origin::Variable("V".to_owned());
        document.lay_over(key("services.my_svc.url"), Value::Boolean(true), variable.clone());
        let winner = &document.candidates(&key("services.my-svc.url"))[0];
        assert!(winner.origin == variable);
    }

    #[test]
    fn deep_nesting_is_cut_off() {
        let text = format!("{} = 1", vec!["a"; 40].join("."));
        let document = Document::parse(&text, "f").unwrap();
        assert_eq!(document.entries().map(|(key, _)| key.len()).collect::<Vec<_>>(), [DEPTH_MAX]);
    }
}
