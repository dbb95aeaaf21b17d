use http::HeaderValue;
use http::header::CONNECTION;
use proptest::prelude::*;

use super::*;
use crate::wire::write_response;

const MAX: usize = 100;

fn read(bytes: impl AsRef<[u8]>) -> Result<Option<PlainResponse>, Malformed> {
    let before = bytes.as_ref();
    let mut bytes = BytesMut::from(before);
    let mut scanned = 0;
    let read = response(&mut bytes, &mut scanned, MAX);
    match &read {
        Ok(Some(head)) => assert_eq!((&*bytes, scanned), (before.get(head.length..).unwrap(), 0)),
        Ok(None) | Err(Malformed) => assert_eq!(bytes, before),
    }
    read
}

fn whole(bytes: impl AsRef<[u8]>) -> PlainResponse {
    match read(&bytes) {
        Ok(Some(head)) => head,
        other => panic!("{:?}: {other:?}", bytes.as_ref().escape_ascii().to_string()),
    }
}

fn is_malformed(bytes: impl AsRef<[u8]>) -> bool {
    read(bytes).is_err()
}

/// With these fields.
fn with(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n")
}

#[test]
fn a_head_is_taken_off_the_front() {
    let head =
        "HTTP/1.1 404 No Such Task\r\nServer: s\r\nSet-Cookie: a\r\nset-cookie:b \r\nX:\r\nConnection: X-A\r\n\r\n";
    let mut bytes = BytesMut::from(&*format!("{head}body"));
    let read = response(&mut bytes, &mut 0, MAX).unwrap().unwrap();
    assert_eq!((read.parts.status, read.parts.version), (StatusCode::NOT_FOUND, Version::HTTP_11));
    assert_eq!(read.phrase.as_deref(), Some(&b"No Such Task"[..]));
    assert_eq!((read.length, read.persists), (head.len(), true));
    let fields: Vec<(&str, &[u8])> =
        read.parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(
        fields,
        [("server", &b"s"[..]), ("set-cookie", b"a"), ("set-cookie", b"b"), ("x", b""), ("connection", b"X-A")]
    );
    assert_eq!(bytes, "body");
}

