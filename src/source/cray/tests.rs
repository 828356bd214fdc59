//! Files as `docs-csm` describes them, written by hand.

use std::fs;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tempfile::TempDir;

use super::*;

struct Node {
    directory: TempDir,
}

impl Node {
    /// A node with one CPU and two accelerators, at its 100th refresh.
    fn new() -> Self {
        let node = Self { directory: TempDir::new().unwrap() };
        for (file, text) in [
            ("power", "1340 W 1662117803100000 us"),
            ("energy", "51122741 J 1662117803100000 us"),
            ("cpu_energy", "11122741 J 1662117803100000 us"),
            ("cpu_power", "140 W 1662117803100000 us"),
            ("memory_energy", "1122741 J 1662117803100000 us"),
            ("accel0_energy", "30000001 J 1662117803100000 us"),
            ("accel1_energy", "31000002 J 1662117803100000 us"),
            ("accel1_power", "310 W 1662117803100000 us"),
            ("power_cap", "0 W 1662117803100000 us"),
            ("accel0_power_cap", "500 W 1662117803100000 us"),
            ("freshness", "100 1662117803100000 us"),
            ("generation", "7 1662117803100000 us"),
            ("startup", "1660000000000000 1662117803100000 us"),
            ("raw_scan_hz", "10"),
            ("version", "2"),
        ] {
            node.write(file, text);
        }
        node
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.directory.path().join(file), format!("{text}\n")).unwrap();
    }

    fn open(&self) -> Result<CraySource, Error> {
        CraySource::open(self.directory.path())
    }
}

fn place(source: &CraySource, id: &str) -> usize {
    source.devices().iter().position(|d| d.id == id).unwrap()
}

#[test]
fn every_part_of_the_node_is_a_device_that_knows_what_it_contains() {
    let node = Node::new();
    let mut source = node.open().unwrap();
    let mut seen: Vec<_> = source.devices().iter().map(|d| (d.id.as_str(), d.scope)).collect();
    seen.sort_unstable_by_key(|(id, _)| *id);
    assert_eq!(
        seen,
        [
            ("cray:accel0", Scope::GpuSlot),
            ("cray:accel1", Scope::GpuSlot),
            ("cray:cpu", Scope::Cpu),
            ("cray:memory", Scope::Memory),
            ("cray:node", Scope::Node),
        ]
    );
    let node_at = place(&source, "cray:node");
    assert_eq!(
        source.read(node_at).unwrap(),
        Reading {
            energy_counter_uj: Some(51_122_741_000_000),
            power_w: Some(1340.0),
            t_device_ns: Some(1_662_117_803_100_000_000),
        }
    );
    let (accel0, accel1) = (place(&source, "cray:accel0"), place(&source, "cray:accel1"));
    assert_eq!(source.read(accel1).unwrap().power_w, Some(310.0));
    assert_eq!(source.telemetry(accel0).unwrap().power_limit_w, Some(500.0));
    assert_eq!(source.telemetry(node_at).unwrap().power_limit_w, None, "a cap of 0 W is none");
    assert!(matches!(source.read(99), Err(ReadError::Fatal(_))));
    assert!(source.notes().iter().any(|n| n.contains("never added")));
}

#[test]
fn values_are_taken_anew_only_when_freshness_has_moved() {
    let node = Node::new();
    let mut source = node.open().unwrap();
    let accel = place(&source, "cray:accel0");
    assert_eq!(source.read(accel).unwrap().energy_counter_uj, Some(30_000_001_000_000));
    // In the middle of a refresh: some files are new, freshness is not.
    node.write("accel0_energy", "30000040 J 1662117803200000 us");
    assert_eq!(source.read(accel).unwrap().energy_counter_uj, Some(30_000_001_000_000));
    node.write("freshness", "101 1662117803200000 us");
    let reading = source.read(accel).unwrap();
    assert_eq!(reading.energy_counter_uj, Some(30_000_040_000_000));
    assert_eq!(reading.t_device_ns, Some(1_662_117_803_200_000_000));
}

