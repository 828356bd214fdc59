//! Trees as the kernel lays them out, `device` linking to the PCI or ACPI device behind each entry.

use std::fs;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tempfile::TempDir;

use super::*;
use crate::schema::EnergySource;
use crate::source::Scope;

struct Tree {
    directory: TempDir,
}

impl Tree {
    fn new() -> Self {
        let tree = Self { directory: TempDir::new().unwrap() };
        fs::create_dir_all(tree.root()).unwrap();
        tree
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("class/hwmon")
    }

    /// An entry whose device is called `parent`.
    fn entry(self, entry: &str, parent: &str, files: &[(&str, &str)]) -> Self {
        let (path, device) = (self.root().join(entry), self.directory.path().join("devices").join(parent));
        fs::create_dir_all(&path).unwrap();
        fs::create_dir_all(&device).unwrap();
        if !path.join("device").exists() {
            std::os::unix::fs::symlink(&device, path.join("device")).unwrap();
        }
        for (file, text) in files {
            fs::write(path.join(file), format!("{text}\n")).unwrap();
        }
        self
    }

    fn meter(self, entry: &str, label: &str, uw: &str) -> Self {
        let parent = format!("ACPI000D:0{}", &entry[5..]);
        let files = [("name", "power_meter"), ("power1_average_interval", "50")];
        let tree = self.entry(entry, &parent, &files);
        // The driver of these meters shows its files below `device`.
        let device = tree.directory.path().join("devices").join(parent);
        fs::write(device.join("power1_oem_info"), format!("{label}\n")).unwrap();
        fs::write(device.join("power1_average"), format!("{uw}\n")).unwrap();
        tree
    }

    fn open(&self) -> Result<Found, Error> {
        open(&self.root(), &|_| false)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.root().join(file), text).unwrap();
    }
}

fn described(found: &Found) -> Vec<(&str, Scope, EnergySource)> {
    found.sources.iter().map(|s| (s.device.id.as_str(), s.device.scope, s.device.energy_source)).collect()
}

fn two_cards() -> Tree {
    Tree::new()
        .entry(
            "hwmon10",
            "0000:4d:00.0",
            &[("name", "i915"), ("energy1_input", "5000000"), ("power1_max", "300000000")],
        )
        .entry("hwmon10b", "0000:4d:00.0", &[("name", "i915_gt0"), ("energy1_input", "77")])
        .entry(
            "hwmon2",
            "0000:03:00.0",
            &[
                ("name", "xe"),
                ("energy1_label", "card"),
                ("energy1_input", "9000000000000"),
                ("energy2_label", "pkg"),
                ("energy2_input", "8"),
                ("power1_max", "190000000"),
                ("power1_rated_max", "225000000"),
            ],
        )
        .entry("hwmon0", "0000:01:00.0", &[("name", "nvme"), ("temp1_input", "40000")])
        .entry("hwmon1", "0000:c1:00.0", &[("name", "amdgpu"), ("energy1_input", "123"), ("power1_average", "1")])
}

#[test]
fn of_each_intel_card_only_the_widest_counter_is_read() {
    let tree = two_cards();
    let mut found = tree.open().unwrap();
    assert_eq!(
        described(&found),
        [
            ("intel:0000:03:00.0", Scope::Gpu, EnergySource::Counter),
            ("intel:0000:4d:00.0", Scope::Gpu, EnergySource::Counter)
        ]
    );
    assert_eq!(found.sources[0].device.power_limit_w, Some(225.0));
    assert_eq!(found.sources[0].read(0).unwrap().energy_counter_uj, Some(9_000_000_000_000));
    assert_eq!(found.sources[1].read(0).unwrap().energy_counter_uj, Some(5_000_000));
    assert_eq!(found.sources[0].telemetry(0).unwrap().power_limit_w, Some(190.0));
    assert!(matches!(found.sources[0].read(1), Err(ReadError::Fatal(_))));
    assert!(found.notes.iter().any(|n| n.contains("once a minute")), "{:?}", found.notes);
}

#[test]
fn a_card_that_is_read_through_level_zero_is_left_out_and_the_other_is_not() {
    let tree = two_cards();
    let found = open(&tree.root(), &|address| address == "0000:4d:00.0").unwrap();
    assert_eq!(described(&found), [("intel:0000:03:00.0", Scope::Gpu, EnergySource::Counter)]);
    let all = open(&tree.root(), &|_| true).unwrap_err();
    assert!(matches!(all, Error::AllTaken { count: 2 }), "{all}");
}

#[test]
fn a_package_counter_stands_in_for_the_card_and_says_so() {
    let tree = Tree::new().entry("hwmon3", "0000:03:00.0", &[("name", "xe"), ("energy2_input", "8")]);
    let mut found = tree.open().unwrap();
    assert_eq!(found.sources[0].read(0).unwrap().energy_counter_uj, Some(8));
    assert!(found.notes[0].contains("package only"), "{:?}", found.notes);
}

