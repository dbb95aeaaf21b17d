//! JSON objects of tokens and key sets: what every reader reads alike.

use serde_json::{Map, Value};

use crate::json;

/// How deep objects and arrays may nest, the outermost object included.
const DEPTH_MAX: usize = 16;

/// Reads an object, or nothing at all. Strings are valid UTF-8; numbers are within the range of a 64-bit integer or float.
pub fn object(text: &[u8]) -> Option<Map<String, Value>> {
    match json::parse(text, DEPTH_MAX).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_in_one_way_only_is_read() {
        for good in ["{}", " {\"a\": [1, -2, 0.5, \"ä\", null, true, {\"a\": 1}]}\n", "{\"a\\u0062\":1,\"a\":1}"] {
            assert!(object(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            "",
            "[]",
            "1",
            "\"a\"",
            "{} {}",
            "{}x",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"\\u0061\":2}",
            "{\"a\":{\"b\":1,\"b\":1}}",
            "{\"a\":[{\"b\":1,\"b\":1}]}",
            "{\"a\":1,}",
            "{'a':1}",
            "{\"a\":01}",
            "{\"a\":1e999}",
            "{\"a\":NaN}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\n\"}",
            "\u{feff}{}",
            "{}\0",
        ] {
            assert!(object(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_none());
        assert!(object(b"{\"\xc3\":1}").is_none());
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(object(nested(DEPTH_MAX - 1).as_bytes()).is_some());
        assert!(object(nested(DEPTH_MAX).as_bytes()).is_none());
        assert!(object(nested(100_000).as_bytes()).is_none());
    }
}
