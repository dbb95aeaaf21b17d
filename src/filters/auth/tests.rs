use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::*;
use crate::caller::ClientCertificate;
use crate::contract::testing::{context, filter_knowing, request, step_knowing, values};
use crate::head::{Method, RequestBuf, StatusCode};
use crate::identity::fixture::{identity, token};

const KNOWN: &str = "
roles: { viewer: { scopes: ['read:*'], level: service } }
issuers: { main: { secret: SECRET, algorithms: [HS256] }, other: { secret: SECRETother, algorithms: [HS256] } }
consumers:
  - name: dashboard
    roles: [viewer]
    scopes: [write:tasks]
    keys:
      - { id: k-1, sha256: KEY(good) }
      - { id: k-2, sha256: KEY(old), expires: 2020-01-01T00:00:00Z }
      - { id: k-3, sha256: KEY(off), disabled: true }
      - { id: k-4, sha256: KEY(any text, really) }
  - { name: plain, keys: [{ id: k-5, sha256: KEY(plain) }] }
  - { name: by-cert, certificates: [{ sha256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa }] }
";

const EVERYTHING: &str = "{ accept: [api_key, jwt, mtls], issuers: [main], api_key: { query: key }, \
     jwt: { cookie: session, query: token }, forward: { name: X-Consumer, roles: X-Roles, scopes: X-Scopes, level: X-Level, \
     credential: X-Proof, claims: { sub: X-User, realm.tenant: X-Tenant, tags: X-Tags } } }";

struct Outcome {
    request: RequestBuf,
    context: Context,
    refused: Option<Box<Rejection>>,
}

impl Outcome {
    /// Name of the caller, or code, message and challenges of the refusal.
    fn told(&self) -> String {
        match (&self.refused, &self.context.caller) {
            (None, Some(caller)) => caller.name.to_string(),
            (None, None) => "nobody".to_owned(),
            (Some(refused), _) => format!("{} {}", refused.code.name, refused.message),
        }
    }

    fn challenges(&self) -> Vec<&str> {
        let fields = &self.refused.as_ref().unwrap().fields;
        let fields = fields.iter().filter(|(name, _)| name == http::header::WWW_AUTHENTICATE);
        fields.map(|(_, value)| value.to_str().unwrap()).collect()
    }

    fn reason(&self) -> (&'static str, &'static str) {
        let [decision] = self.context.decisions[..] else { panic!("one decision: {:?}", self.context.decisions) };
        assert_eq!(decision.allowed, self.refused.is_none());
        (decision.kind, decision.reason)
    }
}

fn run_in(settings: &str, mut context: Context, target: &str, fields: &[(&str, &str)]) -> Outcome {
    let filter = filter_knowing::<AuthSettings>(settings, &identity(KNOWN));
    let mut request = request(Method::GET, target, fields);
    let refused = match filter.on_request(&mut request, &mut context) {
        Verdict::Continue => None,
        Verdict::Reject(rejection) => Some(rejection),
        Verdict::Reply(reply) => {
            // Only ever a socket that is accepted and closed.
            assert_eq!(reply.status, StatusCode::SWITCHING_PROTOCOLS);
            let reason = String::from_utf8(reply.body[4..].to_vec()).unwrap();
            assert_eq!(reply.body[..4], [0x88, u8::try_from(reason.len() + 2).unwrap(), 3, 0xf0], "{reason}");
            Some(Box::new(Rejection::new(reply.code.unwrap(), format!("closed: {reason}"))))
        }
    };
    Outcome { request, context, refused }
}

fn run(settings: &str, target: &str, fields: &[(&str, &str)]) -> Outcome {
    run_in(settings, context(), target, fields)
}