#[test]
fn tiles_are_read_only_without_a_counter_for_the_card() {
    let tree = Tree::new()
        .entry("hwmon4", "0000:29:00.0", &[("name", "i915")])
        .entry("hwmon5", "0000:29:00.0", &[("name", "i915_gt1"), ("energy1_input", "2")])
        .entry("hwmon6", "0000:29:00.0", &[("name", "i915_gt0"), ("energy1_input", "1")]);
    let found = tree.open().unwrap();
    assert_eq!(
        described(&found),
        [
            ("intel:0000:29:00.0/tile0", Scope::GpuTile, EnergySource::Counter),
            ("intel:0000:29:00.0/tile1", Scope::GpuTile, EnergySource::Counter)
        ]
    );
}

#[test]
fn the_meters_of_a_grace_hopper_are_told_apart_by_their_labels() {
    let tree = Tree::new()
        .meter("hwmon1", "Module Power Socket 0", "500000000")
        .meter("hwmon2", "Grace Power Socket 0", "120500000")
        .meter("hwmon3", "CPU Power Socket 0", "80000000")
        .meter("hwmon4", "SysIO Power Socket 0", "20000000")
        .meter("hwmon5", "", "900000000");
    let mut found = tree.open().unwrap();
    assert_eq!(
        described(&found),
        [
            ("hwmon:module-power-socket-0", Scope::Module, EnergySource::Power),
            ("hwmon:grace-power-socket-0", Scope::CpuPackage, EnergySource::Power),
            ("hwmon:cpu-power-socket-0", Scope::Rail, EnergySource::Power),
            ("hwmon:sysio-power-socket-0", Scope::Rail, EnergySource::Power),
            ("hwmon:ACPI000D:05", Scope::Node, EnergySource::Power),
        ]
    );
    let reading = found.sources[1].read(0).unwrap();
    assert_eq!((reading.energy_counter_uj, reading.power_w), (None, Some(120.5)));
    assert!(found.notes[0].contains("50 ms") && found.notes[0].contains("never added"), "{:?}", found.notes);
}

#[test]
fn two_meters_of_one_label_stay_two_devices() {
    let tree = Tree::new().meter("hwmon1", "CPU Power", "1").meter("hwmon2", "CPU Power", "2");
    let found = tree.open().unwrap();
    let ids: Vec<_> = found.sources.iter().map(|s| s.device.id.as_str()).collect();
    assert_eq!(ids, ["hwmon:cpu-power", "hwmon:cpu-power@ACPI000D:02"]);
}

#[test]
fn garbage_while_running_is_transient_and_a_wrap_is_handed_on_raw() {
    let tree = two_cards();
    let mut found = tree.open().unwrap();
    let card = &mut found.sources[0];
    for garbage in ["", "\n", "-5\n", "18446744073709551616\n", "1 2\n", "1e6\n", "\u{feff}1"] {
        tree.write("hwmon2/energy1_input", garbage);
        assert!(matches!(card.read(0), Err(ReadError::Transient(_))), "{garbage}");
    }
    tree.write("hwmon2/energy1_input", "200\n");
    assert_eq!(card.read(0).unwrap().energy_counter_uj, Some(200));
}

#[test]
fn what_is_missing_is_named_with_the_fix() {
    let tree = Tree::new();
    let absent = open(&tree.root().join("absent"), &|_| false).unwrap_err();
    assert!(matches!(&absent, Error::NoHwmon { .. }), "{absent}");
    let foreign = tree.entry("hwmon0", "0000:01:00.0", &[("name", "nvme")]).open().unwrap_err();
    assert!(foreign.to_string().contains("modprobe acpi_power_meter"), "{foreign}");
    let broken = Tree::new().entry("hwmon0", "0000:03:00.0", &[("name", "xe"), ("energy1_input", "lots")]);
    let error = broken.open().unwrap_err().to_string();
    assert!(error.contains("`lots`") && error.contains("microjoules"), "{error}");
    let refused = Error::PermissionDenied { path: PathBuf::from("/sys/class/hwmon/hwmon2/energy1_input") };
    assert!(refused.to_string().contains("sudo chmod a+r /sys/class/hwmon/hwmon2/energy1_input"), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, rng_seed: RngSeed::Fixed(21), ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_file_give_an_error_or_a_device_and_never_a_panic(
        name in prop_oneof![Just(b"xe".to_vec()), Just(b"power_meter".to_vec()), proptest::collection::vec(any::<u8>(), 0..20)],
        value in proptest::collection::vec(any::<u8>(), 0..40),
        label in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let tree = Tree::new().entry("hwmon0", "0000:03:00.0", &[("name", "")]);
        for (file, bytes) in [
            ("name", &name), ("energy1_input", &value), ("power1_average", &value), ("power1_oem_info", &label),
            ("energy1_label", &label), ("power1_max", &value), ("power1_cap_max", &value),
        ] {
            fs::write(tree.root().join("hwmon0").join(file), bytes).unwrap();
        }
        if let Ok(mut found) = tree.open() {
            for source in &mut found.sources {
                let _ = source.read(0);
                let _ = source.telemetry(0);
            }
        }
    }
}
