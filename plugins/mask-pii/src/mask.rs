//! Finds what is personal in a text that comes in pieces, and puts something else in its place.
//!
//! Nothing is kept but what may still become a match: the end of a piece that breaks off within a word or a number. Every
//! kind of match is bounded, so what is kept is bounded too.

/// What is looked for, and what is put in its place.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub cards: Option<Vec<u8>>,
    pub emails: Option<Vec<u8>>,
    pub ibans: Option<Vec<u8>>,
    pub patterns: Vec<(Pattern, Vec<u8>)>,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Card,
    Email,
    Iban,
    /// The pattern with this number.
    Pattern(usize),
}

/// A pattern of the configuration: `EMP-####`. `#` is a digit, `@` a letter, `\` takes the next character as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Class>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Digit,
    Letter,
    Byte(u8),
}

/// Longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 64;
const LOCAL_PART_BYTES_MAX: usize = 64;
const DOMAIN_BYTES_MAX: usize = 253;
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// How many characters an IBAN has in each country. Source: the IBAN registry of SWIFT.
const IBAN_LENGTHS: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 \
                            DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 \
                            IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 \
                            MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 \
                            SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30";

/// Whether something begins at a place.
enum Found {
    No,
    /// It ends before this place.
    Until(usize),
    /// That depends on what comes next.
    Maybe,
}

impl Pattern {
    /// # Errors
    /// Why it is none, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut classes = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            classes.push(match byte {
                b'#' => Class::Digit,
                b'@' => Class::Letter,
                b'\\' => Class::Byte(bytes.next().ok_or("a pattern does not end with `\\`")?),
                byte => Class::Byte(byte),
            });
        }
        if classes.is_empty() || classes.len() > PATTERN_BYTES_MAX {
            return Err(format!("a pattern has 1 to {PATTERN_BYTES_MAX} characters"));
        }
        Ok(Self(classes))
    }
}

/// The text of one answer.
#[derive(Debug)]
pub struct Mask {
    json: Json,
    /// What may still become a match.
    kept: Vec<u8>,
    /// The same as it is looked at; see [`Json::plain`].
    kept_plain: Vec<u8>,
    /// The last bytes before it.
    before: [u8; 2],
    /// That was within a string.
    in_string: bool,
    is_json: bool,
}

impl Mask {
    pub fn new(is_json: bool) -> Self {
        Self {
            json: Json::default(),
            kept: Vec::new(),
            kept_plain: Vec::new(),
            before: [b' '; 2],
            in_string: false,
            is_json,
        }
    }

    /// Takes a piece and gives what can go on, masked. `found` is told of each match.
    pub fn piece(&mut self, rules: &Rules, piece: &[u8], is_last: bool, found: &mut dyn FnMut(Kind)) -> Vec<u8> {
        let mut plain = std::mem::take(&mut self.kept_plain);
        if self.is_json {
            plain.extend(piece.iter().map(|byte| self.json.plain(*byte)));
        } else {
            plain.extend_from_slice(piece);
        }
        let mut text = std::mem::take(&mut self.kept);
        text.extend_from_slice(piece);
        let mut masked = Vec::with_capacity(text.len());
        let mut at = 0;
        while at < text.len() {
            let (kind, end) = match rules.look(&plain, at, self.before, is_last) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.pass(&plain, at);
                    masked.push(text[at]);
                    at += 1;
                    continue;
                }
                Err(Undecided) => break,
            };
            found(kind);
            // A number that stands bare in JSON stays a number.
            let is_bare = self.is_json && !self.in_string;
            masked.extend_from_slice(if is_bare { b"0" } else { rules.replacement(kind) });
            while at < end {
                self.pass(&plain, at);
                at += 1;
            }
        }
        self.kept = text.split_off(at);
        self.kept_plain = plain.split_off(at);
        masked
    }

    fn pass(&mut self, plain: &[u8], at: usize) {
        self.before = [self.before[1], plain[at]];
        // Quotes that are part of a string were made plain.
        self.in_string ^= plain[at] == b'"';
    }
}

/// Nothing can be said before more has come.
struct Undecided;

impl Rules {
    pub fn replacement(&self, kind: Kind) -> &[u8] {
        let text = match kind {
            Kind::Card => self.cards.as_ref(),
            Kind::Email => self.emails.as_ref(),
            Kind::Iban => self.ibans.as_ref(),
            Kind::Pattern(number) => self.patterns.get(number).map(|(_, text)| text),
        };
        text.map_or(b"", Vec::as_slice)
    }

