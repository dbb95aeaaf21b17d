//! Upgrades that come to nothing: the gateway goes on as if there had been none.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use super::{Line, install, send};
use crate::harness::{Upstream, all_to, within};

/// Puts a script where the binary was.
fn replace(line: &Line, script: &str) {
    let draft = line.program.with_extension("new");
    fs::write(&draft, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&draft, Permissions::from_mode(0o755)).unwrap();
    fs::rename(draft, &line.program).unwrap();
}

/// That the first process serves, on the connection it had and on a new one.
async fn goes_on(line: &Line) {
    assert_eq!(line.gateway.get("/x").await.status, 200);
    let metrics = line.gateway.scrape().await;
    assert_eq!(metrics.get("tollgate_generation"), Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_the_next_one() {
    let upstream = Upstream::echo().await;
    let mut line = Line::start(&all_to(&upstream)).await;
    let mut kept = line.client().await;
    kept.get("/x").await;

    // A binary that cannot run at all.
    fs::remove_file(&line.program).unwrap();
    line.seen = line.gateway.lines().len();
    send(line.process, "USR2");
    assert!(line.failed().await.contains("cannot be started"));
    goes_on(&line).await;

    // One that ends, and one that is killed.
    for (script, why) in [("exit 3", "exit status: 3"), ("kill -s KILL $$", "signal: 9")] {
        replace(&line, script);
        line.begin().await;
        let failed = line.failed().await;
        assert!(failed.contains(why), "{failed}");
        goes_on(&line).await;
    }

    // One that lets go of its end and hangs.
    replace(&line, "exec sleep 600 < /dev/null");
    line.begin().await;
    line.failed().await;
    goes_on(&line).await;

    // A configuration that is wrong.
    install(&line.program);
    let yaml = line.gateway.folder.read("gateway.yaml");
    line.gateway.folder.write("gateway.yaml", &format!("{yaml}nonsense: 1\n"));
    line.begin().await;
    let failed = line.failed().await;
    assert!(failed.contains("exit status: 64") && failed.contains("mistake in the configuration"), "{failed}");
    assert!(line.gateway.lines().iter().any(|line| line.contains("nonsense")), "and it says which");
    goes_on(&line).await;
    line.gateway.folder.write("gateway.yaml", &yaml);

    assert_eq!(line.gateway.scrape().await.get("tollgate_upgrades_failed_total"), Some(5.0));
    assert_eq!(kept.get("/x").await.status, 200, "a connection that was there before all of this");
    line.upgrade().await;
    assert_eq!(line.gateway.get("/x").await.status, 200);
    line.stop().await;
}

/// A script that waits until it is told to go on, and is the gateway then.
fn waiting(line: &Line) {
    let real = line.program.with_extension("real");
    install(&real);
    let gate = line.gateway.folder.path("gate");
    replace(line, &format!("until test -e {}; do sleep 0.02; done\nexec {} \"$@\"", gate.display(), real.display()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_killed_while_it_starts() {
    let upstream = Upstream::echo().await;
    let mut line = Line::start(&all_to(&upstream)).await;
    waiting(&line);
    let next = line.begin().await;
    goes_on(&line).await;
    send(next, "KILL");
    assert!(line.failed().await.contains("signal: 9"));
    goes_on(&line).await;
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_upgrade_at_a_time_however_often_it_is_told() {
    let upstream = Upstream::echo().await;
    let mut line = Line::start(&all_to(&upstream)).await;
    waiting(&line);
    line.begin().await;
    for signal in ["USR2", "HUP", "USR1", "USR2", "HUP", "USR2"] {
        send(line.process, signal);
    }
    line.gateway.logged("an upgrade is under way already").await;
    line.gateway.folder.write("gate", "");
    line.served().await;
    line.gateway.logged("drained").await;
    assert_eq!(line.gateway.get("/x").await.status, 200);
    let started = line.gateway.lines().iter().filter(|line| line.contains("the next gateway starts")).count();
    assert_eq!(started, 1);
    line.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_to_stop_meanwhile_stops() {
    let upstream = Upstream::echo().await;
    let mut line = Line::start(&all_to(&upstream)).await;
    waiting(&line);
    let next = line.begin().await;
    send(line.process, "TERM");
    line.gateway.logged("the upgrade that is under way is given up").await;
    let ended = within("the end of all of them", line.gateway.ended()).await;
    assert!(ended.success(), "{ended}");
    assert!(!fs::exists(format!("/proc/{next}/exe")).unwrap() || fs::read_link(format!("/proc/{next}/exe")).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_drains_is_told_twice_before_it_cuts() {
    let upstream = Upstream::silent().await;
    let mut line = Line::start(&all_to(&upstream)).await;
    let mut busy = line.client().await;
    busy.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.received(1).await;
    let old = line.process;
    line.upgrade().await;
    line.gateway.logged("draining").await;
    send(old, "TERM");
    line.gateway.logged("it drains already").await;
    send(old, "TERM");
    line.gateway.logged("told again to stop").await;
    busy.closed().await;
    line.stop().await;
}
