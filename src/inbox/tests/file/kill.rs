//! A process that is killed in the middle of whatever it does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::super::super::{File, LIST_MAX, Message, Outcome, Queue, Standing};
use super::super::{INBOX, LEASE, WIDE, at, message, open};
use super::runtime;

/// How often the process is killed.
const KILLS: usize = 12;
/// How many messages it has to acknowledge before that.
const ACKNOWLEDGED_MIN: usize = 60;

#[derive(Debug, Default)]
struct Told {
    acknowledged: bool,
    /// The last attempt that somebody heard of.
    attempt: u32,
    /// It may have been removed since.
    delivered: bool,
}

#[test]
fn what_was_acknowledged_is_there_after_many_kills() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = BTreeMap::<String, Told>::new();
    for round in 0..KILLS {
        let lines = killed(folder.path(), round);
        for line in lines {
            let Some((what, rest)) = line.split_once(' ') else { continue };
            let (name, attempt) = rest.split_once(' ').unwrap_or((rest, ""));
            match what {
                "acknowledged" => told.entry(name.to_owned()).or_default().acknowledged = true,
                "claimed" => told.entry(name.to_owned()).or_default().attempt = attempt.parse().unwrap(),
                "delivering" => told.entry(name.to_owned()).or_default().delivered = true,
                _ => {}
            }
        }
        check(&open(&folder.path().join("inbox.db")), &told);
    }
    assert!(told.values().any(|message| message.delivered) && told.values().any(|message| !message.delivered));
}

/// What the process said until it was killed.
fn killed(folder: &Path, round: usize) -> Vec<String> {
    fs::write(folder.join("round"), round.to_string()).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "inbox::tests::file::kill::works_until_it_is_killed"])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = Vec::new();
    let mut acknowledged = 0;
    while acknowledged < ACKNOWLEDGED_MIN + 7 * round {
        let line = lines.next().expect("it has ended before its time");
        acknowledged += usize::from(line.starts_with("acknowledged "));
        said.push(line);
    }
    // SIGKILL, in the middle of whatever it does now.
    child.kill().unwrap();
    child.wait().unwrap();
    said.extend(lines);
    said
}

fn check(queue: &File, told: &BTreeMap<String, Told>) {
    let mut there = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = runtime().block_on(queue.list(INBOX, None, after.as_deref(), LIST_MAX, at(0))).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.message.id.clone());
        there.extend(page.into_iter().map(|entry| (entry.message.id.clone(), entry)));
    }
    let bytes = there.keys().map(|name| sent(name).bytes()).sum::<u64>();
    let counts = runtime().block_on(queue.counts(INBOX, at(0))).unwrap();
    assert_eq!((counts.ready + counts.delayed, counts.bytes), (u64::try_from(there.len()).unwrap(), bytes));
    for (name, told) in told {
        let Some(entry) = there.get(name) else {
            assert!(told.delivered || !told.acknowledged, "{name} was acknowledged and is gone");
            continue;
        };
        assert_ne!(entry.standing, Standing::Claimed, "{name}: whoever had it is dead");
        assert!(entry.attempts >= told.attempt, "{name} has forgotten an attempt: {told:?}, {entry:?}");
        let shown = runtime().block_on(queue.show(INBOX, name, at(0))).unwrap().unwrap();
        assert_eq!(shown.message, sent(name));
    }
}

/// Bodies of all sizes, some beyond a page.
fn sent(name: &str) -> Message {
    let number: usize = name.rsplit('-').next().unwrap().parse().unwrap();
    Message { body: name.repeat(number * 37 % 1500).into(), ..message(name, Some(&(number % 3).to_string())) }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by `what_was_acknowledged_is_there_after_many_kills`, and never ends by itself"]
async fn works_until_it_is_killed() {
    let round = fs::read_to_string("round").unwrap();
    let queue = Arc::new(open(Path::new("inbox.db")));
    for writer in 0..6 {
        let (queue, round) = (Arc::clone(&queue), round.clone());
        tokio::spawn(async move {
            for number in 0_u64.. {
                let name = format!("{round}-{writer}-{number}");
                queue.put(sent(&name), WIDE).await.unwrap();
                // A line is written whole or not at all as far as the reader can tell.
                println!("acknowledged {name}");
            }
        });
    }
    for number in 0_u64.. {
        let changed = queue.changed();
        let claims = queue.claim(INBOX, 4, LEASE, at(0)).await.unwrap().messages;
        if claims.is_empty() {
            changed.await;
        }
        for claimed in claims {
            println!("claimed {} {}", claimed.message.id, claimed.attempt);
            let outcome = match number % 3 {
                0 => Outcome::Delivered,
                1 => Outcome::Retry { due: at(0), why: "again".to_owned() },
                // It keeps it until it is killed.
                _ => continue,
            };
            if outcome == Outcome::Delivered {
                println!("delivering {}", claimed.message.id);
            }
            assert!(queue.settle(&claimed, outcome, at(0)).await.unwrap());
        }
    }
}
