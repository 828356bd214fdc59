//! Rows of the `samples` table.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int32Type};
use arrow::record_batch::RecordBatch;

use super::super::columns;
use super::super::error::{Error, Result};
use super::builder::BatchBuilder;
use crate::schema::{EnergySource, SAMPLES};

/// A reading that moved, or a heartbeat.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRow {
    /// Device; shared, as a recording has few and many rows of each.
    pub device: Arc<str>,
    /// Poll that first saw the value.
    pub t_mono_ns: i64,
    /// Last poll that still saw the value before.
    pub t_prev_poll_ns: i64,
    /// Cumulative energy, µJ.
    pub energy_counter_uj: Option<u64>,
    /// Power, W.
    pub power_w: Option<f64>,
    /// The device's own timestamp, ns.
    pub t_device_ns: Option<i64>,
    /// What kind of reading it is.
    pub source: EnergySource,
    /// Slurm jobs on the node at that instant; shared, as it changes seldom.
    pub job_id: Option<Arc<str>>,
}

impl SampleRow {
    /// The rows as a batch.
    pub fn batch(rows: &[Self]) -> Result<RecordBatch> {
        BatchBuilder::new(&SAMPLES)
            .labels("device", rows.iter().map(|r| Some(r.device.as_ref())))
            .i64s("t_mono_ns", rows.iter().map(|r| Some(r.t_mono_ns)))
            .i64s("t_prev_poll_ns", rows.iter().map(|r| Some(r.t_prev_poll_ns)))
            .u64s("energy_counter_uj", rows.iter().map(|r| r.energy_counter_uj))
            .f64s("power_w", rows.iter().map(|r| r.power_w))
            .i64s("t_device_ns", rows.iter().map(|r| r.t_device_ns))
            .labels("source", rows.iter().map(|r| Some(r.source.as_str())))
            .labels("job_id", rows.iter().map(|r| r.job_id.as_deref()))
            .finish()
    }

    /// The rows of a batch, from our files or from others' with the same columns.
    pub fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>> {
        let devices = shared_labels(batch, "device")?.into_iter().enumerate();
        let devices = devices.map(|(row, word)| word.ok_or_else(|| missing("device", row)));
        let t_mono = columns::i64s(batch, "t_mono_ns")?;
        let t_prev = columns::i64s(batch, "t_prev_poll_ns")?;
        let energy = columns::optional(batch, "energy_counter_uj", columns::u64s)?;
        let power = columns::optional(batch, "power_w", columns::f64s)?;
        let t_device = columns::optional(batch, "t_device_ns", columns::i64s)?;
        let sources = shared_labels(batch, "source")?;
        let jobs = columns::optional(batch, "job_id", shared_labels)?.unwrap_or_else(|| vec![None; batch.num_rows()]);
        let mut last_source: Option<(Arc<str>, EnergySource)> = None;
        let mut rows = Vec::with_capacity(batch.num_rows());
        for (row, ((device, source), job_id)) in devices.zip(sources).zip(jobs).enumerate() {
            let source = source.ok_or_else(|| missing("source", row))?;
            // Almost always the same word as in the row before.
            let source = match &last_source {
                Some((word, known)) if Arc::ptr_eq(word, &source) => *known,
                _ => {
                    let known = source.parse().map_err(|e: crate::schema::UnknownLabel| {
                        Error::column("source", "a known label", e.to_string())
                    })?;
                    last_source = Some((source, known));
                    known
                }
            };
            rows.push(Self {
                device: device?,
                t_mono_ns: columns::required(&t_mono, "t_mono_ns", row)?,
                t_prev_poll_ns: columns::required(&t_prev, "t_prev_poll_ns", row)?,
                energy_counter_uj: energy.as_ref().and_then(|a| columns::value(a, row)),
                power_w: power.as_ref().and_then(|a| columns::value(a, row)),
                t_device_ns: t_device.as_ref().and_then(|a| columns::value(a, row)),
                source,
                job_id,
            });
        }
        Ok(rows)
    }
}

/// A text column with one allocation per distinct value where the file has a dictionary.
fn shared_labels(batch: &RecordBatch, name: &str) -> Result<Vec<Option<Arc<str>>>> {
    let dictionary = batch.column_by_name(name).and_then(|array| match array.data_type() {
        DataType::Dictionary(key, value) if **key == DataType::Int32 && **value == DataType::Utf8 => {
            array.as_dictionary_opt::<Int32Type>()
        }
        _ => None,
    });
    let Some(dictionary) = dictionary else {
        return Ok(columns::text(batch, name)?.iter().map(|text| text.map(Arc::from)).collect());
    };
    let words: Vec<Option<Arc<str>>> =
        dictionary.values().as_string::<i32>().iter().map(|w| w.map(Arc::from)).collect();
    let word = |row: usize| dictionary.key(row).and_then(|key| words.get(key).cloned().flatten());
    Ok((0..dictionary.len()).map(word).collect())
}

fn missing(name: &str, row: usize) -> Error {
    Error::column(name, format!("a value in row {}", row + 1), "none")
}