#[test]
fn a_key_names_its_consumer_wherever_it_stands() {
    for (target, fields) in [
        ("/", &[("x-api-key", "good")][..]),
        ("/", &[("authorization", "bearer good")]),
        ("/?key=good", &[]),
        ("/?key=good", &[("authorization", "Bearer good"), ("x-api-key", "good")]),
    ] {
        let outcome = run(EVERYTHING, target, fields);
        assert_eq!((outcome.told(), outcome.reason()), ("dashboard".into(), ("api_key", "ok")), "{target} {fields:?}");
    }
    assert_eq!(run(EVERYTHING, "/", &[("x-api-key", "any text, really")]).told(), "dashboard");
}

#[test]
fn what_is_wrong_with_a_key_is_not_told_to_its_sender() {
    for (key, reason) in
        [("guessed", "unknown"), ("old", "expired"), ("off", "disabled"), ("", "malformed"), ("Good", "unknown")]
    {
        let outcome = run(EVERYTHING, "/", &[("x-api-key", key)]);
        assert_eq!(outcome.told(), "UNAUTHORIZED a valid credential is needed", "{key}");
        assert_eq!(outcome.reason(), ("api_key", reason));
        assert_eq!(
            outcome.challenges(),
            ["Bearer realm=\"tollgate\"", "ApiKey realm=\"tollgate\", header=\"X-API-Key\""]
        );
        assert!(outcome.refused.unwrap().details.is_empty());
    }
    let bearer = run(EVERYTHING, "/", &[("authorization", "Bearer guessed")]);
    assert_eq!(bearer.challenges()[0], "Bearer realm=\"tollgate\", error=\"invalid_token\"");
}

#[test]
fn a_token_speaks_for_its_subject() {
    let good = token(&json!({"sub": "ann", "jti": "t-1", "roles": ["viewer"], "scope": "read:tasks"}));
    let bearer = format!("Bearer {good}");
    let cookie = format!("a=1; session={good}; b=2");
    for (target, fields) in [
        ("/".to_owned(), &[("authorization", &*bearer)][..]),
        ("/".to_owned(), &[("cookie", &*cookie)]),
        (format!("/?x=1&token={good}"), &[]),
    ] {
        let outcome = run(EVERYTHING, &target, fields);
        assert_eq!((outcome.told(), outcome.reason()), ("ann".into(), ("jwt", "ok")));
    }
}

#[test]
fn what_is_wrong_with_a_token_is_told_in_the_words_of_the_contract() {
    let expired = token(&json!({"sub": "ann", "exp": 1_000_000_000}));
    let later = token(&json!({"sub": "ann", "nbf": 32_000_000_000_u64, "exp": 32_000_000_001_u64}));
    let good = token(&json!({"sub": "ann"}));
    let mut forged = good.clone();
    forged.replace_range(
        forged.len() - 5..forged.len() - 4,
        if forged.as_bytes()[forged.len() - 5] == b'A' { "B" } else { "A" },
    );
    let invalid = "Bearer realm=\"tollgate\", error=\"invalid_token\"";
    for (token, message, reason, challenge) in [
        (
            &expired,
            "Token expired",
            "expired",
            "Bearer realm=\"tollgate\", error=\"invalid_token\", error_description=\"Token expired\"",
        ),
        (&later, "Invalid token", "not_yet", invalid),
        (&forged, "Invalid token", "signature", invalid),
        (&"a.b.c".to_owned(), "Invalid token", "malformed", invalid),
        (&"eyJhbGciOiJub25lIn0.e30.".to_owned(), "Invalid token", "", invalid),
    ] {
        for (target, field) in [("/".to_owned(), Some(format!("Bearer {token}"))), (format!("/?token={token}"), None)] {
            let fields: Vec<(&str, &str)> = field.iter().map(|value| ("authorization", value.as_str())).collect();
            let outcome = run(EVERYTHING, &target, &fields);
            assert_eq!(outcome.told(), format!("UNAUTHORIZED {message}"), "{token}");
            assert_eq!(outcome.challenges()[0], challenge);
            assert!(reason.is_empty() || outcome.reason() == ("jwt", reason), "{:?}", outcome.reason());
        }
    }
    assert_eq!(
        run("{ accept: [jwt], issuers: [other] }", "/", &[("authorization", &format!("Bearer {good}"))]).reason(),
        ("jwt", "signature")
    );
}

