use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use super::*;
use crate::store::Store;
use crate::store::suite;

/// Set in the process that a test starts in order to kill it: the directory to write to.
const VICTIM: &str = "VERTICE_TEST_STORE_VICTIM";

fn sound(dir: &Path) -> Box<dyn Store> {
    let opened = open(dir).unwrap();
    assert!(opened.moved_aside.is_none(), "{:?}", opened.moved_aside);
    opened.store
}

/// The keys and values below the store, which must be sound.
fn values(dir: &Path) -> Embedded {
    drop(sound(dir));
    Embedded::open(dir).unwrap().0
}

fn sync(values: &mut Embedded) {
    values.begin_sync().unwrap().unwrap()().unwrap();
}

/// A change that writes `value` under `key`.
fn put(key: &str, value: &[u8]) -> Write {
    Write { key: key.into(), value: Some(value.to_vec()) }
}

/// A change that deletes `key`.
fn delete(key: &str) -> Write {
    Write { key: key.into(), value: None }
}

/// Everything, by key.
fn contents(values: &mut Embedded) -> BTreeMap<String, Vec<u8>> {
    let entries = values.load().unwrap();
    let count = entries.len();
    let by_key: BTreeMap<_, _> = entries.into_iter().map(|(k, v)| (String::from_utf8(k).unwrap(), v)).collect();
    assert_eq!(by_key.len(), count, "a key was returned twice");
    by_key
}

#[test]
fn the_last_value_of_a_key_is_kept_whatever_its_bytes() {
    let root = tempfile::tempdir().unwrap();
    let mut store = values(root.path());
    let all: Vec<u8> = (0..=255).collect();
    let change = |key: &[u8], value: &[u8]| Write { key: key.to_vec(), value: Some(value.to_vec()) };
    store.write(&[put("a", b"1"), put("b", b"1"), put("c", b"1")]).unwrap();
    store
        .write(&[put("a", b"longer than before"), delete("never there"), put("b", b"2"), delete("b"), put("c", b"3")])
        .unwrap();
    store.write(&[change(&all, b""), change(b"", &all), change(b"\0", b"\0")]).unwrap();
    store.write(&[]).unwrap();
    let mut kept = store.load().unwrap();
    kept.sort();
    let text = |key: &str, value: &[u8]| (key.into(), value.to_vec());
    let expected =
        [(vec![], all.clone()), (vec![0], vec![0]), (all, vec![]), text("a", b"longer than before"), text("c", b"3")];
    assert_eq!(kept, expected);
    assert_eq!((store.get(b"c").unwrap(), store.get(b"b").unwrap()), (Some(b"3".to_vec()), None));
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
    values(root.path()).write(&[put("a", b"1")]).unwrap();
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
        let kept = contents(&mut values(root.path()));
        assert!(acknowledged.len() >= 300 * round);
        for key in &acknowledged {
            assert!(kept.contains_key(key), "{key} was acknowledged and is gone");
        }
        assert!(!kept.contains_key("deleted"));
    }
}

fn write_until_killed(dir: &Path) {
    let mut store = values(dir);
    for n in 0.. {
        let key = format!("{}-{n}", std::process::id());
        store.write(&[put(&key, b"value"), put("deleted", b"")]).unwrap();
        store.write(&[delete("deleted")]).unwrap();
        // Past the capture of the test harness, and not at all once the parent is gone.
        writeln!(io::stdout(), "\nacknowledged {key}").unwrap();
        if n % 100 == 99 {
            sync(&mut store);
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
    let mut holder = values(root.path());
    holder.write(&[put("a", b"1")]).unwrap();
    let refused = open(root.path()).err().unwrap();
    assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
    holder.write(&[put("b", b"2")]).unwrap();
    drop(holder);
    assert_eq!(contents(&mut values(root.path())).len(), 2);
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
    values(root.path()).write(&[put("a", b"1")]).unwrap();
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
    sync(&mut store);
    limit(&store, u32::MAX - 1);
    store.write(&[large]).unwrap();
    drop(store);
    assert_eq!(contents(&mut values(root.path())).len(), 2);
}

#[test]
fn the_files_stay_small_however_often_a_key_is_overwritten() {
    let root = tempfile::tempdir().unwrap();
    let mut store = values(root.path());
    for n in 0..20_000_u32 {
        let key = format!("key {}", n % 100);
        store.write(&[put(&key, &[n as u8; 300])]).unwrap();
        if n % 500 == 0 {
            sync(&mut store);
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
    sync(&mut store);
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
    suite::write(&mut *opened.store, [suite::there("new", 1)]);
    for (name, bytes) in files {
        let kept = fs::read(aside.path.join(name)).unwrap();
        assert!(kept == *bytes, "{what}: {name} was changed, {}", aside.cause);
    }
    true
}

fn records_of_a_killed_store() -> Vec<Entry> {
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
