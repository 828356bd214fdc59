//! NVML through the real wrapper against a stub library (`tests/stubs/nvml.c`), built here with the system's C compiler.
//!
//! Each test has its own copy of the library in its own directory, so its own static state: no environment variables, and
//! the tests may run in parallel.

mod support;

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use energylens::schema::EnergySource;
use energylens::source::detect::{DetectOptions, Finding, detect};
use energylens::source::nvml::{self, Error, NvmlSource, Opened};
use energylens::source::{CounterSource, Device, ReadError, Reading, Scope, Telemetry};
use support::nvml::Stub;

/// The GPUs, one source each.
fn sources(stub: &Stub) -> Vec<NvmlSource> {
    stub.open().expect("a working stub").sources
}

/// The first GPU.
fn source(stub: &Stub) -> NvmlSource {
    sources(stub).remove(0)
}

fn device(source: &NvmlSource) -> &Device {
    &source.devices()[0]
}

fn counter_uj(source: &mut NvmlSource) -> u64 {
    source.read(0).expect("a reading").energy_counter_uj.expect("a counter")
}

#[test]
fn a_gpu_is_described_and_its_millijoules_become_exact_microjoules() {
    let stub = Stub::new(
        "devices 2, 0.energy_mj 9007199254740993, 0.power_mw 412345, 0.timestamp_us 1700000000123456, 1.energy_mj 7",
    );
    let Opened { mut sources, driver_version, .. } = stub.open().expect("a working stub");
    assert_eq!(sources.len(), 2);
    assert!(sources.iter().all(|source| source.devices().len() == 1));
    let gpu = device(&sources[0]);
    assert_eq!(gpu.id, "nvml:GPU-00000000-0000-0000-0000-000000000000");
    assert_eq!((gpu.name.as_str(), gpu.scope), ("NVIDIA H100 80GB HBM3", Scope::Gpu));
    assert_eq!((gpu.energy_source, gpu.counter_modulus_uj), (EnergySource::Counter, None));
    assert_eq!((gpu.power_limit_w, gpu.memory_bytes), (Some(700.0), Some(85_899_345_920)));
    assert_eq!(driver_version.as_deref(), Some("580.95.05"));
    // 2^53 + 1 mJ: an f64 on the way would lose the last millijoule. The driver's microseconds become nanoseconds.
    let expected = Reading {
        energy_counter_uj: Some(9_007_199_254_740_993_000),
        power_w: Some(412.345),
        t_device_ns: Some(1_700_000_000_123_456_000),
    };
    assert_eq!(sources[0].read(0), Ok(expected));
    assert_eq!(counter_uj(&mut sources[1]), 7_000);
    assert!(matches!(sources[1].read(1), Err(ReadError::Fatal(_))));
    assert_eq!(sources[1].telemetry(1), None);
}

#[test]
fn the_library_is_shut_down_when_the_last_gpu_is_let_go() {
    let stub = Stub::new("devices 2");
    let mut sources = sources(&stub);
    drop(sources.remove(0));
    assert!(!stub.calls().contains(&"shutdown".to_owned()));
    assert_eq!(counter_uj(&mut sources[0]), 0);
    drop(sources);
    assert!(stub.calls().contains(&"shutdown".to_owned()));
}

#[test]
fn an_unmoved_counter_costs_one_driver_call_and_a_moved_one_two() {
    let stub = Stub::new("0.energy_mj 1000, 0.power_mw 300000");
    let mut source = source(&stub);
    stub.calls();
    source.read(0).expect("a reading");
    assert_eq!(stub.calls(), ["field 83", "field 186"]);
    for _ in 0..3 {
        let reading = source.read(0).expect("a reading");
        assert_eq!((reading.energy_counter_uj, reading.power_w), (Some(1_000_000), None));
    }
    assert_eq!(stub.calls(), ["field 83", "field 83", "field 83"]);
    stub.says("0.energy_mj 1031, 0.power_mw 310000");
    assert_eq!(source.read(0).expect("a reading").power_w, Some(310.0));
    assert_eq!(stub.calls(), ["field 83", "field 186"]);
}

