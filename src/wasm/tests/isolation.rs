//! What plugins do wrong costs one request and nobody else anything.

use super::guests::{IMPORTS, counts, guest};
use super::*;
use crate::wasm::stream::Way;

const PAGE: usize = 65_536;

fn brief() -> Limits {
    Limits { time_max: Duration::from_millis(20), start_time_max: Duration::from_millis(20), ..Limits::default() }
}

/// Serves a request with it, which fails; then another, which finds another instance.
fn fails_in_a_request(wat: &str, limits: Limits) -> Failure {
    let plugin = plugin(wat, limits).unwrap();
    let mut failures = [(); 2].map(|()| {
        let mut stream = Stream::open(&plugin)?;
        let failed = request(&mut stream);
        assert!(failed.is_err() && plugin.instances() == 0, "it is given up at once");
        failed.map(|_| ())
    });
    let last = std::mem::replace(&mut failures[1], Ok(()));
    last.unwrap_err()
}

#[test]
fn a_plugin_that_hangs_when_it_starts_is_not_taken() {
    let hang = "(loop $again (br $again))";
    for wat in [
        guest("", &format!("(func $hang {hang}) (start $hang)")),
        guest("", &format!(r#"(func (export "_initialize") {hang})"#)),
        guest("", &format!(r#"(func (export "_start") {hang})"#)),
        guest("", &format!(r#"(func (export "proxy_on_context_create") (param i32 i32) {hang})"#)),
        guest("", &format!(r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32) {hang} (i32.const 1))"#)),
        guest(
            "",
            &format!(r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) {hang} (i32.const 1))"#),
        ),
    ] {
        assert_eq!(plugin(&wat, brief()).err(), Some(Failure::Time), "{wat}");
    }
}

#[test]
fn a_plugin_that_hangs_at_the_end_of_a_request_costs_its_instance() {
    let hang = "(loop $again (br $again))";
    for wat in [
        guest("", &format!(r#"(func (export "proxy_on_log") (param i32) {hang})"#)),
        guest("", &format!(r#"(func (export "proxy_on_done") (param i32) (result i32) {hang} (i32.const 1))"#)),
        guest("", &format!(r#"(func (export "proxy_on_delete") (param i32) {hang})"#)),
    ] {
        let plugin = plugin(&wat, brief()).unwrap();
        for _ in 0..2 {
            let mut stream = Stream::open(&plugin).unwrap();
            assert_eq!(request(&mut stream), Ok(Action::Continue));
            stream.finish(None);
            assert_eq!(plugin.instances(), 0);
        }
    }
}

/// Looks at `:path` when a request comes, with this way to make room for it.
fn making_room(how: &str) -> String {
    format!(
        r#"(module {IMPORTS} (memory (export "memory") 1)
        (data (i32.const 0) ":path")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) {how})
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $get (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 64) (i32.const 68))))"#
    )
}

#[test]
fn a_plugin_that_hangs_or_traps_when_asked_for_memory_is_ended() {
    assert_eq!(fails_in_a_request(&making_room("(loop $again (br $again)) (i32.const 0)"), brief()), Failure::Time);
    assert!(matches!(fails_in_a_request(&making_room("unreachable"), brief()), Failure::Trap(_)));
}

#[test]
fn a_plugin_that_gives_no_memory_is_told_that_nothing_came() {
    // The status is what the callback returns: 0 goes on, anything else waits.
    for place in ["0", "-1", "65536", "65533", "0x7fffffff"] {
        let plugin = plugin(&making_room(&format!("(i32.const {place})")), Limits::default()).unwrap();
        assert_eq!(request(&mut Stream::open(&plugin).unwrap()), Ok(Action::Pause), "{place}");
    }
    // The value is `/a?b`: it just fits before the end.
    let plugin = plugin(&making_room("(i32.const 65532)"), Limits::default()).unwrap();
    assert_eq!(request(&mut Stream::open(&plugin).unwrap()), Ok(Action::Continue));
    // While it is asked for memory it may not ask for what needs memory.
    let again = "(if (i32.ne (call $get (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 72) (i32.const 76))
        (i32.const 10)) (then unreachable)) (i32.const 1024)";
    let plugin = super::plugin(&making_room(again), Limits::default()).unwrap();
    assert_eq!(request(&mut Stream::open(&plugin).unwrap()), Ok(Action::Continue));
}

#[test]
fn memory_grows_to_the_limit_and_not_a_page_further() {
    let grows = |pages: u32| {
        guest(
            "",
            &format!(
                r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                    (if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1)) (then unreachable))
                    (i32.const 0))"#
            ),
        )
    };
    let limits = Limits { memory_max: 4 * PAGE, ..Limits::default() };
    let plugin = named("grows", &grows(3), b"", limits).unwrap();
    let mut stream = Stream::open(&plugin).unwrap();
    assert_eq!(request(&mut stream), Ok(Action::Continue));
    assert_eq!((sample("grows").memory_bytes, sample("grows").instances), (4 * PAGE, 1));
    assert!(matches!(request(&mut stream), Err(Failure::Trap(_))), "it has all it may have");
    assert_eq!((sample("grows").memory_bytes, sample("grows").instances), (0, 0));
    assert_eq!(sample("grows").failures, [("trap", 1)]);
    assert!(matches!(fails_in_a_request(&grows(4), limits), Failure::Trap(_)));
}

#[test]
fn a_plugin_that_allocates_without_end_is_ended_and_its_memory_is_given_back() {
    let wat = counts(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
            unreachable)"#,
    );
    let limits = Limits { memory_max: 64 * PAGE, time_max: Duration::from_secs(60), ..Limits::default() };
    let plugin = named("leaks", &wat, b"", limits).unwrap();
    for _ in 0..10 {
        assert!(matches!(request(&mut Stream::open(&plugin).unwrap()), Err(Failure::Trap(_))));
    }
    assert_eq!(sample("leaks").memory_bytes, 0);
    assert_eq!(sample("leaks").failures, [("trap", 10)]);
}

