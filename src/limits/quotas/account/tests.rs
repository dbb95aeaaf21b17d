use super::*;
use crate::clock;
use crate::limits::quotas::calendar::{Calendar, Unit};
use std::time::SystemTime;

fn day(number: u64) -> Span {
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 86_400 + number * 86_400 + 43_200);
    Calendar::new(Unit::Day, "UTC").unwrap().span(noon)
}

fn want(limit: u64, cost: u64) -> Want {
    Want { limit, cost }
}

/// What a counter that says `counted` makes of a plan.
fn answer(plan: &Plan, counted: &mut u64) -> Said {
    *counted += plan.pay;
    *counted -= plan.back;
    let got = plan.want.min(plan.limit.saturating_sub(*counted));
    *counted += got;
    let asked = plan.want > 0 || plan.pay > 0;
    Said { complete: true, paid: plan.pay > 0, returned: plan.back > 0, got, counted: asked.then_some(*counted) }
}

/// Takes until somebody has to wait for more than the store gives; how many were admitted.
fn admitted(account: &mut Account, limit: u64, counted: &mut u64, now: Instant) -> u64 {
    let mut count = 0;
    loop {
        match account.take(want(limit, 1), now) {
            Next::Admitted => count += 1,
            Next::Refused => return count,
            Next::Ask => {
                account.wait_for(1);
                let plan = account.ask(limit);
                let said = answer(&plan, counted);
                account.learn(&plan, said, now, false);
            }
        }
    }
}

#[test]
fn exactly_the_limit_is_admitted() {
    let now = clock::now();
    for limit in [1, 2, 7, 99, 100, 101, 1000, 12_345, 500_000] {
        let (mut account, mut counted) = (Account::new(day(0), now), 0);
        assert_eq!(admitted(&mut account, limit, &mut counted, now), limit);
        assert_eq!((counted, account.used()), (limit, limit));
        let none = Account::new(day(0), now).take(want(0, 1), now);
        assert_eq!(none, Next::Refused);
    }
}

#[test]
fn blocks_are_a_share_of_the_limit_and_shrink_towards_the_end() {
    let now = clock::now();
    let block = |limit: u64, counted: u64| {
        let mut account = Account::new(day(0), now);
        account.counted = counted;
        account.wait_for(1);
        account.ask(limit).want
    };
    assert_eq!([block(99, 0), block(199, 0), block(200, 0), block(50_000, 0)], [1, 1, 2, 500]);
    assert_eq!([block(100_000, 0), block(100_099, 0), block(10_000_000, 0)], [1000, 1000, 1000]);
    assert_eq!([block(100_000, 92_000), block(100_000, 92_008), block(100_000, 99_984)], [1000, 999, 2]);
    assert_eq!([block(100_000, 99_985), block(100_000, 99_999), block(100_000, 100_000)], [1, 1, 1]);
}

#[test]
fn a_block_is_filled_when_half_of_it_is_used() {
    let (now, mut counted) = (clock::now(), 0);
    let mut account = Account::new(day(0), now);
    let plan = account.ask(1000);
    account.learn(&plan, answer(&plan, &mut counted), now, true);
    assert_eq!(account.block, 10);
    for used in 1..=5 {
        assert_eq!(account.take(want(1000, 1), now), Next::Admitted);
        assert!(!account.is_low(1000), "{used}");
    }
    assert_eq!(account.take(want(1000, 1), now), Next::Admitted);
    assert!(account.is_low(1000));
    let plan = account.ask(1000);
    assert_eq!(plan.want, 6, "it is filled, and no more");
    assert!(!account.is_low(1000), "once");
    account.learn(&plan, answer(&plan, &mut counted), now, true);
    assert_eq!((account.block, account.used(), counted), (10, 6, 16));
}

#[test]
fn those_who_wait_are_served_together_and_the_store_is_asked_once_more_for_those_who_came_late() {
    let (now, mut counted) = (clock::now(), 0);
    let mut account = Account::new(day(0), now);
    account.wait_for(1);
    let first = account.ask(50);
    let asking = account.asking().unwrap();
    assert_eq!(first.want, 1);
    (0..30).for_each(|_| account.wait_for(1));
    let learnt = account.learn(&first, answer(&first, &mut counted), now, true);
    let second = learnt.next.expect("one unit is not enough");
    assert_eq!((second.want, asking.is_closed()), (29, false));
    account.wait_for(1);
    assert!(account.learn(&second, answer(&second, &mut counted), now, false).next.is_none());
    assert!(asking.is_closed(), "nobody waits for a third time");
    assert_eq!((account.block, counted), (30, 30));
}

