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

/// For so many looks, a file that is missing is waited for.
const MISSING_LOOKS_MAX: u32 = 10;

/// See the module.
#[derive(Clone, Debug)]
pub struct FileWatch {
    files: Vec<PathBuf>,
    known: Vec<Option<Trace>>,
    /// How they looked the last time, while that is not how they were known.
    moving: Option<Vec<Option<Trace>>>,
    /// For how many looks one has been missing.
    missing: u32,
}

impl FileWatch {
    /// Watches for changes from now on.
    #[must_use]
    pub fn new(files: Vec<PathBuf>) -> Self {
        let known = traces(&files);
        Self { files, known, moving: None, missing: 0 }
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
    /// is waited for, because it is about to be replaced; but not for ever, because it may be one that is no longer named.
    pub fn look(&mut self) -> bool {
        let mut found = traces(&self.files);
        let mut is_missing = false;
        for (found, known) in found.iter_mut().zip(&self.known).filter(|(found, known)| found.is_none() && known.is_some()) {
            (*found, is_missing) = (*known, true);
        }
        self.missing = if is_missing { self.missing.saturating_add(1) } else { 0 };
        if found == self.known || (1..MISSING_LOOKS_MAX).contains(&self.missing) {
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
        assert_eq!(looks(&mut watch), None, "it is about to be replaced");
        fs::write(dir.path().join("new"), "same").unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
        assert_eq!(looks(&mut watch), Some(2));
    }

    #[test]
    fn a_file_that_does_not_come_back_hides_no_change_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let (config, certificate) = (dir.path().join("v.toml"), dir.path().join("old.pem"));
        [&config, &certificate].iter().for_each(|path| fs::write(path, "a").unwrap());
        let mut watch = FileWatch::new(vec![config.clone(), certificate.clone()]);
        fs::write(&config, "another certificate").unwrap();
        fs::remove_file(&certificate).unwrap();
        let told = (1..=MISSING_LOOKS_MAX + 3).find(|_| watch.look());
        assert!(told.is_some_and(|looks| looks > 2), "{told:?}");
        assert_eq!(looks(&mut watch), None);
    }
}
