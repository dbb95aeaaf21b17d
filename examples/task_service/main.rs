//! A task service as it might stand behind the gateway: tasks, the queue of pending ones, and figures about them.
//!
//! ```text
//! cargo run --example task_service -- --bind 127.0.0.1:9101 --db tasks.db
//! ```

#[path = "../common/service.rs"]
mod service;
mod tasks;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use service::Service;

const SERVICE: Service = Service {
    name: "task service",
    bind: "127.0.0.1:9101",
    body_bytes_max: 64 * 1024,
    schema: tasks::SCHEMA,
    routes: tasks::routes,
};

fn main() -> ExitCode {
    SERVICE.main()
}
