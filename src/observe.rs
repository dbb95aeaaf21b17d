//! What the gateway tells about itself: the error log, the access log and the metrics.
//!
//! Nothing here knows a configuration or a connection: callers hand in plain settings and plain values. No part of
//! it waits for a disk or for another core on the path of a request.

pub mod access;
pub mod audit;
pub mod log;
pub mod metrics;
pub mod webhooks;
