//! AMD's GPUs through each of the three ways: AMD SMI and ROCm SMI against stub libraries (`tests/stubs/`), and the kernel's own
//! files in a tree of ours. Each test has its own copy of a library, so they may run in parallel.

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use energylens::schema::EnergySource;
use energylens::source::amd::{self, Error, Opened, Places};
use energylens::source::detect::{DetectOptions, SourceKind, detect};
use energylens::source::{CounterSource, Device, ReadError, Reading, Scope, Telemetry};
use support::drm::Drm;
use support::stub::StubLibrary;

/// The two libraries.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Library {
    AmdSmi,
    RocmSmi,
}

const LIBRARIES: [Library; 2] = [Library::AmdSmi, Library::RocmSmi];

impl Library {
    fn stub(self, control: &str) -> StubLibrary {
        match self {
            Self::AmdSmi => StubLibrary::build("amd_smi.c", "libamd_smi.so", &[], control),
            Self::RocmSmi => StubLibrary::build("rocm_smi.c", "librocm_smi64.so.1", &[], control),
        }
    }

    fn places<'a>(self, library: &'a Path, sysfs_root: &'a Path) -> Places<'a> {
        match self {
            Self::AmdSmi => {
                Places { sysfs_root, amd_smi_library: Some(library), rocm_smi_library: Some(NO_LIBRARY.as_ref()) }
            }
            Self::RocmSmi => Places { sysfs_root, amd_smi_library: None, rocm_smi_library: Some(library) },
        }
    }

    fn open(self, stub: &StubLibrary, drm: &Drm) -> Result<Opened, Error> {
        amd::open(self.places(&stub.library(), drm.root()))
    }

    /// The only source of a library that works.
    #[track_caller]
    fn source(self, stub: &StubLibrary, drm: &Drm) -> Box<dyn CounterSource> {
        let mut opened = self.open(stub, drm).unwrap_or_else(|e| panic!("{self:?}: {e}"));
        assert_eq!(opened.sources.len(), 1, "{self:?}: a library's GPUs are read by one reader");
        opened.sources.remove(0)
    }
}

const NO_LIBRARY: &str = "/nonexistent/library.so";

/// The kernel's files alone: both libraries are named, so that an installed one is not found, and not there.
fn by_files(drm: &Drm) -> Result<Opened, Error> {
    let missing = Some(Path::new(NO_LIBRARY));
    amd::open(Places { sysfs_root: drm.root(), amd_smi_library: missing, rocm_smi_library: missing })
}

fn uj(reading: Result<Reading, ReadError>) -> u64 {
    reading.expect("a reading").energy_counter_uj.expect("a counter")
}

fn ids(opened: &Opened) -> Vec<String> {
    opened.devices().map(|device| device.id.clone()).collect()
}

#[test]
fn a_count_becomes_microjoules_and_keeps_the_drivers_nanoseconds() {
    for library in LIBRARIES {
        // 2^37 counts are 2^21 J; a resolution of 15.3 uJ taken at its word would make them 0.27 % more.
        let stub = library.stub("0.energy_counts 137438953472, 0.timestamp_ns 123456789, 0.power_uw 300000000");
        let mut source = library.source(&stub, &Drm::new());
        let reading = source.read(0).expect("a reading");
        assert_eq!(reading.energy_counter_uj, Some(2_097_152_000_000), "{library:?}");
        assert_eq!(reading.t_device_ns, Some(123_456_789), "{library:?}");
        assert!(matches!(source.read(1), Err(ReadError::Fatal(_))), "{library:?}");
        assert_eq!(source.telemetry(1), None, "{library:?}");
    }
}

