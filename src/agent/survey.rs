//! Watching every counter closely for a moment: what `doctor` tells of a node.
//!
//! [`survey`] polls all devices at a fixed rate from one thread and keeps what moved; [`examine`](fn@super::examine) says
//! what that means. [`time_reads`] asks whether several sources can be read at the same time.

use std::sync::Barrier;

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use super::recording::{ReadCost, read_histogram};
use crate::clock::Clock;
use crate::source::{CounterSource, Device, ReadError, Reading};
use crate::units::{NS_PER_S, ns_to_s};

/// A counter as it stood when it had moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Movement {
    /// Last poll that still saw the value before.
    pub t_earliest_ns: i64,
    /// First poll that saw this value.
    pub t_latest_ns: i64,
    /// The counter, µJ.
    pub counter_uj: u64,
}

/// What was seen of one device.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The device.
    pub device: Device,
    /// The first reading of the counter, then every movement.
    pub movements: Vec<Movement>,
    /// Reads.
    pub polls: u64,
    /// Reads that gave nothing.
    pub errors: u64,
    /// The last of them, in words.
    pub last_error: Option<String>,
    /// What a read cost.
    pub read_cost: ReadCost,
    /// Mean of the reported power over the watch, W.
    pub reported_power_w: Option<f64>,
    /// Changes of the reported power.
    pub power_changes: u64,
}

/// What was seen of a node.
#[derive(Debug, Clone)]
pub struct Survey {
    /// Device by device.
    pub watches: Vec<Watch>,
    /// How long it took, s.
    pub duration_s: f64,
    /// Processor time of the polling thread, s.
    pub cpu_s: f64,
    /// How late the thread woke: median and 99th percentile, ns.
    pub wake_late_ns: (u64, u64),
}

struct Watching {
    watch: Watch,
    source: usize,
    index: usize,
    still_at_ns: i64,
    power: Option<(i64, f64)>,
    power_sum: (f64, f64),
    read_ns: Histogram<u64>,
    gone: bool,
}

/// Polls every device `poll_hz` times a second until `clock` shows `t_end_ns`. `progress` is called about ten times a
/// second with the share that is done; when it says `false`, the survey ends early.
pub fn survey(
    sources: &mut [Box<dyn CounterSource>],
    clock: &dyn Clock,
    poll_hz: f64,
    t_end_ns: i64,
    progress: &mut dyn FnMut(f64) -> bool,
) -> Survey {
    let begin_ns = clock.now();
    let step_ns = ((NS_PER_S / poll_hz.clamp(0.1, 100_000.0)) as i64).max(1);
    let mut all: Vec<Watching> = sources
        .iter()
        .enumerate()
        .flat_map(|(source, s)| s.devices().iter().cloned().enumerate().map(move |(i, d)| (source, i, d)))
        .map(|(source, index, device)| Watching::new(source, index, device))
        .collect();
    let mut late = read_histogram();
    let cpu_before_s = thread_cpu_s();
    let (mut due_ns, mut next_progress_ns) = (begin_ns, begin_ns);
    while due_ns <= t_end_ns {
        clock.sleep_until(due_ns);
        let mut now_ns = clock.now();
        late.saturating_record(u64::try_from(now_ns - due_ns).unwrap_or(0).max(1));
        for watching in all.iter_mut().filter(|w| !w.gone) {
            let Some(source) = sources.get_mut(watching.source) else { continue };
            let reading = source.read(watching.index);
            let after_ns = clock.now();
            watching.take(reading, now_ns, after_ns);
            now_ns = after_ns;
        }
        if now_ns >= next_progress_ns {
            next_progress_ns = now_ns + 100_000_000;
            let share = (now_ns - begin_ns) as f64 / (t_end_ns - begin_ns).max(1) as f64;
            if !progress(share.min(1.0)) {
                break;
            }
        }
        // Instants that have passed are skipped, not made up for.
        due_ns += ((now_ns - due_ns) / step_ns + 1) * step_ns;
    }
    Survey {
        watches: all.into_iter().map(Watching::finish).collect(),
        duration_s: ns_to_s(clock.now() - begin_ns),
        cpu_s: thread_cpu_s() - cpu_before_s,
        wake_late_ns: (late.value_at_quantile(0.5), late.value_at_quantile(0.99)),
    }
}

impl Watching {
    fn new(source: usize, index: usize, device: Device) -> Self {
        let watch = Watch {
            device,
            movements: Vec::new(),
            polls: 0,
            errors: 0,
            last_error: None,
            read_cost: ReadCost::default(),
            reported_power_w: None,
            power_changes: 0,
        };
        let power_sum = (0.0, 0.0);
        Self { watch, source, index, still_at_ns: 0, power: None, power_sum, read_ns: read_histogram(), gone: false }
    }

    fn take(&mut self, reading: Result<Reading, ReadError>, before_ns: i64, after_ns: i64) {
        self.watch.polls += 1;
        self.read_ns.saturating_record(u64::try_from(after_ns - before_ns).unwrap_or(0).max(1));
        let reading = match reading {
            Ok(reading) => reading,
            Err(error) => {
                self.watch.errors += 1;
                self.gone = !matches!(error, ReadError::Transient(_));
                self.watch.last_error = Some(error.to_string());
                return;
            }
        };
        if let Some(counter_uj) = reading.energy_counter_uj {
            let last = self.watch.movements.last();
            if last.is_none_or(|last| last.counter_uj != counter_uj) {
                let t_earliest_ns = if last.is_some() { self.still_at_ns } else { before_ns };
                self.watch.movements.push(Movement { t_earliest_ns, t_latest_ns: after_ns, counter_uj });
            }
            self.still_at_ns = before_ns;
        }
        if let Some(power_w) = reading.power_w.filter(|w| w.is_finite())
            && let Some((t_ns, last_w)) = self.power.replace((after_ns, power_w))
        {
            self.power_sum.0 += last_w * ns_to_s(after_ns - t_ns);
            self.power_sum.1 += ns_to_s(after_ns - t_ns);
            self.watch.power_changes += u64::from(last_w != power_w);
        }
    }

