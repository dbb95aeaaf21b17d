//! Requests that plugins send.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::context;
use super::guests::guest;
use crate::head::{Fields, HeaderName, HeaderValue, Headers as _, Method, RequestBuf, StatusCode};
use crate::wasm::call::{Answer, Answered, CALLS_MAX, Call, Caller, Outlet, Pending};
use crate::wasm::exchange::View;
use crate::wasm::host::Wish;
use crate::wasm::instance::{Failure, Head, Outcome};
use crate::wasm::mailbox::Mail;
use crate::wasm::pairs::Writer;
use crate::wasm::plugin::{Limits, Plugin, Terms};
use crate::wasm::program::Program;
use crate::wasm::status::Action;
use crate::wasm::stream::{Stream, Way};

type Pairs<'a> = &'a [(&'a str, &'a str)];

const HEAD: Pairs<'_> = &[
    (":method", "POST"),
    (":path", "/check?a=b"),
    (":authority", "auth.test"),
    ("x-own", "1"),
    ("x-own", "2"),
    ("content-length", "99"),
];
const DONE: &str = "(i32.const 1)";

/// Keeps what it is asked; answers when the test does.
#[derive(Default)]
struct Service(Mutex<Vec<(Call, Option<oneshot::Sender<Answered>>)>>);

impl Caller for Service {
    fn call(&self, call: Call) -> Pending {
        let (answer, answered) = oneshot::channel();
        self.0.lock().unwrap().push((call, Some(answer)));
        Box::pin(async move { answered.await.unwrap_or(Err("gone".to_owned())) })
    }
}

impl Service {
    fn calls(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn call_at(&self, index: usize) -> Call {
        self.0.lock().unwrap()[index].0.clone()
    }

    fn answer(&self, index: usize, answered: Answered) {
        let answer = self.0.lock().unwrap()[index].1.take().unwrap();
        assert!(answer.send(answered).is_ok(), "somebody waits for it");
    }

    /// Waits until nobody wants the answer any more.
    async fn given_up(&self, index: usize) {
        let mut answer = self.0.lock().unwrap()[index].1.take().unwrap();
        answer.closed().await;
    }
}

fn answer(status: u16, body: &'static str) -> Answered {
    let mut fields = Fields::default();
    fields.append(&HeaderName::from_static("x-of"), HeaderValue::from_static("service"));
    let status = StatusCode::from_u16(status).unwrap();
    Ok(Answer { status, fields, body: Bytes::from_static(body.as_bytes()), trailers: Fields::default() })
}

fn data(at: u32, bytes: &[u8]) -> String {
    let mut text = format!("(data (i32.const {at}) \"");
    for byte in bytes {
        write!(text, "\\{byte:02x}").unwrap();
    }
    text + "\")\n"
}

/// Calls `upstream` so many times from the head of a request, says in `x-status` what that came to, and returns `then`. An
/// answer becomes `x-answer`, of a call that failed an empty one; then the request goes on.
fn calls(upstream: &str, head: Pairs<'_>, times: usize, then: &str) -> Vec<u8> {
    let mut pairs = Writer::default();
    head.iter().for_each(|(name, value)| pairs.push(name.as_bytes(), value.as_bytes()));
    let (pairs, trailers) = (pairs.finish(), b"\x01\0\0\0\x01\0\0\0\x01\0\0\0t\x001\0");
    let data: String = [
        data(0, upstream.as_bytes()),
        data(64, &pairs),
        data(1024, trailers),
        data(1100, b"the body"),
        data(1120, b"x-statusx-answer:status"),
    ]
    .concat();
    let call = format!(
        "(local.set $status (call $call (i32.const 0) (i32.const {}) (i32.const 64) (i32.const {}) (i32.const 1100)
            (i32.const 8) (i32.const 1024) (i32.const {}) (i32.const 1500) (i32.const 1200)))
         (i32.store8 (i32.const 1204) (i32.add (local.get $status) (i32.const 48)))
         (drop (call $add (i32.const 0) (i32.const 1120) (i32.const 8) (i32.const 1204) (i32.const 1)))\n",
        upstream.len(),
        pairs.len(),
        trailers.len()
    );
    let text = guest(
        r#"(import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
        (import "env" "proxy_get_buffer_bytes" (func $body (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))"#,
        &format!(
            r#"{data}
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $status i32)
                {call} {then})
            (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 1))
            (func (export "proxy_on_http_call_response") (param $context i32) (param i32 i32 i32 i32)
                (if (i32.ne (local.get $context) (i32.const 1)) (then (unreachable)))
                (i64.store (i32.const 1300) (i64.const 0))
                (drop (call $get (i32.const 6) (i32.const 1136) (i32.const 7) (i32.const 1300) (i32.const 1304)))
                (drop (call $body (i32.const 4) (i32.const 0) (i32.const 100) (i32.const 1300) (i32.const 1304)))
                (drop (call $add (i32.const 0) (i32.const 1128) (i32.const 8) (i32.load (i32.const 1300)) (i32.load (i32.const 1304))))
                (drop (call $continue (i32.const 0))))"#,
            call = call.repeat(times),
        ),
    );
    wat::parse_str(text).unwrap()
}

