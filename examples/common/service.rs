//! What the demo services have in common: command line, listening, stopping, and the frame around every answer.
//!
//! A service is a [`Service`]: its name, schema and routes. Everything a client may send is bounded here or in
//! [`fields`]: body bytes, request time, list length, waiting database work.

pub mod answer;
#[cfg(test)]
pub mod client;
pub mod database;
pub mod fields;

use std::ffi::OsString;
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::get;
use axum::{Json, Router, middleware};
use clap::{Args, Command, FromArgMatches};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use answer::{Failure, frame, time_text};
use database::Database;

/// How long requests in flight may take to end once the service was told to stop.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// One demo service.
pub struct Service {
    /// As it is called in its own output, such as `task service`.
    pub name: &'static str,
    /// The address it listens on unless `--bind` says otherwise.
    pub bind: &'static str,
    /// The largest request body in bytes; a longer one is answered 413.
    pub body_bytes_max: usize,
    /// SQL that creates what is missing; it runs at every start.
    pub schema: &'static str,
    /// All routes but `/health`.
    pub routes: fn() -> Router<Database>,
}

#[derive(Args)]
struct Arguments {
    /// Address to listen on; port 0 takes any free one
    #[arg(long)]
    bind: SocketAddr,
    /// SQLite file, created when missing; `:memory:` forgets everything at the end
    #[arg(long, default_value = ":memory:")]
    db: PathBuf,
}

impl Service {
    /// Runs until SIGTERM or SIGINT, or until the address or the database cannot be had.
    pub fn main(&self) -> ExitCode {
        let arguments = self.arguments(std::env::args_os());
        match self.run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}: {error:#}", self.name);
                ExitCode::FAILURE
            }
        }
    }

    /// Ends the process with usage or help where the arguments ask for it.
    fn arguments(&self, given: impl Iterator<Item = OsString>) -> Arguments {
        let command = Arguments::augment_args(Command::new(self.name).version(env!("CARGO_PKG_VERSION")))
            .mut_arg("bind", |bind| bind.required(false).default_value(self.bind));
        let parsed = command.clone().get_matches_from(given);
        Arguments::from_arg_matches(&parsed).unwrap_or_else(|error| error.exit())
    }

    fn run(&self, arguments: &Arguments) -> anyhow::Result<()> {
        let (database, worker) = Database::open(&arguments.db, self.schema)
            .with_context(|| format!("cannot open the database {}", arguments.db.display()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let ended = runtime.block_on(async {
            let listener = TcpListener::bind(arguments.bind)
                .await
                .with_context(|| format!("cannot listen on {}", arguments.bind))?;
            let stop = stop_signal()?;
            self.announce(&listener)?;
            self.serve(listener, database, stop).await
        });
        // Connections that outlived the drain hold the database open: end them before waiting for its thread.
        drop(runtime);
        if worker.join().is_err() {
            anyhow::bail!("the database thread panicked");
        }
        ended
    }

    /// Whoever started the service waits for this line, so it must not linger in a buffer.
    fn announce(&self, listener: &TcpListener) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{} listening on {}", self.name, listener.local_addr()?)?;
        Ok(stdout.flush()?)
    }

    /// Answers requests until `stop` ends, then lets those in flight end within [`DRAIN_TIME_MAX`].
    async fn serve(
        &self,
        listener: TcpListener,
        database: Database,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
        let stop = async move {
            stop.await;
            drop(stopping);
        };
        let server = axum::serve(listener, self.router(database)).with_graceful_shutdown(stop);
        let deadline = async {
            let _ = stopped.await;
            tokio::time::sleep(DRAIN_TIME_MAX).await;
        };
        tokio::select! {
            ended = server => Ok(ended?),
            () = deadline => Ok(()),
        }
    }

    fn router(&self, database: Database) -> Router {
        (self.routes)()
            .route("/health", get(health))
            .layer(DefaultBodyLimit::max(self.body_bytes_max))
            .layer(middleware::from_fn(frame))
            .with_state(database)
    }
}