    fn finish(mut self) -> Watch {
        self.watch.read_cost = ReadCost::from_ns(&self.read_ns);
        let (joules, seconds) = self.power_sum;
        self.watch.reported_power_w = (seconds > 0.0).then(|| joules / seconds).or(self.power.map(|(_, w)| w));
        self.watch
    }
}

/// Processor time of the calling thread, s.
pub fn thread_cpu_s() -> f64 {
    let cpu = clock_gettime(ClockId::ThreadCPUTime);
    cpu.tv_sec as f64 + cpu.tv_nsec as f64 / NS_PER_S
}

/// How long all sources take for `rounds` reads of each device: one source after the other, and all at the same time,
/// each on a thread of its own. Seconds; `None` for fewer than two sources, of which nothing can be learnt.
pub fn time_reads(sources: &mut [Box<dyn CounterSource>], clock: &dyn Clock, rounds: u32) -> Option<(f64, f64)> {
    if sources.len() < 2 {
        return None;
    }
    let read = |source: &mut Box<dyn CounterSource>| {
        for _ in 0..rounds {
            (0..source.devices().len()).for_each(|index| drop(source.read(index)));
        }
    };
    let begin_ns = clock.now();
    sources.iter_mut().for_each(read);
    let in_turn_s = ns_to_s(clock.now() - begin_ns);
    // Starting threads takes longer than reading: they all start reading at the same instant.
    let barrier = Barrier::new(sources.len());
    let barrier = &barrier;
    let spans: Vec<(i64, i64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = sources
            .iter_mut()
            .map(|source| {
                scope.spawn(move || {
                    barrier.wait();
                    let begin_ns = clock.now();
                    read(source);
                    (begin_ns, clock.now())
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let begin_ns = spans.iter().map(|(begin, _)| *begin).min()?;
    let end_ns = spans.iter().map(|(_, end)| *end).max()?;
    Some((in_turn_s, ns_to_s(end_ns - begin_ns)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::agent::tests::fake::{counter, fake};
    use crate::agent::{Agreement, examine};
    use crate::clock::SimClock;

    const S: i64 = 1_000_000_000;

    /// Two counters that rise by a joule every 20 ms, give or take 3 %: 50 W. The power reading says 300 W.
    fn two() -> (Vec<Box<dyn CounterSource>>, Arc<dyn Clock>) {
        let clock: Arc<dyn Clock> = Arc::new(SimClock::starting_at(0));
        let devices = vec![counter(1, 20, 0.03, 4 * S), counter(2, 20, 0.03, 4 * S)];
        (fake(&clock, devices).0, clock)
    }

    #[test]
    fn counters_are_surveyed_as_they_are() {
        let (mut sources, clock) = two();
        let mut shares = Vec::new();
        let seen = survey(&mut sources, clock.as_ref(), 1_000.0, 3 * S, &mut |share| {
            shares.push(share);
            true
        });
        assert_eq!(seen.watches.len(), 2);
        for watch in &seen.watches {
            let e = examine(watch);
            assert_eq!((watch.polls, watch.errors, &e.faults[..]), (3_001, 0, &[][..]));
            let refresh = e.refresh.expect("150 movements");
            // Uniform within 3 % of 20 ms: a deviation of 0.6 ms / sqrt(3) = 0.35 ms.
            assert!((refresh.period_s / 0.02 - 1.0).abs() < 0.01, "{refresh:?}");
            assert!((0.2e-3..0.5e-3).contains(&refresh.jitter_s), "{refresh:?}");
            assert_eq!(e.resolution_uj, Some(1_000_000), "it counts joules");
            assert!((e.counter_power_w.expect("it moved") - 50.0).abs() < 0.5, "{:?}", e.counter_power_w);
            assert!((e.idle_power_w.expect("three seconds") - 50.0).abs() < 1.5, "{:?}", e.idle_power_w);
            assert_eq!(e.agreement, Some(Agreement::Differs), "50 W and 300 W");
            assert!(watch.reported_power_w.is_some_and(|w| (w - 300.0).abs() < 1e-6), "{:?}", watch.reported_power_w);
        }
        assert!(shares.len() >= 25 && shares.windows(2).all(|w| w[0] <= w[1]), "{shares:?}");
    }

    #[test]
    fn a_survey_ends_when_nobody_wants_more_and_one_source_is_not_raced() {
        let (mut sources, clock) = two();
        let seen = survey(&mut sources, clock.as_ref(), 100.0, 3 * S, &mut |share| share < 0.3);
        assert!(seen.watches[0].polls < 150, "{}", seen.watches[0].polls);
        assert_eq!(time_reads(&mut sources, clock.as_ref(), 3), None);
        sources.append(&mut two().0);
        assert!(time_reads(&mut sources, clock.as_ref(), 3).is_some());
    }
}
