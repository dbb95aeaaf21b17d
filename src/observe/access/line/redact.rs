//! Keeps credentials that travel in URLs out of the log.

use std::borrow::Cow;

use smallvec::SmallVec;

/// What is shown instead of a value.
pub const REDACTED: &str = "[redacted]";

/// A parameter is a credential when its decoded, lower-case name contains one of these. Broad on purpose: `author`
/// is hidden for the sake of `auth`, because a log that shows too little can be mended and one that shows too much
/// cannot. `sig` stands for `signature` too.
const CREDENTIAL_WORDS: [&[u8]; 10] =
    [b"token", b"password", b"passwd", b"secret", b"key", b"sig", b"auth", b"code", b"session", b"credential"];

/// Names of parameters that an operator chose for credentials: hidden in any case and percent-encoding.
#[derive(Clone, Debug, Default)]
pub struct Hidden {
    /// In lower case.
    names: Vec<Box<[u8]>>,
}

impl Hidden {
    /// Only parameters whose names look like credentials are hidden.
    pub const NONE: Self = Self { names: Vec::new() };

    pub fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut names: Vec<Box<[u8]>> = names.map(|name| name.to_ascii_lowercase().into_bytes().into()).collect();
        names.sort_unstable();
        names.dedup();
        Self { names }
    }

    fn names(&self, name: &[u8]) -> bool {
        self.names.iter().any(|hidden| **hidden == *name)
    }
}

/// The query with the value of every credential-like parameter replaced by [`REDACTED`].
///
/// Names are percent-decoded once before they are judged. A `;`, `?` or `#` inside a pair starts another name, since
/// some servers read it so; what follows a credential is hidden up to the next `&`. A name without `=` stays.
pub fn redact_query<'q>(query: &'q str, hidden: &Hidden) -> Cow<'q, str> {
    if !query.split('&').any(|pair| credential_at(pair.as_bytes(), hidden).is_some()) {
        return Cow::Borrowed(query);
    }
    let mut shown = Vec::with_capacity(query.len().saturating_add(REDACTED.len()));
    each_query_piece(query.as_bytes(), hidden, &mut |piece| shown.extend_from_slice(piece));
    Cow::Owned(String::from_utf8_lossy(&shown).into_owned())
}

/// Hands `emit` the redacted query piece by piece. Cuts are at ASCII characters only, so valid UTF-8 stays valid.
pub(super) fn each_query_piece(query: &[u8], hidden: &Hidden, emit: &mut dyn FnMut(&[u8])) {
    for (place, pair) in query.split(|byte| *byte == b'&').enumerate() {
        if place > 0 {
            emit(b"&");
        }
        match credential_at(pair, hidden).and_then(|at| pair.get(..at)) {
            Some(kept) => {
                emit(kept);
                emit(REDACTED.as_bytes());
            }
            None => emit(pair),
        }
    }
}

/// Hands `emit` a `Referer` without its userinfo, its query and fragment redacted like [`redact_query`].
pub(super) fn each_referer_piece(referer: &[u8], hidden: &Hidden, emit: &mut dyn FnMut(&[u8])) {
    let tail_at = referer.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(referer.len());
    let (address, tail) = referer.split_at_checked(tail_at).unwrap_or((referer, b""));
    let authority_at = address.windows(2).position(|pair| pair == b"//").map_or(0, |at| at.saturating_add(2));
    let (scheme, rest) = address.split_at_checked(authority_at).unwrap_or((b"", address));
    let path_at = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(path_at).unwrap_or((rest, b""));
    emit(scheme);
    // The last `@` ends the userinfo: an unencoded one inside a password must not save the rest of it.
    emit(authority.rsplit(|byte| *byte == b'@').next().unwrap_or(authority));
    emit(path);
    if !tail.is_empty() {
        each_query_piece(tail, hidden, emit);
    }
}

/// Where the value of a credential starts within one `&`-separated pair.
fn credential_at(pair: &[u8], hidden: &Hidden) -> Option<usize> {
    let mut start = 0_usize;
    for part in pair.split(|byte| matches!(byte, b';' | b'?' | b'#')) {
        if let Some(equals) = part.iter().position(|byte| *byte == b'=')
            && part.get(..equals).is_some_and(|name| names_credential(name, hidden))
        {
            return Some(start.saturating_add(equals).saturating_add(1));
        }
        start = start.saturating_add(part.len()).saturating_add(1);
    }
    None
}

