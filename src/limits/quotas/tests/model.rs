//! Several gateways on one store against a plain count of what was admitted.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::faulty::{Fault, Faulty};
use super::*;

#[derive(Clone, Debug)]
enum Event {
    Spend {
        gateway: usize,
        who: usize,
        cost: u64,
        times: u64,
    },
    /// It is killed, and another one starts in its place.
    Crash(usize),
    /// It ends as it should, and another one starts in its place.
    Restart(usize),
    Sweep(usize),
    /// The clock of all gateways goes to this day, forward or back.
    Day(u64),
    Fault(Fault),
}

const GATEWAYS: usize = 3;

fn events(faults: Vec<Fault>) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        20 => (0..GATEWAYS, 0..2_usize, 1..4_u64, 1..40_u64)
            .prop_map(|(gateway, who, cost, times)| Event::Spend { gateway, who, cost, times }),
        1 => (0..GATEWAYS).prop_map(Event::Crash),
        1 => (0..GATEWAYS).prop_map(Event::Restart),
        2 => (0..GATEWAYS).prop_map(Event::Sweep),
        1 => (0..3_u64).prop_map(Event::Day),
        2 => proptest::sample::select(faults).prop_map(Event::Fault),
    ];
    proptest::collection::vec(event, 1..60)
}

struct Model {
    store: Arc<Faulty>,
    gateways: Vec<Arc<Quotas>>,
    terms: Terms,
    limit: u64,
    at: Moment,
    day: u64,
    /// By day and caller.
    admitted: BTreeMap<(u64, usize), u64>,
    /// Units that were held by gateways that were killed, or for a day that was left.
    lost: u64,
    /// Whether any operation failed.
    failed: bool,
}

impl Model {
    fn new(limit: u64, policy: OnStoreError) -> Self {
        let store = Arc::new(Faulty::new(memory()));
        let gateways = (0..GATEWAYS).map(|_| quotas(&store)).collect();
        let terms = terms(Unit::Day, "UTC", policy);
        let (admitted, at) = (BTreeMap::new(), at(NOON));
        Self { store, gateways, terms, limit, at, day: 0, admitted, lost: 0, failed: false }
    }

    fn moment(&self) -> Moment {
        Moment { wall: self.at.wall + Duration::from_secs(86_400 * self.day), ..self.at }
    }

    async fn happens(&mut self, event: &Event, gateways: usize) {
        // So late that nobody relies on what the store said before.
        self.at.now += Duration::from_secs(2);
        match *event {
            Event::Spend { gateway, who, cost, times } => {
                for _ in 0..times {
                    self.spend(gateway % gateways, who, cost).await;
                }
            }
            Event::Crash(gateway) => {
                let quotas = std::mem::replace(&mut self.gateways[gateway % gateways], quotas(&self.store));
                self.lost += quotas.all().iter().map(|bucket| bucket.held() + bucket.owed()).sum::<u64>();
            }
            Event::Restart(gateway) => {
                let quotas = std::mem::replace(&mut self.gateways[gateway % gateways], quotas(&self.store));
                quotas.flush().await;
                self.lost += quotas.all().iter().map(|bucket| bucket.held() + bucket.owed()).sum::<u64>();
            }
            Event::Sweep(gateway) => {
                (0..4).for_each(|_| self.gateways[gateway % gateways].sweep(self.at.now + Duration::from_secs(60)));
            }
            Event::Day(day) => {
                self.lost += held(&self.gateways);
                self.day = day;
            }
            Event::Fault(fault) => {
                self.store.set(fault);
                self.failed |= fault != Fault::None;
            }
        }
    }

    async fn spend(&mut self, gateway: usize, who: usize, cost: u64) {
        let want = Want { limit: self.limit, cost };
        let bucket = self.gateways[gateway].bucket("b");
        let answer = bucket.spend(&self.terms, &who.to_string(), want, self.moment()).await;
        let admitted = self.admitted.entry((self.day, who)).or_default();
        match answer {
            Answer::Admitted(_) => *admitted += cost,
            Answer::Refused(_) => {
                let most = *admitted + self.lost + held(&self.gateways);
                assert!(self.failed || most + cost > self.limit, "refused with {most} of {} used or held", self.limit);
            }
            Answer::Unavailable => assert!(self.failed),
        }
    }

    /// Everybody gives back and pays; then the counters.
    async fn settled(&mut self) -> BTreeMap<(u64, usize), u64> {
        self.store.set(Fault::None);
        for quotas in &self.gateways {
            quotas.flush().await;
        }
        let mut counters = BTreeMap::new();
        for &(day, who) in self.admitted.keys() {
            let key = format!("b/2040-06-{}/{who}", 15 + day);
            counters.insert((day, who), counter(&*self.store, &key).await);
        }
        counters
    }
}

/// Units that gateways hold in advance.
fn held(gateways: &[Arc<Quotas>]) -> u64 {
    gateways.iter().flat_map(|quotas| quotas.all()).map(|bucket| bucket.held()).sum()
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn gateways_on_a_sound_store_never_admit_more_and_lose_no_more_than_blocks(
        events in events(vec![Fault::None]), limit in 1..700_u64,
    ) {
        run(async {
            let mut model = Model::new(limit, OnStoreError::Local);
            for event in &events {
                model.happens(event, GATEWAYS).await;
            }
            let counters = model.settled().await;
            for (key, admitted) in &model.admitted {
                assert!(*admitted <= limit, "{admitted} of {limit}");
                assert!(counters[key] >= *admitted && counters[key] <= limit);
            }
            let (counted, admitted) = (counters.values().sum::<u64>(), model.admitted.values().sum::<u64>());
            assert!(counted <= admitted + model.lost, "{counted} counted, {admitted} admitted, {} lost", model.lost);
        });
    }

    #[test]
    fn a_failing_store_with_deny_never_lets_more_through(
        events in events(vec![Fault::None, Fault::Fails, Fault::Lies]), limit in 1..700_u64,
    ) {
        run(async {
            let mut model = Model::new(limit, OnStoreError::Deny);
            for event in &events {
                model.happens(event, GATEWAYS).await;
            }
            let counters = model.settled().await;
            for (key, admitted) in &model.admitted {
                assert!(*admitted <= limit && *admitted <= counters[key]);
            }
        });
    }

    #[test]
    fn a_gateway_that_counts_in_memory_for_a_while_keeps_the_limit_and_pays(
        events in events(vec![Fault::None, Fault::Fails]), limit in 1..700_u64,
    ) {
        run(async {
            let mut model = Model::new(limit, OnStoreError::Local);
            // What is not paid yet is lost with its process, and forgotten accounts have to ask again.
            let goes_on = |event: &&Event| !matches!(event, Event::Crash(_) | Event::Restart(_));
            for event in events.iter().filter(goes_on) {
                model.happens(event, 1).await;
            }
            let counters = model.settled().await;
            for (key, admitted) in &model.admitted {
                assert!(*admitted <= counters[key], "{admitted} admitted, {} counted", counters[key]);
            }
            // A day that is entered again while the store fails begins with nothing known.
            if !events.iter().any(|event| matches!(event, Event::Day(_) | Event::Sweep(_))) {
                assert!(model.admitted.values().all(|admitted| *admitted <= limit));
            }
        });
    }
}
