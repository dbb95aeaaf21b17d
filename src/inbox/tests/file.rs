//! The queue in a file: what outlives a process, what cannot be opened, and what a full disk does.

mod full;
mod kill;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use super::super::{Claims, Counts, File, Outcome, Put, Queue, Standing};
use super::{Bench, INBOX, LEASE, WIDE, at, dead, message, names, open, retry};
use crate::state;

fn refused(path: &Path) -> String {
    match File::open(path) {
        Ok(_) => panic!("opened {}", path.display()),
        Err(error) => error.to_string(),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn it_is_beside_the_state_file() {
    for (state, inbox) in [
        ("data/tollgate.db", "data/tollgate-inbox.db"),
        ("tollgate.db", "tollgate-inbox.db"),
        ("/var/lib/tollgate/state", "/var/lib/tollgate/state-inbox"),
        ("a.b/c.d.sqlite", "a.b/c.d-inbox.sqlite"),
    ] {
        assert_eq!(File::beside(Path::new(state)), Path::new(inbox));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_message_makes_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inbox.db");
    let queue = Arc::new(File::open(&path).unwrap());
    assert_eq!(queue.claim(INBOX, 1, LEASE, at(0)).await.unwrap(), Claims::default());
    assert_eq!(queue.counts(INBOX, at(0)).await.unwrap(), Counts::default());
    assert!(queue.inboxes().await.unwrap().is_empty());
    assert!(queue.list(INBOX, None, None, 10, at(0)).await.unwrap().is_empty());
    assert!(queue.show(INBOX, "a", at(0)).await.unwrap().is_none());
    assert!(!queue.replay(INBOX, "a", at(0)).await.unwrap());
    assert!(!queue.discard(INBOX, "a", at(0)).await.unwrap());
    assert!(!path.exists());
    let changed = queue.changed();
    let puts: Vec<_> = (0..20)
        .map(|number| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.put(message(&number.to_string(), None), WIDE).await.unwrap() })
        })
        .collect();
    for put in puts {
        assert_eq!(put.await.unwrap(), Put::Stored);
    }
    changed.await;
    assert_eq!(queue.claim(INBOX, 100, LEASE, at(0)).await.unwrap().messages.len(), 20);
    drop(queue);
    let queue = File::open(&path).unwrap();
    assert_eq!(queue.inboxes().await.unwrap(), [INBOX], "it is opened at once now");
}

#[tokio::test]
async fn a_file_that_cannot_be_made_is_an_error_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let queue = File::open(&folder.path().join("no/such/inbox.db")).unwrap();
    let error = queue.put(message("a", None), WIDE).await.unwrap_err().to_string();
    assert!(error.contains("as the inbox: the folder") && error.contains("cannot be made"), "{error}");
    fs::create_dir(folder.path().join("no")).unwrap();
    assert_eq!(queue.put(message("a", None), WIDE).await.unwrap(), Put::Stored);
}

#[tokio::test]
async fn messages_are_there_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::file_in(folder);
    let orders = [("a", None), ("b", None), ("c", None), ("d", Some("x")), ("e", Some("x"))];
    bench.put_all(&orders).await;
    let claims = bench.claim(10, 0).await.messages;
    assert_eq!(names(&claims), ["a", "b", "c", "d"]);
    assert!(bench.settle(&claims[0], retry(5000), 0).await);
    assert!(bench.settle(&claims[1], dead(), 0).await);
    let before = bench.counts(0).await;
    let folder = bench.folder.unwrap();
    drop(bench.queue);

    let bench = Bench::file_in(folder);
    assert_eq!(bench.standing(0).await, [3, 1, 0, 1], "whoever had a claim is dead");
    assert_eq!(bench.counts(0).await.bytes, before.bytes);
    assert!(!bench.settle(&claims[2], Outcome::Delivered, 0).await);
    let again = bench.claim(10, 0).await.messages;
    let attempts: Vec<_> = again.iter().map(|one| (one.message.clone(), one.attempt)).collect();
    assert_eq!(attempts, [(message("c", None), 2), (message("d", Some("x")), 2)], "they may have been delivered");
    assert!(bench.settle(&again[1], Outcome::Delivered, 0).await);
    assert_eq!(bench.names(0).await, ["e"]);
    let entry = bench.queue.show(INBOX, "b", at(0)).await.unwrap().unwrap();
    assert_eq!((entry.standing, entry.why.as_deref()), (Standing::Dead, Some("the upstream answered 400")));
    assert_eq!(bench.names(5000).await.first().map(String::as_str), Some("a"));
}

/// The number of a message that is gone is not given again while one with a higher number is there.
#[tokio::test]
async fn the_order_of_storing_outlives_a_restart() {
    let bench = Bench::file();
    bench.put_all(&[("c", None), ("b", None)]).await;
    let folder = bench.folder.unwrap();
    drop(bench.queue);
    let bench = Bench::file_in(folder);
    bench.put(message("a", None)).await;
    assert_eq!(bench.names(0).await, ["c", "b", "a"]);
}

