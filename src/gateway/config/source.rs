//! Where the configuration comes from: which file counts, and the way from its text to a [`Config`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::environment;
use super::mistake::{ConfigErrors, Mistake};
use super::raw::{Document, Origin, position};
use super::reader::Reader;
use super::settings::Config;

/// The file that counts when neither `--config` nor `VERTICE_CONFIG` names one, if it is there.
const SYSTEM_FILE: &str = "/etc/vertice/vertice.toml";

/// The variable that names the file.
const FILE_VARIABLE: &str = "VERTICE_CONFIG";

/// Finds and reads the configuration.
///
/// The file is `path` (the `--config` option), else the one that `VERTICE_CONFIG` names, else
/// `/etc/vertice/vertice.toml` if that exists, else none: every key has a default, so no file is needed. `env` is
/// the whole environment of the process; it is laid over the file.
///
/// # Errors
///
/// Every mistake that was found, each with its place. A file that was named and cannot be read is one too.
pub fn load(path: Option<&Path>, env: &BTreeMap<String, String>) -> Result<Config, ConfigErrors> {
    let Some(path) = chosen_file(path, env, Path::new(SYSTEM_FILE)) else {
        return parse("", "built-in defaults", env);
    };
    let name = path.display().to_string();
    let text = read_text(&path, &name)?;
    let mut config = parse(&text, &name, env)?;
    config.file = Some(path);
    Ok(config)
}

/// Reads the configuration from `text`, with `env` laid over it; `file_name` is only for messages.
///
/// Nothing else is read, except the files that secrets name (`registry.token_file` and its like).
///
/// # Errors
///
/// Every mistake that was found. When `text` is not TOML only that is reported, because the keys behind a syntax
/// error cannot be trusted.
pub fn parse(text: &str, file_name: &str, env: &BTreeMap<String, String>) -> Result<Config, ConfigErrors> {
    let files = RefCell::new(Vec::new());
    let read_file = |path: &Path| {
        files.borrow_mut().push(path.to_owned());
        std::fs::read_to_string(path)
    };
    let mut config = parse_with(text, file_name, env, &read_file)?;
    config.named_files = files.into_inner();
    Ok(config)
}

/// How a secret's file is read; an argument so that tests need no files.
pub(super) type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// [`parse`] with the reading of secrets' files as an argument.
pub(super) fn parse_with(
    text: &str,
    file_name: &str,
    env: &BTreeMap<String, String>,
    read_file: ReadFile<'_>,
) -> Result<Config, ConfigErrors> {
    let mut document = Document::parse(text, file_name)?;
    environment::overlay(&mut document, env);
    let mut reader = Reader::new(&document, read_file);
    let mut config = Config::read(&mut reader);
    reader.refuse_unknown(&known_keys());
    let warnings = reader.finish()?;
    config.warnings.extend(warnings);
    environment::complete(&mut config, env);
    Ok(config)
}

/// Every key there is, with `*` where the operator chooses the name.
///
/// Found by reading an empty document, so that the list cannot differ from what is really read.
pub(super) fn known_keys() -> std::collections::BTreeSet<Vec<String>> {
    let document = Document::empty("");
    let mut reader = Reader::new(&document, &|_| Err(io::ErrorKind::NotFound.into()));
    Config::read_samples(&mut reader);
    reader.into_asked()
}

/// Every key there is, each with the variable that sets it in the first entry of a list, or below the name `sample`.
#[cfg(test)]
pub(crate) fn sample_variables() -> BTreeMap<String, String> {
    let name = |key: &[String], depth: usize| {
        if ["routes", "rate_limits"].contains(&key[0].as_str()) && depth == 1 { "0" } else { "sample" }.to_owned()
    };
    let sample = |key: &Vec<String>| -> Vec<String> {
        (0..key.len()).map(|depth| if key[depth] == "*" { name(key, depth) } else { key[depth].clone() }).collect()
    };
    known_keys().iter().map(|key| (super::raw::shown(key), environment::variable_of(&sample(key)))).collect()
}

/// The file to read, if any.
fn chosen_file(option: Option<&Path>, env: &BTreeMap<String, String>, system: &Path) -> Option<PathBuf> {
    let variable = env.get(FILE_VARIABLE).filter(|name| !name.is_empty());
    match (option, variable) {
        (Some(path), _) => Some(path.to_owned()),
        (None, Some(name)) => Some(PathBuf::from(name)),
        (None, None) => system.exists().then(|| system.to_owned()),
    }
}

/// Reads `path` as UTF-8; a byte that is none is reported with its place.
fn read_text(path: &Path, name: &str) -> Result<String, ConfigErrors> {
    let bytes = std::fs::read(path)
        .map_err(|cause| Mistake::new(Origin::Whole(name.into()), None, format!("failed to read: {cause}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        let origin = position(name, &before, before.len());
        Mistake::new(origin, None, "the file is not UTF-8 text from here on".to_owned()).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_option_beats_the_variable_and_the_variable_the_system_file() {
        let directory = tempfile::tempdir().unwrap();
        let system = directory.path().join("vertice.toml");
        std::fs::write(&system, "").unwrap();
        let variable = env(&[(FILE_VARIABLE, "from-variable.toml")]);
        let option = Some(Path::new("from-option.toml"));

        assert_eq!(chosen_file(option, &variable, &system), Some("from-option.toml".into()));
        assert_eq!(chosen_file(None, &variable, &system), Some("from-variable.toml".into()));
        assert_eq!(chosen_file(None, &env(&[]), &system), Some(system.clone()));
        assert_eq!(chosen_file(None, &env(&[(FILE_VARIABLE, "")]), &system), Some(system.clone()));
        std::fs::remove_file(&system).unwrap();
        assert_eq!(chosen_file(None, &env(&[]), &system), None);
    }

    #[test]
    fn a_named_file_that_is_missing_is_a_mistake() {
        let errors = load(Some(Path::new("/nonexistent/v.toml")), &env(&[])).unwrap_err();
        assert!(errors.to_string().starts_with("/nonexistent/v.toml: failed to read: No such file"), "{errors}");
    }

    #[test]
    fn a_loaded_file_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("v.toml");
        std::fs::write(&path, "[lease]\nttl = 7\n").unwrap();
        let config = load(None, &env(&[(FILE_VARIABLE, path.to_str().unwrap())])).unwrap();
        assert_eq!(config.file, Some(path));
        assert_eq!(config.lease.ttl.as_secs(), 7);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_located() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("v.toml");
        std::fs::write(&path, b"[lease]\nttl = \"\xff\"\n").unwrap();
        let errors = load(Some(&path), &env(&[])).unwrap_err();
        let expected = format!("{}:2:8: the file is not UTF-8 text from here on", path.display());
        assert_eq!(errors.to_string(), expected);
    }
}
