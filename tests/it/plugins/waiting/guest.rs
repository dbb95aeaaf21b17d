//! Plugins that hold what passes them.

/// Where a plugin asks, and holds what is there until it is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the head of the response. The answer becomes its field `x-told`.
    Head,
    /// With the first piece of the body of the response. The answer comes before it.
    Body,
    /// The same, once it has come as a whole.
    WholeBody,
    /// With the first piece of the body of the request, whose head has gone on.
    RequestBody,
    /// The same, once it has come as a whole.
    WholeRequestBody,
}

/// Asks `auth` with the field `x-id` of the request as body; without it nothing is asked. When the answer is not 200 the client
/// gets 403 `no`, and 503 `down` when there is none.
pub fn holds(place: Place) -> Vec<u8> {
    let pairs = b"\x03\0\0\0\x07\0\0\0\x04\0\0\0\x05\0\0\0\x06\0\0\0\x0a\0\0\0\x09\0\0\0\
        :method\0POST\0:path\0/check\0:authority\0auth.test\0";
    let hex: String = pairs.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let of_request = matches!(place, Place::RequestBody | Place::WholeRequestBody);
    let whole = i32::from(matches!(place, Place::WholeBody | Place::WholeRequestBody));
    let (way, body) = if of_request { (0, "request") } else { (1, "response") };
    // `x-told` is added to a head, `:body` put before one.
    let told = match place {
        Place::Head => {
            "(drop (call $add (i32.const 2) (i32.const 26) (i32.const 6) (local.get $at) (local.get $length)))"
                .to_owned()
        }
        _ => format!(
            "(drop (call $set (i32.const {way}) (i32.const 0) (i32.const 0) (local.get $at) (local.get $length)))"
        ),
    };
    let in_body = if place == Place::Head {
        String::new()
    } else {
        format!(
            r#"(func (export "proxy_on_{body}_body") (param $id i32) (param $size i32) (param $ends i32) (result i32)
            (if (global.get $done) (then (return (i32.const 0))))
            (if (i32.and (i32.eqz (local.get $ends)) (i32.const {whole})) (then (return (i32.const 1))))
            (call $ask)
            (i32.const 1))"#
        )
    };
    // What says how long the body is goes, where it gets longer.
    let shortened = |own: bool, map: u32| {
        let text = format!("(drop (call $remove (i32.const {map}) (i32.const 64) (i32.const 14)))");
        if own { text } else { String::new() }
    };
    let (request_length, response_length) =
        (shortened(of_request, 0), shortened(!of_request && place != Place::Head, 2));
    let in_head = if place == Place::Head { "(call $ask) (return (i32.const 1))" } else { "" };
    let size = pairs.len();
    let text = format!(
        r#"(module
        (import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
        (import "env" "proxy_get_buffer_bytes" (func $body (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
        (import "env" "proxy_send_local_response" (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (global $top (mut i32) (i32.const 32768))
        (global $asked (mut i32) (i32.const 0))
        (global $done (mut i32) (i32.const 0))
        (data (i32.const 0) "auth")
        (data (i32.const 16) "x-idx-userx-told:statusnodown")
        (data (i32.const 64) "content-length")
        (data (i32.const 128) "{hex}")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_context_create") (param i32 i32)
            (global.set $top (i32.const 32768))
            (global.set $asked (i32.const 0))
            (global.set $done (i32.const 0)))
        (func (export "proxy_on_memory_allocate") (param $size i32) (result i32) (local $at i32)
            (local.set $at (global.get $top))
            (global.set $top (i32.add (global.get $top) (local.get $size)))
            (local.get $at))
        (func $say (param $status i32) (param $at i32) (param $size i32)
            (drop (call $answer (local.get $status) (i32.const 0) (i32.const 0) (local.get $at) (local.get $size)
                (i32.const 0) (i32.const 0) (i32.const -1))))
        (func $ask
            (if (global.get $asked) (then (return)))
            (global.set $asked (i32.const 1))
            (if (call $call (i32.const 0) (i32.const 4) (i32.const 128) (i32.const {size})
                    (i32.load (i32.const 512)) (i32.load (i32.const 516)) (i32.const 0) (i32.const 0)
                    (i32.const 600000) (i32.const 520))
                (then (call $say (i32.const 503) (i32.const 41) (i32.const 4)))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (i64.store (i32.const 512) (i64.const 0))
            (if (call $get (i32.const 0) (i32.const 16) (i32.const 4) (i32.const 512) (i32.const 516))
                (then (global.set $done (i32.const 1))))
            {request_length}
            (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (if (global.get $done) (then (return (i32.const 0))))
            {response_length}
            {in_head}
            (i32.const 0))
        {in_body}
        (func (export "proxy_on_http_call_response")
            (param $context i32) (param $number i32) (param $fields i32) (param $size i32) (param $trailers i32)
            (local $at i32) (local $length i32)
            (if (i32.eqz (local.get $fields))
                (then (call $say (i32.const 503) (i32.const 41) (i32.const 4)) (return)))
            (drop (call $get (i32.const 6) (i32.const 32) (i32.const 7) (i32.const 532) (i32.const 536)))
            (if (i32.ne (i32.load8_u (i32.load (i32.const 532))) (i32.const 50))
                (then (call $say (i32.const 403) (i32.const 39) (i32.const 2)) (return)))
            (drop (call $body (i32.const 4) (i32.const 0) (local.get $size) (i32.const 540) (i32.const 544)))
            (local.set $at (i32.load (i32.const 540)))
            (local.set $length (i32.load (i32.const 544)))
            {told}
            (global.set $done (i32.const 1))
            (drop (call $continue (i32.const {way})))))"#
    );
    wat::parse_str(text).unwrap()
}
