//! The embedded store: one SQLite database in a directory of its own.
//!
//! A batch is one transaction appended to the write-ahead log with a plain `write`, so it is in the
//! kernel, and survives this process, before [`Values::write`] returns. [`Store::sync`] forces the
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

use super::local::{Entry, Local, Values, Write};
use super::{Store, StoreError, SyncJob};

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
    pub records: Vec<Entry>,
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

fn opened(store: Embedded, records: Vec<Entry>, moved_aside: Option<MovedAside>) -> Opened {
    let store = Box::new(Local::new(store));
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
    fn open(dir: &Path) -> Result<(Self, Vec<Entry>), StoreError> {
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

    fn commit(&mut self, batch: &[Write]) -> rusqlite::Result<()> {
        let transaction = self.database.transaction()?;
        {
            let mut put = transaction.prepare_cached(
                "INSERT INTO record VALUES (?1, ?2, ?3) ON CONFLICT (key)
                 DO UPDATE SET value = excluded.value, checksum = excluded.checksum",
            )?;
            let mut delete = transaction.prepare_cached("DELETE FROM record WHERE key = ?1")?;
            for Write { key, value } in batch {
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

impl Values for Embedded {
    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
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

    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || {
            let mut select = self.database.prepare_cached("SELECT value FROM record WHERE key = ?1")?;
            select.query_row([key], |row| row.get(0)).optional()
        };
        read().map_err(|e| classify(&self.dir, &e))
    }

    fn begin_sync(&mut self) -> Result<Option<SyncJob>, StoreError> {
        let folded = self.fold_due || self.checkpoint("NOOP")?.1 >= LOG_PAGES_MAX;
        if folded {
            self.fold_log()?;
        }
        let mark = Mark(self.sequence).encode();
        let names = !std::mem::replace(&mut self.names_synced, true);
        let (log, synced) = (self.log.try_clone(), self.synced.try_clone());
        let (log, synced) = (log.map_err(|e| unwritable(&self.dir, &e))?, synced.map_err(|e| unwritable(&self.dir, &e))?);
        let dir = self.dir.clone();
        Ok(Some(Box::new(move || {
            if !folded {
                log.sync_data().map_err(|e| unwritable(&dir, &e))?;
            }
            if names {
                sync_directory(&dir).map_err(|e| unwritable(&dir, &e))?;
            }
            synced.write_all_at(&mark, 0).map_err(|e| unwritable(&dir, &e))
        })))
    }

    fn sync_failed(&mut self) {
        // The kernel may now take the unwritten pages for clean: have them written again.
        self.fold_due = true;
        self.names_synced = false;
    }

    fn load(&mut self) -> Result<Vec<Entry>, StoreError> {
        load(&self.dir, &self.database)
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
fn verified(dir: &Path, database: &Connection) -> Result<(i64, Vec<Entry>), StoreError> {
    let failed = |e: rusqlite::Error| classify(dir, &e);
    let verdict: String = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if verdict != "ok" {
        return Err(corrupt(dir, &verdict));
    }
    let sequence = database.query_row("SELECT sequence FROM batch", [], |row| row.get(0)).optional().map_err(failed)?;
    Ok((sequence.unwrap_or(0), load(dir, database)?))
}

fn load(dir: &Path, database: &Connection) -> Result<Vec<Entry>, StoreError> {
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
mod tests;