struct Site {
    plugin: Arc<Plugin>,
    service: Arc<Service>,
    request: RequestBuf,
}

impl Site {
    fn new(file: &[u8]) -> Self {
        let limits = Limits { held_max: Duration::from_secs(1), ..Limits::default() };
        let terms = Terms { name: "test".into(), limits, calls: ["auth".into()].into(), ..Terms::default() };
        let (service, outlet) = (Arc::new(Service::default()), Outlet::default());
        outlet.open(Arc::clone(&service) as Arc<dyn Caller>);
        let program = Arc::new(Program::new(file).unwrap());
        let plugin = Arc::new(Plugin::new(program, terms).unwrap().with_outlet(outlet));
        plugin.introduce();
        Self { plugin, service, request: RequestBuf::new(Method::GET, "/") }
    }

    fn begin(&mut self) -> (Stream, Result<Outcome, Failure>) {
        let mut stream = Stream::open(&self.plugin).unwrap();
        let told = self.head(&mut stream);
        (stream, told)
    }

    fn head(&mut self, stream: &mut Stream) -> Result<Outcome, Failure> {
        stream.head(Head::Request, true, &mut View::of_request(&mut self.request, &context()))
    }

    fn told(&mut self, stream: &mut Stream, mail: Option<Mail>) -> Wish {
        let Some(Mail::Answer(number, answered)) = mail else { panic!("no answer but {mail:?}") };
        stream.answer(number, answered, None, &mut View::of_request(&mut self.request, &context())).unwrap()
    }

    fn all(&self, name: &'static str) -> Vec<String> {
        let mut all = Vec::new();
        self.request.each(&HeaderName::from_static(name), &mut |value| {
            all.push(String::from_utf8(value.to_vec()).unwrap());
        });
        all
    }
}

#[tokio::test]
async fn a_call_goes_out_and_its_answer_comes_with_the_request_that_waits() {
    let mut site = Site::new(&calls("auth", HEAD, 1, DONE));
    let (mut stream, told) = site.begin();
    assert_eq!((told.unwrap().action, site.all("x-status")), (Action::Pause, vec!["0".to_owned()]));
    let call = site.service.call_at(0);
    assert_eq!(
        (call.method, &*call.target, call.authority.as_bytes()),
        (Method::POST, "/check?a=b", &b"auth.test"[..])
    );
    let fields: Vec<_> = call.fields.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(fields, [("x-own", "1"), ("x-own", "2")], "the gateway frames the message itself");
    assert_eq!((&call.body[..], call.trailers.len()), (&b"the body"[..], 1));
    assert_eq!(call.timeout, Duration::from_secs(1), "no longer than a request may be held");
    let wait = stream.hold();
    site.service.answer(0, answer(200, "alice"));
    let mail = wait.next(false).await;
    let wish = site.told(&mut stream, mail);
    assert!(wish.resumed.request);
    assert_eq!(site.all("x-answer"), ["alice"]);
    assert!(wait.next(false).await.is_none(), "nothing is under way any more");
}