#[tokio::test]
async fn only_its_owner_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/inbox.db");
    let queue = open(&path);
    queue.put(message("a", None), WIDE).await.unwrap();
    for name in ["inbox.db", "inbox.db-wal"] {
        let mode = fs::metadata(folder.path().join("data").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    drop(queue);
    drop(open(&path));
}

#[test]
fn what_is_no_inbox_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    drop(state::File::open(&at("state.db")).unwrap());
    assert!(refused(&at("state.db")).contains("another program"), "{}", refused(&at("state.db")));
    drop(open(&at("inbox.db")));
    let stranger = state::File::open(&at("inbox.db")).map(|_| ()).unwrap_err().to_string();
    assert!(stranger.contains("as the state store: it is the database of another program"), "{stranger}");
    let newer = rusqlite::Connection::open(at("inbox.db")).unwrap();
    newer.pragma_update(None, "user_version", 2).unwrap();
    drop(newer);
    assert!(refused(&at("inbox.db")).contains("version 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_is_done_before_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inbox.db");
    let queue = Arc::new(open(&path));
    let puts: Vec<_> = (0..500)
        .map(|number| {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.put(message(&format!("{number:03}"), None), WIDE).await })
        })
        .collect();
    drop(queue);
    let mut stored = 0;
    for put in puts {
        put.await.unwrap().unwrap();
        stored += 1;
    }
    let queue = open(&path);
    assert_eq!(queue.counts(INBOX, at(0)).await.unwrap().ready, stored);
}

/// Claims and lists look at what they give, however much there is besides.
#[test]
fn no_statement_scans_a_table() {
    let sources = [
        include_str!("../file/read.rs"),
        include_str!("../file/write.rs"),
        include_str!("../file/order.rs"),
        include_str!("../file/tables.rs").split("pub fn load").next().unwrap(),
    ];
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    connection.execute_batch(super::super::file::SCHEMA).unwrap();
    let mut looked_at = 0;
    for literal in sources.iter().flat_map(|source| source.split('"').skip(1).step_by(2)) {
        let sql = literal.replace("{ENTRY}", "SELECT c.head FROM messages m CROSS JOIN contents c ON c.seq = m.seq");
        if !["SELECT", "UPDATE", "DELETE"].iter().any(|verb| sql.starts_with(verb)) || sql.ends_with("c.seq = m.seq") {
            continue;
        }
        let mut plan =
            connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let steps: Vec<String> = plan.raw_query().mapped(|row| row.get(3)).map(Result::unwrap).collect();
        assert!(!steps.is_empty(), "{sql}");
        for step in steps {
            assert!(!step.contains("SCAN") && !step.contains("TEMP B-TREE"), "{sql}: {step}");
        }
        looked_at += 1;
    }
    assert!(looked_at >= 14, "{looked_at}");
}

/// While one gateway hands over to another, both have it open.
#[tokio::test]
async fn two_of_a_handover_see_what_the_other_one_does() {
    let bench = Bench::file();
    bench.put_all(&[("a", None), ("b", Some("x")), ("c", Some("x"))]).await;
    let claimed = bench.claim(1, 0).await.messages;
    let path = bench.folder.as_ref().unwrap().path().join("inbox.db");
    let next = File::open_beside(&path).unwrap();
    assert_eq!(next.counts(INBOX, at(0)).await.unwrap().claimed, 1, "what the other one works on is left to it");
    let changed = next.changed();
    bench.put(message("d", None)).await;
    next.inboxes().await.unwrap();
    changed.await;
    let own = next.claim(INBOX, 10, LEASE, at(0)).await.unwrap().messages;
    assert_eq!(names(&own), ["b", "d"], "and `c` waits for `b`");
    assert!(bench.settle(&claimed[0], Outcome::Delivered, 0).await);
    assert!(next.settle(&own[0], Outcome::Delivered, at(0)).await.unwrap());
    assert_eq!(bench.names(0).await, ["c"]);
    assert_eq!(bench.standing(0).await, [0, 0, 2, 0]);
    assert_eq!(next.put(message("a", None), WIDE).await.unwrap(), Put::Stored);
    let counts = (bench.counts(0).await, next.counts(INBOX, at(0)).await.unwrap());
    assert_eq!(counts.0, counts.1);
}

#[tokio::test]
async fn either_of_a_handover_may_make_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inbox.db");
    let (old, next) = (File::open(&path).unwrap(), File::open_beside(&path).unwrap());
    old.put(message("a", None), WIDE).await.unwrap();
    let changed = next.changed();
    assert_eq!(next.inboxes().await.unwrap(), [INBOX]);
    changed.await;
    next.put(message("b", None), WIDE).await.unwrap();
    assert_eq!(old.counts(INBOX, at(0)).await.unwrap().ready, 2);
}
