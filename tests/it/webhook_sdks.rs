//! Webhooks that the providers' own libraries signed: the real gateway lets them through byte for byte, and nothing that
//! was changed afterwards. Those of providers without such a library are signed in Python, as their documentation says.
//!
//! The libraries are installed below `target/` by the first run: `stripe`, `slack_sdk`, `standardwebhooks` and `svix` for
//! Python, `@octokit/webhooks-methods` for Node. Where that cannot be done (no `python3`, no `npm`, no network) the test says
//! which are left out.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::{Gateway, Response, Upstream, answer, left_out};

const PACKAGES: [&str; 4] = ["stripe>=12", "slack_sdk>=3.30,<4", "standardwebhooks>=1,<2", "svix>=1,<2"];
const OCTOKIT: &str = "@octokit/webhooks-methods@6";
/// In the form that each provider gives out.
const SECRETS: [(&str, &str, &str); 8] = [
    ("slack", "slack", "8f742231b10e8888abcd99yyyzzz85a5"),
    ("stripe", "stripe", "whsec_2b7f8e1c3d4a5968778695a4b3c2d1e0"),
    ("standardwebhooks", "standard_webhooks", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("svix", "standard_webhooks", "whsec_c3ZpeC1zZWNyZXQtb2YtMzItYnl0ZXMtYW5kLW1vcmU="),
    ("octokit", "github", "a secret with spaces, ümlauts and \"quotes\""),
    ("shopify", "shopify", "hush-7c5d0e0f9f6d4b0f8b7f"),
    ("jira", "jira", "It's a Secret to Everybody"),
    ("trello", "trello", "f1e2d3c4b5a697887766554433221100f1e2d3c4"),
];
const TRELLO_CALLBACK_URL: &str = "https://hooks.example.com/webhooks/trello?board=1&list=2";

/// A webhook as its library made it.
#[derive(Deserialize)]
struct Signed {
    maker: String,
    fields: BTreeMap<String, String>,
    body: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_libraries_of_the_providers_sign_passes_and_nothing_else() {
    let signed: Vec<Signed> = [by_python(), by_node()].into_iter().flatten().flatten().collect();
    let upstream = Upstream::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            conn.send(answer(200, b"delivered")).await;
        }
    })
    .await;
    let gateway = Gateway::start(&configuration(&upstream)).await;
    for (number, webhook) in signed.iter().enumerate() {
        let Signed { maker, body, .. } = webhook;
        let what = format!("{maker}: {}", body.chars().take(60).collect::<String>());
        for (why, changed) in forgeries(webhook) {
            let response = post(&gateway, &changed.maker, &changed).await;
            assert_eq!(response.status, 401, "{what}: {why}: {}", response.text());
        }
        assert_eq!(upstream.requests().len(), number, "{what}: something forged got through");
        let response = post(&gateway, maker, webhook).await;
        assert_eq!((response.status, response.text()), (200, "delivered"), "{what}");
        assert_eq!(upstream.last().body, body.as_bytes(), "{what}");
    }
}

/// The same webhook, changed where it must not be.
fn forgeries(webhook: &Signed) -> Vec<(&'static str, Signed)> {
    let with =
        |maker: &str, fields: BTreeMap<String, String>, body: String| Signed { maker: maker.to_owned(), fields, body };
    let Signed { maker, fields, body } = webhook;
    let other_end = |text: &str| {
        let end = text.len() - 3;
        let (rest, last) = text.split_at(end);
        // Neither hexadecimal nor base64 ends with the same three characters twice.
        let turned = if last.starts_with('0') { "1" } else { "0" };
        format!("{rest}{turned}{}", &last[1..])
    };
    let is_signature = |name: &str| {
        let name = name.to_lowercase();
        name.contains("signature") || ["x-shopify-hmac-sha256", "x-trello-webhook"].contains(&&*name)
    };
    let bent = fields
        .iter()
        .map(|(name, value)| (name.clone(), if is_signature(name) { other_end(value) } else { value.clone() }));
    let unsigned =
        fields.iter().filter(|(name, _)| !is_signature(name)).map(|(name, value)| (name.clone(), value.clone()));
    let elsewhere = if maker == "octokit" { "slack" } else { "octokit" };
    vec![
        ("one byte more", with(maker, fields.clone(), format!("{body} "))),
        ("another first byte", with(maker, fields.clone(), format!("!{}", body.chars().skip(1).collect::<String>()))),
        ("another signature", with(maker, bent.collect(), body.clone())),
        ("no signature", with(maker, unsigned.collect(), body.clone())),
        ("at another provider's address", with(elsewhere, fields.clone(), body.clone())),
    ]
}

