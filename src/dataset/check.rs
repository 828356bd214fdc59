//! What the values of one row say together, and what cannot be true.
//!
//! Two bounds on an energy. With a duration it is the mean power per GPU, 5 W (less than any data-centre GPU idles at)
//! to 3 kW (twice the largest board limit announced). Without one it is
//!
//! ```text
//! 1e-13 J x 2 N batch_size tokens + 2e-11 J x N/2 steps
//!     <=  E  <=  1500 J x num_gpus steps + 60 J x batch_size tokens,  100 x typical
//! ```
//!
//! with N the active parameters, or a tenth of the size that the model's name states, or 5e7; `tokens` what one
//! sequence processes, `steps` its output tokens (1 in prefill). Below it a GPU would do 10 TFLOP per joule (the best of
//! 2026 does 9, in 4 bit) and read 4-bit weights at 2.5 pJ/bit (HBM3 alone takes about 4); above it every step would take
//! seconds at full power, or, where the model's size is known, a hundred times what such a model takes. Measured rows of
//! others lie at 0.2 to 18 times the typical energy, and most slips of 1000 or more fall out of the band.

use super::parse;
use super::row::{RejectedRow, Row};
use crate::card::ModelCard;
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

    /// Whether the values are too large, rather than too small.
    pub fn is_too_large(self) -> bool {
        self.joules_per_unit() < 1.0
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
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The row and the reason.
    pub row: RejectedRow,
    /// The energy at fault, where that is it.
    doubt: Option<Doubt>,
}

/// An energy outside its bounds, before anybody says in which unit it may be.
#[derive(Debug, Clone, PartialEq)]
struct Doubt {
    energy_j: f64,
    least_j: f64,
    most_j: f64,
    off_log: f64,
    has_duration: bool,
    /// The reason without a guess at the unit.
    finding: String,
}

impl From<RejectedRow> for Refusal {
    fn from(row: RejectedRow) -> Self {
        Self { row, doubt: None }
    }
}

impl Refusal {
    /// The slip, when another unit makes the row plausible: of those that do, the one that brings it nearest to the
    /// other rows, which lie `usual_log` off the typical energy.
    pub fn slip(&self, usual_log: f64) -> Option<UnitSlip> {
        let doubt = self.doubt.as_ref()?;
        let band = doubt.least_j..=doubt.most_j;
        let off_by = |slip: &UnitSlip| (doubt.off_log - usual_log + slip.joules_per_unit().ln()).abs();
        UnitSlip::ALL
            .into_iter()
            .filter(|slip| band.contains(&(doubt.energy_j * slip.joules_per_unit())))
            .min_by(|a, b| off_by(a).total_cmp(&off_by(b)))
    }

    /// How far the energy is off, as the logarithm of its factor; `None` where it is not at fault.
    pub fn off_log(&self) -> Option<f64> {
        self.doubt.as_ref().map(|d| d.off_log)
    }

