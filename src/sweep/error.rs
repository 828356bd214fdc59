//! What can go wrong between a script and the last run.

use std::path::PathBuf;

use super::adaptive::FEWEST_START_POINTS;
use super::design::LeftOut;

/// Why a sweep could not be planned or carried on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path} cannot be {verb}")]
    Io {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The script is wrong; the message begins with its file and line.
    #[error("{0}")]
    Script(String),
    /// What a script asks for cannot be laid out.
    #[error("{file}:{line}: {what}")]
    At {
        /// The script.
        file: String,
        /// Line of the field that it hangs on, from 1.
        line: usize,
        /// What is wrong.
        what: Box<Error>,
    },
    /// No combination of models, GPUs and degrees can be deployed at all.
    #[error(
        "none of the {combinations} combinations of model, GPU and degrees can be deployed; the nearest: {nearest}"
    )]
    NothingFits {
        /// Combinations looked at.
        combinations: usize,
        /// Why the one that lacks least does not fit.
        nearest: String,
    },
    /// The design asks for more points than there are.
    #[error("the design asks for {asked} {kind}; {feasible} are feasible{}", but_for(.left_out))]
    TooFewFeasible {
        /// Points asked for.
        asked: usize,
        /// Which points.
        kind: &'static str,
        /// How many there are, as text: counted, or what a long search found.
        feasible: String,
        /// What is not, where each was looked at.
        left_out: LeftOut,
    },
    /// The axes multiply to more than a sweep can hold.
    #[error(
        "the axes multiply to {found:.3e} combinations; a sweep holds at most {limit}: give axes fewer levels or use el.latin_hypercube"
    )]
    TooMany {
        /// Combinations.
        found: f64,
        /// Most that are laid out.
        limit: usize,
    },
    /// An adaptive sweep would begin without anything to fit.
    #[error(
        "el.adaptive starts with {start} points for {laws} laws, one per model, GPU and precision; each needs {FEWEST_START_POINTS} to begin with: start = {needed}"
    )]
    StartTooSmall {
        /// Points of the start.
        start: usize,
        /// Combinations of model, GPU and precision.
        laws: usize,
        /// Points that would do.
        needed: usize,
    },
    /// Two points with one identifier.
    #[error("points {first} and {second} have the same identifier {point_id}; change the sweep by one value")]
    SameIdentifier {
        /// The identifier.
        point_id: String,
        /// Number of the one.
        first: usize,
        /// Number of the other.
        second: usize,
    },
    /// The campaign directory holds another plan.
    #[error(
        "the script has changed since this campaign began: {difference}; use a new campaign directory, or restore the script"
    )]
    PlanChanged {
        /// What differs, shortly.
        difference: String,
    },
    /// A file of the campaign is not what this program writes.
    #[error("{path} line {line} is no {expected}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the line should hold.
        expected: &'static str,
        /// Why it does not.
        #[source]
        source: serde_json::Error,
    },
    /// A value of this program could not be written as JSON.
    #[error("{path} cannot be written as JSON")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// The campaign's files.
    #[error("campaign")]
    Store(#[from] crate::store::Error),
    /// Whoever watches the sweep could not go on (a recorder whose disk is full, say).
    #[error("the sweep stopped because its recording failed; the same command goes on with the runs that are left")]
    Observer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The workload as a whole is unusable, not one of its runs.
    #[error("workload: {0}")]
    Workload(String),
}

/// What stands between a design and its points.
fn but_for(left_out: &LeftOut) -> String {
    match left_out.count() {
        0 => String::new(),
        _ => format!("; left out: {left_out}"),
    }
}
