//! `logout`: takes tokens back before they end.
//!
//! The end of what `login` began; see the guide in `docs/token-service.md`.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `service` | the name of the token service | the only one |
//!
//! The request is `POST` with a token of the session, in one of these ways or in several:
//! - `Content-Type: application/json` and `{"refresh_token": "…"}`, at most 16 KiB; one that has expired will do,
//! - `Authorization: Bearer ACCESS_TOKEN`,
//! - the access token that an `auth` filter of the route has found good.
//!
//! The session ends: its refresh token and every access token of it are refused from then on, on every route and after a restart
//! (when `state` is a file). An access token that was minted on the command line belongs to no session and is taken back alone. The answer is
//! 204, also when the session had ended before.
//!
//! | what is wrong | answer |
//! |---|---|
//! | no token, or none of this service | 401 `UNAUTHORIZED`, `Invalid token` |
//! | the body is not what it should be, or something like a token stands in the query | 400 `VALIDATION_ERROR` |
//! | the state store fails | 503 `STATE_UNAVAILABLE`; ask again |
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! token_services:
//!   main: { issuer: https://gateway.example, algorithm: HS256, secret: "${JWT_SECRET}" }
//! routes:
//!   - name: logout
//!     match: POST /api/v1/auth/logout
//!     logout: {}
//! tests:
//!   - request: POST /api/v1/auth/logout
//!     expect: { route: logout }
//! ```

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Settings;
use crate::clock;
use crate::context::Context;
use crate::contract::{Answering, AnyHandler, AsyncHandler, Compiler, json_body, no_credentials_in_query};
use crate::head::{HeaderValue, RequestHead, StatusCode};
use crate::identity::{Refused, TokenService};
use crate::reply::Reply;
use crate::yaml::Located;

const BODY_BYTES_MAX: usize = 16 * 1024;

/// Takes tokens back before they end.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LogoutSettings {
    /// The token service. Default: the only one.
    service: Option<Located<String>>,
}

impl Settings for LogoutSettings {
    const NAME: &'static str = "logout";
    const SUMMARY: &'static str = "takes tokens back before they end";

    fn build(self, compiler: &mut Compiler) -> Option<AnyHandler> {
        compiler.token_service(self.service.as_ref()).map(|service| AnyHandler::waiting(Logout { service }))
    }
}

struct Logout {
    service: Arc<TokenService>,
}

/// What a client sends. Never printed.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    refresh_token: Option<String>,
}

impl AsyncHandler for Logout {
    fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX
    }

    fn answer<'a>(&'a self, request: &'a dyn RequestHead, body: Bytes, context: &'a Context) -> Answering<'a> {
        Box::pin(async move {
            no_credentials_in_query(request)?;
            let now = clock::wall();
            let Body { refresh_token } = if body.is_empty() { Body::default() } else { json_body(request, &body)? };
            let mut ended = match &context.caller {
                Some(caller) => self.service.logout_caller(caller, now).await?,
                None => false,
            };
            for token in [refresh_token.as_deref(), bearer(request)].into_iter().flatten() {
                match self.service.logout(token, now).await {
                    Ok(()) => ended = true,
                    Err(Refused::Token) => {}
                    Err(refused) => return Err(refused.into()),
                }
            }
            if !ended {
                return Err(Refused::Token.into());
            }
            Ok(Reply::new(StatusCode::NO_CONTENT).with_field(CACHE_CONTROL, HeaderValue::from_static("no-store")))
        })
    }
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1).
fn bearer(request: &dyn RequestHead) -> Option<&str> {
    let (scheme, token) = request.text(&AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim_matches(' '))
}
