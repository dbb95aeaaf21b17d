//! The examples that come inside the crate `proxy-wasm`, the Rust SDK of the ABI: filters that nobody here wrote, built from
//! the registry's copy. They behave as their sources say.
//!
//! 0.2.0 is the last version that comes with them. Those of 0.1.4 speak ABI 0.1.0, which this gateway does not, and says so.
//! Where they cannot be built (see `plugins/build`), the test says that.

use std::path::Path;
use std::process::Command;

use super::{ask, folder, start};
use crate::harness::{Folder, Gateway, Upstream, all_to, answer, chunked};

const VERSIONS: [&str; 2] = ["0.2.0", "0.1.4"];

/// An example of each version; none where they cannot be built.
fn built(name: &str) -> Option<[Vec<u8>; 2]> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_ready =
        Command::new(root.join("plugins/build")).arg("--ready").status().is_ok_and(|status| status.success());
    if !is_ready {
        eprintln!("LEFT OUT: {name} of proxy-wasm is not built: the tools are not here (plugins/build --tools)");
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("proxy-wasm-examples");
    // Tests run beside each other: one of them builds, the others wait.
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        for version in VERSIONS {
            let mut command = Command::new(root.join("tests/it/plugins/build-examples"));
            let output = command.arg(version).arg(&folder).output().unwrap();
            assert!(output.status.success(), "{version}: {}", String::from_utf8_lossy(&output.stderr));
        }
    });
    let read = |version| std::fs::read(folder.join(version).join(name).with_extension("wasm")).unwrap();
    Some(VERSIONS.map(read))
}

/// Builds outside of the runtime, which would stand still meanwhile.
async fn example(name: &'static str) -> Option<Vec<u8>> {
    let [current, _] = tokio::task::spawn_blocking(move || built(name)).await.unwrap()?;
    Some(current)
}

#[tokio::test(flavor = "multi_thread")]
async fn those_of_an_older_abi_are_refused_by_name() {
    let Some([_, old]) = tokio::task::spawn_blocking(|| built("http_config")).await.unwrap() else { return };
    let upstream = Upstream::echo().await;
    let mut gateway = Gateway::spawn_in(folder(&all_to(&upstream), &[("old", old, "")]));
    assert_eq!(gateway.ended().await.code(), Some(64));
    gateway.logged("`old.wasm` cannot be used: it speaks ABI 0.1.0; 0.2.0 and 0.2.1 are spoken here").await;
}

/// It greets when it starts, and says the time every five seconds.
#[tokio::test(flavor = "multi_thread")]
async fn hello_world_logs_and_ticks() {
    let Some(file) = example("hello_world").await else { return };
    let upstream = Upstream::echo().await;
    let mut gateway = start(&upstream, &[("hello", file, "")]).await;
    // The log begins after the first instance did: one that a change starts greets in it.
    gateway
        .folder
        .write("gateway.yaml", &gateway.folder.read("gateway.yaml").replace("hello.wasm", "hello.wasm, config: again"));
    gateway.reload_well().await;
    gateway.logged("Hello, World!").await;
    gateway.logged("there is no lucky number.").await;
    let count = gateway.lines().len();
    gateway.logged_after(count, "there is no lucky number.").await;
}

