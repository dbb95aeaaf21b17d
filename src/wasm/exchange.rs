//! What a callback may look at and change of the exchange that it is called for.
//!
//! Heads are not copied for a plugin: they stay where they are, and host functions reach them for as long as the callback
//! lasts, and no longer.

use scoped_tls_hkt::scoped_thread_local;

use super::instance::Head;
use crate::context::Context;
use crate::head::{Headers, RequestHead, ResponseHead};

scoped_thread_local!(static mut EXCHANGE: for<'a> &'a mut (dyn Exchange + 'a));

/// What a callback may look at and change.
pub trait Exchange {
    fn request(&self) -> Option<&dyn RequestHead>;
    /// `None` where it cannot be changed any more.
    fn request_mut(&mut self) -> Option<&mut dyn RequestHead>;
    fn response(&self) -> Option<&dyn ResponseHead>;
    /// `None` where it cannot be changed.
    fn response_mut(&mut self) -> Option<&mut dyn ResponseHead>;
    fn request_trailers(&mut self) -> Option<&mut dyn Headers>;
    fn response_trailers(&mut self) -> Option<&mut dyn Headers>;
    fn context(&self) -> &Context;
}

/// Runs `callback` with an exchange that host functions find.
pub(super) fn with<R>(exchange: Option<&mut (dyn Exchange + '_)>, callback: impl FnOnce() -> R) -> R {
    match exchange {
        Some(exchange) => EXCHANGE.set(exchange, callback),
        None => callback(),
    }
}

/// The exchange of the callback that runs, for a host function; `None` where it is called for none.
pub(super) fn current<R>(look: impl FnOnce(&mut dyn Exchange) -> R) -> Option<R> {
    EXCHANGE.is_set().then(|| EXCHANGE.with(|exchange| look(exchange)))
}

/// A head that can be changed, or only be read.
pub enum Access<'a, T: ?Sized> {
    Change(&'a mut T),
    Read(&'a T),
}

impl<T: ?Sized> Access<'_, T> {
    fn get(&self) -> &T {
        match self {
            Self::Change(head) => head,
            Self::Read(head) => head,
        }
    }
}

/// The exchange as a hook of a filter has it.
pub struct View<'a> {
    pub request: Access<'a, dyn RequestHead + 'a>,
    pub response: Option<Access<'a, dyn ResponseHead + 'a>>,
    pub request_trailers: Option<&'a mut (dyn Headers + 'a)>,
    pub response_trailers: Option<&'a mut (dyn Headers + 'a)>,
    pub context: &'a Context,
}

impl<'a> View<'a> {
    /// A request that can be changed, and nothing else.
    pub fn of_request(request: &'a mut dyn RequestHead, context: &'a Context) -> Self {
        Self {
            request: Access::Change(request),
            response: None,
            request_trailers: None,
            response_trailers: None,
            context,
        }
    }

    /// A request that went on.
    pub fn behind_request(request: &'a dyn RequestHead, context: &'a Context) -> Self {
        Self {
            request: Access::Read(request),
            response: None,
            request_trailers: None,
            response_trailers: None,
            context,
        }
    }

    #[must_use]
    pub fn with_response(self, response: Access<'a, dyn ResponseHead + 'a>) -> Self {
        Self { response: Some(response), ..self }
    }
}

impl Exchange for View<'_> {
    fn request(&self) -> Option<&dyn RequestHead> {
        Some(self.request.get())
    }

    fn request_mut(&mut self) -> Option<&mut dyn RequestHead> {
        match &mut self.request {
            Access::Change(head) => Some(&mut **head),
            Access::Read(_) => None,
        }
    }

    fn response(&self) -> Option<&dyn ResponseHead> {
        Some(self.response.as_ref()?.get())
    }

    fn response_mut(&mut self) -> Option<&mut dyn ResponseHead> {
        match self.response.as_mut()? {
            Access::Change(head) => Some(&mut **head),
            Access::Read(_) => None,
        }
    }

    fn request_trailers(&mut self) -> Option<&mut dyn Headers> {
        match &mut self.request_trailers {
            Some(trailers) => Some(&mut **trailers),
            None => None,
        }
    }

    fn response_trailers(&mut self) -> Option<&mut dyn Headers> {
        match &mut self.response_trailers {
            Some(trailers) => Some(&mut **trailers),
            None => None,
        }
    }

    fn context(&self) -> &Context {
        self.context
    }
}

/// How many fields the plugin will find, pseudo-header fields included.
pub(super) fn fields(head: Head, exchange: &mut dyn Exchange) -> u32 {
    let mut count = 0_u32;
    let mut visit = |_: &str, _: &[u8]| count = count.saturating_add(1);
    let pseudo = match head {
        Head::Request => {
            if let Some(request) = exchange.request() {
                request.all(&mut visit);
            }
            4
        }
        Head::Response => {
            if let Some(response) = exchange.response() {
                response.all(&mut visit);
            }
            1
        }
        Head::RequestTrailers => {
            if let Some(trailers) = exchange.request_trailers() {
                trailers.all(&mut visit);
            }
            0
        }
        Head::ResponseTrailers => {
            if let Some(trailers) = exchange.response_trailers() {
                trailers.all(&mut visit);
            }
            0
        }
    };
    count.saturating_add(pseudo)
}