#[test]
fn a_plugin_that_begins_with_more_than_it_may_have_is_not_taken() {
    let begins = |pages: usize| {
        format!(
            r#"(module (memory (export "memory") {pages}) (data (i32.const {}) "end")
            (func (export "proxy_abi_version_0_2_1")) (func (export "malloc") (param i32) (result i32) (i32.const 0)))"#,
            pages * PAGE - 3
        )
    };
    let limits = Limits { memory_max: 16 * PAGE, ..Limits::default() };
    assert!(plugin(&begins(16), limits).is_ok());
    assert!(matches!(plugin(&begins(17), limits), Err(Failure::Trap(_))));
    let beyond = guest("", r#"(data (i32.const 65535) "ab")"#);
    assert!(matches!(plugin(&beyond, limits), Err(Failure::Trap(_))), "its data lies behind its memory");
}

#[test]
fn tables_have_a_bound_all_together() {
    let grows = |size: u32, by: u32| {
        guest(
            "",
            &format!(
                r#"(table $one {size} funcref) (table $other 1000 funcref)
                (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                    (i32.eq (table.grow $one (ref.null func) (i32.const {by})) (i32.const -1)))"#
            ),
        )
    };
    for (size, by, action) in [(9000, 90_000, Action::Continue), (9000, 90_001, Action::Pause)] {
        let plugin = plugin(&grows(size, by), Limits::default()).unwrap();
        assert_eq!(request(&mut Stream::open(&plugin).unwrap()), Ok(action), "{size} {by}");
    }
    assert!(matches!(plugin(&grows(99_001, 0), Limits::default()), Err(Failure::Trap(_))));
}

#[test]
fn a_plugin_that_traps_or_recurses_without_end_costs_a_request() {
    let head = |body: &str| {
        guest("", &format!(r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) {body})"#))
    };
    let patient = Limits { time_max: Duration::from_secs(60), ..Limits::default() };
    for body in ["unreachable", "(i32.div_u (i32.const 1) (i32.const 0))", "(i32.load (i32.const -1))"] {
        assert!(matches!(fails_in_a_request(&head(body), patient), Failure::Trap(_)), "{body}");
    }
    let recurses =
        format!("{}{}", "(func $deep (param i64 i64) (result i32)", "(call $deep (local.get 1) (local.get 0)))");
    let wat = guest(
        "",
        &format!(
            r#"{recurses} (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $deep (i64.const 1) (i64.const 2)))"#
        ),
    );
    let Failure::Trap(words) = fails_in_a_request(&wat, patient) else { panic!("a trap") };
    assert!(words.contains("stack"), "{words}");
}

