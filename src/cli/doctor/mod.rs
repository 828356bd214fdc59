//! `energylens doctor`: what this node can measure, how fresh each counter is, what reading it costs.

mod environment;
mod words;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use energylens::agent::{
    Cadence, Examination, ReadCost, Recording, Sampler, SamplerOptions, Survey, Watch, examine, survey, thread_cpu_s,
    time_reads,
};
use energylens::clock::{Clock, SystemClock};
use energylens::dataset::interval::shortest_window_s;
use energylens::dataset::unwrap::{Edge, Unwrapper};
use energylens::source::CounterSource;
use serde::Serialize;
use serde_json::json;

use self::environment::Environment;
use super::output::short;
use super::sources::SourceArguments;
use super::{Outcome, output};

/// Reads of each device that show whether several can be read at once.
const ROUNDS: u32 = 100;

/// A watch that is longer than this says how far it is.
const SILENT: Duration = Duration::from_secs(2);

/// Tell what this node can measure, how fresh each counter is and what reading it costs.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:  energylens doctor --sources nvml --duration 5s\n\nTakes twice --duration: once at --poll-hz, once phase-locked."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    sources: SourceArguments,
    /// How long to watch the counters.
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How often to read them meanwhile, times a second.
    #[arg(long, default_value_t = 1000.0, value_parser = super::agent::parse_hz)]
    poll_hz: f64,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// What was seen of one device, and what it means.
#[derive(Debug, Serialize)]
struct Seen {
    device: String,
    name: String,
    is_counter: bool,
    watched_s: f64,
    polls: u64,
    edges: u64,
    errors: u64,
    last_error: Option<String>,
    read_cost: ReadCost,
    reported_power_w: Option<f64>,
    #[serde(flatten)]
    examination: Examination,
    /// Windows with 95 % intervals of that half width, by the formula that measures windows.
    shortest_window_1_percent_s: Option<f64>,
    shortest_window_5_percent_s: Option<f64>,
}

/// All that was found out.
#[derive(Debug, Serialize)]
struct Diagnosis {
    environment: Environment,
    poll_hz: f64,
    /// Processor time over time, of one core.
    fixed_cpu_share: f64,
    locked_cpu_share: f64,
    /// How late the polling thread woke.
    wake_late_p50_ns: u64,
    wake_late_p99_ns: u64,
    /// Seconds for the same reads of all sources one after the other, and all at once.
    reads_s: Option<(f64, f64)>,
    seen: Vec<Seen>,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let detection = a.sources.detect()?;
    let devices: Vec<_> = detection.devices().cloned().collect();
    if !a.json {
        for finding in &detection.report {
            output::print(&finding.to_string())?;
        }
    }
    let findings: Vec<String> = detection.report.iter().map(ToString::to_string).collect();
    if devices.is_empty() {
        if a.json {
            output::print_json(&json!({ "findings": findings, "devices": [] }))?;
        } else {
            output::print("\nnothing here can be measured; `energylens demo` shows the program on a simulated node")?;
        }
        return Ok(Outcome::Done);
    }
    let diagnosis = diagnose(detection.found, a);
    if a.json {
        let Diagnosis { environment, poll_hz, fixed_cpu_share, locked_cpu_share, reads_s, seen, .. } = &diagnosis;
        let (fine, fix) = words::sentences(&diagnosis);
        output::print_json(&json!({
            "findings": findings, "devices": devices, "fine": fine, "fix": fix, "watched": seen,
            "environment": environment, "poll_hz": poll_hz, "fixed_cpu_share": fixed_cpu_share,
            "locked_cpu_share": locked_cpu_share, "wake_late_p50_ns": diagnosis.wake_late_p50_ns,
            "wake_late_p99_ns": diagnosis.wake_late_p99_ns,
            "reads_in_turn_s": reads_s.map(|r| r.0), "reads_at_once_s": reads_s.map(|r| r.1),
        }))?;
    } else {
        output::print(&as_text(&diagnosis))?;
    }
    Ok(Outcome::Done)
}

fn diagnose(mut sources: Vec<Box<dyn CounterSource>>, a: &Arguments) -> Diagnosis {
    let clock = SystemClock;
    let duration_ns = i64::try_from(a.duration.as_nanos()).unwrap_or(i64::MAX);
    let is_shown = a.duration > SILENT && std::io::stderr().is_terminal();
    let show = |done: f64| {
        if is_shown {
            // A terminal that is gone is no reason to stop.
            let _ = write!(std::io::stderr(), "\rwatching the counters: {:3.0} %", 50.0 * done);
        }
    };
    let t_end_ns = clock.now().saturating_add(duration_ns);
    let found = survey(&mut sources, &clock, a.poll_hz, t_end_ns, &mut |done| {
        show(done);
        true
    });
    let reads_s = time_reads(&mut sources, &clock, ROUNDS);
    let options = SamplerOptions { cadence: Cadence::PhaseLocked { resolution_ns: 1_000_000 }, ..Default::default() };
    let mut sampler = Sampler::new(sources, Arc::new(clock), options);
    let (begin_ns, cpu_before_s) = (clock.now(), thread_cpu_s());
    for tenth in 1..=10_i64 {
        sampler.run_until(begin_ns.saturating_add(duration_ns / 10 * tenth), &mut |_| {});
        show(1.0 + tenth as f64 / 10.0);
    }
    let locked_s = (clock.now() - begin_ns) as f64 / 1e9;
    if is_shown {
        let _ = write!(std::io::stderr(), "\r{:40}\r", "");
    }
    let Survey { watches, duration_s, cpu_s, wake_late_ns } = found;
    Diagnosis {
        environment: Environment::look(|name| std::env::var(name).ok(), Path::new("/")),
        poll_hz: a.poll_hz,
        fixed_cpu_share: cpu_s / duration_s,
        locked_cpu_share: (thread_cpu_s() - cpu_before_s) / locked_s,
        wake_late_p50_ns: wake_late_ns.0,
        wake_late_p99_ns: wake_late_ns.1,
        reads_s,
        seen: watches.iter().map(|watch| seen(watch, duration_s)).collect(),
    }
}