#[test]
fn a_gpu_has_the_same_identity_whichever_way_it_is_read() {
    let drm = Drm::new();
    drm.card(0, "0x74a1").metrics(0, 65_536, 5, 400).put(0, "unique_id", "a1b2c3d4e5f60718\n");
    drm.put(0, "mem_info_vram_total", "206141652992\n").put(0, "hwmon/hwmon5/power1_cap", "750000000\n");
    let files = by_files(&drm).expect("a card");
    let expected: Vec<Device> = files.devices().cloned().collect();
    assert_eq!(expected[0].id, "amd:GPU-a1b2c3d4e5f60718");
    assert_eq!((expected[0].name.as_str(), expected[0].scope), ("AMD Instinct MI300X", Scope::Gpu));
    assert_eq!((expected[0].power_limit_w, expected[0].memory_bytes), (Some(750.0), Some(206_141_652_992)));
    for library in LIBRARIES {
        // Both libraries answer with the PCI address of the card in the tree.
        let stub = library.stub("0.energy_counts 65536");
        let opened = library.open(&stub, &drm).expect("a working stub");
        assert_eq!(opened.devices().cloned().collect::<Vec<_>>(), expected, "{library:?}");
        // The power comes from the kernel's file, whose meaning no release changes.
        let mut source = library.source(&stub, &drm);
        assert_eq!(source.read(0).expect("a reading").power_w, Some(300.0), "{library:?}");
        assert_eq!(source.read(0).expect("a reading").power_w, None, "{library:?}: only with a change");
    }
}

#[test]
fn without_the_kernels_files_the_libraries_names_are_used() {
    let stub =
        Library::AmdSmi.stub("0.name AMD Instinct MI325X, 0.uuid 99ff74a5-0000-1000-8012-3456789abcde, 0.poison 1");
    let opened = Library::AmdSmi.open(&stub, &Drm::new()).expect("a working stub");
    assert_eq!(ids(&opened), ["amd:99ff74a5-0000-1000-8012-3456789abcde"]);
    let device = opened.devices().next().expect("a device");
    assert_eq!((device.name.as_str(), device.memory_bytes), ("AMD Instinct MI325X", Some(206_141_652_992)));
    let stub = Library::AmdSmi.stub("0.uuid_rc 2, 0.bdf 0x1c100, 0.name_rc 2");
    let opened = Library::AmdSmi.open(&stub, &Drm::new()).expect("a working stub");
    // Domain 1, bus 0xc1.
    assert_eq!(ids(&opened), ["amd:0001:c1:00.0"]);
    let stub = Library::RocmSmi
        .stub("devices 2, 0.unique_id 0x1234, 1.bdf 0x1000000c2f8, 1.socket_uw 500000000, 1.power_rc 2");
    let mut opened = Library::RocmSmi.open(&stub, &Drm::new()).expect("a working stub");
    // Bus 0xc2, device 31; the domain lies in the upper half: 0x100.
    assert_eq!(ids(&opened), ["amd:GPU-0000000000001234", "amd:0100:c2:1f.0"]);
    assert_eq!(opened.sources[0].read(1).expect("a reading").power_w, Some(500.0));
}

#[test]
fn resets_backward_steps_and_wraps_are_handed_on_raw() {
    for library in LIBRARIES {
        let stub = library.stub("0.energy_counts 655360");
        let mut source = library.source(&stub, &Drm::new());
        for (counts, expected_uj) in [(655_360, 10_000_000), (655_359, 9_999_984), (0, 0), (65_536, 1_000_000)] {
            stub.says(&format!("0.energy_counts {counts}"));
            assert_eq!(uj(source.read(0)), expected_uj, "{library:?}");
        }
        // 1 MW: 10 J at each refresh of 10 ms; four of them and the register starts again.
        stub.says("0.ramp_mw 1000000, 0.refresh_ms 10, 0.modulus 2621440");
        let (mut last, mut fell) = (uj(source.read(0)), false);
        while !fell {
            let now = uj(source.read(0));
            assert!(now < 40_000_000 && now % 10_000_000 == 0, "{library:?}: {now}");
            fell = now < last;
            last = now;
        }
    }
}

#[test]
fn a_frozen_counter_keeps_its_value_while_its_clock_runs() {
    for library in LIBRARIES {
        let stub = library.stub("0.ramp_mw 100000, 0.refresh_ms 1, 0.frozen 1");
        let mut source = library.source(&stub, &Drm::new());
        let first = source.read(0).expect("a reading");
        for _ in 0..20 {
            let next = source.read(0).expect("a reading");
            assert_eq!(next.energy_counter_uj, first.energy_counter_uj, "{library:?}");
            assert!(next.t_device_ns > first.t_device_ns, "{library:?}");
        }
    }
}

#[test]
fn a_slow_driver_call_is_waited_for_and_its_answer_is_right() {
    for library in LIBRARIES {
        let stub = library.stub("0.energy_counts 65536");
        let mut source = library.source(&stub, &Drm::new());
        stub.says("0.energy_counts 131072, 0.block_ms 50");
        let before = Instant::now();
        assert_eq!(uj(source.read(0)), 2_000_000, "{library:?}");
        assert!(before.elapsed() >= Duration::from_millis(50), "{library:?}: the stub did not block");
    }
}

