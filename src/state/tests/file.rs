//! The store in a file: what outlives a process, and what cannot be opened.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::database::Guard;
use super::super::{File, Mark, Store};
use super::{Clock, SPACE, open};

fn refused(path: &Path) -> String {
    match File::open(path) {
        Ok(_) => panic!("opened {}", path.display()),
        Err(error) => error.to_string(),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn entries_are_there_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/state.db");
    let clock = Clock::new();
    let store = open(&path, &clock);
    store.put(SPACE, "a", b"1".to_vec(), None).await.unwrap();
    store.put(SPACE, "b", b"2".to_vec(), clock.later(10)).await.unwrap();
    drop(store);
    clock.forward(10);
    let store = open(&path, &clock);
    assert_eq!(store.get(SPACE, "a").await.unwrap(), Some(b"1".to_vec()));
    assert_eq!(store.get(SPACE, "b").await.unwrap(), None);
}

#[tokio::test]
async fn only_its_owner_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/state.db");
    let store = open(&path, &Clock::new());
    store.put(SPACE, "a", b"1".to_vec(), None).await.unwrap();
    assert_eq!((mode(&path), mode(&folder.path().join("data"))), (0o600, 0o700));
    assert_eq!(mode(&folder.path().join("data/state.db-wal")), 0o600);
    drop(store);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    drop(open(&path, &Clock::new()));
    assert_eq!(mode(&path), 0o600, "and that is put right");
}

#[tokio::test]
async fn only_one_can_have_it_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = open(&path, &Clock::new());
    assert!(refused(&path).contains("another process has it open"), "{}", refused(&path));
    store.put(SPACE, "a", b"1".to_vec(), None).await.unwrap();
    drop(store);
    drop(open(&path, &Clock::new()));
}

#[test]
fn what_cannot_be_a_store_is_said_why() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert!(refused(&at("no/such/state.db")).contains("cannot be made"));
    assert!(refused(folder.path()).contains("it is a folder"));
    fs::write(at("text"), "this is no database, however long it is: ".repeat(100)).unwrap();
    assert!(refused(&at("text")).contains("it is not a database"));
    let foreign = rusqlite::Connection::open(at("foreign.db")).unwrap();
    foreign.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)").unwrap();
    drop(foreign);
    assert!(refused(&at("foreign.db")).contains("another program"));
    drop(open(&at("new.db"), &Clock::new()));
    let newer = rusqlite::Connection::open(at("new.db")).unwrap();
    newer.pragma_update(None, "user_version", 2).unwrap();
    drop(newer);
    assert!(refused(&at("new.db")).contains("version 2"));
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = open(&path, &Clock::new());
    for number in 0..200 {
        store.put(SPACE, &format!("key-{number}"), vec![7; 500], None).await.unwrap();
    }
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    assert!(bytes.len() > 40_000, "{}", bytes.len());
    for byte in bytes.iter_mut().skip(8192).take(20_000) {
        *byte ^= 0x5a;
    }
    fs::write(&path, bytes).unwrap();
    assert!(refused(&path).contains("it is damaged"), "{}", refused(&path));
}

/// Operations that wait together share a transaction: one that fails is alone with it.
#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_all_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&folder.path().join("state.db"), &Clock::new()));
    let tasks: Vec<_> = (0..2000)
        .map(|number: u32| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.put(SPACE, &format!("{number:04}"), Vec::new(), None).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(store.list(SPACE, None, usize::MAX).await.unwrap().len(), 2000);
}

/// The disk that hangs is a clock that hangs: the thread of the store reads it before each transaction.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_longer_than_the_bound() {
    let folder = tempfile::tempdir().unwrap();
    let hangs = Arc::new(Mutex::new(()));
    let now = {
        let (hangs, now) = (Arc::clone(&hangs), Clock::new().now());
        Arc::new(move || {
            drop(hangs.lock().unwrap());
            now()
        })
    };
    let store = Arc::new(File::with_clock(&folder.path().join("state.db"), now, Duration::from_millis(50)).unwrap());
    let asked = {
        let (store, hanging) = (Arc::clone(&store), hangs.lock().unwrap());
        let asked = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let write = store.put(SPACE, "a", b"1".to_vec(), None).await;
                (write, store.get(SPACE, "a").await)
            })
        });
        drop(hanging);
        asked
    };
    for error in [asked.0.unwrap_err(), asked.1.unwrap_err()] {
        assert!(error.to_string().contains("did not answer within 50ms"), "{error}");
    }
    // It may have happened or not; but the store is there again.
    while store.get(SPACE, "a").await.is_err() {}
}

/// How many writes the child has to acknowledge before it is killed.
const ACKNOWLEDGED_MIN: usize = 100;

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "state::tests::file::writes_until_it_is_killed"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let number = |line: String| line.strip_prefix("acknowledged ").map(str::to_owned);
    let mut acknowledged: Vec<String> = lines.by_ref().filter_map(number).take(ACKNOWLEDGED_MIN).collect();
    assert_eq!(acknowledged.len(), ACKNOWLEDGED_MIN, "the child has ended before its time");
    // SIGKILL, in the middle of whatever it does now.
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged.extend(lines.filter_map(number));
    let store = open(&path, &Clock::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for key in acknowledged {
        let value = runtime.block_on(store.get(SPACE, &key)).unwrap();
        assert_eq!(value.as_deref(), Some(key.as_bytes()), "{key} was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by `what_was_acknowledged_is_there_after_a_kill`, and never ends by itself"]
async fn writes_until_it_is_killed() {
    let store = Arc::new(open(Path::new("state.db"), &Clock::new()));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for number in 0_u64.. {
                    let key = format!("{writer}-{number}");
                    store.put(SPACE, &key, key.clone().into_bytes(), None).await.unwrap();
                    // A line is written whole or not at all as far as the reader can tell.
                    println!("acknowledged {key}");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

/// While one gateway hands over to another, both have it open.
#[tokio::test]
async fn two_of_a_handover_see_what_the_other_one_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let old = File::open(&path).unwrap();
    let start = old.changes(SPACE, &Mark::default()).await.unwrap();
    assert_eq!(start.keys, Some(Vec::new()));
    old.put(SPACE, "a", b"1".to_vec(), None).await.unwrap();
    let own = old.changes(SPACE, &start.mark).await.unwrap();
    assert_eq!(own.keys, Some(Vec::new()), "it knows what it wrote itself");
    let guard = Guard::adopt(&path, old.guard().share().unwrap()).unwrap();
    let next = File::open_beside(&path, guard).unwrap();
    assert_eq!(next.get(SPACE, "a").await.unwrap(), Some(b"1".to_vec()));
    old.put(SPACE, "b", b"2".to_vec(), None).await.unwrap();
    let seen = next.changes(SPACE, &Mark::default()).await.unwrap();
    assert_eq!(seen.keys, None, "all is to be read again");
    next.put(SPACE, "c", b"3".to_vec(), None).await.unwrap();
    assert_eq!(next.changes(SPACE, &seen.mark).await.unwrap().keys, Some(Vec::new()));
    assert_eq!(old.changes(SPACE, &own.mark).await.unwrap().keys, None);
    drop(old);
    assert!(refused(&path).contains("another process has it open"), "the lock was handed over");
    assert_eq!(next.get(SPACE, "c").await.unwrap(), Some(b"3".to_vec()));
}