    /// What begins at `at`, and where it ends.
    fn look(&self, text: &[u8], at: usize, last: [u8; 2], is_last: bool) -> Result<Option<(Kind, usize)>, Undecided> {
        let [before_that, before] = last;
        let first = text[at];
        let begins_word = !is_word(before);
        let is_fraction = before == b'.' && before_that.is_ascii_digit();
        let patterns = self.patterns.iter().enumerate().map(|(number, (pattern, _))| (Kind::Pattern(number), pattern));
        for (kind, pattern) in patterns.filter(|_| begins_word) {
            if let Some(end) = decided(&pattern.at(text, at), text, is_last)? {
                return Ok(Some((kind, end)));
            }
        }
        if self.ibans.is_some()
            && begins_word
            && first.is_ascii_alphabetic()
            && let Some(end) = decided(&iban(text, at), text, is_last)?
        {
            return Ok(Some((Kind::Iban, end)));
        }
        if self.cards.is_some()
            && begins_word
            && !is_fraction
            && (b'2'..=b'6').contains(&first)
            && let Some(end) = decided(&card(text, at, is_last), text, is_last)?
        {
            return Ok(Some((Kind::Card, end)));
        }
        if self.emails.is_some()
            && !is_local(before)
            && is_local(first)
            && let Some(end) = decided(&email(text, at, is_last), text, is_last)?
        {
            return Ok(Some((Kind::Email, end)));
        }
        Ok(None)
    }
}

/// At the end of the text `Maybe` is no, and what reaches the end of a piece may be longer.
fn decided(found: &Found, text: &[u8], is_last: bool) -> Result<Option<usize>, Undecided> {
    match found {
        Found::No => Ok(None),
        Found::Until(end) if *end < text.len() || is_last => Ok(Some(*end)),
        Found::Maybe if is_last => Ok(None),
        Found::Until(_) | Found::Maybe => Err(Undecided),
    }
}

/// Part of a word: what begins or ends beside one is something else. Bytes of letters beyond ASCII are.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

impl Pattern {
    fn at(&self, text: &[u8], at: usize) -> Found {
        for (offset, class) in self.0.iter().enumerate() {
            let Some(byte) = text.get(at + offset) else { return Found::Maybe };
            let fits = match class {
                Class::Digit => byte.is_ascii_digit(),
                Class::Letter => byte.is_ascii_alphabetic(),
                Class::Byte(own) => own == byte,
            };
            if !fits {
                return Found::No;
            }
        }
        let end = at + self.0.len();
        if text.get(end).is_some_and(|byte| is_word(*byte)) { Found::No } else { Found::Until(end) }
    }
}

/// 13 to 19 digits in groups, the last of which makes the sum of Luhn right (ISO/IEC 7812-1).
fn card(text: &[u8], begin: usize, is_last: bool) -> Found {
    let mut digits = [0_u8; 20];
    let mut count = 0;
    let mut found = Found::No;
    let mut at = begin;
    loop {
        match text.get(at) {
            Some(byte) if byte.is_ascii_digit() => {
                if count == *CARD_DIGITS.end() {
                    // The last group is longer than a card: what ended before it may be one.
                    return found;
                }
                digits[count] = byte - b'0';
                count += 1;
                at += 1;
            }
            Some(b' ' | b'-') if at > begin && text[at - 1].is_ascii_digit() => {
                if CARD_DIGITS.contains(&count) && luhn(&digits[..count]) {
                    found = Found::Until(at);
                }
                at += 1;
            }
            None if !is_last => return Found::Maybe,
            // What comes behind the point says whether it is one of a number.
            Some(b'.') if at + 1 == text.len() && !is_last => return Found::Maybe,
            next => {
                let is_fraction = next == Some(&b'.') && text.get(at + 1).is_some_and(u8::is_ascii_digit);
                let ends = text[at - 1].is_ascii_digit() && !next.is_some_and(|byte| is_word(*byte)) && !is_fraction;
                if ends && CARD_DIGITS.contains(&count) && luhn(&digits[..count]) {
                    found = Found::Until(at);
                }
                return found;
            }
        }
    }
}

fn luhn(digits: &[u8]) -> bool {
    let doubled = |digit: u8| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| u32::from(if place % 2 == 1 { doubled(*digit) } else { *digit }))
        .sum();
    sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != digits[0])
}

/// Country, two check digits and the account, in one or in groups of four, 97 to 1 (ISO 13616-1).
fn iban(text: &[u8], begin: usize) -> Found {
    let mut characters = [0_u8; 34];
    let mut count = 0;
    let mut length = characters.len();
    let mut at = begin;
    while count < length {
        let Some(byte) = text.get(at) else { return Found::Maybe };
        at += 1;
        if *byte == b' ' && count > 0 && count % 4 == 0 && text[at - 2] != b' ' {
            continue;
        }
        let fits = match count {
            0 | 1 => byte.is_ascii_alphabetic(),
            2 | 3 => byte.is_ascii_digit(),
            _ => byte.is_ascii_alphanumeric(),
        };
        if !fits {
            return Found::No;
        }
        characters[count] = byte.to_ascii_uppercase();
        count += 1;
        if count == 2 {
            match length_in(&characters[..2]) {
                Some(known) => length = known,
                None => return Found::No,
            }
        }
    }
    let is_right = !text.get(at).is_some_and(|byte| is_word(*byte)) && mod97(&characters[..length]) == 1;
    if is_right { Found::Until(at) } else { Found::No }
}

