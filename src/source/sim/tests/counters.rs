//! What is seen of the node's energy.

use super::*;
use crate::source::{CounterSource, ReadError, Reading};

const MS: i64 = 1_000_000;
const S: i64 = 1_000_000_000;

/// A node that has served for some seconds, with one fault on device 0.
fn node_with(gpu_model: &str, fault: Option<Fault>) -> SimNode {
    let faults = fault.into_iter().map(|fault| (0, fault)).collect();
    let node = SimNode::new(
        &[(gpu(gpu_model), 2)],
        SimOptions { run_noise: 0.0, t_start_mono_ns: 100 * S, faults, ..SimOptions::default() },
    );
    node.idle(0.5);
    while node.now() < 108 * S {
        node.execute(&request(llama_7b(), gpu_model, (2, 1, 1), (4, 256, 64))).unwrap();
        node.idle(0.2);
    }
    node
}

/// Every change of device 0 between two instants: when it was seen, polling each millisecond, and the reading.
fn edges(node: &SimNode, from_ns: i64, to_ns: i64) -> Vec<(i64, Reading)> {
    let clock = SimClock::starting_at(from_ns);
    let mut source = node.source(clock.clone());
    let mut edges: Vec<(i64, Reading)> = Vec::new();
    while clock.now() <= to_ns {
        let reading = source.read(0).unwrap();
        if edges.last().is_none_or(|(_, last)| last.energy_counter_uj != reading.energy_counter_uj) {
            edges.push((clock.now(), reading));
        }
        clock.sleep_until(clock.now() + MS);
    }
    edges
}

fn counter(reading: &Reading) -> u64 {
    reading.energy_counter_uj.unwrap()
}

#[test]
fn increments_sum_to_the_true_energy_within_one_refresh() {
    for (name, refresh_s, quantum_uj) in [(A100, 0.1, 1_000), ("H100-SXM5-80GB", 0.05, 1_000), ("PVC", 0.04, 1)] {
        let node = node_with(name, None);
        let edges = edges(&node, 101 * S, 107 * S);
        let (first, last) = (edges[1], *edges.last().unwrap());
        let counted_j = (counter(&last.1) - counter(&first.1)) as f64 / 1e6;
        let true_j = node.true_energy_j("sim:0", first.0, last.0).unwrap();
        // Each end is seen at most one poll, 1 ms, after the refresh.
        let slack_j = 2.0 * 0.001 * gpu(name).power_limit_w + 2.0 * quantum_uj as f64 / 1e6;
        assert!((counted_j - true_j).abs() <= slack_j, "{name}: {counted_j} counted, {true_j} true");
        assert!(edges.iter().all(|(_, r)| counter(r).is_multiple_of(quantum_uj)), "{name}");

        let periods: Vec<f64> = edges[1..].windows(2).map(|w| (w[1].0 - w[0].0) as f64 / 1e9).collect();
        let mean_s = periods.iter().sum::<f64>() / periods.len() as f64;
        assert!((mean_s / refresh_s - 1.0).abs() < 0.02, "{name}: {mean_s}");
        // Jitter of 3 % at either end, 1 % tolerance and one poll.
        assert!(periods.iter().all(|p| (p / refresh_s - 1.0).abs() < 0.08 + 0.002 / refresh_s), "{name}: {periods:?}");
    }
}

#[test]
fn amd_counts_in_steps_of_two_to_the_minus_sixteen_joules() {
    let node = node_with("MI300X", None);
    for (_, reading) in edges(&node, 101 * S, 103 * S) {
        // The smallest raw count that reaches the value must give exactly the value: raw·10^6/2^16, rounded down.
        let uj = u128::from(counter(&reading));
        let raw = (uj * 65_536).div_ceil(1_000_000);
        assert_eq!(raw * 1_000_000 / 65_536, uj);
        assert!(reading.t_device_ns.is_some());
    }
}

#[test]
fn quantising_rounds_down_to_the_makers_step() {
    use crate::source::sim::counter::quantise_uj;
    use crate::source::sim::hardware::Quantum;
    for (quantum, energy_j, expected_uj) in [
        (Quantum::Millijoule, 1.234_999, 1_234_000),
        (Quantum::Microjoule, 1.234_999_7, 1_234_999),
        // 1.5 steps of 15.2587890625 µJ show one, 65 536 steps show exactly a joule.
        (Quantum::TwoPowMinus16Joule, 22.9e-6, 15),
        (Quantum::TwoPowMinus16Joule, 1.0, 1_000_000),
        (Quantum::TwoPowMinus16Joule, 0.0, 0),
    ] {
        assert_eq!(quantise_uj(quantum, energy_j), expected_uj, "{energy_j} J");
    }
}

#[test]
fn two_readers_see_the_same_edges_and_devices_are_not_in_step() {
    let node = node_with(A100, None);
    assert_eq!(edges(&node, 101 * S, 102 * S), edges(&node, 101 * S, 102 * S));
    let schedules: Vec<i64> = {
        let state = node.state();
        state.gpus.iter().map(|gpu| gpu.schedule.last_refresh(105 * S)).collect()
    };
    assert!((schedules[0] - schedules[1]).abs() > MS, "{schedules:?}");
}