#[test]
fn garbage_is_refused_and_never_a_wrong_joule() {
    for library in LIBRARIES {
        let stub = library.stub("0.energy_counts 1");
        let mut source = library.source(&stub, &Drm::new());
        for control in [
            "0.energy_counts 18446744073709551615",
            "0.energy_counts 4294967295",
            "0.energy_counts 18446744073709551614",
            "0.energy_counts 5, 0.resolution nan",
            "0.energy_counts 5, 0.resolution 0",
            "0.energy_counts 5, 0.resolution -15.3",
            "0.energy_counts 5, 0.resolution inf",
        ] {
            stub.says(control);
            let answer = source.read(0);
            assert!(matches!(&answer, Err(ReadError::Transient(_))), "{library:?}: {control}: {answer:?}");
        }
        stub.says("0.energy_counts 131072");
        assert_eq!(uj(source.read(0)), 2_000_000, "{library:?}");
    }
}

#[test]
fn errors_become_transient_gone_or_fatal() {
    for (library, codes) in [
        (
            Library::AmdSmi,
            [(31, "gone"), (1, "gone"), (32, "fatal"), (34, "fatal"), (30, "transient"), (999, "transient")],
        ),
        (
            Library::RocmSmi,
            [(10, "gone"), (7, "gone"), (8, "fatal"), (16, "transient"), (14, "transient"), (999, "transient")],
        ),
    ] {
        let stub = library.stub("0.energy_counts 5");
        let mut source = library.source(&stub, &Drm::new());
        for (code, expected) in codes {
            stub.says(&format!("0.energy_counts 5, 0.energy_rc {code}"));
            let kind = match source.read(0) {
                Err(ReadError::Gone(_)) => "gone",
                Err(ReadError::Fatal(_)) => "fatal",
                Err(ReadError::Transient(_)) => "transient",
                Ok(_) => "a reading",
            };
            assert_eq!(kind, expected, "{library:?}: return code {code}");
        }
    }
}

#[test]
fn a_gpu_lost_in_the_middle_is_gone_and_the_other_goes_on() {
    for library in LIBRARIES {
        let stub = library.stub("devices 2");
        let mut source = library.source(&stub, &Drm::new());
        stub.says("devices 2, 0.gone_after 1, 1.energy_counts 65536");
        assert_eq!(uj(source.read(0)), 0);
        assert!(matches!(source.read(0), Err(ReadError::Gone(_))), "{library:?}");
        assert_eq!(uj(source.read(1)), 1_000_000);
    }
}

#[test]
fn the_second_die_of_a_card_is_never_counted() {
    let control = "devices 4, 0.energy_counts 900, 1.energy_counts 0, 2.energy_counts 800, 3.energy_counts 0";
    let names = "0.name AMD Instinct MI250X, 1.name AMD Instinct MI250X, 2.name AMD Instinct MI250X, 3.name AMD Instinct MI250X";
    for library in LIBRARIES {
        let stub = library.stub(&format!("{control}, {names}, dies_per_socket 2"));
        let opened = library.open(&stub, &Drm::new()).expect("a working stub");
        let devices: Vec<_> = opened.devices().map(|d| d.name.as_str()).collect();
        assert_eq!(devices, ["AMD Instinct MI250X (both dies)"; 2], "{library:?}");
        let second = opened.notes.iter().filter(|note| note.contains("second die")).count();
        assert_eq!(second, 2, "{library:?}: {:?}", opened.notes);
        // What is read as the second device is the third die.
        let mut source = library.source(&stub, &Drm::new());
        stub.says("devices 4, 0.energy_counts 65536, 1.energy_counts 131072, 2.energy_counts 196608");
        assert_eq!((uj(source.read(0)), uj(source.read(1))), (1_000_000, 3_000_000), "{library:?}");
    }
    let drm = Drm::new();
    for (number, counts, power_w) in [(0, 900, 400), (1, 0, 0), (2, 800, 380), (3, 0, 0)] {
        drm.card(number, "0x7408").metrics(number, counts, 1, power_w);
    }
    let opened = by_files(&drm).expect("four dies");
    assert_eq!(ids(&opened), ["amd:0000:01:00.0", "amd:0000:03:00.0"]);
    // MI200 counts in 64 bits.
    assert!(opened.devices().all(|d| d.name.ends_with("(both dies)") && d.counter_modulus_uj.is_none()));
}

