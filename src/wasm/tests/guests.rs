//! The plugins.

/// What every plugin has: a memory, room in it, and the marker of its version.
pub fn guest(imports: &str, body: &str) -> String {
    format!(
        r#"(module
            {imports}
            (memory (export "memory") 1)
            (global $top (mut i32) (i32.const 32768))
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
                (local $at i32)
                (local.set $at (global.get $top))
                (global.set $top (i32.add (global.get $top) (local.get $size)))
                (local.get $at))
            {body})"#
    )
}

/// Adds `x-plugin: was here` to every request.
pub fn adds_a_field() -> String {
    guest(
        r#"(import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))"#,
        r#"(data (i32.const 0) "x-pluginwas here")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $add (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 8) (i32.const 8)))
            (i32.const 0))"#,
    )
}

/// Never returns from the head of a request.
pub fn hangs() -> String {
    guest(
        "",
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (loop $again (br $again)) (i32.const 0))"#,
    )
}

/// Functions that the plugins of tests call, by short names.
pub const IMPORTS: &str = r#"
    (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_property" (func $set_property (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_shared_data" (func $share (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_increment_metric" (func $add (param i32 i64) (result i32)))
    (import "env" "proxy_set_tick_period_milliseconds" (func $ticks (param i32) (result i32)))
    (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
    (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
    (import "env" "proxy_dequeue_shared_queue" (func $dequeue (param i32 i32 i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $act_for (param i32) (result i32)))
    (import "env" "proxy_continue_stream" (func $resume (param i32) (result i32)))
    (import "env" "proxy_done" (func $done (result i32)))"#;

/// A plugin that does so in its callbacks. `(call $count)` counts in a metric of its own; `(call $sure (…))` traps unless the status is 0.
pub fn counts(body: &str) -> String {
    let helpers = r#"
        (func $sure (param i32) (if (local.get 0) (then unreachable)))
        (func $count
            (call $sure (call $define (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 16)))
            (call $sure (call $add (i32.load (i32.const 16)) (i64.const 1))))
        (data (i32.const 0) "count")"#;
    guest(IMPORTS, &format!("{helpers}{body}"))
}
