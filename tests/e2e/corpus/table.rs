//! Where the lanes may differ: the table in `tests/corpus/LANES.md`.

use std::collections::BTreeSet;
use std::path::Path;

use super::observed::Aspect;

/// Reads the rows `| case | what | why |`.
#[track_caller]
pub(super) fn read(file: &Path) -> BTreeSet<(String, Aspect)> {
    let text = std::fs::read_to_string(file).unwrap();
    rows(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn rows(text: &str) -> Result<BTreeSet<(String, Aspect)>, String> {
    let lines = text.lines().filter(|line| line.starts_with("| ")).filter(|line| !line.starts_with("| case |"));
    lines.map(|line| row(line).ok_or_else(|| format!("not `| case | what | why |`: {line}"))).collect()
}

fn row(line: &str) -> Option<(String, Aspect)> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [case, what, why] = cells[..] else { return None };
    let aspect = Aspect::ALL.into_iter().find(|aspect| aspect.as_str() == what)?;
    (!case.is_empty() && !why.is_empty()).then(|| (case.to_owned(), aspect))
}

#[test]
fn every_row_is_about_a_case_that_exists_and_says_why() {
    let names: BTreeSet<String> =
        ["requests", "answers"].iter().flat_map(|part| super::cases(part)).map(|case| case.name).collect();
    for (case, _) in read(&super::directory().join("LANES.md")) {
        assert!(names.contains(&case), "no such case: {case}");
    }
    assert!(rows("| a: b | answer | |").is_err() && rows("| a: b | moon | because |").is_err());
    assert_eq!(rows("| case | what | why |\n|---|---|---|\n| a: b | pool | because |").map(|rows| rows.len()), Ok(1));
}
