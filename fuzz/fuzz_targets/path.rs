//! The path normaliser: what it accepts has one reading.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::head::is_path;
use tollgate::route::normalise;

fuzz_target!(|raw: &str| {
    let Ok(path) = normalise(raw) else { return };
    assert!(is_path(&path), "{path:?} is no path");
    assert!(path.len() <= raw.len(), "{path:?} is longer");
    assert_eq!(normalise(&path).as_deref(), Ok(&*path), "not idempotent");

    let lower = path.to_ascii_lowercase();
    for never in ["//", "\\", "%2f", "%5c", "#", "?"] {
        assert!(!lower.contains(never), "{path:?} holds {never}");
    }
    for segment in path.split('/') {
        // A server behind the gateway may decode once more, or drop what follows a `;`, before it climbs.
        let read = decode(segment);
        let bare = read.split(|byte| *byte == b';').next().unwrap_or_default();
        assert!(bare != b"." && bare != b"..", "{path:?} holds a dot segment");
        assert!(!read.iter().any(u8::is_ascii_control), "{path:?} holds a control character");
    }
    // Both say the same to a server that decodes once and knows neither `//` nor dot segments.
    if !raw.contains("//") && !raw.split('/').any(|segment| matches!(&*decode(segment), b"." | b"..")) {
        assert_eq!(decode(raw), decode(&path), "the text has changed");
    }
});

fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let escaped = match (byte, tail) {
            (b'%', [high, low, after @ ..]) => {
                digit(*high).zip(digit(*low)).map(|(high, low)| (high << 4 | low, after))
            }
            _ => None,
        };
        let (value, after) = escaped.unwrap_or((*byte, tail));
        bytes.push(value);
        rest = after;
    }
    bytes
}
