//! Every table and column that energylens writes, with type, unit and one sentence, and the values that label rows.
//!
//! This file is the contract with analysts: the same names are the Lua axes, the CSV headers and the report's headings.
//! Files carry [`FORMAT_VERSION`]; a column may be added, never renamed or given another meaning within a version.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

/// Version of the on-disk tables; stands in every file's metadata as `energylens.format_version`.
pub const FORMAT_VERSION: &str = "1";

/// Physical type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// 64-bit float.
    F64,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
    /// Unsigned 32-bit integer.
    U32,
    /// UTF-8 text, few distinct values: dictionary-encoded.
    Label,
    /// UTF-8 text, mostly distinct values.
    Text,
    /// A list of labels.
    Labels,
    /// A wall-clock instant in UTC, in milliseconds.
    Timestamp,
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F64 => "f64",
            Self::I64 => "i64",
            Self::U64 => "u64",
            Self::U32 => "u32",
            Self::Label => "label",
            Self::Text => "text",
            Self::Labels => "labels",
            Self::Timestamp => "timestamp",
        })
    }
}

/// What a sealed file says of each row though nobody recorded it: it follows from the file's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Derived {
    /// The host that the file names.
    Host,
    /// The recording that the file is a part of.
    Recording,
    /// The wall-clock instant of the named column, which holds a monotonic one, by the file's clock anchor.
    WallClock(&'static str),
}

/// One column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Column name; the unit is its last part.
    pub name: &'static str,
    /// Physical type.
    pub column_type: ColumnType,
    /// Whether a value may be missing.
    pub nullable: bool,
    /// Unit (`J`, `s`, `ns`, ...), or empty for counts, ratios and labels.
    pub unit: &'static str,
    /// One sentence on what the value says.
    pub doc: &'static str,
    /// Where its values come from if they are not recorded; such columns are in sealed files only, not in spools.
    pub derived: Option<Derived>,
}

/// One table of a campaign directory.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Name; the first part of its files' names.
    pub name: &'static str,
    /// What a row is.
    pub doc: &'static str,
    /// Columns, in file order.
    pub columns: &'static [Column],
}

impl Column {
    /// The Arrow field, with unit and documentation in its metadata.
    pub fn field(&self) -> Field {
        let data_type = match self.column_type {
            ColumnType::F64 => DataType::Float64,
            ColumnType::I64 => DataType::Int64,
            ColumnType::U64 => DataType::UInt64,
            ColumnType::U32 => DataType::UInt32,
            ColumnType::Label => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            ColumnType::Text => DataType::Utf8,
            ColumnType::Labels => DataType::List(Arc::new(Field::new("item", DataType::Utf8, false))),
            ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        };
        let mut metadata = HashMap::from([("doc".to_owned(), self.doc.to_owned())]);
        if !self.unit.is_empty() {
            metadata.insert("unit".to_owned(), self.unit.to_owned());
        }
        Field::new(self.name, data_type, self.nullable).with_metadata(metadata)
    }
}

impl Table {
    /// The Arrow schema of the table as it is sealed.
    pub fn arrow_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(Column::field).collect::<Vec<_>>()))
    }

    /// The Arrow schema of what is recorded: without the columns that are derived when the table is sealed.
    pub fn recorded_schema(&self) -> SchemaRef {
        let recorded = self.columns.iter().filter(|c| c.derived.is_none());
        Arc::new(Schema::new(recorded.map(Column::field).collect::<Vec<_>>()))
    }

    /// The column called `name`.
    pub fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns.iter().find(|c| c.name == name)
    }
}

const fn col(name: &'static str, column_type: ColumnType, unit: &'static str, doc: &'static str) -> Column {
    Column { name, column_type, nullable: false, unit, doc, derived: None }
}

const fn opt(name: &'static str, column_type: ColumnType, unit: &'static str, doc: &'static str) -> Column {
    Column { name, column_type, nullable: true, unit, doc, derived: None }
}

/// The host of a row, for tables whose rows do not name it themselves.
const fn host() -> Column {
    let doc = "Node that recorded the row, as in the file's metadata; in sealed files only.";
    Column { name: "host", column_type: Label, nullable: true, unit: "", doc, derived: Some(Derived::Host) }
}

/// The recording of a row. Files of earlier versions do not say it.
const fn recording_id() -> Column {
    let doc = "Recording that the row is of, from one start of a recorder to its end; simulated counters are the \
               recording's own, real ones their device's. In sealed files only.";
    Column {
        name: "recording_id",
        column_type: Label,
        nullable: true,
        unit: "",
        doc,
        derived: Some(Derived::Recording),
    }
}

