//! Plugins in the text form of WebAssembly, each small enough to see what it does.

/// What every plugin has: a memory, room in it that begins anew with every request, the marker of its version, and the host
/// functions that most use. `text` stands at 0.
fn guest(text: &str, body: &str) -> Vec<u8> {
    let text = text.replace('"', "\\22");
    let module = format!(
        r#"(module
            (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
            (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_set_buffer_bytes" (func $set_body (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_send_local_response"
                (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (global $top (mut i32) (i32.const 32768))
            (data (i32.const 0) "{text}")
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_context_create") (param i32 i32) (global.set $top (i32.const 32768)))
            (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
                (local $at i32)
                (local.set $at (global.get $top))
                (global.set $top (i32.add (global.get $top) (local.get $size)))
                (local.get $at))
            {body})"#
    );
    wat::parse_str(module).unwrap()
}

/// Adds `x-plugin: yes` to request and response.
pub fn marks() -> Vec<u8> {
    guest(
        "x-pluginyes",
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $add (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 8) (i32.const 3)))
            (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (drop (call $add (i32.const 2) (i32.const 0) (i32.const 8) (i32.const 8) (i32.const 3)))
            (i32.const 0))"#,
    )
}

/// Looks at heads of both directions and leaves them as they are.
pub fn marks_nothing() -> Vec<u8> {
    guest(
        "",
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))"#,
    )
}

/// Gives responses this status.
pub fn restates(status: &str) -> Vec<u8> {
    guest(
        &format!(":status{status}"),
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (drop (call $add (i32.const 2) (i32.const 0) (i32.const 7) (i32.const 7) (i32.const 3)))
            (i32.const 0))"#,
    )
}

/// Removes the length of responses, and looks at no body.
pub fn unmeasures() -> Vec<u8> {
    guest(
        "content-length",
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (drop (call $remove (i32.const 2) (i32.const 0) (i32.const 14)))
            (i32.const 0))"#,
    )
}

/// Logs `status 200` at the end of an exchange: what the client was answered.
pub fn tells_status() -> Vec<u8> {
    guest(
        ":status",
        r#"(data (i32.const 32761) "status ")
        (func (export "proxy_on_log") (param i32)
            (drop (call $get (i32.const 2) (i32.const 0) (i32.const 7) (i32.const 64) (i32.const 68)))
            (drop (call $log (i32.const 3) (i32.const 32761) (i32.const 10))))"#,
    )
}

/// Answers 403 `no` to requests, unless they have the field `x-ok`.
pub fn refuses() -> Vec<u8> {
    guest(
        "x-okno",
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (if (i32.eqz (call $get (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 64) (i32.const 68)))
                (then (return (i32.const 0))))
            (drop (call $answer (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 2)
                (i32.const 0) (i32.const 0) (i32.const -1)))
            (i32.const 1))"#,
    )
}

/// Answers 403 `no` in place of responses that have the field `x-ok`.
pub fn replaces() -> Vec<u8> {
    guest(
        "x-okno",
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (if (call $get (i32.const 2) (i32.const 0) (i32.const 4) (i32.const 64) (i32.const 68))
                (then (return (i32.const 0))))
            (drop (call $answer (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 2)
                (i32.const 0) (i32.const 0) (i32.const -1)))
            (i32.const 1))"#,
    )
}

/// Waits for whole bodies and puts `>` before them, in both directions; says before that their length changes.
pub fn quotes() -> Vec<u8> {
    guest(
        ">content-length",
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $remove (i32.const 0) (i32.const 1) (i32.const 14)))
            (i32.const 0))
        (func (export "proxy_on_request_body") (param $id i32) (param $size i32) (param $ends i32) (result i32)
            (if (i32.eqz (local.get $ends)) (then (return (i32.const 1))))
            (drop (call $set_body (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1)))
            (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (drop (call $remove (i32.const 2) (i32.const 1) (i32.const 14)))
            (i32.const 0))
        (func (export "proxy_on_response_body") (param $id i32) (param $size i32) (param $ends i32) (result i32)
            (if (i32.eqz (local.get $ends)) (then (return (i32.const 1))))
            (drop (call $set_body (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1)))
            (i32.const 0))"#,
    )
}

/// Does not let the head of a request go on before it has seen the body; of one with more than five bytes it says 403 `no`,
/// before any other it puts `>`.
pub fn looks_first() -> Vec<u8> {
    guest(
        ">no",
        r#"(func (export "proxy_on_request_headers") (param $id i32) (param $count i32) (param $ends i32) (result i32)
            (i32.eqz (local.get $ends)))
        (func (export "proxy_on_request_body") (param $id i32) (param $size i32) (param $ends i32) (result i32)
            (if (i32.gt_u (local.get $size) (i32.const 5))
                (then
                    (drop (call $answer (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 2)
                        (i32.const 0) (i32.const 0) (i32.const -1)))
                    (return (i32.const 1))))
            (drop (call $set_body (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1)))
            (i32.const 0))"#,
    )
}