#[test]
fn a_reader_ahead_of_the_node_waits_at_its_end_and_one_before_its_start_sees_the_start() {
    let node = node_with(A100, None);
    let clock = SimClock::starting_at(0);
    let mut source = node.source(clock.clone());
    let start = counter(&source.read(0).unwrap());
    clock.sleep_until(node.now());
    let end = counter(&source.read(0).unwrap());
    clock.sleep_until(node.now() + 1_000 * S);
    assert_eq!(counter(&source.read(0).unwrap()), end);
    assert!(end > start);
    assert!(matches!(source.read(2), Err(ReadError::Fatal(_))));
}

#[test]
fn power_is_the_mean_of_the_window_before_the_refresh() {
    let node = quiet_node(A100);
    node.idle(10.0);
    let mut source = node.source(SimClock::starting_at(5 * S));
    assert!((source.read(0).unwrap().power_w.unwrap() - 60.0).abs() < 1e-6);
}

#[test]
fn a_wrap_starts_again_at_zero_and_the_device_announces_the_modulus() {
    let modulus_uj = 300_000_000;
    let node = node_with(A100, Some(Fault::Wrap { modulus_uj }));
    let edges = edges(&node, 101 * S, 107 * S);
    assert!(edges.iter().all(|(_, r)| counter(r) < modulus_uj));
    let falls: Vec<_> = edges.windows(2).filter(|w| counter(&w[1].1) < counter(&w[0].1)).collect();
    assert!(!falls.is_empty());
    // Adding the modulus at each fall gives what the healthy counter shows.
    let healthy = self::edges(&node_with(A100, None), 101 * S, 107 * S);
    let healthy_uj = counter(&healthy.last().unwrap().1) - counter(&healthy[0].1);
    let unwrapped = counter(&edges.last().unwrap().1) + falls.len() as u64 * modulus_uj - counter(&edges[0].1);
    assert_eq!(unwrapped, healthy_uj);
    assert_eq!(node.source(SimClock::default()).devices()[0].counter_modulus_uj, Some(modulus_uj));
}

#[test]
fn a_reset_counts_from_zero_and_survives_forgetting() {
    let node = node_with(A100, Some(Fault::Reset { t_ns: 103 * S }));
    let edges = edges(&node, 102 * S, 104 * S);
    let falls: Vec<_> = edges.windows(2).filter(|w| counter(&w[1].1) < counter(&w[0].1)).map(|w| w[1]).collect();
    assert_eq!(falls.len(), 1);
    assert!((103 * S..103 * S + 110 * MS).contains(&falls[0].0), "{}", falls[0].0);
    assert!(counter(&falls[0].1) < 44_000_000, "0.11 s at 400 W at most");
    let clock = SimClock::starting_at(106 * S);
    let mut source = node.source(clock);
    node.forget();
    let since_j = counter(&source.read(0).unwrap()) as f64 / 1e6;
    let healthy = node_with(A100, None);
    let true_j = healthy.true_energy_j("sim:0", 103 * S, 106 * S).unwrap();
    // The last refresh lies up to 0.11 s back.
    assert!(since_j <= true_j && since_j >= true_j - 0.11 * 400.0, "{since_j} counted, {true_j} true");
}

#[test]
fn backward_steps_frozen_counters_and_garbage_look_as_they_do_on_real_devices() {
    let node = node_with(A100, Some(Fault::BackwardStep { t_ns: 104 * S, by_uj: 900_000_000 }));
    let stepped = edges(&node, 101 * S, 107 * S);
    assert_eq!(stepped.windows(2).filter(|w| counter(&w[1].1) < counter(&w[0].1)).count(), 1);

    let node = node_with(A100, Some(Fault::Frozen { t_ns: 104 * S }));
    let frozen = edges(&node, 103 * S, 107 * S);
    assert!(frozen.last().unwrap().0 <= 104 * S);
    assert_eq!(frozen, edges(&node_with(A100, None), 103 * S, frozen.last().unwrap().0));

    let node = node_with(A100, Some(Fault::Garbage { t_ns: 104 * S }));
    let odd = edges(&node, 103 * S, 107 * S);
    let healthy = edges(&node_with(A100, None), 103 * S, 107 * S);
    let differing: Vec<_> =
        odd.iter().zip(&healthy).filter(|(a, b)| a.1.energy_counter_uj != b.1.energy_counter_uj).collect();
    assert_eq!((odd.len(), differing.len()), (healthy.len(), 1));
}

#[test]
fn transient_errors_pass_and_gone_is_for_good() {
    let node = node_with(A100, Some(Fault::Transient { from_ns: 103 * S, until_ns: 104 * S }));
    let at = |node: &SimNode, t_ns| node.source(SimClock::starting_at(t_ns)).read(0);
    assert!(at(&node, 103 * S - 1).is_ok());
    assert!(matches!(at(&node, 103 * S), Err(ReadError::Transient(_))));
    assert!(at(&node, 104 * S).is_ok());
    let node = node_with(A100, Some(Fault::Gone { t_ns: 103 * S }));
    assert!(at(&node, 103 * S - 1).is_ok());
    assert!(matches!(at(&node, 106 * S), Err(ReadError::Gone(_))));
    assert!(node.source(SimClock::starting_at(106 * S)).read(1).is_ok(), "its neighbour is well");
}
