//! The quantities that laws predict.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a law predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Energy of one batch, all GPUs, J.
    EnergyJ,
    /// Duration of one batch, s.
    DurationS,
    /// Mean time to first token, s.
    MeanTtftS,
    /// Mean time per output token after the first, s.
    MeanTpotS,
}

impl Target {
    /// Every target.
    pub const ALL: &'static [Target] = &[Self::EnergyJ, Self::DurationS, Self::MeanTtftS, Self::MeanTpotS];

    /// The column of that name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EnergyJ => "energy_j",
            Self::DurationS => "duration_s",
            Self::MeanTtftS => "mean_ttft_s",
            Self::MeanTpotS => "mean_tpot_s",
        }
    }

    /// Its unit: joules or seconds.
    pub fn unit(self) -> &'static str {
        match self {
            Self::EnergyJ => "J",
            Self::DurationS | Self::MeanTtftS | Self::MeanTpotS => "s",
        }
    }

    /// Its symbol in formulas, as LaTeX.
    pub(super) fn latex(self) -> &'static str {
        match self {
            Self::EnergyJ => "E",
            Self::DurationS => "D",
            Self::MeanTtftS => r"\mathrm{TTFT}",
            Self::MeanTpotS => r"\mathrm{TPOT}",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
