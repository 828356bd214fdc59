//! Several sources on one node: nothing is counted twice, and every line says what it is.

use energylens::source::Scope;
use energylens::source::detect::{DetectOptions, Detection, SourceKind, detect};

use crate::support::desk::Desk;
use crate::support::level_zero::LevelZero;
use crate::support::sysfs::Sysfs;

fn detected(kinds: &[SourceKind], stub: &LevelZero, tree: &Sysfs) -> Detection {
    detect(&DetectOptions {
        kinds: kinds.to_vec(),
        level_zero_library: Some(stub.library()),
        sysfs_root: tree.root().to_owned(),
        ..DetectOptions::default()
    })
}

fn ids(detection: &Detection) -> Vec<&str> {
    detection.devices().map(|d| d.id.as_str()).collect()
}

#[test]
fn a_card_seen_by_level_zero_and_by_the_kernel_is_one_device() {
    let tree = Sysfs::new();
    tree.intel_card(3, "i915", "0000:29:00.0", 5).intel_card(4, "xe", "0000:03:00.0", 6);
    let stub = LevelZero::new("0.card_uj 100");
    let both = detected(&[SourceKind::Hwmon, SourceKind::Intel], &stub, &tree);
    assert_eq!(ids(&both), ["intel:0000:29:00.0", "intel:0000:03:00.0"]);
    assert_eq!(both.driver.as_deref(), Some("Intel 1.6.33578"));
    assert_eq!(both.report[0].to_string(), "Intel GPUs (Level Zero): 1 GPU by energy counter");
    let kernel = both.report[1].to_string();
    assert!(
        kernel.contains("1 GPU by energy counter") && kernel.contains("0000:29:00.0 is read through Level Zero"),
        "{kernel}"
    );
    // The kernel alone has both, under the same names.
    let alone = detected(&[SourceKind::Hwmon], &stub, &tree);
    assert_eq!(ids(&alone), ["intel:0000:03:00.0", "intel:0000:29:00.0"]);
    // Tiles of a card are the card, too.
    let tiles = LevelZero::new("0.domains tile0 tile1, 0.energy_uj 1");
    let detection = detected(&[SourceKind::Intel, SourceKind::Hwmon], &tiles, &tree);
    assert_eq!(ids(&detection), ["intel:0000:29:00.0/tile0", "intel:0000:29:00.0/tile1", "intel:0000:03:00.0"]);
}

#[test]
fn a_grace_hopper_and_a_cray_node_say_what_contains_what() {
    let tree = Sysfs::new();
    tree.grace_meter(1, "Module Power Socket 0", 600_000_000)
        .grace_meter(2, "Grace Power Socket 0", 100_000_000)
        .cray();
    let detection = detected(&[SourceKind::Hwmon, SourceKind::Cray], &LevelZero::new(""), &tree);
    let scopes: Vec<_> = detection.devices().map(|d| (d.id.as_str(), d.scope)).collect();
    assert_eq!(
        scopes,
        [
            ("hwmon:module-power-socket-0", Scope::Module),
            ("hwmon:grace-power-socket-0", Scope::CpuPackage),
            ("cray:accel0", Scope::GpuSlot),
            ("cray:node", Scope::Node),
        ]
    );
    let hwmon = detection.report[0].to_string();
    assert!(hwmon.contains("1 module by power sensor, 1 CPU package by power sensor"), "{hwmon}");
    let cray = detection.report[1].to_string();
    assert!(cray.contains("1 accelerator slot, 1 whole node") && cray.contains("never added"), "{cray}");
}

#[test]
fn each_missing_source_has_its_own_line_and_simulations_are_not_among_them() {
    let tree = Sysfs::new();
    let ran = Desk::new().run(&[
        "doctor",
        "--nvml-library",
        "no-library.so",
        "--level-zero-library",
        "no-loader.so",
        "--sysfs-root",
        tree.root().to_str().expect("a path of text"),
    ]);
    let ran = ran
        .done()
        .prints("Level Zero loader no-loader.so could not be loaded")
        .prints("modprobe acpi_power_meter")
        .prints("expected the counters of an HPE Cray node");
    assert!(!ran.stdout.contains("simulated GPUs") && !ran.stdout.contains("replay"), "{}", ran.stdout);
}

#[test]
fn a_newcomer_tries_the_program_on_simulated_gpus_that_say_what_they_are() {
    let ran = Desk::new().run(&["doctor", "--sources", "sim", "--simulated-gpus", "2", "--duration", "1s"]).done();
    ran.prints("simulated GPUs: 2 GPUs (simulated); nothing is measured").prints("sim:0").prints("sim:1");
}
