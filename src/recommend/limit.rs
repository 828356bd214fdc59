//! What is made small, and what the answer must respect.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::Error;
use crate::law::Target;
use crate::schema::nearest;

/// What is made as small as possible. The energies rank alike for one workload and differ in the figure that leads the
/// answer; cost differs from them where GPU hours have a price, carbon where nothing does but the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum Objective {
    /// Energy per output token.
    #[default]
    #[serde(rename = "energy_per_token_j")]
    EnergyPerToken,
    /// Energy per request.
    #[serde(rename = "energy_per_request_j")]
    EnergyPerRequest,
    /// Energy per day.
    #[serde(rename = "energy_per_day_kwh")]
    EnergyPerDay,
    /// Price of the energy and of the GPU hours of a request.
    #[serde(rename = "cost_per_request")]
    Cost,
    /// Carbon dioxide of a request.
    #[serde(rename = "carbon_per_request_g")]
    Carbon,
}

impl Objective {
    /// Every objective.
    pub const ALL: [Objective; 5] =
        [Self::EnergyPerToken, Self::EnergyPerRequest, Self::EnergyPerDay, Self::Cost, Self::Carbon];

    /// The name of the quantity.
    pub fn as_str(self) -> &'static str {
        Quantity::from(self).as_str()
    }

    /// The unit, in words that follow a figure.
    pub fn unit(self) -> &'static str {
        match self {
            Self::EnergyPerToken => "J per output token",
            Self::EnergyPerRequest => "J per request",
            Self::EnergyPerDay => "kWh per day",
            Self::Cost => "of money per request",
            Self::Carbon => "g CO2 per request",
        }
    }
}

impl From<Objective> for Quantity {
    fn from(objective: Objective) -> Self {
        match objective {
            Objective::EnergyPerToken => Self::EnergyPerTokenJ,
            Objective::EnergyPerRequest => Self::EnergyPerRequestJ,
            Objective::EnergyPerDay => Self::EnergyPerDayKwh,
            Objective::Cost => Self::CostPerRequest,
            Objective::Carbon => Self::CarbonPerRequestG,
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Objective {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let all = Self::ALL;
        all.into_iter().find(|o| o.as_str() == text).ok_or_else(|| Error::UnknownName {
            what: "objective",
            found: text.to_owned(),
            hint: hint(text, all.map(Self::as_str)),
        })
    }
}

/// Something that a limit may be set on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Mean time to first token.
    MeanTtftS,
    /// Mean time per output token after the first.
    MeanTpotS,
    /// Duration of one batch.
    DurationS,
    /// Energy of one batch, all GPUs.
    EnergyJ,
    /// Energy per output token.
    EnergyPerTokenJ,
    /// Energy per request.
    EnergyPerRequestJ,
    /// Energy per day at the meter, the building's own share included.
    EnergyPerDayKwh,
    /// Price of the energy and of the GPU hours of one request.
    CostPerRequest,
    /// Carbon dioxide of the energy of one request.
    CarbonPerRequestG,
    /// Mean power of all GPUs of the deployment.
    MeanPowerW,
    /// Output tokens per second of the whole deployment: the one quantity with a minimum.
    ThroughputTokS,
    /// GPUs of the deployment.
    NumGpus,
    /// Tensor-parallel degree.
    TensorParallel,
    /// Pipeline-parallel degree.
    PipelineParallel,
    /// Data-parallel degree.
    DataParallel,
    /// Sequences in flight over all replicas.
    BatchSize,
}

impl Quantity {
    /// Every quantity.
    pub const ALL: &'static [Quantity] = &[
        Self::MeanTtftS,
        Self::MeanTpotS,
        Self::DurationS,
        Self::EnergyJ,
        Self::EnergyPerTokenJ,
        Self::EnergyPerRequestJ,
        Self::EnergyPerDayKwh,
        Self::CostPerRequest,
        Self::CarbonPerRequestG,
        Self::MeanPowerW,
        Self::ThroughputTokS,
        Self::NumGpus,
        Self::TensorParallel,
        Self::PipelineParallel,
        Self::DataParallel,
        Self::BatchSize,
    ];

    /// The spelling on the command line, in tables and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MeanTtftS => "mean_ttft_s",
            Self::MeanTpotS => "mean_tpot_s",
            Self::DurationS => "duration_s",
            Self::EnergyJ => "energy_j",
            Self::EnergyPerTokenJ => "energy_per_token_j",
            Self::EnergyPerRequestJ => "energy_per_request_j",
            Self::EnergyPerDayKwh => "energy_per_day_kwh",
            Self::CostPerRequest => "cost_per_request",
            Self::CarbonPerRequestG => "carbon_per_request_g",
            Self::MeanPowerW => "mean_power_w",
            Self::ThroughputTokS => "throughput_tok_s",
            Self::NumGpus => "num_gpus",
            Self::TensorParallel => "tensor_parallel",
            Self::PipelineParallel => "pipeline_parallel",
            Self::DataParallel => "data_parallel",
            Self::BatchSize => "batch_size",
        }
    }

    /// Whether more is better, so that a limit is a minimum.
    pub fn is_minimum(self) -> bool {
        self == Self::ThroughputTokS
    }

    /// The law, besides that of the energy, without which the quantity is not known.
    pub fn target(self) -> Option<Target> {
        match self {
            Self::MeanTtftS => Some(Target::MeanTtftS),
            Self::MeanTpotS => Some(Target::MeanTpotS),
            Self::DurationS | Self::MeanPowerW | Self::ThroughputTokS => Some(Target::DurationS),
            _ => None,
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl FromStr for Quantity {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        // What an operator types after reading `nvidia-smi`; the table's name is the longer one.
        if text == "power_w" {
            return Ok(Self::MeanPowerW);
        }
        Self::ALL.iter().copied().find(|q| q.as_str() == text).ok_or_else(|| Error::UnknownName {
            what: "quantity",
            found: text.to_owned(),
            hint: hint(text, Self::ALL.iter().map(|q| q.as_str())),
        })
    }
}

/// `; did you mean ...?`, or what there is.
pub(super) fn hint<'a>(text: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(text, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("expected one of {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

/// One bound that the answer must respect: an upper one, except for throughput.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limit {
    /// What is bounded.
    pub quantity: Quantity,
    /// Largest value that is accepted; for throughput the smallest.
    pub bound: f64,
}

