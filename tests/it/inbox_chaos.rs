//! Everything that can die does, in the middle of a burst, and nothing that was acknowledged is lost.
//!
//! Senders behave as providers do: what gets no 2xx is sent again, the same bytes, until it gets one. In the end the service
//! must have every message, byte for byte; whatever it got twice must be marked.

mod crowd;
mod disk;
mod kills;
mod pressure;
mod redis;
mod service;
mod verdict;

use std::net::SocketAddr;

use aws_lc_rs::hmac;

use crate::harness::{Folder, Gateway, noise, within};
use crowd::Crowd;
use service::{Behaviour, Service};
use verdict::Figures;

const SECRET: &str = "it-is-a-secret-to-everybody";

/// What a gateway is told.
struct Site {
    /// The setting `state`, a line.
    state: String,
    service: SocketAddr,
    /// Settings of the inbox, behind others: `, attempts: 3`.
    inbox: &'static str,
    /// Filters between `webhook` and the inbox, behind another: `, { fault: { delay: 1s } }`.
    filters: &'static str,
}

impl Site {
    fn new(state: String, service: SocketAddr) -> Self {
        Self { state, service, inbox: ", attempts: 1000, schedule: [20ms], concurrency: 16", filters: "" }
    }

    fn folder(&self) -> Folder {
        let Self { state, service, inbox, filters } = self;
        Folder::with(&[(
            "gateway.yaml",
            &format!(
                "version: 1\nlisteners: [{{ bind: 127.0.0.1:0 }}]\nadmin: {{ bind: 127.0.0.1:0 }}\nthreads: 2\n\
                 access_log: {{ to: none }}\ndrain_timeout: 5s\n{state}\
                 upstreams:\n  main: {{ targets: [{{ address: \"{service}\" }}] }}\n\
                 routes:\n  - name: hooks\n    match: POST /hooks\n    \
                 filters: [{{ webhook: {{ preset: github, secrets: [{SECRET}] }} }}{filters}]\n    \
                 inbox: {{ upstream: main{inbox} }}\n"
            ),
        )])
    }

    async fn start(&self) -> Gateway {
        Gateway::start_in(self.folder()).await
    }
}

/// What a message says, made of its name: most are small, some are more than one buffer of anybody.
fn body(name: &str) -> Vec<u8> {
    let number: usize = name.bytes().fold(7, |number, byte| number.wrapping_mul(31).wrapping_add(byte.into()));
    let length = if number.is_multiple_of(16) { 65_000 + number % 100_000 } else { number % 3000 };
    [name.as_bytes(), b"\n", &noise(length)].concat()
}

/// A message as GitHub sends it: the head of the request, and its body.
fn signed(name: &str) -> (String, Vec<u8>) {
    let body = body(name);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), &body);
    let signature: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let head = format!(
        "POST /hooks HTTP/1.1\r\nHost: a.test\r\nX-Hub-Signature-256: sha256={signature}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (head, body)
}

/// How many messages of the inbox are alive, and how many dead.
async fn held(gateway: &Gateway) -> (u64, u64) {
    // A store that is busy says so; it is asked again.
    let answered = async {
        loop {
            let answer = gateway.ask_admin("GET /inboxes").await;
            if answer.status == 200 {
                return answer.json();
            }
        }
    };
    let shown = within("what inboxes hold", answered).await;
    let inbox = &shown["inboxes"][0];
    let count = |standing: &str| inbox[standing].as_u64().unwrap_or_else(|| panic!("{shown:#}"));
    (count("ready") + count("delayed") + count("claimed"), count("dead"))
}

/// Waits until all is delivered that is not dead.
async fn emptied(gateway: &Gateway) {
    within("an empty inbox", async { while held(gateway).await.0 > 0 {} }).await;
}
