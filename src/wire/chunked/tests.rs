use proptest::prelude::*;

use super::*;

/// The body, its trailers, and what follows it; `None`: more is needed.
type Read = Option<(Vec<u8>, Option<HeaderMap>, Vec<u8>)>;

/// Feeds the bytes as they are cut.
fn fed(all: &[u8], cuts: &[usize]) -> Result<Read, Malformed> {
    let (mut bytes, mut chunked, mut sent) = (BytesMut::new(), Chunked::default(), 0);
    let mut body = Vec::new();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (all.len() + 1)).collect();
    cuts.extend([all.len()]);
    cuts.sort_unstable();
    for cut in cuts {
        bytes.extend_from_slice(&all[sent..cut]);
        sent = cut;
        loop {
            match chunked.next(&mut bytes)? {
                Piece::More => break,
                Piece::Data(data) => {
                    assert!(!data.is_empty());
                    body.extend_from_slice(&data);
                }
                Piece::End(trailers) => {
                    assert!(matches!(chunked.next(&mut bytes), Ok(Piece::End(None))));
                    bytes.extend_from_slice(&all[sent..]);
                    return Ok(Some((body, trailers, bytes.to_vec())));
                }
            }
        }
    }
    Ok(None)
}

/// The same, whole and byte by byte.
fn read(all: impl AsRef<[u8]>) -> Result<Read, Malformed> {
    let all = all.as_ref();
    let whole = fed(all, &[]);
    let each: Vec<usize> = (0..all.len()).collect();
    assert_eq!(fed(all, &each), whole, "{:?}", all.escape_ascii().to_string());
    whole
}

fn body(all: impl AsRef<[u8]>) -> Vec<u8> {
    let (body, trailers, rest) = read(all).unwrap().unwrap();
    assert!(trailers.is_none() && rest.is_empty());
    body
}