#[test]
fn what_the_store_cannot_give_is_not_asked_for_again_at_once() {
    let (now, mut counted) = (clock::now(), 9);
    let mut account = Account::new(day(0), now);
    (0..5).for_each(|_| account.wait_for(1));
    let plan = account.ask(10);
    account.wait_for(1);
    assert!(account.learn(&plan, answer(&plan, &mut counted), now, true).next.is_none());
    assert_eq!(account.take(want(10, 1), now), Next::Admitted);
    assert_eq!(account.take(want(10, 1), now), Next::Refused);
    let almost = now + FRESH - Duration::from_millis(1);
    assert_eq!(account.take(want(10, 1), almost), Next::Refused);
    assert_eq!(account.take(want(10, 1), now + FRESH), Next::Ask, "somebody may have given some back");
}

#[test]
fn what_costs_more_than_is_left_is_refused_and_what_costs_less_is_not() {
    let (now, mut counted) = (clock::now(), 7);
    let mut account = Account::new(day(0), now);
    account.wait_for(4);
    let plan = account.ask(10);
    account.learn(&plan, answer(&plan, &mut counted), now, true);
    assert_eq!(account.take(want(10, 4), now), Next::Refused);
    assert_eq!(account.take(want(10, 3), now), Next::Admitted);
    assert_eq!(account.take(want(10, 11), now), Next::Refused, "more than there ever is");
}

#[test]
fn a_block_beyond_a_smaller_limit_is_given_back_first() {
    let (now, mut counted) = (clock::now(), 0);
    let mut account = Account::new(day(0), now);
    let plan = account.ask(1000);
    account.learn(&plan, answer(&plan, &mut counted), now, true);
    assert_eq!(account.take(want(1000, 4), now), Next::Admitted);
    assert_eq!(account.take(want(5, 2), now), Next::Refused, "4 of 5 are used");
    assert_eq!(account.take(want(5, 1), now), Next::Ask, "the block may hold the sixth");
    account.wait_for(1);
    let plan = account.ask(5);
    assert_eq!((plan.back, plan.want), (6, 1));
    account.learn(&plan, answer(&plan, &mut counted), now, true);
    assert_eq!(counted, 5);
    assert_eq!(account.take(want(5, 1), now), Next::Admitted);
    assert_eq!(account.take(want(5, 1), now), Next::Refused);
    assert_eq!(account.take(want(1000, 1), now), Next::Ask, "a larger limit keeps what is used");
}

#[test]
fn what_is_borrowed_keeps_the_limit_and_is_paid_once() {
    let (now, mut counted) = (clock::now(), 0);
    let mut account = Account::new(day(0), now);
    let plan = account.ask(300);
    account.learn(&plan, answer(&plan, &mut counted), now, true);
    assert_eq!(account.block, 3);
    assert!(account.borrow(want(300, 5)), "the block and two more");
    assert_eq!((account.block, account.debt, account.used()), (0, 2, 5));
    let borrowed = (0..400).filter(|_| account.borrow(want(300, 1))).count();
    assert_eq!(borrowed, 295);
    let plan = account.settle(false);
    assert_eq!((plan.pay, plan.want), (297, 0));
    let failed = account.learn(&plan, Said::default(), now, false);
    assert!(failed.left.is_none() && account.owes() && !account.may_ask(now));
    assert!(account.may_ask(now + RETRY));
    let plan = account.settle(false);
    account.learn(&plan, answer(&plan, &mut counted), now, false);
    assert_eq!((counted, account.used(), account.owes()), (300, 300, false));
}

#[test]
fn another_period_begins_with_nothing_used_and_what_is_owed_is_left_to_the_old_one() {
    let (now, mut counted) = (clock::now(), 0);
    let mut account = Account::new(day(1), now);
    let plan = account.ask(1000);
    account.learn(&plan, answer(&plan, &mut counted), now, true);
    account.debt = 3;
    let (today, tomorrow) = (day(1), day(2));
    let begins =
        |span: &Span| i64::try_from(span.end().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let left = account.enter(tomorrow, begins(&today));
    assert_eq!(left, Some(Leftover { span: today, pay: 3, back: 0 }), "units of yesterday are of no use");
    assert_eq!((account.used(), account.block), (0, 0));
    // The clock goes back: units of tomorrow are still to come.
    let mut counted = 0;
    let plan = account.ask(1000);
    account.learn(&plan, answer(&plan, &mut counted), now, true);
    let left = account.enter(today, begins(&today) - 1);
    assert_eq!(left, Some(Leftover { span: tomorrow, pay: 0, back: 10 }));
}

#[test]
fn an_answer_about_a_period_that_is_over_wakes_those_who_wait_and_counts_nowhere_else() {
    let now = clock::now();
    let mut account = Account::new(day(1), now);
    account.debt = 2;
    account.wait_for(1);
    let plan = account.ask(1000);
    assert_eq!(account.enter(day(2), i64::MAX), None, "the debt is being paid");
    let asking = account.asking().expect("the answer is still to come");
    let mut counted = 0;
    let said = answer(&plan, &mut counted);
    let left = account.learn(&plan, said, now, true).left;
    assert_eq!(left, Some(Leftover { span: day(1), pay: 0, back: said.got }));
    assert!(asking.is_closed());
    assert_eq!((account.block, account.used()), (0, 0));
}
