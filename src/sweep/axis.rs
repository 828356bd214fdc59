//! Axes: what values a quantity may take, as levels for a grid and as quantiles for a hypercube.

use super::adaptive::AdaptiveRule;
use super::plan::Measure;
use super::sbatch::SlurmSpec;
use super::workload::WorkloadSpec;
use crate::card::{GpuCard, ModelCard};

/// Most levels that one axis may have.
pub const MOST_LEVELS: u32 = 10_000;

/// Values of one whole-number axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Levels {
    /// These values, ascending and distinct.
    Choice(Vec<u32>),
    /// Anything from the first to the second, evenly spread.
    Linear(u32, u32),
    /// Anything from the first to the second, evenly spread in the logarithm.
    Geometric(u32, u32),
}

impl Levels {
    /// The values themselves, sorted, each once.
    pub fn choice(mut values: Vec<u32>) -> Self {
        values.sort_unstable();
        values.dedup();
        Self::Choice(values)
    }

    /// `points` values from `low` to `high`, evenly spread (or in the logarithm), rounded, each once.
    pub fn spaced(low: u32, high: u32, points: u32, geometric: bool) -> Self {
        let (a, b) = (f64::from(low), f64::from(high));
        let at = |i: u32| {
            let share = if points > 1 { f64::from(i) / f64::from(points - 1) } else { 0.0 };
            if geometric { a * (b / a).powf(share) } else { a + (b - a) * share }
        };
        Self::choice((0..points).map(|i| at(i).round().clamp(a, b) as u32).collect())
    }

    /// The levels of a grid: the choices; every whole number of a short linear range; the powers of two times the low
    /// end, and the high end, of a geometric one. `None` where a linear range is too long to be meant as a grid.
    pub fn grid(&self) -> Option<Vec<u32>> {
        match self {
            Self::Choice(values) => Some(values.clone()),
            Self::Linear(low, high) => (high - low < 64).then(|| (*low..=*high).collect()),
            Self::Geometric(low, high) => {
                let doubled = std::iter::successors(Some((*low).max(1)), |v| v.checked_mul(2));
                let mut values: Vec<u32> = doubled.take_while(|v| v < high).collect();
                values.push(*high);
                Some(values)
            }
        }
    }

    /// The value below which a share `u` in [0, 1) of the axis lies.
    pub fn quantile(&self, u: f64) -> u32 {
        match self {
            Self::Choice(values) => {
                let index = ((u * values.len() as f64) as usize).min(values.len().saturating_sub(1));
                values.get(index).copied().unwrap_or(1)
            }
            // Half a step beyond each end, so that the ends come up as often as their neighbours.
            Self::Linear(low, high) => {
                let (a, b) = (f64::from(*low) - 0.5, f64::from(*high) + 0.5);
                (a + (b - a) * u).round().clamp(f64::from(*low), f64::from(*high)) as u32
            }
            Self::Geometric(low, high) => {
                let (a, b) = (f64::from((*low).max(1)) - 0.5, f64::from(*high) + 0.5);
                (a * (b / a).powf(u)).round().clamp(f64::from(*low), f64::from(*high)) as u32
            }
        }
    }

    /// How many values there are.
    pub fn len(&self) -> u64 {
        match self {
            Self::Choice(values) => values.len() as u64,
            Self::Linear(low, high) | Self::Geometric(low, high) => u64::from(high - low) + 1,
        }
    }

    /// Whether there is no value at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every value, ascending.
    pub(super) fn values(&self) -> Box<dyn Iterator<Item = u32> + '_> {
        match self {
            Self::Choice(values) => Box::new(values.iter().copied()),
            Self::Linear(low, high) | Self::Geometric(low, high) => Box::new(*low..=*high),
        }
    }
}

