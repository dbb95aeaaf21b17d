//! Templates: parsing never panics, rendering never fails, and a value cannot leave the text it was put in.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use tollgate::clock;
use tollgate::context::{Context, RequestId};
use tollgate::head::{HeaderName, HeaderValue, Headers, Method, RequestBuf};
use tollgate::template::{Escape, Template};

#[derive(arbitrary::Arbitrary, Debug)]
struct Input<'a> {
    template: &'a str,
    target: &'a str,
    field: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let Ok(template) = Template::parse(input.template) else { return };
    let mut request = RequestBuf::new(Method::GET, input.target);
    if let Ok(value) = HeaderValue::from_bytes(input.field) {
        request.append(&HeaderName::from_static("x-a"), value);
    }
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let context = Context::detached(peer, RequestId::from_bits(7), clock::now());
    template.path_parameters().for_each(|name| assert!(!name.is_empty()));
    if let Some(text) = template.constant() {
        assert_eq!(template.render_text(&request, &context), text);
    }
    let _ = template.render_value(&request, &context);
    for escape in [Escape::None, Escape::Json, Escape::Html] {
        template.render(&request, &context, escape, &mut Vec::new());
    }

    // The field alone, between the delimiters of each language.
    let Ok(field) = Template::parse("{header.x-a}") else { panic!("a valid template") };
    let mut out = Vec::new();
    field.render(&request, &context, Escape::Html, &mut out);
    assert!(!out.iter().any(|byte| b"<>\"'".contains(byte)), "markup: {out:?}");
    out.clear();
    field.render(&request, &context, Escape::Json, &mut out);
    let mut escaped = false;
    for byte in out {
        assert!(escaped || byte != b'"', "an unescaped quote");
        assert!(byte >= 0x20, "a control character");
        escaped = !escaped && byte == b'\\';
    }
    assert!(!escaped, "the closing quote would be escaped");
});
