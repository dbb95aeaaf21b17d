use proptest::prelude::*;

use super::*;
use crate::clock;

const SECOND: Duration = Duration::from_secs(1);

fn rules(eject_for: u64, eject_for_max: u64) -> OutlierRules {
    OutlierRules {
        failures: Some(5),
        rate: None,
        latency: None,
        requests_min: 20,
        window: SECOND * 10,
        statuses: vec![503],
        connect: true,
        timeout: true,
        reset: true,
        eject_for: SECOND * u32::try_from(eject_for).unwrap(),
        eject_for_max: SECOND * u32::try_from(eject_for_max).unwrap(),
        ejected_max: 500_000,
    }
}

#[test]
fn each_ejection_is_longer_until_the_longest() {
    let rules = rules(30, 100);
    let mut ejections = Ejections::default();
    let mut now = clock::now();
    for due in [30, 60, 90, 100, 100] {
        let ejected = ejections.eject(Reason::Failures, &rules, now).unwrap();
        assert_eq!(ejected.until, now + SECOND * due);
        assert_eq!(ejections.eject(Reason::Rate, &rules, now), None, "it is out already");
        assert!(!ejections.bring_back(ejected.until - Duration::from_millis(1)));
        assert!(ejections.bring_back(ejected.until) && !ejections.bring_back(ejected.until), "once");
        now = ejected.until + SECOND;
    }
    // Each hundred seconds without one take one off; no more is remembered than leads to the longest.
    let times = ejections.eject(Reason::Failures, &rules, now + SECOND * 199).unwrap().times;
    assert_eq!(times, 3);
}

#[test]
fn long_good_conduct_begins_anew() {
    let rules = rules(30, 300);
    let mut ejections = Ejections::default();
    let mut now = clock::now();
    for _ in 0..5 {
        now = ejections.eject(Reason::Failures, &rules, now).unwrap().until;
        ejections.bring_back(now);
    }
    assert_eq!(ejections.eject(Reason::Failures, &rules, now + SECOND * 3000).unwrap().times, 1);
}

proptest! {
    /// Whatever happens: it is out from an ejection until its end, never longer than the longest, and each is told once.
    #[test]
    fn it_is_out_exactly_as_long_as_said(
        eject_for in 1_u64..60,
        more in 0_u64..600,
        steps in proptest::collection::vec((0_u64..400, any::<bool>()), 1..60),
    ) {
        let rules = rules(eject_for, eject_for + more);
        let mut ejections = Ejections::default();
        let mut now = clock::now();
        let mut until = None;
        for (seconds, fails) in steps {
            now += SECOND * u32::try_from(seconds).unwrap();
            let back = ejections.bring_back(now);
            prop_assert_eq!(back, until.is_some_and(|until| now >= until));
            if back {
                until = None;
            }
            if fails {
                let ejected = ejections.eject(Reason::Rate, &rules, now);
                prop_assert_eq!(ejected.is_some(), until.is_none());
                if let Some(ejected) = ejected {
                    let period = ejected.until - now;
                    prop_assert!(period >= rules.eject_for && period <= rules.eject_for_max);
                    until = Some(ejected.until);
                }
            }
            prop_assert_eq!(ejections.out, until.is_some());
        }
    }
}
