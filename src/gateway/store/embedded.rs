//! The embedded store: one SQLite database in a directory of its own.
//!
//! A batch is one transaction appended to the write-ahead log with a plain `write`, so it is in the
//! kernel, and survives this process, before [`Store::write`] returns. [`Store::sync`] forces the
//! log to the disk; once it has grown it is folded into the database, which SQLite syncs itself in
//! the right order (`synchronous = NORMAL`).
//!
//! SQLite has no checksum over a record, and drops everything behind the first bad byte of its log
//! without a word: after a crash that is the right thing, after a damaged sector it would lose
//! acknowledged registrations silently. So each record carries a checksum, each transaction a
//! sequence number, and after each sync the file `synced` notes the number that is now safe. A store
//! that opens at an earlier number has lost something, and is treated as corrupt.
//!
//! The database is locked for this process alone (`locking_mode = EXCLUSIVE`), which also spares
//! the shared-memory file: a memory map would end the process when the disk is full.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::{Change, Record, Store, StoreError};

const DATABASE: &str = "registry.db";
const LOG: &str = "registry.db-wal";
const ROLLBACK: &str = "registry.db-journal";
const SYNCED: &str = "synced";

/// Marks the database as ours: "VXRG".
const APPLICATION_ID: i64 = 0x5658_5247;

/// The layout below. A higher number belongs to a later version and is not touched.
const FORMAT: i64 = 1;

/// Pages in the log at which a sync folds it into the database (16 MiB). Measured: 5–7 ms for a full
/// log, once in some seconds at a thousand changes per second.
const LOG_PAGES_MAX: i64 = 4_096;

const SETTINGS: &str = "
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA wal_autocheckpoint = 32768; -- only if sync is never called
    PRAGMA journal_size_limit = 33554432;
    PRAGMA cache_size = -2000;
    PRAGMA temp_store = MEMORY;
";

