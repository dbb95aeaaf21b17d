//! Uploads to services of HTTP/2.
//!
//! Pingora writes a piece before it looks at anything else. Where no window is opened it gives the body up after the bound on
//! a write, and from then on waits for the answer alone: it looks neither at the client's stream, which keeps the deadlines,
//! nor at any timer. What it never ceases to look at are messages beside HTTP, which a session that is not its own may have.
//! So whoever writes these is ours, and is sent one from time to time: when Pingora has looked at the client no more for too
//! long, it fails, as a read from the service would that took too long. That resets the stream, and lets no other one begin on
//! a connection whose window may be used up.
//!
//! For clients of HTTP/2 the same one bounds all waits. Pingora's timer would be for the head of the answer, and begin with
//! the request: it would cut a long upload off while it moves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::{Error, ErrorType, Result};
use tokio::sync::mpsc::Sender;
use tokio::task::AbortHandle;

use crate::clock;
use crate::config::Protocol;
use crate::proxy::edge::Connection;
use crate::proxy::exchange::{Exchange, Forward};
use crate::proxy::peer::shorter;

/// It is asked so many times in the time that may pass.
const ASKED: u32 = 4;
/// And not more often than this.
const ASKED_EVERY: Duration = Duration::from_millis(20);

/// Watches whether Pingora still looks at the client, and over HTTP/2 whether anything moves.
pub struct Lookout {
    /// When Pingora was asked first after it looked last: so many milliseconds after `started`, and one. 0: it looked since.
    away: AtomicU64,
    /// The same for whatever moves.
    still: AtomicU64,
    /// It was given a piece and has not looked since.
    writes: AtomicBool,
    started: Instant,
    longest: Duration,
    /// When the exchange has to be over.
    deadline: Option<Instant>,
    client: Client,
    asking: Mutex<Option<AbortHandle>>,
}

/// Who bounds the waits while the client is looked at.
enum Client {
    /// Its connection does. `first_byte`: how long the service may take to the head of its answer, once it has the whole
    /// request.
    Http1 { connection: Arc<Connection>, first_byte: Duration },
    /// Nobody else: no deadline of the connection ends one exchange of many, and Pingora's timer for the head of an answer
    /// begins with the request.
    Http2 { longest: Duration },
}

impl Lookout {
    /// Where there may be something to watch: with a service of HTTP/2.
    pub fn over(x: &Exchange, forward: &Forward) -> Option<Arc<Self>> {
        if forward.upstream.protocol == Protocol::Http1 {
            return None;
        }
        let longest = forward.upstream.timeouts.idle;
        let first_byte = forward.first_byte(x.route.as_ref()?.first_byte);
        let connection = x.connection.as_ref()?;
        let client = if connection.is_h2() {
            Client::Http2 { longest: first_byte.max(longest) }
        } else {
            Client::Http1 { connection: Arc::clone(connection), first_byte }
        };
        Some(Arc::new(Self::new(client, longest, forward.deadline)))
    }

    /// `longest`: how long Pingora may look away and hear nothing of the service.
    fn new(client: Client, longest: Duration, deadline: Option<Instant>) -> Self {
        Self {
            away: AtomicU64::new(0),
            still: AtomicU64::new(0),
            writes: AtomicBool::new(false),
            started: clock::now(),
            longest,
            deadline,
            client,
            asking: Mutex::default(),
        }
    }

    /// The service has the whole request.
    pub fn expect_answer(&self) {
        if let Client::Http1 { connection, first_byte } = &self.client {
            let now = clock::now();
            let remaining = self.deadline.map(|deadline| deadline.saturating_duration_since(now));
            connection.expect_within(now, shorter(*first_byte, remaining));
        }
    }

    /// Pingora looks at the client. Whether it has written before.
    pub fn looks(&self) -> bool {
        self.away.store(0, Ordering::Relaxed);
        self.writes.swap(false, Ordering::Relaxed)
    }

    /// It was given a piece, or the end of the body.
    pub fn writes(&self) {
        self.heard();
        self.writes.store(true, Ordering::Relaxed);
    }

    /// Something of an answer has come.
    pub fn heard(&self) {
        self.away.store(0, Ordering::Relaxed);
        self.still.store(0, Ordering::Relaxed);
    }

    /// Has Pingora be asked for as long as the attempt lasts.
    pub fn begin(&self, messages: Sender<Bytes>) {
        // What the last attempt has come to is over.
        self.heard();
        let every = self.longest.checked_div(ASKED).unwrap_or_default().max(ASKED_EVERY);
        let asking = tokio::spawn(async move {
            while !messages.is_closed() {
                tokio::time::sleep(every).await;
                // Who was asked and has not heard it writes.
                if messages.capacity() == messages.max_capacity() {
                    drop(messages.try_send(Bytes::new()));
                }
            }
        });
        self.keep(Some(asking.abort_handle()));
    }

    /// The attempt is over: Pingora waits for the last message.
    pub fn end(&self) {
        self.heard();
        self.keep(None);
    }