#[test]
fn a_body_is_put_together() {
    for (all, whole) in [
        ("0\r\n\r\n", ""),
        ("4\r\nbody\r\n0\r\n\r\n", "body"),
        ("4\r\nbody\r\n3\r\n\r\n0\r\n0\r\n\r\n", "body\r\n0"),
        ("A\r\n0123456789\r\n0000\r\n\r\n", "0123456789"),
        ("a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("0000000000000004\r\nbody\r\n0\r\n\r\n", "body"),
        ("4;name=value\r\nbody\r\n0;x\r\n\r\n", "body"),
        ("4; a=\"b ;c\"\t;d\r\nbody\r\n0\r\n\r\n", "body"),
        ("4;\r\nbody\r\n0\r\n\r\n", "body"),
        ("4;\u{e9}\r\nbody\r\n0\r\n\r\n", "body"),
    ] {
        assert_eq!(body(all), whole.as_bytes(), "{all:?}");
    }
}

#[test]
fn what_follows_is_left() {
    let (body, trailers, rest) = read("4\r\nbody\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n").unwrap().unwrap();
    assert_eq!((&*body, trailers, &*rest), (&b"body"[..], None, &b"HTTP/1.1 200 OK\r\n\r\n"[..]));
}

#[test]
fn data_comes_as_it_is_there_and_is_not_copied() {
    let mut chunked = Chunked::default();
    let mut bytes = BytesMut::from("5\r\nab");
    let range = bytes.as_ptr_range();
    let Ok(Piece::Data(data)) = chunked.next(&mut bytes) else { panic!("there is data") };
    assert!(data == "ab" && range.contains(&data.as_ptr()));
    assert!(matches!(chunked.next(&mut bytes), Ok(Piece::More)));
    bytes.extend_from_slice(b"cde\r\n");
    assert!(matches!(chunked.next(&mut bytes), Ok(Piece::Data(data)) if data == "cde"));
    assert!(matches!(chunked.next(&mut bytes), Ok(Piece::More)));
}

#[test]
fn sizes_have_one_form() {
    for all in [
        "g\r\n",
        "zz\r\nbody\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-1\r\n",
        "-4\r\nbody\r\n",
        "+4\r\nbody\r\n",
        " 4\r\nbody\r\n",
        "\t4\r\nbody\r\n",
        "4 \r\nbody\r\n",
        "4\t\r\nbody\r\n",
        "5 ;a\r\nhello\r\n",
        "\r\nbody\r\n",
        ";a\r\nbody\r\n",
        "4\nbody\r\n",
        "4\rbody\r\n",
        "4\r\rbody",
        "4;a\nbody\r\n",
        "4;a\rb\r\nbody\r\n",
        "4;a\0\r\nbody\r\n",
        "4;\u{7f}\r\nbody\r\n",
        "4,\r\nbody\r\n",
        "4h\r\nbody\r\n",
        "1_0\r\n",
        "\0",
        "00000000000000004\r\nbody\r\n",
        "ffffffffffffffffff\r\n",
        "fffffffffffffffff\r\n",
        "10000000000000000\r\n",
        "\u{664}\r\nbody\r\n",
    ] {
        assert_eq!(read(all), Err(Malformed), "{all:?}");
    }
    // The largest there is: nobody can send it, but it does no harm.
    assert_eq!(read("ffffffffffffffff\r\nbody"), Ok(None));
}

#[test]
fn data_ends_with_its_line() {
    for all in [
        "4\r\nbody0\r\n\r\n",
        "4\r\nbody\n0\r\n\r\n",
        "4\r\nbody\r0\r\n\r\n",
        "4\r\nbodyXX0\r\n\r\n",
        "2\r\nbody\r\n0\r\n\r\n",
        "4\r\nbody\n\r\n",
    ] {
        assert_eq!(read(all), Err(Malformed), "{all:?}");
    }
}

#[test]
fn what_is_not_whole_asks_for_more() {
    for all in [
        "",
        "4",
        "4\r",
        "4;",
        "4;a\r",
        "4\r\n",
        "4\r\nbod",
        "4\r\nbody",
        "4\r\nbody\r",
        "4\r\nbody\r\n",
        "0\r\n",
        "0\r\n\r",
        "0\r\nX: y\r\n",
        "0\r\nX: y\r\n\r",
    ] {
        assert_eq!(read(all), Ok(None), "{all:?}");
    }
}

#[test]
fn a_line_with_a_size_is_bounded() {
    let line = |length: usize| format!("4;{}\r\nbody\r\n0\r\n\r\n", "x".repeat(length - 4));
    assert_eq!(body(line(LINE_BYTES_MAX)), b"body");
    assert_eq!(read(line(LINE_BYTES_MAX + 1)), Err(Malformed));
    assert_eq!(read(line(LINE_BYTES_MAX + 2)), Err(Malformed));
    assert_eq!(read(format!("4;{}", "x".repeat(LINE_BYTES_MAX - 2))), Err(Malformed));
    assert_eq!(read(format!("4;{}", "x".repeat(LINE_BYTES_MAX - 3))), Ok(None));
}

#[test]
fn trailers_are_fields() {
    let (body, trailers, rest) =
        read("1\r\nx\r\n0\r\nX-Sum: 1\r\nx-sum:2 \r\nGrpc-Status: 0\r\nX-Empty:\r\n\r\nrest").unwrap().unwrap();
    let trailers = trailers.unwrap();
    let fields: Vec<(&str, &[u8])> = trailers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(fields, [("x-sum", &b"1"[..]), ("x-sum", b"2"), ("grpc-status", b"0"), ("x-empty", b"")]);
    assert_eq!((&*body, &*rest), (&b"x"[..], &b"rest"[..]));
    for trailers in [
        "X : y\r\n",
        " X: y\r\n",
        "X: y\r\n z\r\n",
        "X\r\n",
        ": y\r\n",
        "X: y\n",
        "X: a\rb\r\n",
        "X: a\0\r\n",
        "\n",
        "\r",
        "X: y\r\n\n",
        "Content-Length: 4\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host: a.test\r\n",
        "Connection: close\r\n",
        "Trailer: x\r\n",
        "Upgrade: x\r\n",
        "TE: trailers\r\n",
    ] {
        assert_eq!(read(format!("0\r\n{trailers}\r\n")), Err(Malformed), "{trailers:?}");
    }
}

#[test]
fn trailers_are_bounded() {
    let count = |trailers: usize| read(format!("0\r\n{}\r\n", "X: y\r\n".repeat(trailers)));
    assert_eq!(count(TRAILERS_MAX).unwrap().unwrap().1.unwrap().len(), TRAILERS_MAX);
    assert_eq!(count(TRAILERS_MAX + 1), Err(Malformed));
    let length = |length: usize| read(format!("0\r\nX:{}\r\n\r\n", "y".repeat(length - 6)));
    assert!(length(TRAILERS_BYTES_MAX).unwrap().is_some());
    assert_eq!(length(TRAILERS_BYTES_MAX + 1), Err(Malformed));
    assert_eq!(read(format!("0\r\nX:{}", "y".repeat(TRAILERS_BYTES_MAX - 2))), Err(Malformed));
    assert_eq!(read(format!("0\r\nX:{}", "y".repeat(TRAILERS_BYTES_MAX - 3))), Ok(None));
}

/// Pieces of bodies that are put together at random.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = proptest::sample::select(vec![
        "4\r\nbody\r\n",
        "1;a=b\r\nx\r\n",
        "0\r\n",
        "\r\n",
        "4",
        "\n",
        "\r",
        "X: y\r\n",
        "body",
        ";",
        " ",
        "a\r\n0123456789\r\n",
        "0\r\n\r\n",
        "\0",
    ]);
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn however_it_is_cut_it_is_the_same(all in bytes(), cuts in proptest::collection::vec(any::<usize>(), 0..6)) {
        let whole = read(&all);
        prop_assert_eq!(&fed(&all, &cuts), &whole);
        if let Ok(Some((body, _, rest))) = whole {
            prop_assert!(body.len() + rest.len() < all.len());
        }
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = read(&bytes);
        let _ = read([b"0\r\n", &*bytes, b"\r\n\r\n"].concat());
    }

    #[test]
    fn what_was_written_is_read(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        let mut out = Vec::new();
        chunks.iter().for_each(|chunk| crate::wire::write_chunk(&mut out, chunk));
        out.extend_from_slice(crate::wire::LAST_CHUNK);
        prop_assert_eq!(fed(&out, &cuts), Ok(Some((chunks.concat(), None, Vec::new()))));
    }
}
