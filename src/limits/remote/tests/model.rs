//! Three gateways, one bucket and a network that takes its time: what they let pass, against what the pages promise.

use proptest::prelude::*;

use super::*;

const GATEWAYS: usize = 3;

/// A bucket of one rate that nothing flows back into.
pub fn draw(used: &mut f64, rates: &Rates, ask: Ask) -> Drawn {
    let rate = rates.as_slice()[0];
    let free = (rate.capacity - *used).max(0.0);
    let admitted = free + 1e-6 >= ask.least;
    let got = if admitted { ask.most.min(free.max(ask.least)) } else { 0.0 };
    *used += got;
    Drawn {
        got,
        admitted,
        limit: rate.capacity,
        remaining: (rate.capacity - *used).max(0.0),
        full_in: rate.time_for(*used),
        retry_in: if admitted { Duration::ZERO } else { rate.time_for(ask.least - free) },
    }
}

/// Somebody wants tokens of one gateway.
#[derive(Clone, Copy, Debug)]
struct Want {
    /// Milliseconds since the one before.
    after: u64,
    gateway: usize,
    cost: u32,
    /// Milliseconds that a question takes to the store, and its answer back.
    way: (u64, u64),
}

enum Kind {
    Alone(f64),
    Led(Asked, f64),
    Refill(f64),
}

use super::lease::Asked;

/// A question or an answer on its way.
struct Message {
    arrives: u64,
    gateway: usize,
    kind: Kind,
    asked: u64,
    /// `Err` on the way to the store: how long the way back takes.
    content: Result<Drawn, (Ask, u64)>,
}

struct World {
    rates: Rates,
    lease: Lease,
    began: Instant,
    used: f64,
    used_at: u64,
    gateways: Vec<Leases>,
    messages: Vec<Message>,
    /// When, and how many tokens.
    admitted: Vec<(u64, f64)>,
}

