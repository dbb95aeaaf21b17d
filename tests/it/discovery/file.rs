//! A file of targets that changes, is renamed, broken and gone.

use std::process::Command;

use super::{Fleet, has, is_up, lines, routed, series, served, shown};
use crate::harness::{Folder, Gateway};

fn list(fleet: &Fleet, numbers: &[u8]) -> String {
    let target = |number: &u8| format!("{{ \"address\": \"{}\" }}", fleet.address(*number));
    format!("{{ \"targets\": [{}] }}\n", numbers.iter().map(target).collect::<Vec<_>>().join(", "))
}

fn folder(targets: Option<&str>) -> Folder {
    let head = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nthreads: 2\naccess_log: { to: none }\n";
    let yaml = [head, &routed("discovery: { file: targets.json }")].concat();
    let folder = Folder::with(&[("gateway.yaml", &yaml)]);
    if let Some(targets) = targets {
        folder.write("targets.json", targets);
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_its_file_and_keeps_what_was_good() {
    let fleet = Fleet::of(3).await;
    let mut gateway = Gateway::start_in(folder(Some(&list(&fleet, &[1])))).await;
    served(&gateway, 2).await;
    // Renamed into place.
    gateway.folder.write("targets.json", &list(&fleet, &[1, 2]));
    has(&gateway, &[fleet.address(1), fleet.address(2)]).await;
    // Written in place.
    std::fs::write(gateway.folder.path("targets.json"), list(&fleet, &[2, 3])).unwrap();
    has(&gateway, &[fleet.address(2), fleet.address(3)]).await;
    // Broken.
    gateway.folder.write("targets.json", &list(&fleet, &[1]).replace("address", "adress"));
    is_up(&gateway, false).await;
    let error = shown(&gateway).await["discovery"]["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("targets.json:1:17: ") && error.contains("did you mean `address`?"), "{error}");
    let line = gateway.logged("discovery fails").await;
    assert!(line.contains("targets.json:1:17"), "{line}");
    gateway.counts(&[(&series("up", "file"), 0.0)]).await;
    assert_eq!(served(&gateway, 4).await.len(), 2);
    // Gone, and there again.
    gateway.folder.remove("targets.json");
    gateway.folder.write("targets.json", &list(&fleet, &[3]));
    has(&gateway, &[fleet.address(3)]).await;
    is_up(&gateway, true).await;
    gateway.logged_times(1, "discovery works again").await;
    assert_eq!((lines(&gateway, "discovery fails"), lines(&gateway, "discovery works again")), (1, 1));
    // None is an answer too.
    gateway.folder.write("targets.json", "{ \"targets\": [] }");
    has(&gateway, &[]).await;
    gateway.get("/").await.refused(503, "UPSTREAM_UNAVAILABLE");
    gateway.folder.write("targets.json", &list(&fleet, &[1]));
    has(&gateway, &[fleet.address(1)]).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_missing_may_come_and_a_wrong_one_is_a_mistake() {
    let fleet = Fleet::of(1).await;
    let gateway = Gateway::start_in(folder(None)).await;
    gateway.get("/").await.refused(503, "UPSTREAM_UNAVAILABLE");
    is_up(&gateway, false).await;
    gateway.folder.write("targets.json", &list(&fleet, &[1]));
    has(&gateway, &[fleet.address(1)]).await;
    served(&gateway, 2).await;
    let wrong = folder(Some("targets:\n  - { address: nowhere }\n"));
    let mut check = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    let output = check.args(["check", "--config"]).arg(wrong.path("gateway.yaml")).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("targets.json:2:16: `nowhere` has no port"), "{said}");
}