fn length_in(country: &[u8]) -> Option<usize> {
    let entry = IBAN_LENGTHS.split_ascii_whitespace().find(|entry| entry.as_bytes().starts_with(country))?;
    entry.get(2..)?.parse().ok()
}

fn mod97(characters: &[u8]) -> u32 {
    let (first, rest) = characters.split_at(4);
    rest.iter().chain(first).fold(0, |sum, character| {
        let digit = char::from(*character).to_digit(36).unwrap_or_default();
        if digit < 10 { (sum * 10 + digit) % 97 } else { (sum * 100 + digit) % 97 }
    })
}

fn is_local(byte: u8) -> bool {
    is_word(byte) || b"._%+-".contains(&byte)
}

/// A name, `@`, a domain with a dot in it and letters behind the last one.
fn email(text: &[u8], begin: usize, is_last: bool) -> Found {
    let mut at = begin;
    loop {
        match text.get(at) {
            None if at - begin <= LOCAL_PART_BYTES_MAX => return Found::Maybe,
            Some(b'@') if at > begin && at - begin <= LOCAL_PART_BYTES_MAX => break,
            Some(byte) if is_local(*byte) && at - begin < LOCAL_PART_BYTES_MAX => at += 1,
            _ => return Found::No,
        }
    }
    let domain = at + 1;
    let is_domain = |byte: &u8| is_word(*byte) || *byte == b'-' || *byte == b'.';
    let longest = text[domain..].iter().take(DOMAIN_BYTES_MAX + 1);
    let mut end = domain + longest.take_while(|byte| is_domain(byte)).count();
    if end == text.len() && end - domain <= DOMAIN_BYTES_MAX && !is_last {
        return Found::Maybe;
    }
    while end > domain && !is_word(text[end - 1]) {
        end -= 1;
    }
    if has_name(&text[domain..end]) { Found::Until(end) } else { Found::No }
}

/// `example.com`
fn has_name(domain: &[u8]) -> bool {
    let mut labels = domain.rsplit(|byte| *byte == b'.');
    let top = labels.next().unwrap_or_default();
    let is_top = top.len() >= 2 && top.iter().all(|byte| byte.is_ascii_alphabetic() || *byte >= 0x80);
    let mut rest = labels.peekable();
    is_top && rest.peek().is_some() && rest.all(|label| !label.is_empty())
}

/// Where in JSON a byte stands.
#[derive(Debug, Default)]
struct Json {
    in_string: bool,
    escape: Escape,
}

/// Where in an escape sequence.
#[derive(Debug, Default)]
enum Escape {
    #[default]
    None,
    /// Behind the `\`.
    Begun,
    /// So many digits behind `\u` are to come.
    Digits(u8),
}

impl Json {
    /// The byte as it is looked at: what an escape sequence is made of is part of no word.
    fn plain(&mut self, byte: u8) -> u8 {
        const NOTHING: u8 = 0;
        let (escape, plain) = match self.escape {
            Escape::Begun if byte == b'u' => (Escape::Digits(4), NOTHING),
            Escape::Digits(count) if count > 1 => (Escape::Digits(count - 1), NOTHING),
            Escape::Begun | Escape::Digits(_) => (Escape::None, NOTHING),
            Escape::None if byte == b'\\' && self.in_string => (Escape::Begun, NOTHING),
            Escape::None => (Escape::None, byte),
        };
        self.escape = escape;
        self.in_string ^= plain == b'"';
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        let pattern = (Pattern::parse("EMP-##@").unwrap(), b"[staff]".to_vec());
        Rules { cards: text("[card]"), emails: text("[email]"), ibans: text("[iban]"), patterns: vec![pattern] }
    }

