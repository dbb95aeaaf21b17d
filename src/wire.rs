//! HTTP/1.1 as bytes ([RFC 9112](https://www.rfc-editor.org/rfc/rfc9112)): heads and chunked bodies, read and written.
//!
//! Pure functions over bytes that somebody else has read. [`httparse`] takes heads apart; here it is decided what of them is
//! taken. Nothing is repaired and nothing is guessed: of a client, whatever has more than one reading is [`Look::Odd`]; of a
//! service, it is [`Malformed`]. How long a head may get is for the one to say who fills the buffer.

mod chunked;
mod fields;
mod request;
mod response;
mod write;

pub use chunked::{Chunked, Piece};
pub use request::{PlainRequest, request};
pub use response::{Framing, PlainResponse, framing, response};
pub use write::{LAST_CHUNK, write_chunk, write_request, write_response, write_response_with};

/// What the bytes so far hold.
#[derive(Debug)]
pub enum Look<T> {
    /// The head is not whole yet.
    Partial,
    Whole(T),
    /// Not what this engine takes: the other engine decides what it is.
    Odd,
}

/// A service has sent what is not HTTP/1.1, or has more than one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;
