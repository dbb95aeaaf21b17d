//! gRPC-Web, byte by byte as its protocol says, and with a client from the field.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Service, printed, run, script};
use crate::harness::{Client, Gateway, Response, Upstream, left_out};

const CONNECT: [&str; 3] = ["@connectrpc/connect@2", "@connectrpc/connect-web@2", "@bufbuild/protobuf@2"];

async fn start(port: u16) -> Gateway {
    let dead = Upstream::dead_address().await;
    Gateway::start(&format!(
        "upstreams:\n  main: {{ protocol: h2c, targets: [{{ address: \"127.0.0.1:{port}\" }}], timeouts: {{ total: 2s }} }}\n  \
         dead: {{ protocol: h2c, targets: [{{ address: \"{dead}\" }}] }}\n\
         chains: {{ web: [{{ cors: {{ origins: [\"*\"], headers: [\"*\"], expose: [grpc-status, grpc-message] }} }}, grpc_web] }}\n\
         routes:\n  - {{ name: main, match: \"POST /test.Service/{{method}}\", filters: [{{ use: web }}], body_max: 1MiB, upstream: main }}\n  \
         - {{ name: dead, match: \"POST /dead.Service/{{method}}\", filters: [{{ use: web }}], upstream: dead }}\n"
    ))
    .await
}

/// A message in its frame.
fn frame(message: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// The frames of a body: flag and content.
fn frames(mut body: &[u8]) -> Vec<(u8, String)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        frames.push((head[0], String::from_utf8(rest[..length].to_vec()).unwrap()));
        body = &rest[length..];
    }
    assert!(body.is_empty(), "bytes behind the last frame: {body:?}");
    frames
}

/// Base64 that may be padded wherever a piece ends.
fn decoded(text: &[u8]) -> Vec<u8> {
    assert_eq!(text.len() % 4, 0);
    text.chunks(4).flat_map(|group| STANDARD.decode(group).unwrap()).collect()
}

