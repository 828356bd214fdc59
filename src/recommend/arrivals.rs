//! How many requests are in flight when so many come in per second?
//!
//! A replica with `B` sequences in flight finishes `B` of them every `D(B)` seconds. It is in balance where that is the rate
//! at which they come: more in flight are served faster each second, so that there is one such `B`, or none where even the
//! largest batch is too slow. Below one sequence in flight the replica stands idle part of the time.

/// What arrivals make of one replica.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Balance {
    /// Sequences in flight on average, 1 or more, and the share of time in which there is work.
    At { batch: f64, busy_share: f64 },
    /// Requests pile up: at the largest batch so many per second are finished.
    Overrun { finished_per_s: f64 },
}

/// Halvings of the bracket: far more than the law is exact to.
const HALVINGS: usize = 60;

/// The balance of a replica that gets `rate` requests per second, with at most `most` in flight. `solved` may know the batch
/// in balance without a search.
pub(super) fn balance(
    duration_s: impl Fn(f64) -> f64,
    solved: impl FnOnce() -> Option<f64>,
    rate: f64,
    most: f64,
) -> Balance {
    let finished = |batch: f64| batch / duration_s(batch);
    if most < 1.0 {
        return Balance::Overrun { finished_per_s: 0.0 };
    }
    let alone = finished(1.0);
    if alone >= rate {
        return Balance::At { batch: 1.0, busy_share: rate / alone };
    }
    let at_most = finished(most);
    // A law that cannot say is as good as one that says no.
    if at_most < rate || !at_most.is_finite() || most <= 1.0 {
        return Balance::Overrun { finished_per_s: at_most };
    }
    if let Some(batch) = solved().filter(|batch| (1.0..=most).contains(batch)) {
        return Balance::At { batch, busy_share: 1.0 };
    }
    let (mut low, mut high) = (1.0, most);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if finished(middle) < rate {
            low = middle;
        } else {
            high = middle;
        }
        if high - low <= 1e-12 * high {
            break;
        }
    }
    Balance::At { batch: high, busy_share: 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_leave_as_come() {
        // D = 2 + 0.1 B: B/D = 4 at B = 8/(1 - 0.4).
        let duration = |batch: f64| 2.0 + 0.1 * batch;
        let Balance::At { batch, busy_share } = balance(duration, || None, 4.0, 100.0) else { panic!("it keeps up") };
        assert!((batch - 8.0 / 0.6).abs() < 1e-9 && busy_share == 1.0, "{batch}");
        // What was solved is taken where so many may be in flight.
        assert_eq!(balance(duration, || Some(7.5), 4.0, 100.0), Balance::At { batch: 7.5, busy_share: 1.0 });
        assert_eq!(balance(duration, || Some(101.0), 4.0, 100.0), Balance::At { batch, busy_share });
        // One at a time takes 2.1 s: at one in 21 s, a tenth of the time has work.
        let Balance::At { batch, busy_share } = balance(duration, || None, 1.0 / 21.0, 100.0) else {
            panic!("it keeps up")
        };
        assert!(batch == 1.0 && (busy_share - 0.1).abs() < 1e-12);
        // 100 in flight take 12 s: 8.33 a second is all there is.
        assert_eq!(balance(duration, || None, 9.0, 100.0), Balance::Overrun { finished_per_s: 100.0 / 12.0 });
        // Where not even one may be in flight, nothing is served.
        assert_eq!(balance(duration, || None, 1e-9, 0.5), Balance::Overrun { finished_per_s: 0.0 });
        assert!(matches!(balance(|_| f64::NAN, || None, 1.0, 8.0), Balance::Overrun { .. }));
    }
}
