//! Trees as the kernel lays them out: zones are directories (symlinks on a real node) with one value per file.

use std::fs;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tempfile::TempDir;

use super::*;

struct Tree {
    directory: TempDir,
}

impl Tree {
    fn new() -> Self {
        Self { directory: TempDir::new().unwrap() }
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn zone(self, zone: &str, name: &str, energy_uj: &str) -> Self {
        self.file(zone, "name", &format!("{name}\n")).file(zone, "energy_uj", energy_uj)
    }

    fn file(self, zone: &str, file: &str, content: &str) -> Self {
        fs::create_dir_all(self.root().join(zone)).unwrap();
        fs::write(self.root().join(zone).join(file), content).unwrap();
        self
    }
}

/// A two-socket server, as Linux 6.1 shows it on a Xeon.
fn two_sockets() -> Tree {
    Tree::new()
        .file("intel-rapl", "enabled", "1\n")
        .zone("intel-rapl:0", "package-0", "262143000000\n")
        .file("intel-rapl:0", "max_energy_range_uj", "262143328850\n")
        .file("intel-rapl:0", "constraint_0_max_power_uw", "270000000\n")
        .file("intel-rapl:0", "constraint_1_power_limit_uw", "324000000\n")
        .zone("intel-rapl:0:0", "dram", "1000\n")
        .file("intel-rapl:0:0", "max_energy_range_uj", "65712999613\n")
        .zone("intel-rapl:0:1", "core", "99999\n")
        .zone("intel-rapl:1", "package-1", "77\n")
        .zone("intel-rapl:1:0", "dram", "88\n")
        .zone("intel-rapl:2", "psys", "123456789\n")
        .zone("intel-rapl-mmio:0", "package-0", "262143000000\n")
}

#[test]
fn packages_and_memory_are_counted_once_and_nothing_inside_a_package() {
    let tree = two_sockets();
    let mut source = RaplSource::open(tree.root()).unwrap();
    let seen: Vec<_> = source.devices().iter().map(|d| (d.id.as_str(), d.scope, d.counter_modulus_uj)).collect();
    assert_eq!(
        seen,
        [
            ("rapl:package-0", Scope::CpuPackage, Some(262_143_328_851)),
            ("rapl:package-0-dram", Scope::Dram, Some(65_712_999_614)),
            ("rapl:package-1", Scope::CpuPackage, None),
            ("rapl:package-1-dram", Scope::Dram, None),
        ]
    );
    assert_eq!(source.devices()[0].power_limit_w, Some(324.0));
    assert_eq!(source.read(0).unwrap().energy_counter_uj, Some(262_143_000_000));
    assert_eq!(source.read(3).unwrap().energy_counter_uj, Some(88));
    assert!(matches!(source.read(4), Err(ReadError::Fatal(_))));
}

#[test]
fn a_reading_is_fresh_and_not_that_of_the_opening() {
    let tree = two_sockets();
    let mut source = RaplSource::open(tree.root()).unwrap();
    fs::write(tree.root().join("intel-rapl:0/energy_uj"), "5\n").unwrap();
    assert_eq!(source.read(0).unwrap().energy_counter_uj, Some(5));
}

#[test]
fn packages_sort_by_number() {
    let mut tree = Tree::new();
    for i in [10, 2, 0] {
        tree = tree.zone(&format!("intel-rapl:{i}"), &format!("package-{i}"), "1\n");
    }
    let source = RaplSource::open(tree.root()).unwrap();
    let ids: Vec<_> = source.devices().iter().map(|d| d.id.as_str()).collect();
    assert_eq!(ids, ["rapl:package-0", "rapl:package-2", "rapl:package-10"]);
}

#[test]
fn a_node_without_rapl_says_what_to_load() {
    let tree = Tree::new();
    let error = RaplSource::open(&tree.root().join("absent")).unwrap_err();
    assert!(error.to_string().contains("modprobe intel_rapl_msr"), "{error}");
    let error = RaplSource::open(tree.root()).unwrap_err();
    assert!(matches!(&error, Error::NoZones { .. }), "{error}");
}

#[test]
fn a_refused_read_names_the_command_that_grants_it() {
    // Root reads everything, so the refusal is made by hand.
    let error = io_error(
        Path::new("/sys/class/powercap"),
        Path::new("/sys/class/powercap/intel-rapl:0/energy_uj"),
        &io::Error::from(io::ErrorKind::PermissionDenied),
    );
    let text = error.to_string();
    assert!(matches!(error, Error::PermissionDenied { .. }));
    assert!(text.contains("sudo chmod a+r /sys/class/powercap/*-rapl:*/energy_uj"), "{text}");
}

#[test]
fn a_broken_zone_is_left_out_and_the_rest_measured() {
    let tree = two_sockets().file("intel-rapl:1", "energy_uj", "lots\n");
    let source = RaplSource::open(tree.root()).unwrap();
    assert_eq!(source.devices().len(), 3);
    let note = &source.notes()[0];
    assert!(note.contains("intel-rapl:1/energy_uj") && note.contains("`lots`"), "{note}");
}

#[test]
fn garbage_while_running_is_transient() {
    let tree = two_sockets();
    let mut source = RaplSource::open(tree.root()).unwrap();
    for garbage in ["", "\n", "-5\n", "18446744073709551616\n", "12 34\n"] {
        fs::write(tree.root().join("intel-rapl:0/energy_uj"), garbage).unwrap();
        assert!(matches!(source.read(0), Err(ReadError::Transient(_))), "{garbage}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, rng_seed: RngSeed::Fixed(20), ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_file_give_an_error_or_a_device_and_never_a_panic(
        name in proptest::collection::vec(any::<u8>(), 0..40),
        energy in proptest::collection::vec(any::<u8>(), 0..40),
        range in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let tree = Tree::new().zone("intel-rapl:0", "package-0", "1\n");
        for (file, bytes) in [("name", &name), ("energy_uj", &energy), ("max_energy_range_uj", &range)] {
            fs::write(tree.root().join("intel-rapl:0").join(file), bytes).unwrap();
        }
        if let Ok(mut source) = RaplSource::open(tree.root()) {
            let _ = source.read(0);
        }
    }

    #[test]
    fn any_number_is_read_as_it_stands(value in any::<u64>()) {
        let tree = Tree::new().zone("amd-rapl:0", "package-0", &format!("{value}\n"));
        let mut source = RaplSource::open(tree.root()).unwrap();
        prop_assert_eq!(source.read(0).unwrap().energy_counter_uj, Some(value));
    }
}
