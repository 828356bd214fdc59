//! One mark as it travels: a JSON object per datagram, from anybody on the node, so nothing in it is believed unseen.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::agent::job::{JobIds, is_job_id, is_step_id};
use crate::schema::{MarkEvent, Origin};
use crate::store::MarkRow;
use crate::units::{NS_PER_MS, NS_PER_S};

/// Bytes of the longest datagram.
pub const MAX_MARK_BYTES: usize = 4_096;
const MAX_PHASE_BYTES: usize = 64;
const MAX_RUN_ID_BYTES: usize = 128;
/// How old a mark may say that it is. Older, its window might have been reduced already.
const MAX_AGE_NS: i64 = 10 * NS_PER_S as i64;
/// How far ahead of us a mark may be: the clock is the same one, so only for a sender that rounds up.
const MAX_AHEAD_NS: i64 = 2 * NS_PER_MS;

/// A mark on its way to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkMessage {
    /// `begin` or `end`.
    pub event: String,
    /// What begins or ends.
    pub phase: String,
    /// The run it belongs to; the sender's job and step where it names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// `CLOCK_MONOTONIC` of the mark; the instant of receipt where it names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub t_mono_ns: Option<i64>,
    /// The sender's Slurm job, used where the kernel knows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// The sender's step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_id: Option<String>,
}

impl MarkMessage {
    /// The row that a datagram stands for, as the agent takes it at `now_ns` from a process of `uid` that the kernel
    /// knows to be in `job`.
    pub fn row_of(datagram: &[u8], uid: u32, job: Option<JobIds>, now_ns: i64) -> Result<MarkRow, Refusal> {
        row_of(datagram, &Sender { uid, job }, now_ns)
    }
}

/// What the kernel says of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sender {
    pub(super) uid: u32,
    pub(super) job: Option<JobIds>,
}

/// Why a mark was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Larger than a mark may be.
    TooLong,
    /// Not a JSON object of the known fields.
    Malformed,
    /// Neither `begin` nor `end`.
    Event,
    /// The phase is empty, too long or has odd characters.
    Phase,
    /// The same for the run, or there is none and the sender is in no job.
    RunId,
    /// The same for the job or its step.
    JobId,
    /// Too old, or in the future.
    Time,
    /// Its user sends too many.
    Rate,
    /// Descriptors came with it, or no credentials did.
    Sender,
    /// The disk refuses, and memory for what waits is used up.
    Storage,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::TooLong,
        Self::Malformed,
        Self::Event,
        Self::Phase,
        Self::RunId,
        Self::JobId,
        Self::Time,
        Self::Rate,
        Self::Sender,
        Self::Storage,
    ];

    /// The reason in a word, as in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Event => "event",
            Self::Phase => "phase",
            Self::RunId => "run_id",
            Self::JobId => "job_id",
            Self::Time => "time",
            Self::Rate => "rate",
            Self::Sender => "sender",
            Self::Storage => "storage",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "it has more than 4096 bytes",
            Self::Malformed => {
                "expected one JSON object with `event`, `phase` and optionally `run_id`, `t_mono_ns`, `job_id`, \
                 `step_id`, and nothing else"
            }
            Self::Event => "`event` must be begin or end",
            Self::Phase => "`phase` must have 1 to 64 characters, letters, digits and _ . : / + @ = -",
            Self::RunId => {
                "`run_id` must have 1 to 128 characters, letters, digits and _ . : / + @ = -; it may be left out only \
                 inside a Slurm job"
            }
            Self::JobId => "`job_id` must be a number, and `step_id` a number, batch, extern or interactive",
            Self::Time => {
                "`t_mono_ns` must be CLOCK_MONOTONIC of this node, at most 10 s ago and not in the future; leave it \
                 out and the instant of receipt counts"
            }
            Self::Rate => "this user sends more than 1000 marks a second for long",
            Self::Sender => "it came with file descriptors, or without the sender's credentials",
            Self::Storage => "the disk refuses and too many marks wait for it",
        })
    }
}

/// The row that a datagram stands for, received at `now_ns`.
pub(super) fn row_of(datagram: &[u8], sender: &Sender, now_ns: i64) -> Result<MarkRow, Refusal> {
    if datagram.len() > MAX_MARK_BYTES {
        return Err(Refusal::TooLong);
    }
    let message: MarkMessage = serde_json::from_slice(datagram).map_err(|_| Refusal::Malformed)?;
    let event: MarkEvent = message.event.parse().map_err(|_| Refusal::Event)?;
    if !is_word(&message.phase, MAX_PHASE_BYTES) {
        return Err(Refusal::Phase);
    }
    let t_mono_ns = message.t_mono_ns.unwrap_or(now_ns);
    let age_ns = now_ns.saturating_sub(t_mono_ns);
    if !(-MAX_AHEAD_NS..=MAX_AGE_NS).contains(&age_ns) {
        return Err(Refusal::Time);
    }
    let job = match (&sender.job, message.job_id) {
        (Some(job), _) => Some(job.clone()),
        (None, Some(job_id)) => {
            if !is_job_id(&job_id) || !message.step_id.as_deref().is_none_or(is_step_id) {
                return Err(Refusal::JobId);
            }
            Some(JobIds { job_id, step_id: message.step_id })
        }
        (None, None) => None,
    };
    let run_id = message.run_id.or_else(|| job.as_ref().map(JobIds::run_id)).ok_or(Refusal::RunId)?;
    if !is_word(&run_id, MAX_RUN_ID_BYTES) {
        return Err(Refusal::RunId);
    }
    let (job_id, step_id) = job.map_or((None, None), |job| (Some(job.job_id), job.step_id));
    Ok(MarkRow {
        t_mono_ns,
        run_id,
        phase: message.phase,
        event,
        source: Origin::Measured,
        uid: Some(sender.uid),
        job_id,
        step_id,
    })
}

/// Characters that mean nothing to a shell, a terminal, a CSV reader or HTML.
fn is_word(text: &str, max_bytes: usize) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_.:/+@=-".contains(&b);
    (1..=max_bytes).contains(&text.len()) && text.bytes().all(is_plain)
}