async fn post(gateway: &Gateway, maker: &str, webhook: &Signed) -> Response {
    let mut client = gateway.client().await;
    let mut head =
        format!("POST /webhooks/{maker} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n", webhook.body.len());
    for (name, value) in &webhook.fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    client.send(format!("{head}\r\n")).await;
    client.send(webhook.body.as_bytes()).await;
    client.response().await
}

/// One route; each maker at a path of its own.
fn configuration(upstream: &Upstream) -> String {
    let provider = |(maker, preset, secret): &(&str, &str, &str)| {
        let more =
            if *preset == "trello" { format!(", callback_url: {}", json!(TRELLO_CALLBACK_URL)) } else { String::new() };
        format!("            {maker}: {{ preset: {preset}, secrets: [{}]{more} }}\n", json!(secret))
    };
    format!(
        "upstreams:\n  main: {{ targets: [{{ address: \"{}\" }}] }}\n\
         routes:\n  - name: webhooks\n    match: \"POST /webhooks/{{maker}}\"\n    filters:\n      - webhook:\n          \
         by: maker\n          providers:\n{}    upstream: main\n",
        upstream.address,
        SECRETS.iter().map(provider).collect::<String>()
    )
}

/// Texts that are easily changed on the way. No two are the same, nor are their `id`s.
fn bodies() -> Value {
    let long = format!("{{\"id\": \"evt_6\", \"text\": \"{}\"}}", "0123456789".repeat(20_000));
    json!([
        "{\"id\":\"evt_1\"}",
        "{ \"id\" : \"evt_2\",\r\n\t\"n\": 1.0, \"n2\": 1e2, \"s\": \"\\u00e4\\/\" }\n",
        "{\"id\":\"evt_3\",\"name\":\"Zoë 🚚 \u{2028} 你好\"}",
        "{\"b\":1,\"a\":2,\"id\":\"evt_4\"}",
        "token=abc&command=%2Fweather&text=94070+%26+more&trigger_id=5",
        long,
    ])
}

fn by_python() -> Option<Vec<Signed>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-webhooks");
    let python = folder.join("bin/python");
    let ready = || run(Command::new(&python).args(["-c", "import stripe, slack_sdk, standardwebhooks, svix"]));
    let made = || run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
    let install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--timeout", "10", "--retries", "1"];
    let filled = || run(Command::new(&python).args(install).args(PACKAGES));
    if ready() || (made() && filled() && ready()) {
        return Some(signed(Command::new(python).arg(script("sign.py"))));
    }
    left_out("stripe, slack_sdk, standardwebhooks and svix cannot be had here (python3 -m venv, pip install)");
    None
}

fn by_node() -> Option<Vec<Signed>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node-webhooks");
    let ready = || folder.join("node_modules/@octokit/webhooks-methods/package.json").exists();
    let install = ["install", "--silent", "--no-audit", "--no-fund", "--fetch-timeout=10000", "--fetch-retries=1"];
    let filled = || std::fs::create_dir_all(&folder).is_ok() && run(npm(&folder).args(install).arg(OCTOKIT));
    if ready() || (filled() && ready()) {
        // Node looks for modules beside the script.
        std::fs::copy(script("sign.mjs"), folder.join("sign.mjs")).unwrap();
        return Some(signed(Command::new("node").arg(folder.join("sign.mjs"))));
    }
    left_out("@octokit/webhooks-methods cannot be had here (npm install)");
    None
}

fn npm(folder: &Path) -> Command {
    let mut npm = Command::new("npm");
    npm.current_dir(folder).arg("--prefix").arg(folder);
    npm
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/webhook_sdks").join(name)
}

fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn signed(command: &mut Command) -> Vec<Signed> {
    let secrets: BTreeMap<&str, &str> = SECRETS.iter().map(|(maker, _, secret)| (*maker, *secret)).collect();
    let mut maker = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Dropped when it is written: the end of the input.
    maker
        .stdin
        .take()
        .unwrap()
        .write_all(
            json!({ "secrets": secrets, "bodies": bodies(), "trello_callback_url": TRELLO_CALLBACK_URL })
                .to_string()
                .as_bytes(),
        )
        .unwrap();
    let made = maker.wait_with_output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    serde_json::from_slice(&made.stdout).unwrap()
}
