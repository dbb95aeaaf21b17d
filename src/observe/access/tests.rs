use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;
use std::time::SystemTime;

use tempfile::TempDir;

use super::*;

const BOUND: Duration = Duration::from_secs(30);

static NOTHING: Hidden = Hidden::NONE;

fn entry(request_id: &str) -> Entry<'_> {
    Entry {
        time: SystemTime::UNIX_EPOCH,
        request_id,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        method: "GET",
        host: "",
        path: "/",
        query: None,
        hidden: &NOTHING,
        version: "HTTP/1.1",
        status: 200,
        code: None,
        route: None,
        consumer: None,
        upstream: None,
        target: None,
        duration: Duration::ZERO,
        upstream_duration: None,
        bytes_in: 0,
        bytes_out: 0,
        referer: None,
        user_agent: None,
        attempts: 1,
    }
}

fn open(path: &Path, rotate_bytes: u64, keep: usize) -> Arc<AccessLog> {
    let target = Target::File(path.to_owned());
    AccessLog::open(&AccessSettings { format: AccessFormat::Json, target, rotate_bytes, keep }, None).unwrap()
}

fn write(log: &AccessLog, request_id: &str) {
    log.record(&entry(request_id));
    assert!(log.flush(BOUND));
}

fn ids(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["request_id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn lines_are_appended_in_order_and_private() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("new/folder/access.log");
    for run in ["a", "b"] {
        let log = open(&path, 0, 0);
        log.record(&entry(&format!("{run}1")));
        write(&log, &format!("{run}2"));
        assert_eq!(log.dropped(), 0);
    }
    assert_eq!(ids(&path), ["a1", "a2", "b1", "b2"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o007, 0);
}

#[test]
fn dropping_the_log_writes_what_is_held_back() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("access.log");
    let log = open(&path, 0, 0);
    log.record(&entry("last"));
    drop(log);
    assert_eq!(ids(&path), ["last"]);
}

#[test]
fn concurrent_threads_lose_nothing_below_the_bound() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("access.log");
    let log = open(&path, 0, 0);
    thread::scope(|scope| {
        let workers = [0, 1, 2, 3, 4, 5, 6, 7].map(|worker| {
            let log = &log;
            // 2,000 lines of some 200 bytes stay below the bound even if the writer never came by.
            scope.spawn(move || (0..2000).for_each(|count| log.record(&entry(&format!("{worker}-{count}")))))
        });
        // The end of the scope would not wait until the threads have given up their buffers.
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
    assert!(log.flush(BOUND));
    assert_eq!(log.dropped(), 0);
    let found = ids(&path);
    assert_eq!(found.len(), 16_000);
    for worker in 0..8 {
        let own: Vec<_> = found.iter().filter(|id| id.starts_with(&format!("{worker}-"))).collect();
        assert!(own.iter().enumerate().all(|(count, id)| **id == format!("{worker}-{count}")));
    }
}

#[test]
fn rotation_renames_and_keeps_so_many() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("access.log");
    write(&open(&path, 0, 0), "0");
    let length = fs::metadata(&path).unwrap().len();
    // Two lines fill a file to the byte.
    let log = open(&path, 2 * length, 2);
    for id in ["1", "2", "3", "4", "5", "6", "7"] {
        write(&log, id);
    }
    assert_eq!(ids(&path), ["6", "7"]);
    assert_eq!(ids(&folder.path().join("access.log.1")), ["4", "5"]);
    assert_eq!(ids(&folder.path().join("access.log.2")), ["2", "3"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    assert_eq!(log.dropped(), 0);
}

#[test]
fn one_burst_is_split_between_files_at_line_ends() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("access.log");
    write(&open(&path, 0, 0), "0");
    let length = fs::metadata(&path).unwrap().len();
    let log = open(&path, 2 * length + 1, 9);
    for id in ["1", "2", "3", "4"] {
        log.record(&entry(id));
    }
    // Longer than a whole file: it gets one to itself.
    log.record(&Entry { user_agent: Some(&[b'x'; 5000]), ..entry("long") });
    write(&log, "5");
    // The writer may have come by in the middle: where the files are cut is the same.
    assert_eq!(ids(&folder.path().join("access.log.4")), ["0", "1"]);
    assert_eq!(ids(&folder.path().join("access.log.3")), ["2", "3"]);
    assert_eq!(ids(&folder.path().join("access.log.2")), ["4"]);
    assert_eq!(ids(&folder.path().join("access.log.1")), ["long"]);
    assert_eq!(ids(&path), ["5"]);
}

#[test]
fn keep_zero_deletes_the_full_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("access.log");
    let log = open(&path, 1, 0);
    for id in ["1", "2", "3"] {
        write(&log, id);
    }
    assert_eq!(ids(&path), ["3"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_rotation_that_fails_loses_no_line() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("access.log");
    // A file cannot be renamed over a folder.
    fs::create_dir_all(folder.path().join("access.log.1/full")).unwrap();
    let log = open(&path, 1, 1);
    write(&log, "1");
    write(&log, "2");
    assert_eq!(ids(&path), ["1", "2"]);
    assert_eq!(log.dropped(), 0);
}

#[test]
fn a_file_moved_away_is_made_anew_with_and_without_a_signal() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("access.log");
    let log = open(&path, 0, 0);
    write(&log, "1");
    fs::rename(&path, folder.path().join("moved")).unwrap();
    write(&log, "2");
    assert_eq!(ids(&folder.path().join("moved")), ["1"]);
    assert_eq!(ids(&path), ["2"]);
    fs::remove_file(&path).unwrap();
    log.reopen();
    assert!(log.flush(BOUND));
    assert!(path.exists(), "the signal makes the file before the next line does");
    write(&log, "3");
    assert_eq!(ids(&path), ["3"]);
}

#[test]
fn a_full_disk_drops_counts_and_recovers() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("access.log");
    symlink("/dev/full", &path).unwrap();
    let log = open(&path, 1, 1);
    log.record(&entry("1"));
    write(&log, "2");
    assert_eq!(log.dropped(), 2);
    write(&log, "3");
    assert_eq!(log.dropped(), 3);
    fs::remove_file(&path).unwrap();
    write(&log, "4");
    assert_eq!(log.dropped(), 3);
    assert_eq!(ids(&path), ["4"]);
}

#[test]
fn a_target_that_cannot_be_opened_is_an_error_at_once() {
    let folder = TempDir::new().unwrap();
    let settings = |path: &Path| AccessSettings {
        format: AccessFormat::Json,
        target: Target::File(path.to_owned()),
        rotate_bytes: 0,
        keep: 0,
    };
    assert!(AccessLog::open(&settings(folder.path()), None).is_err());
    assert!(AccessLog::open(&settings(Path::new("~/access.log")), None).is_err());
    let log = AccessLog::open(&settings(Path::new("~/logs/access.log")), Some(folder.path())).unwrap();
    write(&log, "home");
    assert_eq!(ids(&folder.path().join("logs/access.log")), ["home"]);
}