    fn keep(&self, asking: Option<AbortHandle>) {
        let mut kept = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = std::mem::replace(&mut *kept, asking) {
            before.abort();
        }
    }

    /// Pingora was asked, which it is not while it writes. It may just have written: only when it was asked before, and has
    /// not looked since, is it away.
    fn asked(&self, now: Instant) -> Result<()> {
        self.lasts(&self.away, self.longest, now)?;
        match &self.client {
            Client::Http1 { .. } => Ok(()),
            Client::Http2 { longest } => self.lasts(&self.still, *longest, now),
        }
    }

    /// Fails when what began at `since`, now if it has not, lasts too long.
    fn lasts(&self, since: &AtomicU64, longest: Duration, now: Instant) -> Result<()> {
        let at = now.saturating_duration_since(self.started);
        let Some(began) = since.load(Ordering::Relaxed).checked_sub(1) else {
            since.store(u64::try_from(at.as_millis()).unwrap_or(u64::MAX).saturating_add(1), Ordering::Relaxed);
            return Ok(());
        };
        let lasted = at.saturating_sub(Duration::from_millis(began));
        let is_over = lasted >= longest || self.deadline.is_some_and(|deadline| now >= deadline);
        if is_over { Err(Error::new_up(ErrorType::ReadTimedout)) } else { Ok(()) }
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.end();
    }
}

/// Who writes messages beside HTTP.
pub struct Asked(pub Arc<Lookout>);

#[async_trait]
impl CustomMessageWrite for Asked {
    fn set_write_timeout(&mut self, _: Option<Duration>) {}

    async fn write_custom_message(&mut self, _: Bytes) -> Result<()> {
        self.0.asked(clock::now())
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Scheme;
    use crate::proxy::edge::EdgeLimits;

    const LONGEST: Duration = Duration::from_secs(10);

    fn lookout(longest: Duration, deadline: Option<Duration>) -> Lookout {
        let limits = EdgeLimits { header_bytes_max: 1, header_timeout: LONGEST, idle_timeout: LONGEST };
        let connection = Arc::new(Connection::new("127.0.0.1:1".parse().unwrap(), limits, Scheme::Http));
        let deadline = deadline.map(|deadline| clock::now() + deadline);
        Lookout::new(Client::Http1 { connection, first_byte: LONGEST }, longest, deadline)
    }

    fn asked(lookout: &Lookout, seconds: u64) -> Result<()> {
        lookout.asked(lookout.started + Duration::from_secs(seconds))
    }

    #[test]
    fn who_looks_or_writes_is_not_away() {
        let lookout = lookout(LONGEST, None);
        assert!(!lookout.looks());
        assert!(asked(&lookout, 100).is_ok());
        assert!(!lookout.looks());
        lookout.writes();
        // Not asked while it writes.
        assert!(asked(&lookout, 200).is_ok());
        assert!(lookout.looks() && !lookout.looks());
        assert!(asked(&lookout, 300).is_ok());
        assert!(!lookout.looks());
        assert!(asked(&lookout, 400).is_ok());
    }

    #[test]
    fn who_neither_looks_nor_hears_for_too_long_is_away() {
        let lookout = lookout(LONGEST, None);
        lookout.writes();
        assert!(asked(&lookout, 5).is_ok());
        assert!(asked(&lookout, 14).is_ok());
        lookout.heard();
        assert!(asked(&lookout, 15).is_ok());
        assert!(asked(&lookout, 24).is_ok());
        let error = asked(&lookout, 25).unwrap_err();
        assert_eq!((error.esource(), error.etype()), (&pingora::ErrorSource::Upstream, &ErrorType::ReadTimedout));
        // What has ended does not fail any more.
        lookout.end();
        assert!(asked(&lookout, 100).is_ok());
    }

    #[test]
    fn over_http_2_something_moves() {
        let lookout = Lookout::new(Client::Http2 { longest: 2 * LONGEST }, LONGEST, None);
        let looks_when_asked = |seconds| {
            let asked = asked(&lookout, seconds);
            lookout.looks();
            asked
        };
        assert!(looks_when_asked(0).is_ok());
        assert!(looks_when_asked(19).is_ok());
        lookout.heard();
        assert!(looks_when_asked(21).is_ok());
        lookout.writes();
        assert!(looks_when_asked(41).is_ok());
        assert!(looks_when_asked(60).is_ok());
        assert!(looks_when_asked(61).is_err());
    }

    #[test]
    fn nobody_is_away_beyond_the_end_of_the_exchange() {
        let lookout = lookout(LONGEST, Some(Duration::from_secs(7)));
        lookout.writes();
        assert!(asked(&lookout, 8).is_ok(), "it may just have written");
        assert!(asked(&lookout, 8).is_err());
    }

    #[tokio::test]
    async fn it_is_asked_until_the_end() {
        let (messages, mut asked) = tokio::sync::mpsc::channel(1);
        let lookout = lookout(ASKED_EVERY, None);
        lookout.begin(messages);
        for _ in 0..3 {
            assert!(asked.recv().await.is_some());
        }
        lookout.end();
        while asked.recv().await.is_some() {}
    }
}