#[tokio::test]
async fn a_call_that_failed_is_an_answer_without_anything() {
    let mut site = Site::new(&calls("auth", HEAD, 1, DONE));
    let (mut stream, _) = site.begin();
    let wait = stream.hold();
    site.service.answer(0, Err("broken".to_owned()));
    let mail = wait.next(false).await;
    assert!(site.told(&mut stream, mail).resumed.request);
    assert_eq!(site.all("x-answer"), [""]);
    assert_eq!(site.plugin.instances(), 1);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused() {
    let without = |missing: &str| -> Vec<(&'static str, &'static str)> {
        HEAD.iter().filter(|(name, _)| *name != missing).copied().collect()
    };
    let with = |name: &'static str, value: &'static str| [without(name), vec![(name, value)]].concat();
    let bad = "2";
    for (upstream, head, status) in [
        ("auth", HEAD.to_vec(), "0"),
        ("other", HEAD.to_vec(), bad),
        ("", HEAD.to_vec(), bad),
        ("auth", without(":method"), bad),
        ("auth", without(":path"), bad),
        ("auth", without(":authority"), bad),
        ("auth", without("x-own"), "0"),
        ("auth", with(":method", "G T"), bad),
        ("auth", with(":method", "CONNECT"), bad),
        ("auth", with(":path", "check"), bad),
        ("auth", with(":path", "/a b"), bad),
        ("auth", with(":path", "/a#b"), bad),
        ("auth", with(":authority", "a b"), bad),
        ("auth", with(":authority", ""), bad),
        ("auth", with("x y", "1"), bad),
        ("auth", with("x-own", "1\r\n2"), bad),
        ("auth", with(":scheme", "https"), "0"),
    ] {
        let mut site = Site::new(&calls(upstream, &head, 1, DONE));
        let (_stream, told) = site.begin();
        assert!(told.is_ok());
        assert_eq!(site.all("x-status"), [status], "{upstream} {head:?}");
        assert_eq!(site.service.calls(), usize::from(status == "0"), "{upstream} {head:?}");
    }
}

#[tokio::test]
async fn so_many_calls_are_under_way_and_no_more() {
    let mut site = Site::new(&calls("auth", HEAD, CALLS_MAX + 1, DONE));
    let (stream, told) = site.begin();
    assert!(told.is_ok());
    let status = site.all("x-status");
    assert_eq!((status.len(), status.iter().filter(|status| *status == "0").count()), (CALLS_MAX + 1, CALLS_MAX));
    assert_eq!((status.last().map(String::as_str), site.service.calls()), (Some(":"), CALLS_MAX), "INTERNAL_FAILURE");
    drop(stream);
    let (_stream, told) = site.begin();
    assert!(told.is_ok(), "the instance serves the next one");
    assert_eq!(site.service.calls(), 2 * CALLS_MAX, "which has a bound of its own");
}

#[tokio::test]
async fn a_plugin_that_did_not_pause_is_told_beside_the_exchange() {
    let mut site = Site::new(&calls("auth", HEAD, 1, "(i32.const 0)"));
    let (mut stream, told) = site.begin();
    assert_eq!(told.unwrap().action, Action::Continue);
    site.service.answer(0, answer(200, "alice"));
    // The task that waits for it comes first: there is but one thread.
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    assert_eq!(site.all("x-answer"), Vec::<String>::new(), "there was no head to change");
    let told = site.head(&mut stream).unwrap();
    assert!(told.wish.resumed.request, "what it wanted is done when the exchange is looked at again");
}

#[tokio::test]
async fn an_exchange_that_ends_gives_up_its_calls() {
    let mut site = Site::new(&calls("auth", HEAD, 2, DONE));
    let (mut stream, _) = site.begin();
    stream.finish(None);
    site.service.given_up(0).await;
    site.service.given_up(1).await;
    let (_stream, told) = site.begin();
    assert!(told.is_ok());
    assert_eq!(site.plugin.instances(), 1);
}

#[tokio::test]
async fn a_plugin_that_fails_has_sent_nothing() {
    let mut site = Site::new(&calls("auth", HEAD, 1, "(unreachable)"));
    let (_stream, told) = site.begin();
    assert!(matches!(told, Err(Failure::Trap(_))));
    tokio::task::yield_now().await;
    assert_eq!(site.service.calls(), 0);
}

#[tokio::test]
async fn nothing_is_sent_of_a_rehearsal() {
    let mut site = Site::new(&calls("auth", HEAD, 1, DONE));
    let mut stream = Stream::open(&site.plugin).unwrap().without_calls();
    assert!(site.head(&mut stream).is_ok());
    assert!(stream.expects_answers());
    drop(stream);
    let (_stream, _) = site.begin();
    assert_eq!(site.service.calls(), 1, "the second one");
}

/// Has `$ask`, which asks for a small call, and what `then` exports.
fn asks(then: &str) -> Vec<u8> {
    let mut head = Writer::default();
    for (name, value) in [(":method", "GET"), (":path", "/log"), (":authority", "a")] {
        head.push(name.as_bytes(), value.as_bytes());
    }
    let head = head.finish();
    let text = guest(
        r#"(import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_tick_period_milliseconds" (func $ticks (param i32) (result i32)))"#,
        &format!(
            r#"{}{}
            (func $ask
                (drop (call $call (i32.const 0) (i32.const 4) (i32.const 64) (i32.const {}) (i32.const 0) (i32.const 0)
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1200))))
            {then}"#,
            data(0, b"auth"),
            data(64, &head),
            head.len()
        ),
    );
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn what_a_tick_asks_for_is_sent_without_a_request() {
    let file = asks(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (drop (call $ticks (i32.const 10))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32) (call $ask) (drop (call $ticks (i32.const 0))))"#,
    );
    let site = Site::new(&file);
    let called = async {
        while site.service.calls() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), called).await.expect("a call");
    assert_eq!(site.service.call_at(0).target, "/log");
}