impl World {
    fn new(rates: Rates, lease: Lease) -> Self {
        Self {
            rates,
            lease,
            began: clock::now(),
            used: 0.0,
            used_at: 0,
            gateways: (0..GATEWAYS).map(|_| Leases::default()).collect(),
            messages: Vec::new(),
            admitted: Vec::new(),
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.began + Duration::from_millis(millis)
    }

    fn run(&mut self, wants: &[Want]) {
        let mut now = 0;
        for want in wants {
            now += want.after;
            self.deliver(now);
            self.want(now, want);
        }
        self.deliver(u64::MAX);
    }

    fn want(&mut self, now: u64, want: &Want) {
        let cost = f64::from(want.cost);
        let next = self.gateways[want.gateway].next(KEY, &self.rates, cost, &self.lease, self.at(now));
        let (kind, ask) = match next {
            Next::Known(drawn) => {
                self.admit(now, drawn);
                return;
            }
            Next::Refill(drawn, ask) => {
                self.admit(now, drawn);
                (Kind::Refill(cost), ask)
            }
            Next::Alone => (Kind::Alone(cost), Ask::exactly(cost)),
            Next::Lead(asked) => (Kind::Led(asked, cost), asked.ask),
        };
        let arrives = now + want.way.0;
        let content = Err((ask, want.way.1));
        self.messages.push(Message { arrives, gateway: want.gateway, kind, asked: now, content });
    }

    fn admit(&mut self, now: u64, drawn: Drawn) {
        if drawn.admitted {
            self.admitted.push((now, drawn.got));
        }
    }

    fn deliver(&mut self, until: u64) {
        loop {
            let due = self.messages.iter().enumerate().filter(|(_, message)| message.arrives <= until);
            let Some((first, _)) = due.min_by_key(|(_, message)| message.arrives) else { return };
            let message = self.messages.remove(first);
            let now = message.arrives;
            match message.content {
                Err((ask, back)) => {
                    let elapsed = Duration::from_millis(now - self.used_at);
                    self.used = (self.used - self.rates.as_slice()[0].refill(elapsed)).max(0.0);
                    self.used_at = now;
                    let drawn = draw(&mut self.used, &self.rates, ask);
                    // A request that asks is admitted by the store, when it decides.
                    if let Kind::Alone(cost) | Kind::Led(_, cost) = message.kind
                        && drawn.admitted
                    {
                        self.admitted.push((now, cost));
                    }
                    self.messages.push(Message { arrives: now + back, content: Ok(drawn), ..message });
                }
                Ok(drawn) => {
                    let answer = match message.kind {
                        Kind::Alone(cost) => Answer::alone(&self.rates, cost, drawn),
                        Kind::Led(asked, cost) => Answer::Led(asked, cost, drawn),
                        Kind::Refill(cost) => Answer::refilled(cost, drawn),
                    };
                    let asked = self.at(message.asked);
                    self.gateways[message.gateway].answered(KEY, answer, &self.lease, asked);
                }
            }
        }
    }

    /// By how many tokens the worst window exceeds what one bucket alone would let pass.
    fn excess(&mut self) -> f64 {
        self.admitted.sort_by_key(|(when, _)| *when);
        let rate = self.rates.as_slice()[0];
        let mut worst = f64::NEG_INFINITY;
        for (first, (from, _)) in self.admitted.iter().enumerate() {
            let mut sum = 0.0;
            for (until, tokens) in &self.admitted[first..] {
                sum += tokens;
                worst = worst.max(sum - rate.capacity - rate.refill(Duration::from_millis(until - from)));
            }
        }
        worst
    }

    /// What the pages promise.
    fn excess_max(&self) -> f64 {
        let held = GATEWAYS as f64 * f64::from(self.lease.tokens);
        held.min(self.rates.as_slice()[0].refill(self.lease.lifetime))
    }
}

/// Crowds and pauses: what is held has to meet a bucket that is full again.
fn wants() -> impl Strategy<Value = Vec<Want>> {
    let want = (0..3_u64, 0..GATEWAYS, prop_oneof![5 => Just(1_u32), 1 => 2..4_u32], (0..20_u64, 0..20_u64));
    let crowd = (0..1500_u64, proptest::collection::vec(want, 1..150));
    let wants = |(pause, crowd): (u64, Vec<_>)| {
        let pauses = std::iter::once(pause).chain(std::iter::repeat(0));
        let want = |((after, gateway, cost, way), pause)| Want { after: after + pause, gateway, cost, way };
        crowd.into_iter().zip(pauses).map(want).collect::<Vec<_>>()
    };
    proptest::collection::vec(crowd.prop_map(wants), 1..8).prop_map(|crowds| crowds.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_window_lets_more_pass_than_promised(
        wants in wants(), count in 5..200_u64, tokens in 4..30_u32, lifetime in 50..1200_u64,
    ) {
        let lease = Lease { tokens, lifetime: Duration::from_millis(lifetime) };
        let mut world = World::new(per_second(count), lease);
        world.run(&wants);
        let (excess, most) = (world.excess(), world.excess_max());
        prop_assert!(excess <= most + 1e-3, "{excess} above the limit, not {most}");
    }

    #[test]
    fn without_a_pause_every_token_is_used(gateways in proptest::collection::vec(0..GATEWAYS, 300..400), tokens in 1..30_u32) {
        // The bucket gets nothing back worth counting, and clients ask everywhere until all are refused.
        let lease = Lease { tokens, lifetime: Duration::from_secs(10) };
        let mut world = World::new(per_hour(100), lease);
        let want = |gateway| Want { after: 1, gateway, cost: 1, way: (0, 1) };
        let all = (0..60 * GATEWAYS).map(|n| n % GATEWAYS);
        world.run(&gateways.into_iter().chain(all).map(want).collect::<Vec<_>>());
        let admitted: f64 = world.admitted.iter().map(|(_, tokens)| tokens).sum();
        prop_assert!((99.0..=100.1).contains(&admitted), "{admitted}");
    }
}

#[test]
fn the_promise_is_no_larger_than_what_happens() {
    for (tokens, least) in [(2, 1.0), (4, 4.0), (10, 10.0)] {
        // All gateways hold tokens, the bucket fills again, and then everything is spent at once.
        let lease = Lease { tokens, lifetime: Duration::from_secs(1) };
        let mut world = World::new(per_second(100), lease);
        let want = |after, gateway| Want { after, gateway, cost: 1, way: (0, 0) };
        let warm = (0..60).map(|n| want(1, n % GATEWAYS));
        let crowd = (0..200).map(|n| want(u64::from(n == 0) * 900, n % GATEWAYS));
        world.run(&warm.chain(crowd).collect::<Vec<_>>());
        let (excess, most) = (world.excess(), world.excess_max());
        assert_eq!(most, 3.0 * f64::from(tokens));
        assert!((least..=most).contains(&excess), "{tokens} tokens: {excess}");
    }
}