/// It asks a service for a byte: an even one lets the request in.
#[tokio::test(flavor = "multi_thread")]
async fn http_auth_random_lets_in_what_another_service_allows() {
    let Some(file) = example("http_auth_random").await else { return };
    for (byte, status, body) in [(b"\x02", 200, "served"), (b"\x03", 403, "Access forbidden.\n")] {
        let upstream = Upstream::answering(answer(200, b"served")).await;
        let httpbin = Upstream::answering(answer(200, byte)).await;
        let folder = Folder::with(&[(
            "gateway.yaml",
            &format!(
                "version: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\nupstreams:\n  \
                 main: {{ targets: [{{ address: \"{}\" }}] }}\n  httpbin: {{ targets: [{{ address: \"{}\" }}] }}\n\
                 routes:\n  - name: all\n    match: \"/{{*rest}}\"\n    upstream: main\n    filters:\n      \
                 - plugin: {{ file: auth.wasm, calls: [httpbin] }}\n",
                upstream.address, httpbin.address
            ),
        )]);
        std::fs::write(folder.path("auth.wasm"), &file).unwrap();
        let gateway = Gateway::start_in(folder).await;
        let response = gateway.get("/x").await;
        assert_eq!((response.status, response.text()), (status, body));
        assert_eq!(response.head.all("powered-by"), ["proxy-wasm"]);
        let asked = httpbin.only();
        assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", "/bytes/1"));
        assert_eq!(asked.head.all("host"), ["httpbin.org"]);
        assert_eq!(upstream.requests().len(), usize::from(status == 200));
    }
}

/// It waits for the whole body, and puts another in its place when there is a secret in it.
#[tokio::test(flavor = "multi_thread")]
async fn http_body_redacts_bodies_with_a_secret() {
    let Some(file) = example("http_body").await else { return };
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream, &[("body", file.clone(), "")]).await;
    let mut client = gateway.client().await;
    for (body, expected) in [
        ("a secret", "Original message body (8 bytes) redacted."),
        ("nothing of that kind", "nothing of that kind"),
        (&format!("{}secret", " ".repeat(200_000)), "Original message body (200006 bytes) redacted."),
    ] {
        let response = client.post("/x", body.as_bytes()).await;
        assert_eq!((response.status, response.text()), (200, expected));
    }
    let pieces = chunked("half a sec".repeat(3).as_bytes(), 4);
    let last = chunked(b"a secret", 3);
    for (body, expected) in
        [(pieces, "half a sec".repeat(3)), (last, "Original message body (8 bytes) redacted.".into())]
    {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let upstream = Upstream::answering([head.as_bytes(), &body].concat()).await;
        let gateway = start(&upstream, &[("body", file.clone(), "")]).await;
        assert_eq!(gateway.get("/x").await.text(), expected);
    }
}

/// It adds a field with its configuration to every answer.
#[tokio::test(flavor = "multi_thread")]
async fn http_config_adds_its_configuration() {
    let Some(file) = example("http_config").await else { return };
    let upstream = Upstream::echo().await;
    let gateway = start(&upstream, &[("config", file, ", config: \"as it was written\"")]).await;
    let mut client = gateway.client().await;
    for _ in 0..3 {
        let response = client.get("/x").await;
        assert_eq!(response.head.all("custom-header"), ["as it was written"]);
    }
    gateway.folder.write("gateway.yaml", &gateway.folder.read("gateway.yaml").replace("as it was", "otherwise"));
    gateway.reload_well().await;
    assert_eq!(client.get("/x").await.head.all("custom-header"), ["otherwise written"]);
}

/// It logs every field, and answers `/hello` by itself.
#[tokio::test(flavor = "multi_thread")]
async fn http_headers_logs_fields_and_answers_hello() {
    let Some(file) = example("http_headers").await else { return };
    let upstream = Upstream::echo().await;
    let folder = folder(&all_to(&upstream), &[("headers", file, "")]);
    folder.write("gateway.yaml", &format!("{}log: {{ level: trace }}\n", folder.read("gateway.yaml")));
    let mut gateway = Gateway::start_in(folder).await;
    let mut client = gateway.client().await;
    let response = client.get("/hello").await;
    assert_eq!((response.status, response.text()), (200, "Hello, World!\n"));
    assert_eq!((response.head.all("hello"), response.head.all("powered-by")), (vec!["World"], vec!["proxy-wasm"]));
    assert!(upstream.requests().is_empty());
    let count = gateway.lines().len();
    assert_eq!(ask(&mut client, "X-Asked: so\r\n").await.status, 200);
    for line in ["-> :method: GET", "-> :path: /x", "-> x-asked: so", "<- :status: 200", " completed."] {
        gateway.logged_after(count, line).await;
    }
}
