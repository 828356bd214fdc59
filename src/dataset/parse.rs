//! Cells to rows: each value on its own; what values say together is [`check`](super::check)'s.

use std::collections::HashMap;

use super::frame::{Cell, Record};
use super::quality;
use super::row::{RejectedRow, Row};
use crate::schema::{EnergySource, Phase};

/// One record with the places of its columns.
pub(super) struct Cells<'a> {
    pub(super) record: &'a Record,
    pub(super) places: &'a HashMap<&'static str, usize>,
}

impl Cells<'_> {
    fn cell(&self, name: &str) -> &Cell {
        self.places.get(name).and_then(|i| self.record.cells.get(*i)).unwrap_or(&Cell::Missing)
    }

    pub(super) fn refuse(&self, column: &str, reason: impl Into<String>) -> RejectedRow {
        RejectedRow { line: self.record.line, column: Some(column.to_owned()), reason: reason.into() }
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.cell(name) {
            Cell::Missing => None,
            Cell::Text(text) => Some(text.clone()),
            Cell::Number(number) => Some(number.to_string()),
        }
    }

    /// A name is printed in lines of ours: one with a line break in it would forge the next.
    pub(super) fn name(&self, name: &str) -> Result<Option<String>, RejectedRow> {
        match self.text(name) {
            Some(text) if text.contains('\n') => {
                Err(self.refuse(name, "expected a name of one line, found a line break in it"))
            }
            text => Ok(text),
        }
    }

    pub(super) fn required_name(&self, name: &str) -> Result<String, RejectedRow> {
        self.name(name)?.ok_or_else(|| self.refuse(name, "expected a name, found nothing"))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, RejectedRow> {
        let number = match self.cell(name) {
            Cell::Missing => return Ok(None),
            Cell::Number(number) => *number,
            Cell::Text(text) => text.parse().map_err(|_| self.refuse(name, not_a_number(text)))?,
        };
        if !number.is_finite() {
            return Err(self.refuse(name, format!("expected a finite number, found {number}")));
        }
        Ok(Some(number))
    }

    pub(super) fn positive(&self, name: &str) -> Result<Option<f64>, RejectedRow> {
        match self.number(name)? {
            Some(number) if number <= 0.0 => Err(self.refuse(name, format!("expected more than 0, found {number}"))),
            number => Ok(number),
        }
    }

    pub(super) fn not_negative(&self, name: &str) -> Result<Option<f64>, RejectedRow> {
        match self.number(name)? {
            Some(number) if number < 0.0 => Err(self.refuse(name, format!("expected 0 or more, found {number}"))),
            number => Ok(number),
        }
    }

    /// A quantity that is counted but may be a mean: at least 1.
    pub(super) fn amount(&self, name: &str) -> Result<Option<f64>, RejectedRow> {
        match self.number(name)? {
            Some(number) if number < 1.0 => Err(self.refuse(name, format!("expected 1 or more, found {number}"))),
            number => Ok(number),
        }
    }

    pub(super) fn required_amount(&self, name: &str) -> Result<f64, RejectedRow> {
        self.amount(name)?.ok_or_else(|| self.refuse(name, "expected a number, found nothing"))
    }

    pub(super) fn count(&self, name: &str) -> Result<Option<u32>, RejectedRow> {
        let Some(number) = self.amount(name)? else { return Ok(None) };
        // Ten million GPUs is no machine of this century, and keeps products of degrees inside u64.
        if number.fract() != 0.0 || number > 1e7 {
            return Err(
                self.refuse(name, format!("expected a whole number from 1 to 10000000, found {}", shown(number)))
            );
        }
        Ok(Some(number as u32))
    }

    pub(super) fn required_count(&self, name: &str) -> Result<u32, RejectedRow> {
        self.count(name)?.ok_or_else(|| self.refuse(name, "expected a whole number, found nothing"))
    }
}

/// A number for a message: as it stands, in powers of ten where that would be a line of zeros.
pub(super) fn shown(number: f64) -> String {
    let size = number.abs();
    if number == 0.0 || (1e-6..1e12).contains(&size) { number.to_string() } else { format!("{number:e}") }
}

