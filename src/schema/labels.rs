//! The words that label rows, each with its spelling in files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A set of words of which one labels a row, each with its spelling in files.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The spelling in files.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownLabel;
            fn from_str(s: &str) -> Result<Self, UnknownLabel> {
                Self::ALL.iter().copied().find(|v| v.as_str() == s).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|v| v.as_str()).collect();
                    UnknownLabel { what: $what, found: s.to_owned(), known: known.join(", ") }
                })
            }
        }
    };
}

/// A word that is none of the known ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{found}` is unknown; expected one of {known}")]
pub struct UnknownLabel {
    what: &'static str,
    found: String,
    known: String,
}

labels! {
    /// What part of a request's life an energy covers.
    Phase, "phase" {
        /// Input processing up to and including the first output token: a batch run with one output token.
        Prefill = "prefill",
        /// The output tokens after the first.
        Decode = "decode",
        /// The whole batch.
        Total = "total",
    }
}

labels! {
    /// How the energy of a decode was found.
    Method, "method" {
        /// Total less prefill.
        Difference = "difference",
        /// A window of its own, which the workload marked.
        Marks = "marks",
    }
}

labels! {
    /// Where an energy comes from. Simulated rows are never mixed unnoticed with measured ones.
    EnergySource, "source" {
        /// Differences of an energy counter.
        Counter = "counter",
        /// Integrated power readings: the fallback.
        Power = "power",
        /// The built-in simulated node.
        Simulated = "simulated",
        /// Rows that somebody else measured.
        Imported = "imported",
        /// Nothing: the run failed, or nothing measures its devices.
        None = "none",
    }
}

labels! {
    /// Whether a phase begins or ends.
    MarkEvent, "event" {
        /// The phase begins at the mark.
        Begin = "begin",
        /// The phase ends at the mark.
        End = "end",
    }
}

labels! {
    /// What came of a run.
    RunStatus, "status" {
        /// It ran to its end.
        Done = "done",
        /// It did not start, or broke off.
        Failed = "failed",
    }
}

labels! {
    /// Whether marks and runs come from a machine or from the built-in simulated node.
    Origin, "source" {
        /// A machine.
        Measured = "measured",
        /// The built-in simulated node.
        Simulated = "simulated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_parse_what_they_print() {
        for phase in Phase::ALL {
            assert_eq!(phase.as_str().parse::<Phase>().as_ref(), Ok(phase));
        }
        assert!("prefil".parse::<Phase>().unwrap_err().to_string().contains("prefill, decode, total"));
    }
}
