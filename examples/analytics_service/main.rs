//! An analytics service as it might stand behind the gateway: commits are tracked, and figures drawn from them.
//!
//! ```text
//! cargo run --example analytics_service -- --bind 127.0.0.1:9102 --db commits.db
//! ```

mod analytics;
mod commits;
#[path = "../common/service.rs"]
mod service;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use axum::Router;

use service::Service;
use service::database::Database;

const SERVICE: Service = Service {
    name: "analytics service",
    bind: "127.0.0.1:9102",
    body_bytes_max: 1024 * 1024,
    schema: commits::SCHEMA,
    routes,
};

fn main() -> ExitCode {
    SERVICE.main()
}

fn routes() -> Router<Database> {
    commits::routes().merge(analytics::routes())
}
