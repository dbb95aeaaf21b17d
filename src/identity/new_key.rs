//! Making API keys.

use super::Digest;

/// Characters of the random part: 62^43 > 2^256.
const RANDOM_CHARS: usize = 43;
/// Random characters that stay visible: of 43 there remain 35, more than 208 bits.
const VISIBLE_CHARS: usize = 8;
/// Longest word before the `_`, in characters.
pub const PREFIX_CHARS_MAX: usize = 16;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key that was just made: `tg_` and 43 random letters and digits. Whoever asked for it sees it now and never again.
pub struct NewKey {
    /// The key itself.
    pub text: String,
    /// Its beginning, by which people recognise it: `tg_9b5546ec`.
    pub visible: String,
    pub digest: Digest,
}

impl NewKey {
    /// Makes a key of 256 random bits.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn random(prefix: &str) -> Result<Self, getrandom::Error> {
        let text = format!("{prefix}_{}", random_text(RANDOM_CHARS)?);
        let visible = prefix.chars().count().saturating_add(1).saturating_add(VISIBLE_CHARS);
        let visible = text.chars().take(visible).collect();
        let digest = Digest::of(text.as_bytes()).ok_or(getrandom::Error::UNEXPECTED)?;
        Ok(Self { text, visible, digest })
    }
}

/// Whether a word may stand before the `_` of a key: 1 to 16 letters, digits, `-` and `_`.
pub fn is_prefix(word: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !word.is_empty() && word.len() <= PREFIX_CHARS_MAX && word.bytes().all(sound)
}

/// The part of a key of any origin that may be shown. `None` when too much of it would be: of fewer than 32 characters
/// none is shown.
pub fn visible_part(key: &str) -> Option<&str> {
    if key.len() < 32 || !key.is_ascii() {
        return None;
    }
    let word = key.find('_').filter(|at| *at <= PREFIX_CHARS_MAX).map_or(0, |at| at.saturating_add(1));
    key.get(..word.saturating_add(VISIBLE_CHARS))
}

/// Random letters and digits.
///
/// # Errors
/// The system has no randomness to give.
pub fn random_text(length: usize) -> Result<String, getrandom::Error> {
    let mut text = String::with_capacity(length);
    let mut bytes = [0_u8; 64];
    while text.len() < length {
        getrandom::fill(&mut bytes)?;
        // A byte from 248 on would make the first letters likelier than the others: 248 = 4 × 62.
        let even = bytes.iter().filter(|byte| **byte < 248);
        let letters = even.filter_map(|byte| ALPHABET.get(usize::from(*byte % 62)));
        text.extend(letters.map(|letter| char::from(*letter)).take(length.saturating_sub(text.len())));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_key_has_its_prefix_and_43_random_characters() {
        let key = NewKey::random("gsp").unwrap();
        let random = key.text.strip_prefix("gsp_").unwrap();
        assert_eq!(random.len(), 43);
        assert!(random.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert!(key.visible.len() == 12 && key.text.starts_with(&key.visible));
        assert_eq!(visible_part(&key.text), Some(&*key.visible));
        assert_eq!(Digest::of(key.text.as_bytes()), Some(key.digest));
    }

    #[test]
    fn keys_differ_and_every_character_occurs() {
        let keys: Vec<String> = (0..200).map(|_| random_text(43).unwrap()).collect();
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 200);
        let seen: HashSet<char> = keys.iter().flat_map(|key| key.chars()).collect();
        assert_eq!(seen.len(), 62);
    }

    #[test]
    fn short_keys_show_nothing() {
        assert_eq!(visible_part(&"a".repeat(31)), None);
        assert_eq!(visible_part(&"a".repeat(32)), Some("aaaaaaaa"));
        assert_eq!(visible_part(&format!("a{}_b", "c".repeat(40))), Some("accccccc"));
        assert_eq!(visible_part(&"ü".repeat(32)), None);
    }

    #[test]
    fn a_prefix_is_one_short_word() {
        assert!(is_prefix("tg") && is_prefix("a-b_C9") && is_prefix(&"a".repeat(16)));
        for bad in ["", "a b", "ä", "a.b", "a\n", &"a".repeat(17)] {
            assert!(!is_prefix(bad), "{bad:?}");
        }
    }
}
