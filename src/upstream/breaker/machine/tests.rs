use super::*;
use crate::clock;
use proptest::prelude::*;

fn rules() -> Rules {
    Rules {
        failures: Some(3),
        share: None,
        window: Duration::from_secs(10),
        slow: None,
        open_for: Duration::from_secs(15),
        half_open_requests: 2,
        on: vec![500],
    }
}

/// A machine with its time and its successes.
struct Site {
    machine: Machine,
    succeeded: Tally,
    start: Instant,
}

impl Site {
    fn new(rules: Rules) -> Self {
        let start = clock::now();
        Self { succeeded: Tally::new(rules.window, start), machine: Machine::new(rules, start), start }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn admit(&mut self, millis: u64) -> Result<Ticket, Duration> {
        self.machine.admit(self.at(millis))
    }

    fn failed(&mut self, ticket: Ticket, millis: u64) {
        let now = self.at(millis);
        self.machine.failed(ticket, now, &self.succeeded);
    }

    /// A request that fails at once.
    fn fails(&mut self, millis: u64) {
        let ticket = self.admit(millis).unwrap();
        self.failed(ticket, millis);
    }

    fn succeeds(&mut self, ticket: Ticket, millis: u64) {
        let now = self.at(millis);
        if ticket.probe {
            self.machine.probe_answered(ticket, now);
            self.machine.probe_ended(ticket, Some(now), now);
        } else if ticket.generation == self.machine.generation() {
            self.succeeded.add(now);
        }
    }

    fn opened(mut self) -> Self {
        (0..3).for_each(|_| self.fails(0));
        assert_eq!(self.machine.state(), State::Open);
        self
    }
}

#[test]
fn it_opens_on_the_nth_failure_and_not_before() {
    let mut site = Site::new(rules());
    site.fails(0);
    site.fails(1);
    // Success is no excuse.
    let ticket = site.admit(2).unwrap();
    site.succeeds(ticket, 2);
    assert_eq!(site.machine.state(), State::Closed);
    site.fails(9_999);
    assert_eq!(site.machine.state(), State::Open);
    assert_eq!(site.admit(10_000), Err(Duration::from_millis(14_999)));
}

#[test]
fn a_failure_counts_for_exactly_the_window() {
    let mut site = Site::new(rules());
    [0, 1, 10_000].into_iter().for_each(|at| site.fails(at));
    assert_eq!(site.machine.state(), State::Closed, "the first one is out of the window");
    site.fails(10_000);
    assert_eq!(site.machine.state(), State::Open, "the second one is not");
}

#[test]
fn a_share_counts_from_the_least_number_of_requests_on() {
    let share = Some(Share { millionths: 500_000, requests_min: 4 });
    let mut site = Site::new(Rules { failures: None, share, ..rules() });
    for _ in 0..2 {
        let ticket = site.admit(0).unwrap();
        site.succeeds(ticket, 0);
    }
    site.fails(0);
    assert_eq!(site.machine.state(), State::Closed, "one of three");
    site.fails(0);
    assert_eq!(site.machine.state(), State::Open, "two of four");
    let mut site = Site::new(Rules { failures: None, share, ..rules() });
    (0..3).for_each(|_| site.fails(0));
    assert_eq!(site.machine.state(), State::Closed, "three of three");
}

#[test]
fn exactly_the_probes_pass_and_as_many_close_it() {
    let mut site = Site::new(rules()).opened();
    assert_eq!(site.admit(14_999), Err(Duration::from_millis(1)));
    let (one, other) = (site.admit(15_000).unwrap(), site.admit(15_000).unwrap());
    assert!(one.probe && other.probe);
    assert_eq!(site.admit(15_000), Err(PROBES_WAIT));
    site.succeeds(one, 15_001);
    assert_eq!(site.admit(15_001), Err(PROBES_WAIT), "no more than have to succeed");
    assert_eq!(site.machine.state(), State::HalfOpen);
    site.succeeds(other, 15_002);
    assert_eq!(site.machine.state(), State::Closed);
    assert!(!site.admit(15_002).unwrap().probe);
}

#[test]
fn one_probe_that_fails_opens_it_for_the_whole_time() {
    let mut site = Site::new(rules()).opened();
    let (one, other) = (site.admit(15_000).unwrap(), site.admit(15_000).unwrap());
    site.succeeds(one, 15_001);
    site.failed(other, 15_002);
    assert_eq!(site.machine.until(), Some(site.at(30_002)));
    // Nothing is left of the success.
    let probe = site.admit(30_002).unwrap();
    site.succeeds(probe, 30_003);
    assert_eq!(site.machine.state(), State::HalfOpen);
}

#[test]
fn a_probe_that_told_nothing_gives_its_place_back() {
    let mut site = Site::new(rules()).opened();
    for _ in 0..10 {
        let (one, other) = (site.admit(15_000).unwrap(), site.admit(15_000).unwrap());
        assert!(site.admit(15_000).is_err());
        for ticket in [one, other] {
            let now = site.at(15_000);
            site.machine.probe_ended(ticket, None, now);
        }
    }
    assert_eq!(site.machine.state(), State::HalfOpen);
}

#[test]
fn a_stream_that_began_well_does_not_keep_its_place() {
    let mut site = Site::new(Rules { half_open_requests: 1, ..rules() }).opened();
    let stream = site.admit(15_000).unwrap();
    let began = site.at(15_100);
    site.machine.probe_answered(stream, began);
    assert_eq!(site.machine.room(site.at(20_099)), Room::Probes(0));
    assert!(site.admit(20_099).is_err());
    assert_eq!(site.machine.room(site.at(20_100)), Room::Probes(1));
    assert!(!site.admit(20_100).unwrap().probe);
    // Its end is no news any more, however it comes.
    let now = site.at(50_000);
    site.machine.probe_ended(stream, Some(began), now);
    site.failed(stream, 50_000);
    assert_eq!(site.machine.state(), State::Closed);
}

#[test]
fn what_began_before_a_change_of_state_says_nothing_about_now() {
    let mut site = Site::new(Rules { failures: Some(1), half_open_requests: 1, ..rules() });
    let (old, older) = (site.admit(0).unwrap(), site.admit(0).unwrap());
    site.fails(0);
    site.failed(old, 1);
    assert_eq!(site.machine.until(), Some(site.at(15_000)), "it is open already");
    let probe = site.admit(15_000).unwrap();
    site.failed(older, 15_000);
    assert_eq!(site.machine.state(), State::HalfOpen);
    site.succeeds(probe, 15_001);
    assert_eq!(site.machine.state(), State::Closed);
    site.failed(probe, 15_002);
    assert_eq!(site.machine.state(), State::Closed);
}

#[test]
fn counts_are_those_of_the_window_then_those_that_opened_it() {
    let mut site = Site::new(rules());
    site.fails(0);
    site.fails(5_000);
    let count =
        |site: &mut Site, millis| site.machine.counts(site.start + Duration::from_millis(millis), &site.succeeded);
    assert_eq!(count(&mut site, 5_000), Counts { failures: 2, requests: None });
    assert_eq!(count(&mut site, 10_000).failures, 1);
    site.fails(10_001);
    site.fails(10_002);
    assert_eq!(count(&mut site, 20_000).failures, 3);
}

#[test]
fn a_clock_that_jumps_back_opens_nothing_early_and_late() {
    let mut site = Site::new(rules());
    site.fails(60_000);
    site.fails(0);
    assert_eq!(site.machine.state(), State::Closed);
    site.fails(1);
    assert_eq!(site.machine.until(), Some(site.at(75_000)), "as if all had been at the latest moment");
    assert!(site.admit(2).is_err());
    assert!(site.admit(75_000).is_ok());
}

/// The same in the plainest way: everything is remembered.
struct Model {
    rules: Rules,
    state: State,
    until: u64,
    generation: u64,
    /// When, and whether it failed.
    ended: Vec<(u64, bool)>,
    running: Vec<Ticket>,
    succeeded: u32,
}

impl Model {
    fn admit(&mut self, now: u64) -> Option<Ticket> {
        if self.state == State::Open && now >= self.until {
            self.turn(State::HalfOpen);
        }
        let probe = self.state == State::HalfOpen;
        let probes = u32::try_from(self.running.iter().filter(|ticket| ticket.generation == self.generation).count());
        let is_full = probe && probes.unwrap() + self.succeeded >= self.rules.half_open_requests;
        if self.state == State::Open || is_full {
            return None;
        }
        let ticket = Ticket { generation: self.generation, probe };
        self.running.push(ticket);
        Some(ticket)
    }

