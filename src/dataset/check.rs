//! What the values of one row say together, and what cannot be true.
//!
//! Two bounds on an energy. With a duration it is the mean power per GPU, 5 W (less than any data-centre GPU idles at)
//! to 3 kW (twice the largest board limit announced). Without one it is
//!
//! ```text
//! 1e-13 J x 2 N batch_size tokens + 2e-11 J x N/2 steps
//!     <=  E  <=  1500 J x num_gpus steps + 60 J x batch_size tokens
//! ```
//!
//! with N the active parameters, or a tenth of the size that the model's name states, or 5e7; `tokens` what one
//! sequence processes, `steps` its output tokens (1 in prefill). Below it a GPU would do 10 TFLOP per joule (the best of
//! 2026 does 9, in 4 bit) and read 4-bit weights at 2.5 pJ/bit (HBM3 alone takes about 4); above it every step would take
//! seconds at full power. Measured rows of others lie a factor of 10 or more inside on either side, and most slips of
//! 1000 or more fall out of it.

use super::parse;
use super::row::{RejectedRow, Row};
use crate::schema::Phase;

/// A unit that an energy may be in by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnitSlip {
    /// Values are 1e6 times too large.
    Microjoules,
    /// Values are 1000 times too large.
    Millijoules,
    /// Values are 1000 times too small.
    Kilojoules,
    /// Values are 3600 times too small.
    WattHours,
    /// Values are 3.6e6 times too small.
    KilowattHours,
}

impl UnitSlip {
    const ALL: [Self; 5] =
        [Self::Microjoules, Self::Millijoules, Self::Kilojoules, Self::WattHours, Self::KilowattHours];

    fn joules_per_unit(self) -> f64 {
        match self {
            Self::Microjoules => 1e-6,
            Self::Millijoules => 1e-3,
            Self::Kilojoules => 1e3,
            Self::WattHours => 3600.0,
            Self::KilowattHours => crate::units::J_PER_KWH,
        }
    }

    /// Which unit it looks like and what to do.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Microjoules => "energy_j seems to be in microjoules: divide it by 1e6",
            Self::Millijoules => "energy_j seems to be in millijoules: divide it by 1000",
            Self::Kilojoules => "energy_j seems to be in kilojoules: multiply it by 1000",
            Self::WattHours => "energy_j seems to be in Wh: multiply it by 3600",
            Self::KilowattHours => "energy_j seems to be in kWh: multiply it by 3.6e6",
        }
    }
}

/// A refused row, with the unit slip that would explain it where one does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The row and the reason.
    pub row: RejectedRow,
    /// The slip, when another unit makes the row plausible.
    pub slip: Option<UnitSlip>,
}

impl From<RejectedRow> for Refusal {
    fn from(row: RejectedRow) -> Self {
        Self { row, slip: None }
    }
}