#[test]
fn one_head_follows_another() {
    let (mut bytes, mut scanned) = (BytesMut::from("HTTP/1.1 100 Continue"), 0);
    assert!(response(&mut bytes, &mut scanned, MAX).unwrap().is_none());
    assert_eq!(scanned, bytes.len());
    bytes.extend_from_slice(b"\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
    for status in [100, 204] {
        assert_eq!(response(&mut bytes, &mut scanned, MAX).unwrap().unwrap().parts.status, status);
    }
    assert!(response(&mut bytes, &mut scanned, MAX).unwrap().is_none());
}

#[test]
fn only_a_phrase_of_its_own_is_kept() {
    for (line, phrase) in [
        ("HTTP/1.1 200 OK", None),
        ("HTTP/1.1 200 Ok", Some("Ok")),
        ("HTTP/1.1 200", Some("")),
        ("HTTP/1.1 200 ", Some("")),
        ("HTTP/1.1 299", None),
        ("HTTP/1.1 299 Odd \t one", Some("Odd \t one")),
        // What is not ASCII is not passed on.
        ("HTTP/1.1 200 \u{e9}", Some("")),
    ] {
        let read = whole(format!("{line}\r\n\r\n"));
        assert_eq!(read.phrase.as_deref(), phrase.map(str::as_bytes), "{line}");
    }
}

#[test]
fn a_status_line_has_one_form() {
    for line in [
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 099 Low",
        "HTTP/1.1 000 Low",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/2 200 OK",
        "HTTP/3.7 200 OK",
        "http/1.1 200 OK",
        " HTTP/1.1 200 OK",
        "\r\nHTTP/1.1 200 OK",
        "\nHTTP/1.1 200 OK",
        "HTTP/1.1 200 a\0b",
        "HTTP/1.1 200 a\rb",
        "HTTP/1.1 200\tOK",
        "ICY 200 OK",
        "",
        "200 OK",
        "PRI * HTTP/2.0",
        "HTTP/1.1 200 a\u{7f}",
    ] {
        assert!(is_malformed(format!("{line}\r\nContent-Length: 0\r\n\r\n")), "{line:?}");
    }
    for (line, status) in [("HTTP/1.1 100 C", 100), ("HTTP/1.1 999 C", 999), ("HTTP/1.0 200 OK", 200)] {
        assert_eq!(whole(format!("{line}\r\n\r\n")).parts.status, status);
    }
}

#[test]
fn fields_have_one_form() {
    for fields in [
        " X: a\r\n",
        "X : a\r\n",
        "X\t: a\r\n",
        ": a\r\n",
        "X\r\n",
        "X Y: a\r\n",
        "X: a\rb\r\n",
        "X: a\0b\r\n",
        "X: a\u{1}\r\n",
        "X: a\u{7f}\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\r\r\n",
    ] {
        assert!(is_malformed(with(fields)), "{fields:?}");
    }
    for lines in ["HTTP/1.1 200 OK\nX: a\n\n", "HTTP/1.1 200 OK\r\nX: a\n\r\n", "HTTP/1.1 200 OK\nX: a\r\n\n"] {
        assert_eq!(whole(lines).parts.headers["x"], "a", "{lines:?}");
    }
}

#[test]
fn folded_values_are_unfolded() {
    for (fields, value) in [
        ("X: a\r\n b\r\n", "a b"),
        ("X: a \t\r\n\t  b\r\n \r\n c\r\n", "a b c"),
        ("X:\r\n b\r\n", "b"),
        ("X: a\n b\r\n", "a b"),
        ("X: a\r\n \r\n", "a"),
        ("X:\r\n \r\n", ""),
        ("X: a\r\n HTTP/1.1 200 OK\r\n", "a HTTP/1.1 200 OK"),
        ("X: a\r\n Content-Length: 5\r\n", "a Content-Length: 5"),
    ] {
        let read = whole(with(fields));
        assert_eq!((read.parts.headers["x"].as_bytes(), read.parts.headers.len()), (value.as_bytes(), 1), "{fields:?}");
    }
    for fields in [" X: a\r\n", "X: a\r b\r\n", "X: a\r\n b\0\r\n", "X\r\n : a\r\n"] {
        assert!(is_malformed(with(fields)), "{fields:?}");
    }
    for fields in ["Content-Length: 1\r\n 2\r\n", "Transfer-Encoding: gzip,\r\n chunked\r\n"] {
        assert_eq!(framing(&whole(with(fields)).parts, false), Err(Malformed), "{fields:?}");
    }
    for fields in ["Connection: x-a,\r\n close\r\n", "Connection:\r\n close\r\n", "Connection: x-a\r\n ,close\r\n"] {
        assert!(!whole(with(fields)).persists, "{fields:?}");
    }
}

#[test]
fn fields_are_counted() {
    let take = |fields: usize, fields_max: usize| {
        response(&mut BytesMut::from(&*with(&"X: y\r\n".repeat(fields))), &mut 0, fields_max)
    };
    for (fields, fields_max) in [(0, 0), (1, 1), (100, 100), (256, 256), (256, 1000)] {
        assert_eq!(take(fields, fields_max).unwrap().unwrap().parts.headers.len(), fields);
    }
    for (fields, fields_max) in [(1, 0), (101, 100), (257, 256), (257, 1000)] {
        assert!(take(fields, fields_max).is_err());
    }
}

#[test]
fn whether_the_connection_is_kept() {
    for (version, fields, persists) in [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "Connection: x-a, close\r\n", false),
        ("1.1", "Connection: keep-alive,close\r\n", false),
        ("1.1", "Connection: x-a\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.1", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: x-a ,\tkeep-alive\r\n", true),
        ("1.0", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.0", "Keep-Alive: timeout=5\r\n", false),
    ] {
        let read = whole(format!("HTTP/{version} 200 OK\r\n{fields}\r\n"));
        assert_eq!(read.persists, persists, "{version} {fields:?}");
        assert_eq!(read.parts.headers.contains_key(CONNECTION), fields.contains("Connection"));
    }
}

#[test]
fn a_start_that_will_never_be_a_head_is_malformed_at_once() {
    for start in [
        "\u{1}\u{2}garbage",
        "<html>",
        "\0\0\x12\x04\0\0",
        "\x15\x03\x01",
        "\n",
        "\r\n",
        "PRI * HTTP/2.0",
        "HTTP/1.1 2000",
        "HTTP/1.1 200 OK\r\nX Y",
    ] {
        assert!(is_malformed(start), "{start:?}");
    }
    for start in
        ["", "H", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nX: y\r\n\r", "HTTP/1.1 200 OK\n"]
    {
        assert!(matches!(read(start), Ok(None)), "{start:?}");
    }
}

/// How the body is framed that follows such a head.
fn framed(line: &str, fields: &str, to_head: bool) -> Result<Framing, Malformed> {
    framing(&whole(format!("{line}\r\n{fields}\r\n")).parts, to_head)
}

#[test]
fn a_body_ends_where_the_head_says() {
    use Framing::{Chunked, Close, Length};
    let framed = |fields: &str| framed("HTTP/1.1 200 OK", fields, false);
    for (fields, framing) in [
        ("", Close),
        ("Content-Length: 0\r\n", Length(0)),
        ("Content-Length:\t5 \r\n", Length(5)),
        ("Content-Length: 0000000000000000000000005\r\n", Length(5)),
        ("Content-Length: 18446744073709551615\r\n", Length(u64::MAX)),
        ("Transfer-Encoding: chunked\r\n", Chunked),
        ("transfer-encoding: CHUNKED\r\n", Chunked),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Chunked),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Chunked),
    ] {
        assert_eq!(framed(fields), Ok(framing), "{fields:?}");
    }
    for fields in [
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length:\r\n",
        "Content-Length: five\r\n",
        "Content-Length: 5.\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nX: y\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: gzip\r\n",
    ] {
        assert_eq!(framed(fields), Err(Malformed), "{fields:?}");
    }
}

#[test]
fn a_length_beside_a_coding_is_not_passed_on() {
    let read = whole(with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"));
    assert!(!read.parts.headers.contains_key(CONTENT_LENGTH) && read.parts.headers.contains_key(TRANSFER_ENCODING));
    // Who makes such a head without having read one is told.
    let mut parts = read.parts;
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
    assert_eq!(framing(&parts, false), Err(Malformed));
}

#[test]
fn some_answers_have_no_body() {
    for fields in ["", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        for line in [
            "HTTP/1.1 100 Continue",
            "HTTP/1.1 103 Early Hints",
            "HTTP/1.1 199 X",
            "HTTP/1.1 204 No Content",
            "HTTP/1.1 304 Not Modified",
        ] {
            assert_eq!(framed(line, fields, false), Ok(Framing::None), "{line} {fields:?}");
        }
        assert_eq!(framed("HTTP/1.1 200 OK", fields, true), Ok(Framing::None));
        assert_ne!(framed("HTTP/1.1 205 Reset Content", fields, false), Ok(Framing::None));
    }
    for fields in ["Content-Length: 5\r\nContent-Length: 6\r\n", "Transfer-Encoding: gzip\r\n"] {
        assert_eq!(framed("HTTP/1.1 304 Not Modified", fields, false), Err(Malformed));
        assert_eq!(framed("HTTP/1.1 200 OK", fields, true), Err(Malformed));
    }
}

#[test]
fn http_1_0_knows_no_codings() {
    assert_eq!(framed("HTTP/1.0 200 OK", "Transfer-Encoding: chunked\r\n", false), Err(Malformed));
    assert_eq!(framed("HTTP/1.0 200 OK", "Content-Length: 5\r\n", false), Ok(Framing::Length(5)));
    assert_eq!(framed("HTTP/1.0 200 OK", "", false), Ok(Framing::Close));
}

/// Feeds the bytes as they are cut, and says what came of them.
fn fed(all: &[u8], cuts: &[usize]) -> Option<String> {
    let (mut bytes, mut scanned, mut sent) = (BytesMut::new(), 0, 0);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (all.len() + 1)).collect();
    cuts.extend([all.len()]);
    cuts.sort_unstable();
    for cut in cuts {
        bytes.extend_from_slice(&all[sent..cut]);
        sent = cut;
        match response(&mut bytes, &mut scanned, MAX) {
            Ok(None) => {}
            Err(Malformed) => return None,
            Ok(Some(head)) => return Some(format!("{head:?} {:?}", framing(&head.parts, false))),
        }
    }
    None
}

/// Lines that are put together at random.
fn head() -> impl Strategy<Value = Vec<u8>> {
    let line = proptest::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 404 No\n",
        "Server: s\r\n",
        "X: a\n",
        "X : a\r\n",
        " fold\r\n",
        "Connection: close\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "\r\n",
        "\n",
        "\r",
        "X: \0\r\n",
        "\r\n\r\n",
        "\n\n",
    ]);
    proptest::collection::vec(line, 0..6).prop_flat_map(|lines| {
        let random = lines.concat().into_bytes();
        let started = with(&lines.concat()).into_bytes();
        proptest::sample::select(vec![random, started])
    })
}

