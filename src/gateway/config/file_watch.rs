//! Whether files have changed, by looking at them now and then.
//!
//! Looking costs a system call a file and works wherever files are: an editor that renames, a directory whose symlink is moved
//! elsewhere (how Kubernetes updates a ConfigMap), a bind mount, a network file system that reports nothing. A second later is
//! soon enough for a configuration.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What shows that a file is another one, or has other content.
type Trace = (u64, u64, u64, i64, i64);

/// See the module.
#[derive(Clone, Debug)]
pub struct FileWatch {
    files: Vec<PathBuf>,
    known: Vec<Option<Trace>>,
    /// How they looked the last time, while that is not how they were known.
    moving: Option<Vec<Option<Trace>>>,
}

impl FileWatch {
    /// Watches for changes from now on.
    #[must_use]
    pub fn new(files: Vec<PathBuf>) -> Self {
        let known = traces(&files);
        Self { files, known, moving: None }
    }

    /// What it watches.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    /// Whether the last look found a change that may go on.
    #[must_use]
    pub const fn is_restless(&self) -> bool {
        self.moving.is_some()
    }

    /// Looks; tells, once, of a change that has come to rest: the look before found the same. A file that was there and is not
    /// is waited for: it is about to be replaced.
    pub fn look(&mut self) -> bool {
        let found = traces(&self.files);
        let is_whole = found.iter().zip(&self.known).all(|(found, known)| found.is_some() || known.is_none());
        if found == self.known || !is_whole {
            self.moving = None;
            return false;
        }
        if self.moving.as_ref() == Some(&found) {
            (self.known, self.moving) = (found, None);
            return true;
        }
        self.moving = Some(found);
        false
    }
}

fn traces(files: &[PathBuf]) -> Vec<Option<Trace>> {
    files.iter().map(|file| trace(file)).collect()
}

/// Of what the path leads to, through whatever symlinks.
fn trace(file: &Path) -> Option<Trace> {
    let of = |found: Metadata| (found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec());
    std::fs::metadata(file).ok().map(of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// How many looks it takes to hear of a change.
    fn looks(watch: &mut FileWatch) -> Option<usize> {
        (1..5).find(|_| watch.look())
    }

    #[test]
    fn a_change_is_told_once_when_it_has_come_to_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.toml");
        fs::write(&path, "a").unwrap();
        let mut watch = FileWatch::new(vec![path.clone()]);
        assert_eq!(looks(&mut watch), None);
        fs::write(&path, "ab").unwrap();
        assert!(!watch.look() && watch.is_restless());
        fs::write(&path, "abc").unwrap();
        assert!(!watch.look(), "it still grows");
        assert_eq!(looks(&mut watch), Some(1));
        assert_eq!(looks(&mut watch), None);
    }

    #[test]
    fn renames_symlinks_and_pauses_without_a_file_are_understood() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["one", "two"] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("v.toml"), "same").unwrap();
        }
        // As in a ConfigMap: the file is a link through a link to the version's directory.
        std::os::unix::fs::symlink("one", dir.path().join("..data")).unwrap();
        let path = dir.path().join("v.toml");
        std::os::unix::fs::symlink("..data/v.toml", &path).unwrap();
        let mut watch = FileWatch::new(vec![path.clone()]);
        std::os::unix::fs::symlink("two", dir.path().join("..next")).unwrap();
        fs::rename(dir.path().join("..next"), dir.path().join("..data")).unwrap();
        assert_eq!(looks(&mut watch), Some(2));

        fs::remove_file(&path).unwrap();
        assert_eq!(looks(&mut watch), None);
        fs::write(dir.path().join("new"), "same").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(looks(&mut watch), Some(2));
    }
}
