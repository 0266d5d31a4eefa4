//! What `docker/` takes for granted about the program. Whether containers run is what `docker/test` finds out.

use std::fs;
use std::path::Path;
use std::process::Command;

use regex::Regex;

use crate::harness::PATIENCE;
use crate::harness::gateway::PROGRAM;
use crate::harness::process::run;

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docker").join(file)).unwrap()
}

#[test]
fn every_variable_in_compose_yaml_is_good() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "a-password\n").unwrap();
    let line = Regex::new(r"(?m)^ +(VERTICE_\w+__\w+|REDIS_\w+|LOG_LEVEL): (.+)$").unwrap();
    let interpolation = Regex::new(r"\$\{\w+:-([^}]*)\}").unwrap();
    let text = read("compose.yaml");
    let variables: Vec<(String, String)> = line
        .captures_iter(&text)
        .map(|found| {
            let value = interpolation.replace_all(found[2].trim_matches('"'), "$1");
            let value = if found[1].ends_with("_FILE") { secret.path().to_str().unwrap() } else { &value };
            (found[1].to_owned(), value.to_owned())
        })
        .collect();
    for name in ["VERTICE_SERVER__TRUSTED_PROXIES", "VERTICE_STORE__REDIS__PASSWORD_FILE", "REDIS_SENTINELS", "REDIS_HOST"] {
        assert!(variables.iter().any(|(other, _)| other == name), "{name} was not found in compose.yaml");
    }
    let mut command = Command::new(PROGRAM);
    command.arg("check");
    let checked = run(command, &variables, PATIENCE);
    // One of the predecessor's variables with a bad value would only be a warning.
    let names = variables.iter().filter(|(name, _)| checked.stdout.contains(name.as_str())).count();
    assert_eq!((checked.code, names), (Some(0), 0), "{}{}", checked.stdout, checked.stderr);
}

#[test]
fn the_images_say_the_version_and_are_built_with_a_compiler_that_can() {
    let dockerfile = read("Dockerfile");
    let label = format!("org.opencontainers.image.version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(dockerfile.matches(&label).count(), 2, "{label}");
    let compiler = Regex::new(r"FROM docker\.io/library/rust:1\.(\d+)-").unwrap().captures(&dockerfile).unwrap()[1].to_owned();
    let needed = env!("CARGO_PKG_RUST_VERSION").split('.').nth(1).unwrap().to_owned();
    assert!(compiler.parse::<u32>().unwrap() >= needed.parse().unwrap(), "Rust 1.{compiler}, but 1.{needed} is needed");
}
