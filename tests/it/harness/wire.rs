//! A strict reader of HTTP/1.1: what it takes has one reading only.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A start line and the fields after it, names in lower case.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub start: String,
    pub fields: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// The only value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "`{name}` stands there {} times: {all:?}", all.len());
        all.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter().filter(|(field, _)| field == name);
        fields.map(|(_, value)| std::str::from_utf8(value).unwrap_or("(not UTF-8)")).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(field, _)| field == name)
    }
}

/// Why a message could not be read.
#[derive(Debug)]
pub enum Broken {
    /// The peer closed, or reset, in the middle.
    Cut,
    /// It is not strict HTTP/1.1.
    Invalid(String),
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    Close,
}

#[derive(Clone, Debug, Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub chunks: Vec<usize>,
    pub trailers: Vec<(String, Vec<u8>)>,
}

pub struct Wire {
    pub stream: TcpStream,
    pub buffer: BytesMut,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: BytesMut::with_capacity(64 * 1024) }
    }

    /// Sends, and does not mind when the peer is gone: what comes back tells.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Reads what there is; `false` at the end.
    pub async fn fill(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(read) if read > 0)
    }

    /// A line without its CRLF; `None` when the peer closed before its first byte.
    pub async fn line(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(at + 1);
                let Some(line) = line.strip_suffix(b"\r\n") else {
                    return Err(invalid("a line that ends in a bare LF", &line));
                };
                if line.iter().any(|byte| *byte == b'\r' || *byte == 0) {
                    return Err(invalid("a bare CR or NUL", line));
                }
                return Ok(Some(line.to_vec()));
            }
            if !self.fill().await {
                return if self.buffer.is_empty() { Ok(None) } else { Err(Broken::Cut) };
            }
        }
    }

    /// Start line and fields.
    pub async fn head(&mut self) -> Result<Option<Head>, Broken> {
        let Some(start) = self.line().await? else { return Ok(None) };
        let start = String::from_utf8(start).map_err(|error| invalid("a start line", error.as_bytes()))?;
        Ok(Some(Head { start, fields: self.fields().await? }))
    }

    pub async fn fields(&mut self) -> Result<Vec<(String, Vec<u8>)>, Broken> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?.ok_or(Broken::Cut)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let colon = line.iter().position(|byte| *byte == b':').ok_or_else(|| invalid("a field", &line))?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
                return Err(invalid("a field name", &line));
            }
            if value.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
                return Err(invalid("a field value", &line));
            }
            fields.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()));
        }
    }

    pub async fn body(&mut self, framing: Framing) -> Result<Body, Broken> {
        let mut body = Body::default();
        match framing {
            Framing::None => {}
            Framing::Length(length) => body.bytes = self.exactly(length).await?,
            Framing::Close => {
                while self.fill().await {}
                body.bytes = self.buffer.split().to_vec();
            }
            Framing::Chunked => loop {
                let chunk = self.chunk().await?;
                if chunk.is_empty() {
                    body.trailers = self.fields().await?;
                    break;
                }
                body.chunks.push(chunk.len());
                body.bytes.extend_from_slice(&chunk);
            },
        }
        Ok(body)
    }

    /// One chunk; the last one is empty, and its trailers are still to be read.
    pub async fn chunk(&mut self) -> Result<Vec<u8>, Broken> {
        let line = self.line().await?.ok_or(Broken::Cut)?;
        let digits = (1..=8).contains(&line.len()) && line.iter().all(u8::is_ascii_hexdigit);
        let size = std::str::from_utf8(&line).ok().filter(|_| digits);
        let size =
            size.and_then(|size| usize::from_str_radix(size, 16).ok()).ok_or_else(|| invalid("a chunk size", &line))?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let chunk = self.exactly(size).await?;
        if !self.line().await?.ok_or(Broken::Cut)?.is_empty() {
            return Err(invalid("a chunk longer than its size", &chunk));
        }
        Ok(chunk)
    }

    pub async fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Broken> {
        while self.buffer.len() < length {
            if !self.fill().await {
                return Err(Broken::Cut);
            }
        }
        let bytes = self.buffer.split_to(length).to_vec();
        Ok(bytes)
    }

    /// Everything until the peer closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        let rest = self.buffer.to_vec();
        self.buffer.advance(rest.len());
        rest
    }

    /// Breaks the connection with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }
}

pub fn invalid(what: &str, bytes: &[u8]) -> Broken {
    Broken::Invalid(format!("{what}: {:?}", String::from_utf8_lossy(bytes)))
}

pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
