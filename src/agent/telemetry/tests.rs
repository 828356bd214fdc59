//! Telemetry against a source that needs time for an answer.

use super::*;
use crate::agent::ring::ring;
use crate::clock::SimClock;
use crate::schema::EnergySource;
use crate::source::{Device, ReadError, Reading, Scope, Telemetry};

const MS: i64 = 1_000_000;

/// Answers after a while; its first `dumb` devices tell nothing.
struct Slow {
    devices: Vec<Device>,
    clock: SimClock,
    takes_ns: i64,
    dumb: usize,
    asked: Vec<(usize, i64)>,
}

impl Slow {
    fn new(count: usize, dumb: usize, takes_ns: i64, clock: &SimClock) -> Self {
        let device = |i| Device {
            id: format!("slow:{i}"),
            name: "slow".to_owned(),
            scope: Scope::Gpu,
            energy_source: EnergySource::Counter,
            counter_modulus_uj: None,
            counter_step_uj: None,
            power_limit_w: None,
            memory_bytes: None,
        };
        Self { devices: (0..count).map(device).collect(), clock: clock.clone(), takes_ns, dumb, asked: Vec::new() }
    }
}

impl CounterSource for Slow {
    fn devices(&self) -> &[Device] {
        &self.devices
    }

    fn read(&mut self, _: usize) -> Result<Reading, ReadError> {
        Ok(Reading::default())
    }

    fn telemetry(&mut self, index: usize) -> Option<Telemetry> {
        self.asked.push((index, self.clock.now()));
        self.clock.sleep_until(self.clock.now() + self.takes_ns);
        let told = Telemetry { temperature_c: Some(60.0), throttle_reasons: vec!["thermal"], ..Telemetry::default() };
        (index >= self.dumb).then_some(told)
    }
}

/// Polls every `gap_ns` for `until_ns` and gives the rows that came, with the instants at which polls began late.
fn polled(source: &mut Slow, gap_ns: i64, until_ns: i64) -> (Vec<TelemetryRow>, TelemetryCost, u64) {
    let clock = source.clock.clone();
    let (sink, rows) = ring(10_000);
    let mut reader = TelemetryReader::new(source, 1_000 * MS, 0, Arc::new(sink));
    let (mut next, mut late) = (gap_ns, 0);
    while next <= until_ns {
        reader.use_gap(source, &InFlight::idle(), &clock, next);
        late += u64::from(clock.now() > next);
        clock.sleep_until(next);
        next += gap_ns;
    }
    (std::iter::from_fn(|| rows.try_pop()).collect(), reader.cost(), late)
}

#[test]
fn each_device_is_asked_once_a_second_and_never_two_in_one_gap() {
    let clock = SimClock::starting_at(0);
    let mut source = Slow::new(4, 0, 300_000, &clock);
    let (rows, cost, late) = polled(&mut source, MS, 10_000 * MS);
    // Instants 0, 1, ..., 9 s and, of device 0 alone, none at 10 s, where the last gap has ended.
    assert_eq!((rows.len(), cost.reads, cost.skipped, late), (40, 40, 0, 0));
    assert!((cost.total_read_s - 0.012).abs() < 1e-9, "{}", cost.total_read_s);
    for device in 0..4 {
        let asked: Vec<i64> = source.asked.iter().filter(|(d, _)| *d == device).map(|(_, t)| *t / MS).collect();
        assert_eq!(asked, (0..10).map(|s| s * 1_000 + 250 * device as i64).collect::<Vec<_>>());
    }
    assert_eq!((&*rows[0].device, rows[0].temperature_c), ("slow:0", Some(60.0)));
    assert_eq!(rows[0].throttle_reasons, ["thermal"]);
}

#[test]
fn a_read_that_does_not_fit_between_polls_is_skipped_and_counted_after_it_is_known() {
    let clock = SimClock::starting_at(0);
    let mut source = Slow::new(1, 0, 3 * MS, &clock);
    let (rows, cost, late) = polled(&mut source, MS, 150_000 * MS);
    // The first makes a poll late: nobody could know. Expected is then 3 ms less 1/64 each second; half of a gap of
    // 1 ms is enough again after 114 seconds: 3 * (63/64)^114 = 0.498 <= 0.5.
    assert_eq!(late, 4, "3 ms are two polls of 1 ms that begin late, twice");
    assert_eq!((rows.len(), cost.reads), (2, 2));
    assert_eq!(source.asked[1].1 / (1_000 * MS), 115);
    assert!((146..=148).contains(&cost.skipped), "{}", cost.skipped);
    // With polls 10 ms apart there is always room.
    let mut source = Slow::new(1, 0, 3 * MS, &SimClock::starting_at(0));
    let (rows, cost, late) = polled(&mut source, 10 * MS, 20_000 * MS);
    assert_eq!((rows.len(), cost.skipped, late), (20, 0, 0));
}

#[test]
fn a_device_that_tells_nothing_is_asked_ever_more_rarely_and_holds_up_no_other() {
    let clock = SimClock::starting_at(0);
    let mut source = Slow::new(2, 1, 100_000, &clock);
    let (rows, _, _) = polled(&mut source, MS, 300_000 * MS);
    assert_eq!(rows.len(), 300);
    // Asked at 0, then after 2, 4, 8, ..., 64 periods: 0, 2, 6, 14, 30, 62, 126, 190, 254 s.
    let asked: Vec<i64> = source.asked.iter().filter(|(d, _)| *d == 0).map(|(_, t)| *t / (1_000 * MS)).collect();
    assert_eq!(asked, [0, 2, 6, 14, 30, 62, 126, 190, 254]);
}
