//! Intel GPUs through the binary interface of Level Zero, answered by a stub.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use energylens::schema::EnergySource;
use energylens::source::level_zero::{self, Error, LevelZeroSource};
use energylens::source::{CounterSource, ReadError, Reading, Scope};

use crate::support::desk::Desk;
use crate::support::level_zero::LevelZero;

fn counter_uj(card: &mut LevelZeroSource) -> u64 {
    card.read(0).expect("a reading").energy_counter_uj.expect("a counter")
}

fn ids(cards: &[LevelZeroSource]) -> Vec<(String, Scope)> {
    cards.iter().flat_map(|c| c.devices()).map(|d| (d.id.clone(), d.scope)).collect()
}

/// The stub fills the vendor's structures where the vendor's header is installed, and its own otherwise: both must be
/// what is read here.
#[test]
fn a_card_is_described_and_its_counter_is_exact() {
    if !Path::new("/usr/include/level_zero/zes_api.h").exists() {
        eprintln!("SKIPPED: the interface is not held against the vendor's header; install libze-dev");
    }
    for flags in [&[][..], &["-DOWN_DEFINITIONS"]] {
        let stub = LevelZero::built_with(
            flags,
            "devices 2, 0.card_uj 18446744073709551615, 0.timestamp_us 1234567, 0.limit_mw 450000, \
             0.sustained_mw 600000, 1.card_uj 7, 1.limit_mw 450000, 1.sustained_mw 300000",
        );
        let mut found = stub.open().expect("a working stub");
        assert_eq!(found.driver_version.as_deref(), Some("1.6.33578"));
        assert_eq!(
            ids(&found.sources),
            [("intel:0000:29:00.0".to_owned(), Scope::Gpu), ("intel:0000:2a:00.0".to_owned(), Scope::Gpu)]
        );
        let card = found.sources[0].devices()[0].clone();
        assert_eq!(card.name, "Intel(R) Data Center GPU Max 1550");
        assert_eq!((card.energy_source, card.counter_modulus_uj), (EnergySource::Counter, None));
        assert_eq!((card.power_limit_w, card.memory_bytes), (Some(600.0), Some(137_438_953_472)));
        // A limit lowered by hand does not bound what the card can draw.
        assert_eq!(found.sources[1].devices()[0].power_limit_w, Some(450.0));
        let expected = Reading { energy_counter_uj: Some(u64::MAX), power_w: None, t_device_ns: Some(1_234_567_000) };
        assert_eq!(found.sources[0].read(0), Ok(expected));
        assert!(matches!(found.sources[0].read(1), Err(ReadError::Fatal(_))));
        assert!(found.notes.is_empty(), "{:?}", found.notes);
    }
}

#[test]
fn a_card_and_its_tiles_are_never_both_read() {
    let stub = LevelZero::new("0.domains tile0 package memory card tile1, 0.card_uj 100, 0.energy_uj 40");
    let mut cards = stub.cards();
    assert_eq!(ids(&cards), [("intel:0000:29:00.0".to_owned(), Scope::Gpu)]);
    stub.calls();
    assert_eq!(counter_uj(&mut cards[0]), 100);
    assert_eq!(stub.calls(), ["energy 0 card"], "one driver call a poll");
}

#[test]
fn tiles_are_read_where_the_card_has_no_counter() {
    let stub = LevelZero::new("0.domains tile1 tile0, 0.tile0_uj 5, 0.tile1_uj 6");
    let found = stub.open().expect("a working stub");
    let mut cards = found.sources;
    assert_eq!(
        ids(&cards),
        [
            ("intel:0000:29:00.0/tile0".to_owned(), Scope::GpuTile),
            ("intel:0000:29:00.0/tile1".to_owned(), Scope::GpuTile)
        ]
    );
    assert_eq!(cards[0].read(1).expect("a reading").energy_counter_uj, Some(6));
    assert!(found.notes[0].contains("its tiles are read"), "{:?}", found.notes);
}

#[test]
fn drivers_that_name_no_domains_and_list_the_cards_apart_are_understood() {
    let stub = LevelZero::new("0.domains tile0, 0.card_domain unknown, 0.unknown_uj 9, 0.ext_rc 0x78000004");
    let mut cards = stub.cards();
    assert_eq!(ids(&cards), [("intel:0000:29:00.0".to_owned(), Scope::Gpu)]);
    assert_eq!(counter_uj(&mut cards[0]), 9);
}

#[test]
fn a_package_is_said_to_be_less_than_the_card() {
    let found = LevelZero::new("0.domains package memory, 0.energy_uj 9").open().expect("a working stub");
    assert!(found.notes[0].contains("package only"), "{:?}", found.notes);
}

#[test]
fn tiles_that_are_listed_as_devices_are_one_card() {
    let stub = LevelZero::new("devices 4, 1.bus 41, 2.bus 77, 3.type 2, 0.energy_uj 1, 2.energy_uj 2");
    let cards = stub.cards();
    assert_eq!(
        ids(&cards),
        [("intel:0000:29:00.0".to_owned(), Scope::Gpu), ("intel:0000:4d:00.0".to_owned(), Scope::Gpu)]
    );
}

