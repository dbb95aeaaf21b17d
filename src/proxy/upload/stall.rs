//! A service that takes nothing more of a body.
//!
//! Pingora bounds each write, but over HTTP/1.1 it then waits for an answer without an end, and what is under way stays so.
//! Nothing of the client is read then, so that its stream, which keeps the deadlines, is not asked either.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pingora::{Error, ErrorType};

use crate::clock;
use crate::proxy::alarm::Alarm;
use crate::proxy::edge::Connection;

/// Watches over the time in which no piece of a body can be handed on, and nothing comes back either.
pub struct Stall {
    /// None over HTTP/2: there Pingora's timer for the answer ends it.
    connection: Option<Arc<Connection>>,
    longest: Duration,
    deadline: Option<Instant>,
    since: Option<Instant>,
    alarm: Alarm,
}

impl Stall {
    /// `longest`: how long it may last. `deadline`: when the exchange has to be over.
    pub fn new(connection: Option<&Arc<Connection>>, longest: Duration, deadline: Option<Instant>) -> Self {
        let connection = connection.filter(|connection| !connection.is_h2()).cloned();
        Self { connection, longest, deadline, since: None, alarm: Alarm::default() }
    }

    /// A piece can be handed on, or something of an answer has come.
    pub fn end(&mut self) {
        self.since = None;
    }

    /// Ready when it has lasted too long; otherwise the task is woken when it will have.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        let Some(connection) = &self.connection else { return Poll::Pending };
        let since = *self.since.get_or_insert_with(clock::now);
        let bounds = [since.checked_add(self.longest), self.deadline];
        let Some(until) = bounds.into_iter().flatten().min() else { return Poll::Pending };
        self.alarm.poll(since, until.saturating_duration_since(since), cx).map(|()| {
            connection.expire();
            Error::new_down(ErrorType::WriteTimedout)
        })
    }
}