/// What a sweep varies. Field names are the Lua axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Axes {
    /// Models.
    pub model: Vec<ModelCard>,
    /// GPUs.
    pub gpu_model: Vec<GpuCard>,
    /// Numeric formats of the weights; empty takes each model's own.
    pub precision: Vec<String>,
    /// Tensor-parallel degrees.
    pub tensor_parallel: Levels,
    /// Pipeline-parallel degrees.
    pub pipeline_parallel: Levels,
    /// Data-parallel degrees.
    pub data_parallel: Levels,
    /// Sequences in flight.
    pub batch_size: Levels,
    /// Input tokens per sequence.
    pub input_tokens: Levels,
    /// Output tokens per sequence.
    pub output_tokens: Levels,
}

impl Axes {
    /// Names of all axes: the columns that a script may set.
    pub const NAMES: [&'static str; 9] = [
        "model",
        "gpu_model",
        "precision",
        "tensor_parallel",
        "pipeline_parallel",
        "data_parallel",
        "batch_size",
        "input_tokens",
        "output_tokens",
    ];
}

/// How points are chosen from the axes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Design {
    /// Every combination of levels.
    Factorial,
    /// Points spread evenly over each axis and over the feasible deployments.
    LatinHypercube {
        /// How many points.
        points: usize,
        /// Share of the points that have one output token.
        prefill_share: f64,
    },
    /// The points that together say most about the parameters of a closed form of the energy.
    DOptimal {
        /// How many points.
        points: usize,
    },
    /// Points that would make a law surest, which is fitted as the sweep goes.
    Adaptive(AdaptiveRule),
}

/// A sweep as its script describes it, apart from the `where` function.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// Name, also of its campaign directory unless another is given.
    pub name: String,
    /// Seed of the design, the order and the simulated noise.
    pub seed: u64,
    /// How often each point runs.
    pub repeats: u32,
    /// What varies.
    pub axes: Axes,
    /// How points are chosen.
    pub design: Design,
    /// How each run is measured.
    pub measure: Measure,
    /// What runs.
    pub workload: WorkloadSpec,
    /// Where it runs, if Slurm is asked.
    pub slurm: Option<SlurmSpec>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn grids_are_as_by_hand() {
        assert_eq!(Levels::Geometric(1, 64).grid(), Some(vec![1, 2, 4, 8, 16, 32, 64]));
        assert_eq!(Levels::Geometric(3, 20).grid(), Some(vec![3, 6, 12, 20]));
        assert_eq!(Levels::Geometric(5, 5).grid(), Some(vec![5]));
        assert_eq!(Levels::Linear(2, 5).grid(), Some(vec![2, 3, 4, 5]));
        assert_eq!(Levels::Linear(1, 5000).grid(), None);
        assert_eq!(Levels::spaced(1, 100, 3, true), Levels::Choice(vec![1, 10, 100]));
        assert_eq!(Levels::spaced(0, 10, 3, false), Levels::Choice(vec![0, 5, 10]));
        assert_eq!(Levels::choice(vec![4, 1, 4, 2]), Levels::Choice(vec![1, 2, 4]));
    }

    #[test]
    fn a_geometric_axis_gives_each_decade_the_same_share() {
        let axis = Levels::Geometric(1, 10_000);
        let below = |limit: u32| (0..1000).filter(|i| axis.quantile((f64::from(*i) + 0.5) / 1000.0) < limit).count();
        // ln(99.5/0.5) / ln(10000.5/0.5) = 0.5345.
        assert!((530..=540).contains(&below(100)), "{}", below(100));
        assert_eq!((axis.quantile(0.0), axis.quantile(0.999_999)), (1, 10_000));
    }

    proptest! {
        #[test]
        fn quantiles_stay_on_the_axis_and_rise(low in 1..5000_u32, span in 0..5000_u32, u in 0.0..1.0_f64, v in 0.0..1.0_f64) {
            for axis in [Levels::Linear(low, low + span), Levels::Geometric(low, low + span), Levels::choice(vec![low, low + span])] {
                let (a, b) = (axis.quantile(u.min(v)), axis.quantile(u.max(v)));
                prop_assert!(low <= a && a <= b && b <= low + span, "{axis:?} {a} {b}");
            }
        }
    }
}