#[tokio::test]
async fn what_is_asked_for_at_the_end_is_sent_for_the_plugin_itself() {
    let mut site = Site::new(&asks(r#"(func (export "proxy_on_log") (param i32) (call $ask))"#));
    for calls in 1..=CALLS_MAX + 2 {
        let (mut stream, _) = site.begin();
        stream.finish(None);
        assert_eq!(site.service.calls(), calls.min(CALLS_MAX), "as far as there is room");
    }
    site.service.answer(0, answer(204, ""));
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    drop(site.begin());
    assert_eq!(site.service.calls(), CALLS_MAX + 1, "there is room again");
}

#[tokio::test]
async fn what_was_let_go_between_two_pieces_goes_on_without_the_second() {
    let mut site = Site::new(&calls("auth", HEAD, 1, "(i32.const 0)"));
    let (mut stream, told) = site.begin();
    assert_eq!(told.unwrap().action, Action::Continue);
    let piece = |stream: &mut Stream, piece: &'static str, ends| {
        let request = RequestBuf::new(Method::GET, "/");
        let context = context();
        let view = &mut View::behind_request(&request, &context);
        stream.body(Way::Request, Bytes::from_static(piece.as_bytes()), ends, view).unwrap()
    };
    let first = piece(&mut stream, "ab", false);
    assert!(first.waits && first.bytes.is_empty(), "{first:?}");
    // Nobody waits: the plugin is told beside the request.
    site.service.answer(0, answer(200, ""));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let second = piece(&mut stream, "cd", false);
    assert_eq!((second.bytes.as_ref(), second.waits), (&b"ab"[..], false));
    let last = piece(&mut stream, "ef", true);
    assert_eq!((last.bytes.as_ref(), last.waits), (&b"cdef"[..], false), "nothing would ever let it go on");
}