    /// The same refusal with `slip` as the likely fix.
    pub fn explained(mut self, slip: Option<UnitSlip>) -> Self {
        if let Some(doubt) = &self.doubt {
            let fix = match slip {
                Some(UnitSlip::Kilojoules) if doubt.has_duration => {
                    format!("; {}, or is duration_s in ms?", UnitSlip::Kilojoules.hint())
                }
                Some(slip) => format!("; {}", slip.hint()),
                None => String::new(),
            };
            self.row.reason = format!("{}{fix}", doubt.finding);
        }
        self
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
    if row.batch_size < f64::from(row.data_parallel) {
        return refuse(
            "batch_size",
            format!(
                "expected at least one sequence per replica, data_parallel = {d}, found {}; batch_size counts the \
                 sequences of all replicas",
                row.batch_size
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
    let figure = |j: f64| if (1e-3..1e9).contains(&j) { format!("{j:.3}") } else { format!("{j:.3e}") };
    let finding =
        format!("expected {} to {} J ({what}), found {}", figure(least_j), figure(most_j), parse::shown(energy_j));
    let doubt = Doubt {
        energy_j,
        least_j,
        most_j,
        off_log: off_log(row).unwrap_or_default(),
        has_duration: row.duration_s.is_some(),
        finding: finding.clone(),
    };
    let rejected = RejectedRow { line: row.line, column: Some("energy_j".to_owned()), reason: finding };
    let refusal = Refusal { row: rejected, doubt: Some(doubt) };
    let slip = refusal.slip(0.0);
    Err(refusal.explained(slip))
}

/// Logarithm of the energy over what is typical of the row; `None` without an energy.
pub fn off_log(row: &Row) -> Option<f64> {
    let energy_j = row.energy_j?;
    let by_size = |size: Size| typical_j(row, size);
    let typical_log = match (row.duration_s, Size::of(row).map(by_size)) {
        // Each alone is right within a factor of three; their errors have little in common.
        (Some(duration_s), Some(by_size)) => ((250.0 * f64::from(row.num_gpus) * duration_s).ln() + by_size.ln()) / 2.0,
        (Some(duration_s), None) => (250.0 * f64::from(row.num_gpus) * duration_s).ln(),
        (None, Some(by_size)) => by_size.ln(),
        (None, None) => {
            let (least_j, most_j) = energy_bounds_j(row);
            (least_j * most_j).sqrt().ln()
        }
    };
    Some(energy_j.ln() - typical_log)
}

/// Tokens that the batch processes, and the steps that read the weights.
fn work(row: &Row) -> (f64, f64) {
    let input_tokens = row.input_tokens.unwrap_or(1.0);
    let tokens = match row.phase {
        Phase::Prefill => input_tokens,
        Phase::Decode => row.output_tokens,
        Phase::Total => input_tokens + row.output_tokens,
    };
    (row.batch_size * tokens, if row.phase == Phase::Prefill { 1.0 } else { row.output_tokens })
}

fn energy_bounds_j(row: &Row) -> (f64, f64) {
    let (processed, steps) = work(row);
    let card = || ModelCard::builtin(&row.model).map(|card| card.active_params);
    let params =
        row.active_params.or_else(card).or_else(|| sizes_in_name(&row.model).map(|(n, _)| n / 10.0)).unwrap_or(5e7);
    let least_j = 1e-13 * 2.0 * params * processed + 2e-11 * params / 2.0 * steps;
    let any_j = 1500.0 * f64::from(row.num_gpus) * steps + 60.0 * processed;
    let most_j = Size::of(row).map_or(any_j, |size| any_j.min(100.0 * typical_j(row, size)));
    // Sizes that contradict each other leave no band at all; then the wider one holds.
    if least_j < most_j { (least_j, most_j) } else { (least_j.min(any_j), any_j) }
}

/// What a model of this size takes: 0.5 J per step and GPU (3 ms at 170 W), 0.2 nJ per byte of 16-bit weights, 3 pJ per
/// operation. Measured rows of others lie between 0.2 and 18 times that.
fn typical_j(row: &Row, size: Size) -> f64 {
    let (processed, steps) = work(row);
    let replicas = f64::from(row.data_parallel.max(1));
    // A replica reads the experts that its sequences visit, at most all of them.
    let read_params = size.params.min(size.active_params * (row.batch_size / replicas).max(1.0));
    let step_j = 0.5 * f64::from(row.num_gpus) + replicas * 2.0 * read_params * 2e-10;
    step_j * steps + 2.0 * size.active_params * processed * 3e-12
}

/// A model's size, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Size {
    params: f64,
    active_params: f64,
}

impl Size {
    /// From the columns, else from the card of that name, else from the name itself.
    fn of(row: &Row) -> Option<Self> {
        let columns = row
            .params
            .or(row.active_params)
            .map(|params| Self { params, active_params: row.active_params.unwrap_or(params) });
        let card = || {
            let card = ModelCard::builtin(&row.model)?;
            Some(Self { params: card.params, active_params: card.active_params })
        };
        // Below 5e7 it is a length of context (`-1M`) rather than a size.
        let name = || {
            let (_, params) = sizes_in_name(&row.model).filter(|(_, params)| *params >= 5e7)?;
            Some(Self { params, active_params: params })
        };
        columns.or_else(card).or_else(name)
    }
}

/// The smallest and the largest size that a model name states: `Qwen3-30B-A3B` says 3 and 30 billion, `8x7B` 7 and 56.
fn sizes_in_name(name: &str) -> Option<(f64, f64)> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    name.split(|c: char| !(is_number(c) || c.is_ascii_alphabetic()))
        .filter_map(|word| {
            let word = word.to_ascii_lowercase();
            let (number, scale) = match (word.strip_suffix('b'), word.strip_suffix('m')) {
                (Some(number), _) => (number.to_owned(), 1e9),
                (_, Some(number)) => (number.to_owned(), 1e6),
                _ => return None,
            };
            let (before, number) = number.rsplit_once(|c| !is_number(c)).unwrap_or(("", &number));
            let size = number.parse::<f64>().ok()? * scale;
            let is_product = word.contains(&format!("{before}x{number}"));
            let experts = before.parse::<f64>().ok().filter(|n| is_product && *n >= 1.0).unwrap_or(1.0);
            Some((size, experts * size))
        })
        .filter(|(n, _)| *n > 0.0)
        .reduce(|(least, most), (a, b)| (least.min(a), most.max(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_read_from_the_name() {
        let table = [
            ("meta-llama/Llama-2-70b-hf", Some((70e9, 70e9))),
            ("Qwen3-30B-A3B", Some((3e9, 30e9))),
            ("mistralai/Mixtral-8x7B-v0.1", Some((7e9, 56e9))),
            ("Qwen2.5-0.5B", Some((0.5e9, 0.5e9))),
            ("smollm-135m", Some((135e6, 135e6))),
            ("gpt-oss", None),
        ];
        for (name, expected) in table {
            assert_eq!(sizes_in_name(name), expected, "{name}");
        }
    }
}
