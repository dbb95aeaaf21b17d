//! What plugins are told of an exchange.

use super::guests::counts;
use super::*;
use crate::caller::{ClientCertificate, SubjectName};
use crate::context::Wire;
use crate::head::HeaderValue;
use crate::wasm::shared::space;

/// Looks up the property that its configuration names, and leaves the value where others find it, or the status in a digit.
fn asks() -> String {
    counts(
        r#"(data (i32.const 100) "found") (data (i32.const 110) "status") (data (i32.const 120) "0123456789")
        (func $ask (local $status i32)
            (call $sure (call $buffer (i32.const 7) (i32.const 0) (i32.const 999) (i32.const 64) (i32.const 68)))
            (local.set $status (call $property
                (i32.load (i32.const 64)) (i32.load (i32.const 68)) (i32.const 72) (i32.const 76)))
            (call $sure (call $share (i32.const 110) (i32.const 6)
                (i32.add (i32.const 120) (local.get $status)) (i32.const 1) (i32.const 0)))
            (if (i32.eqz (local.get $status)) (then (call $sure (call $share (i32.const 100) (i32.const 5)
                (i32.load (i32.const 72)) (i32.load (i32.const 76)) (i32.const 0))))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $ask) (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (call $ask) (i32.const 0))"#,
    )
}

fn known() -> Context {
    let certificate = ClientCertificate {
        subject: "CN=svc-a,O=Acme".into(),
        names: Box::new([SubjectName::Uri("spiffe://a/b".into()), SubjectName::Dns("a.example".into())]),
        sha256: "ab12".into(),
        not_before: std::time::UNIX_EPOCH,
        not_after: std::time::UNIX_EPOCH,
    };
    Context {
        wire: Wire { peer_port: 4711, reached: Some("[::1]:8443".parse().unwrap()), version: http::Version::HTTP_2 },
        certificate: Some(Arc::new(certificate)),
        route: "tasks.read".into(),
        client: "192.0.2.7".parse().unwrap(),
        ..context()
    }
}

/// The property of a request and, where it is one, of a response.
fn asked(program: &Arc<Program>, path: &str) -> Result<Vec<u8>, u8> {
    let plugin = started(program, path, path.as_bytes(), Limits::default()).unwrap();
    let mut stream = Stream::open(&plugin).unwrap();
    let mut request = RequestBuf { host: "example.com".to_owned(), ..RequestBuf::new(Method::POST, "/a/b?c=d") };
    request.append(&HeaderName::from_static("user-agent"), HeaderValue::from_static("curl"));
    request.append(&HeaderName::from_static("content-length"), HeaderValue::from_static("258"));
    let context = known();
    stream.head(Head::Request, true, &mut View::of_request(&mut request, &context)).unwrap();
    if path.starts_with("response") {
        let mut response = ResponseBuf::new(StatusCode::NOT_FOUND);
        let view = View::behind_request(&request, &context);
        stream.head(Head::Response, true, &mut view.with_response(Access::Change(&mut response))).unwrap();
    }
    let space = space(path);
    let status = space.get(b"status").unwrap().0[0] - b'0';
    if status == 0 { Ok(space.get(b"found").unwrap().0.to_vec()) } else { Err(status) }
}

#[test]
fn properties_say_what_the_gateway_knows() {
    let program = program(&asks());
    for (path, value) in [
        ("plugin_name", "plugin_name"),
        ("plugin_vm_id\0", "plugin_vm_id\0"),
        ("plugin_root_id", ""),
        ("source\0address", "127.0.0.1:4711"),
        ("destination\0address", "[::1]:8443"),
        ("connection\0subject_peer_certificate", "CN=svc-a,O=Acme"),
        ("connection\0dns_san_peer_certificate", "a.example"),
        ("connection\0uri_san_peer_certificate", "spiffe://a/b"),
        ("connection\0sha256_peer_certificate_digest", "ab12"),
        ("connection\0mtls", "\u{1}"),
        ("request\0protocol", "HTTP/2"),
        ("request\0path", "/a/b?c=d"),
        ("request\0url_path", "/a/b"),
        ("request\0query", "c=d"),
        ("request\0host", "example.com"),
        ("request\0scheme", "http"),
        ("request\0method", "POST"),
        ("request\0useragent", "curl"),
        ("request\0headers\0user-agent", "curl"),
        ("request\0id", "00000000000000000000000000000007"),
        ("request\0size", "\u{2}\u{1}\0\0\0\0\0\0"),
        ("source\0port", "\u{67}\u{12}\0\0\0\0\0\0"),
        ("tollgate\0route", "tasks.read"),
        ("tollgate\0client_ip", "192.0.2.7"),
        ("tollgate\0request_id", "00000000000000000000000000000007"),
    ] {
        assert_eq!(asked(&program, path).as_deref(), Ok(value.as_bytes()), "{path:?}");
    }
    assert_eq!(asked(&program, "response\0code"), Ok(404_u64.to_le_bytes().to_vec()));
    let time = i64::from_le_bytes(asked(&program, "request\0time").unwrap().try_into().unwrap());
    let now = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    assert!(time > 0 && i128::from(time) <= now as i128);
    assert_eq!(asked(&program, "request\0duration").unwrap().len(), 8);
}

#[test]
fn what_the_gateway_does_not_know_is_not_found() {
    let program = program(&asks());
    for path in [
        "",
        "\0",
        "request",
        "request\0",
        "request\0unknown",
        "request\0headers\0x-none",
        "request\0headers\0bad name",
        "request\0path\0deeper",
        "request\0referer",
        "response\0size",
        "tollgate\0consumer",
        "connection\0tls_version",
        "upstream\0address",
        "own",
        "\u{fffd}",
    ] {
        assert_eq!(asked(&program, path), Err(1), "{path:?}");
    }
}
