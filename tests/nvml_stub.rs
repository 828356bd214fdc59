//! NVML through the real wrapper against a stub library (`tests/stubs/nvml.c`), built here with the system's C compiler.
//!
//! Each test has its own copy of the library in its own directory, so its own static state: no environment variables, and
//! the tests may run in parallel.

mod support;

use std::fs;
use std::path::Path;

use energylens::schema::EnergySource;
use energylens::source::detect::{DetectOptions, Finding, detect};
use energylens::source::nvml::{Error, NvmlSource};
use energylens::source::{CounterSource, ReadError, Reading, Scope};
use support::nvml::Stub;

#[test]
fn a_gpu_is_described_and_its_millijoules_become_exact_microjoules() {
    let stub = Stub::new("devices 2, 0.energy_mj 9007199254740993, 0.power_mw 412345, 1.energy_mj 7");
    let mut source = stub.open().expect("a working stub");
    assert_eq!(source.devices().len(), 2);
    let gpu = &source.devices()[0];
    assert_eq!(gpu.id, "nvml:GPU-00000000-0000-0000-0000-000000000000");
    assert_eq!((gpu.name.as_str(), gpu.scope), ("NVIDIA H100 80GB HBM3", Scope::Gpu));
    assert_eq!((gpu.energy_source, gpu.counter_modulus_uj), (EnergySource::Counter, None));
    assert_eq!((gpu.power_limit_w, gpu.memory_bytes), (Some(700.0), Some(85_899_345_920)));
    assert_eq!(source.driver_version().as_deref(), Some("580.95.05"));
    // 2^53 + 1 mJ: an f64 on the way would lose the last millijoule.
    let expected =
        Reading { energy_counter_uj: Some(9_007_199_254_740_993_000), power_w: Some(412.345), t_device_ns: None };
    assert_eq!(source.read(0), Ok(expected));
    assert_eq!(source.read(1).expect("device 1").energy_counter_uj, Some(7_000));
    assert!(matches!(source.read(2), Err(ReadError::Fatal(_))));
}

#[test]
fn an_unmoved_counter_costs_one_driver_call_and_a_moved_one_two() {
    let stub = Stub::new("0.energy_mj 1000, 0.power_mw 300000");
    let mut source = stub.open().expect("a working stub");
    stub.calls();
    source.read(0).expect("a reading");
    assert_eq!(stub.calls(), ["energy", "fields"]);
    for _ in 0..3 {
        let reading = source.read(0).expect("a reading");
        assert_eq!((reading.energy_counter_uj, reading.power_w), (Some(1_000_000), None));
    }
    assert_eq!(stub.calls(), ["energy", "energy", "energy"]);
    stub.says("0.energy_mj 1031, 0.power_mw 310000");
    assert_eq!(source.read(0).expect("a reading").power_w, Some(310.0));
    assert_eq!(stub.calls(), ["energy", "fields"]);
}

#[test]
fn resets_and_backward_steps_are_handed_on_raw() {
    let stub = Stub::new("0.energy_mj 500000");
    let mut source = stub.open().expect("a working stub");
    for (mj, uj) in [(500_000, 500_000_000), (499_990, 499_990_000), (0, 0), (12, 12_000)] {
        stub.says(&format!("0.energy_mj {mj}"));
        assert_eq!(source.read(0).expect("a reading").energy_counter_uj, Some(uj));
    }
}

#[test]
fn a_counter_that_rises_by_itself_moves_in_whole_refreshes() {
    let stub = Stub::new("0.ramp_mw 100000, 0.refresh_ms 20");
    let mut source = stub.open().expect("a working stub");
    let mut last = source.read(0).expect("a reading").energy_counter_uj.expect("a counter");
    let mut moved = 0;
    while moved < 3 {
        let now = source.read(0).expect("a reading").energy_counter_uj.expect("a counter");
        // 100 W for 20 ms are 2 J; a slow machine may see several refreshes at once.
        assert_eq!((now - last) % 2_000_000, 0);
        moved += u32::from(now > last);
        last = now;
    }
}

#[test]
fn a_value_beyond_the_range_is_refused_and_not_wrapped() {
    let stub = Stub::new("0.energy_mj 18446744073709551615");
    let mut source = stub.open().expect("a working stub");
    let error = source.read(0).expect_err("more than 2^64 uJ");
    assert!(matches!(&error, ReadError::Transient(m) if m.contains("18446744073709551615 mJ")), "{error}");
}

#[test]
fn driver_errors_become_transient_gone_or_fatal() {
    for (code, expected) in
        [(15, "gone"), (16, "gone"), (2, "gone"), (1, "fatal"), (18, "fatal"), (10, "transient"), (999, "transient")]
    {
        let stub = Stub::new("0.energy_mj 5");
        let mut source = stub.open().expect("a working stub");
        stub.says(&format!("0.energy_mj 5, 0.energy_rc {code}"));
        let kind = match source.read(0) {
            Err(ReadError::Gone(_)) => "gone",
            Err(ReadError::Fatal(_)) => "fatal",
            Err(ReadError::Transient(_)) => "transient",
            Ok(_) => "a reading",
        };
        assert_eq!(kind, expected, "return code {code}");
    }
}