/// Ends at the first SIGTERM or SIGINT. The handlers are in place when this returns.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Healthy means that the database answers; a failure of it is answered 500 or 503.
async fn health(State(database): State<Database>) -> Result<Json<Value>, Failure> {
    database.call(|connection| Ok(connection.execute_batch("SELECT 1")?)).await?;
    Ok(Json(json!({
        "status": "healthy",
        "version": env!("CARGO_PKG_VERSION"),
        "timestamp": time_text(jiff::Timestamp::now()),
        "uptime_seconds": database.age_seconds(),
    })))
}

#[cfg(test)]
mod tests {
    use super::client::Running;
    use super::fields::Body;
    use super::{Arguments, Service};
    use axum::Router;
    use axum::routing::post;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    const BARE: Service = Service {
        name: "bare service",
        bind: "127.0.0.1:9100",
        body_bytes_max: 16,
        schema: "CREATE TABLE IF NOT EXISTS t (a INTEGER) STRICT",
        routes: || Router::new().route("/empty", post(|Body(fields): Body| async { fields.finish() })),
    };

    fn parsed(given: &[&str]) -> Arguments {
        BARE.arguments(["bare"].iter().chain(given).map(|word| (*word).into()))
    }

    #[test]
    fn the_address_and_the_database_have_defaults() {
        assert_eq!(parsed(&[]).bind.to_string(), "127.0.0.1:9100");
        assert_eq!(parsed(&[]).db.to_str(), Some(":memory:"));
        let chosen = parsed(&["--bind", "[::1]:0", "--db", "a.db"]);
        assert_eq!((chosen.bind.to_string().as_str(), chosen.db.to_str()), ("[::1]:0", Some("a.db")));
    }

    #[tokio::test]
    async fn health_is_answered_until_the_service_stops() {
        let running = Running::start(&BARE).await;
        let answer = running.get("/health").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body["status"], json!("healthy"));
        assert!(answer.body["timestamp"].as_str().unwrap().ends_with('Z'));
        running.stop().await;
    }

    #[tokio::test]
    async fn a_request_in_flight_is_answered_after_the_stop() {
        let running = Running::start(&BARE).await;
        let address = running.address;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = "POST /empty HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 2\r\n";
        stream.write_all(format!("{head}Expect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
        // The interim answer shows that the handler waits for the body.
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");

        let stopping = tokio::spawn(running.stop());
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        stream.write_all(b"{}").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        stopping.await.unwrap();
    }

    #[tokio::test]
    async fn refusals_that_the_framework_makes_have_the_one_shape_too() {
        let running = Running::start(&BARE).await;
        let missing = running.get("/nowhere").await;
        assert_eq!((missing.status, missing.code()), (404, "NOT_FOUND"));
        let refused = running.send("POST", "/health", "", "").await;
        assert_eq!((refused.status, refused.code()), (405, "METHOD_NOT_ALLOWED"));
        assert_eq!(refused.header("allow"), Some("GET,HEAD"));
    }

    #[tokio::test]
    async fn a_request_id_is_echoed_and_a_doubtful_one_replaced() {
        let running = Running::start(&BARE).await;
        let longest = "a".repeat(128);
        for (sent, kept) in [("req-1", true), (longest.as_str(), true), ("", false), ("a b", false)] {
            let answer = running.send("GET", "/nowhere", &format!("X-Request-Id: {sent}\r\n"), "").await;
            let id = answer.header("x-request-id").unwrap();
            assert_eq!(id == sent, kept, "{sent:?} became {id:?}");
            assert_eq!(answer.body["request_id"], json!(id));
        }
        let too_long = running.send("GET", "/health", &format!("X-Request-Id: {longest}a\r\n"), "").await;
        assert!(too_long.header("x-request-id").unwrap().starts_with("req-"));
    }
}
