//! Reads Prometheus text.

use std::collections::BTreeMap;

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// One scrape.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) samples: Vec<Sample>,
    /// Type by family.
    pub(crate) types: BTreeMap<String, String>,
}

impl Metrics {
    #[track_caller]
    pub(crate) fn parse(text: &str) -> Self {
        let mut types = BTreeMap::new();
        let mut samples = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').unwrap();
                types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                samples.push(sample(line).unwrap_or_else(|| panic!("not a sample: {line}")));
            }
        }
        Self { samples, types }
    }

    /// The samples called `name` that have at least these labels.
    pub(crate) fn select<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        })
    }

    /// Their sum; 0 when there are none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.select(name, labels).map(|sample| sample.value).sum()
    }

    /// The value of the only sample called `name` with these labels; fails the test when there is not exactly one.
    #[track_caller]
    pub(crate) fn only(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found: Vec<_> = self.select(name, labels).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0].value
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|sample| sample.name == name)
    }

    /// Whether the family is declared with a type, samples or not.
    pub(crate) fn declares(&self, family: &str) -> bool {
        self.types.contains_key(family)
    }
}

/// Parses `name{label="value",…} 1.5`.
fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, inside) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}')?),
        None => (series, ""),
    };
    let mut labels = BTreeMap::new();
    let mut rest = inside;
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"")?;
        let end = closing_quote(after)?;
        labels.insert(key.to_owned(), after[..end].to_owned());
        rest = after[end + 1..].trim_start_matches(',');
    }
    let value = value.trim().replace("+Inf", "inf").parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}
