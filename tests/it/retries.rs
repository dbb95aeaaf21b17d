//! Retries from outside: what is tried again and what is not, with which bodies, and at whose expense.

mod bodies;
mod budget;
mod conditions;

use std::net::SocketAddr;

use crate::harness::{Conn, Gateway, Upstream, answer};

/// As much as Pingora keeps of a body that is not gathered.
const KEPT: usize = 64 * 1024;

/// What a service does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// An echo.
    Answers,
    /// The status, with its own number in the body.
    Refuses(u16),
    /// 503 that asks to come back after so many seconds.
    RefusesFor(u16, u32),
    /// Closes with a reset when the request is there.
    Resets,
    /// Resets within the body of its answer.
    ResetsLater,
    /// Says nothing.
    IsSilent,
    /// Answers 503 when the head is there, and leaves the body unread.
    RefusesUnread,
}

async fn serve(mut conn: Conn, does: Does) {
    while let Some(request) = conn.head().await {
        if does == Does::RefusesUnread {
            conn.record(&request);
            conn.send(answer(503, b"unread")).await;
            return conn.closed().await;
        }
        let Some(body) = conn.body(request.framing).await else { return };
        conn.record(&crate::harness::Request { body: body.bytes.clone(), ..request });
        match does {
            Does::Answers => drop(conn.send(answer(200, &body.bytes)).await),
            Does::Refuses(status) => drop(conn.send(answer(status, b"the service says no")).await),
            Does::RefusesFor(status, seconds) => {
                let head = format!("HTTP/1.1 {status} No\r\nRetry-After: {seconds}\r\nContent-Length: 5\r\n\r\nlater");
                conn.send(head).await;
            }
            Does::Resets => return conn.reset(),
            Does::ResetsLater => {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
                return conn.reset();
            }
            Does::IsSilent => return conn.closed().await,
            Does::RefusesUnread => {}
        }
    }
}

async fn service(does: Does) -> Upstream {
    Upstream::scripted(move |conn| serve(conn, does)).await
}

/// A gateway in front of these, asked in this order: with `round_robin` each request begins where the last one ended.
async fn gateway(addresses: &[SocketAddr], keys: &str) -> Gateway {
    Gateway::start(&config(addresses, keys)).await
}

fn config(addresses: &[SocketAddr], keys: &str) -> String {
    let targets: Vec<String> = addresses.iter().map(|address| format!("{{ address: \"{address}\" }}")).collect();
    format!(
        "admin: {{ bind: 127.0.0.1:0 }}\nupstreams:\n  main: {{ targets: [{}], {keys} }}\nroutes:\n\
         \x20 - {{ name: all, match: \"/{{*rest}}\", upstream: main }}\n\
         \x20 - {{ name: gathered, match: \"/gathered/{{*rest}}\", filters: [{{ validate: {{ body_max: 4MiB }} }}], body_max: 4MiB, upstream: main }}\n",
        targets.join(", ")
    )
}

/// A service that does this, and behind it one that answers.
struct Pair {
    first: Upstream,
    second: Upstream,
    gateway: Gateway,
}

impl Pair {
    async fn start(does: Does, retry: &str) -> Self {
        Self::with(does, &format!("retry: {{ backoff: {{ first: 1ms }}, {retry} }}")).await
    }

    async fn with(does: Does, keys: &str) -> Self {
        let (first, second) = (service(does).await, service(Does::Answers).await);
        let gateway = gateway(&[first.address, second.address], keys).await;
        Self { first, second, gateway }
    }

    /// How many requests each has had.
    fn asked(&self) -> (usize, usize) {
        (self.first.requests().len(), self.second.requests().len())
    }

    /// How often something was tried again for this reason.
    async fn retried(&self, reason: &str, count: f64) {
        let series = format!("tollgate_upstream_retries_total{{reason=\"{reason}\",upstream=\"main\"}}");
        self.gateway.counts(&[(&series, count)]).await;
    }
}

fn post(path: &str, fields: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a.test\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}
