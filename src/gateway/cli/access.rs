//! The way to the registry: arguments first, then the environment.

use super::arguments::Access;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use vertice_client::{RegistryClient, RegistryUrls, Token};

/// The variables that [`client`] and the colour decision look at.
pub(super) type Environment = BTreeMap<String, String>;

/// Holds the registries' addresses when no argument does.
const URL_VARIABLE: &str = "VERTICE_REGISTRY_URL";
const DEFAULT_URL: &str = "http://127.0.0.1:8888";
/// No token is longer.
const TOKEN_FILE_MAX: u64 = 4096;

/// Something that was set up is wrong: what, and why.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to set up the call: {0}")]
pub(super) struct Mistake(String);

/// The client that these arguments and variables mean.
///
/// # Errors
/// A variable or the token file is wrong.
pub(super) fn client(access: &Access, env: &Environment) -> Result<RegistryClient, Mistake> {
    let urls = match &access.url {
        Some(urls) => urls.clone(),
        None => urls(env)?,
    };
    Ok(RegistryClient::with_timeout(urls, token(access.token_file.as_deref(), env)?, access.timeout))
}

/// An empty variable counts as not set, because that is what `${X:-}` makes of it.
fn variable<'e>(env: &'e Environment, name: &str) -> Option<&'e str> {
    env.get(name).map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn urls(env: &Environment) -> Result<RegistryUrls, Mistake> {
    let text = variable(env, URL_VARIABLE).unwrap_or(DEFAULT_URL);
    RegistryUrls::parse(text).map_err(|error| Mistake(format!("{URL_VARIABLE}: {error}")))
}

fn token(file: Option<&Path>, env: &Environment) -> Result<Option<Token>, Mistake> {
    if let Some(file) = file {
        let wrong = |why: &dyn std::fmt::Display| Mistake(format!("the token file {}: {why}", file.display()));
        let text = read(file).map_err(|error| wrong(&error))?;
        return Token::parse(text.trim()).map(Some).map_err(|error| wrong(&error));
    }
    let found = Token::VARIABLES.iter().find_map(|name| Some((name, variable(env, name)?)));
    found.map(|(name, text)| Token::parse(text).map_err(|error| Mistake(format!("{name} {error}")))).transpose()
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(TOKEN_FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn addresses_come_from_the_environment() {
        let found = |pairs: &[(&str, &str)]| urls(&env(pairs)).map(|urls| urls.as_slice().to_vec());
        assert_eq!(found(&[]).unwrap(), [DEFAULT_URL]);
        assert_eq!(found(&[(URL_VARIABLE, "")]).unwrap(), [DEFAULT_URL]);
        assert_eq!(found(&[(URL_VARIABLE, "http://a:1,http://b:2")]).unwrap(), ["http://a:1", "http://b:2"]);
        let error = found(&[(URL_VARIABLE, "https://a")]).unwrap_err().to_string();
        assert!(error.contains(URL_VARIABLE) && error.contains("no TLS"), "{error}");
    }

    #[test]
    fn a_token_comes_from_a_file_or_the_environment_and_no_message_repeats_it() {
        let parsed = |text| Some(Token::parse(text).unwrap());
        let both = env(&[("REGISTRY_AUTH_TOKEN", "second"), ("VERTICE_REGISTRY_TOKEN", "first")]);
        assert_eq!(token(None, &both), Ok(parsed("first")));
        assert_eq!(
            token(None, &env(&[("REGISTRY_AUTH_TOKEN", "second"), ("VERTICE_REGISTRY_TOKEN", "")])),
            Ok(parsed("second"))
        );
        assert_eq!(token(None, &env(&[])), Ok(None));
        let error = token(None, &env(&[("REGISTRY_AUTH_TOKEN", "two words")])).unwrap_err().to_string();
        assert!(error.contains("REGISTRY_AUTH_TOKEN") && !error.contains("two words"), "{error}");

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "from-file\n").unwrap();
        assert_eq!(token(Some(&file), &both), Ok(parsed("from-file")));
        std::fs::write(&file, "not sendable").unwrap();
        let error = token(Some(&file), &both).unwrap_err().to_string();
        assert!(error.contains("token") && !error.contains("not sendable"), "{error}");
        assert!(token(Some(&dir.path().join("none")), &both).is_err());
    }
}
