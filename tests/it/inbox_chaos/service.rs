//! The service behind the gateway: it notes what it is sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::body;
use crate::harness::{Upstream, answer, within};

/// A delivery as it arrived, whole.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub name: String,
    /// `X-Delivery-Id`
    pub id: String,
    pub attempt: u32,
    pub key: String,
    /// Whether it was answered 2xx, as far as the service knows.
    pub is_done: bool,
}

/// How it answers.
#[derive(Clone, Copy, Debug)]
pub enum Behaviour {
    /// With 200, at once or after a moment; with 500 now and then.
    Busy,
    /// With 200 after this.
    Slow(Duration),
    /// With 500 when the number of a message is divisible by five.
    Picky,
}

pub struct Service {
    pub upstream: Upstream,
    arrivals: watch::Receiver<Vec<Arrival>>,
}

impl Service {
    pub async fn start(behaviour: Behaviour) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), behaviour).await
    }

    pub async fn start_at(address: SocketAddr, behaviour: Behaviour) -> Self {
        let (sender, arrivals) = watch::channel(Vec::<Arrival>::new());
        let sender = Arc::new(sender);
        let upstream = Upstream::scripted_at(address, move |mut conn| {
            let sender = Arc::clone(&sender);
            async move {
                while let Some(request) = conn.head().await {
                    let Some(sent) = conn.body(request.framing).await else { return };
                    let name = sent.bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
                    let name = String::from_utf8_lossy(name).into_owned();
                    assert!(sent.bytes == body(&name), "{name} arrived as something else");
                    let field = |field: &str| request.head.get(field).expect("a field of the worker").to_owned();
                    let (status, pause) = behaviour.of(&name);
                    let arrival = Arrival {
                        id: field("x-delivery-id"),
                        attempt: field("x-delivery-attempt").parse().unwrap(),
                        key: field("idempotency-key"),
                        is_done: status == 200,
                        name,
                    };
                    sender.send_modify(|arrivals| arrivals.push(arrival));
                    tokio::time::sleep(pause).await;
                    conn.send(answer(status, b"")).await;
                }
            }
        })
        .await;
        Self { upstream, arrivals }
    }

    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.borrow().clone()
    }

    /// Waits until so many deliveries have arrived.
    pub async fn arrived(&self, count: usize) {
        let mut arrivals = self.arrivals.clone();
        within("a delivery", arrivals.wait_for(|arrivals| arrivals.len() >= count)).await.unwrap();
    }
}

impl Behaviour {
    fn of(self, name: &str) -> (u16, Duration) {
        match self {
            Self::Slow(pause) => (200, pause),
            Self::Busy => {
                let status = if fastrand::u8(..50) == 0 { 500 } else { 200 };
                let pause = if fastrand::u8(..8) == 0 { fastrand::u64(1..40) } else { 0 };
                (status, Duration::from_millis(pause))
            }
            Self::Picky => (if is_hopeless(name) { 500 } else { 200 }, Duration::ZERO),
        }
    }
}

/// Whether a picky service never takes it.
pub fn is_hopeless(name: &str) -> bool {
    let number = name.rsplit('-').next().and_then(|number| number.parse::<u64>().ok());
    number.is_some_and(|number| number % 5 == 0)
}
