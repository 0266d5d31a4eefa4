//! Reading the configuration once more, while the program runs.
//!
//! Most keys take effect then. Those that do not are listed here, in one place: the value with which the process started stays,
//! and whoever changed one is told that it waits for a restart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::mistake::ConfigErrors;
use super::settings::Config;
use super::source;

/// Where the configuration comes from: what the process was started with.
#[derive(Clone, Debug)]
pub struct Source {
    option: Option<PathBuf>,
    env: BTreeMap<String, String>,
}

impl Source {
    /// The file that `--config` names, if it was given, and the environment.
    #[must_use]
    pub const fn new(option: Option<PathBuf>, env: BTreeMap<String, String>) -> Self {
        Self { option, env }
    }

    /// Reads it again while `running` is in force, as [`load`](source::load) does. The file that `running` came from must still be
    /// there: without it, a gateway that had a token would go on as one that has none.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn load_again(&self, running: Option<&Path>) -> Result<Config, ConfigErrors> {
        source::load(running.or(self.option.as_deref()), &self.env)
    }
}

/// A key, or a section, whose value at the start holds to the end of the process.
struct Fixed {
    key: &'static str,
    is_same: fn(&Config, &Config) -> bool,
    keep: fn(&Config, &mut Config),
}

macro_rules! fixed {
    ($key:literal, $($field:ident).+) => {
        Fixed {
            key: $key,
            is_same: |running, read| running.$($field).+ == read.$($field).+,
            keep: |running, read| read.$($field).+.clone_from(&running.$($field).+),
        }
    };
}

/// What waits for a restart, and why.
const FIXED: [Fixed; 16] = [
    // Sockets and threads are made before anything runs.
    fixed!("gateway.listen", gateway.listen),
    fixed!("gateway.h2c_listen", gateway.h2c_listen),
    fixed!("gateway.tls.listen", gateway.tls.listen),
    fixed!("gateway.workers", gateway.workers),
    fixed!("registry.listen", registry.listen),
    fixed!("registry.tls.listen", registry.tls.listen),
    // Who this process is to other replicas, and what was written once it listened.
    fixed!("server.replica_id", server.replica_id),
    fixed!("server.port_file", server.port_file),
    // Cookies that clients hold are made by it.
    fixed!("server.secret", server.secret),
    // What was acknowledged is in this store, and would not be in another one.
    fixed!("store.kind", store.kind),
    fixed!("store.path", store.path),
    fixed!("store.redis", store.redis),
    // Allocated once.
    fixed!("limits.registry_queue", limits.registry_queue),
    fixed!("limits.watch_history", limits.watch_history),
    // Whoever reads these lines expects one form of them.
    fixed!("log.format", log.format),
    fixed!("log.access", log.access),
];

/// Whether `key`, or the section it is in, waits for a restart.
#[cfg(test)]
pub(crate) fn is_fixed(key: &str) -> bool {
    FIXED.iter().any(|fixed| key == fixed.key || key.strip_prefix(fixed.key).is_some_and(|rest| rest.starts_with('.')))
}

/// What comes of a configuration that was read while another one is in force.
#[derive(Debug)]
pub struct Revision {
    /// What is to be in force: what was read, with the running values where those hold to the end.
    pub config: Config,
    /// The keys whose new value waits for a restart.
    pub waiting: Vec<&'static str>,
}

impl Config {
    /// What comes of `read` while this is in force.
    #[must_use]
    pub fn revised(&self, mut read: Self) -> Revision {
        let mut waiting = Vec::new();
        for Fixed { key, is_same, keep } in FIXED {
            if !is_same(self, &read) {
                keep(self, &mut read);
                waiting.push(key);
            }
        }
        Revision { config: read, waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LogLevel, parse};
    use super::*;
    use std::time::Duration;

    fn read(text: &str) -> Config {
        parse(text, "f", &BTreeMap::new()).unwrap()
    }

    #[test]
    fn what_may_change_changes_and_the_rest_stays_and_is_named() {
        let running = read("[gateway]\nworkers = 2\n[lease]\nttl = 60\n[store]\nkind = \"memory\"\n");
        let read = read("[gateway]\nworkers = 4\n[lease]\nttl = 30\n[log]\nlevel = \"debug\"\nformat = \"json\"\n");
        let Revision { config, waiting } = running.revised(read);
        assert_eq!(waiting, ["gateway.workers", "store.kind", "log.format"]);
        assert_eq!(config.gateway.workers, 2);
        assert_eq!(config.store, running.store);
        assert_eq!((config.lease.ttl, config.log.level), (Duration::from_secs(30), LogLevel::Debug));
    }

    #[test]
    fn a_file_that_has_gone_is_a_mistake_and_not_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.toml");
        // As when it was found where the system keeps it: no option names it.
        let source = Source::new(None, BTreeMap::new());
        std::fs::write(&path, "[lease]\nttl = 7\n").unwrap();
        let running = source.load_again(Some(&path)).unwrap();
        assert_eq!((running.lease.ttl, running.file.as_deref()), (Duration::from_secs(7), Some(&*path)));
        std::fs::remove_file(&path).unwrap();
        let mistakes = source.load_again(running.file.as_deref()).unwrap_err().to_string();
        assert!(mistakes.contains("v.toml: failed to read"), "{mistakes}");
    }

    #[test]
    fn the_same_configuration_is_no_change() {
        let running = read("[lease]\nttl = 7\n");
        let Revision { config, waiting } = running.revised(running.clone());
        assert_eq!(config, running);
        assert!(waiting.is_empty());
    }
}