    /// However the text is cut, the same comes out.
    fn masked(text: &str, is_json: bool) -> String {
        let rules = rules();
        let whole = Mask::new(is_json).piece(&rules, text.as_bytes(), true, &mut |_| ());
        for size in [1, 2, 3, 7, 16] {
            let mut mask = Mask::new(is_json);
            let mut pieces = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                pieces.extend(mask.piece(&rules, piece, false, &mut |_| ()));
            }
            pieces.extend(mask.piece(&rules, b"", true, &mut |_| ()));
            assert_eq!(String::from_utf8_lossy(&pieces), String::from_utf8_lossy(&whole), "{text} in pieces of {size}");
        }
        String::from_utf8(whole).unwrap()
    }

    #[test]
    fn cards_have_the_sum_of_luhn() {
        for (text, expected) in [
            ("4111111111111111", "[card]"),
            ("4111111111111112", "4111111111111112"),
            ("pay 4111 1111 1111 1111 now", "pay [card] now"),
            ("5500-0000-0000-0004,378282246310005.", "[card],[card]."),
            ("7 4111 1111 1111 1111 22", "7 [card] 22"),
            ("2024-01-01 4111111111111111", "2024-01-01 [card]"),
            ("order_4111111111111111", "order_[card]"),
            ("x4111111111111111 4111111111111111x", "x4111111111111111 4111111111111111x"),
            ("0.4111111111111111 4111111111111111.5", "0.4111111111111111 4111111111111111.5"),
            ("Done.4111111111111111", "Done.[card]"),
            ("5555555555555555555 22222222222222222222", "5555555555555555555 22222222222222222222"),
            ("6304000000000000001", "6304000000000000001"),
        ] {
            assert_eq!(masked(text, false), expected);
        }
    }

    #[test]
    fn ibans_have_the_length_of_their_country_and_the_right_check_digits() {
        for (text, expected) in [
            ("DE89370400440532013000", "[iban]"),
            ("DE89 3704 0044 0532 0130 00 is it", "[iban] is it"),
            ("gb29 NWBK 6016 1331 9268 19", "[iban]"),
            ("NO9386011117947", "[iban]"),
            ("DE89370400440532013001", "DE89370400440532013001"),
            ("DE8937040044053201300", "DE8937040044053201300"),
            ("DE893704004405320130000", "DE893704004405320130000"),
            ("ZZ89370400440532013000", "ZZ89370400440532013000"),
            ("DE89  3704 0044 0532 0130 00", "DE89  3704 0044 0532 0130 00"),
        ] {
            assert_eq!(masked(text, false), expected);
        }
    }

    #[test]
    fn addresses_have_a_name_and_a_domain() {
        let long = format!("{}@example.com", "a".repeat(65));
        for (text, expected) in [
            ("john.doe+tag@mail.example.com", "[email]"),
            ("<a@b.de>, c@d.org.", "<[email]>, [email]."),
            ("zoë@müller.example", "[email]"),
            ("mailto:a@b.de?x=1", "mailto:[email]?x=1"),
            ("a@localhost @b.de a@ a@.de a@b..de a@b.1", "a@localhost @b.de a@ a@.de a@b..de a@b.1"),
            (long.as_str(), long.as_str()),
            (&long[1..], "[email]"),
        ] {
            assert_eq!(masked(text, false), expected);
        }
    }

    #[test]
    fn patterns_stand_for_themselves() {
        let text = "EMP-12a, EMP-123 EMP-12ab xEMP-12a EMP-12";
        assert_eq!(masked(text, false), "[staff], EMP-123 EMP-12ab xEMP-12a EMP-12");
        assert_eq!(Pattern::parse("\\##").unwrap(), Pattern(vec![Class::Byte(b'#'), Class::Digit]));
        for wrong in ["", "a\\", &"a".repeat(65)] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn json_stays_json() {
        for (text, expected) in [
            (r#"{"a":"4111111111111111","b":4111111111111111}"#, r#"{"a":"[card]","b":0}"#),
            (
                r#"["x\nj@x.de","\"4111111111111111","\u00e94111111111111111"]"#,
                r#"["x\n[email]","\"[card]","\u00e9[card]"]"#,
            ),
            (r#"{"a\\":"DE89370400440532013000"}"#, r#"{"a\\":"[iban]"}"#),
            (r#"[0.4111111111111111,1.0,"EMP-12a"]"#, r#"[0.4111111111111111,1.0,"[staff]"]"#),
        ] {
            assert_eq!(masked(text, true), expected);
        }
    }

    #[test]
    fn what_is_found_is_told_and_no_more_is_kept_than_may_become_a_match() {
        let mut found = Vec::new();
        let mut mask = Mask::new(false);
        let first = mask.piece(&rules(), b"data: hello\n\nto a@b.d", false, &mut |kind| found.push(kind));
        assert_eq!((first.as_slice(), found.len()), (&b"data: hello\n\nto "[..], 0));
        let rest = mask.piece(&rules(), b"e or EMP-77x", true, &mut |kind| found.push(kind));
        assert_eq!((rest.as_slice(), found), (&b"[email] or [staff]"[..], vec![Kind::Email, Kind::Pattern(0)]));
        let mut mask = Mask::new(false);
        for piece in [&[b'a'; 4000][..], &[b'4'; 4000], &[b' '; 4000], b"a@", &[b'b'; 4000]] {
            mask.piece(&rules(), piece, false, &mut |_| ());
            assert!(mask.kept.len() < 400, "{}", mask.kept.len());
        }
    }
}