fn names_credential(name: &[u8], hidden: &Hidden) -> bool {
    let mut decoded = SmallVec::<[u8; 64]>::new();
    let mut rest = name;
    while let Some((&first, after)) = rest.split_first() {
        let (byte, next) = match after.split_at_checked(2) {
            Some((digits, after_digits)) if first == b'%' => match hex_byte(digits) {
                Some(byte) => (byte, after_digits),
                None => (first, after),
            },
            _ => (first, after),
        };
        decoded.push(byte.to_ascii_lowercase());
        rest = next;
    }
    hidden.names(&decoded)
        || CREDENTIAL_WORDS.iter().any(|word| decoded.windows(word.len()).any(|window| window == *word))
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let &[high, low] = digits else { return None };
    let high = char::from(high).to_digit(16)?;
    let low = char::from(low).to_digit(16)?;
    u8::try_from((high << 4) | low).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn referer(given: &str) -> String {
        let mut shown = Vec::new();
        each_referer_piece(given.as_bytes(), &Hidden::default(), &mut |piece| shown.extend_from_slice(piece));
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn hides_the_values_of_credentials_only() {
        for (given, shown) in [
            ("", ""),
            ("a=b", "a=b"),
            ("token=x", "token=[redacted]"),
            ("a=b&TOKEN=x", "a=b&TOKEN=[redacted]"),
            ("to%6ben=x&a=1", "to%6ben=[redacted]&a=1"),
            ("to%6Ben=x", "to%6Ben=[redacted]"),
            ("to%6gen=x", "to%6gen=x"),
            ("tok=x", "tok=x"),
            ("toke%6", "toke%6"),
            ("token", "token"),
            ("token=", "token=[redacted]"),
            ("a=token", "a=token"),
            ("=token", "=token"),
            ("x_access_token_y=1", "x_access_token_y=[redacted]"),
            ("filter[apiKey]=1", "filter[apiKey]=[redacted]"),
            ("X-Amz-Signature=1&X-Amz-Date=2", "X-Amz-Signature=[redacted]&X-Amz-Date=2"),
            ("token=a=b=c", "token=[redacted]"),
            ("a=1;token=x", "a=1;token=[redacted]"),
            ("token=x;y&z=1", "token=[redacted]&z=1"),
            ("next=/in?token=x&a=ü", "next=/in?token=[redacted]&a=ü"),
            ("ü=1&pässwort=2&passwd=ü", "ü=1&pässwort=2&passwd=[redacted]"),
            ("&&", "&&"),
        ] {
            assert_eq!(redact_query(given, &Hidden::default()), shown, "{given}");
        }
    }

    #[test]
    fn every_word_of_the_contract_is_known() {
        for word in [
            "token",
            "password",
            "passwd",
            "secret",
            "key",
            "signature",
            "sig",
            "auth",
            "code",
            "session",
            "credential",
        ] {
            assert_eq!(redact_query(&format!("my_{word}s=1"), &Hidden::default()), format!("my_{word}s=[redacted]"));
        }
    }

    #[test]
    fn chosen_names_are_hidden_in_every_spelling() {
        let hidden = Hidden::new(["Ticket", "t"].into_iter());
        for (given, shown) in [
            ("ticket=x&a=1", "ticket=[redacted]&a=1"),
            ("TICKET=x", "TICKET=[redacted]"),
            ("t%69cket=x", "t%69cket=[redacted]"),
            ("a=1;ticket=x", "a=1;ticket=[redacted]"),
            ("T=x", "T=[redacted]"),
            ("tickets=x&at=y", "tickets=x&at=y"),
        ] {
            assert_eq!(redact_query(given, &hidden), shown, "{given}");
        }
        let mut referer = Vec::new();
        each_referer_piece(b"https://a.example/?ticket=x", &hidden, &mut |piece| referer.extend_from_slice(piece));
        assert_eq!(referer, b"https://a.example/?ticket=[redacted]");
    }

    #[test]
    fn an_untouched_query_is_borrowed_and_many_pairs_are_all_seen() {
        assert!(matches!(redact_query("page=2&status=open", &Hidden::default()), Cow::Borrowed(_)));
        let many = vec!["token=hush"; 1000].join("&");
        assert!(!redact_query(&many, &Hidden::default()).contains("hush"));
    }

    #[test]
    fn a_referer_loses_userinfo_and_credentials() {
        for (given, shown) in [
            ("https://example.com/a?b=c", "https://example.com/a?b=c"),
            ("https://user:pw@example.com/a@b?token=x", "https://example.com/a@b?token=[redacted]"),
            ("https://u:p@w@example.com", "https://example.com"),
            ("//u@example.com/", "//example.com/"),
            ("user:pw@example.com/", "example.com/"),
            ("https://example.com/#access_token=x&a=1", "https://example.com/#access_token=[redacted]&a=1"),
            ("/local?code=1#x", "/local?code=[redacted]"),
            ("", ""),
        ] {
            assert_eq!(referer(given), shown, "{given}");
        }
    }
}
