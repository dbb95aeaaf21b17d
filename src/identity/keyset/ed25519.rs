//! Which Ed25519 keys are fit to verify anything.

/// The `y` of all points whose order divides 8, in the form they are encoded (little-endian, without the sign of `x`); the last
/// two are other spellings of 0 and 1, above the prime. Everybody can sign for such a key (RFC 8032 §8.9 and §5.1.7: with the
/// point multiplied away, a signature does not depend on what is signed).
const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    with_ends(0x01, 0, 0x00),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    with_ends(0xec, 0xff, 0x7f),
    with_ends(0xed, 0xff, 0x7f),
    with_ends(0xee, 0xff, 0x7f),
];

const fn with_ends(first: u8, between: u8, last: u8) -> [u8; 32] {
    let mut bytes = [between; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

/// What is wrong with a key, if anything is.
pub fn check(key: &[u8]) -> Result<(), &'static str> {
    let Some((last, rest)) = key.split_last().filter(|_| key.len() == 32) else {
        return Err("an Ed25519 key has 32 bytes");
    };
    let y = |point: &&[u8; 32]| point.split_last() == Some((&(last & 0x7f), rest));
    if SMALL_ORDER.iter().any(|point| y(&point)) {
        return Err("the Ed25519 key is a point of small order, for which everybody can sign");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_small_order_are_refused_with_either_sign() {
        for point in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut key = point;
                key[31] |= sign;
                assert!(check(&key).is_err(), "{key:?}");
                key[15] ^= 1;
                assert!(check(&key).is_ok());
            }
        }
        assert!(check(&[9; 31]).is_err() && check(&[9; 33]).is_err() && check(&[]).is_err() && check(&[9; 32]).is_ok());
    }
}