#[test]
fn the_counter_comes_the_best_way_that_the_gpu_knows() {
    for (control, call, uj) in [
        ("0.energy_mj 5", "field 83", 5_000),
        // An old driver without the field, or a GPU that refuses its own scope.
        ("0.energy_mj 5, 0.scope0_rc 3", "energy", 5_000),
        ("0.energy_mj 5, 0.energy_call_rc 3", "field 83", 5_000),
        // The function is the documented one: where the two differ it is believed.
        ("0.energy_mj 5, 0.energy_call_mj 5000000", "energy", 5_000_000_000),
    ] {
        let stub = Stub::new(control);
        let opened = stub.open().expect("a working stub");
        assert_eq!(opened.notes.iter().any(|n| n.contains("expected the same")), uj > 5_000, "{:?}", opened.notes);
        let mut source = opened.sources.into_iter().next().expect("one GPU");
        stub.calls();
        assert_eq!(counter_uj(&mut source), uj, "{control}");
        assert_eq!(stub.calls()[0], call, "{control}");
    }
}

#[test]
fn a_superchip_that_tells_its_module_only_is_labelled_and_never_counted_as_a_gpu() {
    let control =
        "0.energy_mj 5, 0.scope0_rc 3, 0.energy_call_rc 3, 0.module_mj 77, 0.module_mw 900000, 0.power_mw 600000";
    let stub = Stub::new(control);
    let opened = stub.open().expect("a working stub");
    assert!(opened.notes[0].contains("whole module"), "{:?}", opened.notes);
    let mut source = opened.sources.into_iter().next().expect("one GPU");
    // The GPU's power limit says nothing of the module.
    assert_eq!((device(&source).scope, device(&source).power_limit_w), (Scope::Module, None));
    let reading = source.read(0).expect("a reading");
    // The power is the module's too: 600 W would be the GPU's.
    assert_eq!((reading.energy_counter_uj, reading.power_w), (Some(77_000), Some(900.0)));
    // Where the GPU's own scope answers, the module's is left alone: one device, not two that overlap.
    let both = Stub::new("0.energy_mj 5, 0.module_mj 77");
    let sources = sources(&both);
    assert_eq!((sources.len(), device(&sources[0]).scope), (1, Scope::Gpu));
}

#[test]
fn each_of_the_three_verdicts_counts() {
    for (control, message) in [
        ("0.energy_mj 5, 0.field_rc 999", "did not answer"),
        ("0.energy_mj 5, 0.energy_rc 999", "did not answer"),
        ("0.energy_mj 5, 0.value_type 99", "did not answer"),
        ("0.energy_mj 5, 0.field_rc 15", "gone"),
        ("0.energy_mj 5, 0.energy_rc 15", "gone"),
    ] {
        let stub = Stub::new("0.energy_mj 5");
        let mut source = source(&stub);
        stub.says(control);
        let error = source.read(0).expect_err(control);
        assert!(error.to_string().contains(message), "{control}: {error}");
    }
}

#[test]
fn resets_and_backward_steps_are_handed_on_raw() {
    let stub = Stub::new("0.energy_mj 500000");
    let mut source = source(&stub);
    for (mj, uj) in [(500_000, 500_000_000), (499_990, 499_990_000), (0, 0), (12, 12_000)] {
        stub.says(&format!("0.energy_mj {mj}"));
        assert_eq!(counter_uj(&mut source), uj);
    }
}

#[test]
fn a_counter_that_rises_by_itself_moves_in_whole_refreshes() {
    let stub = Stub::new("0.ramp_mw 100000, 0.refresh_ms 20");
    let mut source = source(&stub);
    let mut last = counter_uj(&mut source);
    let mut moved = 0;
    while moved < 3 {
        let now = counter_uj(&mut source);
        // 100 W for 20 ms are 2 J; a slow machine may see several refreshes at once.
        assert_eq!((now - last) % 2_000_000, 0);
        moved += u32::from(now > last);
        last = now;
    }
}

#[test]
fn a_wrapping_counter_stays_below_its_modulus_and_is_handed_on_raw() {
    // 1 MW: 10 J at each refresh of 10 ms, so the counter starts again at 40 J every 40 ms.
    let stub = Stub::new("0.ramp_mw 1000000, 0.refresh_ms 10, 0.modulus 40000");
    let mut source = source(&stub);
    let (mut last, mut fell) = (counter_uj(&mut source), false);
    while !fell {
        let now = counter_uj(&mut source);
        assert!(now < 40_000_000 && now.is_multiple_of(10_000_000), "{now}");
        fell = now < last;
        last = now;
    }
}

