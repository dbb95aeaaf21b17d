//! A filter nobody here wrote, on an SDK of another language that speaks the older version of the ABI: what the README of
//! `@solo-io/proxy-runtime` (AssemblyScript) has as its example. Where it cannot be built, for want of npm or of a network, the
//! test says so.

use std::path::Path;
use std::process::Command;

use super::start;
use crate::harness::{Upstream, answer};

fn built() -> Option<Vec<u8>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("proxy-runtime-example");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/plugins/build-hello");
    if !Command::new(script).arg(&folder).output().is_ok_and(|output| output.status.success()) {
        eprintln!("LEFT OUT: the example of @solo-io/proxy-runtime cannot be built here (npm install)");
        return None;
    }
    Some(std::fs::read(folder.join("hello.wasm")).unwrap())
}

/// It greets in a field of every response with what it is configured with. Without any configuration this SDK reads before its
/// memory, and is not taken.
#[tokio::test(flavor = "multi_thread")]
async fn hello_world_is_said_in_every_response() {
    let Some(file) = tokio::task::spawn_blocking(built).await.unwrap() else { return };
    let upstream = Upstream::answering(answer(200, b"fine")).await;
    for said in ["everybody", "those who are here today"] {
        let more = format!(", root_id: add_header, config: {said}");
        let gateway = start(&upstream, &[("hello", file.clone(), &more)]).await;
        let mut client = gateway.client().await;
        for _ in 0..3 {
            let response = client.get("/x").await;
            assert_eq!((response.status, response.head.all("hello"), response.text()), (200, vec![said], "fine"));
        }
    }
}
