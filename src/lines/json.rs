//! Pieces of a JSON object, written straight into a buffer; nothing is allocated on the way.

use std::io::Write as _;

/// Appends `,"name":"value"`.
pub fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    text(out, value);
    out.push(b'"');
}

/// The inside of a JSON string (RFC 8259 §7): invalid UTF-8 becomes U+FFFD; besides what JSON demands, DEL, the C1
/// controls and the two Unicode line separators are escaped, since terminals and viewers act on them.
pub fn text(out: &mut Vec<u8>, value: &[u8]) {
    if value.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        out.extend_from_slice(value);
        return;
    }
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\u{2028}' | '\u{2029}' => put(out, format_args!("\\u{:04x}", u32::from(character))),
                control if control.is_control() => put(out, format_args!("\\u{:04x}", u32::from(control))),
                other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Appends formatted text.
pub fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(text);
}