/// The wall-clock instant of the monotonic column `of`.
const fn wall_clock(name: &'static str, of: &'static str, doc: &'static str) -> Column {
    Column { name, column_type: Timestamp, nullable: true, unit: "", doc, derived: Some(Derived::WallClock(of)) }
}

use ColumnType::{F64, I64, Label, Labels, Text, Timestamp, U32, U64};

/// Counter readings that moved, and a heartbeat a second. What the machine said; nothing derived.
pub const SAMPLES: Table = Table {
    name: "samples",
    doc: "One row per observed change of an energy counter, and a heartbeat row at least once a second.",
    columns: &[
        col("device", Label, "", "Device the counter belongs to, as in the file's device table."),
        col(
            "t_mono_ns",
            I64,
            "ns",
            "Monotonic instant of the poll that first saw this value, rounded up by at most 1 % of the poll distance.",
        ),
        col(
            "t_prev_poll_ns",
            I64,
            "ns",
            "Monotonic instant of the last poll that still saw the value before, rounded down likewise: the counter moved in between.",
        ),
        opt(
            "energy_counter_uj",
            U64,
            "uJ",
            "The cumulative counter as the driver gave it, converted exactly to microjoules; missing where there is none.",
        ),
        opt("power_w", F64, "W", "Power as the driver reported it at the same poll."),
        opt("t_device_ns", I64, "ns", "The device's own timestamp of the reading, on the device's own time base."),
        col("source", Label, "", "Where the reading came from: counter, power or simulated."),
        opt(
            "job_id",
            Label,
            "",
            "Slurm job on the node at that instant; several, as in 123+124, where jobs shared it.",
        ),
        host(),
        wall_clock(
            "t",
            "t_mono_ns",
            "Wall-clock instant of t_mono_ns by the file's clock anchor, to 10 ms; in sealed files only.",
        ),
        recording_id(),
    ],
};

/// What changes slowly beside the energy, about once a second.
pub const TELEMETRY: Table = Table {
    name: "telemetry",
    doc: "One row per device and second: what changes slowly beside the energy.",
    columns: &[
        col("device", Label, "", "Device that told it, as in the file's device table."),
        col("t_mono_ns", I64, "ns", "Monotonic instant at which it was read."),
        opt("temperature_c", F64, "°C", "Temperature of the device."),
        opt("core_clock_hz", F64, "Hz", "Clock of the compute units."),
        opt("memory_clock_hz", F64, "Hz", "Clock of the memory."),
        opt("utilization", F64, "", "Share of the time in which the device did anything."),
        opt("memory_used_bytes", U64, "B", "Memory in use."),
        opt("power_limit_w", F64, "W", "Power limit in force."),
        col(
            "throttle_reasons",
            Labels,
            "",
            "What held the clocks down: power_cap, thermal, hardware, ...; empty where nothing did, or nothing is told.",
        ),
        col("source", Label, "", "measured or simulated."),
        host(),
        wall_clock(
            "t",
            "t_mono_ns",
            "Wall-clock instant of t_mono_ns by the file's clock anchor, to 10 ms; in sealed files only.",
        ),
    ],
};

/// Begin and end of phases, as the workload marked them.
pub const MARKS: Table = Table {
    name: "marks",
    doc: "One row per phase mark.",
    columns: &[
        col("t_mono_ns", I64, "ns", "Monotonic instant of the mark."),
        col("run_id", Label, "", "Run that the mark belongs to."),
        col("phase", Label, "", "Phase that begins or ends: idle, warmup, prefill, decode or total."),
        col("event", Label, "", "begin or end."),
        col("source", Label, "", "measured or simulated."),
        opt("uid", U32, "", "User who sent the mark, as the kernel says; missing where it came by no socket."),
        opt("job_id", Label, "", "Slurm job that the mark came from."),
        opt("step_id", Label, "", "Step of that job: a number, batch, extern or interactive."),
        host(),
        wall_clock(
            "t",
            "t_mono_ns",
            "Wall-clock instant of t_mono_ns by the file's clock anchor, to 10 ms; in sealed files only.",
        ),
    ],
};