#[test]
fn a_wrong_credential_is_refused_even_beside_a_right_one_and_where_none_is_needed() {
    let optional = EVERYTHING.replace("{ accept", "{ optional: true, accept");
    for settings in [EVERYTHING, &optional] {
        for (target, fields) in [
            ("/", &[("x-api-key", "guessed")][..]),
            ("/", &[("x-api-key", "good"), ("authorization", "Bearer plain")]),
            ("/", &[("x-api-key", "good"), ("authorization", "Bearer")]),
            ("/?token=a.b.c", &[("x-api-key", "good")]),
            ("/?key=%", &[("x-api-key", "good")]),
            ("/", &[("x-api-key", "good"), ("x-api-key", "good")]),
            ("/", &[("authorization", "Bearer good"), ("authorization", "Basic eDp5")]),
            ("/", &[("cookie", "session=")]),
        ] {
            let outcome = run(settings, target, fields);
            assert_eq!(outcome.refused.as_ref().unwrap().code, Code::UNAUTHORIZED, "{target} {fields:?}");
            assert!(outcome.context.caller.is_none());
        }
    }
}

#[test]
fn nobody_is_let_through_where_that_is_said() {
    let refused = run("{ accept: [api_key], realm: tasks }", "/", &[]);
    assert_eq!(
        (refused.told(), refused.reason()),
        ("UNAUTHORIZED a valid credential is needed".into(), ("none", "missing"))
    );
    assert_eq!(refused.challenges(), ["Bearer realm=\"tasks\"", "ApiKey realm=\"tasks\", header=\"X-API-Key\""]);
    let basic = run(
        "{ accept: [api_key], optional: true, forward: { name: X-Consumer } }",
        "/",
        &[("authorization", "Basic eDp5"), ("x-consumer", "root")],
    );
    assert_eq!((basic.told(), basic.reason()), ("nobody".into(), ("none", "anonymous")));
    assert_eq!(values(&basic.request, "authorization"), ["Basic eDp5"], "another scheme is the service's business");
    assert!(values(&basic.request, "x-consumer").is_empty());
    assert_eq!(basic.context.challenges.unwrap().len(), 2);
}

#[test]
fn challenges_name_what_would_be_accepted() {
    let of = |settings: &str| run(settings, "/", &[]).challenges().join(" | ");
    assert_eq!(of("{ accept: [jwt] }"), "Bearer realm=\"tollgate\"");
    assert_eq!(of("{ accept: [jwt], jwt: { bearer: false, cookie: s } }"), "Bearer realm=\"tollgate\"");
    assert_eq!(
        of("{ accept: [api_key], api_key: { bearer: false, header: X-Key } }"),
        "ApiKey realm=\"tollgate\", header=\"X-Key\""
    );
    assert_eq!(of("{ accept: [mtls] }"), "Certificate realm=\"tollgate\"");
}

