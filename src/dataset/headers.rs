//! Column names: which must be there, and what people write instead.

use std::collections::HashMap;
use std::path::Path;

use super::Error;
use crate::schema::{self, PHASES};

/// Columns without which a row says nothing.
pub(super) const REQUIRED: [&str; 9] = [
    "model",
    "gpu_model",
    "num_gpus",
    "tensor_parallel",
    "pipeline_parallel",
    "batch_size",
    "input_tokens",
    "output_tokens",
    "energy_j",
];

/// The same quantity in another unit: found, wanted, its unit in words, what to do.
const UNIT_SLIPS: [(&str, &str, &str, &str); 24] = [
    ("energy_uj", "energy_j", "microjoules", "divide by 1e6"),
    ("energy_mj", "energy_j", "millijoules", "divide by 1000"),
    ("energy_kj", "energy_j", "kilojoules", "multiply by 1000"),
    ("energy_wh", "energy_j", "Wh", "multiply by 3600"),
    ("energy_kwh", "energy_j", "kWh", "multiply by 3.6e6"),
    ("energy_mwh", "energy_j", "mWh", "multiply by 3.6"),
    ("energy_per_token_j", "energy_j", "joules per output token", "multiply by batch_size x output_tokens"),
    ("energy_per_request_j", "energy_j", "joules per request", "multiply by batch_size"),
    ("energy_mj_std", "energy_j_std", "millijoules", "divide by 1000"),
    ("energy_kwh_std", "energy_j_std", "kWh", "multiply by 3.6e6"),
    ("duration_ms", "duration_s", "milliseconds", "divide by 1000"),
    ("duration_us", "duration_s", "microseconds", "divide by 1e6"),
    ("duration_min", "duration_s", "minutes", "multiply by 60"),
    ("latency_ms", "duration_s", "milliseconds", "divide by 1000"),
    ("e2el_ms", "duration_s", "milliseconds", "divide by 1000"),
    ("ttft_ms", "mean_ttft_s", "milliseconds", "divide by 1000"),
    ("mean_ttft_ms", "mean_ttft_s", "milliseconds", "divide by 1000"),
    ("tpot_ms", "mean_tpot_s", "milliseconds", "divide by 1000"),
    ("mean_tpot_ms", "mean_tpot_s", "milliseconds", "divide by 1000"),
    ("params_b", "params", "billions", "multiply by 1e9"),
    ("active_params_b", "active_params", "billions", "multiply by 1e9"),
    ("gpu_memory_gb", "gpu_memory_bytes", "gigabytes", "multiply by 1e9"),
    ("gpu_memory_gib", "gpu_memory_bytes", "gibibytes", "multiply by 1.073741824e9"),
    ("gpu_memory_mib", "gpu_memory_bytes", "mebibytes", "multiply by 1048576"),
];

/// The same quantity in the same unit under another name: found, wanted.
const OTHER_NAMES: [(&str, &str); 30] = [
    ("model_name", "model"),
    ("model_id", "model"),
    ("gpu", "gpu_model"),
    ("gpu_name", "gpu_model"),
    ("gpu_type", "gpu_model"),
    ("hardware", "gpu_model"),
    ("gpus", "num_gpus"),
    ("n_gpus", "num_gpus"),
    ("ngpus", "num_gpus"),
    ("tp", "tensor_parallel"),
    ("tp_size", "tensor_parallel"),
    ("tensor_parallel_size", "tensor_parallel"),
    ("pp", "pipeline_parallel"),
    ("pp_size", "pipeline_parallel"),
    ("pipeline_parallel_size", "pipeline_parallel"),
    ("dp", "data_parallel"),
    ("data_parallel_size", "data_parallel"),
    ("ep", "expert_parallel"),
    ("batch", "batch_size"),
    ("bs", "batch_size"),
    ("input_len", "input_tokens"),
    ("isl", "input_tokens"),
    ("prompt_tokens", "input_tokens"),
    ("prompt_size", "input_tokens"),
    ("output_len", "output_tokens"),
    ("osl", "output_tokens"),
    ("token_size", "output_tokens"),
    ("energy", "energy_j"),
    ("energy_joules", "energy_j"),
    ("total_energy", "energy_j"),
];

fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace([' ', '-', '.'], "_")
}

/// Whether a header is one of ours, or a slip of one that is in the tables above.
pub(super) fn is_known(name: &str) -> bool {
    let name = plain(name);
    PHASES.column(&name).is_some()
        || UNIT_SLIPS.iter().any(|(found, ..)| *found == name)
        || OTHER_NAMES.iter().any(|(found, _)| *found == name)
}

/// What to say of `found` when `wanted` is not there.
fn known_slip(found: &str, wanted: &str) -> Option<String> {
    let name = plain(found);
    if let Some((_, _, unit, fix)) = UNIT_SLIPS.iter().find(|(f, w, ..)| *f == name && *w == wanted) {
        let unit_wanted = match PHASES.column(wanted).map_or("", |c| c.unit) {
            "J" => " in joules",
            "s" => " in seconds",
            "B" => " in bytes",
            _ => "",
        };
        return Some(format!(
            "column {found} is in {unit}; energylens wants {wanted}{unit_wanted}: {fix} and rename it {wanted}"
        ));
    }
    OTHER_NAMES
        .iter()
        .any(|(f, w)| *f == name && *w == wanted)
        .then(|| format!("column {found} seems to be it: rename it {wanted}"))
}

/// Within a slip of the keyboard: so near that ignoring the column would be ignoring what was meant.
fn is_misspelling(found: &str, wanted: &str) -> bool {
    let distance = strsim::damerau_levenshtein(&plain(found), wanted);
    distance <= if wanted.len() < 8 { 1 } else { 2 }
}

/// Where each known column stands. Fails when one is missing, doubled or misspelt; `energy_j` only if asked for.
/// Columns that are not ours are left alone, with a note where they resemble one that is.
pub(super) fn locate(
    path: &Path,
    headers: &[String],
    needs_energy: bool,
    notes: &mut Vec<String>,
) -> Result<HashMap<&'static str, usize>, Error> {
    let mut places = HashMap::new();
    for column in PHASES.columns {
        let count = headers.iter().filter(|h| *h == column.name).count();
        if count > 1 {
            return Err(Error::DuplicateColumn { path: path.to_owned(), column: column.name.to_owned(), count });
        }
        if let Some(place) = headers.iter().position(|h| h == column.name) {
            places.insert(column.name, place);
        }
    }
    let missing = |name: &str| !places.contains_key(name);
    let strangers: Vec<&String> = headers.iter().filter(|h| PHASES.column(h).is_none() && !h.is_empty()).collect();
    let is_needed = |column: &&str| needs_energy || *column != "energy_j";
    if let Some(column) = REQUIRED.into_iter().filter(is_needed).find(|c| missing(c)) {
        let hint = strangers
            .iter()
            .find_map(|found| known_slip(found, column))
            .or_else(|| {
                let found = schema::nearest(column, strangers.iter().map(|s| s.as_str()))?;
                Some(format!("the nearest column is {found}: if it means the same, rename it {column}"))
            })
            .unwrap_or_else(|| format!("expected at least the columns {}", REQUIRED.join(", ")));
        return Err(Error::MissingColumn { path: path.to_owned(), column: column.to_owned(), hint });
    }
    for found in strangers {
        let absent = PHASES.columns.iter().map(|c| c.name).filter(|c| missing(c) && *c != "energy_j");
        if let Some(hint) = absent.clone().find_map(|wanted| known_slip(found, wanted)) {
            notes.push(format!("{hint}; without that it is not used"));
        } else if let Some(wanted) = absent.clone().find(|wanted| is_misspelling(found, wanted)) {
            let hint = format!("did you mean {wanted}? Rename it, or give it a name that is not so near");
            return Err(Error::MisspeltColumn { path: path.to_owned(), found: found.clone(), hint });
        } else if let Some(wanted) = schema::nearest(found, absent) {
            notes.push(format!("column {found} is not used; if it is meant to be {wanted}, rename it"));
        }
    }
    Ok(places)
}
