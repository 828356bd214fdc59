//! `energylens agent`: record until stopped.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use energylens::agent::{Cadence, Notices, Recorder, RecorderOptions, SamplerOptions, Standing};
use energylens::clock::SystemClock;
use energylens::store::{Campaign, Recovered, RecoveredAs};

use super::keeping::KeepingArguments;
use super::service::{self, Service, ServiceArguments};
use super::sources::SourceArguments;
use super::{Outcome, doctor, output, signals};

/// Record every energy counter of this node until stopped.
#[derive(Debug, Args)]
#[command(after_help = "Example:  energylens agent -o recording --duration 60s")]
pub(crate) struct Arguments {
    /// The campaign directory to write to; an interrupted recording in it is recovered first.
    #[arg(short, long)]
    output: PathBuf,
    #[command(flatten)]
    sources: SourceArguments,
    #[command(flatten)]
    cadence: CadenceArguments,
    #[command(flatten)]
    keeping: KeepingArguments,
    #[command(flatten)]
    service: ServiceArguments,
    /// Stop after this long; until SIGTERM or SIGINT without it. SIGHUP seals the segment and begins the next.
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// How often counters are polled.
#[derive(Debug, Args)]
pub(crate) struct CadenceArguments {
    /// Poll at this fixed rate instead of around the expected edges.
    #[arg(long, conflicts_with = "resolution", value_parser = parse_hz)]
    poll_hz: Option<f64>,
    /// How sharply the edges of counters are seen.
    #[arg(long, default_value = "1ms", value_parser = parse_resolution)]
    resolution: Duration,
    /// Poll less, and say so, where sampling would use more of one core than this: `1%` or `0.01`.
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    max_cpu: Option<f64>,
    /// Sample with real-time priority (SCHED_FIFO), before all ordinary processes; 1, the lowest, if no number is given.
    #[arg(long, value_name = "PRIORITY", num_args = 0..=1, require_equals = true, default_missing_value = "1",
          value_parser = clap::value_parser!(u8).range(1..=99))]
    realtime: Option<u8>,
    /// Sample on this processor only.
    #[arg(long, value_name = "N")]
    pin_cpu: Option<usize>,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |percent| (percent, 0.01));
    match number.trim().parse::<f64>() {
        // From what one wake-up a second costs to a whole core per device of a large node.
        Ok(share) if (1e-5..=64.0).contains(&(share * scale)) => Ok(share * scale),
        _ => Err(format!("`{text}` is no share of a core; expected `0.001%` to `6400%`, or the same as a number")),
    }
}

pub(crate) fn parse_hz(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(hz) if (0.01..=100_000.0).contains(&hz) => Ok(hz),
        _ => Err(format!("`{text}` is no rate; expected polls per second between 0.01 and 100000")),
    }
}

fn parse_resolution(text: &str) -> Result<Duration, String> {
    let resolution = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    let range = Duration::from_micros(10)..=Duration::from_secs(1);
    if range.contains(&resolution) {
        Ok(resolution)
    } else {
        Err(format!("`{text}` is out of range; expected 10us to 1s"))
    }
}

impl CadenceArguments {
    pub(crate) fn sampler(&self) -> SamplerOptions {
        let resolution_ns = i64::try_from(self.resolution.as_nanos()).unwrap_or(i64::MAX);
        let cadence = match self.poll_hz {
            Some(poll_hz) => Cadence::FixedRate { poll_hz },
            None => Cadence::PhaseLocked { resolution_ns },
        };
        SamplerOptions { cadence, max_cpu_share: self.max_cpu, ..SamplerOptions::default() }
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing { realtime_priority: self.realtime, pin_cpu: self.pin_cpu }
    }
}

/// Says on stderr what a recording has to tell, which systemd hands to the journal.
pub(crate) fn say(notices: &Notices) {
    notices.take().iter().for_each(|notice| output::say(&format!("note: {notice}")));
}

/// What became of a recording that was interrupted, in a line.
pub(crate) fn describe(recovered: &Recovered) -> String {
    let shown = |path: &std::path::Path| output::one_line(&path.display().to_string());
    let spool = shown(&recovered.spool);
    match &recovered.outcome {
        RecoveredAs::Sealed { path, rows, torn } => {
            let torn = if *torn { "; the batch being written when it broke off is lost" } else { "" };
            format!("recovered {rows} rows of an interrupted recording into {}{torn}", shown(path))
        }
        RecoveredAs::AlreadySealed => format!("removed {spool}, which had been sealed already"),
        RecoveredAs::Empty => format!("removed {spool}, which held nothing"),
        RecoveredAs::Live => format!("left {spool} alone: its writer is alive"),
        RecoveredAs::Refused(reason) => format!("left {spool} alone: {}", output::one_line(reason)),
    }
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let keeping = a.keeping.keeping()?;
    let campaign = Campaign::create_or_open(&a.output)?;
    let _lock = campaign.lock()?;
    for recovered in campaign.recover()? {
        output::say(&describe(&recovered));
    }
    let detection = a.sources.require()?;
    let mut options = RecorderOptions {
        keeping,
        telemetry_every: a.keeping.telemetry_every(),
        driver: detection.driver.clone().unwrap_or_default(),
        sampler: a.cadence.sampler(),
        standing: a.cadence.standing(),
        jobs: service::job_watch(),
        ..RecorderOptions::default()
    };
    // What retention may remove are the segments that say so.
    options.extra.insert("recorder".to_owned(), "agent".to_owned());
    let label = output::simulated(detection.devices());
    for finding in &detection.report {
        output::say(&finding.to_string());
    }
    let mut service = Service::start(&a.service, &campaign)?;
    let (stop, reopen) = signals::stop_and_reopen_on_signal()?;
    let recorder = Recorder::start(campaign.dir(), detection.found, Arc::new(SystemClock), options, stop.clone())?;
    let notices = recorder.notices();
    // What the clock cannot reach is for ever.
    let end = a.duration.and_then(|d| Instant::now().checked_add(d));
    while !stop.load(Ordering::Acquire) && !recorder.is_finished() && end.is_none_or(|e| Instant::now() < e) {
        std::thread::sleep(Duration::from_millis(100));
        if reopen.swap(false, Ordering::AcqRel) {
            recorder.reopen();
            service.reopen();
        }
        say(&notices);
        service.observe(&recorder);
    }
    service.stopping();
    let recording = recorder.finish();
    // The last writes may have something to tell, whether or not they went well.
    say(&notices);
    let recording = recording?;
    if let Some(line) = service.finish()? {
        output::say(&line.to_string());
    }
    if a.json {
        output::print_json(&recording)?;
    } else {
        output::print(&format!("{}{label}", doctor::summary(&recording)))?;
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_a_core_is_a_percentage_or_a_number() {
        assert_eq!(parse_share("1%"), Ok(0.01));
        assert_eq!(parse_share("0.5 %"), Ok(0.005));
        assert_eq!(parse_share("0.01"), Ok(0.01));
        assert_eq!(parse_share("250%"), Ok(2.5));
        for bad in ["", "%", "0", "0%", "-1%", "NaN", "inf", "1e9", "one", "1%%"] {
            assert!(parse_share(bad).is_err_and(|e| e.contains("is no share of a core")), "{bad}");
        }
    }
}
