//! What a coefficient should be before anything is measured: an amount of a GPU's resource, at the GPU's own price.
//!
//! A GPU that does nothing but arithmetic at its power limit pays `power limit / FLOP rate` joules per FLOP, and likewise
//! per byte of memory or link traffic, per second of waiting. How many FLOPs, bytes or seconds stand behind a term is
//! arithmetic of the architecture; efficiencies and waiting power enter as round shares. So a prior is right to a factor
//! of three or so on any GPU with a card, and is given a standard deviation as large as its mean: fifty rows override it,
//! twelve rows lean on it instead of trading terms against each other.
//!
//! Nothing is expected of the size of a time's coefficients: how much of the peak rate an engine reaches is what is to be
//! found. They name their resource alone, so that a law of times can be carried to another GPU.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::target::Target;
use crate::card::GpuCard;

/// What a GPU spends its energy on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Arithmetic at the peak rate.
    Flop,
    /// Memory traffic at the peak rate, bytes.
    Byte,
    /// Traffic to another GPU, bytes.
    LinkByte,
    /// Time at the power limit.
    Second,
}

impl Resource {
    /// Joules of one unit on a GPU that runs at its power limit.
    pub fn price_j(self, gpu: &GpuCard) -> f64 {
        gpu.power_limit_w
            / match self {
                Self::Flop => gpu.peak_flops,
                Self::Byte => gpu.memory_bandwidth_bytes_per_s,
                Self::LinkByte => gpu.link_bandwidth_bytes_per_s,
                Self::Second => 1.0,
            }
    }

    /// What one unit costs of `target`: joules at the power limit, or seconds at the peak rate.
    pub fn price(self, target: Target, gpu: &GpuCard) -> f64 {
        match target {
            Target::EnergyJ => self.price_j(gpu),
            Target::DurationS | Target::MeanTtftS | Target::MeanTpotS => self.price_j(gpu) / gpu.power_limit_w,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Flop => "flop",
            Self::Byte => "byte",
            Self::LinkByte => "link_byte",
            Self::Second => "second",
        })
    }
}

/// The expected size of a coefficient; its standard deviation is as large.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoefficientPrior {
    /// Units of the resource behind one unit of the term; 0 in laws of times, of which no size is expected.
    #[serde(default, skip_serializing_if = "is_silent")]
    pub amount: f64,
    /// The resource.
    pub of: Resource,
    /// The resulting coefficient on the GPU of the law; `None` until one is known, and the prior is then silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
}

impl CoefficientPrior {
    /// The same at the prices of `gpu`.
    pub fn priced(self, gpu: &GpuCard) -> Self {
        let mean = self.amount * self.of.price_j(gpu);
        Self { mean: (mean.is_finite() && mean > 0.0).then_some(mean), ..self }
    }

    /// Whether a hand-edited file gave numbers that can be used for `target`.
    pub(super) fn is_valid(&self, target: Target) -> bool {
        let usable = |v: f64| v.is_finite() && v > 0.0;
        match target {
            Target::EnergyJ => usable(self.amount) && self.mean.is_none_or(usable),
            _ => is_silent(&self.amount) && self.mean.is_none(),
        }
    }
}

fn is_silent(amount: &f64) -> bool {
    *amount == 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_of_an_a100() {
        let gpu = GpuCard::builtin("A100-SXM4-80GB").unwrap();
        // 400 W over 312 TFLOP/s, 2039 GB/s, 300 GB/s.
        for (resource, price) in [
            (Resource::Flop, 1.282e-12),
            (Resource::Byte, 1.962e-10),
            (Resource::LinkByte, 1.333e-9),
            (Resource::Second, 400.0),
        ] {
            assert!((resource.price_j(&gpu) / price - 1.0).abs() < 1e-3, "{resource}");
        }
        // A second at the peak rate does 312e12 FLOP; a second of waiting is one on any GPU.
        assert!((Resource::Flop.price(Target::DurationS, &gpu) * 312e12 - 1.0).abs() < 1e-9);
        assert_eq!(Resource::Second.price(Target::MeanTpotS, &gpu), 1.0);
        let prior = CoefficientPrior { amount: 2.0, of: Resource::Flop, mean: None };
        assert!((prior.priced(&gpu).mean.unwrap() / 2.564e-12 - 1.0).abs() < 1e-3);
    }
}
