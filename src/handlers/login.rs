//! `login`: gives tokens for a name and a password.
//!
//! For systems that have users and no identity provider: see the guide in `docs/token-service.md`. The tokens come from one of the
//! `token_services` of `gateway.yaml`; `refresh` exchanges them and `logout` takes them back.
//!
//! | setting | meaning | default |
//! |---|---|---|
//! | `service` | the name of the token service | the only one |
//!
//! The request is `POST` with `Content-Type: application/json` and `{"username": "…", "password": "…"}`, at most 8 KiB. The answer is
//! 200 with `Cache-Control: no-store` and
//! `{"access_token": "…", "refresh_token": "…", "token_type": "bearer", "expires_in": 3600}`
//! ([RFC 6749 §5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1)); `expires_in` counts seconds.
//!
//! | what is wrong | answer |
//! |---|---|
//! | name or password, or the user is disabled | 401 `UNAUTHORIZED`, `Invalid credentials`: nothing tells which |
//! | too many failures of this name or this address | 429 `RATE_LIMITED` with `Retry-After` |
//! | more logins at once than passwords can be checked | 503 `OVERLOADED` with `Retry-After` |
//! | the body is not what it should be, or something like a password stands in the query | 400 `VALIDATION_ERROR` |
//! | the service that knows the users fails | 502 `BAD_GATEWAY` |
//! | the state store fails | 503 `STATE_UNAVAILABLE` |
//!
//! A form is not taken: any page of any site may send one. A password has at most 1024 bytes; with a bcrypt hash at most 72, since
//! bcrypt ignores the rest.
//!
//! ```yaml
//! version: 1
//! listeners: [{ bind: 127.0.0.1:0 }]
//! token_services:
//!   main: { issuer: https://gateway.example, algorithm: HS256, secret: "${JWT_SECRET}" }
//! routes:
//!   - name: login
//!     match: POST /api/v1/auth/login
//!     login: { service: main }
//! tests:
//!   - request: POST /api/v1/auth/login
//!     expect: { route: login }
//!   - request: GET /api/v1/auth/login
//!     expect: { status: 405 }
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

const BODY_BYTES_MAX: usize = 8 * 1024;

/// Gives tokens for a name and a password.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LoginSettings {
    /// The token service. Default: the only one.
    service: Option<Located<String>>,
}

impl Settings for LoginSettings {
    const NAME: &'static str = "login";
    const SUMMARY: &'static str = "gives tokens for a name and a password";

    fn build(self, compiler: &mut Compiler) -> Option<AnyHandler> {
        compiler.token_service(self.service.as_ref()).map(|service| AnyHandler::waiting(Login { service }))
    }
}

struct Login {
    service: Arc<TokenService>,
}

/// What a client sends. Never printed.
#[derive(Deserialize)]
struct Body {
    username: String,
    password: String,
}

impl AsyncHandler for Login {
    fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX
    }

    fn answer<'a>(&'a self, request: &'a dyn RequestHead, body: Bytes, context: &'a Context) -> Answering<'a> {
        Box::pin(async move {
            no_credentials_in_query(request)?;
            let Body { username, password } = json_body(request, &body)?;
            let issued = self.service.login(&username, &password, context.client, clock::wall()).await?;
            Ok(issued.into())
        })
    }
}
