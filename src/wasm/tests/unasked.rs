//! What plugins do while no request calls them.

use super::guests::counts;
use super::*;
use crate::wasm::host::Wish;
use crate::wasm::mailbox::Mail;

#[test]
fn a_plugin_that_asks_for_ticks_gets_them_while_it_is_idle_and_no_more_when_it_stops() {
    let wat = counts(
        r#"(global $left (mut i32) (i32.const 3))
        (func (export "proxy_on_configure") (param i32 i32) (result i32) (call $sure (call $ticks (i32.const 1))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
            (call $count)
            (global.set $left (i32.sub (global.get $left) (i32.const 1)))
            (if (i32.eqz (global.get $left)) (then (call $sure (call $ticks (i32.const 0))))))"#,
    );
    let plugin = named("ticks", &wat, b"", Limits::default()).unwrap();
    until("three ticks", || count("ticks") == 3);
    // It is idle and well: a request can have it.
    let mut stream = Stream::open(&plugin).unwrap();
    assert_eq!(request(&mut stream), Ok(Action::Continue));
    assert_eq!((count("ticks"), plugin.instances()), (3, 1));
}

#[test]
fn a_tick_that_fails_costs_the_instance_and_no_request() {
    let wat = counts(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
            (call $sure (call $ticks (i32.const 10))) (call $count) (i32.const 1))
        (func (export "proxy_on_tick") (param i32) unreachable)"#,
    );
    let plugin = named("tick fails", &wat, b"", Limits::default()).unwrap();
    until("a failure", || sample("tick fails").failures == [("trap", 1)]);
    let mut stream = Stream::open(&plugin).unwrap();
    assert!(count("tick fails") >= 2, "another one was started");
    drop(request(&mut stream));
}

#[test]
fn a_plugin_is_told_of_each_item_of_its_queue() {
    let wat = counts(
        r#"(data (i32.const 100) "items")
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (call $sure (call $register (i32.const 100) (i32.const 5) (i32.const 20))) (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $sure (call $enqueue (i32.load (i32.const 20)) (i32.const 100) (i32.const 5)))
            (call $sure (call $enqueue (i32.load (i32.const 20)) (i32.const 100) (i32.const 4)))
            (call $sure (i32.ne (i32.const 1) (call $enqueue (i32.const -1) (i32.const 100) (i32.const 4))))
            (i32.const 0))
        (func (export "proxy_on_queue_ready") (param i32) (param $queue i32)
            (call $sure (i32.ne (local.get $queue) (i32.load (i32.const 20))))
            (call $sure (call $dequeue (local.get $queue) (i32.const 24) (i32.const 28)))
            (call $count))"#,
    );
    let plugin = named("queue", &wat, b"", Limits::default()).unwrap();
    let mut stream = Stream::open(&plugin).unwrap();
    assert_eq!(request(&mut stream), Ok(Action::Continue));
    until("both items, though a request is with the only instance", || count("queue") == 2);
    drop(stream);
    let mut stream = Stream::open(&plugin).unwrap();
    assert_eq!(request(&mut stream), Ok(Action::Continue));
    drop(stream);
    until("two more", || count("queue") == 4);
    assert_eq!(sample("queue").failures, []);
}

/// Waits for what a plugin wants done with an exchange that it holds.
fn waited(stream: &mut Stream) -> Result<Wish, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let wait = stream.hold();
    let waiting = async { tokio::time::timeout(Duration::from_secs(120), wait.next(true)).await };
    match runtime.block_on(waiting).expect("it is woken").unwrap() {
        Mail::Wish(wish) => Ok(wish),
        Mail::Failure(failure) => Err(stream.ended(failure)),
        Mail::Answer(..) => panic!("nobody was asked"),
    }
}

/// Holds each request; a tick then does so with its context, which is 2.
fn holds(tick: &str) -> String {
    counts(&format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $sure (call $ticks (i32.const 10))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32) {tick})"#
    ))
}