#[test]
fn a_frozen_counter_keeps_its_value_and_asks_for_no_power() {
    let stub = Stub::new("0.ramp_mw 100000, 0.refresh_ms 1, 0.frozen 1, 0.power_mw 1");
    let mut source = source(&stub);
    let first = counter_uj(&mut source);
    stub.calls();
    for _ in 0..20 {
        assert_eq!(counter_uj(&mut source), first);
    }
    assert!(stub.calls().iter().all(|call| call == "field 83"));
    stub.says("0.ramp_mw 100000, 0.refresh_ms 1");
    while counter_uj(&mut source) == first {}
}

#[test]
fn a_gpu_lost_in_the_middle_is_gone_and_the_other_goes_on() {
    let stub = Stub::new("devices 2, 0.energy_mj 5, 1.energy_mj 6");
    let mut sources = sources(&stub);
    stub.says("devices 2, 0.energy_mj 5, 1.energy_mj 6, 0.gone_after 1");
    assert_eq!(counter_uj(&mut sources[0]), 5_000);
    assert!(matches!(sources[0].read(0), Err(ReadError::Gone(m)) if m.contains("GPU-00000000")));
    assert_eq!(counter_uj(&mut sources[1]), 6_000);
}

#[test]
fn a_gpu_whose_driver_call_blocks_holds_up_no_other() {
    let stub = Stub::new("devices 2, 1.energy_mj 6");
    let mut sources = sources(&stub);
    stub.says("devices 2, 1.energy_mj 6, 0.block_ms 600000");
    let (mut quick, mut slow) = (sources.remove(1), sources.remove(0));
    let (entered, waiting) = mpsc::channel();
    // Blocked for ten minutes, and left behind when the test ends.
    std::thread::spawn(move || {
        entered.send(()).expect("a listener");
        slow.read(0)
    });
    waiting.recv_timeout(Duration::from_secs(60)).expect("the slow reader started");
    while !stub.calls().contains(&"field 83".to_owned()) {
        std::thread::yield_now();
    }
    let (answered, answer) = mpsc::channel();
    std::thread::spawn(move || answered.send(counter_uj(&mut quick)));
    assert_eq!(answer.recv_timeout(Duration::from_secs(60)), Ok(6_000));
}

#[test]
fn a_value_beyond_the_range_is_refused_and_not_wrapped() {
    let stub = Stub::new("0.energy_mj 18446744073709551615");
    let error = source(&stub).read(0).expect_err("more than 2^64 uJ");
    assert!(matches!(&error, ReadError::Transient(m) if m.contains("18446744073709551615 mJ")), "{error}");
}

#[test]
fn driver_errors_become_transient_gone_or_fatal() {
    for (code, expected) in
        [(15, "gone"), (16, "gone"), (2, "gone"), (1, "fatal"), (18, "fatal"), (10, "transient"), (999, "transient")]
    {
        for key in ["energy_rc", "field_rc"] {
            let stub = Stub::new("0.energy_mj 5");
            let mut source = source(&stub);
            stub.says(&format!("0.energy_mj 5, 0.{key} {code}"));
            let kind = match source.read(0) {
                Err(ReadError::Gone(_)) => "gone",
                Err(ReadError::Fatal(_)) => "fatal",
                Err(ReadError::Transient(_)) => "transient",
                Ok(_) => "a reading",
            };
            assert_eq!(kind, expected, "return code {code} as {key}");
        }
    }
}

