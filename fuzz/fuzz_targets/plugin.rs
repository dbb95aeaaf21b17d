//! Plugins that do anything: call any function with any arguments in any callback, also while they are asked for memory.
//! Whatever they do, nothing panics, nothing hangs, and their instance is well or ended.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tollgate::clock;
use tollgate::context::{Context, RequestId};
use tollgate::head::{Fields, HeaderName, HeaderValue, Headers, Method, RequestBuf, ResponseBuf, StatusCode};
use tollgate::wasm::call::Answer;
use tollgate::wasm::exchange::{Access, View};
use tollgate::wasm::instance::{Failure, Head};
use tollgate::wasm::plugin::{Limits, Plugin, Terms};
use tollgate::wasm::program::{Function, Program, functions};
use tollgate::wasm::stream::{Stream, Way};

#[allow(dead_code)]
#[path = "../../src/wasm/tests/script.rs"]
mod script;

static PROGRAM: LazyLock<Arc<Program>> = LazyLock::new(|| {
    let text = script::guest(&functions().expect("an engine"));
    Arc::new(Program::new(&wat::parse_str(text).expect("a module")).expect("a plugin"))
});

fuzz_target!(|input: &[u8]| {
    let limits = Limits {
        memory_max: 2 << 20,
        time_max: Duration::from_millis(2),
        start_time_max: Duration::from_secs(10),
        held_max: Duration::from_millis(20),
        body_max: 4096,
        ..Limits::default()
    };
    let configuration = Bytes::copy_from_slice(input);
    let calls = ["x-a".into()].into();
    let terms = Terms { name: "script".into(), configuration, limits, calls, ..Terms::default() };
    let plugin = Arc::new(Plugin::new(Arc::clone(&PROGRAM), terms).expect("it starts, and follows no script yet"));
    for _ in 0..2 {
        let done = exchange(&plugin);
        assert!(done.is_ok() || plugin.instances() <= 1);
    }
    let instances = plugin.instances();
    match Stream::open(&plugin) {
        Ok(stream) => drop(stream),
        Err(failure) => assert!(matches!(failure, Failure::Trap(_) | Failure::Time), "{failure:?} of {instances}"),
    }
});

/// An exchange with everything that there is in one.
fn exchange(plugin: &Arc<Plugin>) -> Result<(), Failure> {
    let context = Context::detached(IpAddr::V4(Ipv4Addr::LOCALHOST), RequestId::from_bits(7), clock::now());
    let mut stream = Stream::open(plugin)?;
    let mut head = RequestBuf::new(Method::POST, "/a?b");
    head.append(&HeaderName::from_static("x-a"), HeaderValue::from_static("1"));
    stream.head(Head::Request, false, &mut View::of_request(&mut head, &context))?;
    assert!(head.path.starts_with('/') && !head.path.contains(['\r', '\n', ' ']));
    for (piece, ends) in [("name=", false), ("value", true)] {
        let mut view = View::behind_request(&head, &context);
        stream.body(Way::Request, Bytes::from_static(piece.as_bytes()), ends, &mut view)?;
    }
    let mut trailers = Fields::default();
    let mut view = View::behind_request(&head, &context);
    view.request_trailers = Some(&mut trailers);
    stream.head(Head::RequestTrailers, true, &mut view)?;
    let mut response = ResponseBuf::new(StatusCode::OK);
    let view = View::behind_request(&head, &context);
    stream.head(Head::Response, false, &mut view.with_response(Access::Change(&mut response)))?;
    assert!(!response.status.is_informational());
    let mut view = View::behind_request(&head, &context).with_response(Access::Read(&response));
    for (piece, ends) in [("ans", false), ("wer", true)] {
        stream.body(Way::Response, Bytes::from_static(piece.as_bytes()), ends, &mut view)?;
    }
    // The second one is an answer that nobody waits for, most of the time.
    for number in [1, 2] {
        let (fields, trailers) = (trailers.clone(), trailers.clone());
        let answer = Answer { status: StatusCode::OK, fields, body: Bytes::from_static(b"a"), trailers };
        let mut view = View::behind_request(&head, &context).with_response(Access::Change(&mut response));
        stream.answer(number, Ok(answer), Some(Way::Response), &mut view)?;
    }
    let mut view = View::behind_request(&head, &context);
    view.response_trailers = Some(&mut trailers);
    stream.head(Head::ResponseTrailers, true, &mut view)?;
    stream.finish(Some(&mut View::behind_request(&head, &context)));
    Ok(())
}
