//! A request whose copy goes to another upstream: kept while its body passes, then sent.

use bytes::Bytes;
use http::header::CONNECTION;
use http::request;

use super::admit;
use super::exchange::Exchange;
use super::memory::{BODIES, Charge};
use super::phases::App;
use crate::delivery::Copied;
use crate::gateway::Ticket;
use crate::head::OF_THE_CONNECTION;

/// A copy in the making. Let go of, it is counted as left out.
pub struct Copying {
    copied: Copied,
    ticket: Ticket,
    body: Vec<u8>,
    charge: Charge,
}

/// The body of a request that may be copied.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    None,
    Gathered(&'a Bytes),
    /// It passes in pieces.
    Coming,
}

impl App {
    /// Begins a copy of a request that is forwarded, when it is one of those that are copied.
    pub(super) fn mirror(&self, head: &request::Parts, x: &mut Exchange, body: Body<'_>) {
        let Some(mirror) = x.route.as_ref().and_then(|route| route.mirror.as_ref()) else { return };
        let Some(ticket) = mirror.draw() else { return };
        let max = mirror.body_bytes_max;
        let length = match body {
            Body::None => None,
            Body::Gathered(body) => Some(body.len() as u64),
            Body::Coming => admit::length(head),
        };
        if length.is_some_and(|length| length > max) {
            return;
        }
        let copied = copied(head);
        match body {
            Body::Gathered(body) => self.mirrors.send(copied, body.clone(), ticket),
            Body::None => self.mirrors.send(copied, Bytes::new(), ticket),
            Body::Coming => {
                x.copying = Some(Box::new(Copying { copied, ticket, body: Vec::new(), charge: BODIES.charge() }));
            }
        }
    }

    /// A piece of a body that is copied passed.
    pub(super) fn mirror_piece(&self, x: &mut Exchange, piece: Option<&Bytes>, is_last: bool) {
        let memory_max = x.gateway.settings.limits.body_memory_max;
        let Some(copying) = &mut x.copying else { return };
        if !piece.is_none_or(|piece| copying.add(piece, memory_max)) {
            x.copying = None;
        } else if is_last && let Some(copying) = x.copying.take() {
            let Copying { copied, ticket, body, charge } = *copying;
            self.mirrors.send(copied, charge.tie(body), ticket);
        }
    }
}

impl Copying {
    /// The body comes once more, from its beginning.
    pub fn begin_again(&mut self) {
        self.body.clear();
    }

    /// Whether there was room for it.
    fn add(&mut self, piece: &Bytes, memory_max: u64) -> bool {
        let length = self.body.len().saturating_add(piece.len()) as u64;
        let fits = length <= self.ticket.mirror().body_bytes_max && self.charge.raise(length, memory_max);
        if fits {
            self.body.extend_from_slice(piece);
        }
        fits
    }
}

/// The head as the upstream gets it.
fn copied(head: &request::Parts) -> Copied {
    let nominated = head.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let nominated: Vec<&str> = nominated.flat_map(|value| value.split(',').map(str::trim)).collect();
    let kept = head.headers.iter().filter(|(name, _)| {
        !OF_THE_CONNECTION.contains(name) && !nominated.iter().any(|other| name.as_str().eq_ignore_ascii_case(other))
    });
    Copied {
        method: head.method.to_string(),
        target: head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        fields: kept.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect(),
    }
}
