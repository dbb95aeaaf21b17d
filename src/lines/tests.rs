use std::thread;

use tempfile::TempDir;

use super::*;

const LINE: &[u8] = b"0123456789\n";

fn append(shard: &Shard) -> Appended {
    shard.append(|out, _| out.extend_from_slice(LINE))
}

#[test]
fn a_full_buffer_drops_and_keeps_whole_lines() {
    let shard = Shard(Mutex::new(Pending { lines: Vec::new(), stamp: Stamp::default() }));
    let (mut woken, mut kept) = (0, 0);
    loop {
        match append(&shard) {
            Appended::Full => break,
            Appended::Wake => woken += 1,
            Appended::Kept => {}
        }
        kept += 1;
    }
    assert_eq!(kept, SHARD_BYTES_MAX / LINE.len());
    assert_eq!(woken, 1);
    assert_eq!(lock(&shard.0).lines.len(), kept * LINE.len());
    // Exactly the bound still fits.
    lock(&shard.0).lines.truncate(0);
    lock(&shard.0).lines.resize(SHARD_BYTES_MAX - LINE.len(), b'\n');
    assert!(matches!(append(&shard), Appended::Kept));
    lock(&shard.0).lines.resize(SHARD_BYTES_MAX - LINE.len() + 1, b'\n');
    assert!(matches!(append(&shard), Appended::Full));
}

#[test]
fn buffers_of_threads_that_ended_are_given_back() {
    let folder = TempDir::new().unwrap();
    let target = Target::File(folder.path().join("some.log"));
    let opening = Opening { name: "some log", target: &target, rotate_bytes: 0, keep: 0, home: None };
    let lines = Lines::open(opening).unwrap();
    thread::scope(|scope| {
        let workers = [0; 4].map(|_| scope.spawn(|| lines.append(|out, _| out.extend_from_slice(LINE))));
        // The end of the scope would not wait until the threads have given up their buffers.
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
    let bound = Duration::from_secs(30);
    assert!(lines.flush(bound) && lines.flush(bound));
    assert!(lock(&lines.shared.shards).is_empty());
    assert_eq!(std::fs::read(folder.path().join("some.log")).unwrap(), LINE.repeat(4));
}

#[test]
fn only_a_leading_tilde_is_the_home_folder() {
    let home = Some(Path::new("/home/me"));
    assert_eq!(expand_home(Path::new("~/a"), home).unwrap(), Path::new("/home/me/a"));
    assert_eq!(expand_home(Path::new("~a/b"), home).unwrap(), Path::new("~a/b"));
    assert_eq!(expand_home(Path::new("/a/~"), None).unwrap(), Path::new("/a/~"));
    assert_eq!(expand_home(Path::new("~/a"), None).unwrap_err().kind(), io::ErrorKind::NotFound);
}
