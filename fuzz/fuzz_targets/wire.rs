//! HTTP/1.1 as bytes: nothing panics, whatever is taken is written and read again as the same, and where the bytes are cut makes no
//! difference.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use tollgate::wire::{Chunked, Look, Piece, framing, request, response, write_request, write_response};

const FIELDS_MAX: usize = 100;

// The first byte says where the others are cut.
fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let (first, second) = bytes.split_at(bytes.len() * usize::from(*cut) / 256);
    requests(bytes, first, second);
    responses(bytes, first, second);
    assert_eq!(chunks(&[first, second]), chunks(&[bytes]));
});

fn requests(whole: &[u8], first: &[u8], second: &[u8]) {
    let (mut bytes, mut scanned) = (BytesMut::from(first), 0);
    let mut seen = request(&mut bytes, &mut scanned, FIELDS_MAX);
    if matches!(seen, Look::Partial) {
        bytes.extend_from_slice(second);
        seen = request(&mut bytes, &mut scanned, FIELDS_MAX);
    }
    let at_once = request(&mut BytesMut::from(whole), &mut 0, FIELDS_MAX);
    match (seen, at_once) {
        (Look::Whole(plain), Look::Whole(same)) => {
            assert_eq!(format!("{plain:?}"), format!("{same:?}"));
            let mut out = Vec::new();
            write_request(&mut out, &plain.parts);
            let Look::Whole(again) = request(&mut BytesMut::from(&*out), &mut 0, FIELDS_MAX) else {
                panic!("{}", out.escape_ascii());
            };
            assert_eq!((again.raw.len(), again.body), (out.len(), plain.body));
            assert_eq!(format!("{:?}", again.parts), format!("{:?}", plain.parts));
        }
        // How early it is found out depends on how much comes at once.
        (Look::Partial | Look::Odd, Look::Partial | Look::Odd) => {}
        (seen, at_once) => panic!("{seen:?} {at_once:?}"),
    }
}

fn responses(whole: &[u8], first: &[u8], second: &[u8]) {
    let (mut bytes, mut scanned) = (BytesMut::from(first), 0);
    let mut seen = response(&mut bytes, &mut scanned, FIELDS_MAX);
    if matches!(seen, Ok(None)) {
        bytes.extend_from_slice(second);
        seen = response(&mut bytes, &mut scanned, FIELDS_MAX);
    }
    let at_once = response(&mut BytesMut::from(whole), &mut 0, FIELDS_MAX);
    match (seen, at_once) {
        (Ok(Some(head)), Ok(Some(same))) => {
            assert_eq!(format!("{head:?}"), format!("{same:?}"));
            let framed = framing(&head.parts, false);
            let mut out = Vec::new();
            write_response(&mut out, head.parts.status, head.phrase.as_deref(), &head.parts.headers, false);
            let again = response(&mut BytesMut::from(&*out), &mut 0, FIELDS_MAX);
            let again = again.expect("what was written").expect("it is whole");
            assert_eq!((again.length, again.parts.status, again.phrase), (out.len(), head.parts.status, head.phrase));
            assert_eq!(format!("{:?}", again.parts.headers), format!("{:?}", head.parts.headers));
            if head.parts.version == again.parts.version {
                assert_eq!(framing(&again.parts, false), framed);
            }
        }
        (Ok(None) | Err(_), Ok(None) | Err(_)) => {}
        (seen, at_once) => panic!("{seen:?} {at_once:?}"),
    }
}

/// What bytes that come in parts are as a chunked body: its data and what is left behind it. `None`: it is malformed or not whole.
fn chunks(parts: &[&[u8]]) -> Option<(Vec<u8>, usize)> {
    let (mut bytes, mut chunked) = (BytesMut::new(), Chunked::default());
    let (mut data, mut sent) = (Vec::new(), 0);
    let all: usize = parts.iter().map(|part| part.len()).sum();
    for part in parts {
        bytes.extend_from_slice(part);
        sent += part.len();
        loop {
            match chunked.next(&mut bytes).ok()? {
                Piece::More => break,
                Piece::Data(piece) => data.extend_from_slice(&piece),
                Piece::End(_) => return Some((data, all - sent + bytes.len())),
            }
            assert!(data.len() + bytes.len() < sent, "more data than there was");
        }
    }
    None
}