/// Columns that describe a configuration and what it ran on; shared by `runs` and `phases`, and by the CSV contract.
macro_rules! configuration_columns {
    ($($extra:expr),* $(,)?) => {
        &[
            $($extra,)*
            col("model", Label, "", "Model name, in Hugging Face spelling where it has one."),
            opt("architecture", Label, "", "dense, moe, ssm, hybrid or vlm."),
            opt("engine", Label, "", "Inference engine."),
            opt("precision", Label, "", "Numeric format of the weights."),
            col("gpu_model", Label, "", "GPU model name."),
            col("num_gpus", U32, "", "GPUs of the run."),
            col("tensor_parallel", U32, "", "Tensor-parallel degree."),
            col("pipeline_parallel", U32, "", "Pipeline-parallel degree."),
            col("data_parallel", U32, "", "Data-parallel degree: replicas that share the batch."),
            col("expert_parallel", U32, "", "Expert-parallel degree; it reuses the tensor- and data-parallel ranks."),
            col("batch_size", F64, "", "Sequences in flight over all replicas; a mean where the engine batched by itself."),
            opt("input_tokens", F64, "", "Input tokens per sequence, vision tokens included."),
            col("output_tokens", F64, "", "Output tokens per sequence."),
            opt("kv_capacity_tokens", F64, "", "Tokens that the KV cache of one replica holds at this configuration."),
            opt("params", F64, "", "Parameters of the model."),
            opt("active_params", F64, "", "Parameters that take part in one token."),
            opt("n_layers", F64, "", "Layers of the model."),
            opt("hidden_size", F64, "", "Width of the residual stream."),
            opt("kv_bytes_per_token", F64, "B", "KV-cache bytes of one token over all attention layers."),
            opt("num_experts", F64, "", "Routed experts per MoE layer."),
            opt("experts_per_token", F64, "", "Routed experts that one token visits."),
            opt("bytes_per_weight", F64, "B", "Bytes of one weight as stored on the GPU."),
            opt("gpu_memory_bytes", F64, "B", "Memory of one GPU."),
        ]
    };
}

/// One row per run: what was asked, what came of it.
pub const RUNS: Table = Table {
    name: "runs",
    doc: "One row per run of the campaign.",
    columns: configuration_columns![
        col("run_id", Text, "", "Identifier of the run: the point's hash and the repeat."),
        col("point_id", Label, "", "Identifier of the point, shared by its repeats."),
        col("repeat", U32, "", "Which repeat of the point, from 0."),
        col("status", Label, "", "done or failed."),
        opt("error", Text, "", "Why a failed run failed."),
        col("host", Label, "", "Node that ran it."),
        col("source", Label, "", "measured or simulated."),
        col("devices", Labels, "", "Devices whose energy belongs to the run."),
        opt("device_name", Label, "", "Product name of these devices, as the driver gives it."),
        col("t_begin_mono_ns", I64, "ns", "Monotonic instant at which the run began."),
        col("t_end_mono_ns", I64, "ns", "Monotonic instant at which the run ended."),
        col("prefill_batches", U32, "", "Batches with one output token inside the run's prefill window."),
        opt("decode_batches", U32, "", "Decodes inside the run's decode window, where it marked one."),
        col("total_batches", U32, "", "Whole batches inside the run's total window."),
        opt("prefill_duration_s", F64, "s", "Mean duration of one prefill-only batch."),
        opt("total_duration_s", F64, "s", "Mean duration of one whole batch."),
        opt("mean_ttft_s", F64, "s", "Mean time from request to first output token."),
        opt("mean_tpot_s", F64, "s", "Mean time per output token after the first."),
        opt("engine_version", Label, "", "Version of the inference engine, as it says itself."),
        opt("completed_requests", U32, "", "Requests that were timed; all figures below are over them."),
        opt("output_tokens_per_s", F64, "1/s", "Output tokens of all requests per second of their batches."),
        opt("p50_ttft_s", F64, "s", "Median time from request to first output token."),
        opt("p90_ttft_s", F64, "s", "90th percentile of the time from request to first output token."),
        opt("p99_ttft_s", F64, "s", "99th percentile of the time from request to first output token."),
        opt("p50_tpot_s", F64, "s", "Median time per output token after the first, of each request its mean."),
        opt(
            "p90_tpot_s",
            F64,
            "s",
            "90th percentile of the time per output token after the first, of each request its mean."
        ),
        opt(
            "p99_tpot_s",
            F64,
            "s",
            "99th percentile of the time per output token after the first, of each request its mean."
        ),
        opt("p50_itl_s", F64, "s", "Median time between two arrivals of tokens."),
        opt("p90_itl_s", F64, "s", "90th percentile of the time between two arrivals of tokens."),
        opt("p99_itl_s", F64, "s", "99th percentile of the time between two arrivals of tokens."),
        opt("job_id", Label, "", "Slurm job that the run was part of."),
        opt("step_id", Label, "", "Step of that job: a number, batch, extern or interactive."),
        wall_clock(
            "t_begin",
            "t_begin_mono_ns",
            "Wall-clock instant of t_begin_mono_ns by the file's clock anchor, to 10 ms."
        ),
        wall_clock(
            "t_end",
            "t_end_mono_ns",
            "Wall-clock instant of t_end_mono_ns by the file's clock anchor, to 10 ms."
        ),
    ],
};

