//! The adaptive design: what it may measure, what it begins with, and what was decided on the way.
//!
//! The plan holds every point that may be measured and the order in which a start design takes them; both follow from
//! the script alone. Which points are measured after the start depends on what came out: whoever knows the joules is
//! asked by the [runner](super::runner), and what he decides is noted before it is done. A sweep that is killed goes on
//! with what was noted, and asks again only behind it.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Points of one model, GPU and precision that the start measures at least: below, nothing can be fitted to them.
pub const FEWEST_START_POINTS: usize = 6;
/// Most points that an adaptive sweep looks at between two batches.
pub const MOST_CANDIDATES: usize = 20_000;

/// When an adaptive sweep begins to choose, and when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveRule {
    /// Points that are measured before anything is chosen.
    pub start: usize,
    /// Points that are chosen at once.
    pub batch: usize,
    /// Most points, those of the start included.
    pub max_points: usize,
    /// The sweep ends when the law is this sure of its own value on nearly all candidates, as a share of the value.
    pub precision: f64,
    /// Candidates, at most.
    pub candidates: usize,
}

/// What a plan with an adaptive design has besides its points, which are the candidates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adaptive {
    /// The rule.
    pub rule: AdaptiveRule,
    /// Places in [`Plan::points`](super::Plan::points) as the start design takes them: first the start, then what takes
    /// the place of a choice where no law can be fitted yet.
    pub order: Vec<usize>,
}

impl Adaptive {
    /// The points that are measured before anything is chosen.
    pub fn start(&self) -> &[usize] {
        self.order.get(..self.rule.start).unwrap_or(&self.order)
    }

    /// The next `count` points of the start design that are not among `measured`.
    pub fn next_of_start_design(&self, measured: &[usize], count: usize) -> Vec<usize> {
        let measured: HashSet<usize> = measured.iter().copied().collect();
        self.order.iter().copied().filter(|point| !measured.contains(point)).take(count).collect()
    }
}

/// What was decided between two batches, and why: one line of `decisions.jsonl`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Points that had been carried out.
    pub points_before: usize,
    /// How sure the law was of its own value: 95 % of the candidates had a 90 % interval at most this wide on either
    /// side, as a share of the value. `None` while there was no law for all of them.
    pub half_width: Option<f64>,
    /// The same for the candidate that it was least sure of.
    pub largest_half_width: Option<f64>,
    /// Relative standard deviation of the measured rows around the law: no further point makes this smaller.
    pub residual: Option<f64>,
    /// What is measured next; nothing, where the sweep ends.
    pub points: Vec<ChosenPoint>,
    /// Why the start design chose, where it did.
    pub no_law: Option<String>,
    /// Candidates that are not looked at, since nothing on their servers could be measured.
    #[serde(default)]
    pub given_up: usize,
    /// Why the sweep ends, where it does.
    pub stopped: Option<StopReason>,
}

/// A point that was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChosenPoint {
    /// Its identifier.
    pub point_id: String,
    /// Half width of the law's 90 % interval there before it was measured, as a share of the value; `None` where the start
    /// design chose. The points that were chosen together with it are taken to be known.
    pub half_width: Option<f64>,
}

/// Why an adaptive sweep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The law is as sure as was asked.
    Precision,
    /// As many points as are allowed have been measured.
    MaxPoints,
    /// No candidate is left.
    Candidates,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Precision => "the law is as sure as was asked",
            Self::MaxPoints => "max_points are measured",
            Self::Candidates => "no candidate is left",
        })
    }
}
