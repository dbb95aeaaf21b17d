//! One request to the admin address.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::clock;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long all of it may take: the gateway may have to look through a shared store.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// What the gateway answered, when it did what it was asked.
#[derive(Debug)]
pub struct Answer {
    /// JSON.
    pub body: String,
}

/// A path below `start`, and its query: each part stays one, whatever is in it.
pub fn path(start: &str, parts: &[&str], query: &[(&str, Option<&str>)]) -> String {
    let mut path = start.to_owned();
    for part in parts {
        path.push('/');
        path.push_str(&encoded(part));
    }
    let mut separator = '?';
    for (name, value) in query {
        if let Some(value) = value {
            path.push_str(&format!("{separator}{name}={}", encoded(value)));
            separator = '&';
        }
    }
    path
}

/// Asks, and says why it did not work.
pub fn ask(admin: SocketAddr, method: &str, path: &str) -> Result<Answer, String> {
    let answer = exchange(admin, method, path).map_err(|error| {
        let more = match error.kind() {
            io::ErrorKind::ConnectionRefused => "; does the gateway run, and is this its admin address?",
            _ => "",
        };
        format!("{admin} does not answer: {error}{more}")
    })?;
    let (status, body) = parse(&answer).ok_or_else(|| format!("what {admin} answers is not HTTP"))?;
    if status == 200 {
        return Ok(Answer { body: body.to_owned() });
    }
    Err(match refusal(body) {
        // A listener of the gateway would say it in the same shape.
        Some(refusal) if status != 404 || refusal.is_ours => refusal.message,
        _ => format!("{admin} answers {status}; does a gateway run there, and is this its admin address?"),
    })
}

impl Answer {
    /// What it says.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_str(&self.body)
            .map_err(|error| format!("the answer cannot be read; is the gateway of another version? {error}"))
    }
}

fn exchange(admin: SocketAddr, method: &str, path: &str) -> io::Result<Vec<u8>> {
    let started = clock::now();
    let mut stream = TcpStream::connect_timeout(&admin, CONNECT_TIMEOUT)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // 1.0: the answer has no chunks and ends with the connection.
    stream.write_all(format!("{method} {path} HTTP/1.0\r\nHost: {admin}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = vec![0_u8; PIECE_BYTES];
    loop {
        let left = TIMEOUT.saturating_sub(clock::now().saturating_duration_since(started));
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => return Ok(answer),
            read => answer.extend_from_slice(piece.get(..read).unwrap_or_default()),
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
    }
}

/// Status and body.
fn parse(answer: &[u8]) -> Option<(u16, &str)> {
    let (head, body) = std::str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split_ascii_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    Some((words.next()?.parse().ok()?, body))
}

struct Refusal {
    message: String,
    /// It says what is not there.
    is_ours: bool,
}

/// A refusal, in either shape.
fn refusal(body: &str) -> Option<Refusal> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    let message = body.pointer("/error/message").or_else(|| body.get("detail"))?;
    let details = body.pointer("/error/details").unwrap_or(&body);
    let is_ours = ["buckets", "inboxes", "message"].iter().any(|name| details.get(name).is_some());
    Some(Refusal { message: message.as_str()?.to_owned(), is_ours })
}

/// With every byte percent-encoded that is not unreserved (RFC 3986 §2.3).
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_bucket_or_a_caller_is_called_stays_one_part() {
        let top = [("who", None), ("top", Some("5"))];
        assert_eq!(path("/limits", &["reads"], &top), "/limits/reads?top=5");
        assert_eq!(
            path("/limits", &["chain:api#2"], &[("who", Some("ip=192.0.2.0/24")), ("kind", Some("rate_limit"))]),
            "/limits/chain%3Aapi%232?who=ip%3D192.0.2.0%2F24&kind=rate_limit"
        );
        assert_eq!(path("/limits", &["a"], &[("who", Some("key=a%2Cb c"))]), "/limits/a?who=key%3Da%252Cb%20c");
        assert_eq!(path("/limits", &["a"], &[("who", Some(""))]), "/limits/a?who=");
        assert_eq!(path("/inboxes", &["a/b", "../x"], &[]), "/inboxes/a%2Fb/..%2Fx");
    }

    #[test]
    fn an_answer_is_a_status_and_a_body() {
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}"), Some((200, "{}")));
        for odd in [&b"SSH-2.0-x\r\n\r\n"[..], b"HTTP/1.0 200 OK\r\n", b"HTTP/1.0 OK\r\n\r\n", b"", b"\xff\r\n\r\n"] {
            assert_eq!(parse(odd), None, "{odd:?}");
        }
        for (body, expected) in [
            ("{\"error\":{\"message\":\"no\",\"details\":{\"buckets\":[]}}}", Some(("no", true))),
            ("{\"error\":{\"message\":\"no\",\"details\":{}}}", Some(("no", false))),
            ("{\"detail\":\"no\",\"buckets\":[]}", Some(("no", true))),
            ("{\"detail\":\"no\"}", Some(("no", false))),
            ("{\"error\":{\"message\":\"no\",\"details\":{\"message\":{\"id\":\"1\"}}}}", Some(("no", true))),
            ("{}", None),
        ] {
            let found = refusal(body);
            assert_eq!(found.as_ref().map(|it| (&*it.message, it.is_ours)), expected, "{body}");
        }
    }

    #[test]
    fn who_does_not_answer_is_said_to() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = listener.local_addr().unwrap();
        drop(listener);
        let error = ask(admin, "GET", "/limits").unwrap_err();
        assert!(error.contains("does not answer") && error.contains("does the gateway run"), "{error}");
    }
}
