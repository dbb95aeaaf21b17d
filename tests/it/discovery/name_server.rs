//! A name server that says what it is told to.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::harness::within;

/// What a name has.
#[derive(Clone, Debug)]
pub enum Record {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    /// Priority, weight, port, host.
    Srv(u16, u16, u16, &'static str),
}

/// How the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// With this code: 2 SERVFAIL, 3 NXDOMAIN.
    Code(u8),
    Silent,
}

#[derive(Default)]
struct Zone {
    records: HashMap<String, (u32, Vec<Record>)>,
    mood: Option<Mood>,
}

pub struct NameServer {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl NameServer {
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    pub async fn start_at(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone: Arc<Mutex<Zone>> = Arc::default();
        let (count, asked) = watch::channel(0);
        let known = Arc::clone(&zone);
        let task = tokio::spawn(async move {
            let mut query = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                let answer = known.lock().unwrap().answer(&query[..length]);
                count.send_modify(|count| *count += 1);
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Self { address, zone, asked, task }
    }

    /// From now on the name has these records, for so many seconds.
    pub fn set(&self, name: &str, ttl: u32, records: Vec<Record>) {
        self.zone.lock().unwrap().records.insert(name.to_owned(), (ttl, records));
    }

    pub fn be(&self, mood: Mood) {
        self.zone.lock().unwrap().mood = Some(mood);
    }

    pub fn asked(&self) -> usize {
        *self.asked.borrow()
    }

    /// Waits until it was asked so many times more.
    pub async fn asked_again(&self, times: usize) {
        let mut asked = self.asked.clone();
        let before = *asked.borrow();
        within("a question", asked.wait_for(|count| *count >= before + times)).await.unwrap();
    }
}

impl Zone {
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let mood = self.mood.unwrap_or(Mood::Well);
        if mood == Mood::Silent {
            return None;
        }
        let (mut at, mut labels) = (12, Vec::new());
        while query[at] != 0 {
            let length = usize::from(query[at]);
            labels.push(String::from_utf8_lossy(&query[at + 1..=at + length]).to_lowercase());
            at += length + 1;
        }
        let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
        let question = &query[12..at + 5];
        let found = self.records.get(&labels.join("."));
        let code = match (mood, found) {
            (Mood::Code(code), _) => code,
            (_, None) => 3,
            (_, Some(_)) => 0,
        };
        let (ttl, records) = found.filter(|_| code == 0).cloned().unwrap_or_default();
        let records: Vec<Vec<u8>> = records.iter().filter_map(|record| data(record, kind)).collect();
        let count = u16::try_from(records.len()).unwrap().to_be_bytes();
        let mut answer = query[..2].to_vec();
        answer.extend([0x81, 0x80 | code, 0, 1, count[0], count[1], 0, 0, 0, 0]);
        answer.extend(question);
        for data in records {
            answer.extend([0xc0, 12]);
            answer.extend(kind.to_be_bytes());
            answer.extend([0, 1]);
            answer.extend(ttl.to_be_bytes());
            answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            answer.extend(data);
        }
        Some(answer)
    }
}

/// The data of a record, if it is of this kind.
fn data(record: &Record, kind: u16) -> Option<Vec<u8>> {
    match (record, kind) {
        (Record::A(address), 1) => Some(address.octets().to_vec()),
        (Record::Aaaa(address), 28) => Some(address.octets().to_vec()),
        (Record::Srv(priority, weight, port, host), 33) => {
            let mut data: Vec<u8> =
                [*priority, *weight, *port].iter().flat_map(|number| number.to_be_bytes()).collect();
            for label in host.split('.').filter(|label| !label.is_empty()) {
                data.push(u8::try_from(label.len()).unwrap());
                data.extend(label.as_bytes());
            }
            data.push(0);
            Some(data)
        }
        _ => None,
    }
}