    /// `failed`: none when it told nothing.
    fn end(&mut self, ticket: Ticket, failed: Option<bool>, now: u64) {
        let place = self.running.iter().position(|running| *running == ticket).unwrap();
        self.running.swap_remove(place);
        let Some(failed) = failed.filter(|_| ticket.generation == self.generation) else { return };
        match self.state {
            State::Open => {}
            State::HalfOpen if failed => self.open(now),
            State::HalfOpen => {
                self.succeeded += 1;
                if self.succeeded >= self.rules.half_open_requests {
                    self.turn(State::Closed);
                }
            }
            State::Closed => {
                self.ended.push((now, failed));
                if failed && self.is_too_much(now) {
                    self.open(now);
                }
            }
        }
    }

    fn is_too_much(&self, now: u64) -> bool {
        let window = u64::try_from(self.rules.window.as_millis()).unwrap();
        let failures = self.ended.iter().filter(|(at, failed)| *failed && now - at < window).count();
        let slot = window / 10;
        let counted = self.ended.iter().copied().filter(|(at, _)| at / slot + 10 > now / slot);
        let (failed, fine): (Vec<_>, Vec<_>) = counted.partition(|(_, failed)| *failed);
        let all = failed.len() + fine.len();
        self.rules.failures.is_some_and(|max| failures >= max as usize)
            || self.rules.share.is_some_and(|share| {
                all >= share.requests_min as usize && failed.len() * 1_000_000 >= all * share.millionths as usize
            })
    }