/// One row per run and phase: what `fit` reads, and what `import` writes.
pub const PHASES: Table = Table {
    name: "phases",
    doc: "One row per run and phase: joules with their uncertainty.",
    columns: configuration_columns![
        col("run_id", Text, "", "Identifier of the run."),
        col("phase", Label, "", "prefill (one output token), decode (the rest) or total."),
        col("energy_j", F64, "J", "Energy of one batch of the phase, all GPUs of the run."),
        opt("energy_j_std", F64, "J", "Standard uncertainty of energy_j from the counters' edges and repeats."),
        opt("duration_s", F64, "s", "Duration of one batch of the phase."),
        opt("mean_power_w", F64, "W", "energy_j / duration_s, all GPUs of the run."),
        opt("mean_ttft_s", F64, "s", "Mean time from request to first output token."),
        opt("mean_tpot_s", F64, "s", "Mean time per output token after the first."),
        col("quality", Labels, "", "Reasons to doubt the row; empty is good."),
        col("source", Label, "", "counter, power, simulated, imported, or none where nothing was measured."),
        opt(
            "method",
            Label,
            "",
            "How a decode energy was found: difference (total - prefill) or marks (a window of its own)."
        ),
        opt("idle_power_w", F64, "W", "Mean power of all GPUs of the run in its idle phase, before anything ran."),
    ],
};

/// All tables, in the order in which they are written.
pub const TABLES: [&Table; 5] = [&SAMPLES, &TELEMETRY, &MARKS, &RUNS, &PHASES];

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

/// The nearest of `known` to a misspelt `word`, if any is near enough to be a likely slip; else the only one of which it
/// is a whole part, as `tpot` is of `mean_tpot_s`.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let known: Vec<&str> = known.into_iter().collect();
    let slip = known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(&word, k), *k))
        .filter(|(distance, k)| *distance <= k.len().max(word.len()) / 3 + 1)
        .min();
    let is_part = |k: &&&str| k.split('_').any(|part| part == word);
    let mut wholes = known.iter().filter(is_part);
    let whole = wholes.next().filter(|_| wholes.next().is_none());
    slip.map(|(_, k)| k).or(whole.copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_documented_and_named_with_its_unit_last() {
        for table in TABLES {
            for (i, column) in table.columns.iter().enumerate() {
                assert!(column.doc.ends_with('.'), "{}.{}", table.name, column.name);
                assert!(table.columns[..i].iter().all(|c| c.name != column.name), "{} twice", column.name);
                let suffix = match column.unit {
                    "J" => "_j",
                    "s" => "_s",
                    "ns" => "_ns",
                    "W" => "_w",
                    "uJ" => "_uj",
                    "Hz" => "_hz",
                    "°C" => "_c",
                    _ => "",
                };
                let stem = column.name.trim_end_matches("_std");
                assert!(stem.ends_with(suffix), "{}.{} lacks {suffix}", table.name, column.name);
            }
        }
    }

    #[test]
    fn a_misspelt_column_finds_its_neighbour_and_a_strange_one_none() {
        let names = || PHASES.columns.iter().map(|c| c.name);
        assert_eq!(nearest("tensor_paralel", names()), Some("tensor_parallel"));
        assert_eq!(nearest("energy_J", names()), Some("energy_j"));
        assert_eq!(nearest("zebra", names()), None);
    }

    #[test]
    fn labels_parse_what_they_print() {
        for phase in Phase::ALL {
            assert_eq!(phase.as_str().parse::<Phase>().as_ref(), Ok(phase));
        }
        assert!("prefil".parse::<Phase>().unwrap_err().to_string().contains("prefill, decode, total"));
    }
}
