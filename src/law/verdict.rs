//! What a reader must know before believing a fit, in words.

use serde::{Deserialize, Serialize};

/// One thing a reader must know before believing a fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// The search ended at a minimum that several starts agree on.
    Converged {
        /// Starts that ended there.
        agreeing_starts: usize,
        /// Starts in all.
        starts: usize,
    },
    /// The search ended without meeting its tolerance.
    NotConverged {
        /// What the optimiser said.
        reason: String,
    },
    /// Parameters sit at the end of their box; their intervals are one-sided.
    AtLimit {
        /// Which.
        parameters: Vec<String>,
        /// The limit, as text.
        limit: String,
    },
    /// The data does not determine these parameters apart.
    Unidentified {
        /// Which.
        parameters: Vec<String>,
        /// Why, and what to measure.
        why: String,
    },
    /// Standard error above the value itself: the term may be absent.
    WeaklyDetermined {
        /// Which.
        parameter: String,
    },
    /// Fewer rows than a trustworthy fit needs.
    TooFewRows {
        /// Rows.
        rows: usize,
        /// Parameters.
        parameters: usize,
    },
    /// Residuals depend on something the law does not know.
    ResidualStructure {
        /// On what.
        along: String,
    },
    /// Rows far off the law that were given little weight.
    Outliers {
        /// How many.
        count: usize,
        /// Lines of the worst, at most five.
        lines: Vec<usize>,
    },
    /// Placeholders stand where the model card should.
    NoCard {
        /// The model.
        model: String,
    },
}

impl Verdict {
    /// Whether the verdict is good news.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Converged { .. })
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Converged { agreeing_starts, starts } => {
                write!(f, "converged: {agreeing_starts} of {starts} starts end at the same minimum")
            }
            Self::NotConverged { reason } => write!(f, "NOT CONVERGED: {reason}"),
            Self::AtLimit { parameters, limit } => {
                write!(f, "AT LIMIT: {} at {limit}; such an interval is one-sided", parameters.join(", "))
            }
            Self::Unidentified { parameters, why } => write!(f, "UNIDENTIFIED: {}: {why}", parameters.join(", ")),
            Self::WeaklyDetermined { parameter } => {
                write!(f, "weakly determined: {parameter} is smaller than its standard error")
            }
            Self::TooFewRows { rows, parameters } => {
                write!(f, "TOO FEW ROWS: {rows} rows for {parameters} parameters; some 50 are advised")
            }
            Self::ResidualStructure { along } => {
                write!(f, "RESIDUAL STRUCTURE along {along}: the law misses something there")
            }
            Self::Outliers { count, lines } => {
                let lines: Vec<_> = lines.iter().map(usize::to_string).collect();
                write!(f, "outliers: {count} rows got little weight (worst: row {})", lines.join(", "))
            }
            Self::NoCard { model } => write!(
                f,
                "NO CARD: nothing is known of model `{model}`; its law holds for this scenario alone and ignores the KV cache's capacity"
            ),
        }
    }
}