#[test]
fn partitions_of_one_gpu_are_counted_once() {
    for library in LIBRARIES {
        // Eight partitions of one MI300X differ in the function only.
        let control: Vec<_> = (0..4).map(|i| format!("{i}.bdf {:#x}, {i}.energy_counts 65536", 0xc100 + i)).collect();
        let stub = library.stub(&format!("devices 4, {}", control.join(", ")));
        let opened = library.open(&stub, &Drm::new()).expect("a working stub");
        assert_eq!(opened.devices().count(), 1, "{library:?}");
        let partitions = opened.notes.iter().filter(|note| note.contains("is a partition of")).count();
        assert_eq!(partitions, 3, "{library:?}: {:?}", opened.notes);
    }
}

#[test]
fn a_gpu_without_counter_falls_back_to_power_and_says_so() {
    let drm = Drm::new();
    drm.card(0, "0x73bf");
    for library in LIBRARIES {
        let stub = library.stub("0.energy_rc 2");
        let mut opened = library.open(&stub, &drm).expect("a power sensor");
        let device = opened.devices().next().expect("a device").clone();
        assert_eq!((device.energy_source, device.counter_modulus_uj), (EnergySource::Power, None), "{library:?}");
        assert!(opened.notes.iter().any(|n| n.contains("no energy counter")), "{library:?}: {:?}", opened.notes);
        let reading = opened.sources[0].read(0).expect("a reading");
        assert_eq!((reading.energy_counter_uj, reading.power_w), (None, Some(300.0)), "{library:?}");
        // Neither: by name, and nothing is made up.
        let stub = library.stub("0.energy_rc 2, 0.power_rc 2");
        let error = library.open(&stub, &Drm::new()).err().expect("nothing to read");
        assert!(error.to_string().contains("neither an energy counter"), "{library:?}: {error}");
    }
}

#[test]
fn the_chain_takes_the_first_way_with_a_counter_and_says_why_not_the_others() {
    let drm = Drm::new();
    drm.card(0, "0x74a1").metrics(0, 131_072, 7, 500);
    let detected = |amd_smi: &Path, rocm_smi: &Path| {
        let detection = detect(&DetectOptions {
            kinds: vec![SourceKind::Amd],
            amd_smi_library: Some(amd_smi.to_owned()),
            rocm_smi_library: Some(rocm_smi.to_owned()),
            sysfs_root: drm.root().to_owned(),
            ..DetectOptions::default()
        });
        assert_eq!((detection.found.len(), detection.report.len()), (1, 1));
        detection.report[0].to_string()
    };
    let missing = Path::new(NO_LIBRARY);
    let (good_amd, good_rocm) = (Library::AmdSmi.stub(""), Library::RocmSmi.stub(""));
    let (bad_amd, bad_rocm) = (Library::AmdSmi.stub("init_rc 34"), Library::RocmSmi.stub("init_rc 8"));
    let blind_amd = Library::AmdSmi.stub("0.energy_rc 2");

    let line = detected(&good_amd.library(), &good_rocm.library());
    assert!(line.starts_with("AMD GPUs (AMD SMI): 1 GPU by energy counter") && !line.contains("not used"), "{line}");
    let line = detected(missing, &good_rocm.library());
    assert!(line.starts_with("AMD GPUs (ROCm SMI): 1 GPU by energy counter"), "{line}");
    assert!(line.contains("AMD SMI is not used: /nonexistent/library.so could not be loaded"), "{line}");
    // A library that does not start, or has no counter, is passed by; none of its functions is called any more.
    let line = detected(&bad_amd.library(), &good_rocm.library());
    assert!(line.contains("(ROCm SMI)") && line.contains("try `modprobe amdgpu`"), "{line}");
    let line = detected(&blind_amd.library(), &good_rocm.library());
    assert!(line.contains("(ROCm SMI)") && line.contains("AMD SMI has no energy counter"), "{line}");
    let line = detected(&bad_amd.library(), &bad_rocm.library());
    assert!(line.starts_with("AMD GPUs (gpu_metrics): 1 GPU by energy counter"), "{line}");
    assert!(line.contains("ROCm SMI is not used") && line.contains("did not start: Rsmi status init error"), "{line}");
    assert!(!line.contains('\n'), "{line}");
}

