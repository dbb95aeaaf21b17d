//! One SQLite connection on its own thread, so that no query holds up a thread that serves connections.

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::answer::Failure;

/// Work that may wait for the database before further requests are refused with 503.
const WAITING_MAX: usize = 256;
/// How long another process may hold the file locked.
const LOCKED_TIME_MAX: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle on the connection; the connection closes when the last handle is dropped.
#[derive(Clone)]
pub struct Database {
    jobs: mpsc::Sender<Job>,
    opened: Timestamp,
}

impl Database {
    /// Opens or creates the file, runs `schema` and starts the thread. `:memory:` needs no file.
    pub fn open(path: &Path, schema: &str) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(LOCKED_TIME_MAX)?;
        // Write-ahead log: a commit appends once, and readers in other processes do not wait for it.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.execute_batch(schema)?;
        let (jobs, mut waiting) = mpsc::channel::<Job>(WAITING_MAX);
        let worker = std::thread::Builder::new().name("database".to_owned()).spawn(move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&mut connection);
            }
        })?;
        Ok((Self { jobs, opened: Timestamp::now() }, worker))
    }

    /// Runs `work` on the connection when its turn comes. It is done even when the caller has left meanwhile.
    pub async fn call<T, W>(&self, work: W) -> Result<T, Failure>
    where
        T: Send + 'static,
        W: FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // An error here means that the caller has left.
            let _ = answer.send(work(connection));
        });
        self.jobs.try_send(job).map_err(|_| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "The database is busy"))?;
        answered.await.map_err(|_| Failure::internal(&"the database thread has ended"))?
    }

    pub fn age_seconds(&self) -> i64 {
        Timestamp::now().as_second().saturating_sub(self.opened.as_second())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS t (a INTEGER) STRICT";

    fn count(connection: &Connection) -> Result<i64, Failure> {
        Ok(connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?)
    }

    #[tokio::test]
    async fn a_file_keeps_its_rows_and_uses_the_write_ahead_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demo.db");
        let (first, worker) = Database::open(&path, SCHEMA).unwrap();
        first.call(|connection| Ok(connection.execute("INSERT INTO t VALUES (1)", [])?)).await.unwrap();
        let mode = |connection: &mut Connection| {
            Ok(connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0))?)
        };
        assert_eq!(first.call(mode).await.unwrap(), "wal");
        drop(first);
        worker.join().unwrap();
        let (second, _) = Database::open(&path, SCHEMA).unwrap();
        assert_eq!(second.call(|connection| count(connection)).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn more_than_may_wait_is_refused_and_the_rest_is_served() {
        let (database, _) = Database::open(Path::new(":memory:"), SCHEMA).unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (running, runs) = oneshot::channel();
        let handle = database.clone();
        let slow = tokio::spawn(async move {
            handle
                .call(move |_| {
                    running.send(()).unwrap();
                    released.recv().unwrap();
                    Ok(())
                })
                .await
        });
        runs.await.unwrap();
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(database.call(|c| count(c)))).collect();
        for call in &mut waiting {
            assert!(is_pending(call.as_mut()).await);
        }
        assert!(database.call(|connection| count(connection)).await.is_err());
        release.send(()).unwrap();
        slow.await.unwrap().unwrap();
        for call in waiting {
            assert_eq!(call.await.unwrap(), 0);
        }
    }

    /// Polls once.
    async fn is_pending<F: Future + Unpin>(mut future: F) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut future).poll(context).is_pending())
        })
        .await
    }
}