fn seen(watch: &Watch, watched_s: f64) -> Seen {
    let examination = examine(watch);
    let edges = edges(watch);
    Seen {
        device: watch.device.id.clone(),
        name: watch.device.name.clone(),
        is_counter: !watch.movements.is_empty(),
        watched_s,
        polls: watch.polls,
        edges: examination.movements,
        errors: watch.errors,
        last_error: watch.last_error.clone(),
        read_cost: watch.read_cost,
        reported_power_w: watch.reported_power_w,
        examination,
        shortest_window_1_percent_s: shortest_window_s(&edges, 0.01),
        shortest_window_5_percent_s: shortest_window_s(&edges, 0.05),
    }
}

/// The movements as the reduction of a recording sees them; none if the counter broke off in between.
fn edges(watch: &Watch) -> Vec<Edge> {
    let mut unwrapper = Unwrapper::new(watch.device.counter_modulus_uj, watch.device.power_limit_w);
    let steps = watch.movements.iter().map(|m| unwrapper.push(m.counter_uj, m.t_latest_ns, m.t_earliest_ns).edge());
    let mut edges = Vec::new();
    for (edge, gap) in steps.flatten() {
        if gap.is_some() {
            return Vec::new();
        }
        edges.push(edge);
    }
    // The first is where the watch began, not a refresh.
    edges.drain(..edges.len().min(1));
    edges
}

fn as_text(d: &Diagnosis) -> String {
    let (fine, fix) = words::sentences(d);
    let mut text = format!("\n{}\n", fine.join("\n"));
    if !fix.is_empty() {
        text.push_str(&format!("\nTo look at:\n - {}\n", fix.join("\n - ")));
    }
    let mut table = output::table(
        &[
            "device",
            "name",
            "refresh ms",
            "jitter",
            "step uJ",
            "read us",
            "99 %",
            "W",
            "of power",
            "idle W",
            "1 %: s",
            "5 %: s",
        ],
        &[2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    );
    let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    for seen in &d.seen {
        let e = &seen.examination;
        let refresh = match e.refresh {
            Some(r) if r.is_faster_than_polled => format!("< {}", short(1e3 * r.period_s)),
            Some(r) => short(1e3 * r.period_s),
            None => "not learnt".to_owned(),
        };
        table.add_row([
            seen.device.clone(),
            seen.name.clone(),
            refresh,
            figure(e.refresh.map(|r| 1e3 * r.jitter_s)),
            figure(e.resolution_uj.map(|uj| uj as f64)),
            short(seen.read_cost.p50_read_ns as f64 / 1e3),
            short(seen.read_cost.p99_read_ns as f64 / 1e3),
            figure(e.counter_power_w.or(seen.reported_power_w)),
            e.ratio.map_or_else(|| "-".to_owned(), |r| format!("{:.1} %", 100.0 * r)),
            figure(e.idle_power_w),
            figure(seen.shortest_window_1_percent_s),
            figure(seen.shortest_window_5_percent_s),
        ]);
    }
    text.push_str(&format!(
        "\n{}\n\nrefresh, jitter: mean and standard deviation; step: unit of the counter; W: from the counter, and as a \
         share of the power reading;\nidle W: lowest second of this watch; 1 %, 5 %: shortest window for a 95 % interval \
         that wide",
        table.trim_fmt()
    ));
    text
}

/// One line on what a recording saw, for people.
pub(crate) fn summary(recording: &Recording) -> String {
    let paused = match recording.pauses.count {
        0 => String::new(),
        1 => format!(", 1 pause of {} s for want of a disk", short(recording.pauses.total_s)),
        n => format!(", {n} pauses of {} s together for want of a disk", short(recording.pauses.total_s)),
    };
    let lost = if recording.lost_rows == 0 { "none lost".to_owned() } else { format!("{} LOST", recording.lost_rows) };
    // Under virtual time a read costs nothing, and saying so would mean nothing.
    let cost = recording.sampler_cpu_s.map_or_else(String::new, |cpu_s| {
        format!(" of {} us, {} s of processor time", short(recording.read_cost.mean_read_ns / 1e3), short(cpu_s))
    });
    let line = format!(
        "{} counter edges in {} rows, {lost}{paused}; {} polls{cost}",
        recording.edges, recording.rows, recording.polls
    );
    std::iter::once(line).chain(remarks(recording)).collect::<Vec<_>>().join("\n")
}

/// What was out of the ordinary in a recording, a line each.
fn remarks(recording: &Recording) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(back_off) = recording.backed_off {
        remarks.push(format!(
            "backed off {} times to keep to --max-cpu; polls ended {} ms apart where they are dense",
            back_off.back_offs,
            short(back_off.step_ns as f64 / 1e6)
        ));
    }
    for device in &recording.devices {
        if let Some(since_ns) = device.stuck_since_mono_ns {
            let seconds = short((recording.t_end_mono_ns - since_ns) as f64 / 1e9);
            remarks.push(format!("{} has hung in its driver for the last {seconds} s", device.device));
        }
    }
    remarks
}
