//! What of a request was sent and what came back, whichever engine drives the exchange.

use http::request::Parts;
use pingora::proxy::Session;

use super::answer::answered;

/// What decides whether a request may be sent once more.
pub struct Sent<'a> {
    pub head: &'a Parts,
    /// The client has the head of an answer.
    pub is_answered: bool,
    /// All that was sent of the body is still there.
    pub is_kept: bool,
    /// It asks for another protocol.
    pub is_upgrade: bool,
}

impl<'a> Sent<'a> {
    pub fn of(session: &'a Session) -> Self {
        Self {
            head: session.req_header(),
            is_answered: answered(session).is_some(),
            is_kept: !session.as_ref().retry_buffer_truncated(),
            is_upgrade: session.is_upgrade_req(),
        }
    }
}
