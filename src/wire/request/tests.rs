use http::Version;
use http::header::{CONTENT_LENGTH, HOST};
use proptest::prelude::*;

use super::*;
use crate::wire::write_request;

const MAX: usize = 100;

fn look(bytes: impl AsRef<[u8]>) -> Look<PlainRequest> {
    let before = bytes.as_ref();
    let mut bytes = BytesMut::from(before);
    let seen = request(&mut bytes, &mut 0, MAX);
    match &seen {
        Look::Whole(plain) => assert_eq!(bytes, before.get(plain.raw.len()..).unwrap()),
        Look::Partial | Look::Odd => assert_eq!(bytes, before),
    }
    seen
}

fn plain(bytes: impl AsRef<[u8]>) -> PlainRequest {
    match look(&bytes) {
        Look::Whole(plain) => plain,
        other => panic!("{:?}: {other:?}", bytes.as_ref().escape_ascii().to_string()),
    }
}

fn is_odd(bytes: impl AsRef<[u8]>) -> bool {
    matches!(look(bytes), Look::Odd)
}

/// With these lines behind the Host.
fn with(fields: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n")
}

#[test]
fn a_plain_request_is_taken_off_the_front() {
    let head = "GET /a/b?c=d HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\nx-a:\t2 \r\nX-Empty:\r\nX-Text: \u{e9}\r\n\r\n";
    let mut bytes = BytesMut::from(&*format!("{head}GET /next"));
    let mut scanned = 0;
    let Look::Whole(plain) = request(&mut bytes, &mut scanned, MAX) else { panic!("it is plain") };
    assert_eq!((plain.raw.len(), plain.closes, scanned), (head.len(), false, 0));
    assert_eq!((plain.parts.method, plain.parts.version), (Method::GET, Version::HTTP_11));
    assert_eq!((plain.parts.uri.path(), plain.parts.uri.query()), ("/a/b", Some("c=d")));
    assert_eq!(plain.parts.uri.authority(), None);
    let fields: Vec<(&str, &[u8])> =
        plain.parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(
        fields,
        [("host", &b"a.test"[..]), ("x-a", b"1"), ("x-a", b"2"), ("x-empty", b""), ("x-text", "\u{e9}".as_bytes())]
    );
    assert_eq!(bytes, "GET /next");
}

#[test]
fn the_next_head_is_looked_at_from_its_beginning() {
    let (mut bytes, mut scanned) = (BytesMut::from(with("").trim_end()), 0);
    assert!(matches!(request(&mut bytes, &mut scanned, MAX), Look::Partial));
    assert_eq!(scanned, bytes.len());
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes.extend_from_slice(with("").as_bytes());
    for _ in 0..2 {
        assert!(matches!(request(&mut bytes, &mut scanned, MAX), Look::Whole(_)));
        assert_eq!(scanned, 0);
    }
    assert!(bytes.is_empty());
}

#[test]
fn its_values_share_the_memory_of_the_head() {
    let mut bytes = BytesMut::from(&*with("X-A: value\r\n"));
    let range = bytes.as_ptr_range();
    let Look::Whole(plain) = request(&mut bytes, &mut 0, MAX) else { panic!("it is plain") };
    assert!(range.contains(&plain.parts.headers["x-a"].as_bytes().as_ptr()));
    assert!(range.contains(&plain.parts.uri.path().as_ptr()));
}

#[test]
fn connection_tells_whether_it_closes_and_is_gone() {
    for (fields, closes) in [
        ("", false),
        ("Connection: keep-alive\r\n", false),
        ("CONNECTION:Keep-Alive\r\n", false),
        ("Connection: close\r\n", true),
        ("connection: CLOSE \r\n", true),
    ] {
        let plain = plain(with(fields));
        assert_eq!(plain.closes, closes, "{fields:?}");
        assert!(!plain.parts.headers.contains_key("connection"));
    }
    for fields in [
        "Connection: close\r\nConnection: close\r\n",
        "Connection: keep-alive\r\nConnection: close\r\n",
        "Connection: close, keep-alive\r\n",
        "Connection: x-a\r\n",
        "Connection: Upgrade\r\n",
        "Connection: close,\r\n",
        "Connection:\r\n",
    ] {
        assert!(is_odd(with(fields)), "{fields:?}");
    }
}

#[test]
fn an_unmeasured_body_or_something_to_negotiate_is_odd() {
    for fields in [
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "transfer-encoding:\r\n",
        "Content-Length: 16385\r\n",
        "Content-Length: 99999\r\n",
        "Content-Length: 100000\r\n",
        "Content-Length: 18446744073709551617\r\n",
        "Content-Length: 04\r\n",
        "Content-Length: 4 4\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: -4\r\n",
        "Content-Length: 4\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 4\r\nContent-Type: application/grpc-web+proto\r\n",
        "Content-Type: Application/gRPC\r\nContent-Length: 4\r\n",
        "Content-Length: 00\r\n",
        "Content-Length: +0\r\n",
        "Content-Length: 0, 0\r\n",
        "Content-Length:\r\n",
        "Content-Length: 0\r\nContent-Length: 0\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Expect: 100-continue\r\n",
        "Upgrade: websocket\r\n",
        "TE: trailers\r\n",
        "Trailer: x\r\n",
        "HTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Proxy-Connection: close\r\n",
        "Keep-Alive: timeout=5\r\n",
    ] {
        assert!(is_odd(with(fields)), "{fields:?}");
    }
    assert_eq!(plain(with("Content-Length: 0\r\n")).parts.headers[CONTENT_LENGTH], "0");
}