#[test]
fn a_tick_lets_a_request_go_on_that_is_held() {
    let wat = holds(
        "(call $sure (call $act_for (i32.const 2))) (call $sure (call $resume (i32.const 0)))
        (call $sure (call $ticks (i32.const 0)))",
    );
    let plugin = named("resumes", &wat, b"", Limits::default()).unwrap();
    let mut stream = Stream::open(&plugin).unwrap();
    assert_eq!(request(&mut stream), Ok(Action::Pause));
    let wish = waited(&mut stream).unwrap();
    assert!(wish.resumed.request && !wish.resumed.response && wish.reply.is_none());
    assert_eq!(sample("resumes").failures, []);
}

#[test]
fn who_waits_is_told_when_the_instance_fails() {
    let plugin = named("fails held", &holds("unreachable"), b"", Limits::default()).unwrap();
    let mut stream = Stream::open(&plugin).unwrap();
    assert_eq!(request(&mut stream), Ok(Action::Pause));
    assert!(matches!(waited(&mut stream), Err(Failure::Trap(_))));
    assert_eq!(request(&mut stream).err(), Some(Failure::Ended));
    assert_eq!(plugin.instances(), 0);
}

#[test]
fn a_plugin_that_is_not_done_is_waited_for_without_the_request() {
    // It is done at the third tick; its log counts.
    let wat = counts(
        r#"(global $left (mut i32) (i32.const 3))
        (func (export "proxy_on_done") (param i32) (result i32) (call $sure (call $ticks (i32.const 10))) (i32.const 0))
        (func (export "proxy_on_tick") (param i32)
            (global.set $left (i32.sub (global.get $left) (i32.const 1)))
            (if (i32.eqz (global.get $left)) (then
                (call $sure (call $act_for (i32.const 2)))
                (call $sure (call $done))
                (call $sure (call $ticks (i32.const 0))))))
        (func (export "proxy_on_log") (param i32) (call $sure (global.get $left)) (call $count))"#,
    );
    let plugin = named("done late", &wat, b"", Limits::default()).unwrap();
    let mut stream = Stream::open(&plugin).unwrap();
    request(&mut stream).unwrap();
    stream.finish(None);
    assert_eq!(plugin.instances(), 1);
    until("its log", || count("done late") == 1);
    assert_eq!(sample("done late").failures, []);
}

#[test]
fn a_plugin_that_is_never_done_is_waited_for_no_longer_than_a_request_may_be_held() {
    let wat = counts(
        r#"(func (export "proxy_on_done") (param i32) (result i32) (i32.const 0))
        (func (export "proxy_on_log") (param i32) (call $count))"#,
    );
    let limits = Limits { held_max: Duration::from_millis(50), ..Limits::default() };
    let plugin = named("never done", &wat, b"", limits).unwrap();
    drop(Stream::open(&plugin).unwrap());
    until("its log", || count("never done") == 1);
    // Beyond a number of contexts nobody waits at all.
    let limits = Limits { held_max: Duration::from_secs(3600), ..Limits::default() };
    let plugin = named("never done twice", &wat, b"", limits).unwrap();
    for _ in 0..64 {
        drop(Stream::open(&plugin).unwrap());
    }
    assert_eq!(count("never done twice"), 0);
    drop(Stream::open(&plugin).unwrap());
    assert_eq!(count("never done twice"), 1);
}

#[test]
fn instances_that_nobody_needs_are_let_go_but_one() {
    let plugin = named("burst", &counts(""), b"", Limits::default()).unwrap();
    let burst: Vec<Stream> = (0..5).map(|_| Stream::open(&plugin).unwrap()).collect();
    drop(burst);
    assert_eq!((plugin.instances(), sample("burst").instances), (5, 5));
    plugin.sweep();
    assert_eq!(plugin.instances(), 5, "all of them were needed a moment ago");
    drop([Stream::open(&plugin).unwrap(), Stream::open(&plugin).unwrap()]);
    plugin.sweep();
    assert_eq!((plugin.instances(), sample("burst").instances), (2, 2));
    plugin.sweep();
    plugin.sweep();
    assert_eq!(plugin.instances(), 1);
}

#[test]
fn an_instance_of_another_thread_serves_when_there_may_be_no_more() {
    let limits = Limits { instances_max: 1, ..Limits::default() };
    let plugin = named("threads", &counts(""), b"", limits).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| drop(Stream::open(&plugin).unwrap()));
    });
    assert!(Stream::open(&plugin).is_ok());
}
