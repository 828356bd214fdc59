//! By what rows are held out, as it is asked for on the command line.

use std::fmt;
use std::str::FromStr;

use crate::schema::nearest;

/// How rows are divided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scheme {
    /// Workloads dealt into folds; each fold is held out once.
    Workloads {
        /// Folds.
        folds: usize,
    },
    /// Each model is held out once; needs pooled laws.
    Models,
    /// Learn from small batches, judge on larger ones.
    Batches {
        /// Largest batch to learn from; `None` for the median of the batch sizes that occur.
        up_to: Option<f64>,
    },
    /// Each GPU model is held out once. The laws of the others are carried over term by term, at the prices of the GPUs'
    /// cards; predictors that know no cards are fitted across hardware, to energies relative to the card's joules per byte
    /// of memory traffic at the power limit.
    Hardware,
}

impl Default for Scheme {
    fn default() -> Self {
        Self::Workloads { folds: 5 }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workloads { folds } => write!(f, "{folds} folds by workload"),
            Self::Models => f.write_str("leave one model out"),
            Self::Batches { up_to: Some(batch) } => write!(f, "trained on batches up to {batch}, judged above"),
            Self::Batches { up_to: None } => f.write_str("trained on the smaller batches, judged on the larger"),
            Self::Hardware => f.write_str("leave one GPU model out"),
        }
    }
}

impl FromStr for Scheme {
    type Err = String;
    /// `workloads`, `workloads=10`, `models`, `batches`, `batches=8` or `hardware`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n.trim(), Some(v.trim())));
        let refused = |expected: &str| format!("scheme `{text}`: expected {expected}");
        match (name, value) {
            ("workloads", None) => Ok(Self::default()),
            ("workloads", Some(v)) => match v.parse() {
                Ok(folds) if folds >= 2 => Ok(Self::Workloads { folds }),
                _ => Err(refused("a number of folds, 2 or more, after `workloads=`")),
            },
            ("models", None) => Ok(Self::Models),
            ("hardware", None) => Ok(Self::Hardware),
            ("batches", None) => Ok(Self::Batches { up_to: None }),
            ("batches", Some(v)) => match v.parse::<f64>() {
                Ok(batch) if batch.is_finite() && batch > 0.0 => Ok(Self::Batches { up_to: Some(batch) }),
                _ => Err(refused("a batch size above 0 after `batches=`")),
            },
            _ => {
                let known = ["workloads", "models", "batches", "hardware"];
                let near = nearest(name, known).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
                Err(refused(&format!("workloads, models, batches or hardware{near}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_parse_and_misspelt_ones_find_their_neighbour() {
        assert_eq!("workloads=3".parse(), Ok(Scheme::Workloads { folds: 3 }));
        assert_eq!("batches=8".parse(), Ok(Scheme::Batches { up_to: Some(8.0) }));
        assert_eq!("hardware".parse(), Ok(Scheme::Hardware));
        assert!("model".parse::<Scheme>().unwrap_err().contains("`models`"));
        for wrong in ["workloads=1", "batches=-1", "batches=nan", "models=3"] {
            assert!(wrong.parse::<Scheme>().is_err(), "{wrong}");
        }
    }
}
