//! What services send instead of an answer.

/// Stands before what is sent again and again.
pub const AGAIN: u8 = 0xff;

/// A way to misbehave.
pub struct Case {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub then: Then,
    pub outcome: Outcome,
}

/// What the service does after its bytes.
#[derive(Clone, Copy)]
pub enum Then {
    /// Waits for the next request.
    Stay,
    Close,
    Reset,
    /// Sends what stands after the marker, for ever.
    Repeat,
    /// Sends them byte by byte, slowly; then it waits for the next request.
    Trickle,
}

/// What clients are told.
#[derive(Clone, Copy)]
pub enum Outcome {
    /// A refusal of the gateway.
    Refused(u16),
    /// This body, as if nothing were wrong with it.
    Served(&'static str),
    /// The beginning of an answer, without an end that could be taken for one.
    Cut,
}

const OK: &str = "HTTP/1.1 200 OK\r\n";
const BAD: Outcome = Outcome::Refused(502);

fn case(name: &'static str, bytes: impl Into<Vec<u8>>, then: Then, outcome: Outcome) -> Case {
    Case { name, bytes: bytes.into(), then, outcome }
}

fn ok(rest: &str) -> String {
    [OK, rest].concat()
}

/// `start`, then `again` for ever.
fn endless(start: &str, again: &str) -> Vec<u8> {
    [start.as_bytes(), &[AGAIN], again.as_bytes()].concat()
}

pub fn all() -> Vec<Case> {
    [broken_off(), no_http(), heads(), framing(), several()].into_iter().flatten().collect()
}

fn broken_off() -> Vec<Case> {
    use Then::{Close, Reset, Stay, Trickle};
    vec![
        case("is silent", "", Stay, Outcome::Refused(504)),
        case("closes at once", "", Close, BAD),
        case("resets before the head", "", Reset, BAD),
        case("closes within the status line", "HTTP/1.1 20", Close, BAD),
        case("closes within the head", ok("Content-Le"), Close, BAD),
        case("resets within the head", ok("Content-Le"), Reset, BAD),
        case("is silent within the head", ok("Content-Le"), Stay, Outcome::Refused(504)),
        case("closes after the head", ok("Content-Length: 4\r\n\r\n"), Close, Outcome::Cut),
        case("resets after the head", ok("Content-Length: 4\r\n\r\n"), Reset, Outcome::Cut),
        case("closes within the body", ok("Content-Length: 4\r\n\r\nbo"), Close, Outcome::Cut),
        case("resets within the body", ok("Content-Length: 4\r\n\r\nbo"), Reset, Outcome::Cut),
        case("is silent within the body", ok("Content-Length: 4\r\n\r\nbo"), Stay, Outcome::Cut),
        case("has no last chunk", ok("Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n"), Close, Outcome::Cut),
        case(
            "is slow with its head",
            format!("{OK}X-Long: {}\r\n\r\n", "x".repeat(100)),
            Trickle,
            Outcome::Refused(504),
        ),
    ]
}

fn no_http() -> Vec<Case> {
    use Then::{Close, Stay};
    vec![
        case("sends garbage", "\u{1}\u{2}garbage\r\n\r\n", Stay, BAD),
        case("sends a TLS alert", b"\x15\x03\x01\x00\x02\x02\x0a".to_vec(), Close, BAD),
        case("speaks HTTP/0.9", "<html>old</html>", Close, BAD),
        case("speaks HTTP/2", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64".to_vec(), Stay, BAD),
        case("sends the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Stay, BAD),
        case("has a status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", Close, BAD),
        case("has a status below 100", "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", Close, BAD),
        case("has a version of its own", "HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n", Close, BAD),
    ]
}

fn heads() -> Vec<Case> {
    use Then::{Close, Repeat, Stay};
    vec![
        case("never ends its head", endless(OK, "X-More: and more\r\n"), Repeat, BAD),
        case("never ends a field", endless(&ok("X-Long: "), "xxxxxxxxxxxxxxxx"), Repeat, BAD),
        case("never ends its status line", endless("HTTP/1.1 200 ", "OKOKOKOKOKOK"), Repeat, BAD),
        case("has a huge status line", format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(2 << 20)), Close, BAD),
        case("has a NUL in a field", ok("X: a\0b\r\nContent-Length: 0\r\n\r\n"), Stay, BAD),
        case("folds a field", ok("X: a\r\n b\r\nContent-Length: 2\r\n\r\nok"), Stay, Outcome::Served("ok")),
        case(
            "folds a second head into a field",
            ok("X: a\r\n HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            Stay,
            Outcome::Served("ok"),
        ),
        case("has a field without a name", ok(": a\r\nContent-Length: 0\r\n\r\n"), Close, BAD),
        case("ends lines with a bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Stay, Outcome::Served("ok")),
        case(
            "switches protocols unasked",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw",
            Stay,
            BAD,
        ),
        case("floods with interim answers", endless("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), Repeat, BAD),
        case("only ever answers in the interim", "HTTP/1.1 100 Continue\r\n\r\n", Stay, Outcome::Refused(504)),
    ]
}

fn framing() -> Vec<Case> {
    use Then::{Close, Repeat, Stay};
    let chunked = |body: &str| ok(&format!("Transfer-Encoding: chunked\r\n\r\n{body}"));
    vec![
        case("has two lengths", ok("Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody"), Stay, BAD),
        case("says its length twice", ok("Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody"), Stay, BAD),
        case("has a list of lengths", ok("Content-Length: 4, 4\r\n\r\nbody"), Stay, BAD),
        case("has a length with a sign", ok("Content-Length: +4\r\n\r\nbody"), Stay, BAD),
        case("has a length below 0", ok("Content-Length: -1\r\n\r\nbody"), Stay, BAD),
        case("has a length that is none", ok("Content-Length: four\r\n\r\nbody"), Stay, BAD),
        case("has a length beyond any", ok("Content-Length: 99999999999999999999\r\n\r\nbody"), Stay, BAD),
        case(
            "has both a length and a coding",
            ok("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"),
            Stay,
            Outcome::Served("body"),
        ),
        case(
            "has a coding we do not know",
            ok("Transfer-Encoding: gzip, chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"),
            Stay,
            BAD,
        ),
        case("has a coding that is none", ok("Transfer-Encoding: identity\r\n\r\nbody"), Close, BAD),
        case(
            "is chunked twice",
            ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            Stay,
            BAD,
        ),
        case("has a bad chunk size", chunked("zz\r\nbody\r\n0\r\n\r\n"), Stay, Outcome::Cut),
        case("has a chunk size below 0", chunked("-4\r\nbody\r\n0\r\n\r\n"), Stay, Outcome::Cut),
        case("has a chunk size beyond any", chunked("fffffffffffffffff\r\nbody\r\n"), Stay, Outcome::Cut),
        case("has a chunk longer than its size", chunked("2\r\nbody\r\n0\r\n\r\n"), Stay, Outcome::Cut),
        case("never ends a chunk extension", endless(&chunked("4;x="), "xxxxxxxxxxxxxxxx"), Repeat, Outcome::Cut),
        case(
            "never ends its trailers",
            endless(&chunked("4\r\nbody\r\n0\r\n"), "X-More: and more\r\n"),
            Repeat,
            Outcome::Cut,
        ),
    ]
}

/// More than one answer, which is where answers could be crossed.
fn several() -> Vec<Case> {
    use Then::{Close, Stay};
    let stolen = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen";
    let then_another = |first: &str| [first, stolen].concat();
    vec![
        case("sends two answers", then_another(&ok("Content-Length: 4\r\n\r\nmine")), Stay, Outcome::Served("mine")),
        case(
            "sends two chunked answers",
            then_another(&ok("Transfer-Encoding: chunked\r\n\r\n4\r\nmine\r\n0\r\n\r\n")),
            Stay,
            Outcome::Served("mine"),
        ),
        case(
            "has a body longer than its length",
            ok("Content-Length: 4\r\n\r\nmine and more"),
            Stay,
            Outcome::Served("mine"),
        ),
        case("has a body without a length", ok("\r\nmine"), Close, Outcome::Served("mine")),
        case(
            "has a body with 204",
            then_another("HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody"),
            Stay,
            Outcome::Served(""),
        ),
        case(
            "is chunked with 204",
            then_another("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"),
            Stay,
            Outcome::Served(""),
        ),
        case(
            "has a body with 304",
            then_another("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nbody"),
            Stay,
            Outcome::Served(""),
        ),
        case(
            "is chunked with 304",
            then_another("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"),
            Stay,
            Outcome::Served(""),
        ),
    ]
}
