//! The body of a service's answer on its way past filters that see it, or to a client that is told of its end in another way.
//!
//! Each piece passes the filters and is waited for where one of them holds it. The head is not sent before there is a piece
//! behind it, or the service lets wait for one: until then a filter may answer in its place.

use std::future::poll_fn;
use std::mem;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, StatusCode, response};
use pingora::{Error, ErrorType};

use super::body::{Rest, end, keep};
use super::client::READ;
use super::forward::Run;
use super::line::Line;
use crate::clock;
use crate::proxy::accompany;
use crate::proxy::answer::{HELD_MAX, streams_again};
use crate::proxy::heads::Seen;
use crate::wire::{Framing, LAST_CHUNK, Malformed, Piece, write_chunk};

/// How a body goes on behind the response hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    by: By,
    /// Filters look at it.
    sees_bodies: bool,
}

/// How the client is told where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// There is none.
    Head,
    Length,
    Chunks,
}

impl Told {
    /// Has the head say where the body ends: filters may have removed its length, or set a status that has none.
    pub fn of(parts: &mut response::Parts, framing: Framing, sees_bodies: bool, to_head: bool) -> Self {
        let fields = &mut parts.headers;
        let by = if to_head {
            By::Head
        } else if matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            fields.remove(TRANSFER_ENCODING);
            if parts.status == StatusCode::NO_CONTENT {
                fields.remove(CONTENT_LENGTH);
            }
            By::Head
        } else if matches!(framing, Framing::None | Framing::Length(0)) {
            fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            By::Head
        } else if fields.contains_key(CONTENT_LENGTH) {
            By::Length
        } else {
            fields.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            By::Chunks
        };
        Self { by, sees_bodies }
    }

    /// Whether the body, as the service sends it, cannot just be handed on.
    pub fn is_shown(self, framing: Framing) -> bool {
        match framing {
            Framing::None | Framing::Length(0) => false,
            Framing::Length(_) => self.sees_bodies || self.by != By::Length,
            Framing::Chunked | Framing::Close => self.sees_bodies || self.by != By::Chunks,
        }
    }
}

/// The passage of one body.
pub struct Shown<'r, 'a> {
    run: &'r mut Run<'a>,
    by: By,
    rest: Rest,
    /// The head, until it is sent.
    head: Option<response::Parts>,
    /// What the client has to be sent next.
    out: Vec<u8>,
    is_clean: bool,
}

impl<'r, 'a> Shown<'r, 'a> {
    pub fn new(run: &'r mut Run<'a>, told: Told, framing: Framing, out: Vec<u8>, head: response::Parts) -> Self {
        run.x.response_bytes = accompany::length(&head.headers).filter(|_| told.by == By::Length);
        let is_clean = !matches!(framing, Framing::Close);
        Self { run, by: told.by, rest: Rest::new(framing), head: Some(head), out, is_clean }
    }

    /// Passes the body on, to its end. Whether nothing came behind that.
    ///
    /// # Errors
    /// Either side broke off, or a filter has ended the exchange.
    pub async fn pass(mut self, line: &mut Line) -> Result<bool, Box<Error>> {
        while !matches!(self.rest, Rest::Done) {
            let piece = match self.next(&mut line.buffer)? {
                Some(piece) => piece,
                None if self.read(line).await? => continue,
                None if matches!(self.rest, Rest::Close) => {
                    self.rest = Rest::Done;
                    Bytes::new()
                }
                None => return Err(Error::new_up(ErrorType::ConnectionClosed)),
            };
            self.show(piece).await?;
            if self.out.len() >= READ {
                self.send().await?;
            }
        }
        self.send().await?;
        Ok(self.is_clean && line.buffer.is_empty())
    }

