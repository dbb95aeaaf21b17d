use super::*;
use crate::context::{Captures, Webhook};
use crate::contract::testing::{context, node, outcome, request};
use crate::contract::{AnyHandler, Compiler, Findings, Known};
use crate::head::Method;
use crate::inbox::{Claimed, File, Message, Queue};
use crate::yaml::Place;
use std::time::Duration;
use tempfile::TempDir;

struct Site {
    queue: Arc<File>,
    known: Known,
    _folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let queue = Arc::new(File::open(&folder.path().join("inbox.db")).unwrap());
        let known = Known { keeps_messages: true, ..Known::default() };
        known.inboxes.attach(Arc::clone(&queue) as Arc<dyn Queue>);
        Self { queue, known, _folder: folder }
    }

    fn handler(&self, settings: &str) -> Arc<dyn AsyncHandler> {
        match build(settings, &self.known) {
            Ok(AnyHandler::Async(handler)) => handler,
            Ok(AnyHandler::Sync(_)) => panic!("it waits for the store"),
            Err(problems) => panic!("{problems:#?}"),
        }
    }

    async fn ask(&self, settings: &str, request: &dyn RequestHead, body: &str) -> Result<Reply, Box<Rejection>> {
        self.handler(settings).answer(request, body.to_owned().into(), &context_of("hooks")).await
    }

    async fn stored(&self, inbox: &str) -> Vec<Message> {
        let claims = self.queue.claim(inbox, 100, Duration::from_secs(60), clock::wall()).await.unwrap();
        claims.messages.into_iter().map(|Claimed { message, .. }| message).collect()
    }
}

fn compiler(known: &Known) -> Compiler {
    Compiler::at(Place::UNKNOWN, "hooks".to_owned(), known)
}

fn build(settings: &str, known: &Known) -> Result<AnyHandler, Vec<String>> {
    let mut compiler = compiler(known);
    let built = crate::handlers::build::<InboxSettings>(&node(settings), &mut compiler);
    outcome(built, compiler)
}

fn findings(settings: &str) -> Findings {
    let mut compiler = compiler(&Known { keeps_messages: true, ..Known::default() });
    crate::handlers::build::<InboxSettings>(&node(settings), &mut compiler);
    compiler.finish()
}

fn refused(settings: &str) -> String {
    match build(settings, &Known { keeps_messages: true, ..Known::default() }) {
        Ok(_) => panic!("accepted: {settings}"),
        Err(problems) => problems.join("\n"),
    }
}

fn context_of(route: &str) -> Context {
    Context { route: Arc::from(route), ..context() }
}

fn fields(message: &Message) -> Vec<(&str, &str)> {
    message.fields.iter().map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap())).collect()
}

#[tokio::test]
async fn what_arrives_is_stored_as_an_upstream_would_get_it() {
    let site = Site::new();
    let sent = [
        ("host", "api.example.com"),
        ("content-type", "application/json"),
        ("x-custom", "1"),
        ("x-custom", "2"),
        ("content-length", "2"),
        ("transfer-encoding", "chunked"),
        ("expect", "100-continue"),
        ("connection", "keep-alive, X-Hop"),
        ("keep-alive", "timeout=5"),
        ("x-hop", "a"),
        ("te", "trailers"),
        ("idempotency-key", "chosen-by-the-client"),
        ("idempotency_key", "disguised"),
    ];
    let request = request(Method::POST, "/hooks/a?b='c'", &sent);
    let reply = site.ask("{ upstream: tasks }", &request, "{}").await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.body.len()), (202, 0));
    let stored = site.stored("hooks").await;
    let [message] = stored.as_slice() else { panic!("{stored:#?}") };
    assert_eq!((&*message.method, &*message.target, &message.body[..]), ("POST", "/hooks/a?b='c'", &b"{}"[..]));
    assert_eq!((&*message.route, &*message.inbox, &message.order), ("hooks", "hooks", &None));
    assert_eq!((&message.id, &message.provider), (&message.delivery, &None));
    assert_eq!(message.id.len(), 32);
    let id = reply.fields.iter().find(|(name, _)| name == X_MESSAGE_ID).unwrap();
    assert_eq!(id.1, message.id.as_str());
    let fields = fields(message);
    let all = |wanted: &str| -> Vec<&str> {
        fields.iter().filter(|(name, _)| *name == wanted).map(|(_, value)| *value).collect()
    };
    for (name, values) in [
        ("host", &["api.example.com"][..]),
        ("content-type", &["application/json"]),
        ("x-custom", &["1", "2"]),
        ("x-forwarded-for", &["192.0.2.1"]),
        ("x-forwarded-host", &["api.example.com"]),
        ("x-forwarded-proto", &["http"]),
        ("x-request-id", &[message.request_id.as_str()]),
    ] {
        assert_eq!(all(name), values, "{name}");
    }
    assert_eq!(all("traceparent").len(), 1);
    for name in
        ["content-length", "transfer-encoding", "expect", "connection", "keep-alive", "x-hop", "te", "idempotency-key"]
    {
        assert!(all(name).is_empty(), "{name}");
    }
    assert!(all("idempotency_key").is_empty());
}

