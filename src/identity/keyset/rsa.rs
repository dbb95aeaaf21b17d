//! Which RSA keys are fit to verify anything.

/// Sizes of a modulus, in bits: below can be factored (RFC 7518 §3.3), above costs too much.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Public exponents: 1 makes every message its own signature.
const EXPONENTS: std::ops::RangeInclusive<u64> = 3..=u32::MAX as u64;
/// Longest modulus that is looked at, in bytes, leading zeros included.
const MODULUS_BYTES_MAX: usize = 1040;

/// What is wrong with a key, given as big-endian numbers; `Ok` holds them without leading zeros.
pub fn check<'a>(modulus: &'a [u8], exponent: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), &'static str> {
    let (modulus, exponent) = (stripped(modulus), stripped(exponent));
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = modulus.len().saturating_mul(8).saturating_sub(unused);
    if modulus.len() > MODULUS_BYTES_MAX || !MODULUS_BITS.contains(&bits) {
        return Err("an RSA key has 2048 to 8192 bits");
    }
    if modulus.last().is_none_or(|byte| byte % 2 == 0) {
        return Err("the modulus of an RSA key is odd");
    }
    let number = exponent.iter().try_fold(0_u64, |number, byte| Some(number.checked_mul(256)? | u64::from(*byte)));
    if !number.is_some_and(|number| EXPONENTS.contains(&number) && number % 2 == 1) {
        return Err("the exponent of an RSA key is odd, at least 3 and below 2^32");
    }
    if is_roca(modulus) {
        return Err("the RSA key was made by a weak generator (CVE-2017-15361) and can be factored");
    }
    Ok((modulus, exponent))
}

fn stripped(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// Whether the modulus has the fingerprint of CVE-2017-15361: modulo each of these primes it is a power of 65537. The keys of
/// any other generator are so once in 2^27.
fn is_roca(modulus: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107,
        109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.iter().all(|prime| {
        let remainder = modulus.iter().fold(0, |rest: u32, byte| (rest * 256 + u32::from(*byte)) % prime);
        let powers = std::iter::successors(Some(1_u32), |power| Some(power * (65_537 % prime) % prime));
        powers.take(*prime as usize).any(|power| power == remainder)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_exponents_are_bounded() {
        let modulus = |bits: usize| {
            let mut bytes = vec![0x8f; bits.div_ceil(8)];
            bytes[0] = if bits.is_multiple_of(8) { 0x80 } else { 1 };
            bytes
        };
        assert!(check(&modulus(2048), &[1, 0, 1]).is_ok() && check(&modulus(8192), &[3]).is_ok());
        assert!(check(&[vec![0], modulus(2048)].concat(), &[0, 1, 0, 1]).is_ok());
        for (bits, exponent) in [
            (2041, &[1_u8, 0, 1][..]),
            (8193, &[1, 0, 1]),
            (2048, &[1]),
            (2048, &[]),
            (2048, &[0]),
            (2048, &[4]),
            (2048, &[1, 0, 0, 0, 1]),
            (2048, &[1, 0, 0, 0, 0, 0, 0, 0, 1]),
        ] {
            assert!(check(&modulus(bits), exponent).is_err(), "{bits} {exponent:?}");
        }
        let mut even = modulus(2048);
        even[255] = 0x8e;
        assert!(check(&even, &[3]).is_err());
        assert!(check(&[], &[3]).is_err());
    }
}
