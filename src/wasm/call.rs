//! Requests that a plugin sends by itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::host::ROOT;
use super::status::Status;
use crate::head::{Fields, HeaderName, HeaderValue, Method, StatusCode};

/// Calls under way of one exchange, and of the plugin itself, at once.
pub const CALLS_MAX: usize = 16;

/// A request of a plugin to an upstream.
#[derive(Clone, Debug)]
pub struct Call {
    /// Name of the upstream.
    pub upstream: String,
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub authority: HeaderValue,
    pub fields: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    /// Sent where the protocol has room for them.
    pub trailers: Vec<(HeaderName, HeaderValue)>,
    /// From the connection to the last byte of the answer.
    pub timeout: Duration,
    /// Largest body of an answer, in bytes.
    pub answer_bytes_max: usize,
}

/// What a service answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub fields: Fields,
    pub body: Bytes,
    pub trailers: Fields,
}

/// What became of a call; `Err` says in words why there is no answer.
pub type Answered = Result<Answer, String>;

/// An answer that is under way.
pub type Pending = Pin<Box<dyn Future<Output = Answered> + Send>>;

/// Sends requests to upstreams, with their balancing, health, breakers and timeouts.
pub trait Caller: Send + Sync {
    fn call(&self, call: Call) -> Pending;
}

/// Who sends what plugins ask for. Nobody does before the gateway serves.
#[derive(Clone, Default)]
pub struct Outlet(Arc<OnceLock<Open>>);

struct Open {
    caller: Arc<dyn Caller>,
    /// Where calls run that are asked for on a thread that waits for nothing.
    runtime: Option<Handle>,
}

impl Outlet {
    /// Opens it, once. The runtime that this is called from takes the calls of threads that have none.
    pub fn open(&self, caller: Arc<dyn Caller>) {
        let _ = self.0.set(Open { caller, runtime: Handle::try_current().ok() });
    }

    pub(super) fn caller(&self) -> Option<&Arc<dyn Caller>> {
        self.0.get().map(|open| &open.caller)
    }

    /// Where a call runs that is asked for now.
    pub(super) fn runtime(&self) -> Option<Handle> {
        Handle::try_current().ok().or_else(|| self.0.get()?.runtime.clone())
    }
}

/// The calls of an instance.
#[derive(Debug, Default)]
pub struct Calls {
    /// The number of the last one.
    last: u32,
    /// Those that are to be sent when the callback has returned.
    asked: Vec<Asked>,
    /// Number and context of those that have no answer yet.
    open: Vec<(u32, u32)>,
}

/// A call that is to be sent.
#[derive(Debug)]
pub struct Asked {
    pub number: u32,
    /// Whose it is.
    pub context: u32,
    pub call: Call,
}

impl Calls {
    /// Takes a call, and gives its number.
    ///
    /// # Errors
    /// `INTERNAL_FAILURE` when there are as many under way as there may be.
    pub fn ask(&mut self, context: u32, call: Call) -> Result<u32, Status> {
        if self.open.iter().filter(|(_, of)| *of == context).count() >= CALLS_MAX {
            return Err(Status::InternalFailure);
        }
        let mut number = self.last;
        loop {
            number = number.checked_add(1).unwrap_or(1);
            if !self.open.iter().any(|(open, _)| *open == number) {
                break;
            }
        }
        self.last = number;
        self.open.push((number, context));
        self.asked.push(Asked { number, context, call });
        Ok(number)
    }

    /// Whether some are to be sent.
    pub fn are_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Those that are to be sent now.
    pub fn take(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.asked)
    }

    /// Those of a context are not to be sent.
    pub fn hold_back(&mut self, context: u32) {
        self.asked.retain(|asked| asked.context != context);
    }

    /// Whether a context has calls without an answer.
    pub fn has(&self, context: u32) -> bool {
        self.open.iter().any(|(_, of)| *of == context)
    }

    /// Whether the plugin still waits for the answer to a call. Afterwards it does not.
    pub fn end(&mut self, number: u32) -> bool {
        let before = self.open.len();
        self.open.retain(|(open, _)| *open != number);
        self.open.len() < before
    }

    /// What a context asked for when it ended is sent for the plugin itself, as far as there is room.
    fn hand_over(&mut self, context: u32) {
        let mut room = CALLS_MAX.saturating_sub(self.open.iter().filter(|(_, of)| *of == ROOT).count());
        self.asked.retain_mut(|asked| {
            if asked.context != context {
                return true;
            }
            let Some(left) = room.checked_sub(1) else { return false };
            room = left;
            asked.context = ROOT;
            self.open.iter_mut().filter(|(number, _)| *number == asked.number).for_each(|(_, of)| *of = ROOT);
            true
        });
    }

    /// Forgets the calls of a context that is gone; the numbers of those that were sent.
    pub fn forget(&mut self, context: u32) -> Vec<u32> {
        if self.open.is_empty() {
            return Vec::new();
        }
        self.hand_over(context);
        self.open.extract_if(.., |(_, of)| *of == context).map(|(number, _)| number).collect()
    }
}
