//! The plugin that asks.

/// Asks `auth` with the field `x-id` as body, and holds the request meanwhile. An answer of 200 becomes `x-user` of the request
/// and `x-told` of the response; of any other the client gets 403 `no`, of none 503 `down`, and 500 `refused` where the service
/// cannot be asked.
pub fn asks(timeout: u32) -> Vec<u8> {
    let pairs = pairs(&[
        (":method", "POST"),
        (":path", "/check?a=b"),
        (":authority", "auth.test"),
        ("x-own", "1"),
        ("content-length", "1000"),
    ]);
    let hex: String = pairs.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let size = pairs.len();
    let text = format!(
        r#"(module
        (import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
        (import "env" "proxy_get_buffer_bytes" (func $body (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_send_local_response" (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (global $top (mut i32) (i32.const 32768))
        (data (i32.const 0) "auth")
        (data (i32.const 16) "x-idx-userx-told:statusnodownrefused")
        (data (i32.const 128) "{hex}")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_context_create") (param i32 i32) (global.set $top (i32.const 32768)))
        (func (export "proxy_on_memory_allocate") (param $size i32) (result i32) (local $at i32)
            (local.set $at (global.get $top))
            (global.set $top (i32.add (global.get $top) (local.get $size)))
            (local.get $at))
        (func $say (param $status i32) (param $at i32) (param $size i32)
            (drop (call $answer (local.get $status) (i32.const 0) (i32.const 0) (local.get $at) (local.get $size)
                (i32.const 0) (i32.const 0) (i32.const -1))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (i64.store (i32.const 512) (i64.const 0))
            (i64.store (i32.const 528) (i64.const 0))
            (drop (call $get (i32.const 0) (i32.const 16) (i32.const 4) (i32.const 512) (i32.const 516)))
            (if (call $call (i32.const 0) (i32.const 4) (i32.const 128) (i32.const {size})
                    (i32.load (i32.const 512)) (i32.load (i32.const 516)) (i32.const 0) (i32.const 0)
                    (i32.const {timeout}) (i32.const 520))
                (then (call $say (i32.const 500) (i32.const 45) (i32.const 7))))
            (i32.const 1))
        (func (export "proxy_on_http_call_response")
            (param $context i32) (param $number i32) (param $fields i32) (param $size i32) (param $trailers i32)
            (if (i32.eqz (local.get $fields))
                (then (call $say (i32.const 503) (i32.const 41) (i32.const 4)) (return)))
            (drop (call $get (i32.const 6) (i32.const 32) (i32.const 7) (i32.const 512) (i32.const 516)))
            (if (i32.ne (i32.load8_u (i32.load (i32.const 512))) (i32.const 50))
                (then (call $say (i32.const 403) (i32.const 39) (i32.const 2)) (return)))
            (drop (call $body (i32.const 4) (i32.const 0) (local.get $size) (i32.const 528) (i32.const 532)))
            (drop (call $add (i32.const 0) (i32.const 20) (i32.const 6) (i32.load (i32.const 528)) (i32.load (i32.const 532))))
            (drop (call $continue (i32.const 0))))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (if (i32.load (i32.const 532))
                (then (drop (call $add (i32.const 2) (i32.const 26) (i32.const 6)
                    (i32.load (i32.const 528)) (i32.load (i32.const 532))))))
            (i32.const 0)))"#
    );
    wat::parse_str(text).unwrap()
}

/// Fields as the ABI writes them.
fn pairs(fields: &[(&str, &str)]) -> Vec<u8> {
    let length = |text: &str| u32::try_from(text.len()).unwrap().to_le_bytes();
    let mut bytes = u32::try_from(fields.len()).unwrap().to_le_bytes().to_vec();
    fields.iter().for_each(|(name, value)| bytes.extend([length(name), length(value)].concat()));
    for (name, value) in fields {
        bytes.extend(format!("{name}\0{value}\0").into_bytes());
    }
    bytes
}
