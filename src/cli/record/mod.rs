//! `energylens record -- CMD`: what one command costs, device by device.

mod child;
mod phases;
mod report;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use energylens::agent::{Recorder, RecorderOptions};
use energylens::clock::{Clock, SystemClock};
use energylens::dataset::interval::Window;
use energylens::dataset::phases::device_energies;
use energylens::source::Device;
use energylens::store::Campaign;

use self::child::{Ran, Signals};
use self::phases::Phases;
use self::report::{Measured, Run};
use super::agent::CadenceArguments;
use super::destination::Destination;
use super::sources::SourceArguments;
use super::{Outcome, agent, output, service};

/// Recorded before and after the command: its first and last joules lie between counter edges outside of it.
const MARGIN: Duration = Duration::from_millis(300);

/// Measure what one command costs: joules per device with their uncertainty.
#[derive(Debug, Args)]
#[command(after_help = "Examples:  energylens record -- python3 generate.py\n           \
                        energylens record --repeat 5 --warmup 1 --idle 5s -- python3 generate.py")]
pub(crate) struct Arguments {
    #[command(flatten)]
    sources: SourceArguments,
    #[command(flatten)]
    cadence: CadenceArguments,
    /// Keep the recording in this directory.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Run the command so many times, and print mean and standard deviation over the runs.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Run it so many times before that without measuring.
    #[arg(long, value_name = "N", default_value_t = 0)]
    warmup: u32,
    /// Go on with the next run when one failed.
    #[arg(long)]
    ignore_failure: bool,
    /// Measure so long beforehand, while nothing runs, and print what the command took above that beside the whole.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    idle: Option<Duration>,
    /// Print as JSON, on stderr: stdout belongs to the command.
    #[arg(long)]
    json: bool,
    /// Write the result to this file instead of stderr.
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let (program, arguments) = a.command.split_first().context("the command is missing")?;
    let summary = a.summary.as_ref().map(|path| Destination::of(path, &[])).transpose()?;
    let detection = a.sources.require()?;
    let devices: Vec<Device> = detection.devices().cloned().collect();
    // Without -o the recording lies in a directory that goes away with this value.
    let temporary = match &a.output {
        Some(_) => None,
        None => Some(tempfile::tempdir().context("cannot create a directory for the recording; name one with -o")?),
    };
    let dir = a.output.as_deref().or(temporary.as_ref().map(|d| d.path())).context("no directory for the recording")?;
    let kept = Campaign::create_or_open(dir)?;
    let options = RecorderOptions {
        driver: detection.driver.clone().unwrap_or_default(),
        sampler: a.cadence.sampler(),
        standing: a.cadence.standing(),
        jobs: service::job_watch(),
        ..RecorderOptions::default()
    };
    let signals = Signals::listen()?;
    let host = options.host.clone();
    let lock = kept.lock()?;
    let stop = Arc::new(AtomicBool::new(false));
    let recorder = Recorder::start(kept.dir(), detection.found, Arc::new(SystemClock), options, stop)?;
    let phases = Phases::listen(&kept);
    let environment = phases.as_ref().map(Phases::environment).unwrap_or_default();
    std::thread::sleep(MARGIN);
    let idle = a.idle.map(|duration| idle_for(duration, &signals));
    let ran = run_all(a, &Told { program, arguments, environment: &environment }, &signals);
    std::thread::sleep(MARGIN);
    let notices = recorder.notices();
    let recording = recorder.finish();
    agent::say(&notices);
    let mut recording = recording?;
    phases.map_or(Ok(()), Phases::finish)?;
    let (ran, last_code) = match ran {
        Ok(ran) => ran,
        Err(error) => {
            // As shells and env(1) do, so that a script can tell this from a command that failed.
            let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            super::print_error(
                &anyhow::Error::new(error)
                    .context(format!("cannot run `{program}`: expected a program on the PATH, or a path to one")),
            );
            return Ok(Outcome::Status(code));
        }
    };
    if ran.is_empty() {
        eprintln!("note: nothing was measured: the command ended with {last_code} while it was warming up");
        return Ok(Outcome::Status(last_code));
    }
    let windows: Vec<Window> = ran.iter().map(|r| r.window).chain(idle).collect();
    let ids: Vec<String> = devices.iter().map(|d| d.id.clone()).collect();
    let mut energies = device_energies(kept.dir(), &host, &ids, &windows)?;
    let span = Window { t_begin_ns: recording.t_begin_mono_ns, t_end_ns: recording.t_end_mono_ns };
    let marked = phases::costs(kept.dir(), &host, &devices, span)?;
    drop(lock);
    if temporary.is_some() {
        recording.files.clear();
    }
    let idle = idle.and_then(|window| Some((window, energies.pop()?)));
    let runs = ran.iter().zip(energies).map(|(r, energies)| Run { window: r.window, code: r.code(), energies });
    let measured = Measured {
        command: &a.command,
        devices: &devices,
        runs: runs.collect(),
        idle,
        counts_failures: a.ignore_failure,
        asked: a.repeat,
        recording: &recording,
    };
    let text = if a.json {
        let mut json = measured.to_json();
        json["phases"] = phases::to_json(&marked, &devices);
        serde_json::to_string_pretty(&json)? + "\n"
    } else if marked.is_empty() {
        measured.to_text()
    } else {
        measured.to_text() + &phases::to_text(&marked, &devices)
    };
    match &summary {
        Some(destination) => destination.write(&text)?,
        None => eprint!("{}", output::plain(&text)),
    }
    Ok(Outcome::Status(last_code))
}

/// Waits, or less long if a signal comes.
fn idle_for(duration: Duration, signals: &Signals) -> Window {
    let t_begin_ns = SystemClock.now();
    let start = Instant::now();
    while let Some(left) = duration.checked_sub(start.elapsed()).filter(|left| !left.is_zero() && !signals.came()) {
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
    Window { t_begin_ns, t_end_ns: SystemClock.now() }
}

/// The command as it was given, and what its environment gets beside ours.
struct Told<'a> {
    program: &'a str,
    arguments: &'a [String],
    environment: &'a [(&'static str, OsString)],
}

/// Every run that was asked for, up to the first that fails, and the exit status to end with.
fn run_all(a: &Arguments, told: &Told<'_>, signals: &Signals) -> std::io::Result<(Vec<Ran>, u8)> {
    let (mut ran, mut code) = (Vec::new(), 0);
    for number in 0..u64::from(a.warmup) + u64::from(a.repeat) {
        // A signal that came while nothing ran ends it all, as it would have ended the command: 128 + SIGINT.
        if signals.came() {
            return Ok((ran, if code == 0 { 130 } else { code }));
        }
        let run = child::run(told, signals)?;
        code = run.code();
        if number >= u64::from(a.warmup) {
            ran.push(run);
        }
        if code != 0 && !a.ignore_failure {
            break;
        }
    }
    Ok((ran, code))
}
