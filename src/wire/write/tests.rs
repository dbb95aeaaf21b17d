use bytes::BytesMut;
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, HeaderName};

use super::*;
use crate::wire::{Chunked, Piece};

fn head_of(uri: &str) -> request::Parts {
    http::Request::get(uri).body(()).unwrap().into_parts().0
}

fn request_to(parts: &request::Parts) -> String {
    let mut out = Vec::new();
    write_request(&mut out, parts);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_request_has_a_target_in_origin_form() {
    for (uri, line) in [
        ("/a?b", "GET /a?b HTTP/1.1\r\n\r\n"),
        ("/", "GET / HTTP/1.1\r\n\r\n"),
        ("//a", "GET //a HTTP/1.1\r\n\r\n"),
        ("*", "GET * HTTP/1.1\r\n\r\n"),
        ("http://a.test", "GET / HTTP/1.1\r\n\r\n"),
        ("http://a.test?q", "GET /?q HTTP/1.1\r\n\r\n"),
        ("http://a.test/x?q", "GET /x?q HTTP/1.1\r\n\r\n"),
        ("a.test:80", "GET / HTTP/1.1\r\n\r\n"),
    ] {
        assert_eq!(request_to(&head_of(uri)), line, "{uri}");
    }
}

#[test]
fn fields_of_a_name_keep_their_order() {
    let mut parts = head_of("/");
    parts.headers.append(HeaderName::from_static("x-a"), HeaderValue::from_static("1"));
    parts.headers.append(CONTENT_LENGTH, HeaderValue::from_static("0"));
    parts.headers.append(HeaderName::from_static("x-a"), HeaderValue::from_bytes(b"\xe9 \t2").unwrap());
    let mut out = b"before ".to_vec();
    write_request(&mut out, &parts);
    assert_eq!(out, b"before GET / HTTP/1.1\r\nx-a: 1\r\nx-a: \xe9 \t2\r\ncontent-length: 0\r\n\r\n");
}

#[test]
fn a_response_has_its_phrase() {
    let mut headers = HeaderMap::new();
    headers.append(CONTENT_LENGTH, HeaderValue::from_static("0"));
    for (status, phrase, closes, head) in [
        (200, None, false, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        (200, Some("Fine"), true, "HTTP/1.1 200 Fine\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        (200, Some(""), false, "HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n"),
        (299, None, false, "HTTP/1.1 299 \r\ncontent-length: 0\r\n\r\n"),
        (999, Some("No"), false, "HTTP/1.1 999 No\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let mut out = Vec::new();
        let status = StatusCode::from_u16(status).unwrap();
        write_response(&mut out, status, phrase.map(str::as_bytes), &headers, closes);
        assert_eq!(String::from_utf8(out).unwrap(), head);
    }
}

#[test]
fn a_chunk_says_its_size() {
    for (length, size) in
        [(1, "1"), (15, "f"), (16, "10"), (255, "ff"), (256, "100"), (65_536, "10000"), (74_565, "12345")]
    {
        let data = vec![b'x'; length];
        let mut out = Vec::new();
        write_chunk(&mut out, &data);
        assert_eq!(out, [size.as_bytes(), b"\r\n", &data, b"\r\n"].concat());
    }
    let mut out = Vec::new();
    write_chunk(&mut out, b"");
    assert!(out.is_empty());
}

#[test]
fn what_was_written_in_chunks_is_read() {
    let mut out = Vec::new();
    write_chunk(&mut out, b"one ");
    write_chunk(&mut out, &[b'2'; 300]);
    out.extend_from_slice(LAST_CHUNK);
    let (mut bytes, mut chunked, mut read) = (BytesMut::from(&*out), Chunked::default(), Vec::new());
    loop {
        match chunked.next(&mut bytes).unwrap() {
            Piece::Data(data) => read.extend_from_slice(&data),
            Piece::End(trailers) => break assert!(trailers.is_none()),
            Piece::More => panic!("it is whole"),
        }
    }
    assert_eq!(read, [&b"one "[..], &[b'2'; 300]].concat());
    assert!(bytes.is_empty());
}
