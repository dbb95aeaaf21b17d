//! No space: refused honestly, nothing lost.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::super::super::{Claimed, File, Message, Outcome, Put, Queue};
use super::super::{INBOX, LEASE, WIDE, at, message, open};

fn large(name: &str, bytes: usize) -> Message {
    Message { body: vec![7; bytes].into(), ..message(name, None) }
}

/// Puts until that is refused, and gives the names of what was stored.
async fn filled(queue: &File) -> Vec<String> {
    let mut stored = Vec::new();
    loop {
        let name = format!("{:05}", stored.len());
        match queue.put(large(&name, 60_000), WIDE).await {
            Ok(Put::Stored) => stored.push(name),
            Ok(Put::Full) => panic!("the inbox has no bounds"),
            Err(error) => {
                assert!(error.to_string().contains("full"), "{error}");
                return stored;
            }
        }
    }
}

async fn names(queue: &File) -> Vec<String> {
    let entries = queue.list(INBOX, None, None, usize::MAX, at(0)).await.unwrap();
    entries.into_iter().map(|entry| entry.message.id).collect()
}

async fn claim(queue: &File, most: usize) -> Vec<Claimed> {
    queue.claim(INBOX, most, LEASE, at(0)).await.unwrap().messages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_loses_nothing_and_has_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inbox.db");
    let queue = Arc::new(File::with_pages(&path, 256, Duration::from_secs(60)).unwrap());
    let stored = filled(&queue).await;
    assert!(stored.len() > 10, "{}", stored.len());
    assert_eq!(names(&queue).await, stored);
    // Those that fit are stored, though they share a transaction with one that does not.
    let puts: Vec<_> = (0..20)
        .map(|number| {
            let queue = Arc::clone(&queue);
            let bytes = if number == 10 { 500_000 } else { 1 };
            tokio::spawn(async move { queue.put(large(&format!("x{number:02}"), bytes), WIDE).await.is_ok() })
        })
        .collect();
    let mut expected = stored.clone();
    for (number, put) in puts.into_iter().enumerate() {
        let done = put.await.unwrap();
        assert!(number != 10 || !done);
        expected.extend(done.then(|| format!("x{number:02}")));
    }
    assert!(expected.len() > stored.len() + 2, "some fit");
    let mut there = names(&queue).await;
    there.sort();
    assert_eq!(there, expected);
    for claimed in claim(&queue, 3).await {
        assert!(queue.settle(&claimed, Outcome::Delivered, at(0)).await.unwrap());
    }
    let stored = queue.put(large("y", 60_000), WIDE).await.unwrap();
    assert_eq!(stored, Put::Stored, "there is room again");
    let counts = queue.counts(INBOX, at(0)).await.unwrap();
    drop(queue);
    let queue = open(&path);
    let again = queue.counts(INBOX, at(0)).await.unwrap();
    assert_eq!((again.ready, again.bytes), (counts.ready + counts.claimed, counts.bytes));
}

/// What is gone leaves its space to what comes.
#[tokio::test]
async fn a_file_does_not_grow_by_what_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("inbox.db");
    let queue = open(&path);
    for round in 0..300 {
        for number in 0..3 {
            queue.put(large(&format!("{round}-{number}"), 30_000), WIDE).await.unwrap();
        }
        for claimed in claim(&queue, 3).await {
            assert!(queue.settle(&claimed, Outcome::Delivered, at(0)).await.unwrap());
        }
    }
    let bytes = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().len();
    assert!(bytes("inbox.db-wal") < 6 * 1024 * 1024, "{}", bytes("inbox.db-wal"));
    assert!(bytes("inbox.db") < 512 * 1024, "{}", bytes("inbox.db"));
}

