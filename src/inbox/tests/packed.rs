//! Heads as bytes.

use proptest::prelude::*;

use super::super::Message;
use super::super::packed::{pack, unpack};
use super::{at, message};

fn messages() -> impl Strategy<Value = Message> {
    let field = (".{0,20}", proptest::collection::vec(any::<u8>(), 0..40));
    let fields = proptest::collection::vec(field, 0..6);
    let option = proptest::option::of(".{0,12}");
    ([(); 6].map(|()| ".{0,20}"), option.clone(), option, fields, 0_u64..4_000_000_000_000).prop_map(
        |([id, delivery, request_id, route, method, target], order, provider, fields, received)| Message {
            id,
            delivery,
            request_id,
            route,
            method,
            target,
            order,
            provider,
            fields,
            received: at(received),
            ..message("", None)
        },
    )
}

proptest! {
    #[test]
    fn what_is_packed_is_unpacked(message in messages()) {
        let packed = pack(&message);
        let unpacked = unpack(message.inbox.clone(), &packed, message.body.clone());
        prop_assert_eq!(unpacked, Some(message));
    }

    #[test]
    fn anything_else_is_refused_or_a_message(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = unpack("inbox".into(), &bytes, bytes::Bytes::new());
        let mut versioned = vec![1];
        versioned.extend(bytes);
        let _ = unpack("inbox".into(), &versioned, bytes::Bytes::new());
    }
}

#[test]
fn a_head_that_is_cut_off_is_none() {
    let packed = pack(&message("a", Some("order")));
    let fields: usize = 3 * 8 + "content-type".len() + "application/json".len() + 2 * "x-odd".len() + 2;
    for length in 0..packed.len() {
        let cut = unpack("inbox".into(), &packed[..length], bytes::Bytes::new());
        let between_fields = [0, 8 + "x-odd".len(), 8 + "x-odd".len() + 8 + "x-odd".len() + 2, fields];
        assert_eq!(cut.is_some(), between_fields.contains(&(packed.len() - length)), "{length}");
    }
    let mut newer = packed.clone();
    newer[0] = 2;
    assert_eq!(unpack("inbox".into(), &newer, bytes::Bytes::new()), None);
}

#[test]
fn the_size_is_that_of_all_text_and_the_body() {
    let mut message = message("a", None);
    let before = message.bytes();
    message.body = bytes::Bytes::from(vec![0; message.body.len() + 100]);
    message.fields.push(("12345".to_owned(), b"678".to_vec()));
    message.order = Some("90".to_owned());
    assert_eq!(message.bytes(), before + 110);
}