fn not_a_number(text: &str) -> String {
    let shown: String = text.chars().take(40).collect();
    let fix = if text.contains(',') {
        "; write a point as the decimal mark and no thousands separators"
    } else if text.starts_with(|c: char| c.is_ascii_digit()) {
        "; write the number alone, the unit stands in the column's name"
    } else {
        ""
    };
    format!("expected a number, found `{shown}`{fix}")
}

/// Reads a row of our own columns. With `lenient_energy` (configurations to be predicted) a bad energy is no matter.
pub(super) fn row(cells: &Cells<'_>, lenient_energy: bool) -> Result<Row, RejectedRow> {
    if let Some(defect) = &cells.record.defect {
        return Err(RejectedRow { line: cells.record.line, column: None, reason: defect.clone() });
    }
    let label = |name: &'static str, error: String| cells.refuse(name, error);
    let phase = match cells.text("phase") {
        None => Phase::Total,
        Some(text) => text.parse().map_err(|e: crate::schema::UnknownLabel| label("phase", e.to_string()))?,
    };
    let source = match cells.text("source") {
        None => EnergySource::Imported,
        Some(text) => text.parse().map_err(|e: crate::schema::UnknownLabel| label("source", e.to_string()))?,
    };
    let quality: Vec<String> = {
        let words = cells.text("quality").unwrap_or_default();
        words.split(';').map(str::trim).filter(|q| !q.is_empty()).map(str::to_owned).collect()
    };
    if !lenient_energy && let Some(word) = quality::rejecting(&quality) {
        let run_id = cells.text("run_id").unwrap_or_default();
        return Err(cells.refuse("quality", quality::describe(&run_id, phase, word)));
    }
    let energy_j = match cells.positive("energy_j") {
        Ok(Some(energy_j)) => Some(energy_j),
        Ok(None) if !lenient_energy => {
            return Err(cells.refuse("energy_j", "expected joules, found nothing (an empty field, NA or NaN)"));
        }
        Err(refused) if !lenient_energy => return Err(refused),
        Ok(None) | Err(_) => None,
    };
    Ok(Row {
        line: cells.record.line,
        run_id: cells.name("run_id")?.unwrap_or_else(|| format!("row-{}", cells.record.line)),
        phase,
        model: cells.required_name("model")?,
        architecture: cells.name("architecture")?,
        engine: cells.name("engine")?,
        precision: cells.name("precision")?,
        gpu_model: cells.required_name("gpu_model")?,
        num_gpus: cells.required_count("num_gpus")?,
        tensor_parallel: cells.required_count("tensor_parallel")?,
        pipeline_parallel: cells.required_count("pipeline_parallel")?,
        data_parallel: cells.count("data_parallel")?.unwrap_or(1),
        expert_parallel: cells.count("expert_parallel")?.unwrap_or(1),
        batch_size: cells.required_amount("batch_size")?,
        input_tokens: cells.amount("input_tokens")?,
        output_tokens: cells.required_amount("output_tokens")?,
        energy_j,
        energy_j_std: if lenient_energy { None } else { cells.not_negative("energy_j_std")? },
        duration_s: cells.positive("duration_s")?,
        mean_ttft_s: cells.not_negative("mean_ttft_s")?,
        mean_tpot_s: cells.not_negative("mean_tpot_s")?,
        kv_capacity_tokens: cells.positive("kv_capacity_tokens")?,
        params: cells.positive("params")?,
        active_params: cells.positive("active_params")?,
        n_layers: cells.amount("n_layers")?,
        hidden_size: cells.amount("hidden_size")?,
        kv_bytes_per_token: cells.not_negative("kv_bytes_per_token")?,
        num_experts: cells.not_negative("num_experts")?,
        experts_per_token: cells.not_negative("experts_per_token")?,
        bytes_per_weight: cells.positive("bytes_per_weight")?,
        gpu_memory_bytes: cells.positive("gpu_memory_bytes")?,
        quality,
        source,
        method: cells
            .text("method")
            .map(|m| m.parse().map_err(|e| cells.refuse("method", format!("{e}"))))
            .transpose()?,
        idle_power_w: cells.not_negative("idle_power_w")?,
    })
}
