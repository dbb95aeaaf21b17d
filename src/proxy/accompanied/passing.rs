//! The walk of what is written, past the filters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::{Error, ErrorType};

use crate::chain::Instead;
use crate::clock;
use crate::context::{Context, Speaks};
use crate::gateway::Route;
use crate::proxy::accompany::{self, Lengths};
use crate::proxy::answer::is_final;
use crate::proxy::edge::Connection;
use crate::proxy::exchange::Exchange;
use crate::proxy::grpc;
use crate::proxy::heads::{Seen, Trailers};

/// No deadline of the connection ends a wait for a plugin: that has its own.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// What the filters need to know of an exchange.
pub struct Passing {
    request: RequestHeader,
    route: Arc<Route>,
    context: Context,
    reached: usize,
    /// What the client speaks when it is gRPC-Web; counts for answers of gRPC.
    web: Option<Speaks>,
    answers_grpc: bool,
    /// The head says how long the body is.
    length: Option<u64>,
    lengths: Lengths,
    /// The last piece of the body has passed.
    is_over: bool,
    pace: Pace,
}

/// How long the answer may be silent where nobody waits for a plugin.
struct Pace {
    connection: Option<Arc<Connection>>,
    idle: Duration,
    deadline: Option<Instant>,
}

/// Why nothing goes on.
pub enum Ended {
    Instead(Instead),
    /// The client left.
    Left(Box<Error>),
}

impl Passing {
    pub fn new(request: RequestHeader, route: Arc<Route>, context: Context, x: &Exchange) -> Self {
        let forward = x.forward.as_ref();
        Self {
            request,
            route,
            reached: x.reached,
            web: context.grpc_web.filter(|_| forward.is_some_and(|forward| forward.is_grpc)),
            context,
            answers_grpc: false,
            length: None,
            lengths: Lengths::default(),
            is_over: false,
            pace: Pace {
                connection: x.connection.clone(),
                idle: forward.map_or(WAIT_MAX, |forward| forward.upstream.timeouts.idle),
                deadline: forward.and_then(|forward| forward.deadline),
            },
        }
    }

    /// What is written of all this.
    pub async fn pass_all(&mut self, tasks: Vec<HttpTask>, client: &mut ServerSession) -> Result<Vec<HttpTask>, Ended> {
        let mut passed = Vec::with_capacity(tasks.len().saturating_add(1));
        for task in tasks {
            match task {
                HttpTask::Header(head, ends) => {
                    if is_final(&head) {
                        self.begin(&head, ends);
                    }
                    passed.push(HttpTask::Header(head, ends));
                }
                HttpTask::Body(piece, ends) => {
                    let piece = self.piece(piece.unwrap_or_default(), ends, client).await?;
                    // An empty chunk would be the end of the body.
                    let piece = (!piece.is_empty()).then_some(piece);
                    if ends || piece.is_some() {
                        passed.push(HttpTask::Body(piece, ends));
                    }
                }
                HttpTask::Trailer(trailers) => self.end(trailers, &mut passed, client).await?,
                HttpTask::Done => {
                    self.flush(&mut passed, client).await?;
                    passed.push(HttpTask::Done);
                }
                task => passed.push(task),
            }
        }
        Ok(passed)
    }

    fn begin(&mut self, head: &ResponseHeader, ends: bool) {
        let content_type = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        self.answers_grpc = content_type.and_then(Speaks::of).is_some();
        self.length = accompany::length(&head.headers);
        self.is_over = ends;
    }

    /// What goes on of a piece of the body.
    async fn piece(&mut self, piece: Bytes, ends: bool, client: &mut ServerSession) -> Result<Bytes, Ended> {
        if self.is_over {
            return Ok(piece);
        }
        self.is_over = ends;
        let came = piece.len();
        let seen = Seen(&self.request);
        let walk = self.route.chain.response_piece(self.reached, &seen, piece, ends, &self.context);
        let piece = self.pace.while_there(client, walk).await?;
        if !self.lengths.pass(self.length, came, piece.len(), ends) {
            let rejection = accompany::changed_length(&self.route.name);
            return Err(Ended::Instead(Instead { reached: 0, answer: Err(Box::new(rejection)) }));
        }
        match self.translates() {
            Some(web) if !piece.is_empty() => Ok(web.encode(piece)),
            _ => Ok(piece),
        }
    }

    /// The end of a body that trailers follow, or that nothing else has told of.
    async fn flush(&mut self, passed: &mut Vec<HttpTask>, client: &mut ServerSession) -> Result<(), Ended> {
        if !self.is_over {
            let piece = self.piece(Bytes::new(), true, client).await?;
            if !piece.is_empty() {
                passed.push(HttpTask::Body(Some(piece), false));
            }
        }
        Ok(())
    }

    /// Trailers, with what the filters held until then. Of the body they are told that it ends before: what they do with a whole
    /// one is done.
    async fn end(
        &mut self,
        trailers: Option<Box<HeaderMap>>,
        passed: &mut Vec<HttpTask>,
        client: &mut ServerSession,
    ) -> Result<(), Ended> {
        self.flush(passed, client).await?;
        let Some(mut trailers) = trailers else {
            passed.push(HttpTask::Trailer(None));
            return Ok(());
        };
        let seen = Seen(&self.request);
        let mut shown = Trailers(&mut trailers);
        let walk = self.route.chain.response_trailers(self.reached, &seen, &mut shown, &self.context);
        self.pace.while_there(client, walk).await?;
        passed.push(match self.translates() {
            Some(web) => HttpTask::Body(Some(grpc::frame(web, &trailers)), true),
            None => HttpTask::Trailer(Some(trailers)),
        });
        Ok(())
    }

    fn translates(&self) -> Option<Speaks> {
        self.web.filter(|_| self.answers_grpc)
    }
}

impl Pace {
    /// Waits for the filters while the client is there. Where a body is still to be read, that cannot be seen.
    async fn while_there<T>(
        &self,
        client: &mut ServerSession,
        walk: impl Future<Output = Result<T, Instead>>,
    ) -> Result<T, Ended> {
        let mut has_waited = false;
        let leaves = async {
            has_waited = true;
            if let Some(connection) = &self.connection {
                connection.expect_within(clock::now(), WAIT_MAX);
            }
            if client.is_body_done() || client.req_header().version == Version::HTTP_2 {
                let _ = client.read_body_or_idle(true).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let walked = tokio::select! {
            // First: one that waits for nothing costs no look at the connection.
            biased;
            walked = walk => walked.map_err(Ended::Instead),
            // Whatever it left with: there is nobody to tell.
            () = leaves => Err(Ended::Left(Error::new_down(ErrorType::ConnectionClosed))),
        };
        if let Some(connection) = self.connection.as_ref().filter(|_| has_waited) {
            let now = clock::now();
            let remaining = self.deadline.map(|deadline| deadline.saturating_duration_since(now));
            connection.stream(now, self.idle, remaining);
        }
        walked
    }
}
