//! Those who send: each message again and again until it gets a 2xx.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::signed;
use crate::harness::{Client, Response, within};

/// Messages that one sender has not got rid of, beyond which it thinks of no new ones.
const WAITING_MAX: usize = 40;
/// Between a refusal and the next try: short, so that much happens.
const PAUSE: Duration = Duration::from_millis(10);

/// What its sender knows of a message.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Tries that got no answer, or none that says what became of it.
    pub unsure: usize,
    /// The statuses of its 2xx: one.
    pub acknowledged: Vec<u16>,
    /// The ids it was acknowledged under.
    pub ids: Vec<String>,
}

/// What all of them know.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub messages: BTreeMap<String, Sent>,
    pub acknowledged: usize,
    /// Tries that were cut off.
    pub cut: usize,
    /// By code.
    pub refused: BTreeMap<String, usize>,
}

impl Told {
    pub fn refused(&self, code: &str) -> usize {
        self.refused.get(code).copied().unwrap_or_default()
    }
}

pub struct Crowd {
    told: watch::Receiver<Told>,
    addresses: watch::Sender<Vec<SocketAddr>>,
    /// Whether they think of new messages.
    fresh: watch::Sender<bool>,
    senders: JoinSet<()>,
}

impl Crowd {
    /// `count` of them, who send nothing until they know where to.
    pub fn gather(count: usize) -> Self {
        let (tell, told) = watch::channel(Told::default());
        let (addresses, known) = watch::channel(Vec::new());
        let (fresh, is_fresh) = watch::channel(true);
        let tell = Arc::new(tell);
        let mut senders = JoinSet::new();
        for number in 0..count {
            let sender = Sender {
                number,
                next: 0,
                waiting: VecDeque::new(),
                client: None,
                tell: Arc::clone(&tell),
                addresses: known.clone(),
                fresh: is_fresh.clone(),
            };
            senders.spawn(sender.run());
        }
        Self { told, addresses, fresh, senders }
    }

    pub fn send_to(&self, addresses: &[SocketAddr]) {
        self.addresses.send_replace(addresses.to_vec());
    }

    pub fn told(&self) -> Told {
        self.told.borrow().clone()
    }

    /// Waits until what they were told is as it has to be.
    pub async fn heard(&self, what: &str, is_so: impl Fn(&Told) -> bool) {
        let mut told = self.told.clone();
        within(what, told.wait_for(is_so)).await.expect("somebody sends");
    }

    /// So many more acknowledgements.
    pub async fn heard_acknowledged(&self, more: usize) {
        let least = self.told.borrow().acknowledged + more;
        self.heard("acknowledgements", |told| told.acknowledged >= least).await;
    }

    /// So many more refusals.
    pub async fn heard_refused(&self, code: &str, more: usize) {
        let least = self.told.borrow().refused(code) + more;
        self.heard(code, |told| told.refused(code) >= least).await;
    }

    /// Nobody thinks of anything new; when all is acknowledged, what they were told.
    pub async fn finish(mut self) -> Told {
        self.fresh.send_replace(false);
        let all = async {
            while let Some(ended) = self.senders.join_next().await {
                ended.expect("a sender met something unexpected");
            }
        };
        within("the last acknowledgements", all).await;
        self.told.borrow().clone()
    }
}

struct Sender {
    number: usize,
    next: usize,
    waiting: VecDeque<String>,
    client: Option<(SocketAddr, Client)>,
    tell: Arc<watch::Sender<Told>>,
    addresses: watch::Receiver<Vec<SocketAddr>>,
    fresh: watch::Receiver<bool>,
}

impl Sender {
    async fn run(mut self) {
        while let Some(name) = self.choose() {
            let response = self.attempt(&name).await;
            let is_acknowledged = response.as_ref().is_some_and(|response| response.status < 300);
            self.note(&name, response.as_ref());
            if !is_acknowledged {
                self.waiting.push_back(name);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// A new message or an old one; none when there is nothing left to do.
    fn choose(&mut self) -> Option<String> {
        let is_fresh = *self.fresh.borrow();
        if !is_fresh || self.waiting.len() >= WAITING_MAX || (fastrand::bool() && !self.waiting.is_empty()) {
            return self.waiting.pop_front();
        }
        self.next += 1;
        Some(format!("m-{}-{}", self.number, self.next))
    }

    /// `None`: it got no answer.
    async fn attempt(&mut self, name: &str) -> Option<Response> {
        let (address, mut client) = within("a gateway", self.connected()).await;
        let (head, body) = signed(name);
        client.send(head).await;
        let (first, rest) = body.split_at(body.len().min(30_000));
        client.send(first).await;
        if !rest.is_empty() {
            // A slow one, to be met in the middle.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..20))).await;
            client.send(rest).await;
        }
        let response = client.try_response(false).await.ok()?;
        if response.head.get("connection") != Some("close") {
            self.client = Some((address, client));
        }
        Some(response)
    }

    /// The last connection, or a new one as soon as somebody takes it.
    async fn connected(&mut self) -> (SocketAddr, Client) {
        loop {
            let known = self.addresses.wait_for(|known| !known.is_empty()).await;
            let addresses = known.expect("the crowd is there").clone();
            if let Some((address, client)) = self.client.take().filter(|(address, _)| addresses.contains(address)) {
                return (address, client);
            }
            let address = addresses[fastrand::usize(..addresses.len())];
            if let Ok(stream) = TcpStream::connect(address).await {
                return (address, Client::over(stream));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn note(&self, name: &str, response: Option<&Response>) {
        let code = response.and_then(refusal);
        self.tell.send_modify(|told| {
            let sent = told.messages.entry(name.to_owned()).or_default();
            let Some(response) = response else {
                sent.unsure += 1;
                told.cut += 1;
                return;
            };
            if let Some(code) = code {
                // The store did not say in time whether it has it.
                sent.unsure += usize::from(code == "STATE_UNAVAILABLE");
                *told.refused.entry(code).or_default() += 1;
                return;
            }
            sent.acknowledged.push(response.status);
            sent.ids.extend(response.head.get("x-message-id").map(str::to_owned));
            told.acknowledged += 1;
        });
    }
}

/// The code of an honest refusal; `None` of an acknowledgement. Everything else is none of the two.
fn refusal(response: &Response) -> Option<String> {
    let pause = response.head.get("retry-after");
    let (code, after) = match response.status {
        202 => {
            assert!(response.head.has("x-message-id") && response.body.is_empty(), "{response:?}");
            return None;
        }
        // It was acknowledged before, as far as the gateway knows.
        200 => {
            assert!(response.body.is_empty(), "{response:?}");
            return None;
        }
        409 => ("IN_PROGRESS", "1"),
        503 if response.is_refusal("INBOX_FULL") => ("INBOX_FULL", "30"),
        503 => ("STATE_UNAVAILABLE", "5"),
        _ => panic!("{response:?}"),
    };
    response.refused(response.status, code);
    assert_eq!(pause, Some(after), "{response:?}");
    Some(code.to_owned())
}
