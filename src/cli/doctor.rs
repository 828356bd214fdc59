//! `energylens doctor`: what this node can measure, how fresh each counter is, what reading it costs.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use energylens::agent::{Cadence, Recording, Sampler, SamplerOptions};
use energylens::clock::{Clock, SystemClock};
use serde_json::json;

use super::output::short;
use super::sources::SourceArguments;
use super::{Outcome, output};

/// Tell what this node can measure, how fresh each counter is and what reading it costs.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    sources: SourceArguments,
    /// How long to watch the counters.
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let detection = a.sources.detect();
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
    let clock = Arc::new(SystemClock);
    let options = SamplerOptions { cadence: Cadence::FixedRate { poll_hz: 1000.0 }, ..SamplerOptions::default() };
    let mut sampler = Sampler::new(detection.found, clock.clone(), options);
    let end_ns = clock.now().saturating_add(i64::try_from(a.duration.as_nanos()).unwrap_or(i64::MAX));
    sampler.run_until(end_ns, &mut |_| {});
    let (cost, watched) = (sampler.read_cost(), sampler.device_recordings());
    if a.json {
        return output::print_json(&json!({
            "findings": findings, "devices": devices, "watched": watched, "read_cost": cost,
        }))
        .map(|()| Outcome::Done);
    }
    let mut table =
        output::table(&["device", "name", "polls", "moved", "refresh", "shortest window for 1 %"], &[2, 3, 4, 5]);
    for (device, w) in devices.iter().zip(&watched) {
        let ms = |s: f64| format!("{} ms", short(1e3 * s));
        // One edge is uncertain by a refresh period, uniformly: 1/sqrt(12) of it at each end of the window.
        let window = w.refresh_period_s.map(|p| format!("{} s", short(p * (2.0_f64 / 12.0).sqrt() / 0.01)));
        table.add_row([
            device.id.clone(),
            device.name.clone(),
            w.polls.to_string(),
            w.edges.to_string(),
            w.refresh_period_s.map_or_else(|| "not learnt".to_owned(), ms),
            window.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    output::print(&format!(
        "\n{}\n\none read costs {} us (median), {} us (99 %)",
        table.trim_fmt(),
        short(cost.p50_read_ns as f64 / 1e3),
        short(cost.p99_read_ns as f64 / 1e3)
    ))?;
    Ok(Outcome::Done)
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
