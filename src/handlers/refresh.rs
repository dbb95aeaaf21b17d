//! `refresh`: exchanges a refresh token for a new pair of tokens.
//!
//! The other half of `login`; see the guide in `docs/token-service.md`.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `service` | the name of the token service | the only one |
//!
//! The request is `POST` with `Content-Type: application/json` and `{"refresh_token": "…"}`, at most 16 KiB. The answer is that of
//! `login`, with both tokens new. Roles and scopes are those that the user has now. A session ends when `refresh` of the token service
//! has passed since the login, however often it was refreshed.
//!
//! A refresh token is good once. Of several requests with the same one exactly one wins. The others, and any that come within
//! `reuse_grace` (5 seconds), are refused, and the session goes on: one client may have asked twice. Later, a used token
//! means that somebody copied it: the session ends, with all its tokens
//! ([RFC 9700 §4.14.2](https://www.rfc-editor.org/rfc/rfc9700#section-4.14.2)).
//!
//! | what is wrong | answer |
//! |---|---|
//! | the session has come to its end | 401 `UNAUTHORIZED`, `Token expired` |
//! | the token is used, taken back, forged or no refresh token; the user is disabled or gone | 401 `UNAUTHORIZED`, `Invalid token` |
//! | the body is not what it should be, or something like a token stands in the query | 400 `VALIDATION_ERROR` |
//! | the service that knows the users fails; the token stays good | 502 `BAD_GATEWAY` |
//! | the state store fails | 503 `STATE_UNAVAILABLE` |
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! token_services:
//!   main: { issuer: https://gateway.example, algorithm: HS256, secret: "${JWT_SECRET}" }
//! routes:
//!   - name: refresh
//!     match: POST /api/v1/auth/refresh
//!     refresh: {}
//! tests:
//!   - request: POST /api/v1/auth/refresh
//!     expect: { route: refresh }
//! ```

use std::sync::Arc;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Settings;
use crate::clock;
use crate::context::Context;
use crate::contract::{Answering, AnyHandler, AsyncHandler, Compiler, json_body, no_credentials_in_query};
use crate::head::RequestHead;
use crate::identity::TokenService;
use crate::yaml::Located;

const BODY_BYTES_MAX: usize = 16 * 1024;

/// Exchanges a refresh token for a new pair of tokens.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RefreshSettings {
    /// The token service. Default: the only one.
    service: Option<Located<String>>,
}

impl Settings for RefreshSettings {
    const NAME: &'static str = "refresh";
    const SUMMARY: &'static str = "exchanges a refresh token for a new pair of tokens";

    fn build(self, compiler: &mut Compiler) -> Option<AnyHandler> {
        compiler.token_service(self.service.as_ref()).map(|service| AnyHandler::waiting(Refresh { service }))
    }
}

struct Refresh {
    service: Arc<TokenService>,
}

/// What a client sends. Never printed.
#[derive(Deserialize)]
struct Body {
    refresh_token: String,
}

impl AsyncHandler for Refresh {
    fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX
    }

    fn answer<'a>(&'a self, request: &'a dyn RequestHead, body: Bytes, _: &'a Context) -> Answering<'a> {
        Box::pin(async move {
            no_credentials_in_query(request)?;
            let Body { refresh_token } = json_body(request, &body)?;
            Ok(self.service.refresh(&refresh_token, clock::wall()).await?.into())
        })
    }
}