#[test]
fn a_restart_is_told_once_for_each_device_and_the_raw_values_go_on() {
    let node = Node::new();
    let mut source = node.open().unwrap();
    let (cpu, accel) = (place(&source, "cray:cpu"), place(&source, "cray:accel0"));
    source.read(cpu).unwrap();
    node.write("startup", "1662117900000000 1662117900000000 us");
    node.write("cpu_energy", "3 J 1662117900100000 us");
    node.write("freshness", "1 1662117900100000 us");
    let told = source.read(cpu);
    assert!(matches!(&told, Err(ReadError::Transient(m)) if m.contains("begun anew")), "{told:?}");
    assert_eq!(source.read(cpu).unwrap().energy_counter_uj, Some(3_000_000));
    assert!(matches!(source.read(accel), Err(ReadError::Transient(_))));
    assert_eq!(source.read(accel).unwrap().energy_counter_uj, Some(30_000_001_000_000));
}

#[test]
fn a_changed_power_cap_is_no_restart() {
    let node = Node::new();
    let mut source = node.open().unwrap();
    source.read(0).unwrap();
    node.write("generation", "8 1662117803200000 us");
    node.write("freshness", "101 1662117803200000 us");
    assert!(source.read(0).is_ok());
}

#[test]
fn garbage_is_transient_and_heals() {
    let node = Node::new();
    let mut source = node.open().unwrap();
    let cpu = place(&source, "cray:cpu");
    for (round, garbage) in
        ["", "J", "-5 J 1 us", "12 W 1 us", "99999999999999 J 1 us", "5 J x us", "1..2 J"].iter().enumerate()
    {
        node.write("cpu_energy", garbage);
        node.write("freshness", &format!("{} 1 us", 200 + round));
        assert!(matches!(source.read(cpu), Err(ReadError::Transient(_))), "{garbage}");
    }
    // The refresh that was spoilt is read again, although freshness stands.
    node.write("cpu_energy", "12 J 1 us");
    assert_eq!(source.read(cpu).unwrap().energy_counter_uj, Some(12_000_000));
    node.write("freshness", "soon");
    assert!(matches!(source.read(cpu), Err(ReadError::Transient(_))));
}

#[test]
fn energies_are_exact_beyond_the_precision_of_floats() {
    // 2^53 + 1 uJ.
    assert_eq!(parse_energy("9007199254.740993 J 5 us"), Some((9_007_199_254_740_993, Some(5_000))));
    assert_eq!(parse_energy("12"), Some((12_000_000, None)));
    assert_eq!(parse_energy("12 J"), Some((12_000_000, None)));
    assert_eq!(parse_energy("1.5 J"), Some((1_500_000, None)));
    assert_eq!(parse_energy(".5 J"), None);
    assert_eq!(parse_energy("+5 J"), None);
}

#[test]
fn what_is_missing_is_named() {
    let empty = TempDir::new().unwrap();
    let error = CraySource::open(&empty.path().join("absent")).unwrap_err();
    assert!(error.to_string().contains("HPE Cray"), "{error}");
    fs::write(empty.path().join("power"), "5 W").unwrap();
    assert!(matches!(CraySource::open(empty.path()).unwrap_err(), Error::NothingMeasurable { .. }));
    fs::write(empty.path().join("energy"), "none").unwrap();
    let error = CraySource::open(empty.path()).unwrap_err().to_string();
    assert!(error.contains("`none`") && error.contains("1234 J"), "{error}");
}

#[test]
fn an_older_node_has_one_accelerator_and_no_timestamps() {
    let directory = TempDir::new().unwrap();
    for (file, text) in [("energy", "77 J\n"), ("accel_energy", "33 J\n"), ("other_energy", "1 J\n")] {
        fs::write(directory.path().join(file), text).unwrap();
    }
    let mut source = CraySource::open(directory.path()).unwrap();
    let ids: Vec<_> = source.devices().iter().map(|d| d.id.clone()).collect();
    assert_eq!(ids, ["cray:accel", "cray:node"]);
    assert_eq!(source.read(1).unwrap().energy_counter_uj, Some(77_000_000));
    // Without freshness every read is of the files.
    fs::write(directory.path().join("energy"), "78 J\n").unwrap();
    assert_eq!(source.read(1).unwrap().energy_counter_uj, Some(78_000_000));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, rng_seed: RngSeed::Fixed(22), ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_file_give_an_error_or_a_reading_and_never_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..60),
        file in prop_oneof![Just("energy"), Just("freshness"), Just("startup"), Just("power"), Just("power_cap")],
    ) {
        let node = Node::new();
        let mut source = node.open().unwrap();
        fs::write(node.directory.path().join(file), bytes).unwrap();
        for index in 0..source.devices().len() {
            let _ = source.read(index);
            let _ = source.telemetry(index);
        }
        let _ = node.open();
    }
}