/// A file system of its own in memory; none where that is not allowed.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir(path).unwrap();
        let size = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_and_what_is_stored_can_be_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("disk"), "24m") else {
        eprintln!("not tested: this process cannot mount a file system");
        return;
    };
    let queue = open(&disk.0.join("inbox.db"));
    let stored = filled(&queue).await;
    assert!(stored.len() > 200, "{}", stored.len());
    assert!(queue.put(large("more", 60_000), WIDE).await.is_err());
    assert_eq!(names(&queue).await, stored);
    let mut delivered = Vec::new();
    while delivered.len() < stored.len() {
        let claims = claim(&queue, 5).await;
        assert!(!claims.is_empty());
        for claimed in claims {
            assert!(queue.settle(&claimed, Outcome::Delivered, at(0)).await.unwrap());
            delivered.push(claimed.message.id);
        }
    }
    assert_eq!(delivered, stored);
    let again = filled(&queue).await.len();
    assert!(again + 20 > stored.len(), "there is room for as many again: {again} of {}", stored.len());
    drop(queue);
}

/// Others fill the disk to the last byte.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_others_filled_is_refused_until_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("disk"), "24m") else {
        eprintln!("not tested: this process cannot mount a file system");
        return;
    };
    let queue = open(&disk.0.join("inbox.db"));
    for number in 0..90 {
        queue.put(large(&format!("{number:03}"), 60_000), WIDE).await.unwrap();
    }
    let ballast = disk.0.join("ballast");
    let _ = std::fs::write(&ballast, vec![1; 32 * 1024 * 1024]);
    let full = queue.put(large("more", 60_000), WIDE).await.unwrap_err().to_string();
    assert!(full.contains("is almost full: ") && full.contains(" KiB are left"), "{full}");
    assert_eq!(names(&queue).await.len(), 90);
    std::fs::remove_file(ballast).unwrap();
    assert_eq!(queue.put(large("more", 60_000), WIDE).await.unwrap(), Put::Stored);
    let mut delivered = 0;
    while delivered < 91 {
        for claimed in claim(&queue, 50).await {
            assert!(queue.settle(&claimed, Outcome::Delivered, at(0)).await.unwrap());
            delivered += 1;
        }
    }
    drop(queue);
}

/// The log takes some of a small disk for good; what the inbox itself does with it is no reason to take nothing any more.
#[tokio::test(flavor = "multi_thread")]
async fn an_inbox_that_filled_a_small_disk_takes_messages_when_it_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("disk"), "12m") else {
        eprintln!("not tested: this process cannot mount a file system");
        return;
    };
    let queue = open(&disk.0.join("inbox.db"));
    let mut first = 0;
    for _ in 0..3 {
        let mut delivered = 0;
        let stored = filled(&queue).await.len();
        while delivered < stored {
            for claimed in claim(&queue, 16).await {
                assert!(queue.settle(&claimed, Outcome::Delivered, at(0)).await.unwrap());
                delivered += 1;
            }
        }
        first = first.max(stored);
        assert!(stored > 20 && stored * 3 > first, "there is room again: {stored} of {first}");
    }
    drop(queue);
}

/// Others took nearly all of the disk, and the log cannot grow to the length at which it begins again by itself.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_disk_with_little_room_for_the_log_what_is_stored_can_be_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount(&folder.path().join("disk"), "24m") else {
        eprintln!("not tested: this process cannot mount a file system");
        return;
    };
    let path = disk.0.join("inbox.db");
    let queue = open(&path);
    for number in 0..90 {
        queue.put(large(&format!("{number:03}"), 60_000), WIDE).await.unwrap();
    }
    // All is in its place, and the log is empty.
    drop(queue);
    let queue = open(&path);
    assert_eq!(claim(&queue, 1).await.len(), 1);
    let ballast = disk.0.join("ballast");
    let _ = std::fs::write(&ballast, vec![1; 32 * 1024 * 1024]);
    let ballast = std::fs::OpenOptions::new().write(true).open(ballast).unwrap();
    ballast.set_len(ballast.metadata().unwrap().len() - 256 * 1024).unwrap();
    let mut delivered = 0;
    while delivered < 89 {
        for claimed in claim(&queue, 5).await {
            assert!(queue.settle(&claimed, Outcome::Delivered, at(0)).await.unwrap());
            delivered += 1;
        }
    }
    drop(queue);
}