#[test]
fn a_card_that_the_library_may_not_see_is_left_alone_and_named() {
    let drm = Drm::new();
    drm.card(0, "0x74a1").metrics(0, 1, 1, 1).card(1, "0x74a1").metrics(1, 1, 1, 1);
    let stub = Library::AmdSmi.stub("");
    let opened = Library::AmdSmi.open(&stub, &drm).expect("a working stub");
    assert_eq!(ids(&opened), ["amd:0000:01:00.0"]);
    assert!(opened.notes.iter().any(|n| n.contains("amd:0000:02:00.0") && n.contains("not seen by AMD SMI")));
}

#[test]
fn no_library_is_opened_where_the_kernel_shows_no_card() {
    let drm = Drm::new();
    drm.put(0, "vendor", "0x10de\n").put(1, "vendor", "0x1002\n").put(1, "uevent", "DRIVER=vfio-pci\n");
    let error = amd::open(Places { sysfs_root: drm.root(), amd_smi_library: None, rocm_smi_library: None });
    let error = error.err().expect("no card");
    assert!(matches!(error, Error::NoCards { .. }) && error.to_string().contains("modprobe amdgpu"), "{error}");
}

#[test]
fn the_library_is_shut_down_once_when_it_is_let_go() {
    for library in LIBRARIES {
        let stub = library.stub("devices 2");
        let source = library.source(&stub, &Drm::new());
        stub.calls();
        drop(source);
        assert_eq!(stub.calls(), ["shutdown"], "{library:?}");
    }
}

#[test]
fn telemetry_has_units_and_the_kernels_files_come_first() {
    let stub = Library::AmdSmi.stub("0.poison 1");
    let told = Library::AmdSmi.source(&stub, &Drm::new()).telemetry(0).expect("telemetry");
    let expected = Telemetry {
        temperature_c: Some(61.0),
        core_clock_hz: Some(2.1e9),
        memory_clock_hz: Some(1.3e9),
        utilization: Some(0.25),
        memory_used_bytes: Some(1_073_741_824),
        power_limit_w: None,
        throttle_reasons: Vec::new(),
    };
    assert_eq!(told, expected);
    let stub = Library::RocmSmi.stub("0.junction_rc 2");
    let told = Library::RocmSmi.source(&stub, &Drm::new()).telemetry(0).expect("telemetry");
    let expected = Telemetry {
        temperature_c: Some(48.0),
        core_clock_hz: None,
        memory_clock_hz: None,
        power_limit_w: Some(750.0),
        ..expected
    };
    assert_eq!(told, expected);
    for library in LIBRARIES {
        let stub = library.stub("0.telemetry_rc 2, 0.junction_rc 2, 0.cap_rc 2");
        let bare = library.source(&stub, &Drm::new()).telemetry(0);
        assert_eq!(bare, Some(Telemetry::default()), "{library:?}");
        let drm = Drm::new();
        drm.card(0, "0x74a1").put(0, "hwmon/hwmon5/temp2_input", "55000\n").put(0, "gpu_busy_percent", "80\n");
        drm.put(0, "hwmon/hwmon5/freq1_input", "1700000000\n").put(0, "mem_info_vram_used", "4096\n");
        let told = library.source(&library.stub(""), &drm).telemetry(0).expect("telemetry");
        assert_eq!((told.temperature_c, told.core_clock_hz), (Some(55.0), Some(1.7e9)), "{library:?}");
        assert_eq!((told.utilization, told.memory_used_bytes), (Some(0.8), Some(4096)), "{library:?}");
    }
}