#[test]
fn a_body_is_held_up_to_the_limit_and_not_a_byte_further() {
    let pauses = guest("", r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 1))"#);
    let plugin = plugin(&pauses, Limits { body_max: 10, ..Limits::default() }).unwrap();
    let (head, context) = (RequestBuf::new(Method::POST, "/"), context());
    let mut stream = Stream::open(&plugin).unwrap();
    let pass = |stream: &mut Stream, piece: &'static [u8], ends| {
        let mut view = View::behind_request(&head, &context);
        stream.body(Way::Request, Bytes::from_static(piece), ends, &mut view).map(|piece| piece.bytes)
    };
    assert_eq!(pass(&mut stream, b"12345", false).unwrap(), "");
    assert_eq!(pass(&mut stream, b"67890", false).unwrap(), "");
    assert_eq!(pass(&mut stream, b"1", false), Err(Failure::Held));
    drop(stream);
    let mut stream = Stream::open(&plugin).unwrap();
    assert_eq!(pass(&mut stream, b"1234567890", false).unwrap(), "");
    assert_eq!(pass(&mut stream, b"", true).unwrap(), "1234567890", "nothing would ever let it go on");
    assert_eq!(plugin.instances(), 1, "nothing was wrong with the instance");
}

#[test]
fn an_exchange_is_never_seen_by_another() {
    // Notes a property at the first request, and looks for it, for the first one's body and for its context at the second.
    let wat = counts(
        r#"(global $seen (mut i32) (i32.const 0))
        (data (i32.const 100) "mine")
        (func (export "proxy_on_request_body") (param $own i32) (param i32 i32) (result i32)
            (call $sure (call $buffer (i32.const 0) (i32.const 0) (i32.const 9) (i32.const 64) (i32.const 68)))
            (i32.const 0))
        (func (export "proxy_on_request_headers") (param $own i32) (param i32 i32) (result i32)
            (global.set $seen (i32.add (global.get $seen) (i32.const 1)))
            (call $sure (i32.ne (i32.const 1)
                (call $property (i32.const 100) (i32.const 4) (i32.const 64) (i32.const 68))))
            (call $sure (call $set_property (i32.const 100) (i32.const 4) (i32.const 100) (i32.const 4)))
            (call $sure (call $property (i32.const 100) (i32.const 4) (i32.const 64) (i32.const 68)))
            (call $sure (i32.ne (i32.const 1)
                (call $buffer (i32.const 0) (i32.const 0) (i32.const 9) (i32.const 64) (i32.const 68))))
            (call $sure (i32.ne (i32.const 2) (call $act_for (i32.sub (local.get $own) (i32.const 1)))))
            (call $sure (i32.ne (i32.const 2) (call $act_for (i32.add (local.get $own) (i32.const 1)))))
            (call $sure (i32.ne (i32.const 2) (call $act_for (i32.const 0))))
            (call $sure (call $act_for (i32.const 1)))
            (call $sure (call $act_for (local.get $own)))
            (call $sure (i32.ne (i32.const 1) (call $done)))
            (call $count)
            (i32.const 0))"#,
    );
    let plugin = named("sees", &wat, b"", Limits::default()).unwrap();
    // The number before that of the first one would be the plugin's own.
    drop(Stream::open(&plugin).unwrap());
    for _ in 0..3 {
        let mut stream = Stream::open(&plugin).unwrap();
        assert_eq!(request(&mut stream), Ok(Action::Continue));
        let (head, context) = (RequestBuf::new(Method::POST, "/"), context());
        let mut view = View::behind_request(&head, &context);
        stream.body(Way::Request, Bytes::from_static(b"a secret"), true, &mut view).unwrap();
        stream.finish(None);
    }
    assert_eq!((count("sees"), plugin.instances()), (3, 1), "one instance served them all");
}
