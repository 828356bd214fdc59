//! What should be deployed?
//!
//! Start at [`recommend`]: it lays out every pair of tensor- and pipeline-parallel degrees, replica count and batch size
//! that the GPUs allow, drops what does not fit, lies outside the measured range or breaks a limit, and ranks the rest by
//! predicted energy, cost or carbon. Beside each configuration stands how likely it is to be truly the best.
//! [`measure_next`] names the configurations whose measurement would change the answer most.
//!
//! A workload is one pair of lengths or a [`Trace`]. With an arrival rate the batch is not free: it is how many requests are
//! in flight when as many leave as come.
//!
//! Limits: a limit is judged on the point prediction (a [`LimitCheck`] says whether the interval's worse end respects it
//! too). Memory is weights plus one sequence of KV cache over `t p` GPUs; heads that do not divide by `t`, layers that do
//! not divide by `p` and activations are not known here. Replicas are taken to share nothing but the batch.

mod answer;
mod arrivals;
mod bill;
mod doubts;
mod fold;
mod front;
mod instant;
mod judge;
mod label;
mod lengths;
mod limit;
mod next;
mod platform;
mod powers;
mod probability;
mod rank;
mod request;
mod search;
mod select;
mod series;
mod spread;
mod sweep_file;
mod table;
mod trace;
mod wrap;

#[cfg(test)]
pub(crate) mod fixture;

use std::path::PathBuf;

pub use answer::{Alternative, Candidate, Estimate, Exclusion, LawOutside, LimitCheck, Recommendation};
pub use bill::{Day, Prices, Waste};
pub use label::Varies;
pub use lengths::{LengthClass, Lengths};
pub use limit::{Limit, Objective, Quantity};
pub use next::{NextMeasurement, NextMeasurements, measure_next};
pub use request::{CardColumns, Request};
pub use search::recommend;
pub use series::Rate;
pub use trace::Trace;

pub(crate) use answer::figure;

use crate::law::Target;

/// Why there is no recommendation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that is none of the known ones.
    #[error("{what} `{found}` is unknown; {hint}")]
    UnknownName {
        /// Kind of name.
        what: &'static str,
        /// What was given.
        found: String,
        /// The nearest known one, or all of them.
        hint: String,
    },
    /// A limit that cannot be read.
    #[error("limit `{text}`: {problem}")]
    Limit {
        /// As given.
        text: String,
        /// What was expected and found.
        problem: String,
    },
    /// A workload that cannot be read.
    #[error("workload: {0}")]
    Workload(String),
    /// A workload file that cannot be read.
    #[error("workload file {path}: {problem}")]
    WorkloadFile {
        /// File.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// A trace that cannot be read.
    #[error("trace {path}: {problem}")]
    Trace {
        /// File.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// A series of prices or intensities that cannot be read.
    #[error("series {path}: {problem}")]
    Series {
        /// File.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// A price or an intensity that is neither number nor file.
    #[error("`{found}` is no rate; expected a number from 0 or the path of a file with the columns time and value")]
    Rate {
        /// What was given.
        found: String,
    },
    /// A figure that nothing was said about.
    #[error("{quantity} needs {needs}")]
    Unpriced {
        /// What was asked for.
        quantity: Quantity,
        /// What has to be given.
        needs: &'static str,
    },
    /// A sweep cannot say this model.
    #[error("no sweep can be written for {model}: {problem}")]
    NoSweep {
        /// Model.
        model: String,
        /// Why.
        problem: String,
    },
    /// The model file knows several models and the request names none.
    #[error("the workload names no model, and the model file knows several: {known}")]
    WhichModel {
        /// Some of them.
        known: String,
    },
    /// No energy law covers what was asked.
    #[error("no energy law for {asked}; the model file knows {known}")]
    NoLaw {
        /// What was asked.
        asked: String,
        /// What there is.
        known: String,
    },
    /// A limit on something that no law predicts.
    #[error(
        "{asker}: the model has no law of {target} for {asked}; fit rows that carry the column {target}, and the fit adds one"
    )]
    NoLawForLimit {
        /// What needs it.
        asker: String,
        /// The missing law.
        target: Target,
        /// Model and platform.
        asked: String,
    },
    /// More configurations than are worth ranking.
    #[error(
        "{count} configurations are to be looked at, at most {most} are; lower max_gpus or give a smaller batch_size"
    )]
    TooMany {
        /// How many.
        count: u64,
        /// How many are accepted.
        most: u64,
    },
    /// Everything was excluded.
    #[error("none of {candidates} configurations is feasible: {reasons}")]
    NothingFeasible {
        /// How many were looked at.
        candidates: usize,
        /// What excluded how many, and what came closest.
        reasons: String,
    },
    /// The law could not be asked.
    #[error(transparent)]
    Law(#[from] crate::law::Error),
    /// The configuration is incomplete.
    #[error(transparent)]
    Resolve(#[from] crate::law::ResolveError),
}

#[cfg(test)]
mod tests;
