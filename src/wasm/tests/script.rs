//! A plugin that does what a script says: its configuration. It calls any function with any arguments, at any time, also while
//! it is asked for memory. The fuzz target `plugin` runs it too.
//!
//! A step is one byte: below [`FIRST`] the number of a function, in the order that they are given in, and its arguments;
//! from there on one of [`Step`]. An argument is one byte, see [`argument`], or more.

use std::fmt::Write as _;

use super::Function;

/// The first step that is no function.
pub const FIRST: u8 = 200;
/// Where the script is put in memory, and how large that is.
pub const SCRIPT_AT: u32 = 65_536;
pub const MEMORY_BYTES: u32 = 4 * 65_536;

/// Steps that are no function.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Step {
    /// Returns from the callback; the byte behind it is the result.
    Return = FIRST,
    /// How memory is given from now on: the byte behind it is one of [`Memory`].
    Memory,
    /// Writes four bytes: address and number are arguments.
    Write,
    /// Takes so many more pages.
    Grow,
    /// Traps when the last function returned 0.
    Refused,
    /// Traps when the last function returned anything else.
    Done,
}

/// How the plugin gives memory.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Memory {
    Sound,
    None,
    /// The largest address.
    Beyond,
    /// The last byte.
    Last,
    /// It does the next step of the script first.
    Steps,
    Traps,
    Hangs,
}

/// An argument: small numbers stand for themselves.
pub fn argument(number: u32) -> Vec<u8> {
    let special = SPECIAL.iter().position(|special| *special == number);
    match (u8::try_from(number), special) {
        (Ok(small), _) if small < SPECIAL_FIRST => vec![small],
        (_, Some(at)) => vec![SPECIAL_FIRST + u8::try_from(at).unwrap_or_default()],
        _ => [&[u8::MAX], &number.to_le_bytes()[..]].concat(),
    }
}

const SPECIAL_FIRST: u8 = 240;
/// Numbers where things go wrong.
const SPECIAL: [u32; 10] = [
    u32::MAX,
    MEMORY_BYTES - 1,
    MEMORY_BYTES,
    MEMORY_BYTES - 4,
    MEMORY_BYTES - 8,
    i32::MAX as u32,
    1 << 31,
    SCRIPT_AT,
    1024,
    4096,
];

/// What lies at the beginning of the memory: words to point at.
const WORDS: &str = "x-a\\00plugin_name\\00request\\00path\\00headers\\00:path\\00:status\\00:method/a?b=%2f\
    \\01\\00\\00\\00\\01\\00\\00\\00\\01\\00\\00\\00a\\00b\\00content-length\\00host\\00connection\\00queue\\00tollgate\\00route\
    \\03\\00\\00\\00\\07\\00\\00\\00\\03\\00\\00\\00\\05\\00\\00\\00\\01\\00\\00\\00\\0a\\00\\00\\00\\01\\00\\00\\00\
    :method\\00GET\\00:path\\00/\\00:authority\\00a\\00";

/// The plugin, for these functions.
pub fn guest(functions: &[Function]) -> String {
    let mut imports = String::new();
    let mut calls = String::new();
    for (number, function) in functions.iter().enumerate().take(usize::from(FIRST)) {
        let types: String = function.wide.iter().map(|wide| if *wide { " i64" } else { " i32" }).collect();
        let result = if function.returns { " (result i32)" } else { "" };
        let _ = writeln!(
            imports,
            r#"(import "{}" "{}" (func $f{number} (param{types}){result}))"#,
            function.module, function.name
        );
        let arguments: String =
            function.wide.iter().map(|wide| if *wide { " (call $wide)" } else { " (call $argument)" }).collect();
        let call = format!("(call $f{number}{arguments})");
        let call = if function.returns { format!("(global.set $last {call})") } else { call };
        let _ = writeln!(
            calls,
            "(if (i32.eq (local.get $step) (i32.const {number})) (then {call} (return (i32.const -1))))"
        );
    }
    let buffer = functions.iter().position(|function| function.name == "proxy_get_buffer_bytes").unwrap_or_default();
    format!("(module {imports} {} {} {})", steps(&calls), MEMORY, callbacks(buffer))
}