#[test]
fn a_gpu_without_counter_falls_back_to_power_and_says_so() {
    let stub = Stub::new("devices 2, 0.energy_rc 3, 0.power_mw 250000, 1.energy_mj 4, 1.mig 1, 1.mig_devices 3");
    let Opened { mut sources, notes, .. } = stub.open().expect("a working stub");
    assert_eq!(device(&sources[0]).energy_source, EnergySource::Power);
    assert_eq!(device(&sources[1]).energy_source, EnergySource::Counter);
    assert!(notes[0].contains("GPU 0") && notes[0].contains("no energy counter"));
    assert!(notes[1].contains("MIG") && notes[1].contains("all 3 partitions together"), "{}", notes[1]);
    let source = &mut sources[0];
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
    for (control, call) in [
        ("0.power_mw 100000", "field 186"),
        ("0.power_mw 100000, 0.instant_rc 3, 0.average 1", "field 185"),
        ("0.power_mw 100000, 0.field_value_rc 3", "power"),
        ("0.power_mw 100000, 0.field_rc 3", "power"),
    ] {
        let stub = Stub::new(control);
        let mut source = source(&stub);
        stub.calls();
        assert_eq!(source.read(0).expect("a reading").power_w, Some(100.0), "{control}");
        assert_eq!(stub.calls()[1], call, "{control}");
    }
    // No way at all: the counter alone is enough.
    let stub = Stub::new("0.energy_mj 3, 0.field_rc 3, 0.power_rc 3");
    assert_eq!(source(&stub).read(0).expect("a reading").power_w, None);
}

#[test]
fn gpus_that_cannot_be_used_are_left_out_by_name() {
    let stub = Stub::new("devices 3, 0.handle_rc 4, 1.energy_mj 5, 2.energy_rc 3, 2.field_rc 3, 2.power_rc 3");
    let Opened { sources, notes, .. } = stub.open().expect("one usable GPU");
    assert_eq!(sources.len(), 1);
    assert!(device(&sources[0]).id.ends_with("000000000001"));
    assert!(notes[0].contains("GPU 0 cannot be opened") && notes[0].contains("permission"));
    assert!(notes[1].contains("GPU 2") && notes[1].contains("neither"));
}

#[test]
fn a_gpu_out_of_persistence_mode_is_noted_with_the_fix() {
    let opened = Stub::new("0.energy_mj 1, 0.persistence 0").open().expect("a working stub");
    assert!(opened.notes[0].contains("nvidia-smi -pm 1"), "{:?}", opened.notes);
    let opened = Stub::new("0.energy_mj 1").open().expect("a working stub");
    assert!(opened.notes.is_empty(), "{:?}", opened.notes);
}

#[test]
fn telemetry_has_units_and_tolerates_whatever_is_missing() {
    let stub = Stub::new("0.throttle 0x45, 0.limit_mw 500000");
    let expected = Telemetry {
        temperature_c: Some(41.0),
        core_clock_hz: Some(1.98e9),
        memory_clock_hz: Some(2.619e9),
        utilization: Some(0.25),
        memory_used_bytes: Some(1_073_741_824),
        power_limit_w: Some(500.0),
        // 1 is idle, 4 the power cap, 64 the hardware's own thermal protection.
        throttle_reasons: vec!["power_cap", "thermal"],
    };
    assert_eq!(source(&stub).telemetry(0), Some(expected));
    let bare = Stub::new("0.telemetry_rc 3, 0.limit_rc 3, 0.memory_rc 3");
    assert_eq!(source(&bare).telemetry(0), Some(Telemetry::default()));
    let odd = Stub::new("0.utilization 4000000000");
    assert_eq!(source(&odd).telemetry(0).expect("telemetry").utilization, None);
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
    let error = nvml::open(Some(Path::new("/nonexistent/libnvidia-ml.so.1"))).expect_err("no library");
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
    let source = source(&stub);
    assert_eq!(device(&source).id, "nvml:index-0");
    assert_eq!(device(&source).name, "NVIDIA GPU 0");
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
    // One source per GPU, so that they can be read at the same time.
    assert_eq!(detection.found.len(), 2);
    assert_eq!(detection.devices().count(), 2);
    assert_eq!(detection.driver.as_deref(), Some("NVIDIA 580.95.05"));
    assert_eq!(detection.report[0].to_string(), "NVIDIA GPUs (NVML): 2 GPUs by energy counter");
    assert!(
        detection
            .report
            .iter()
            .any(|line| matches!(line, Finding::Unusable { reason, .. } if reason.contains("modprobe intel_rapl_msr")))
    );
    assert!(detection.report.iter().all(|line| !line.to_string().contains('\n')));
}
