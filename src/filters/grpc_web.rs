//! `grpc_web`: lets pages in browsers call services that speak gRPC.
//!
//! A browser shows a page neither the frames nor the trailers of HTTP/2, so pages speak
//! [gRPC-Web](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md): the same messages, over HTTP/1.1 or HTTP/2, with
//! the trailers as a last frame of the body. This filter translates both ways, message by message, without holding any back.
//! The upstream has to speak HTTP/2 (`protocol: h2c`).
//!
//! It has no settings.
//!
//! * `application/grpc-web` and `application/grpc-web-text` (Base64) become `application/grpc`, with what stands behind them
//!   (`+proto`, `+json`). Every other request passes as it is: gRPC itself, and plain HTTP on the same route.
//! * An answer that is not gRPC (a proxy's error page behind the gateway) passes as it is, too.
//! * The filters behind this one see `application/grpc`; a body that one of them looks at is Base64 still if it was sent so.
//! * An answer that is trailers alone keeps them in its head, where clients of gRPC-Web look first. For a page of another origin
//!   they have to be exposed by [`cors`]: `expose: [grpc-status, grpc-message, x-request-id]`. What the gateway itself refuses
//!   says so in the body, and needs no such permission.
//! * Browsers stream answers; requests are one message, as no browser streams a request body.
//! * Place it behind `cors`, which answers the preflights: `X-Grpc-Web`, `Grpc-Timeout` and `X-User-Agent` have to be allowed there.
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! upstreams:
//!   greeter:
//!     protocol: h2c
//!     targets: [{ address: 127.0.0.1:50051 }]
//! routes:
//!   - name: greeter
//!     match: POST /helloworld.Greeter/{method}
//!     filters:
//!       - cors:
//!           origins: ["https://app.example.com"]
//!           headers: [Content-Type, Authorization, X-Grpc-Web, X-User-Agent, Grpc-Timeout]
//!           expose: [grpc-status, grpc-message, x-request-id]
//!       - grpc_web
//!     upstream: greeter
//! tests:
//!   - request: POST /helloworld.Greeter/SayHello
//!     headers: { Content-Type: application/grpc-web+proto }
//!     expect: { upstream: greeter }
//!   - request: OPTIONS /helloworld.Greeter/SayHello
//!     headers: { Origin: "https://app.example.com", Access-Control-Request-Method: POST }
//!     expect: { status: 204 }
//! ```

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::{Context, Speaks};
use crate::contract::{Compiler, Filter, Hooks, Settings, Step, Verdict};
use crate::head::{RequestHead, ResponseHead};

/// Lets pages in browsers call services that speak gRPC.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct GrpcWebSettings {}

impl Settings for GrpcWebSettings {
    const NAME: &'static str = "grpc_web";
    const SUMMARY: &'static str = "lets pages in browsers call services that speak gRPC";

    fn build(self, _: &mut Compiler) -> Option<Step> {
        Some(Step::filter(GrpcWeb))
    }
}

struct GrpcWeb;

impl Filter for GrpcWeb {
    fn hooks(&self) -> Hooks {
        Hooks::BOTH
    }

    fn on_request(&self, request: &mut dyn RequestHead, context: &mut Context) -> Verdict {
        let spoken = request.get(&CONTENT_TYPE).and_then(Speaks::of);
        if let Some((web @ (Speaks::Web | Speaks::WebText), format)) = spoken
            && let Some(native) = Speaks::Grpc.content_type(format)
        {
            request.set(&CONTENT_TYPE, native);
            context.grpc_web = Some(web);
        }
        Verdict::Continue
    }

    fn on_response(&self, _: &dyn RequestHead, response: &mut dyn ResponseHead, context: &Context) {
        let spoken = response.get(&CONTENT_TYPE).and_then(Speaks::of);
        if let (Some(web), Some((Speaks::Grpc, format))) = (context.grpc_web, spoken)
            && let Some(content_type) = web.content_type(format)
        {
            response.set(&CONTENT_TYPE, content_type);
            // The trailers come on top.
            response.remove(&CONTENT_LENGTH);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::clock;
    use crate::context::RequestId;
    use crate::head::{HeaderValue, Headers as _, Method, RequestBuf, ResponseBuf, StatusCode};

    fn translated(sent: &'static str, answered: &'static str) -> (String, String) {
        let mut request = RequestBuf::new(Method::POST, "/a.B/C");
        request.set(&CONTENT_TYPE, HeaderValue::from_static(sent));
        let started = clock::now();
        let mut context = Context::detached(IpAddr::V4(Ipv4Addr::LOCALHOST), RequestId::from_bits(1), started);
        assert!(matches!(GrpcWeb.on_request(&mut request, &mut context), Verdict::Continue));
        let mut response = ResponseBuf::new(StatusCode::OK);
        response.set(&CONTENT_TYPE, HeaderValue::from_static(answered));
        response.set(&CONTENT_LENGTH, HeaderValue::from_static("7"));
        GrpcWeb.on_response(&request, &mut response, &context);
        let answer = response.text(&CONTENT_TYPE).unwrap().to_owned();
        assert_eq!(response.has(&CONTENT_LENGTH), answer == answered, "{sent} {answered}");
        (request.text(&CONTENT_TYPE).unwrap().to_owned(), answer)
    }

    #[test]
    fn both_heads_are_translated_and_nothing_else_is() {
        for (sent, answered, on, back) in [
            ("application/grpc-web", "application/grpc", "application/grpc", "application/grpc-web"),
            (
                "application/grpc-web+proto",
                "application/grpc+proto",
                "application/grpc+proto",
                "application/grpc-web+proto",
            ),
            ("application/grpc-web-text", "application/grpc", "application/grpc", "application/grpc-web-text"),
            ("application/grpc-web+json", "text/html", "application/grpc+json", "text/html"),
            ("application/grpc", "application/grpc", "application/grpc", "application/grpc"),
            ("application/json", "application/grpc", "application/json", "application/grpc"),
        ] {
            assert_eq!(translated(sent, answered), (on.to_owned(), back.to_owned()), "{sent}");
        }
    }
}