async fn post(client: &mut Client, path: &str, content_type: &str, body: &[u8]) -> Response {
    let length = body.len();
    let head = "Host: a.test\r\nX-Grpc-Web: 1\r\nGrpc-Timeout: 50S\r\n";
    client
        .send(format!("POST {path} HTTP/1.1\r\n{head}Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"))
        .await;
    client.send(body).await;
    client.response().await
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_as_the_protocol_says() {
    let Some(service) = Service::start() else { return };
    let gateway = start(service.port).await;
    let mut client = gateway.client().await;
    for size in [0, 1, 2, 3, 100, 100_000] {
        let message = "m".repeat(size);
        let sent = frame(message.as_bytes());
        let binary = post(&mut client, "/test.Service/Unary", "application/grpc-web+proto", &sent).await;
        assert_eq!(binary.status, 200);
        assert_eq!(binary.head.get("content-type"), Some("application/grpc-web"), "{:?}", binary.head);
        assert_eq!(binary.head.get("x-initial"), Some("first"));
        let text = STANDARD.encode(&sent);
        let text = post(&mut client, "/test.Service/Unary", "application/grpc-web-text", text.as_bytes()).await;
        assert_eq!(text.head.get("content-type"), Some("application/grpc-web-text"));
        for body in [binary.body, decoded(&text.body)] {
            let frames = frames(&body);
            assert_eq!(frames[0], (0, message.clone()));
            assert_eq!((frames.len(), frames[1].0), (2, 0x80));
            let trailers = &frames[1].1;
            assert!(trailers.contains("grpc-status: 0\r\n") && trailers.contains("x-trailing: last\r\n"), "{trailers}");
        }
    }
    // Pieces that are padded by themselves, cut where no group ends.
    let sent = frame(b"padded");
    let (one, two) = sent.split_at(4);
    let text = [STANDARD.encode(one), STANDARD.encode(two)].concat();
    client.send("POST /test.Service/Unary HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web-text\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send(crate::harness::chunked(text.as_bytes(), 3)).await;
    assert_eq!(frames(&decoded(&client.response().await.body))[0], (0, "padded".to_owned()));
    let streamed = post(&mut client, "/test.Service/Count", "application/grpc-web", &frame(b"20")).await;
    let streamed = frames(&streamed.body);
    assert_eq!((streamed.len(), &*streamed[19].1, streamed[20].0), (21, "19", 0x80));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_where_a_page_can_read_them() {
    let Some(service) = Service::start() else { return };
    let gateway = start(service.port).await;
    let mut client = gateway.client().await;
    let web = "application/grpc-web+proto";
    let failed = post(&mut client, "/test.Service/Fail", web, &frame(b"")).await;
    let fields = &failed.head;
    let told = fields.get("grpc-status").map(str::to_owned).or_else(|| {
        let frames = frames(&failed.body);
        frames.last().and_then(|(_, trailers)| trailers.lines().next().map(str::to_owned))
    });
    assert!(told.as_deref().is_some_and(|told| told.ends_with('5')), "{failed:?}");
    for (path, status, code) in
        [("/dead.Service/Unary", 14, "BAD_GATEWAY"), ("/unknown.Service/Unary", 12, "NOT_FOUND")]
    {
        let refused = post(&mut gateway.client().await, path, web, &frame(b"x")).await;
        assert_eq!(refused.status, 200, "{path}");
        let frames = frames(&refused.body);
        let (flag, trailers) = frames.last().unwrap_or_else(|| panic!("{path}: {:?}", refused.head));
        assert_eq!(*flag, 0x80, "{path}");
        assert!(
            trailers.contains(&format!("grpc-status: {status}\r\n")) && trailers.contains(code),
            "{path}: {trailers}"
        );
        assert!(refused.head.has("x-request-id"));
    }
    // Silent after its first message: what came stays, and the end is in the body.
    let slow = post(&mut gateway.client().await, "/test.Service/Wait", web, &frame(b"")).await;
    let slow = frames(&slow.body);
    assert_eq!(slow[0], (0, "begun".to_owned()));
    assert!(slow[1].1.contains("grpc-status: 4\r\n"), "{slow:?}");
    for text in ["AAAA*AAA", "AAAAA"] {
        let refused =
            post(&mut gateway.client().await, "/test.Service/Unary", "application/grpc-web-text", text.as_bytes())
                .await;
        let refused = frames(&decoded(&refused.body));
        assert!(refused[0].1.contains("grpc-status: 13\r\n"), "{text}: {refused:?}");
    }
    // Another client of the same route, who speaks plain HTTP.
    let plain = post(&mut gateway.client().await, "/dead.Service/Unary", "application/json", b"{}").await;
    plain.refused(502, "BAD_GATEWAY");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_from_the_field_is_served() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node-grpc-web");
    let ready = || folder.join("node_modules/@connectrpc/connect-web/package.json").exists();
    let install = ["install", "--silent", "--no-audit", "--no-fund", "--fetch-timeout=10000", "--fetch-retries=1"];
    let npm = || {
        let mut npm = Command::new("npm");
        npm.current_dir(&folder).arg("--prefix").arg(&folder).args(install).args(CONNECT);
        npm
    };
    let made = || std::fs::create_dir_all(&folder).is_ok() && run(&mut npm()) && ready();
    if !(ready() || made()) {
        left_out("@connectrpc/connect-web cannot be had here (npm install)");
        return;
    }
    let Some(service) = Service::start() else { return };
    let gateway = start(service.port).await;
    // Node looks for modules beside the script.
    std::fs::copy(script("web.mjs"), folder.join("web.mjs")).unwrap();
    let address = format!("http://{}", gateway.address);
    let said: Value =
        tokio::task::spawn_blocking(move || printed(Command::new("node").arg(folder.join("web.mjs")).arg(address)))
            .await
            .unwrap();
    assert_eq!(said["unary"], json!({ "answer": "hello", "trailing": "last" }));
    assert_eq!(said["fail"], json!({ "code": 5, "message": "no such thing: ü 100 %" }));
    assert_eq!(said["count"], json!(["0", "1", "2", "3", "4"]));
    assert_eq!(said["dead"]["code"], 14, "{said}");
    assert_eq!(said["unknown"]["code"], 12, "{said}");
}
