//! `energylens record -- CMD`: what one command costs, device by device.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use energylens::agent::{Recorder, RecorderOptions, Recording};
use energylens::clock::{Clock, SystemClock};
use energylens::dataset::interval::{Window, WindowEnergy};
use energylens::dataset::phases::device_energies;
use energylens::dataset::quality::Reason;
use energylens::source::Device;
use energylens::store::Campaign;
use serde_json::{Value, json};

use super::agent::CadenceArguments;
use super::output::{plus_minus, short};
use super::sources::SourceArguments;
use super::{Outcome, agent, doctor, output};

/// Recorded before and after the command: its first and last joules lie between counter edges outside of it.
const MARGIN: Duration = Duration::from_millis(300);

/// Measure what one command costs: joules per device with their uncertainty.
#[derive(Debug, Args)]
#[command(after_help = "Example:  energylens record -- python3 generate.py")]
pub(crate) struct Arguments {
    #[command(flatten)]
    sources: SourceArguments,
    #[command(flatten)]
    cadence: CadenceArguments,
    /// Keep the recording in this directory.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Print as JSON, on stderr: stdout belongs to the command.
    #[arg(long)]
    json: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let (program, arguments) = a.command.split_first().context("the command is missing")?;
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
        ..RecorderOptions::default()
    };
    // Ctrl-C reaches the command too, which shares the terminal; the recording ends when the command does.
    let _interrupted = super::signals::stop_on_signal()?;
    let host = options.host.clone();
    let lock = kept.lock()?;
    let stop = Arc::new(AtomicBool::new(false));
    let recorder = Recorder::start(kept.dir(), detection.found, Arc::new(SystemClock), options, stop)?;
    std::thread::sleep(MARGIN);
    let t_begin_ns = SystemClock.now();
    let status = Command::new(program).args(arguments).status();
    let t_end_ns = SystemClock.now();
    std::thread::sleep(MARGIN);
    agent::say_notices(&recorder);
    let mut recording = recorder.finish()?;
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            // As shells and env(1) do, so that a script can tell this from a command that failed.
            let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
            super::print_error(&anyhow::Error::new(error).context(format!("cannot run `{program}`")));
            return Ok(Outcome::Status(code));
        }
    };

    let window = Window { t_begin_ns, t_end_ns };
    let ids: Vec<String> = devices.iter().map(|d| d.id.clone()).collect();
    let energies = device_energies(kept.dir(), &host, &ids, window)?;
    drop(lock);
    if temporary.is_some() {
        recording.files.clear();
    }
    let report = if a.json {
        serde_json::to_string_pretty(&as_json(&devices, &energies, window, &recording))?
    } else {
        as_table(&devices, &energies, window, &recording)
    };
    eprintln!("{report}");
    let doubts = energies.iter().flatten().flat_map(|e| e.quality.iter().copied());
    for advice in doubts.map(advice).collect::<BTreeSet<_>>().into_iter().filter(|_| !a.json) {
        eprintln!("note: {advice}");
    }
    // A command that a signal ended reports as shells do.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(Outcome::Status(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// What to do about a doubt, for somebody who measures a command of their own.
fn advice(doubt: Reason) -> &'static str {
    match doubt {
        Reason::WindowShorterThanRefreshes | Reason::TooUncertain => {
            "the command is too short for these counters; repeat its work in a loop and divide"
        }
        other => other.advice(),
    }
}

fn as_table(
    devices: &[Device],
    energies: &[Result<WindowEnergy, Reason>],
    window: Window,
    recording: &Recording,
) -> String {
    let mut table = output::table(&["device", "name", "energy J", "mean W", ""], &[2, 3]);
    for (device, energy) in devices.iter().zip(energies) {
        let (joules, watts, note) = match energy {
            Ok(e) => {
                let reasons: Vec<String> = e.quality.iter().map(ToString::to_string).collect();
                (plus_minus(e.energy_j, Some(e.std_j)), short(e.energy_j / window.duration_s()), reasons.join(", "))
            }
            Err(reason) => ("-".to_owned(), "-".to_owned(), format!("{reason}: {}", reason.advice())),
        };
        table.add_row([device.id.clone(), device.name.clone(), joules, watts, note]);
    }
    format!("\n{}\n\n{} s; {}", table.trim_fmt(), short(window.duration_s()), doctor::summary(recording))
}

fn as_json(
    devices: &[Device],
    energies: &[Result<WindowEnergy, Reason>],
    window: Window,
    recording: &Recording,
) -> Value {
    let device = |(device, energy): (&Device, &Result<WindowEnergy, Reason>)| match energy {
        Ok(e) => json!({
            "device": device.id, "name": device.name, "scope": device.scope, "source": device.energy_source,
            "energy_j": e.energy_j, "energy_j_std": e.std_j, "mean_power_w": e.energy_j / window.duration_s(),
            "quality": e.quality.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
        Err(reason) => {
            json!({ "device": device.id, "name": device.name, "energy_j": null, "quality": [reason.to_string()] })
        }
    };
    json!({
        "duration_s": window.duration_s(),
        "devices": devices.iter().zip(energies).map(device).collect::<Vec<_>>(),
        "recording": recording,
    })
}
