//! A plain request on its way to a target, and the way back of the answer.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, response};
use pingora::protocols::http::date::get_cached_date;
use pingora::{Error, ErrorType, RetryType};

use super::Direct;
use super::body::Passage;
use super::client::Client;
use super::line::Line;
use super::shown::{Shown, Told};
use crate::chain::Halt;
use crate::clock;
use crate::config::UpstreamHost;
use crate::proxy::accompany;
use crate::proxy::answer;
use crate::proxy::attempt::{self, Attempt};
use crate::proxy::exchange::Exchange;
use crate::proxy::peer::shorter;
use crate::proxy::retry;
use crate::proxy::sent::Sent;
use crate::proxy::sound;
use crate::wire::{self, Framing, Malformed, PlainResponse};

/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 256 * 1024;
/// Most fields in it.
const FIELDS_MAX: usize = 256;
/// Room for a usual head.
const HEAD_ROOM: usize = 1024;

/// What the client was sent.
#[derive(Clone, Copy, Default)]
pub struct Said {
    pub status: Option<StatusCode>,
    /// Of the body.
    pub bytes: u64,
}

/// One request on its way.
pub struct Run<'a> {
    pub direct: &'a Direct,
    pub client: &'a mut Client,
    pub head: &'a mut Parts,
    /// Of the request; all of it.
    pub body: Bytes,
    pub x: &'a mut Exchange,
    /// The client is told that the connection ends with the answer.
    pub closes: bool,
    pub said: Said,
    /// The head that the client was sent, for filters that accompany the exchange.
    pub answered: Option<response::Parts>,
}

impl Run<'_> {
    /// Tries targets until one has answered.
    ///
    /// # Errors
    /// None has, or the answer broke off.
    pub async fn forward(&mut self) -> Result<(), Box<Error>> {
        if !self.body.is_empty() {
            // Whatever became of the head: the body ends where it ends.
            self.head.headers.insert(CONTENT_LENGTH, self.body.len().into());
            self.head.headers.remove(TRANSFER_ENCODING);
        }
        loop {
            match self.attempt().await {
                Err(error) if error.retry() => {}
                done => return done,
            }
        }
    }

    async fn attempt(&mut self) -> Result<(), Box<Error>> {
        self.pause().await?;
        let Attempt { chosen, now, remaining, first_byte } = attempt::begin(self.head, self.x)?;
        let Some(forward) = &self.x.forward else { return Err(Error::new_in(ErrorType::InternalError)) };
        if forward.upstream.host == UpstreamHost::Target {
            let host = HeaderValue::try_from(chosen.host()).map_err(|_| Error::new_in(ErrorType::InternalError))?;
            self.head.headers.insert(HOST, host);
        }
        let timeouts = forward.upstream.timeouts;
        let kept = self.direct.pool.take(chosen.address, now);
        let is_reused = kept.is_some();
        let mut line = match kept {
            Some(line) => line,
            None => match Line::connect(chosen.address, shorter(timeouts.connect, remaining)).await {
                Ok(line) => line,
                Err(error) => return Err(retry::not_connected(&sent(self.head, self.said), self.x, error)),
            },
        };
        chosen.metrics.connected(is_reused);
        if let Some(connection) = &self.x.connection {
            connection.expect_within(now, first_byte);
        }
        match self.exchange(&mut line).await {
            Ok(true) => {
                self.direct.pool.put(chosen.address, line, timeouts.keepalive, clock::now());
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => Err(retry::broke_off(&sent(self.head, self.said), self.x, error, is_reused)),
        }
    }

    /// Before each try: waits for as long as was decided when the one before failed. Meanwhile only the client counts.
    async fn pause(&mut self) -> Result<(), Box<Error>> {
        let Some(forward) = self.x.forward.as_mut().filter(|forward| forward.target.is_some()) else { return Ok(()) };
        forward.to_head = None;
        if let Some(connection) = &self.x.connection {
            // The time of the last try is over; that of the next one begins when it does.
            connection.begin_again();
        }
        let Some(pause) = forward.pause.take().filter(|pause| !pause.is_zero()) else { return Ok(()) };
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            left = self.client.gone() => Err(left),
        }
    }

    /// Sends the request and passes the answer on. Whether the connection can be used again.
    async fn exchange(&mut self, line: &mut Line) -> Result<bool, Box<Error>> {
        let mut out = Vec::with_capacity(HEAD_ROOM.saturating_add(self.body.len()));
        wire::write_request(&mut out, self.head);
        out.extend_from_slice(&self.body);
        self.x.body_bytes_in = self.body.len() as u64;
        let mut written = 0;
        let PlainResponse { mut parts, phrase, persists, .. } = loop {
            let response = {
                let client = &mut *self.client;
                poll_fn(|cx| poll_head(client, line, &out, &mut written, cx)).await?
            };
            if !response.parts.status.is_informational() {
                break response;
            }
            if response.parts.status == StatusCode::SWITCHING_PROTOCOLS {
                // Nobody asked for it: the client would read the next response as this one's.
                return Err(Error::new_up(ErrorType::InvalidHTTPHeader));
            }
            sound::interim(self.x)?;
            let mut interim = Vec::new();
            wire::write_response(&mut interim, response.parts.status, None, &response.parts.headers, false);
            self.client.send(&interim).await?;
        };
        // A service may answer before it has read everything. What was not sent is not sent any more.
        let persists = persists && written == out.len();
        let malformed = |Malformed| Error::new_up(ErrorType::InvalidHTTPHeader);
        let framing = wire::framing(&parts, self.head.method == Method::HEAD).map_err(malformed)?;
        if matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            // They have no body, whatever they say; a client that believes them would wait for one.
            parts.headers.remove(TRANSFER_ENCODING);
            if parts.status == StatusCode::NO_CONTENT {
                parts.headers.remove(CONTENT_LENGTH);
            }
        }
        let now = clock::now();
        attempt::answered(&sent(self.head, self.said), &parts, self.x, now)?;
        if let (Some(connection), Some(forward)) = (&self.x.connection, &self.x.forward) {
            connection.stream(now, forward.upstream.timeouts.idle, forward.remaining(now));
        }
        let mut lines = Vec::new();
        let told = self.show(&mut parts, &mut lines, framing, now).await?;
        if !parts.headers.contains_key(DATE) {
            parts.headers.insert(DATE, get_cached_date());
        }
        out.clear();
        wire::write_response_with(&mut out, parts.status, phrase.as_deref(), &parts.headers, &lines, self.closes);
        if let Some(told) = told.filter(|told| told.is_shown(framing)) {
            // Apart: what this needs of a future is no burden to other requests.
            return Ok(Box::pin(Shown::new(self, told, framing, out, parts).pass(line)).await? && persists);
        }
        self.said.status = Some(parts.status);
        self.answered = told.map(|_| parts);
        let mut passage = Passage::new(framing, out);
        let passed = passage.pass(self.client, line, self.x).await;
        self.said.bytes = passage.bytes;
        passed?;
        Ok(persists && passage.is_clean)
    }

    /// Takes the head of an answer through the response hooks. What comes back says how the body goes on where filters accompany
    /// the exchange.
    async fn show(
        &mut self,
        parts: &mut response::Parts,
        lines: &mut Vec<u8>,
        framing: Framing,
        now: Instant,
    ) -> Result<Option<Told>, Box<Error>> {
        // Filters that accompany the exchange see the head once more when it is over.
        let keeps = self.x.route.as_ref().is_some_and(|route| route.chain.accompanies());
        let halted = answer::pass(self.head, parts, (!keeps).then_some(lines), self.x, now);
        let Some(route) = self.x.route.as_ref().filter(|route| route.chain.accompanies()) else {
            if matches!(framing, Framing::Close) {
                parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            return Ok(None);
        };
        let sees_bodies = route.chain.sees_response_bodies();
        let instead = match halted {
            None => None,
            Some(Halt::Instead(instead)) => Some(instead),
            Some(Halt::Held(index)) => {
                let ends = matches!(framing, Framing::None | Framing::Length(0));
                Box::pin(answer::wait(self.head, parts, ends, index, self.x, self.client.gone())).await?
            }
        };
        match instead {
            Some(instead) => Err(accompany::replaced(self.x, instead)),
            None => Ok(Some(Told::of(parts, framing, sees_bodies, self.head.method == Method::HEAD))),
        }
    }
}