#[tokio::test]
async fn a_verified_webhook_names_its_delivery_itself() {
    let site = Site::new();
    let mut context = context_of("hooks");
    let webhook = Webhook {
        provider: Arc::from("github"),
        result: "accepted",
        delivery: Some(Arc::from("abc")),
        once: Default::default(),
    };
    context.webhook = Some(Box::new(webhook));
    let handler = site.handler("{ upstream: tasks, name: other }");
    for _ in 0..2 {
        handler.answer(&request(Method::POST, "/", &[]), Bytes::new(), &context).await.unwrap();
    }
    let stored = site.stored("other").await;
    assert_eq!(stored.len(), 2);
    assert_ne!(stored[0].id, stored[1].id);
    for message in stored {
        assert_eq!((&*message.delivery, message.provider.as_deref()), ("abc", Some("github")));
    }
}

#[tokio::test]
async fn the_path_is_a_template_and_has_one_reading() {
    let site = Site::new();
    let settings = "{ upstream: tasks, path: '/internal/{path.service}/{header.x-kind}' }";
    let handler = site.handler(settings);
    let mut context = context_of("hooks");
    context.captures = Captures::new(Arc::from(["service".into()]), vec![Some("billing".into())]);
    for (kind, fits) in [("a", true), ("..", false), ("a/../../b", false), ("a?b", false), ("a b", false), ("", true)] {
        let request = request(Method::POST, "/x?q=1", &[("x-kind", kind)]);
        let answer = handler.answer(&request, Bytes::new(), &context).await;
        assert_eq!(answer.map_err(|refused| refused.code).is_ok(), fits, "{kind}");
    }
    let targets: Vec<String> = site.stored("hooks").await.into_iter().map(|message| message.target).collect();
    assert_eq!(targets, ["/internal/billing/a?q=1", "/internal/billing/?q=1"]);
}

