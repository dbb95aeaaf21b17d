//! Plugins in the text form of WebAssembly, each small enough to see what it does.

mod calls;
mod guests;
mod hostile;
mod isolation;
mod known;
mod script;
mod unasked;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::exchange::{Access, View};
use super::instance::{Failure, Head};
use super::plugin::{Limits, Plugin, Terms};
use super::program::{Function, Program, functions};
use super::record;
use super::status::Action;
use super::stream::Stream;
use crate::clock;
use crate::context::{Context, RequestId};
use crate::head::{HeaderName, Headers, Method, RequestBuf, ResponseBuf, StatusCode};
use crate::observe::metrics::{PluginSample, PluginValue};

fn context() -> Context {
    Context::detached(IpAddr::V4(Ipv4Addr::LOCALHOST), RequestId::from_bits(7), clock::now())
}

fn plugin(wat: &str, limits: Limits) -> Result<Arc<Plugin>, Failure> {
    named("test", wat, b"", limits)
}

/// What a plugin shares and counts goes by its name.
fn named(name: &str, wat: &str, configuration: &[u8], limits: Limits) -> Result<Arc<Plugin>, Failure> {
    started(&program(wat), name, configuration, limits)
}

fn program(wat: &str) -> Arc<Program> {
    Arc::new(Program::new(&wat::parse_str(wat).unwrap()).unwrap())
}

fn started(program: &Arc<Program>, name: &str, configuration: &[u8], limits: Limits) -> Result<Arc<Plugin>, Failure> {
    let configuration = Bytes::copy_from_slice(configuration);
    Plugin::new(Arc::clone(program), Terms { name: name.into(), configuration, limits, ..Terms::default() })
        .map(Arc::new)
}

/// Tells the plugin of the head of a request without a body.
fn request(stream: &mut Stream) -> Result<Action, Failure> {
    let mut request = RequestBuf::new(Method::GET, "/a?b");
    Ok(stream.head(Head::Request, true, &mut View::of_request(&mut request, &context()))?.action)
}

/// What a plugin says of itself.
fn sample(name: &str) -> PluginSample {
    record::samples().into_iter().find(|sample| &*sample.plugin == name).expect("a plugin of that name")
}

/// The first metric of a plugin; 0 before there is one.
fn count(name: &str) -> u64 {
    match sample(name).metrics.first().map(|metric| &metric.value) {
        Some(PluginValue::Counter(count)) => *count,
        _ => 0,
    }
}

/// Waits until it is so: the background is at work.
fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = clock::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn a_plugin_adds_a_field_to_a_request() {
    let plugin = plugin(&guests::adds_a_field(), Limits::default()).unwrap();
    let context = context();
    for _ in 0..3 {
        let mut stream = Stream::open(&plugin).unwrap();
        let mut request = RequestBuf::new(Method::GET, "/a?b");
        let outcome = stream.head(Head::Request, true, &mut View::of_request(&mut request, &context)).unwrap();
        assert_eq!(outcome.action, Action::Continue);
        assert_eq!(request.text(&HeaderName::from_static("x-plugin")), Some("was here"));
        let mut response = ResponseBuf::new(StatusCode::OK);
        let view = View::behind_request(&request, &context);
        stream.head(Head::Response, true, &mut view.with_response(Access::Change(&mut response))).unwrap();
        assert_eq!(response.get(&HeaderName::from_static("x-plugin")), None, "it looks at requests only");
        stream.finish(Some(&mut View::behind_request(&request, &context)));
    }
    assert_eq!(plugin.instances(), 1, "an instance serves one request after the other");
}

#[test]
fn an_instance_serves_one_request_at_a_time_and_no_more_than_there_may_be() {
    let limits = Limits { instances_max: 2, ..Limits::default() };
    let plugin = plugin(&guests::adds_a_field(), limits).unwrap();
    let first = Stream::open(&plugin).unwrap();
    let second = Stream::open(&plugin).unwrap();
    assert_eq!(plugin.instances(), 2);
    assert_eq!(Stream::open(&plugin).err(), Some(Failure::Busy));
    drop(first);
    assert!(Stream::open(&plugin).is_ok());
    drop(second);
    assert_eq!(plugin.instances(), 2);
}

#[test]
fn a_plugin_that_hangs_is_ended_and_another_instance_serves_the_next_request() {
    let limits = Limits { time_max: Duration::from_millis(20), ..Limits::default() };
    let plugin = plugin(&guests::hangs(), limits).unwrap();
    let context = context();
    for _ in 0..2 {
        let mut stream = Stream::open(&plugin).unwrap();
        let mut request = RequestBuf::new(Method::GET, "/hang");
        let failed = stream.head(Head::Request, true, &mut View::of_request(&mut request, &context));
        assert_eq!(failed.err(), Some(Failure::Time));
        let again = stream.head(Head::Request, true, &mut View::of_request(&mut request, &context));
        assert_eq!(again.err(), Some(Failure::Ended));
    }
    assert_eq!(plugin.instances(), 0);
}

#[test]
fn a_plugin_is_shown_of_responses_what_its_module_has_callbacks_for() {
    const HEAD: &str = r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))"#;
    const BODY: &str = r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))"#;
    const TICK: &str = r#"(func (export "proxy_on_tick") (param i32))"#;
    const TOLD: &str = r#"(func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32))"#;
    let calls = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    for (callbacks, calls, sees) in [
        (&[][..], calls(&[]), (false, false)),
        (&[HEAD], calls(&[]), (true, false)),
        (&[HEAD, BODY], calls(&[]), (true, true)),
        // What it says from these is done at the next callback of the exchange, or in place of one.
        (&[TICK], calls(&[]), (true, true)),
        (&[TOLD], calls(&[]), (false, false)),
        (&[TOLD], calls(&["auth"]), (true, true)),
    ] {
        let module = r#"(memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
            (func (export "malloc") (param i32) (result i32) (i32.const 8))"#;
        let program = program(&format!("(module {module} {})", callbacks.concat()));
        let terms = Terms { name: "shown".into(), calls, ..Terms::default() };
        let plugin = Plugin::new(program, terms).unwrap_or_else(|failure| panic!("{failure:?}"));
        assert_eq!(plugin.sees_responses(), sees, "{callbacks:?}");
    }
}
