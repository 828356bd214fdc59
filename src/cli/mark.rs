//! `energylens mark`: a phase begins or ends, said from any shell step.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use energylens::agent::{Answer, Error, JobIds, JobPlaces, MarkMessage, send_mark};
use energylens::clock::{Clock, SystemClock};

use super::{Outcome, service};

/// How long the agent's confirmation is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Say that a phase begins or ends, to the agent that records this node.
#[derive(Debug, Args)]
#[command(after_help = "Example:  energylens mark begin prefill; ./prefill.sh; energylens mark end prefill\n\n\
                  The run is --run-id, or $ENERGYLENS_RUN_ID, or the Slurm job and step (123.0), or else the session \
                  of the shell (session-4711), so that begin and end of one script belong together.")]
pub(crate) struct Arguments {
    /// Whether the phase begins or ends.
    event: Event,
    /// What begins or ends: prefill, decode, total, or a word of your own.
    phase: String,
    /// The run that the phase belongs to.
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,
    /// The agent's marks socket, if it is not in $ENERGYLENS_MARKS.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Do not wait for the agent's word that the mark is on disk.
    #[arg(long)]
    no_confirm: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Event {
    Begin,
    End,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    // First of all: what follows costs time that is not the phase's.
    let t_mono_ns = SystemClock.now();
    let socket = a.socket.clone().or_else(|| std::env::var_os("ENERGYLENS_MARKS").map(PathBuf::from)).context(
        "no marks socket is named; expected --socket or $ENERGYLENS_MARKS (the service takes marks at \
         /run/energylens/marks.sock, `energylens record` sets it for its command)",
    )?;
    let job = JobIds::own(&JobPlaces::default(), service::variable);
    let run_id = a
        .run_id
        .clone()
        .or_else(|| service::variable("ENERGYLENS_RUN_ID").filter(|id| !id.is_empty()))
        .or_else(|| job.as_ref().map(JobIds::run_id))
        .unwrap_or_else(session);
    let (job_id, step_id) = job.map_or((None, None), |job| (Some(job.job_id), job.step_id));
    let event = match a.event {
        Event::Begin => "begin",
        Event::End => "end",
    };
    let mut message = MarkMessage {
        event: event.to_owned(),
        phase: a.phase.clone(),
        run_id: Some(run_id),
        t_mono_ns: Some(t_mono_ns),
        job_id,
        step_id,
    };
    let patience = (!a.no_confirm).then_some(PATIENCE);
    let answer = match send_mark(&socket, &message, patience) {
        // A container with a clock of its own: the instant of receipt is a fraction of a millisecond later.
        Err(Error::MarkRefused { reason, .. }) if reason == "time" => {
            message.t_mono_ns = None;
            send_mark(&socket, &message, patience)?
        }
        other => other?,
    };
    if answer == Answer::Waiting {
        eprintln!("warning: the agent has the mark in memory only: its disk takes nothing at present");
    }
    Ok(Outcome::Done)
}

/// The session of this process: the same for all steps of one script or terminal. A session that was opened outside of
/// a container has no number inside of it: the caller's own process stands for it there.
fn session() -> String {
    match nix::unistd::getsid(None).map_or(0, nix::unistd::Pid::as_raw) {
        0 => format!("caller-{}", nix::unistd::getppid()),
        id => format!("session-{id}"),
    }
}