#[test]
fn the_key_is_a_field_or_a_member_and_bounded() {
    let known = Known { keeps_messages: true, ..Known::default() };
    let order = |text: &str| Order::compile(&node(text), &mut compiler(&known)).unwrap();
    let of_field = order("X-Order-Key");
    let key = |value: &str| of_field.key(&request(Method::POST, "/", &[("x-order-key", value)]), b"");
    assert_eq!(key("a").as_deref(), Some("a"));
    assert_eq!(key(&"k".repeat(256)).unwrap(), "k".repeat(256));
    let long = key(&"k".repeat(257)).unwrap();
    assert!(long.starts_with("sha256:") && long.len() == 7 + 64, "{long}");
    assert_ne!(long, key(&"k".repeat(258)).unwrap());
    assert_eq!(of_field.key(&request(Method::POST, "/", &[]), b""), None);
    let of_member = order("{ member: /repository/full_name }");
    let key = |body: &str| of_member.key(&request(Method::POST, "/", &[]), body.as_bytes());
    assert_eq!(key(r#"{"repository": {"full_name": "acme/a"}}"#).as_deref(), Some("acme/a"));
    assert_eq!(key(r#"{"repository": {"full_name": 7}}"#).as_deref(), Some("7"));
    for none in [r#"{"repository": {"full_name": null}}"#, r#"{"repository": 1}"#, "{}", "", "no JSON"] {
        assert_eq!(key(none), None, "{none}");
    }
}

#[tokio::test]
async fn a_full_inbox_and_a_store_that_is_not_there_refuse() {
    let site = Site::new();
    let request = request(Method::POST, "/", &[]);
    let settings = "{ upstream: tasks, messages_max: 1 }";
    assert_eq!(site.ask(settings, &request, "").await.unwrap().status.as_u16(), 202);
    let full = site.ask(settings, &request, "").await.unwrap_err();
    assert_eq!((full.code, full.fields[0].0.as_str()), (Code::INBOX_FULL, "retry-after"));
    let known = Known { keeps_messages: true, ..Known::default() };
    let Ok(AnyHandler::Async(handler)) = build("{ upstream: tasks }", &known) else { panic!("it waits") };
    let away = handler.answer(&request, Bytes::new(), &context_of("hooks")).await.unwrap_err();
    assert_eq!((away.code, away.fields[0].0.as_str()), (Code::STATE_UNAVAILABLE, "retry-after"));
}

#[test]
fn terms_have_defaults_and_the_inbox_the_name_of_its_route() {
    let found = findings("{ upstream: tasks }");
    let inbox = found.inbox.unwrap();
    assert_eq!((inbox.name.as_str(), inbox.upstream.as_str()), ("hooks", "tasks"));
    assert_eq!((inbox.terms.attempts, inbox.terms.concurrency, inbox.terms.schedule.len()), (10, 8, 6));
    assert_eq!(inbox.terms.timeout, Duration::from_secs(30));
    assert_eq!(inbox.terms.bounds, Bounds { messages_max: 100_000, bytes_max: 1 << 30 });
    let guarded: Vec<&str> = found.guarded.iter().map(HeaderName::as_str).collect();
    assert_eq!(guarded, ["x-delivery-id", "x-delivery-attempt"]);
    let terms =
        findings("{ upstream: t, attempts: 1, schedule: [1ms, 24h], jitter: 0%, timeout: 10m, concurrency: 1 }");
    assert_eq!(terms.inbox.unwrap().terms.schedule.len(), 2);
}

#[test]
fn the_largest_body_is_one_that_fits() {
    let site = Site::new();
    assert_eq!(site.handler("{ upstream: t }").body_bytes_max(), 64 << 20);
    assert_eq!(site.handler("{ upstream: t, bytes_max: 64KiB }").body_bytes_max(), 64 << 10);
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (settings, message) in [
        ("{}", "missing key `upstream`"),
        ("{ upstream: t, attempts: 0 }", "`attempts` must be 1 to 1000, not 0"),
        ("{ upstream: t, attempts: 1001 }", "`attempts` must be 1 to 1000"),
        ("{ upstream: t, concurrency: 0 }", "`concurrency` must be 1 to 1000"),
        ("{ upstream: t, messages_max: 0 }", "`messages_max` must be 1 to 1000000000, not 0"),
        ("{ upstream: t, bytes_max: 65GiB }", "`bytes_max` must be 64KiB to 64GiB"),
        ("{ upstream: t, bytes_max: 65535B }", "`bytes_max` must be 64KiB to 64GiB"),
        ("{ upstream: t, schedule: [] }", "a schedule has 1 to 32 pauses"),
        ("{ upstream: t, schedule: [0s] }", "1ms to 1d, not 0ms"),
        ("{ upstream: t, schedule: [25h] }", "1ms to 1d, not 25h"),
        ("{ upstream: t, schedule: 5s }", "list"),
        ("{ upstream: t, timeout: 0s }", "`timeout` must be 1ms to 10m"),
        ("{ upstream: t, timeout: 601s }", "`timeout` must be 1ms to 10m"),
        ("{ upstream: t, status: 201 }", "200, 202 or 204"),
        ("{ upstream: t, path: internal }", "is no path"),
        ("{ upstream: t, path: '/a?b=c' }", "is no path"),
        ("{ upstream: t, path: '/{nope}' }", "unknown variable"),
        ("{ upstream: t, order_by: 'a b' }", "is no field name"),
        ("{ upstream: t, order_by: { member: repository } }", "is no JSON pointer"),
        ("{ upstream: t, order_by: { field: a } }", "unknown key `field`"),
    ] {
        let problems = refused(settings);
        assert!(problems.contains(message), "{settings}: {problems}");
    }
    let Err(problems) = build("{ upstream: t }", &Known::default()) else { panic!("memory keeps nothing") };
    assert!(problems.join("\n").contains("state: { file:"), "{problems:?}");
}
