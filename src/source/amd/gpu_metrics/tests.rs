use proptest::prelude::*;

use super::*;

/// A file as the kernel writes it: the header, then fields at their offsets, and sensors that are not there elsewhere.
fn file(size: u16, major: u8, minor: u8, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0xff; usize::from(size)];
    bytes[..2].copy_from_slice(&size.to_le_bytes());
    bytes[2] = major;
    bytes[3] = minor;
    for (at, value) in fields {
        bytes[*at..*at + value.len()].copy_from_slice(value);
    }
    bytes
}

/// Offsets and sizes counted once more, from the kernel's structs, independent of the table above: (revision, size,
/// energy, timestamp, power, hot spot, activity).
const STRUCTS: [(u8, u16, usize, usize, usize, usize, usize); 8] = [
    // v1_1 to v1_3: six temperatures, three activities, power, energy, clock counter.
    (1, 96, 24, 32, 22, 6, 16),
    (2, 104, 24, 32, 22, 6, 16),
    (3, 120, 24, 32, 22, 6, 16),
    // v1_4: three temperatures, power, two activities, four of video engines.
    (4, 288, 24, 32, 10, 4, 12),
    // v1_5: 32 JPEG engines more.
    (5, 360, 88, 96, 10, 4, 12),
    // v1_6 final: no engines.
    (6, 1664, 16, 24, 10, 4, 12),
    // v1_7, v1_8: memory bandwidth in front of the energy.
    (7, 2200, 24, 32, 10, 4, 12),
    (8, 3000, 24, 32, 10, 4, 12),
];

#[test]
fn each_revision_of_the_first_format_is_read_at_its_own_offsets() {
    for (minor, size, energy, timestamp, power, hot, activity) in STRUCTS {
        let bytes = file(
            size,
            1,
            minor,
            &[
                (energy, &0x0102_0304_0506_0708_u64.to_le_bytes()),
                (timestamp, &1_234_567_890_123_u64.to_le_bytes()),
                (power, &700_u16.to_le_bytes()),
                (hot, &61_u16.to_le_bytes()),
                (activity, &50_u16.to_le_bytes()),
            ],
        );
        let metrics = parse(&bytes).unwrap_or_else(|e| panic!("1.{minor} {e}"));
        assert_eq!(metrics.version, (1, minor));
        assert_eq!(metrics.energy_counts, Some(0x0102_0304_0506_0708), "1.{minor}");
        assert_eq!(metrics.timestamp_ns, Some(1_234_567_890_123), "1.{minor}");
        assert_eq!((metrics.power_w, metrics.temperature_c), (Some(700.0), Some(61.0)), "1.{minor}");
        assert_eq!(metrics.utilization, Some(0.5), "1.{minor}");
    }
}

#[test]
fn the_oldest_revision_counts_in_thirty_two_bits_behind_padding() {
    let bytes = file(
        80,
        1,
        0,
        &[(36, &77_u32.to_le_bytes()), (8, &5_000_u64.to_le_bytes()), (34, &250_u16.to_le_bytes()), (16, &[40, 0])],
    );
    let metrics = parse(&bytes).expect("1.0");
    assert_eq!((metrics.energy_counts, metrics.timestamp_ns), (Some(77), Some(5_000)));
    // The hot spot is not there: the edge is.
    assert_eq!((metrics.power_w, metrics.temperature_c), (Some(250.0), Some(40.0)));
}

#[test]
fn the_development_kernels_revision_six_is_told_by_its_size() {
    let fields: &[(usize, &[u8])] = &[(88, &9_u64.to_le_bytes()), (96, &10_u64.to_le_bytes()), (16, &[0; 8])];
    assert_eq!(parse(&file(384, 1, 6, fields)).expect("early 1.6").energy_counts, Some(9));
    assert_eq!(parse(&file(1664, 1, 6, fields)).expect("1.6").energy_counts, Some(0));
}

