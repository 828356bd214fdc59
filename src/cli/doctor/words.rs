//! What `doctor` found, in sentences: first what is fine, then what to fix.

use energylens::agent::{Agreement, Fault};
use energylens::dataset::quality::MIN_EDGES_INSIDE;

use super::{Diagnosis, Seen};
use crate::cli::output::short;

/// A thread that wakes later than this blurs every edge.
const LATE_NS: u64 = 1_000_000;

/// Everything worth a sentence.
pub(super) fn sentences(d: &Diagnosis) -> (Vec<String>, Vec<String>) {
    let (mut fine, mut fix) = (vec![d.environment.sentence()], Vec::new());
    let counters: Vec<&Seen> = d.seen.iter().filter(|s| s.is_counter).collect();
    let healthy = counters.iter().filter(|s| s.examination.faults.is_empty() && s.edges > 0).count();
    match (counters.len(), healthy) {
        (0, _) => {
            fix.push("No device has an energy counter: joules come from power readings, several per cent off.".into())
        }
        (1, 1) => fine.push("The one energy counter moves.".into()),
        (all, healthy) if all == healthy => fine.push(format!("All {all} energy counters move.")),
        (all, healthy) => fine.push(format!("{healthy} of {all} energy counters are in order.")),
    }
    let slowest = counters.iter().filter_map(|s| s.examination.refresh).map(|r| r.period_s).max_by(f64::total_cmp);
    let longest = |of: fn(&Seen) -> Option<f64>| counters.iter().filter_map(|s| of(s)).max_by(f64::total_cmp);
    if let (Some(period_s), Some(one), Some(five)) =
        (slowest, longest(|s| s.shortest_window_1_percent_s), longest(|s| s.shortest_window_5_percent_s))
    {
        fine.push(format!(
            "The slowest counter refreshes every {} ms. With power as it was just now, windows of {} s are good for \
             1 % on every device and windows of {} s for 5 % (95 % intervals); none may hold fewer than {MIN_EDGES_INSIDE} \
             refreshes. Work that starts or ends unevenly needs longer ones.",
            short(1e3 * period_s),
            short(one),
            short(five)
        ));
    }
    fine.push(format!(
        "Polling everything {} times a second takes {} % of one core, phase-locked polling {} %.",
        short(d.poll_hz),
        short(100.0 * d.fixed_cpu_share),
        short(100.0 * d.locked_cpu_share)
    ));
    if let Some((in_turn_s, at_once_s)) = d.reads_s {
        let share = at_once_s / in_turn_s;
        fine.push(if share < 0.8 {
            format!(
                "Reading all sources at once takes {} of the time of reading them in turn: drivers allow it.",
                short(share)
            )
        } else {
            "Reading all sources at once is no faster than in turn: a driver lock, or too few processors.".into()
        });
    }
    if d.wake_late_p99_ns > LATE_NS {
        fix.push(format!(
            "Threads wake up to {} ms late here (99 %; median {} ms), and edges are that much less sharp. Is the node \
             oversubscribed? `agent --pin-cpu` or `--realtime` help.",
            short(d.wake_late_p99_ns as f64 / 1e6),
            short(d.wake_late_p50_ns as f64 / 1e6)
        ));
    }
    for seen in &d.seen {
        fix.extend(seen.examination.faults.iter().map(|fault| describe(seen, *fault)));
        fix.extend(disagreement(seen));
        if seen.is_counter && seen.edges == 0 && seen.examination.faults.is_empty() {
            fix.push(format!(
                "{}: the counter did not move, and the device reports 0 W: it sleeps, or reports nothing.",
                seen.device
            ));
        }
    }
    (fine, fix)
}

fn describe(seen: &Seen, fault: Fault) -> String {
    let id = &seen.device;
    match fault {
        Fault::Frozen => format!(
            "{id}: the counter did not move in {} s. An idle GPU without persistence mode may stop its driver \
             (`nvidia-smi -pm 1`); else the driver has stopped counting, and a reload or an update is due.",
            short(seen.watched_s)
        ),
        Fault::Backward => format!(
            "{id}: the counter went backwards. Windows across such a step get no joules; look for another program that \
             reads the same handle, and for a driver update."
        ),
        Fault::Failing => format!(
            "{id}: {} of {} reads failed, the last with: {}.",
            seen.errors,
            seen.polls,
            seen.last_error.as_deref().unwrap_or("no words")
        ),
    }
}

fn disagreement(seen: &Seen) -> Option<String> {
    let (id, e) = (&seen.device, &seen.examination);
    let (counter_w, reported_w) = (e.counter_power_w?, seen.reported_power_w?);
    let figures = format!("the counter says {} W, the power reading {} W", short(counter_w), short(reported_w));
    match e.agreement? {
        Agreement::Agrees => None,
        Agreement::Differs => Some(format!(
            "{id}: {figures}. Power readings are averaged over up to a second, so a changing load explains this; on a \
             steady one, mistrust the power reading and repeat with --duration 30s."
        )),
        Agreement::Broken => {
            Some(format!("{id}: {figures}. One of them is broken; compare with a meter before using either."))
        }
    }
}