impl Limit {
    /// Whether `value` respects the limit.
    pub fn holds(&self, value: f64) -> bool {
        if self.quantity.is_minimum() { value >= self.bound } else { value <= self.bound }
    }

    /// By which factor `value` misses the limit; at most 1 where it holds.
    pub(super) fn excess(&self, value: f64) -> f64 {
        if self.quantity.is_minimum() { self.bound / value } else { value / self.bound }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.quantity.is_minimum() { ">=" } else { "<=" };
        // As it was written, but for bounds that would be a line of zeros.
        if (1e-6..1e15).contains(&self.bound) {
            write!(f, "{} {sign} {}", self.quantity, self.bound)
        } else {
            write!(f, "{} {sign} {:e}", self.quantity, self.bound)
        }
    }
}

impl FromStr for Limit {
    type Err = Error;
    /// `mean_tpot_s=0.05`, `mean_tpot_s<=0.05`, `throughput_tok_s>=2000`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |problem: String| Error::Limit { text: text.to_owned(), problem };
        let at = text
            .find(['<', '>', '='])
            .ok_or_else(|| wrong("expected QUANTITY=NUMBER, for example mean_tpot_s=0.05".to_owned()))?;
        let (name, rest) = text.split_at(at);
        let signs = ["<=", ">=", "<", ">", "="];
        let sign = signs.into_iter().find(|s| rest.starts_with(s)).unwrap_or("=");
        let quantity: Quantity = name.trim().parse()?;
        match (quantity.is_minimum(), sign.chars().next()) {
            (true, Some('<')) => return Err(wrong(format!("{quantity} has a minimum; write {quantity}>=NUMBER"))),
            (false, Some('>')) => return Err(wrong(format!("{quantity} has a maximum; write {quantity}<=NUMBER"))),
            _ => {}
        }
        let number = rest.get(sign.len()..).unwrap_or_default().trim();
        let bound = number.parse::<f64>().ok().filter(|b| b.is_finite() && *b > 0.0);
        let bound = bound.ok_or_else(|| {
            let unit_given = number.starts_with(|c: char| c.is_ascii_digit()) && number.ends_with(char::is_alphabetic);
            let fix = if unit_given { "; write the number alone, in the unit of the quantity's name" } else { "" };
            wrong(format!("expected a positive number, found `{number}`{fix}"))
        })?;
        Ok(Self { quantity, bound })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_upper_bounds_except_for_throughput() {
        let limit: Limit = "mean_tpot_s=0.05".parse().unwrap();
        assert_eq!("mean_tpot_s <= 0.05".parse::<Limit>().unwrap(), limit);
        assert!(limit.holds(0.05) && !limit.holds(0.051));
        let floor: Limit = "throughput_tok_s>=2000".parse().unwrap();
        assert_eq!("throughput_tok_s=2000".parse::<Limit>().unwrap(), floor);
        assert!(floor.holds(2001.0) && !floor.holds(1999.0));
        assert_eq!(floor.to_string(), "throughput_tok_s >= 2000");
        for (bound, said) in [("1e-300", "1e-300"), ("0.00005", "0.00005"), ("1e300", "1e300"), ("86400", "86400")] {
            let limit: Limit = format!("mean_tpot_s={bound}").parse().unwrap();
            assert_eq!(limit.to_string(), format!("mean_tpot_s <= {said}"));
            assert_eq!(limit.to_string().parse::<Limit>().unwrap(), limit);
        }
        assert_eq!("power_w=700".parse::<Limit>().unwrap().quantity, Quantity::MeanPowerW);
        for (text, expected) in [
            ("mean_tpot=0.05", "did you mean `mean_tpot_s`"),
            ("mean_tpot_s", "expected QUANTITY=NUMBER"),
            ("mean_tpot_s>=0.05", "write mean_tpot_s<=NUMBER"),
            ("throughput_tok_s<=5", "write throughput_tok_s>=NUMBER"),
            ("mean_tpot_s=50ms", "found `50ms`"),
            ("mean_tpot_s=-1", "expected a positive number"),
            ("zebra=1", "expected one of mean_ttft_s"),
        ] {
            let message = text.parse::<Limit>().unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message:?} should contain {expected:?}");
        }
    }
}