#[test]
fn wraps_resets_backward_steps_and_garbage_are_handed_on_raw() {
    let stub = LevelZero::new("0.card_uj 22500000000000");
    let mut card = stub.cards().remove(0);
    // The fall of an Arc Pro B60, a backward step, a restart, garbage.
    for uj in [22_500_000_000_000, 200_000_000, 199_999_999, 0, u64::MAX] {
        stub.says(&format!("0.card_uj {uj}"));
        assert_eq!(counter_uj(&mut card), uj);
    }
    stub.says("0.ramp_mw 1000000, 0.refresh_ms 1, 0.modulus 65536");
    for _ in 0..50 {
        assert!(counter_uj(&mut card) < 65_536);
    }
}

#[test]
fn a_counter_that_rises_by_itself_moves_in_whole_refreshes_and_a_frozen_one_not_at_all() {
    let stub = LevelZero::new("0.ramp_mw 100000, 0.refresh_ms 20");
    let mut card = stub.cards().remove(0);
    let mut last = counter_uj(&mut card);
    let mut moved = 0;
    while moved < 3 {
        let now = counter_uj(&mut card);
        // 100 W for 20 ms are 2 J; a slow machine may see several refreshes at once.
        assert_eq!((now - last) % 2_000_000, 0);
        moved += u32::from(now > last);
        last = now;
    }
    stub.says("0.ramp_mw 100000, 0.refresh_ms 1, 0.frozen 1");
    let frozen = counter_uj(&mut card);
    let before = card.read(0).expect("a reading").t_device_ns;
    // Its timestamp goes on, as it did on DG1.
    while card.read(0).expect("a reading").t_device_ns == before {
        assert_eq!(counter_uj(&mut card), frozen);
    }
    assert_eq!(counter_uj(&mut card), frozen);
}

#[test]
fn a_counter_at_zero_is_noticed_when_it_is_opened() {
    let found = LevelZero::new("0.card_uj 0").open().expect("a working stub");
    assert!(found.notes[0].contains("stands at 0 uJ"), "{:?}", found.notes);
}

#[test]
fn driver_errors_become_transient_gone_or_fatal() {
    let stub = LevelZero::new("0.card_uj 5");
    let mut card = stub.cards().remove(0);
    for (code, expected) in [
        (0x7000_0001_u32, "gone"),
        (0x7000_0006, "gone"),
        (0x7800_0005, "gone"),
        (0x7800_0001, "fatal"),
        (0x7000_0007, "transient"),
        (0x7001_0000, "transient"),
        (0x7800_0003, "transient"),
        (0x7fff_fffe, "transient"),
        (1, "transient"),
        (0xdead_beef, "transient"),
    ] {
        stub.says(&format!("0.card_uj 5, 0.energy_rc {code}"));
        let kind = match card.read(0) {
            Err(ReadError::Gone(_)) => "gone",
            Err(ReadError::Fatal(_)) => "fatal",
            Err(ReadError::Transient(message)) => {
                assert!(message.contains(&format!("0x{code:08x}")), "{message}");
                "transient"
            }
            Ok(_) => "a reading",
        };
        assert_eq!(kind, expected, "return code 0x{code:08x}");
    }
    stub.says("0.card_uj 6");
    assert_eq!(counter_uj(&mut card), 6, "errors pass");
}

#[test]
fn a_lost_card_is_gone_and_the_other_stays() {
    let stub = LevelZero::new("devices 2, 0.energy_uj 5, 1.energy_uj 6");
    let mut cards = stub.cards();
    stub.says("devices 2, 0.energy_uj 5, 1.energy_uj 6, 0.gone_after 2");
    assert_eq!((counter_uj(&mut cards[0]), counter_uj(&mut cards[0])), (5, 5));
    assert!(matches!(cards[0].read(0), Err(ReadError::Gone(_))));
    assert_eq!(counter_uj(&mut cards[1]), 6);
}

#[test]
fn a_card_that_blocks_holds_up_no_other() {
    let stub = LevelZero::new("devices 2, 0.energy_uj 5, 1.energy_uj 6");
    let mut cards = stub.cards();
    stub.says("devices 2, 0.energy_uj 5, 1.energy_uj 6, 0.block_ms 60000");
    let mut blocked = cards.remove(0);
    let (done, is_done) = mpsc::channel();
    // Left behind when the test ends: it is in the driver for a minute.
    std::thread::spawn(move || done.send(blocked.read(0)));
    for _ in 0..20 {
        assert_eq!(counter_uj(&mut cards[0]), 6);
    }
    assert!(is_done.recv_timeout(Duration::ZERO).is_err(), "the other card was still being read");
}

