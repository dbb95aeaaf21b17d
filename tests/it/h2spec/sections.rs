//! What h2spec checks, section by section.

use super::frames::*;
use crate::harness::{Gateway, Upstream, all_to};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;

/// What has to become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    /// The request on stream 1 is answered with 200.
    Serve,
    /// The request is not served: an error of the stream, or of the connection, or an answer that refuses it (RFC 9113 §8.1.1).
    Refuse,
    /// An error of the stream, or of the connection, for one of these reasons.
    Stream(&'static [u32]),
    /// An error of the connection for one of these reasons; a close without a word says the same.
    Connection(&'static [u32]),
    /// An error of the connection. RFC 9113 names a closer reason; the engine gives PROTOCOL_ERROR.
    Vague,
    /// Nothing.
    Ignore,
}

struct Case {
    section: &'static str,
    what: &'static str,
    bytes: Vec<u8>,
    must: Must,
}

fn case(section: &'static str, what: &'static str, must: Must, bytes: impl Into<Vec<u8>>) -> Case {
    Case { section, what, bytes: bytes.into(), must }
}

fn with(fields: &[(&str, &str)]) -> Vec<u8> {
    let fields = fields.iter().flat_map(|(name, value)| field(name, value));
    frame(HEADERS, END_STREAM | END_HEADERS, 1, request("GET").into_iter().chain(fields).collect::<Vec<u8>>())
}

/// A request of these fields alone.
fn only(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(
        HEADERS,
        END_STREAM | END_HEADERS,
        1,
        fields.iter().flat_map(|(name, value)| field(name, value)).collect::<Vec<u8>>(),
    )
}

const PSEUDO: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a.test")];

fn without(name: &str) -> Vec<u8> {
    only(&PSEUDO.into_iter().filter(|(field, _)| *field != name).collect::<Vec<_>>())
}

async fn check(cases: Vec<Case>) {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    let mut wrong = Vec::new();
    for Case { section, what, bytes, must } in cases {
        let mut raw = Raw::open(&gateway).await;
        raw.send(bytes).await;
        let did = raw.did(1, matches!(must, Must::Serve)).await;
        let right = match (must, did) {
            (Must::Serve, Did::Answered(0x88)) | (Must::Ignore, Did::Lives) => true,
            (Must::Refuse, Did::Answered(first)) => first != 0x88,
            (Must::Refuse, Did::Reset(_) | Did::GoAway(_) | Did::Closed) => true,
            (Must::Stream(reasons), Did::Reset(reason) | Did::GoAway(reason)) => reasons.contains(&reason),
            (Must::Connection(reasons), Did::GoAway(reason)) => reasons.contains(&reason),
            (Must::Stream(_) | Must::Connection(_) | Must::Vague, Did::Closed) => true,
            (Must::Vague, Did::GoAway(PROTOCOL_ERROR)) => true,
            _ => false,
        };
        if !right {
            wrong.push(format!("{section} {what}: must {must:x?}, did {did:x?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(gateway.h2().await.get("/x").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_and_framing() {
    use Must::*;
    let huge = vec![0; 16_385];
    check(vec![
        case("4.1", "a frame of a type nobody knows", Ignore, frame(0x16, 0, 0, [0; 8])),
        case("4.1", "flags nobody knows", Ignore, frame(PING, 0x16, 0, [0; 8])),
        case("4.1", "the reserved bit is set", Serve, frame(HEADERS, 5, 0x8000_0001, request("GET"))),
        case("4.2", "DATA of the largest size", Serve, [post(1), frame(DATA, END_STREAM, 1, vec![0; 16_384])].concat()),
        case(
            "4.2",
            "DATA that is too large",
            Stream(&[FRAME_SIZE_ERROR]),
            [post(1), frame(DATA, 1, 1, &huge)].concat(),
        ),
        case("4.2", "HEADERS that are too large", Connection(&[FRAME_SIZE_ERROR]), frame(HEADERS, 5, 1, &huge)),
        case("4.3", "a block that cannot be decoded", Vague, frame(HEADERS, 5, 1, [0x40])),
        case(
            "4.3",
            "a frame between HEADERS and CONTINUATION",
            Connection(&[PROTOCOL_ERROR]),
            [
                frame(HEADERS, 1, 1, request("GET")),
                frame(PRIORITY, 0, 1, [0, 0, 0, 0, 255]),
                frame(CONTINUATION, 4, 1, []),
            ]
            .concat(),
        ),
        case(
            "4.3",
            "another stream between HEADERS and CONTINUATION",
            Connection(&[PROTOCOL_ERROR]),
            [frame(HEADERS, 1, 1, request("GET")), get(3)].concat(),
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_preface_has_to_be_right() {
    let upstream = Upstream::echo().await;
    let gateway = Gateway::start(&all_to(&upstream)).await;
    // 3.4: what is not the preface is HTTP/1.1, and malformed there.
    let mut client = gateway.client().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n").await;
    client.response().await.refused(400, "BAD_REQUEST");
    // 3.4: settings have to be the first frame. Differs: the engine does not insist.
    let mut raw = Raw(tokio::net::TcpStream::connect(gateway.address).await.unwrap());
    raw.send([PREFACE, &get(1)].concat()).await;
    let did = raw.did(1, true).await;
    assert_eq!(did, Did::Answered(0x88));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams() {
    use Must::*;
    let reset = frame(RST_STREAM, 0, 1, [0, 0, 0, 8]);
    let update = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, by.to_be_bytes());
    let priority = |on: u32| [&on.to_be_bytes()[..], &[15]].concat();
    check(vec![
        case("5.1", "idle: DATA", Connection(&[PROTOCOL_ERROR]), frame(DATA, 1, 1, b"x")),
        case("5.1", "idle: RST_STREAM", Connection(&[PROTOCOL_ERROR]), reset.clone()),
        case("5.1", "idle: WINDOW_UPDATE", Connection(&[PROTOCOL_ERROR]), update(1, 100)),
        case("5.1", "idle: CONTINUATION", Connection(&[PROTOCOL_ERROR]), frame(CONTINUATION, 4, 1, request("GET"))),
        case("5.1", "half-closed: DATA", Vague, [get(1), frame(DATA, 1, 1, b"x")].concat()),
        case("5.1", "half-closed: HEADERS", Vague, [get(1), get(1)].concat()),
        case(
            "5.1",
            "half-closed: CONTINUATION",
            Connection(&[STREAM_CLOSED, PROTOCOL_ERROR]),
            [get(1), frame(CONTINUATION, 4, 1, request("GET"))].concat(),
        ),
        case(
            "5.1",
            "closed by a reset: DATA",
            Stream(&[STREAM_CLOSED]),
            [post(1), reset.clone(), frame(DATA, 1, 1, b"x")].concat(),
        ),
        case(
            "5.1",
            "closed by a reset: CONTINUATION",
            Connection(&[STREAM_CLOSED, PROTOCOL_ERROR]),
            [post(1), reset, frame(CONTINUATION, 4, 1, [])].concat(),
        ),
        case("5.1.1", "a stream with an even number", Connection(&[PROTOCOL_ERROR]), get(2)),
        case(
            "5.1.1",
            "a stream with a smaller number",
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
            [get(5), get(3)].concat(),
        ),
        case(
            "5.3.1",
            "HEADERS that depend on themselves",
            Stream(&[PROTOCOL_ERROR]),
            frame(HEADERS, 5 | WITH_PRIORITY, 1, [priority(1), request("GET")].concat()),
        ),
        case(
            "5.5",
            "a frame nobody knows, in a block",
            Connection(&[PROTOCOL_ERROR]),
            [frame(HEADERS, 1, 1, request("GET")), frame(0x16, 0, 0, [])].concat(),
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_frame() {
    use Must::*;
    let padded = |kind, flags, pad: u8, body: &[u8]| frame(kind, flags | PADDED, 1, [&[pad], body].concat());
    let setting = |id: u16, value: u32| frame(SETTINGS, 0, 0, [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    check(vec![
        case("6.1", "DATA on stream 0", Connection(&[PROTOCOL_ERROR]), frame(DATA, 1, 0, b"x")),
        case(
            "6.1",
            "DATA with padding as long as itself",
            Connection(&[PROTOCOL_ERROR]),
            [post(1), padded(DATA, 1, 6, b"x")].concat(),
        ),
        case("6.1", "DATA with padding", Serve, [post(1), padded(DATA, 1, 3, b"x\0\0\0")].concat()),
        case("6.2", "HEADERS on stream 0", Connection(&[PROTOCOL_ERROR]), frame(HEADERS, 5, 0, request("GET"))),
        case(
            "6.2",
            "HEADERS with padding as long as themselves",
            Connection(&[PROTOCOL_ERROR]),
            padded(HEADERS, 5, 200, &request("GET")),
        ),
        case("6.3", "PRIORITY on stream 0", Connection(&[PROTOCOL_ERROR]), frame(PRIORITY, 0, 0, [0, 0, 0, 3, 1])),
        case("6.3", "PRIORITY of another size", Vague, [post(1), frame(PRIORITY, 0, 1, [0, 0, 0, 3])].concat()),
        case("6.4", "RST_STREAM on stream 0", Connection(&[PROTOCOL_ERROR]), frame(RST_STREAM, 0, 0, [0, 0, 0, 8])),
        case("6.4", "RST_STREAM of another size", Vague, [post(1), frame(RST_STREAM, 0, 1, [0, 0, 8])].concat()),
        case("6.5", "SETTINGS that are an ACK with content", Vague, frame(SETTINGS, ACK, 0, [0; 6])),
        case("6.5", "SETTINGS on a stream", Connection(&[PROTOCOL_ERROR]), frame(SETTINGS, 0, 1, [])),
        case("6.5", "SETTINGS of another size", Vague, frame(SETTINGS, 0, 0, [0; 5])),
        case("6.5.2", "ENABLE_PUSH that is neither 0 nor 1", Connection(&[PROTOCOL_ERROR]), setting(2, 2)),
        case("6.5.2", "INITIAL_WINDOW_SIZE above its maximum", Vague, setting(4, 0x8000_0000)),
        case("6.5.2", "MAX_FRAME_SIZE below its minimum", Connection(&[PROTOCOL_ERROR]), setting(5, 16_383)),
        case("6.5.2", "MAX_FRAME_SIZE above its maximum", Connection(&[PROTOCOL_ERROR]), setting(5, 1 << 24)),
        case("6.5.2", "a setting nobody knows", Ignore, setting(0xff, 1)),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_frame_of_flow_and_end() {
    use Must::*;
    let setting = |id: u16, value: u32| frame(SETTINGS, 0, 0, [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    let update = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, by.to_be_bytes());
    let flow = &[FLOW_CONTROL_ERROR];
    check(vec![
        case(
            "6.6",
            "PUSH_PROMISE from a client",
            Connection(&[PROTOCOL_ERROR]),
            [post(1), frame(PUSH_PROMISE, 4, 1, [&[0, 0, 0, 2][..], &request("GET")].concat())].concat(),
        ),
        case("6.7", "PING with an ACK nobody waits for", Ignore, frame(PING, ACK, 0, [9; 8])),
        case("6.7", "PING on a stream", Connection(&[PROTOCOL_ERROR]), frame(PING, 0, 1, [9; 8])),
        case("6.7", "PING of another size", Vague, frame(PING, 0, 0, [9; 6])),
        case("6.8", "GOAWAY on a stream", Connection(&[PROTOCOL_ERROR]), frame(GOAWAY, 0, 1, [0; 8])),
        case("6.9", "WINDOW_UPDATE by 0, connection", Connection(&[PROTOCOL_ERROR]), update(0, 0)),
        case("6.9", "WINDOW_UPDATE by 0, stream", Stream(&[PROTOCOL_ERROR]), [post(1), update(1, 0)].concat()),
        case("6.9", "WINDOW_UPDATE of another size", Vague, frame(WINDOW_UPDATE, 0, 0, [0, 0, 1])),
        case(
            "6.9.1",
            "a window above its maximum, connection",
            Connection(flow),
            [update(0, 0x7fff_ffff), update(0, 0x7fff_ffff)].concat(),
        ),
        case(
            "6.9.1",
            "a window above its maximum, stream",
            Stream(flow),
            [post(1), update(1, 0x7fff_ffff), update(1, 0x7fff_ffff)].concat(),
        ),
        case(
            "6.9.2",
            "a window that is set back below 0 and filled up",
            Serve,
            [setting(4, 0), get(1), update(1, 1000)].concat(),
        ),
        case(
            "6.10",
            "CONTINUATION, twice",
            Serve,
            [
                frame(HEADERS, 1, 1, &request("GET")[..9]),
                frame(CONTINUATION, 0, 1, &request("GET")[9..20]),
                frame(CONTINUATION, 4, 1, &request("GET")[20..]),
            ]
            .concat(),
        ),
        case(
            "6.10",
            "CONTINUATION on stream 0",
            Connection(&[PROTOCOL_ERROR]),
            [frame(HEADERS, 1, 1, request("GET")), frame(CONTINUATION, 4, 0, [])].concat(),
        ),
        case(
            "6.10",
            "CONTINUATION behind DATA",
            Connection(&[PROTOCOL_ERROR]),
            [post(1), frame(DATA, 0, 1, b"x"), frame(CONTINUATION, 4, 1, [])].concat(),
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages() {
    use Must::*;
    let twice = |name: &'static str| {
        only(&PSEUDO.into_iter().chain(PSEUDO.into_iter().filter(|(field, _)| *field == name)).collect::<Vec<_>>())
    };
    let changed = |name: &str, value: &'static str| {
        only(&PSEUDO.map(|(field, old)| (field, if field == name { value } else { old })))
    };
    let length = |length: &str, body: &[u8]| {
        let head = [request("POST"), field("content-length", length)].concat();
        [frame(HEADERS, END_HEADERS, 1, head), frame(DATA, END_STREAM, 1, body)].concat()
    };
    check(vec![
        case("8.1", "trailers without END_STREAM", Refuse, [post(1), frame(HEADERS, 4, 1, field("x-t", "1"))].concat()),
        case(
            "8.1",
            "trailers",
            Serve,
            [post(1), frame(DATA, 0, 1, b"x"), frame(HEADERS, 5, 1, field("x-t", "1"))].concat(),
        ),
        case("8.2", "a field name with capitals", Refuse, with(&[("X-TEST", "1")])),
        case("8.2.2", "a field of the connection", Refuse, with(&[("connection", "keep-alive")])),
        case("8.2.2", "TE other than trailers", Refuse, with(&[("te", "trailers, deflate")])),
        case("8.2.2", "TE: trailers", Serve, with(&[("te", "trailers")])),
        case("8.3", "a pseudo-field nobody knows", Refuse, with(&[(":test", "1")])),
        case("8.3", "a pseudo-field of answers", Refuse, with(&[(":status", "200")])),
        case(
            "8.3",
            "a pseudo-field in trailers: differs, the trailers are left out as a whole",
            Serve,
            [post(1), frame(HEADERS, 5, 1, field(":method", "200"))].concat(),
        ),
        case(
            "8.3",
            "a pseudo-field behind a field",
            Refuse,
            only(&[(":method", "GET"), (":scheme", "http"), ("x-a", "1"), (":path", "/"), (":authority", "a.test")]),
        ),
        case("8.3.1", "an empty :path", Refuse, changed(":path", "")),
        case("8.3.1", "no :method", Refuse, without(":method")),
        case("8.3.1", "no :scheme", Refuse, without(":scheme")),
        case("8.3.1", "no :path", Refuse, without(":path")),
        case("8.3.1", ":method twice", Refuse, twice(":method")),
        case("8.3.1", ":scheme twice", Refuse, twice(":scheme")),
        case("8.3.1", ":path twice", Refuse, twice(":path")),
        case("8.1.1", "a length that is more than the body", Refuse, length("5", b"test")),
        case("8.1.1", "a length that is less than the body", Refuse, length("1", b"test")),
        case("8.1.1", "a length that is right", Serve, length("4", b"test")),
        case("8.5", "CONNECT", Refuse, only(&[(":method", "CONNECT"), (":authority", "a.test:80")])),
        case(
            "RFC 8441",
            "a WebSocket over HTTP/2, which was not offered",
            Refuse,
            only(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":path", "/x"),
                (":authority", "a.test"),
            ]),
        ),
    ])
    .await;
}

/// RFC 7541.
#[tokio::test(flavor = "multi_thread")]
async fn compression() {
    use Must::*;
    let block = |bytes: &[u8]| frame(HEADERS, 5, 1, [request("GET"), bytes.to_vec()].concat());
    check(vec![
        case("HPACK 2.3.3", "an index that stands nowhere", Vague, block(&[0xff, 0xff, 0x03])),
        case("HPACK 4.2", "a change of the table at the end of a block", Vague, block(&[0x20])),
        case(
            "HPACK 5.2",
            "padding of Huffman longer than 7 bits",
            Vague,
            block(b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),
        ),
        case(
            "HPACK 5.2",
            "EOS in a Huffman text",
            Vague,
            block(b"\x00\x85\xf2\xb2\x4a\x87\xff\xff\xff\xff\xff\x99\x4a"),
        ),
        case("HPACK 6.1", "index 0", Vague, block(&[0x80])),
        case(
            "HPACK 6.3",
            "a table larger than allowed",
            Vague,
            frame(HEADERS, 5, 1, [&[0x3f, 0xe1, 0xff, 0x03][..], &request("GET")].concat()),
        ),
    ])
    .await;
}