#[test]
fn a_small_body_follows_its_head() {
    for (fields, body) in [
        ("", 0),
        ("Content-Length: 0\r\nContent-Type: application/grpc\r\n", 0),
        ("Content-Length: 1\r\n", 1),
        ("content-length:  9 \r\nContent-Type: application/json\r\n", 9),
        ("Content-Length: 10\r\n", 10),
        ("Content-Length: 16384\r\n", BODY_BYTES_MAX),
    ] {
        assert_eq!(plain([&*with(fields), "body"].concat()).body, body, "{fields:?}");
    }
}

#[test]
fn a_host_is_there_once() {
    for head in [
        "GET /x HTTP/1.1\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost:\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: \t\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: a.test\r\nX: y\r\nhOST: a.test\r\n\r\n",
    ] {
        assert!(is_odd(head), "{head:?}");
    }
    assert_eq!(plain(with("")).parts.headers[HOST], "a.test");
}

#[test]
fn a_target_is_in_origin_form() {
    for target in ["/", "//x", "/?", "/x?q=/?:@!$&'()*+,;=", "/%00%zz", "/x?q=%2f..\\", "/~_-.", "/a/../b"] {
        let plain = plain(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(plain.parts.uri.to_string(), target);
    }
    for target in [
        "*",
        "?q",
        "x",
        "#",
        "/#",
        "/x#y",
        "/x?q#y",
        "http://a.test/",
        "http://a.test",
        "a.test:80",
        "/a b",
        "/a\tb",
        "/a\u{7f}",
        "/a\u{e9}",
        "/a?\u{e9}",
        "/a\0",
        "/a<b",
        "/a>b",
        "/a?b<c",
        "/a?b>c",
        "",
    ] {
        assert!(is_odd(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")), "{target:?}");
    }
    assert!(is_odd(b"GET /\xff HTTP/1.1\r\nHost: a.test\r\n\r\n"));
    // What the type for targets can hold, and one byte more.
    let long = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(length - 1));
    assert_eq!(plain(long(65_534)).parts.uri.path().len(), 65_534);
    assert!(is_odd(long(65_535)));
}

#[test]
fn a_request_line_has_one_form() {
    for line in [
        "GET /x HTTP/1.0",
        "GET /x HTTP/1.2",
        "GET /x HTTP/2.0",
        "GET /x http/1.1",
        "GET /x HTTP/1.1 ",
        "GET  /x HTTP/1.1",
        "GET /x  HTTP/1.1",
        "GET\t/x HTTP/1.1",
        " GET /x HTTP/1.1",
        "\r\nGET /x HTTP/1.1",
        "\nGET /x HTTP/1.1",
        "GET /x",
        "GE(T /x HTTP/1.1",
        "/x HTTP/1.1",
        "GET /x HTTP/01.1",
        "GET /x HTTP/1.10",
        "CONNECT /x HTTP/1.1",
        "CONNECT a.test:443 HTTP/1.1",
        "HTTP/1.1 200 OK",
        "",
        "\r",
    ] {
        assert!(is_odd(format!("{line}\r\nHost: a.test\r\n\r\n")), "{line:?}");
    }
    assert!(is_odd("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    for method in [
        "GET",
        "POST",
        "get",
        "OPTIONS",
        "M-SEARCH",
        "A",
        "!#$%&'*+-.^_`|~",
        "CONNECTED",
        "connect",
        "VERY-LONG-NAME-OF-A-METHOD",
    ] {
        let plain = plain(format!("{method} /x HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(plain.parts.method.as_str(), method);
    }
}

#[test]
fn lines_and_fields_have_one_form() {
    for fields in [
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        "X:\r\n a\r\n",
        " X: a\r\n",
        "X : a\r\n",
        "X\t: a\r\n",
        ": a\r\n",
        "X\r\n",
        "X Y: a\r\n",
        "X: a\n",
        "X: a\nY: b\r\n",
        "X: a\rY: b\r\n",
        "X: a\r\r\n",
        "X: a\r\n\n",
        "X: a\0\r\n",
        "X: a\u{1}\r\n",
        "X: a\u{7f}\r\n",
        "X\u{e9}: a\r\n",
        "X(: a\r\n",
        "X\0: a\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length : 0\r\n",
        "X: a\u{b}\r\n",
    ] {
        assert!(is_odd(with(fields)), "{fields:?}");
    }
    for head in [
        "GET /x HTTP/1.1\nHost: a.test\n\n",
        "GET /x HTTP/1.1\nHost: a.test\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: a.test\r\n\n",
    ] {
        assert!(is_odd(head), "{head:?}");
    }
    assert!(is_odd("GET /x HTTP/1.1\r\n Host: a.test\r\n\r\n"));
}

#[test]
fn fields_are_counted() {
    let head = |fields: usize| with(&"X: y\r\n".repeat(fields - 1));
    let take = |fields: usize, fields_max: usize| request(&mut BytesMut::from(&*head(fields)), &mut 0, fields_max);
    for (fields, fields_max) in [(1, 1), (100, 100), (256, 256), (256, 1000)] {
        assert!(matches!(take(fields, fields_max), Look::Whole(plain) if plain.parts.headers.len() == fields));
    }
    for (fields, fields_max) in [(1, 0), (2, 1), (101, 100), (257, 256), (257, 1000)] {
        assert!(matches!(take(fields, fields_max), Look::Odd));
    }
}

#[test]
fn a_start_that_will_never_be_plain_is_odd_at_once() {
    for start in [
        "\u{1}",
        "GET /x HTTP/2",
        "GET /x HTTP/1.1\r\nX Y",
        "GET /x HTTP/1.1\n",
        "\r\n",
        " ",
        "\x16\x03\x01\x02\0\x01\0",
    ] {
        assert!(is_odd(start), "{start:?}");
    }
    for start in
        ["", "G", "GET", "GET /", "GET /x HTTP/1.1", "GET /x HTTP/1.1\r", "GET /x HTTP/1.1\r\nHost: a.test\r\n\r"]
    {
        assert!(matches!(look(start), Look::Partial), "{start:?}");
    }
}

/// Feeds the bytes as they are cut, and says what came of them.
fn fed(whole: &[u8], cuts: &[usize], fields_max: usize) -> Option<(String, bool, usize)> {
    let (mut bytes, mut scanned, mut sent) = (BytesMut::new(), 0, 0);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (whole.len() + 1)).collect();
    cuts.extend([whole.len()]);
    cuts.sort_unstable();
    for cut in cuts {
        bytes.extend_from_slice(&whole[sent..cut]);
        sent = cut;
        match request(&mut bytes, &mut scanned, fields_max) {
            Look::Partial => {}
            Look::Odd => return None,
            Look::Whole(plain) => {
                assert_eq!(bytes, whole[plain.raw.len()..sent]);
                return Some((format!("{:?}", plain.parts), plain.closes, plain.raw.len()));
            }
        }
    }
    None
}

/// Lines that are put together at random: most are plain, some are not.
fn head() -> impl Strategy<Value = Vec<u8>> {
    let line = proptest::sample::select(vec![
        "GET /x HTTP/1.1\r\n",
        "POST /y?z HTTP/1.1\r\n",
        "Host: a.test\r\n",
        "X-A: 1\r\n",
        "Accept: */*\r\n",
        "Connection: close\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        " fold\r\n",
        "X: a\n",
        "X : a\r\n",
        "\r\n",
        "\n",
        "\r",
        "X: \0\r\n",
        "GET /#x HTTP/1.1\r\n",
        "GET /a<b HTTP/1.1\r\n",
        "\r\n\r\n",
    ]);
    proptest::collection::vec(line, 0..6).prop_flat_map(|lines| {
        let random = lines.concat().into_bytes();
        let started = format!("GET /x HTTP/1.1\r\nHost: a.test\r\n{}\r\n", lines.concat()).into_bytes();
        proptest::sample::select(vec![random, started])
    })
}

/// A token, as methods and names are.
const TOKEN: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}";

proptest! {
    #[test]
    fn however_it_is_cut_it_is_the_same(head in head(), cuts in proptest::collection::vec(any::<usize>(), 0..6)) {
        let whole = fed(&head, &[], MAX);
        prop_assert_eq!(&fed(&head, &cuts, MAX), &whole);
        let each: Vec<usize> = (0..head.len()).collect();
        prop_assert_eq!(&fed(&head, &each, MAX), &whole);
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        look(&bytes);
        look([b"GET / HTTP/1.1\r\nHost: a\r\n", &*bytes, b"\r\n\r\n"].concat());
    }

    #[test]
    fn what_was_written_is_read(
        method in TOKEN,
        target in "/[!-\"$-;=?-~]{0,40}",
        fields in proptest::collection::vec((TOKEN, "[!-~\u{e9}]([ -~\t]{0,20}[!-~])?|"), 0..20),
    ) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        prop_assume!(method != Method::CONNECT);
        let Ok(uri) = target.parse::<Uri>() else { return Ok(()) };
        let mut parts = http::Request::new(()).into_parts().0;
        (parts.method, parts.uri) = (method, uri);
        parts.headers.insert(HOST, "a.test".parse().unwrap());
        for (name, value) in fields {
            let name = HeaderName::from_bytes(format!("x-{name}").as_bytes()).unwrap();
            parts.headers.append(name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let mut out = Vec::new();
        write_request(&mut out, &parts);
        let read = plain(&out);
        prop_assert_eq!(read.raw.len(), out.len());
        prop_assert_eq!(format!("{:?}", read.parts), format!("{parts:?}"));
    }
}