#[test]
fn telemetry_is_what_the_sensors_say_and_nothing_where_they_do_not() {
    let said = "0.card_uj 5, 0.sustained_mw 400000, 0.mhz 1600, 0.celsius 61.5, 0.memory_total 1000, 0.memory_free 400";
    let stub = LevelZero::new(&format!("{said}, 0.active_us 1000, 0.timestamp_us 5000"));
    let mut card = stub.cards().remove(0);
    let first = card.telemetry(0).expect("telemetry");
    assert_eq!((first.temperature_c, first.core_clock_hz, first.memory_clock_hz), (Some(61.5), Some(1.6e9), None));
    assert_eq!((first.memory_used_bytes, first.power_limit_w), (Some(600), Some(400.0)));
    assert_eq!((first.utilization, first.throttle_reasons.as_slice()), (None, &[][..]));
    // A quarter of the 2000 us since; average power cap, thermal limit, current limit.
    stub.says(&format!("{said}, 0.active_us 1500, 0.timestamp_us 7000, 0.throttle 0xd"));
    let second = card.telemetry(0).expect("telemetry");
    assert_eq!(second.utilization, Some(0.25));
    assert_eq!(second.throttle_reasons, ["power_cap", "thermal", "hardware"]);
    stub.says("0.card_uj 5, 0.memory_total 10, 0.memory_free 11");
    let none = card.telemetry(0).expect("telemetry");
    assert_eq!((none.temperature_c, none.core_clock_hz, none.power_limit_w), (None, None, None));
    assert_eq!((none.memory_used_bytes, none.utilization), (None, None), "more free than there is; a clock that fell");
    assert!(card.telemetry(1).is_none());
}

#[test]
fn every_refusal_names_what_is_missing_and_the_fix() {
    for (control, expected) in [
        ("init_rc 0x78000001", "libze-intel-gpu1"),
        ("devices 0", "ZE_AFFINITY_MASK"),
        ("drivers 0", "ZE_AFFINITY_MASK"),
        ("drivers_rc 0x70010000", "group `render`"),
        ("enum_rc 0x70010000", "group `render`"),
        ("0.energy_rc 0x78000003", "not supported (0x78000003)"),
        ("0.domains memory, 0.energy_uj 3", "lists no such counter"),
    ] {
        let error = LevelZero::new(control).open().expect_err(control).to_string();
        assert!(error.contains(expected), "{control}: {error}");
    }
    let error = level_zero::open(Some(Path::new("/nonexistent/libze_loader.so.1"))).expect_err("no library");
    assert!(matches!(error, Error::Library { .. }) && error.to_string().contains("libze1"), "{error}");
    let error = LevelZero::built_with(&["-DWITHOUT_COUNTER"], "").open().expect_err("half a library").to_string();
    assert!(error.contains("lacks zesPowerGetEnergyCounter"), "{error}");
}

#[test]
fn one_bad_card_does_not_hide_the_good_one() {
    let stub = LevelZero::new("devices 2, 0.energy_rc 0x70010000, 0.pci_rc 1, 0.properties_rc 1, 1.energy_uj 6");
    let found = stub.open().expect("one usable card");
    assert_eq!(found.sources.len(), 1);
    assert!(found.notes[0].contains("index-0") && found.notes[0].contains("permission denied"), "{:?}", found.notes);
}

/// The older way to Sysman needs the environment, which only a process with one thread may change: this one has many,
/// the program has one.
#[test]
fn loaders_without_zes_init_are_started_the_older_way_and_the_environment_is_left_as_it_was() {
    let control = "0.ramp_mw 200000, 0.refresh_ms 20, init_rc 0x78000003";
    for flags in [&["-DWITHOUT_ZES_INIT"][..], &[]] {
        let stub = LevelZero::built_with(flags, control);
        let error = stub.open().expect_err("several threads").to_string();
        assert!(error.contains("ZES_ENABLE_SYSMAN=1"), "{error}");
        let (desk, library) = (Desk::new(), stub.library());
        let library = library.to_str().expect("a path of text");
        let arguments = ["record", "--sources", "intel", "--level-zero-library", library, "--json", "--"];
        let command = ["sh", "-c", "echo ${ZES_ENABLE_SYSMAN-as it was}; sleep 0.5"];
        let ran = desk.run(&[&arguments[..], &command].concat()).done();
        assert_eq!(ran.stdout.trim(), "as it was");
        let json: serde_json::Value = serde_json::from_str(&ran.stderr).expect("JSON on stderr");
        assert_eq!(json["devices"][0]["device"], "intel:0000:29:00.0", "{json}");
        assert_eq!(stub.calls().iter().filter(|call| *call == "zeInit").count(), 1);
    }
}

#[test]
fn the_real_loader_without_a_driver_says_so() {
    let ran = Desk::new().run(&["doctor", "--sources", "intel", "--duration", "100ms"]).done();
    if ran.stdout.contains("could not be loaded") {
        eprintln!("SKIPPED: the real Level Zero loader is not installed; install libze1");
        ran.prints("libze1");
    } else if !ran.stdout.contains("by energy counter") {
        ran.prints("Level Zero found no GPU driver").prints("0x78000001");
    }
}