const LAYOUT: &str = "
    CREATE TABLE IF NOT EXISTS record (
        key BLOB PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS batch (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL) STRICT;
";

/// A store ready for use.
pub struct Opened {
    /// The store.
    pub store: Box<dyn Store>,
    /// What it held, each record verified.
    pub records: Vec<Record>,
    /// When what was found could not be trusted: it was kept, and the store starts empty.
    pub moved_aside: Option<MovedAside>,
}

/// A corrupt store that was kept for inspection.
#[derive(Debug)]
pub struct MovedAside {
    /// The directory that now holds its files.
    pub path: PathBuf,
    /// The damage in words.
    pub cause: String,
}

/// Opens the store in `dir`, creating it and its parents when missing.
///
/// A corrupt store is never deleted: its files move to `corrupt-<n>` inside `dir` (inside, because
/// `dir` itself may be a mount point, which cannot be renamed) and a fresh store takes its place.
///
/// # Errors
/// [`StoreError::Locked`] or [`StoreError::Unwritable`], in which case nothing was changed that was
/// there before.
pub fn open(dir: &Path) -> Result<Opened, StoreError> {
    fs::create_dir_all(dir).map_err(|e| unwritable(dir, &e))?;
    let cause = match Embedded::open(dir) {
        Ok((store, records)) => return Ok(opened(store, records, None)),
        Err(StoreError::Corrupt { cause, .. }) => cause,
        Err(other) => return Err(other),
    };
    let path = move_aside(dir).map_err(|e| unwritable(dir, &e))?;
    // What is corrupt even when new is a disk that does not store what it is given.
    let (store, records) = Embedded::open(dir).map_err(|e| unwritable(dir, &e))?;
    Ok(opened(store, records, Some(MovedAside { path, cause })))
}

fn opened(store: Embedded, records: Vec<Record>, moved_aside: Option<MovedAside>) -> Opened {
    let store = Box::new(store);
    Opened { store, records, moved_aside }
}

/// Renames the files of the store into a new directory, the log first: a log left beside a fresh
/// database would be replayed into it.
fn move_aside(dir: &Path) -> io::Result<PathBuf> {
    let aside = create_numbered(dir)?;
    for name in [LOG, ROLLBACK, DATABASE, SYNCED] {
        match fs::rename(dir.join(name), aside.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(aside)
}

/// Creates the first `corrupt-<n>` that does not exist yet.
fn create_numbered(dir: &Path) -> io::Result<PathBuf> {
    let mut n = 1_u32;
    loop {
        let path = dir.join(format!("corrupt-{n}"));
        match fs::create_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => n += 1,
            result => return result.map(|()| path),
        }
    }
}

/// See the module.
struct Embedded {
    dir: PathBuf,
    database: Connection,
    /// The write-ahead log, only to sync it. SQLite takes no lock on this file, so opening and
    /// closing it ourselves releases none.
    log: File,
    /// Holds the last sequence known to be on the disk, see [`Mark`].
    synced: File,
    /// Number of the last committed batch.
    sequence: i64,
    /// The log must be folded at the next sync, however short it is.
    fold_due: bool,
    /// The names of the files are known to be on the disk.
    names_synced: bool,
}

impl Embedded {
    fn open(dir: &Path) -> Result<(Self, Vec<Record>), StoreError> {
        refuse_orphaned_log(dir)?;
        let failed = |e: rusqlite::Error| classify(dir, &e);
        let database = Connection::open(dir.join(DATABASE)).map_err(failed)?;
        // Until the contents are verified, closing must leave the evidence as it was found.
        let keep_log = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        database.set_db_config(keep_log, true).map_err(failed)?;
        database.busy_timeout(Duration::ZERO).map_err(failed)?;
        check_format(dir, &database)?;
        let (sequence, records) = verified(dir, &database)?;
        let synced = open_mark(dir, sequence)?;
        prepare(&database, sequence).map_err(failed)?;
        database.set_db_config(keep_log, false).map_err(failed)?;
        let log = File::open(dir.join(LOG)).map_err(|e| unwritable(dir, &e))?;
        let store = Self {
            dir: dir.to_path_buf(),
            database,
            log,
            synced,
            sequence: sequence + 1,
            fold_due: false,
            names_synced: false, // left to the first sync: starting must not wait for the disk
        };
        Ok((store, records))
    }

    fn commit(&mut self, batch: &[Change]) -> rusqlite::Result<()> {
        let transaction = self.database.transaction()?;
        {
            let mut put = transaction.prepare_cached(
                "INSERT INTO record VALUES (?1, ?2, ?3) ON CONFLICT (key)
                 DO UPDATE SET value = excluded.value, checksum = excluded.checksum",
            )?;
            let mut delete = transaction.prepare_cached("DELETE FROM record WHERE key = ?1")?;
            for Change { key, value } in batch {
                match value {
                    Some(value) => put.execute(params![key, value, checksum(key, value)])?,
                    None => delete.execute([key])?,
                };
            }
            transaction.prepare_cached("UPDATE batch SET sequence = ?1")?.execute([self.sequence + 1])?;
        }
        transaction.commit()
    }

    /// Folds the log into the database; SQLite syncs the one before and the other after.
    fn fold_log(&mut self) -> Result<(), StoreError> {
        self.fold_due = true; // until it has been done
        let (busy, _) = self.checkpoint("RESTART")?;
        self.fold_due = busy;
        if busy { Err(unwritable(&self.dir, &"the log is in use")) } else { Ok(()) }
    }

    /// Runs a checkpoint of this mode: whether something was in its way, and how many pages of the
    /// log are not in the database yet.
    fn checkpoint(&self, mode: &str) -> Result<(bool, i64), StoreError> {
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        let answer = self.database.query_row(&sql, [], |row| {
            let (busy, log, folded): (i64, i64, i64) = row.try_into()?;
            Ok((busy != 0, log - folded))
        });
        answer.map_err(|e| classify(&self.dir, &e))
    }
}

impl Store for Embedded {
    fn write(&mut self, batch: &[Change]) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let committed = match self.commit(batch) {
            // The disk may be full of our own log. Folded, it is used again from its start.
            Err(e) if is_disk_full(&e) && self.fold_log().is_ok() => self.commit(batch),
            other => other,
        };
        committed.map_err(|e| classify(&self.dir, &e))?;
        self.sequence += 1;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        if self.fold_due || self.checkpoint("NOOP")?.1 >= LOG_PAGES_MAX {
            self.fold_log()?;
        } else if let Err(e) = self.log.sync_data() {
            // The kernel may now take the unwritten pages for clean: have them written again.
            self.fold_due = true;
            return Err(unwritable(&self.dir, &e));
        }
        if !self.names_synced {
            sync_directory(&self.dir).map_err(|e| unwritable(&self.dir, &e))?;
            self.names_synced = true;
        }
        let mark = Mark(self.sequence).encode();
        let noted = self.synced.write_all_at(&mark, 0);
        noted.map_err(|e| unwritable(&self.dir, &e))
    }

    fn load(&mut self) -> Result<Vec<Record>, StoreError> {
        load(&self.dir, &self.database)
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn kind(&self) -> &'static str {
        "embedded"
    }
}

/// SQLite deletes a log that it finds beside an empty database. The first page of ours is written
/// before the log exists, so together they mean that the database was lost.
fn refuse_orphaned_log(dir: &Path) -> Result<(), StoreError> {
    let len = |name| fs::metadata(dir.join(name)).map_or(0, |m| m.len());
    if len(DATABASE) == 0 && len(LOG) > 0 {
        return Err(corrupt(dir, "the database is gone, its log is not"));
    }
    Ok(())
}

/// Takes the lock and creates or recognises the layout.
fn check_format(dir: &Path, database: &Connection) -> Result<(), StoreError> {
    let failed = |e: rusqlite::Error| classify(dir, &e);
    database.execute_batch(SETTINGS).map_err(failed)?;
    let number = |sql| database.query_row(sql, [], |row| row.get::<_, i64>(0));
    let tables = number("SELECT count(*) FROM sqlite_schema").map_err(failed)?;
    if tables == 0 {
        return create_layout(database).map_err(failed);
    }
    if number("PRAGMA application_id").map_err(failed)? != APPLICATION_ID {
        return Err(corrupt(dir, "it is not a store of this gateway"));
    }
    match number("PRAGMA user_version").map_err(failed)? {
        FORMAT => Ok(()),
        newer if newer > FORMAT => {
            let cause = format!("it has format {newer}, this version knows {FORMAT}");
            Err(unwritable(dir, &cause))
        }
        unknown => Err(corrupt(dir, &format!("it has the unknown format {unknown}"))),
    }
}

fn create_layout(database: &Connection) -> rusqlite::Result<()> {
    database.execute_batch(&format!(
        "BEGIN IMMEDIATE; {LAYOUT}
         PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
    ))
}

/// The sequence of the last batch and all records, if every part of the database is sound.
fn verified(dir: &Path, database: &Connection) -> Result<(i64, Vec<Record>), StoreError> {
    let failed = |e: rusqlite::Error| classify(dir, &e);
    let verdict: String = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if verdict != "ok" {
        return Err(corrupt(dir, &verdict));
    }
    let sequence = database.query_row("SELECT sequence FROM batch", [], |row| row.get(0)).optional().map_err(failed)?;
    Ok((sequence.unwrap_or(0), load(dir, database)?))
}

fn load(dir: &Path, database: &Connection) -> Result<Vec<Record>, StoreError> {
    let failed = |e: rusqlite::Error| classify(dir, &e);
    let mut select = database.prepare("SELECT key, value, checksum FROM record").map_err(failed)?;
    let mut rows = select.query([]).map_err(failed)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let column = |index| row.get::<_, Vec<u8>>(index).map_err(failed);
        let (key, value) = (column(0)?, column(1)?);
        if row.get::<_, i64>(2).map_err(failed)? != checksum(&key, &value) {
            return Err(corrupt(dir, "a record does not match its checksum"));
        }
        records.push((key, value));
    }
    Ok(records)
}

