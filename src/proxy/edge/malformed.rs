//! What becomes of bytes that are no request.

use std::sync::Arc;

/// The answer to what could not be parsed: called with Pingora's status, gives the whole response.
pub type Malformed = Arc<dyn Fn(MalformedKind) -> Vec<u8> + Send + Sync>;

/// Why a request never reached the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedKind {
    /// It is not valid HTTP.
    Syntax,
    /// Its head is larger than allowed.
    HeadTooLarge,
    /// Its head did not arrive in time.
    HeadTooSlow,
    /// CONNECT, which a gateway does not offer.
    Connect,
    /// More frames of HTTP/2 that bring nothing than a connection may have.
    Flood,
}