/// A token, as names are.
const TOKEN: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}";

proptest! {
    #[test]
    fn however_it_is_cut_it_is_the_same(head in head(), cuts in proptest::collection::vec(any::<usize>(), 0..6)) {
        let whole = fed(&head, &[]);
        prop_assert_eq!(&fed(&head, &cuts), &whole);
        let each: Vec<usize> = (0..head.len()).collect();
        prop_assert_eq!(&fed(&head, &each), &whole);
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
        let _ = read([b"HTTP/1.1 200 OK\r\n", &*bytes, b"\r\n\r\n"].concat());
    }

    #[test]
    fn what_was_written_is_read(
        status in 100_u16..=999,
        phrase in proptest::option::of("([!-~]([ -~\t]{0,20}[!-~])?)?"),
        fields in proptest::collection::vec((TOKEN, "[!-~\u{e9}]([ -~\t]{0,20}[!-~])?|"), 0..20),
        closes in any::<bool>(),
    ) {
        let status = StatusCode::from_u16(status).unwrap();
        let phrase = phrase.filter(|phrase| phrase != status.canonical_reason().unwrap_or_default());
        let mut headers = http::HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(format!("x-{name}").as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let mut out = Vec::new();
        write_response(&mut out, status, phrase.as_ref().map(String::as_bytes), &headers, closes);
        let read = whole(&out);
        prop_assert_eq!((read.length, read.persists, read.parts.status), (out.len(), !closes, status));
        prop_assert_eq!(read.phrase.as_deref(), phrase.as_ref().map(String::as_bytes));
        if closes {
            headers.append(CONNECTION, HeaderValue::from_static("close"));
        }
        prop_assert_eq!(format!("{:?}", read.parts.headers), format!("{headers:?}"));
    }
}
