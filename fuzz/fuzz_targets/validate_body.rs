//! The strict reader of JSON: what it takes is what `serde_json` reads, no deeper than allowed, and without a member twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tollgate::json::{DEPTH_MAX, Fault, parse};

fuzz_target!(|input: (u8, &[u8])| {
    let (depth_max, text) = input;
    let depth_max = usize::from(depth_max) % (DEPTH_MAX + 1);
    let known = serde_json::from_slice::<Value>(text);
    match parse(text, depth_max) {
        Ok(value) => {
            assert!(depth(&value) <= depth_max);
            assert_eq!(Some(&value), known.as_ref().ok());
            // Nothing was there twice: writing it and reading it again loses nothing.
            assert_eq!(parse(value.to_string().as_bytes(), depth_max).as_ref(), Ok(&value));
        }
        Err(Fault::Syntax { .. }) => assert!(known.is_err()),
        Err(Fault::TooDeep) => assert!(text.iter().filter(|byte| b"[{".contains(byte)).count() > depth_max),
        Err(Fault::Twice(path)) => assert!(!path.is_empty()),
    }
});

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
