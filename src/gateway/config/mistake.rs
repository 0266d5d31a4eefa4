//! A mistake in the configuration, and all of them together.

use std::fmt;

use super::raw::Origin;

/// One mistake: where, at which key, what is wrong and what is allowed.
///
/// Displays as `conf/vertice.toml:12:5: timeouts.connect: "fast" is not a duration; …`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where the wrong value or key was written.
    pub origin: Origin,
    /// The dotted key, where one is concerned.
    pub key: Option<String>,
    /// What is wrong and what is allowed. Never contains a secret.
    pub message: String,
}

impl Mistake {
    pub(super) fn new(origin: Origin, key: Option<String>, message: String) -> Self {
        Self { origin, key, message }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Every mistake found in one configuration, those of the file first and in its order.
///
/// Displays one line per mistake. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    mistakes: Vec<Mistake>,
}

impl ConfigErrors {
    /// All of `mistakes` in the order a reader would meet them, or nothing when there is none.
    pub(super) fn of(mut mistakes: Vec<Mistake>) -> Result<(), Self> {
        if mistakes.is_empty() {
            return Ok(());
        }
        mistakes.sort();
        mistakes.dedup();
        Err(Self { mistakes })
    }

    /// The mistakes, at least one.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl From<Mistake> for ConfigErrors {
    fn from(mistake: Mistake) -> Self {
        Self { mistakes: vec![mistake] }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The candidate that `given` was most likely meant to be, if one is near enough to be no guess.
pub(super) fn nearest(given: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let allowed = (given.chars().count() / 4).clamp(1, 3);
    candidates
        .map(|candidate| (distance(given, &candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be inserted, deleted or replaced to make `b` of `a` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (a, b, expected) in [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("é", "e", 1)] {
            assert_eq!(distance(a, b), expected, "{a} -> {b}");
        }
    }

    #[test]
    fn only_near_names_are_suggested() {
        let names = || ["lease.ttl", "timeouts.connect"].into_iter().map(str::to_owned);
        assert_eq!(nearest("timeout.conect", names()), Some("timeouts.connect".to_owned()));
        assert_eq!(nearest("nothing.like_it", names()), None);
    }
}