/// A request whose body is all there can always be sent again.
fn sent(head: &Parts, said: Said) -> Sent<'_> {
    Sent { head, is_answered: said.status.is_some(), is_kept: true, is_upgrade: false }
}

/// Writes the request and reads until a whole head is there. The client is looked at whenever there is nothing to do.
fn poll_head(
    client: &mut Client,
    line: &mut Line,
    out: &[u8],
    written: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<Result<PlainResponse, Box<Error>>> {
    // A service that answers before it has read everything, and closes, is heard.
    let unwritten = match line.poll_write(cx, out, written) {
        Poll::Ready(Err(error)) => Some(Error::because(ErrorType::WriteError, "writing a request", error)),
        Poll::Ready(Ok(())) | Poll::Pending => None,
    };
    loop {
        match wire::response(&mut line.buffer, &mut line.scanned, FIELDS_MAX) {
            Ok(Some(response)) => return Poll::Ready(Ok(response)),
            Ok(None) if line.buffer.len() <= HEAD_BYTES_MAX => {}
            Ok(None) | Err(Malformed) => return Poll::Ready(Err(Error::new_up(ErrorType::InvalidHTTPHeader))),
        }
        match line.poll_fill(cx) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(broken(line, Error::new(ErrorType::ConnectionClosed)))),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => {
                let error = Error::because(ErrorType::ReadError, "reading the head of an answer", error);
                return Poll::Ready(Err(broken(line, error)));
            }
            Poll::Pending => {
                let error = match unwritten {
                    Some(error) => broken(line, error),
                    None => ready!(client.poll_gone(cx)),
                };
                return Poll::Ready(Err(error));
            }
        }
    }
}

/// A connection that ended before a byte of the answer: when it was used before, the target may just have closed it.
fn broken(line: &Line, mut error: Box<Error>) -> Box<Error> {
    error.as_up();
    if line.buffer.is_empty() {
        error.retry = RetryType::ReusedOnly;
    }
    error
}