#[test]
fn the_kernels_metrics_are_read_anew_each_time() {
    let drm = Drm::new();
    drm.card(0, "0x738c").metrics(0, 65_536, 1_000, 290);
    let mut opened = by_files(&drm).expect("a card");
    assert_eq!(opened.source, "AMD GPUs (gpu_metrics)");
    let device = opened.devices().next().expect("a device").clone();
    // MI100 counts in 32 bits: it starts again at 2^32 counts, which are 65,536 J.
    assert_eq!((device.name.as_str(), device.counter_modulus_uj), ("AMD Instinct MI100", Some(65_536_000_000)));
    assert!(opened.notes.iter().any(|n| n.contains("known to be wrong")), "{:?}", opened.notes);
    let source = &mut opened.sources[0];
    let first = Reading { energy_counter_uj: Some(1_000_000), power_w: Some(290.0), t_device_ns: Some(1_000) };
    assert_eq!(source.read(0), Ok(first));
    assert_eq!(source.read(0), Ok(Reading { power_w: None, ..first }));
    drm.metrics(0, 131_072, 2_000, 291);
    let second = Reading { energy_counter_uj: Some(2_000_000), power_w: Some(291.0), t_device_ns: Some(2_000) };
    assert_eq!(source.read(0), Ok(second));
    // A torn or foreign file is no reading, and the next whole one is.
    drm.put(0, "gpu_metrics", [120, 0, 1, 3, 9, 9]);
    assert!(matches!(source.read(0), Err(ReadError::Transient(m)) if m.contains("has 6 bytes")));
    drm.metrics(0, u64::MAX, 3_000, 1);
    assert!(matches!(source.read(0), Err(ReadError::Transient(m)) if m.contains("accumulator is not there")));
    drm.metrics(0, 196_608, 4_000, 1);
    assert_eq!(uj(source.read(0)), 3_000_000);
    fs::remove_dir_all(drm.root().join("class")).expect("a writable directory");
    // The open file is what remains; once it cannot be read as metrics either, the card is gone.
    assert!(matches!(source.read(1), Err(ReadError::Fatal(_))));
}

#[test]
fn cards_are_separate_sources_in_the_order_of_their_addresses() {
    let drm = Drm::new();
    // Card numbers follow the order of driver binding, addresses that of the slots.
    for number in [10, 2, 0] {
        drm.card(number, "0x74a1").metrics(number, 1, 1, 1);
    }
    drm.put(0, "uevent", "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:f0:00.0\n");
    let opened = by_files(&drm).expect("cards");
    assert_eq!(ids(&opened), ["amd:0000:03:00.0", "amd:0000:0b:00.0", "amd:0000:f0:00.0"]);
    assert!(opened.sources.len() == 3 && opened.sources.iter().all(|source| source.devices().len() == 1));
}

#[test]
fn a_card_whose_metrics_have_no_energy_falls_back_in_steps() {
    let drm = Drm::new();
    drm.card(0, "0x1681").put(0, "gpu_metrics", [0x78, 0, 2, 1]);
    let mut opened = by_files(&drm).expect("a power sensor");
    assert!(
        opened.notes[0].contains("format 2.1") && opened.notes[0].contains("integrated instead"),
        "{:?}",
        opened.notes
    );
    assert_eq!(opened.sources[0].read(0).expect("a reading").power_w, Some(300.0));
    drm.put(0, "hwmon/hwmon5/energy1_input", "123456789\n");
    let mut opened = by_files(&drm).expect("a counter");
    assert_eq!(uj(opened.sources[0].read(0)), 123_456_789);
    drm.put(0, "hwmon/hwmon5/energy1_input", "many\n");
    assert!(matches!(opened.sources[0].read(0), Err(ReadError::Transient(_))));
    fs::remove_dir_all(drm.root().join("class")).expect("a writable directory");
    assert!(matches!(opened.sources[0].read(0), Err(ReadError::Gone(_))));
}

/// Debian's librocm-smi64-1, where it is installed. It prints to stderr and does not start without a GPU; every device call
/// after that would crash, and none is made.
#[test]
fn the_real_rocm_smi_without_a_gpu_is_an_error_and_not_a_crash() {
    let places = [
        "/usr/lib/librocm_smi64.so.1",
        "/usr/lib/x86_64-linux-gnu/librocm_smi64.so.1",
        "/opt/rocm/lib/librocm_smi64.so",
    ];
    let Some(library) = places.iter().map(Path::new).find(|path| path.exists()) else {
        eprintln!("skipped: librocm-smi64-1 is not installed");
        return;
    };
    match amd::open(Library::RocmSmi.places(library, Drm::new().root())) {
        Ok(opened) => eprintln!("a node with AMD GPUs: {:?}", ids(&opened)),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("ROCm SMI is not used") && !text.contains("could not be loaded"), "{text}");
        }
    }
}
