//! Requests that two servers could read differently.
//!
//! Each is either refused in the one error shape, or arrives as exactly one strict request; [`Upstream`] fails the test
//! when it reads anything else. The route of `/private` must never be reached by what stands in a body.

use std::sync::Mutex;

use crate::harness::{Broken, Client, Gateway, Request, Response, Upstream, within};

const SMUGGLED: &str = "GET /private HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// What has to become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Refused with this status and code, and nothing reaches a service.
    Refused(u16, &'static str),
    /// Forwarded as one request with this target and this body.
    Once(&'static str, &'static str),
    /// Either is right: it has one reading.
    RefusedOrOnce(&'static str, &'static str),
    /// Closed without a word, or refused.
    Closed,
}

use Fate::{Closed, Once, Refused, RefusedOrOnce};

const BAD: Fate = Refused(400, "BAD_REQUEST");

struct Bench {
    gateway: Gateway,
    public: Upstream,
    private: Upstream,
    failures: Mutex<Vec<String>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let failures = self.failures.lock().unwrap();
        if !failures.is_empty() && !std::thread::panicking() {
            panic!("{}", failures.join("\n"));
        }
    }
}

/// Whether this became of a request.
fn is_fate(answer: &Result<Response, Broken>, forwarded: &[Request], fate: Fate) -> Result<(), String> {
    let arrived: Vec<_> = forwarded.iter().map(|r| (&*r.target, String::from_utf8_lossy(&r.body))).collect();
    let told = match answer {
        Ok(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
        Err(broken) => format!("{broken:?}"),
    };
    let right = match (answer, fate) {
        (Ok(answer), Refused(status, code)) => answer.status == status && answer.is_refusal(code) && arrived.is_empty(),
        (Ok(answer), RefusedOrOnce(..) | Closed) if answer.status == 400 => {
            answer.is_refusal("BAD_REQUEST") && arrived.is_empty()
        }
        (Ok(answer), Once(target, body) | RefusedOrOnce(target, body)) => {
            answer.status == 200 && arrived == [(target, body.into())]
        }
        (Err(Broken::Cut), Closed) => arrived.is_empty(),
        _ => false,
    };
    if right { Ok(()) } else { Err(format!("{fate:?}, and yet {told}; forwarded {arrived:?}")) }
}

impl Bench {
    async fn new() -> Self {
        let (public, private) = (Upstream::echo().await, Upstream::echo().await);
        let yaml = format!(
            "limits: {{ header_timeout: 2s, body_timeout: 1s, header_bytes_max: 16KiB }}\n\
             upstreams:\n  public: {{ targets: [{{ address: \"{}\" }}] }}\n  \
             private: {{ targets: [{{ address: \"{}\" }}] }}\n\
             routes:\n  - {{ name: public, match: \"/{{*rest}}\", upstream: public }}\n  \
             - {{ name: private, match: \"/private/{{*rest}}\", upstream: private }}\n",
            public.address, private.address
        );
        Self { gateway: Gateway::start(&yaml).await, public, private, failures: Mutex::default() }
    }

    /// Sends the bytes on a connection of their own and notes when something else becomes of them.
    async fn judge(&self, name: &str, bytes: &[u8], fate: Fate) {
        let before = self.public.requests().len();
        let mut client = self.gateway.client().await;
        client.send(bytes).await;
        let answer = within(name, client.try_response(bytes.starts_with(b"HEAD"))).await;
        let forwarded = self.public.requests().split_off(before);
        if let Err(wrong) = is_fate(&answer, &forwarded, fate) {
            self.failed(name, &wrong);
        }
        self.nothing_is_left(name, client).await;
    }

    /// The connection is closed, or its next request is answered and is the only one that arrives.
    async fn nothing_is_left(&self, name: &str, mut client: Client) {
        let before = self.public.requests().len();
        client.send("GET /probe HTTP/1.1\r\nHost: probe.test\r\nConnection: close\r\n\r\n").await;
        let probed = within(name, client.try_response(false)).await;
        let arrived = self.public.requests().split_off(before);
        let targets: Vec<&str> = arrived.iter().map(|request| request.target.as_str()).collect();
        let answered = probed.is_ok_and(|answer| answer.status == 200);
        if targets.as_slice() != if answered { &["/probe"][..] } else { &[] } {
            self.failed(name, &format!("after it came {targets:?}; answered: {answered}"));
        }
        if self.private.connections() > 0 {
            self.failed(name, "the private service was reached");
        }
    }

    fn failed(&self, name: &str, wrong: &str) {
        self.failures.lock().unwrap().push(format!("{name}: {wrong}"));
    }

    async fn judge_all(&self, cases: &[(&str, &str, Fate)]) {
        for (name, request, fate) in cases {
            self.judge(name, request.replace("{SMUGGLED}", SMUGGLED).as_bytes(), *fate).await;
        }
    }
}

/// A POST of `/x` with these framing fields and this body.
fn post(fields: &str, body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\n{body}")
}

#[tokio::test(flavor = "multi_thread")]
async fn length_against_chunks() {
    let bench = Bench::new().await;
    let body = format!("0\r\n\r\n{SMUGGLED}");
    let length = body.len();
    for (name, fields) in [
        ("CL+TE", format!("Content-Length: {length}\r\nTransfer-Encoding: chunked")),
        ("TE+CL", format!("Transfer-Encoding: chunked\r\nContent-Length: {length}")),
        ("CL+TE 3", "Content-Length: 3\r\nTransfer-Encoding: chunked".to_owned()),
    ] {
        bench.judge(name, post(&fields, &body).as_bytes(), RefusedOrOnce("/x", "")).await;
    }
    let chunked = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let fields = "Content-Length: 4\r\nTransfer-Encoding: chunked";
    let whole: &'static str = SMUGGLED;
    bench.judge("TE.CL", post(fields, &chunked).as_bytes(), RefusedOrOnce("/x", whole)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_are_none() {
    let bench = Bench::new().await;
    for (name, fields, fate) in [
        ("the same twice", "Content-Length: 4\r\nContent-Length: 4", RefusedOrOnce("/x", "body")),
        ("the same in a list", "Content-Length: 4, 4", RefusedOrOnce("/x", "body")),
        ("two that differ", "Content-Length: 4\r\nContent-Length: 0", BAD),
        ("two that differ, reversed", "Content-Length: 0\r\nContent-Length: 4", BAD),
        ("a list that differs", "Content-Length: 4, 0", BAD),
        ("a plus", "Content-Length: +4", BAD),
        ("a minus", "Content-Length: -4", BAD),
        ("a space inside", "Content-Length: 4 4", BAD),
        ("hexadecimal", "Content-Length: 0x4", BAD),
        ("a word", "Content-Length: four", BAD),
        ("nothing", "Content-Length:", BAD),
        ("a comma", "Content-Length: 4,", BAD),
        ("a quote", "Content-Length: \"4\"", BAD),
        ("a fraction", "Content-Length: 4.0", BAD),
        ("2^64 + 4", "Content-Length: 18446744073709551620", BAD),
        ("leading zeros", "Content-Length: 0004", RefusedOrOnce("/x", "body")),
        ("spaces around", "Content-Length:   4  ", Once("/x", "body")),
        ("a vertical tab", "Content-Length: \x0b4", BAD),
        ("another name", "Content_Length: 4", BAD),
    ] {
        // What is not read as a body stands there as a request.
        let name_is_no_length = name == "another name";
        let fate = if name_is_no_length { Once("/x", "") } else { fate };
        let body = if name_is_no_length { "" } else { "body" };
        bench.judge(name, post(fields, body).as_bytes(), fate).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn codings_that_are_none() {
    let bench = Bench::new().await;
    let body = "4\r\nbody\r\n0\r\n\r\n";
    for (name, fields, fate) in [
        ("plain", "Transfer-Encoding: chunked", Once("/x", "body")),
        ("upper case", "TRANSFER-ENCODING: CHUNKED", Once("/x", "body")),
        ("twice in a list", "Transfer-Encoding: chunked, chunked", BAD),
        ("twice in two fields", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", BAD),
        ("identity after it", "Transfer-Encoding: chunked, identity", BAD),
        ("identity in a second field", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", BAD),
        ("identity before it", "Transfer-Encoding: identity, chunked", BAD),
        ("gzip before it", "Transfer-Encoding: gzip, chunked", BAD),
        ("an unknown one", "Transfer-Encoding: xchunked", BAD),
        ("a vertical tab", "Transfer-Encoding: \x0bchunked", BAD),
        ("a tab", "Transfer-Encoding:\tchunked", RefusedOrOnce("/x", "body")),
        ("a quote", "Transfer-Encoding: \"chunked\"", BAD),
        ("a parameter", "Transfer-Encoding: chunked;q=1", BAD),
        ("an empty element", "Transfer-Encoding: ,chunked", RefusedOrOnce("/x", "body")),
        ("empty", "Transfer-Encoding:", BAD),
        ("a space before the colon", "Transfer-Encoding : chunked", BAD),
        ("a fold", "Transfer-Encoding:\r\n chunked", BAD),
        ("a fold of another field", "X: y\r\n Transfer-Encoding: chunked", BAD),
        ("a bare CR before it", "X: y\rTransfer-Encoding: chunked", BAD),
        ("CL behind a bare CR", "Transfer-Encoding: chunked\rContent-Length: 4", BAD),
    ] {
        bench.judge(name, post(fields, body).as_bytes(), fate).await;
    }
    let old = "POST /x HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    bench.judge("HTTP/1.0", old.as_bytes(), BAD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_are_none() {
    let bench = Bench::new().await;
    let chunked = "Transfer-Encoding: chunked";
    for (name, body, fate) in [
        // The engine reads it as 0; what follows is never looked at.
        ("no digit", "\r\nbody\r\n0\r\n\r\n", RefusedOrOnce("/x", "")),
        ("no hex digit", "g\r\nbody\r\n0\r\n\r\n", BAD),
        ("0x", "0x4\r\nbody\r\n0\r\n\r\n", BAD),
        ("negative", "-4\r\nbody\r\n0\r\n\r\n", BAD),
        ("a plus", "+4\r\nbody\r\n0\r\n\r\n", BAD),
        ("2^64 + 4", "10000000000000004\r\nbody\r\n0\r\n\r\n", BAD),
        ("all ones", "ffffffffffffffff\r\nbody\r\n0\r\n\r\n", BAD),
        ("leading zeros", "00000004\r\nbody\r\n0\r\n\r\n", RefusedOrOnce("/x", "body")),
        ("an extension", "4;name=value\r\nbody\r\n0\r\n\r\n", RefusedOrOnce("/x", "body")),
        ("an extension with a bare LF", "4;a\nbody\r\n0\r\n\r\n", BAD),
        ("a bare LF after the size", "4\nbody\r\n0\r\n\r\n", BAD),
        ("a space after the size", "4 \r\nbody\r\n0\r\n\r\n", RefusedOrOnce("/x", "body")),
        ("a space before the size", " 4\r\nbody\r\n0\r\n\r\n", BAD),
        ("more than the size", "4\r\nbodies\r\n0\r\n\r\n", BAD),
        ("no CRLF after the data", "4\r\nbody0\r\n\r\n", BAD),
        ("a bare LF after the data", "4\r\nbody\n0\r\n\r\n", BAD),
        ("two other bytes after the data", "4\r\nbodyXX0\r\n\r\n", BAD),
        ("a bare CR after the size", "4\rXbody\r\n0\r\n\r\n", BAD),
    ] {
        bench.judge(name, post(chunked, body).as_bytes(), fate).await;
    }
    // What never ends ends with the deadline of the body.
    for (name, body) in [("no last chunk", "4\r\nbody\r\n"), ("no last CRLF", "4\r\nbody\r\n0\r\n")] {
        bench.judge(name, post(chunked, body).as_bytes(), Refused(408, "REQUEST_TIMEOUT")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_and_fields() {
    let bench = Bench::new().await;
    bench
        .judge_all(&[
            ("a space before the colon", "GET /x HTTP/1.1\r\nHost : a.test\r\n\r\n", BAD),
            ("a fold", "GET /x HTTP/1.1\r\nHost: a.test\r\nX: 1\r\n 2\r\n\r\n", BAD),
            ("a fold in the first field", "GET /x HTTP/1.1\r\n Host: a.test\r\n\r\n", BAD),
            ("no colon", "GET /x HTTP/1.1\r\nHost: a.test\r\nnothing\r\n\r\n", BAD),
            ("an empty name", "GET /x HTTP/1.1\r\nHost: a.test\r\n: x\r\n\r\n", BAD),
            ("a name with a space", "GET /x HTTP/1.1\r\nHost: a.test\r\nX Y: x\r\n\r\n", BAD),
            ("a name with a control byte", "GET /x HTTP/1.1\r\nHost: a.test\r\nX\x01: x\r\n\r\n", BAD),
            ("a bare CR in a value", "GET /x HTTP/1.1\r\nHost: a.test\r\nX: a\rb\r\n\r\n", BAD),
            ("a NUL in a value", "GET /x HTTP/1.1\r\nHost: a.test\r\nX: a\0b\r\n\r\n", BAD),
            ("a control byte in a value", "GET /x HTTP/1.1\r\nHost: a.test\r\nX: a\x01b\r\n\r\n", BAD),
            ("DEL in a value", "GET /x HTTP/1.1\r\nHost: a.test\r\nX: a\x7fb\r\n\r\n", BAD),
            ("bare LF", "GET /x HTTP/1.1\nHost: a.test\n\n", RefusedOrOnce("/x", "")),
            ("one bare LF", "GET /x HTTP/1.1\r\nHost: a.test\nX: y\r\n\r\n", RefusedOrOnce("/x", "")),
            (
                "a request behind a bare LF",
                "GET /x HTTP/1.1\r\nHost: a.test\r\nX: y\n\n{SMUGGLED}",
                RefusedOrOnce("/x", ""),
            ),
            ("CRLF before it", "\r\n\r\nGET /x HTTP/1.1\r\nHost: a.test\r\n\r\n", RefusedOrOnce("/x", "")),
            ("a tab in the request line", "GET\t/x\tHTTP/1.1\r\nHost: a.test\r\n\r\n", BAD),
            ("two spaces", "GET  /x HTTP/1.1\r\nHost: a.test\r\n\r\n", BAD),
            // The engine takes all but the last word for the target, and encodes the space.
            ("three words", "GET /x /private HTTP/1.1\r\nHost: a.test\r\n\r\n", RefusedOrOnce("/x%20/private", "")),
            ("two versions", "GET /x HTTP/1.1 HTTP/1.1\r\nHost: a.test\r\n\r\n", BAD),
            ("a bad method", "GE(T /x HTTP/1.1\r\nHost: a.test\r\n\r\n", BAD),
            ("no method", " /x HTTP/1.1\r\nHost: a.test\r\n\r\n", BAD),
            ("no target", "GET HTTP/1.1\r\nHost: a.test\r\n\r\n", BAD),
            ("HTTP/1.2", "GET /x HTTP/1.2\r\nHost: a.test\r\n\r\n", BAD),
            ("HTTP/2.0 in text", "GET /x HTTP/2.0\r\nHost: a.test\r\n\r\n", BAD),
            ("HTTP/3", "GET /x HTTP/3\r\nHost: a.test\r\n\r\n", BAD),
            ("another protocol", "GET /x ICAP/1.0\r\nHost: a.test\r\n\r\n", BAD),
            ("HTTP/0.9", "GET /x\r\n\r\n", Closed),
            ("garbage", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", BAD),
        ])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts() {
    let bench = Bench::new().await;
    bench
        .judge_all(&[
            ("none", "GET /x HTTP/1.1\r\n\r\n", BAD),
            ("two", "GET /x HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", BAD),
            ("the same twice", "GET /x HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n", BAD),
            ("a path", "GET /x HTTP/1.1\r\nHost: a.test/private\r\n\r\n", BAD),
            ("an at sign", "GET /x HTTP/1.1\r\nHost: a.test@b.test\r\n\r\n", BAD),
            ("a space", "GET /x HTTP/1.1\r\nHost: a.test b.test\r\n\r\n", BAD),
            ("a comma", "GET /x HTTP/1.1\r\nHost: a.test,b.test\r\n\r\n", BAD),
            ("a question mark", "GET /x HTTP/1.1\r\nHost: a.test?b\r\n\r\n", BAD),
            ("a hash", "GET /x HTTP/1.1\r\nHost: a.test#b\r\n\r\n", BAD),
            ("a bad port", "GET /x HTTP/1.1\r\nHost: a.test:http\r\n\r\n", BAD),
            ("absolute and equal", "GET http://a.test/x?q HTTP/1.1\r\nHost: a.test\r\n\r\n", Once("/x?q", "")),
            (
                "absolute without a path",
                "GET http://a.test?q HTTP/1.1\r\nHost: a.test\r\n\r\n",
                RefusedOrOnce("/?q", ""),
            ),
            ("absolute and another", "GET http://b.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n", BAD),
            ("absolute with another port", "GET http://a.test:81/x HTTP/1.1\r\nHost: a.test\r\n\r\n", BAD),
            ("absolute with a user", "GET http://u:p@a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n", BAD),
            ("absolute without a Host", "GET http://a.test/x HTTP/1.1\r\n\r\n", BAD),
            ("another scheme", "GET ftp://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n", BAD),
            ("TLS without TLS", "GET https://a.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n", BAD),
            ("absolute with dots", "GET http://a.test/y/../x HTTP/1.1\r\nHost: a.test\r\n\r\n", Once("/x", "")),
            ("absolute above the root", "GET http://a.test/../x HTTP/1.1\r\nHost: a.test\r\n\r\n", BAD),
            ("an authority", "GET a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n", BAD),
            ("two slashes", "GET //b.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n", RefusedOrOnce("/b.test/x", "")),
        ])
        .await;
    bench.judge("Host that is empty", b"GET /x HTTP/1.1\r\nHost:\r\n\r\n", RefusedOrOnce("/x", "")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets() {
    let bench = Bench::new().await;
    for (target, fate) in [
        ("/a%2fb", BAD),
        ("/a%2Fb", BAD),
        ("/a%00b", BAD),
        ("/a%0d%0ab", BAD),
        ("/a%5cb", BAD),
        ("/a\\b", BAD),
        ("/..", BAD),
        ("/../private", BAD),
        ("/a/../../private", BAD),
        ("/%2e%2e/private", BAD),
        ("/a/..;/private", BAD),
        // The engine cuts it off: it is no part of a request target.
        ("/a#b", RefusedOrOnce("/a", "")),
        ("/a%", BAD),
        ("/a%zz", BAD),
        ("/a<b", BAD),
        ("/a\"b", BAD),
        ("/a{b", BAD),
        ("/a|b", BAD),
        ("/a^b", BAD),
        ("/a`b", BAD),
        ("/a\x7fb", BAD),
        ("/a\x01b", BAD),
        ("/a\u{e9}", BAD),
        ("a", BAD),
        ("?q", BAD),
        ("*", Refused(404, "NOT_FOUND")),
        ("//x", Once("/x", "")),
        ("/./x", Once("/x", "")),
        ("/a/../x", Once("/x", "")),
        ("/a/%2E%2E/x", Once("/x", "")),
        ("/%78", Once("/x", "")),
        ("/%2541", Once("/%2541", "")),
        ("/x?q=%2f..%00\\", RefusedOrOnce("/x?q=%2f..%00\\", "")),
        ("/x?q=<a>\"", RefusedOrOnce("/x?q=%3Ca%3E%22", "")),
        ("/x?q=\u{e9}", RefusedOrOnce("/x?q=%C3%A9", "")),
    ] {
        bench.judge(target, format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes(), fate).await;
    }
    bench.judge("bytes that are no UTF-8", b"GET /a\xff\xfe HTTP/1.1\r\nHost: a.test\r\n\r\n", BAD).await;
    bench.judge("bytes that are no UTF-8", b"GET /x?\xff\xfe HTTP/1.1\r\nHost: a.test\r\n\r\n", BAD).await;
    bench.judge("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(404, "NOT_FOUND")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_request() {
    let bench = Bench::new().await;
    bench
        .judge_all(&[
            ("bytes after a GET", "GET /x HTTP/1.1\r\nHost: a.test\r\n\r\ngarbage", Once("/x", "")),
            ("an upgrade nobody takes", "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{SMUGGLED}", RefusedOrOnce("/x", "")),
            ("an unknown upgrade", "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n{SMUGGLED}", RefusedOrOnce("/x", "")),
            ("an upgrade with a length", "POST /x HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: foo\r\nContent-Length: 4\r\n\r\nbody{SMUGGLED}", RefusedOrOnce("/x", "body")),
            ("an upgrade to HTTP/2", "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n{SMUGGLED}", RefusedOrOnce("/x", "")),
            ("Connection nominates Host", "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: Host\r\n\r\n", RefusedOrOnce("/x", "")),
            ("Connection nominates the length", "POST /x HTTP/1.1\r\nHost: a.test\r\nConnection: Content-Length\r\nContent-Length: 4\r\n\r\nbody", RefusedOrOnce("/x", "body")),
            ("Connection nominates the coding", "POST /x HTTP/1.1\r\nHost: a.test\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", RefusedOrOnce("/x", "body")),
            ("Connection nominates what the gateway adds", "GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: X-Forwarded-For, X-Request-Id\r\n\r\n", RefusedOrOnce("/x", "")),
            ("a GET with a body", "GET /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody", Once("/x", "body")),
            ("a HEAD with a body", "HEAD /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody", Once("/x", "body")),
            ("CONNECT", "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", Refused(405, "METHOD_NOT_ALLOWED")),
            ("CONNECT with a path", "CONNECT /x HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(405, "METHOD_NOT_ALLOWED")),
            ("PRI in text", "PRI * HTTP/1.1\r\nHost: a.test\r\n\r\n", Refused(404, "NOT_FOUND")),
            ("an answer for a request", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", BAD),
        ])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_sent_at_once_are_answered_in_turn() {
    let bench = Bench::new().await;
    let mut client = bench.gateway.client().await;
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let third = request("/three");
    client.send([&*request("/one"), &*request("/two"), &third[..20]].concat()).await;
    for _ in 0..2 {
        assert_eq!(client.response().await.status, 200);
    }
    // A head that has begun has its time, however much of it came ahead.
    client.send(&third[20..]).await;
    assert_eq!(client.response().await.status, 200);
    let targets: Vec<String> = bench.public.requests().iter().map(|request| request.target.clone()).collect();
    assert_eq!(targets, ["/one", "/two", "/three"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preface_and_then_garbage() {
    let bench = Bench::new().await;
    for after in ["", "GET /private HTTP/1.1\r\nHost: a\r\n\r\n", "\x00\x00\x00\x01\x00\x00\x00\x00\x01"] {
        let mut client = bench.gateway.client().await;
        client.send(format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{after}")).await;
        drop(client);
    }
    for almost in
        ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", "PRI * HTTP/2.0\r\n\r\nGET /private HTTP/1.1\r\nHost: a\r\n\r\n", "PRI"]
    {
        let mut client = bench.gateway.client().await;
        client.send(almost).await;
        let rest = client.rest().await;
        assert!(rest.starts_with(b"HTTP/1.1 4"), "{almost:?}: {}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(bench.public.connections() + bench.private.connections(), 0);
    assert_eq!(bench.gateway.get("/x").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large() {
    let bench = Bench::new().await;
    let refused = Refused(431, "HEADERS_TOO_LARGE");
    let head = |fields: &str| format!("GET /x HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
    let max = 16 * 1024;
    let padded = |length: usize| {
        let bare = head("X: \r\n").len();
        head(&format!("X: {}\r\n", "a".repeat(length - bare)))
    };
    bench.judge("the largest", padded(max).as_bytes(), Once("/x", "")).await;
    bench.judge("one byte more", padded(max + 1).as_bytes(), refused).await;
    bench.judge("far more", padded(100 * max).as_bytes(), refused).await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "a".repeat(max));
    bench.judge("a long target", long.as_bytes(), refused).await;
    // Host is one of them.
    let many = |count: usize| head(&(1..count).map(|number| format!("X-{number}: 1\r\n")).collect::<String>());
    bench.judge("as many as there may be", many(100).as_bytes(), Once("/x", "")).await;
    bench.judge("one more", many(101).as_bytes(), refused).await;
    bench.judge("more than the engine takes", many(300).as_bytes(), BAD).await;
    bench.judge("no end of a line", &[b'a'; 40_000], refused).await;
}