    /// The next piece of what was read, if there is one.
    fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, Box<Error>> {
        match &mut self.rest {
            Rest::Chunked(chunked) => match chunked.next(buffer) {
                Ok(Piece::More) => Ok(None),
                Ok(Piece::Data(data)) => Ok(Some(data)),
                Ok(Piece::End(_)) => {
                    self.rest = Rest::Done;
                    Ok(Some(Bytes::new()))
                }
                Err(Malformed) => Err(Error::new_up(ErrorType::InvalidHTTPHeader)),
            },
            _ if buffer.is_empty() => Ok(None),
            Rest::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                *left = left.saturating_sub(most as u64);
                if *left == 0 {
                    self.rest = Rest::Done;
                }
                Ok(Some(buffer.split_to(most).freeze()))
            }
            Rest::Close | Rest::Done => Ok(Some(buffer.split().freeze())),
        }
    }

    /// Reads some more; `false` is the end of the service's stream. What is there for the client is sent before it is waited for.
    async fn read(&mut self, line: &mut Line) -> Result<bool, Box<Error>> {
        let at_once = poll_fn(|cx| match line.poll_fill(cx) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending => Poll::Ready(None),
        });
        let read = match at_once.await {
            Some(read) => read,
            None => {
                self.send().await?;
                self.run.client.while_there(|| {}, poll_fn(|cx| line.poll_fill(cx))).await?
            }
        };
        let broken = |error| Error::because(ErrorType::ReadError, "reading an answer's body", error).into_up();
        read.map(|bytes| bytes > 0).map_err(broken)
    }

    /// Shows a piece to the filters; what comes back goes on.
    async fn show(&mut self, piece: Bytes) -> Result<(), Box<Error>> {
        let (ends, came) = (matches!(self.rest, Rest::Done), piece.len());
        let Run { x, client, head, said, .. } = &mut *self.run;
        keep(x, &piece);
        if ends {
            end(x);
        }
        let (Some(route), Some(context)) = (&x.route, &x.context) else {
            return Err(Error::new_in(ErrorType::InternalError));
        };
        let mut has_waited = false;
        let begins = || {
            has_waited = true;
            if let Some(connection) = &x.connection {
                // The plugin has its own time.
                connection.expect_within(clock::now(), HELD_MAX);
            }
        };
        let seen = Seen(head);
        let walk = route.chain.response_piece(x.reached, &seen, piece, ends, context);
        let piece = match client.while_there(begins, walk).await? {
            Ok(piece) => piece,
            Err(instead) => return Err(accompany::replaced(x, instead)),
        };
        if has_waited {
            streams_again(x);
        }
        if !x.response_length.pass(x.response_bytes, came, piece.len(), ends) {
            return Err(accompany::unsound(x));
        }
        match self.by {
            By::Head => return Ok(()),
            By::Length => self.out.extend_from_slice(&piece),
            By::Chunks => write_chunk(&mut self.out, &piece),
        }
        said.bytes = said.bytes.saturating_add(piece.len() as u64);
        if ends && self.by == By::Chunks {
            self.out.extend_from_slice(LAST_CHUNK);
        }
        Ok(())
    }

    /// Sends what there is.
    async fn send(&mut self) -> Result<(), Box<Error>> {
        if let Some(head) = self.head.take() {
            self.run.said.status = Some(head.status);
            self.run.answered = Some(head);
        }
        let out = mem::take(&mut self.out);
        self.run.client.send(&out).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, fields: &[(&'static str, &'static str)], framing: Framing, to_head: bool) -> (By, String) {
        let mut parts = http::Response::builder().status(status).body(()).unwrap().into_parts().0;
        for (name, value) in fields {
            parts.headers.insert(*name, HeaderValue::from_static(value));
        }
        let told = Told::of(&mut parts, framing, false, to_head);
        let said = [CONTENT_LENGTH, TRANSFER_ENCODING].map(|name| {
            let value = parts.headers.get(&name).map(|value| value.to_str().unwrap().to_owned());
            value.unwrap_or_else(|| "-".to_owned())
        });
        (told.by, said.join(" "))
    }

    #[test]
    fn a_client_finds_the_end_of_every_answer() {
        let (length, coding) = (("content-length", "4"), ("transfer-encoding", "chunked"));
        for (status, fields, framing, to_head, by, said) in [
            (200, &[length][..], Framing::Length(4), false, By::Length, "4 -"),
            (200, &[], Framing::Length(4), false, By::Chunks, "- chunked"),
            (200, &[coding], Framing::Chunked, false, By::Chunks, "- chunked"),
            (200, &[], Framing::Close, false, By::Chunks, "- chunked"),
            // A status that has no body took the place of one that has, and the other way round.
            (204, &[length], Framing::Length(4), false, By::Head, "- -"),
            (304, &[length], Framing::Length(4), false, By::Head, "4 -"),
            (204, &[coding], Framing::Chunked, false, By::Head, "- -"),
            (200, &[length], Framing::None, false, By::Head, "0 -"),
            (200, &[], Framing::Length(0), false, By::Head, "0 -"),
            (200, &[length], Framing::None, true, By::Head, "4 -"),
            (200, &[], Framing::None, true, By::Head, "- -"),
        ] {
            assert_eq!(
                told(status, fields, framing, to_head),
                (by, said.to_owned()),
                "{status} {fields:?} {framing:?}"
            );
        }
    }

    #[test]
    fn a_body_that_nobody_looks_at_goes_straight_on() {
        for (by, framing, is_shown) in [
            (By::Length, Framing::Length(4), false),
            (By::Chunks, Framing::Chunked, false),
            (By::Chunks, Framing::Close, false),
            (By::Chunks, Framing::Length(4), true),
            (By::Head, Framing::Length(4), true),
            (By::Head, Framing::Chunked, true),
        ] {
            assert_eq!(Told { by, sees_bodies: false }.is_shown(framing), is_shown, "{by:?} {framing:?}");
            assert!(Told { by, sees_bodies: true }.is_shown(framing));
        }
        for framing in [Framing::None, Framing::Length(0)] {
            assert!(!Told { by: By::Head, sees_bodies: true }.is_shown(framing), "there is none");
        }
    }
}