#[test]
fn a_gpu_without_counter_falls_back_to_power_and_says_so() {
    let stub = Stub::new("devices 2, 0.energy_rc 3, 0.power_mw 250000, 1.energy_mj 4, 1.mig 1");
    let mut source = stub.open().expect("a working stub");
    assert_eq!(source.devices()[0].energy_source, EnergySource::Power);
    assert_eq!(source.devices()[1].energy_source, EnergySource::Counter);
    assert!(source.notes()[0].contains("GPU 0") && source.notes()[0].contains("no energy counter"));
    assert!(source.notes()[1].contains("MIG"), "{}", source.notes()[1]);
    let reading = source.read(0).expect("a reading");
    assert_eq!((reading.energy_counter_uj, reading.power_w), (None, Some(250.0)));
    // Power-only devices are asked every time, and their failure is a failure.
    stub.says("0.energy_rc 3, 0.power_mw 260000");
    assert_eq!(source.read(0).expect("a reading").power_w, Some(260.0));
    stub.says("0.energy_rc 3, 0.field_rc 15");
    assert!(matches!(source.read(0), Err(ReadError::Gone(_))));
}

#[test]
fn power_comes_the_best_way_that_the_gpu_knows() {
    for (control, calls) in [
        ("0.power_mw 100000", ["energy", "fields"]),
        ("0.power_mw 100000, 0.field_value_rc 3", ["energy", "power"]),
        ("0.power_mw 100000, 0.field_rc 3", ["energy", "power"]),
    ] {
        let stub = Stub::new(control);
        let mut source = stub.open().expect("a working stub");
        stub.calls();
        assert_eq!(source.read(0).expect("a reading").power_w, Some(100.0), "{control}");
        assert_eq!(stub.calls(), calls, "{control}");
    }
    // No way at all: the counter alone is enough.
    let stub = Stub::new("0.energy_mj 3, 0.field_rc 3, 0.power_rc 3");
    let mut source = stub.open().expect("a working stub");
    assert_eq!(source.read(0).expect("a reading").power_w, None);
}

#[test]
fn gpus_that_cannot_be_used_are_left_out_by_name() {
    let stub = Stub::new("devices 3, 0.handle_rc 4, 1.energy_mj 5, 2.energy_rc 3, 2.field_rc 3, 2.power_rc 3");
    let source = stub.open().expect("one usable GPU");
    assert_eq!(source.devices().len(), 1);
    assert!(source.devices()[0].id.ends_with("000000000001"));
    assert!(source.notes()[0].contains("GPU 0 cannot be opened") && source.notes()[0].contains("permission"));
    assert!(source.notes()[1].contains("GPU 2") && source.notes()[1].contains("neither"));
}

#[test]
fn every_refusal_names_what_is_missing_and_the_fix() {
    for (control, expected) in [
        ("init_rc 9", "modprobe nvidia"),
        ("init_rc 18", "reboot"),
        ("init_rc 4", "/dev/nvidiactl"),
        ("devices 0", "nvidia-smi -L"),
        ("devices 1, 0.handle_rc 15", "can measure none"),
    ] {
        let error = Stub::new(control).open().expect_err(control);
        assert!(error.to_string().contains(expected), "{control}: {error}");
    }
    let error = NvmlSource::open(Some(Path::new("/nonexistent/libnvidia-ml.so.1"))).expect_err("no library");
    assert!(matches!(error, Error::Library { .. }) && error.to_string().contains("install the NVIDIA driver"));
    let error = Stub::built_with(&["-DWITHOUT_SHUTDOWN"], "devices 1").open().expect_err("half a library");
    assert!(error.to_string().contains("lacks nvmlShutdown"), "{error}");
}

#[test]
fn strange_driver_strings_do_no_harm() {
    let stub = Stub::new("0.energy_mj 1, 0.uuid_rc 3, driver not-a-version");
    let control = stub.path().join("control");
    let mut bytes = fs::read(&control).expect("the control file");
    bytes.extend_from_slice(b"0.name \xff\xfe GPU\n");
    fs::write(&control, bytes).expect("a writable control file");
    let source = stub.open().expect("a working stub");
    assert_eq!(source.devices()[0].id, "nvml:index-0");
    assert_eq!(source.devices()[0].name, "NVIDIA GPU 0");
}

#[test]
fn detection_reports_one_line_per_source() {
    let stub = Stub::new("devices 2, 0.energy_mj 1, 1.energy_mj 2");
    let options = DetectOptions {
        nvml_library: Some(stub.library()),
        sysfs_root: stub.path().join("no-sysfs"),
        ..DetectOptions::default()
    };
    let detection = detect(&options);
    assert_eq!(detection.found.len(), 1);
    assert_eq!(detection.devices().count(), 2);
    assert_eq!(detection.driver.as_deref(), Some("NVIDIA 580.95.05"));
    assert_eq!(detection.report[0].to_string(), "NVIDIA GPUs (NVML): 2 GPUs by energy counter");
    assert!(
        matches!(&detection.report[1], Finding::Unusable { reason, .. } if reason.contains("modprobe intel_rapl_msr"))
    );
    assert!(detection.report.iter().all(|line| !line.to_string().contains('\n')));
}