/// Writes the next sequence, so that a store which cannot be written is known at once and the log
/// exists, to be synced.
fn prepare(database: &Connection, sequence: i64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO batch VALUES (1, ?1) ON CONFLICT DO UPDATE SET sequence = ?1";
    database.execute(sql, [sequence + 1]).map(|_| ())
}

/// Opens the file of the last synced sequence and compares it with the `sequence` found.
fn open_mark(dir: &Path, sequence: i64) -> Result<File, StoreError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(SYNCED))
        .map_err(|e| unwritable(dir, &e))?;
    let mut bytes = [0; Mark::BYTES];
    let read = file.read_exact_at(&mut bytes, 0).ok();
    // A mark that is missing or damaged says nothing; the next sync writes it anew.
    let synced = read.and_then(|()| Mark::decode(bytes)).map(|m| m.0);
    match synced {
        Some(synced) if sequence < synced => {
            let cause = format!("batch {synced} was on the disk, {sequence} is the last one left");
            Err(corrupt(dir, &cause))
        }
        _ => Ok(file),
    }
}

/// The sequence of the last batch that a sync has made safe. Written after the sync, so it never
/// promises too much.
struct Mark(i64);

impl Mark {
    const BYTES: usize = 16;

    fn encode(&self) -> [u8; Self::BYTES] {
        let sequence = self.0.to_le_bytes();
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&sequence);
        bytes[8..].copy_from_slice(&checksum(b"synced", &sequence).to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let sequence = bytes.first_chunk().copied().map(i64::from_le_bytes)?;
        (Self(sequence).encode() == bytes).then_some(Self(sequence))
    }
}