#[test]
fn clocks_are_hertz() {
    let bytes = file(120, 1, 3, &[(54, &1700_u16.to_le_bytes()), (58, &1600_u16.to_le_bytes())]);
    let metrics = parse(&bytes).expect("1.3");
    assert_eq!((metrics.core_clock_hz, metrics.memory_clock_hz), (Some(1.7e9), Some(1.6e9)));
    let bytes = file(288, 1, 4, &[(240, &2100_u16.to_le_bytes()), (280, &1300_u16.to_le_bytes())]);
    let metrics = parse(&bytes).expect("1.4");
    assert_eq!((metrics.core_clock_hz, metrics.memory_clock_hz), (Some(2.1e9), Some(1.3e9)));
}

#[test]
fn ones_everywhere_mean_no_sensor() {
    let metrics = parse(&file(120, 1, 3, &[])).expect("1.3");
    assert_eq!(metrics, GpuMetrics { version: (1, 3), ..GpuMetrics::default() });
    // What newer kernels show for cards whose firmware stopped counting: UINT_MAX in a field of 64 bits.
    let bytes = file(120, 1, 3, &[(24, &u64::from(u32::MAX).to_le_bytes())]);
    assert_eq!(parse(&bytes).expect("1.3").energy_counts, None);
}

#[test]
fn what_cannot_be_read_says_why() {
    for (bytes, expected) in [
        (vec![], "has 0 bytes: expected 4"),
        (vec![120, 0, 1], "has 3 bytes: expected 4"),
        (file(120, 1, 3, &[])[..60].to_vec(), "has 60 bytes: expected 120 for format 1.3"),
        // It says that it is complete, and is not.
        (file(30, 1, 3, &[]), "has 30 bytes: expected 40 for format 1.3"),
        (file(160, 2, 4, &[]), "which has no energy counter"),
        (file(264, 3, 0, &[]), "which has no energy counter"),
        (file(400, 1, 10, &[]), "is of format 1.10: expected 1.0 to 1.9"),
        (file(400, 77, 0, &[]), "is of format 77.0"),
    ] {
        let error = parse(&bytes).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn throttling_has_words() {
    for (status, words) in [
        (0, vec![]),
        (1 << 2, vec!["power_cap"]),
        (1 << 17, vec!["current_limit"]),
        (1 << 36 | 1 << 56, vec!["thermal"]),
        (1 << 59 | 1, vec!["power_cap", "hardware"]),
    ] {
        assert_eq!(Throttle::Status(status).words(None), words, "{status:#x}");
    }
    let before = Throttle::Residency([1, 10, 100, 0, 0]);
    assert_eq!(Throttle::Residency([1, 11, 100, 0, 4]).words(Some(before)), ["power_cap", "thermal"]);
    // The first look at a counter says nothing of now.
    assert!(before.words(None).is_empty());
    let bytes = file(1664, 1, 6, &[(36, &[0; 20])]);
    assert_eq!(parse(&bytes).expect("1.6").throttle, Some(Throttle::Residency([0; 5])));
    let bytes = file(120, 1, 3, &[(112, &4_u64.to_le_bytes())]);
    assert_eq!(parse(&bytes).expect("1.3").throttle, Some(Throttle::Status(4)));
}

proptest! {
    #[test]
    fn no_bytes_at_all_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn nor_do_bytes_behind_a_plausible_header(
        minor in 0_u8..10, claimed in 0_u16..600, mut bytes in prop::collection::vec(any::<u8>(), 4..600),
    ) {
        bytes[..2].copy_from_slice(&claimed.to_le_bytes());
        bytes[2] = 1;
        bytes[3] = minor;
        if let Ok(metrics) = parse(&bytes) {
            prop_assert!(metrics.utilization.is_none_or(|u| (0.0..=1.0).contains(&u)));
            prop_assert!(metrics.power_w.is_none_or(|w| (0.0..65_535.0).contains(&w)));
        }
    }
}