    fn open(&mut self, now: u64) {
        self.turn(State::Open);
        self.until = now + u64::try_from(self.rules.open_for.as_millis()).unwrap();
    }

    fn turn(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
        self.ended.clear();
        self.succeeded = 0;
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Admit,
    /// The running request of this number ends; none: it told nothing.
    End(usize, Option<bool>),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end =
        (any::<usize>(), prop::option::weighted(0.9, any::<bool>())).prop_map(|(which, how)| Step::End(which, how));
    // Small steps, whole slots and windows, and a machine that slept for a day.
    let wait = prop_oneof![0..300_u64, Just(100), Just(1000), Just(1500), Just(86_400_000)].prop_map(Step::Wait);
    prop::collection::vec(prop_oneof![4 => Just(Step::Admit), 4 => end, 1 => wait], 0..300)
}

proptest! {
    #[test]
    fn it_decides_as_one_that_remembers_everything(
        failures in prop::option::of(1..6_u32),
        share in prop::option::of((1..=1_000_000_u32, 1..10_u32)),
        half_open_requests in 1..4_u32,
        steps in steps(),
    ) {
        let rules = Rules {
            failures: failures.or(share.is_none().then_some(3)),
            share: share.map(|(millionths, requests_min)| Share { millionths, requests_min }),
            window: Duration::from_secs(1),
            open_for: Duration::from_millis(1500),
            half_open_requests,
            ..rules()
        };
        let mut site = Site::new(rules.clone());
        let mut model = Model {
            rules, state: State::Closed, until: 0, generation: 0, ended: vec![], running: vec![], succeeded: 0,
        };
        let mut now = 0;
        for step in steps {
            match step {
                Step::Wait(millis) => now += millis,
                Step::Admit => prop_assert_eq!(site.admit(now).ok(), model.admit(now)),
                Step::End(which, how) => {
                    let Some(place) = which.checked_rem(model.running.len()) else { continue };
                    let ticket = model.running[place];
                    model.end(ticket, how, now);
                    match how {
                        Some(true) => site.failed(ticket, now),
                        Some(false) => site.succeeds(ticket, now),
                        None if ticket.probe => {
                            let now = site.at(now);
                            site.machine.probe_ended(ticket, None, now);
                        }
                        None => {}
                    }
                }
            }
            prop_assert_eq!(site.machine.state(), model.state);
            prop_assert_eq!(site.machine.generation(), model.generation);
        }
    }
}