/// Reads the script. `$step` gives the result of the callback, or -1 when it goes on.
fn steps(calls: &str) -> String {
    let special: String = SPECIAL.iter().enumerate().fold(String::new(), |mut text, (index, number)| {
        let byte = usize::from(SPECIAL_FIRST) + index;
        let _ = writeln!(
            text,
            "(if (i32.eq (local.get $byte) (i32.const {byte})) (then (return (i32.const {}))))",
            *number as i32
        );
        text
    });
    format!(
        r#"
        (global $at (mut i32) (i32.const 0)) (global $end (mut i32) (i32.const 0))
        (global $last (mut i32) (i32.const 0)) (global $memory (mut i32) (i32.const 0))
        (func $byte (result i32)
            (if (i32.ge_u (global.get $at) (global.get $end)) (then (return (i32.const 0))))
            (global.set $at (i32.add (global.get $at) (i32.const 1)))
            (i32.load8_u (i32.sub (global.get $at) (i32.const 1))))
        (func $argument (result i32) (local $byte i32)
            (local.set $byte (call $byte))
            {special}
            (if (i32.lt_u (local.get $byte) (i32.const 255)) (then (return (local.get $byte))))
            (i32.or (i32.or (call $byte) (i32.shl (call $byte) (i32.const 8)))
                (i32.or (i32.shl (call $byte) (i32.const 16)) (i32.shl (call $byte) (i32.const 24)))))
        (func $wide (result i64) (i64.extend_i32_s (call $argument)))
        (func $step (result i32) (local $step i32)
            (if (i32.ge_u (global.get $at) (global.get $end)) (then (return (i32.const 0))))
            (local.set $step (call $byte))
            (if (i32.eq (local.get $step) (i32.const 200)) (then (return (call $byte))))
            (if (i32.eq (local.get $step) (i32.const 201)) (then (global.set $memory (call $byte))))
            (if (i32.eq (local.get $step) (i32.const 202)) (then
                (i32.store (i32.and (call $argument) (i32.const 0xffff)) (call $argument))))
            (if (i32.eq (local.get $step) (i32.const 203)) (then (drop (memory.grow (call $byte)))))
            (if (i32.eq (local.get $step) (i32.const 204)) (then (if (i32.eqz (global.get $last)) (then unreachable))))
            (if (i32.eq (local.get $step) (i32.const 205)) (then (if (global.get $last) (then unreachable))))
            {calls}
            (i32.const -1))
        (func $run (result i32) (local $result i32)
            (loop $again
                (local.set $result (call $step))
                (br_if $again (i32.eq (local.get $result) (i32.const -1))))
            (local.get $result))"#
    )
}

/// The memory and how it is given: round and round the third page, so that it never runs out.
const MEMORY: &str = r#"
    (memory (export "memory") 4)
    (global $top (mut i32) (i32.const 131072))
    (func $room (param $size i32) (result i32)
        (if (i32.gt_u (i32.add (global.get $top) (local.get $size)) (i32.const 196608))
            (then (global.set $top (i32.const 131072))))
        (global.set $top (i32.add (global.get $top) (local.get $size)))
        (i32.sub (global.get $top) (local.get $size)))
    (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
        (if (i32.eq (global.get $memory) (i32.const 1)) (then (return (i32.const 0))))
        (if (i32.eq (global.get $memory) (i32.const 2)) (then (return (i32.const -1))))
        (if (i32.eq (global.get $memory) (i32.const 3)) (then (return (i32.const 262143))))
        (if (i32.eq (global.get $memory) (i32.const 4)) (then (drop (call $step))))
        (if (i32.eq (global.get $memory) (i32.const 5)) (then unreachable))
        (if (i32.eq (global.get $memory) (i32.const 6)) (then (loop $again (br $again))))
        (call $room (local.get $size)))"#;

/// Fetches the script, and follows it from there in every callback.
fn callbacks(buffer: usize) -> String {
    let mut text = format!(
        r#"(data (i32.const 0) "{WORDS}")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (if (call $f{buffer} (i32.const 7) (i32.const 0) (i32.const 60000) (i32.const 256) (i32.const 260))
                (then (return (i32.const 1))))
            (memory.copy (i32.const {SCRIPT_AT}) (i32.load (i32.const 256)) (i32.load (i32.const 260)))
            (global.set $at (i32.const {SCRIPT_AT}))
            (global.set $end (i32.add (i32.const {SCRIPT_AT}) (i32.load (i32.const 260))))
            (i32.const 1))"#
    );
    let returning = [
        ("request_headers", 3),
        ("request_body", 3),
        ("request_trailers", 2),
        ("response_headers", 3),
        ("response_body", 3),
        ("response_trailers", 2),
        ("done", 1),
    ];
    let silent =
        [("context_create", 2), ("tick", 1), ("queue_ready", 2), ("http_call_response", 5), ("log", 1), ("delete", 1)];
    for (name, params) in returning {
        let params = " i32".repeat(params);
        let _ = writeln!(text, r#"(func (export "proxy_on_{name}") (param{params}) (result i32) (call $run))"#);
    }
    for (name, params) in silent {
        let params = " i32".repeat(params);
        let _ = writeln!(text, r#"(func (export "proxy_on_{name}") (param{params}) (drop (call $run)))"#);
    }
    text
}