/// Column, value, least and most that any machine or model of this century has. Beyond them products of columns leave
/// the range of floating-point numbers, and a fit would search for ever in what is infinite everywhere.
fn ranges(row: &Row) -> [(&'static str, Option<f64>, f64, f64); 16] {
    const TOKENS: f64 = 1e9;
    const TIMES: (f64, f64) = (1e-9, 1e9);
    // A time of 0 is one that nobody took.
    let time = |seconds: Option<f64>| seconds.filter(|s| *s != 0.0);
    [
        ("batch_size", Some(row.batch_size), 1.0, 1e7),
        ("input_tokens", row.input_tokens, 1.0, TOKENS),
        ("output_tokens", Some(row.output_tokens), 1.0, TOKENS),
        ("duration_s", row.duration_s, TIMES.0, TIMES.1),
        ("mean_ttft_s", time(row.mean_ttft_s), TIMES.0, TIMES.1),
        ("mean_tpot_s", time(row.mean_tpot_s), TIMES.0, TIMES.1),
        ("kv_capacity_tokens", row.kv_capacity_tokens, 1.0, 1e15),
        ("params", row.params, 0.0, 1e16),
        ("active_params", row.active_params, 1e3, 1e16),
        ("n_layers", row.n_layers, 1.0, 1e5),
        ("hidden_size", row.hidden_size, 1.0, 1e7),
        ("kv_bytes_per_token", row.kv_bytes_per_token, 0.0, 1e12),
        ("num_experts", row.num_experts, 0.0, 1e6),
        ("experts_per_token", row.experts_per_token, 0.0, 1e6),
        ("bytes_per_weight", row.bytes_per_weight, 0.01, f64::INFINITY),
        ("gpu_memory_bytes", row.gpu_memory_bytes, 0.0, 1e15),
    ]
}

/// Refuses a row whose values contradict each other or physics.
pub fn row(row: &Row) -> Result<(), Refusal> {
    let refuse = |column: &str, reason: String| {
        Err(Refusal::from(RejectedRow { line: row.line, column: Some(column.to_owned()), reason }))
    };
    for (column, value, least, most) in ranges(row) {
        if let Some(value) = value.filter(|v| !(least..=most).contains(v)) {
            let [least, most, found] = [least, most, value].map(parse::shown);
            return refuse(column, format!("expected a value from {least} to {most}, found {found}"));
        }
    }
    let (t, p, d) = (u64::from(row.tensor_parallel), u64::from(row.pipeline_parallel), u64::from(row.data_parallel));
    let product = t.saturating_mul(p).saturating_mul(d);
    let num_gpus = u64::from(row.num_gpus);
    if num_gpus != product {
        let per_replica = t.saturating_mul(p);
        let fix = if num_gpus > per_replica && num_gpus.is_multiple_of(per_replica) {
            format!("; with {} replicas say data_parallel = {}", num_gpus / per_replica, num_gpus / per_replica)
        } else {
            String::new()
        };
        return refuse(
            "num_gpus",
            format!(
                "expected tensor_parallel x pipeline_parallel x data_parallel = {t} x {p} x {d} = {product}, \
                 found {num_gpus}{fix}"
            ),
        );
    }
    if u64::from(row.expert_parallel) > t.saturating_mul(d) {
        return refuse(
            "expert_parallel",
            format!(
                "expected at most tensor_parallel x data_parallel = {} (experts reuse those ranks), found {}",
                t.saturating_mul(d),
                row.expert_parallel
            ),
        );
    }
    if let (Some(active), Some(all)) = (row.active_params, row.params)
        && active > all
    {
        return refuse("active_params", format!("expected at most params = {all}, found {active}"));
    }
    if let Some(params) = row.params.filter(|p| *p < 1e5) {
        return refuse(
            "params",
            format!("expected a number of parameters, found {params}; in billions? multiply by 1e9"),
        );
    }
    if let (Some(k), Some(e)) = (row.experts_per_token, row.num_experts)
        && k > e
    {
        return refuse("experts_per_token", format!("expected at most num_experts = {e}, found {k}"));
    }
    if let Some(bytes) = row.bytes_per_weight.filter(|b| *b > 8.0) {
        return refuse("bytes_per_weight", format!("expected at most 8, found {bytes}; in bits? divide by 8"));
    }
    if let Some(bytes) = row.gpu_memory_bytes.filter(|b| *b < 1e8) {
        return refuse("gpu_memory_bytes", format!("expected bytes, found {bytes}; in GB? multiply by 1e9"));
    }
    energy(row)
}

fn energy(row: &Row) -> Result<(), Refusal> {
    let Some(energy_j) = row.energy_j else { return Ok(()) };
    let (least_j, most_j, what) = match row.duration_s {
        Some(duration_s) => {
            let gpu_seconds = f64::from(row.num_gpus) * duration_s;
            (5.0 * gpu_seconds, 3000.0 * gpu_seconds, "5 W to 3 kW per GPU over duration_s")
        }
        None => {
            let (least_j, most_j) = energy_bounds_j(row);
            (least_j, most_j, "of a batch of this size")
        }
    };
    if (least_j..=most_j).contains(&energy_j) {
        return Ok(());
    }
    // Of the units that make it plausible the one nearest to the middle of what is: 300 W per GPU, or between the bounds.
    let typical_j = match row.duration_s {
        Some(duration_s) => 300.0 * f64::from(row.num_gpus) * duration_s,
        None => (least_j * most_j).sqrt(),
    };
    let off_by = |slip: &UnitSlip| (energy_j * slip.joules_per_unit() / typical_j).ln().abs();
    let slip = UnitSlip::ALL
        .into_iter()
        .filter(|slip| (least_j..=most_j).contains(&(energy_j * slip.joules_per_unit())))
        .min_by(|a, b| off_by(a).total_cmp(&off_by(b)));
    let fix = match (slip, row.duration_s) {
        (Some(slip @ UnitSlip::Kilojoules), Some(_)) => format!("; {}, or is duration_s in ms?", slip.hint()),
        (Some(slip), _) => format!("; {}", slip.hint()),
        (None, _) => String::new(),
    };
    let figure = |j: f64| if (1e-3..1e9).contains(&j) { format!("{j:.3}") } else { format!("{j:.3e}") };
    let reason =
        format!("expected {} to {} J ({what}), found {}{fix}", figure(least_j), figure(most_j), parse::shown(energy_j));
    Err(Refusal { row: RejectedRow { line: row.line, column: Some("energy_j".to_owned()), reason }, slip })
}

fn energy_bounds_j(row: &Row) -> (f64, f64) {
    let input_tokens = row.input_tokens.unwrap_or(1.0);
    let tokens = match row.phase {
        Phase::Prefill => input_tokens,
        Phase::Decode => row.output_tokens,
        Phase::Total => input_tokens + row.output_tokens,
    };
    let processed = row.batch_size * tokens;
    let params = row.active_params.or_else(|| size_in_name(&row.model).map(|n| n / 10.0)).unwrap_or(5e7);
    let steps = if row.phase == Phase::Prefill { 1.0 } else { row.output_tokens };
    let least_j = 1e-13 * 2.0 * params * processed + 2e-11 * params / 2.0 * steps;
    let most_j = 1500.0 * f64::from(row.num_gpus) * steps + 60.0 * processed;
    (least_j, most_j)
}

/// The smallest size that a model name states: `Qwen3-30B-A3B` says 30 and 3 billion.
fn size_in_name(name: &str) -> Option<f64> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    name.split(|c: char| !(is_number(c) || c.is_ascii_alphabetic()))
        .filter_map(|word| {
            let word = word.to_ascii_lowercase();
            let (number, scale) = match (word.strip_suffix('b'), word.strip_suffix('m')) {
                (Some(number), _) => (number.to_owned(), 1e9),
                (_, Some(number)) => (number.to_owned(), 1e6),
                _ => return None,
            };
            let number = number.rsplit(|c| !is_number(c)).next()?;
            number.parse::<f64>().ok().map(|n| n * scale)
        })
        .filter(|n| *n > 0.0)
        .min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_read_from_the_name() {
        let table = [
            ("meta-llama/Llama-2-70b-hf", Some(70e9)),
            ("Qwen3-30B-A3B", Some(3e9)),
            ("mistralai/Mixtral-8x7B-v0.1", Some(7e9)),
            ("Qwen2.5-0.5B", Some(0.5e9)),
            ("smollm-135m", Some(135e6)),
            ("gpt-oss", None),
        ];
        for (name, expected) in table {
            assert_eq!(size_in_name(name), expected, "{name}");
        }
    }
}
