use super::*;
use crate::types;

fn rates(written: &[&str], burst: Option<u64>) -> Rates {
    Rates::new(written.iter().map(|rate| rate.parse::<types::Rate>().unwrap()), burst).unwrap()
}

const START: Duration = Duration::from_secs(1_000_000);

fn one() -> Ask {
    Ask::exactly(1.0)
}

#[test]
fn the_hundredth_passes_and_the_next_one_after_an_interval() {
    let rates = rates(&["100/min"], None);
    let mut level = Level::full(&rates, START);
    for number in 1..=100 {
        let drawn = level.draw(&rates, one(), START);
        assert!(drawn.admitted, "{number}");
        assert_eq!((drawn.got, drawn.limit, drawn.remaining), (1.0, 100.0, f64::from(100 - number)));
        assert_eq!(drawn.full_in, Duration::from_millis(600) * number);
        assert_eq!(drawn.retry_in, Duration::ZERO);
    }
    let refused = level.draw(&rates, one(), START);
    let interval = Duration::from_millis(600);
    assert_eq!(
        refused,
        Drawn {
            got: 0.0,
            admitted: false,
            limit: 100.0,
            remaining: 0.0,
            full_in: Duration::from_secs(60),
            retry_in: interval
        }
    );
    assert!(!level.draw(&rates, one(), START + interval - Duration::from_millis(1)).admitted);
    assert!(level.draw(&rates, one(), START + interval).admitted);
    assert!(!level.draw(&rates, one(), START + interval).admitted);
}