/// FNV-1a over the length of the key, the key and the value. Its steps are bijective, so no change
/// of a single byte goes unnoticed. It is part of the format.
fn checksum(key: &[u8], value: &[u8]) -> i64 {
    let length = (key.len() as u64).to_le_bytes();
    let bytes = length.iter().chain(key).chain(value);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    hash.cast_signed()
}

/// Makes the names of new files survive a power loss: those in `dir`, and `dir` itself.
fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()?;
    match dir.canonicalize()?.parent().map(File::open) {
        // A parent that may be passed but not read cannot be synced, nor was it changed by us.
        Some(Ok(parent)) => parent.sync_all(),
        _ => Ok(()),
    }
}

fn is_disk_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

fn classify(dir: &Path, error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { path: dir.to_path_buf() },
        Some(
            ErrorCode::CannotOpen
            | ErrorCode::DiskFull
            | ErrorCode::NoLargeFileSupport
            | ErrorCode::OutOfMemory
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure,
        ) => unwritable(dir, error),
        // Everything else means that SQLite met something that this file never writes.
        _ => corrupt(dir, &error.to_string()),
    }
}

fn unwritable(dir: &Path, cause: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unwritable { path: dir.to_path_buf(), cause: cause.to_string() }
}

fn corrupt(dir: &Path, cause: &str) -> StoreError {
    StoreError::Corrupt { path: dir.to_path_buf(), cause: cause.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::store::suite::{self, contents, delete, put};

    /// Set in the process that a test starts in order to kill it: the directory to write to.
    const VICTIM: &str = "VERTICE_TEST_STORE_VICTIM";

    fn sound(dir: &Path) -> Box<dyn Store> {
        let opened = open(dir).unwrap();
        assert!(opened.moved_aside.is_none(), "{:?}", opened.moved_aside);
        opened.store
    }

    #[test]
    fn behaves_as_a_store() {
        let root = tempfile::tempdir().unwrap();
        let number = std::cell::Cell::new(0);
        suite::run(|| {
            number.set(number.get() + 1);
            sound(&root.path().join(number.get().to_string()))
        });
    }

    #[test]
    fn behaves_as_a_durable_store() {
        let root = tempfile::tempdir().unwrap();
        suite::run_durable(|| sound(&root.path().join("parents/are/created")));
    }

    #[test]
    fn opening_hands_over_what_was_kept() {
        let root = tempfile::tempdir().unwrap();
        sound(root.path()).write(&[put("a", b"1")]).unwrap();
        let opened = open(root.path()).unwrap();
        assert_eq!(opened.records, [(b"a".to_vec(), b"1".to_vec())]);
    }

    /// Starts this test once more in a child that writes and says what was acknowledged, until it
    /// is killed.
    #[test]
    fn every_acknowledged_write_survives_kill_9() {
        if let Some(dir) = std::env::var_os(VICTIM) {
            return write_until_killed(Path::new(&dir));
        }
        let root = tempfile::tempdir().unwrap();
        let mut acknowledged = Vec::new();
        for round in 1..=3 {
            acknowledged.extend(acknowledged_by_a_victim(root.path()));
            let kept = contents(&mut *sound(root.path()));
            assert!(acknowledged.len() >= 300 * round);
            for key in &acknowledged {
                assert!(kept.contains_key(key), "{key} was acknowledged and is gone");
            }
            assert!(!kept.contains_key("deleted"));
        }
    }

    fn write_until_killed(dir: &Path) {
        let mut store = sound(dir);
        for n in 0.. {
            let key = format!("{}-{n}", std::process::id());
            store.write(&[put(&key, b"value"), put("deleted", b"")]).unwrap();
            store.write(&[delete("deleted")]).unwrap();
            // Past the capture of the test harness, and not at all once the parent is gone.
            writeln!(io::stdout(), "\nacknowledged {key}").unwrap();
            if n % 100 == 99 {
                store.sync().unwrap();
            }
        }
    }

    fn acknowledged_by_a_victim(dir: &Path) -> Vec<String> {
        let module = module_path!().split_once("::").unwrap().1;
        let test = format!("{module}::every_acknowledged_write_survives_kill_9");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &test, "--nocapture"])
            .env(VICTIM, dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut keys = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            keys.extend(line.strip_prefix("acknowledged ").map(str::to_owned));
            if keys.len() >= 300 {
                child.kill().unwrap(); // and read on: what it said before it died counts too
            }
        }
        let death = child.wait().unwrap();
        assert_eq!(death.signal(), Some(libc::SIGKILL), "{death}");
        keys
    }

    #[test]
    fn a_store_held_by_another_is_locked_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let mut holder = sound(root.path());
        holder.write(&[put("a", b"1")]).unwrap();
        let refused = open(root.path()).err().unwrap();
        assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
        holder.write(&[put("b", b"2")]).unwrap();
        drop(holder);
        assert_eq!(contents(&mut *sound(root.path())).len(), 2);
    }

    #[test]
    fn a_path_that_cannot_hold_a_store_is_unwritable() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "not ours").unwrap();
        for dir in [file.clone(), file.join("below"), "/proc/nowhere".into()] {
            let refused = open(&dir).err().unwrap();
            assert!(matches!(refused, StoreError::Unwritable { .. }), "{refused}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"not ours");
    }

    #[test]
    fn a_newer_format_is_not_touched() {
        let root = tempfile::tempdir().unwrap();
        sound(root.path()).write(&[put("a", b"1")]).unwrap();
        let database = Connection::open(root.path().join(DATABASE)).unwrap();
        database.execute_batch("PRAGMA user_version = 2").unwrap();
        drop(database);
        let refused = open(root.path()).err().unwrap();
        assert!(matches!(refused, StoreError::Unwritable { .. }), "{refused}");
        assert!(!root.path().join("corrupt-1").exists());
    }

    #[test]
    fn a_full_disk_fails_the_write_and_the_next_one_works_when_there_is_space() {
        let root = tempfile::tempdir().unwrap();
        let (mut store, _) = Embedded::open(root.path()).unwrap();
        store.write(&[put("before", b"1")]).unwrap();
        let limit = |store: &Embedded, pages: u32| {
            let sql = format!("PRAGMA max_page_count = {pages}");
            store.database.query_row(&sql, [], |_| Ok(())).unwrap();
        };
        limit(&store, 1); // never below what is in use: nothing more fits
        let large = put("large", &[7; 100_000]);
        let refused = store.write(&[put("small", b"2"), large.clone()]).unwrap_err();
        assert!(matches!(refused, StoreError::Unwritable { .. }), "{refused}");
        assert_eq!(contents(&mut store).len(), 1, "half a batch was kept");
        store.sync().unwrap();
        limit(&store, u32::MAX - 1);
        store.write(&[large]).unwrap();
        drop(store);
        assert_eq!(contents(&mut *sound(root.path())).len(), 2);
    }

    #[test]
    fn the_files_stay_small_however_often_a_key_is_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let mut store = sound(root.path());
        for n in 0..20_000_u32 {
            let key = format!("key {}", n % 100);
            store.write(&[put(&key, &[n as u8; 300])]).unwrap();
            if n % 500 == 0 {
                store.sync().unwrap();
            }
        }
        let files = fs::read_dir(root.path()).unwrap();
        let bytes: u64 = files.map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < 24 << 20, "{bytes} bytes for 100 records");
    }

    /// The files of a store with its [`RECORDS`], as a kill would leave them, some of the records
    /// in the database and some in its log.
    fn files_of_a_killed_store() -> BTreeMap<&'static str, Vec<u8>> {
        let root = tempfile::tempdir().unwrap();
        let (mut store, _) = Embedded::open(root.path()).unwrap();
        for n in 0..RECORDS {
            let value = [n as u8; 300];
            store.write(&[put(&format!("key {n:03}"), &value)]).unwrap();
            if n == RECORDS / 2 {
                store.fold_log().unwrap();
            }
        }
        store.sync().unwrap();
        let read = |name| (name, fs::read(root.path().join(name)).unwrap());
        [DATABASE, LOG, SYNCED].map(read).into()
    }

    fn restored(files: &BTreeMap<&'static str, Vec<u8>>) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(root.path().join(name), bytes).unwrap();
        }
        root
    }

    /// Opens the damaged files: either nothing is missing, or it is said and the evidence kept.
    fn lost_and_said_so(files: &BTreeMap<&'static str, Vec<u8>>, what: &str) -> bool {
        let root = restored(files);
        let mut opened = match open(root.path()) {
            Ok(opened) => opened,
            Err(refused) => {
                assert!(matches!(refused, StoreError::Unwritable { .. }), "{refused}");
                return true;
            }
        };
        let expected = records_of_a_killed_store();
        let Some(aside) = opened.moved_aside else {
            assert!(opened.records == expected, "{what}: records lost silently");
            return false;
        };
        assert!(opened.records.is_empty());
        opened.store.write(&[put("new", b"1")]).unwrap();
        for (name, bytes) in files {
            let kept = fs::read(aside.path.join(name)).unwrap();
            assert!(kept == *bytes, "{what}: {name} was changed, {}", aside.cause);
        }
        true
    }

    fn records_of_a_killed_store() -> Vec<Record> {
        let mut records: Vec<_> = (0..RECORDS).map(|n| (format!("key {n:03}").into_bytes(), vec![n as u8; 300])).collect();
        records.sort();
        records
    }

    const RECORDS: usize = 200;

    #[test]
    fn files_left_by_a_kill_are_complete() {
        let files = files_of_a_killed_store();
        assert!(!lost_and_said_so(&files, "no damage"));
    }

    #[test]
    fn no_flipped_bit_loses_records_silently() {
        let sound = files_of_a_killed_store();
        let mut noticed = 0;
        for name in [DATABASE, LOG] {
            let last = sound[name].len() - 1;
            let header = (0..last.min(128)).step_by(3);
            for position in header.chain((128..last).step_by(1 + last / 150)) {
                let mut files = sound.clone();
                files.get_mut(name).unwrap()[position] ^= 1 << (position % 8);
                noticed += u32::from(lost_and_said_so(&files, &format!("{name} at {position}")));
            }
        }
        assert!(noticed > 100, "only {noticed} of the flips were noticed");
    }

    #[test]
    fn no_cut_zeroed_or_foreign_file_loses_records_silently() {
        let sound = files_of_a_killed_store();
        for name in [DATABASE, LOG] {
            let whole = &sound[name];
            let middle = whole.len() / 2;
            let garbage = (0..whole.len()).map(|i| (i * i / 7) as u8).collect();
            let mut hole = whole.clone();
            hole[middle..middle + 4096.min(middle)].fill(0);
            let cut = whole[..middle].to_vec();
            let damages = [("cut", cut), ("empty", vec![]), ("garbage", garbage), ("hole", hole), ("text", b"hello".to_vec())];
            for (what, bytes) in damages {
                let mut files = sound.clone();
                files.insert(name, bytes);
                let noticed = lost_and_said_so(&files, &format!("{name} {what}"));
                assert!(noticed, "{name} {what} went unnoticed");
            }
        }
    }

    #[test]
    fn a_damaged_mark_costs_no_records() {
        for bytes in [vec![], vec![0; 7], vec![255; 16], vec![1; 100]] {
            let mut files = files_of_a_killed_store();
            files.insert(SYNCED, bytes);
            assert!(!lost_and_said_so(&files, "mark"));
        }
    }

    #[test]
    fn a_second_corrupt_store_does_not_replace_the_first() {
        let root = restored(&[(DATABASE, b"first".to_vec())].into());
        let first = open(root.path()).unwrap().moved_aside.unwrap().path;
        fs::write(root.path().join(DATABASE), "second").unwrap();
        let second = open(root.path()).unwrap().moved_aside.unwrap().path;
        assert_eq!(fs::read(first.join(DATABASE)).unwrap(), b"first");
        assert_eq!(fs::read(second.join(DATABASE)).unwrap(), b"second");
    }
}
