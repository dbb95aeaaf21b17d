//! A writer and a reader of frames, which knows no rules.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Gateway, within};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 0x20;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// A field that no table remembers (RFC 7541 §6.2.2), without Huffman coding.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let mut bytes = Vec::new();
        match text.len() {
            short @ 0..127 => bytes.push(short as u8),
            mut long => {
                bytes.push(127);
                long -= 127;
                while long >= 128 {
                    bytes.push((long % 128) as u8 | 128);
                    long /= 128;
                }
                bytes.push(long as u8);
            }
        }
        [bytes, text.as_bytes().to_vec()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

/// The head of `GET /` or another method.
pub fn request(method: &str) -> Vec<u8> {
    let authority = field(":authority", "a.test");
    [field(":method", method), field(":scheme", "http"), field(":path", "/x"), authority].concat()
}

/// A whole `GET`.
pub fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, request("GET"))
}

/// A `POST` whose body is still to come.
pub fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, request("POST"))
}

#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What the gateway did about something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// The stream was answered; with the first byte of the head, which says 200 when it is 0x88 (RFC 7541 §6.1).
    Answered(u8),
    /// The stream was reset, for this reason.
    Reset(u32),
    /// The connection was given up, for this reason.
    GoAway(u32),
    /// The connection was closed without a word.
    Closed,
    /// Nothing: pings are answered.
    Lives,
}

/// A connection whose settings are exchanged.
pub struct Raw(pub TcpStream);

impl Raw {
    pub async fn open(gateway: &Gateway) -> Self {
        let mut raw = Self(TcpStream::connect(gateway.address).await.unwrap());
        raw.send([PREFACE, &frame(SETTINGS, 0, 0, [])].concat()).await;
        while let Some(frame) = raw.frame().await {
            if frame.kind == SETTINGS && frame.flags & ACK == 0 {
                raw.send(self::frame(SETTINGS, ACK, 0, [])).await;
                return raw;
            }
        }
        panic!("no settings came");
    }

    /// `false`: the gateway has closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within("room to send", self.0.write_all(bytes.as_ref())).await.is_ok()
    }

    /// The next frame; `None`: the gateway has closed.
    pub async fn frame(&mut self) -> Option<Frame> {
        let mut header = [0; 9];
        within("a frame", self.0.read_exact(&mut header)).await.ok()?;
        let [a, b, c, kind, flags, d, e, f, g] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        within("a payload", self.0.read_exact(&mut payload)).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes([d, e, f, g]), payload })
    }

    /// What the gateway does about `stream`, or about the connection. Pings find out whether it does nothing, unless an
    /// answer is `awaited`.
    pub async fn did(&mut self, stream: u32, awaited: bool) -> Did {
        let mut pings = 3;
        if !awaited {
            self.send(frame(PING, 0, 0, [0xee; 8])).await;
        }
        let mut first = None;
        loop {
            let Some(got) = self.frame().await else { return Did::Closed };
            let reason = |at: usize| u32::from_be_bytes(got.payload[at..at + 4].try_into().unwrap());
            match got.kind {
                GOAWAY if reason(4) != 0 => return Did::GoAway(reason(4)),
                RST_STREAM if got.stream == stream && first.is_none() => return Did::Reset(reason(0)),
                HEADERS if got.stream == stream && first.is_none() => first = got.payload.first().copied(),
                PING if got.flags & ACK != 0 && got.payload == [0xee; 8] => {
                    pings -= 1;
                    if pings == 0 {
                        return Did::Lives;
                    }
                    self.send(frame(PING, 0, 0, [0xee; 8])).await;
                }
                _ => {}
            }
            let ends = matches!(got.kind, HEADERS | DATA) && got.flags & END_STREAM != 0 && got.stream == stream;
            if let Some(first) = first.filter(|_| ends) {
                return Did::Answered(first);
            }
        }
    }
}
