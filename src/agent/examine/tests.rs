use super::*;
use crate::agent::ReadCost;
use crate::schema::EnergySource;
use crate::source::{Device, Scope};

/// Movements at these ms, polled each millisecond, up to these microjoules.
fn watch(seen: &[(i64, u64)], reported_power_w: Option<f64>) -> Watch {
    Watch {
        device: Device {
            id: "fake:0".to_owned(),
            name: "fake".to_owned(),
            scope: Scope::Gpu,
            energy_source: EnergySource::Counter,
            counter_modulus_uj: Some(1_000_000_000),
            counter_step_uj: None,
            power_limit_w: None,
            memory_bytes: None,
        },
        movements: seen
            .iter()
            .map(|(ms, uj)| Movement {
                t_earliest_ns: (ms - 1) * 1_000_000,
                t_latest_ns: ms * 1_000_000,
                counter_uj: *uj,
            })
            .collect(),
        polls: 3_000,
        errors: 0,
        last_error: None,
        read_cost: ReadCost::default(),
        reported_power_w,
        power_changes: 0,
    }
}

/// 100 W, then 300 W from the middle on: movements every 100 ms for 4 s.
fn stepping() -> Vec<(i64, u64)> {
    let mut uj = 5_000_000;
    (0..=40)
        .map(|i| {
            let now = (i * 100, uj);
            uj += if i < 20 { 10_000_000 } else { 30_000_000 };
            now
        })
        .collect()
}

#[test]
fn a_healthy_counter_is_described() {
    // From the first movement at 0.1 s to the last at 4 s: 19 intervals of 10 J and 20 of 30 J in 3.9 s: 202.56 W.
    let got = examine(&watch(&stepping(), Some(200.0)));
    let refresh = got.refresh.expect("forty movements");
    assert!((refresh.period_s - 0.1).abs() < 1e-9 && refresh.jitter_s == 0.0, "{refresh:?}");
    assert!(!refresh.is_faster_than_polled);
    assert_eq!((got.smallest_step_uj, got.resolution_uj), (Some(10_000_000), Some(10_000_000)));
    let power_w = got.counter_power_w.expect("it moved");
    assert!((power_w - 790.0 / 3.9).abs() < 1e-6, "{power_w}");
    assert_eq!(got.agreement, Some(Agreement::Agrees));
    assert!((got.idle_power_w.expect("a second of it") - 100.0).abs() < 1e-6, "{:?}", got.idle_power_w);
    assert_eq!((got.movements, got.faults), (40, vec![]));
}

#[test]
fn jitter_is_what_polling_does_not_explain() {
    // 90 and 110 ms in turn: a standard deviation of 10 ms, of which brackets of 1 ms explain 0.4 ms.
    let seen: Vec<(i64, u64)> = (0..=100).map(|i| (i * 100 + 5 * (i % 2) * 2, 1_000 * i as u64)).collect();
    let refresh = examine(&watch(&seen, None)).refresh.expect("movements");
    assert!((refresh.jitter_s - 0.01).abs() < 3e-4, "{refresh:?}");
    assert!((refresh.min_s - 0.09).abs() < 1e-9 && (refresh.max_s - 0.11).abs() < 1e-9);
}

#[test]
fn counter_and_power_are_compared() {
    for (ratio, verdict) in [
        (1.0, Agreement::Agrees),
        (0.96, Agreement::Agrees),
        (1.06, Agreement::Differs),
        (0.3, Agreement::Differs),
        (0.09, Agreement::Broken),
        (10.1, Agreement::Broken),
        (f64::NAN, Agreement::Broken),
    ] {
        assert_eq!(Agreement::of(ratio), verdict, "{ratio}");
    }
}

#[test]
fn frozen_and_backward_counters_are_named_and_give_no_power() {
    let frozen = examine(&watch(&[(0, 7)], Some(80.0)));
    assert_eq!((frozen.faults, frozen.counter_power_w), (vec![Fault::Frozen], None));
    assert_eq!(examine(&watch(&[(0, 7)], Some(0.0))).faults, [], "a device that draws nothing counts nothing");
    let mut seen = stepping();
    seen[30].1 = 6_000_000;
    let backward = examine(&watch(&seen, Some(200.0)));
    assert_eq!((backward.faults, backward.counter_power_w, backward.agreement), (vec![Fault::Backward], None, None));
}

#[test]
fn a_register_that_was_full_is_no_step_backwards() {
    // The modulus is 1000 J: 990 J, then 20 J, are 30 J.
    let seen = [(0, 930_000_000), (100, 960_000_000), (200, 990_000_000), (300, 20_000_000), (400, 50_000_000)];
    let got = examine(&watch(&seen, None));
    assert_eq!((got.faults, got.resolution_uj), (vec![], Some(30_000_000)));
    assert!((got.counter_power_w.expect("it moved") - 300.0).abs() < 1e-6);
}