#[test]
fn the_service_is_told_who_calls_and_not_how_it_was_proved() {
    let outcome =
        run(EVERYTHING, "/a?x=1&key=good&y=2", &[("x-api-key", "good"), ("x-consumer", "root"), ("cookie", "a=1")]);
    let seen = |name| values(&outcome.request, name);
    assert_eq!(seen("x-consumer"), ["dashboard"]);
    assert_eq!((seen("x-roles"), seen("x-scopes")), (vec!["viewer".to_owned()], vec!["read:* write:tasks".to_owned()]));
    assert_eq!((seen("x-level"), seen("x-proof")), (vec!["service".to_owned()], vec!["k-1".to_owned()]));
    assert!(seen("x-api-key").is_empty() && seen("x-user").is_empty());
    assert_eq!((outcome.request.query(), seen("cookie")), (Some("x=1&y=2"), vec!["a=1".to_owned()]));

    let token = token(&json!({"sub": "J\u{f6}rg", "realm": {"tenant": 7}, "tags": ["a,b", {"c": "\r\n"}]}));
    let outcome = run(EVERYTHING, "/", &[("authorization", &format!("Bearer {token}")), ("x-roles", "admin")]);
    if outcome.refused.is_none() {
        let seen = |name| values(&outcome.request, name);
        assert_eq!((seen("x-user"), seen("x-tenant")), (vec!["J\u{f6}rg".to_owned()], vec!["7".to_owned()]));
        assert_eq!(seen("x-tags"), [r#"["a,b",{"c":"\r\n"}]"#]);
        assert!(seen("x-roles").is_empty(), "no role is no field");
        assert!(seen("authorization").is_empty());
    }
}

#[test]
fn credentials_go_on_when_the_operator_wants_that() {
    let keep = EVERYTHING.replace("{ accept", "{ keep_credentials: true, accept");
    let outcome = run(&keep, "/?key=good", &[("x-api-key", "good")]);
    assert_eq!(
        (outcome.request.query(), values(&outcome.request, "x-api-key")),
        (Some("key=good"), vec!["good".to_owned()])
    );
}

#[test]
fn a_claim_that_no_field_can_hold_ends_the_request() {
    let settings = "{ accept: [jwt], issuers: [main], forward: { claims: { note: X-Note } } }";
    let with = |note: &str| {
        let token = token(&json!({"sub": "ann", "note": note}));
        run(settings, "/", &[("authorization", &format!("Bearer {token}"))])
    };
    assert_eq!(with("fine").told(), "ann");
    // With blanks around it, it would arrive as another.
    for note in ["a\r\nX-Consumer: root", " root", "root\t"] {
        let refused = with(note);
        assert_eq!((refused.told(), refused.reason()), ("UNAUTHORIZED Invalid token".into(), ("jwt", "claims")));
        assert!(refused.context.caller.is_none());
    }
}

fn certificate(digit: &str) -> Arc<ClientCertificate> {
    let hour = Duration::from_secs(3600);
    Arc::new(ClientCertificate {
        subject: "CN=a".into(),
        names: Box::default(),
        sha256: digit.repeat(64).into(),
        not_before: UNIX_EPOCH,
        not_after: clock::wall() + hour,
    })
}

#[test]
fn a_certificate_counts_when_nothing_else_is_presented() {
    let with = |digit: &str, settings: &str, fields: &[(&str, &str)]| {
        let context = Context { certificate: Some(certificate(digit)), ..context() };
        run_in(settings, context, "/", fields)
    };
    let known = with("a", EVERYTHING, &[]);
    assert_eq!((known.told(), known.reason()), ("by-cert".into(), ("mtls", "ok")));
    assert_eq!(values(&known.request, "x-proof"), ["a".repeat(64)]);
    assert_eq!(with("a", EVERYTHING, &[("x-api-key", "good")]).told(), "dashboard");
    assert_eq!(with("a", EVERYTHING, &[("x-api-key", "guessed")]).reason(), ("api_key", "unknown"));
    let optional = "{ accept: [mtls], optional: true }";
    assert_eq!(with("b", optional, &[]).reason(), ("mtls", "unknown"));
    assert_eq!(with("a", "{ accept: [api_key] }", &[]).reason(), ("none", "missing"));
}

#[test]
fn a_preflight_that_another_filter_answers_needs_nobody() {
    let outcome = run_in(EVERYTHING, Context { preflight: true, ..context() }, "/", &[]);
    assert!(outcome.refused.is_none() && outcome.context.decisions.is_empty());
    let alone = run(EVERYTHING, "/", &[("origin", "https://a.example"), ("access-control-request-method", "GET")]);
    assert_eq!(alone.reason(), ("none", "missing"), "the fields of a preflight alone open nothing");
}

#[test]
fn sockets_end_with_what_let_them_in() {
    let ends = |settings: &str| run(settings, "/", &[("x-api-key", "good")]).context.close_on;
    assert_eq!(ends("{ accept: [api_key] }"), CloseOn::default());
    let both = ends("{ accept: [api_key], close_on: [token_expiry, key_revoked] }");
    assert!(both.token_expiry && both.key_revoked);
}

const HANDSHAKE: [(&str, &str); 4] = [
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[test]
fn a_refused_socket_is_accepted_and_closed_where_that_is_said() {
    let close = EVERYTHING.replace("{ accept", "{ websocket_refusal: close, accept");
    let expired = format!("/?token={}", token(&json!({"sub": "ann", "exp": 1_000_000_000})));
    for (target, message) in
        [("/", "a valid credential is needed"), ("/?token=a.b.c", "Invalid token"), (&*expired, "Token expired")]
    {
        let (plain, closed) = (format!("UNAUTHORIZED {message}"), format!("UNAUTHORIZED closed: {message}"));
        let outcome = run(&close, target, &HANDSHAKE);
        assert_eq!(outcome.told(), closed);
        assert!(!outcome.context.decisions[0].allowed);
        assert_eq!(run(&close, target, &HANDSHAKE[1..]).told(), plain, "no handshake");
        assert_eq!(run(EVERYTHING, target, &HANDSHAKE).told(), plain, "the default");
    }
}

#[test]
fn mistakes_are_told() {
    let known = identity(KNOWN);
    let nothing = identity("{}");
    for (settings, identity, message) in [
        ("{}", &known, "`accept`"),
        ("{ accept: [] }", &known, "nobody could get in; write `accept: [api_key, jwt]`"),
        ("{ accept: [jwt, jwt] }", &known, "named twice"),
        ("{ accept: [apikey] }", &known, "api_key"),
        ("{ accept: [api_key], websocket_refusal: closed }", &known, "`close`"),
        ("{ accept: [jwt], api_key: {} }", &known, "`api_key` has no effect: `api_key` is not accepted"),
        ("{ accept: [api_key], jwt: {} }", &known, "`jwt` has no effect"),
        ("{ accept: [api_key], issuers: [main] }", &known, "`issuers` has no effect: `jwt` is not accepted"),
        ("{ accept: [jwt], issuers: [mian] }", &known, "unknown issuer `mian`; did you mean `main`?"),
        ("{ accept: [jwt], issuers: [] }", &known, "no token would be accepted"),
        ("{ accept: [jwt] }", &nothing, "there are no `issuers`"),
        ("{ accept: [jwt], jwt: { bearer: false } }", &known, "a token could stand nowhere"),
        ("{ accept: [api_key, jwt], api_key: { query: t }, jwt: { query: t } }", &known, "both a key and a token"),
        ("{ accept: [jwt], jwt: { query: 'a b' } }", &known, "`a b` is no name of a query parameter"),
        ("{ accept: [jwt], jwt: { cookie: 'a;b' } }", &known, "`a;b` is no name of a cookie"),
        ("{ accept: [api_key], api_key: { header: Authorization } }", &known, "holds more than a key"),
        ("{ accept: [api_key], api_key: { header: Host } }", &known, "cannot be changed"),
        ("{ accept: [api_key], realm: 'a\"b' }", &known, "a realm is"),
        ("{ accept: [api_key], forward: { name: X-A, roles: x-a } }", &known, "would tell two things"),
        ("{ accept: [api_key], forward: { name: X_A } }", &known, "holds a `_`"),
        ("{ accept: [api_key], forward: { claims: { sub: Content-Length } } }", &known, "cannot be changed"),
    ] {
        let told =
            step_knowing::<AuthSettings>(settings, identity).err().unwrap_or_else(|| panic!("{settings} is taken"));
        assert!(told.join("\n").contains(message), "{settings}: {told:?}");
    }
}