/// Fails where it is told to: `request`, `request-body`, `response`, `response-body`, `log`, by the field `x-fail`.
pub fn fails() -> Vec<u8> {
    let fails_at =
        |number: u32| format!(r#"(if (i32.eq (global.get $where) (i32.const {number})) (then unreachable))"#);
    let [request_body, response, response_body, log] = [2, 3, 4, 5].map(fails_at);
    guest(
        "x-fail",
        &format!(
            r#"(global $where (mut i32) (i32.const 0))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (global.set $where (i32.const 0))
            (if (i32.eqz (call $get (i32.const 0) (i32.const 0) (i32.const 6) (i32.const 64) (i32.const 68)))
                (then (global.set $where
                    (i32.sub (i32.load8_u (i32.load (i32.const 64))) (i32.const 48)))))
            (if (i32.eq (global.get $where) (i32.const 1)) (then unreachable))
            (if (i32.eq (global.get $where) (i32.const 6)) (then (loop $again (br $again))))
            (i32.const 0))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) {request_body} (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) {response} (i32.const 0))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) {response_body} (i32.const 0))
        (func (export "proxy_on_log") (param i32) {log})"#
        ),
    )
}

/// Pauses at the head of a request, and never says more.
pub fn pauses() -> Vec<u8> {
    guest("", r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))"#)
}

/// Refuses its configuration when there is one, and says why.
pub fn takes_no_configuration() -> Vec<u8> {
    guest(
        "not for me",
        r#"(func (export "proxy_on_configure") (param $id i32) (param $size i32) (result i32)
            (drop (call $log (i32.const 4) (i32.const 0) (i32.const 10)))
            (i32.eqz (local.get $size)))"#,
    )
}

/// Adds `x-plugin: yes` to the trailers of responses and removes `x-gone`.
pub fn trails() -> Vec<u8> {
    guest(
        "x-pluginyesx-gone",
        r#"(func (export "proxy_on_response_trailers") (param i32 i32) (result i32)
            (drop (call $add (i32.const 3) (i32.const 0) (i32.const 8) (i32.const 8) (i32.const 3)))
            (drop (call $remove (i32.const 3) (i32.const 11) (i32.const 6)))
            (i32.const 0))"#,
    )
}

/// Puts `>` before every piece of a body and leaves its head as it is.
pub fn lengthens() -> Vec<u8> {
    edits("(i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1)")
}

/// Takes a byte off every piece of a body and leaves its head as it is.
pub fn shortens() -> Vec<u8> {
    edits("(i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0)")
}

fn edits(how: &str) -> Vec<u8> {
    guest(
        ">",
        &format!(
            r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
            (if (local.get 1) (then (drop (call $set_body (i32.const 0) {how}))))
            (i32.const 0))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
            (if (local.get 1) (then (drop (call $set_body (i32.const 1) {how}))))
            (i32.const 0))"#
        ),
    )
}

/// Marks heads and bodies of both directions, and speaks the older version of the ABI.
pub fn older() -> Vec<u8> {
    let text = r#"(module
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
        (import "env" "proxy_set_buffer_bytes" (func $set_body (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_current_time_nanoseconds" (func $now (param i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "x-pluginyes>content-length")
        (func (export "proxy_abi_version_0_2_0"))
        (func (export "malloc") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_context_create") (param i32 i32))
        (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.eqz (call $now (i32.const 64))))
        (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $remove (i32.const 0) (i32.const 12) (i32.const 14)))
            (i32.const 0))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
            (if (i32.eqz (local.get 2)) (then (return (i32.const 1))))
            (drop (call $set_body (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 11) (i32.const 1)))
            (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (drop (call $remove (i32.const 2) (i32.const 12) (i32.const 14)))
            (drop (call $add (i32.const 2) (i32.const 0) (i32.const 8) (i32.const 8) (i32.const 3)))
            (i32.const 0))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
            (if (i32.eqz (local.get 2)) (then (return (i32.const 1))))
            (drop (call $set_body (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 11) (i32.const 1)))
            (i32.const 0))
        (func (export "proxy_on_done") (param i32) (result i32) (i32.const 1))
        (func (export "proxy_on_log") (param i32))
        (func (export "proxy_on_delete") (param i32)))"#;
    wat::parse_str(text).unwrap()
}
