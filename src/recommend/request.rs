//! What is asked: a workload, how many GPUs there are, and what the answer must respect.

use std::path::{Path, PathBuf};

use super::Error;
use super::bill::Prices;
use super::lengths::Lengths;
use super::limit::{Limit, Objective, hint};
use super::trace::Trace;
use crate::law::Target;

/// Numbers of a model's card and of the GPU, for models that neither the model file nor the built-in table knows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CardColumns {
    /// All parameters.
    pub params: Option<f64>,
    /// Parameters that take part in one token.
    pub active_params: Option<f64>,
    /// Layers.
    pub n_layers: Option<f64>,
    /// Width of the residual stream.
    pub hidden_size: Option<f64>,
    /// KV-cache bytes of one token.
    pub kv_bytes_per_token: Option<f64>,
    /// Routed experts per MoE layer.
    pub num_experts: Option<f64>,
    /// Routed experts that one token visits.
    pub experts_per_token: Option<f64>,
    /// Bytes of one weight.
    pub bytes_per_weight: Option<f64>,
    /// Memory of one GPU, bytes.
    pub gpu_memory_bytes: Option<f64>,
}

/// A question to [`recommend`](super::recommend).
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Model; may be left out where the model file knows only one.
    pub model: Option<String>,
    /// GPU; all that the model file has a law for where left out.
    pub gpu_model: Option<String>,
    /// Engine; any where left out.
    pub engine: Option<String>,
    /// Precision; any where left out.
    pub precision: Option<String>,
    /// Input tokens per sequence; of a trace the mean.
    pub input_tokens: f64,
    /// Output tokens per sequence; of a trace the mean.
    pub output_tokens: f64,
    /// Requests of many lengths, in place of one.
    pub trace: Option<Trace>,
    /// Sequences in flight over all replicas; `None` searches 1, 2, 4, ... 256. With an arrival rate, which decides how
    /// many are in flight, the most that may be.
    pub batch_size: Option<f64>,
    /// Requests per second that come in, around the clock.
    pub arrival_rate: Option<f64>,
    /// What energy and GPUs cost.
    pub prices: Prices,
    /// Card numbers that the asker gives.
    pub card: CardColumns,
    /// GPUs there are.
    pub max_gpus: u32,
    /// What the answer must respect.
    pub limits: Vec<Limit>,
    /// What is made small.
    pub objective: Objective,
    /// Rank configurations outside the measured range of t, p and searched batch sizes with the others.
    pub allow_outside: bool,
    /// How many configurations the answer lists.
    pub top: usize,
    /// Seed of the draws behind the probabilities.
    pub seed: u64,
}

/// Columns that describe a deployment: what `recommend` chooses, so no workload states them.
const CHOSEN: [&str; 5] = ["num_gpus", "tensor_parallel", "pipeline_parallel", "data_parallel", "expert_parallel"];

/// More tokens or sequences than this are a slip.
const LARGEST_AMOUNT: f64 = 1e9;

/// Keys of a workload.
const KEYS: [&str; 16] = [
    "model",
    "gpu_model",
    "engine",
    "precision",
    "input_tokens",
    "output_tokens",
    "batch_size",
    "params",
    "active_params",
    "n_layers",
    "hidden_size",
    "kv_bytes_per_token",
    "num_experts",
    "experts_per_token",
    "bytes_per_weight",
    "gpu_memory_bytes",
];

impl Request {
    /// A workload of `input_tokens` and `output_tokens` per sequence on up to 8 GPUs, without limits.
    pub fn new(input_tokens: f64, output_tokens: f64) -> Self {
        Self {
            model: None,
            gpu_model: None,
            engine: None,
            precision: None,
            input_tokens,
            output_tokens,
            trace: None,
            batch_size: None,
            arrival_rate: None,
            prices: Prices::default(),
            card: CardColumns::default(),
            max_gpus: 8,
            limits: Vec::new(),
            objective: Objective::default(),
            allow_outside: false,
            top: 10,
            seed: 1,
        }
    }

    /// Reads `input_tokens=1024,output_tokens=256,batch_size=32,model=...`, or the path of a CSV file with one row of
    /// those columns. A CSV may have columns of the deployment besides; they are what is to be chosen, so they are not read.
    pub fn parse_workload(text: &str) -> Result<Self, Error> {
        let request = Self::of_pairs(text)?;
        request.check_lengths()?;
        Ok(request)
    }

    /// The workload of a trace; `text` may say the rest, such as `model=NAME`, and no lengths.
    pub fn of_trace(trace: Trace, text: Option<&str>) -> Result<Self, Error> {
        let mut request = text.map_or_else(|| Ok(Self::new(f64::NAN, f64::NAN)), Self::of_pairs)?;
        for (key, value) in [("input_tokens", request.input_tokens), ("output_tokens", request.output_tokens)] {
            if !value.is_nan() {
                return Err(Error::Workload(format!("{key} is what the trace says; leave one of the two out")));
            }
        }
        request.input_tokens = trace.lengths.mean_input_tokens();
        request.output_tokens = trace.lengths.mean_output_tokens();
        request.arrival_rate = trace.arrival_rate;
        request.trace = Some(trace);
        Ok(request)
    }

    /// The lengths that are asked for.
    pub fn lengths(&self) -> Lengths {
        let one = || Lengths::of_one(self.input_tokens, self.output_tokens);
        self.trace.as_ref().map_or_else(one, |trace| trace.lengths.clone())
    }

    /// Laws besides that of energy without which the request cannot be answered, and what asks for them.
    pub(super) fn needed_laws(&self) -> Vec<(String, Target)> {
        let limits = self.limits.iter().filter_map(|l| Some((format!("limit {l}"), l.quantity.target()?)));
        let mut needed: Vec<(String, Target)> = limits.collect();
        if self.arrival_rate.is_some() {
            needed.push(("an arrival rate".to_owned(), Target::DurationS));
        } else if self.prices.price_per_gpu_hour.is_some() {
            needed.push(("a price of GPU hours".to_owned(), Target::DurationS));
        }
        needed
    }

    fn of_pairs(text: &str) -> Result<Self, Error> {
        let pairs = if text.contains('=') && !Path::new(text).is_file() { key_values(text)? } else { csv_row(text)? };
        let mut request = Self::new(f64::NAN, f64::NAN);
        for (key, value) in &pairs {
            request.set(key, value)?;
        }
        Ok(request)
    }

    fn check_lengths(&self) -> Result<(), Error> {
        for (key, value) in [("input_tokens", self.input_tokens), ("output_tokens", self.output_tokens)] {
            if value.is_nan() {
                return Err(Error::Workload(format!("it lacks {key}; expected {key}=NUMBER")));
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), Error> {
        let text = || Some(value.to_owned());
        let at_least = |low: f64| {
            let number = value.parse::<f64>().ok().filter(|v| v.is_finite() && *v >= low);
            let fix = if value.contains([' ', ';']) { "; separate the parts of a workload by commas" } else { "" };
            number.ok_or_else(|| {
                Error::Workload(format!("{key} should be a number of at least {low}, found `{value}`{fix}"))
            })
        };
        let amount = || {
            let number = at_least(1.0)?;
            if number <= LARGEST_AMOUNT {
                return Ok(number);
            }
            Err(Error::Workload(format!("{key} should be at most {LARGEST_AMOUNT}, found `{value}`")))
        };
        match key {
            "model" => self.model = text(),
            "gpu_model" => self.gpu_model = text(),
            "engine" => self.engine = text(),
            "precision" => self.precision = text(),
            "input_tokens" => self.input_tokens = amount()?,
            "output_tokens" => self.output_tokens = amount()?,
            "batch_size" => {
                let sequences = amount()?;
                if sequences.fract() != 0.0 {
                    return Err(Error::Workload(format!("batch_size should be a whole number, found `{value}`")));
                }
                self.batch_size = Some(sequences);
            }
            "params" => self.card.params = Some(at_least(1.0)?),
            "active_params" => self.card.active_params = Some(at_least(1.0)?),
            "n_layers" => self.card.n_layers = Some(at_least(1.0)?),
            "hidden_size" => self.card.hidden_size = Some(at_least(1.0)?),
            "kv_bytes_per_token" => self.card.kv_bytes_per_token = Some(at_least(0.0)?),
            "num_experts" => self.card.num_experts = Some(at_least(0.0)?),
            "experts_per_token" => self.card.experts_per_token = Some(at_least(0.0)?),
            "bytes_per_weight" => self.card.bytes_per_weight = Some(at_least(0.01)?),
            "gpu_memory_bytes" => self.card.gpu_memory_bytes = Some(at_least(1.0)?),
            _ if CHOSEN.contains(&key) => {
                return Err(Error::Workload(format!(
                    "{key} is what is to be chosen, not part of a workload; bound it with a limit ({key}=NUMBER) instead"
                )));
            }
            _ => {
                return Err(Error::UnknownName {
                    what: "workload column",
                    found: key.to_owned(),
                    hint: hint(key, KEYS),
                });
            }
        }
        Ok(())
    }
}

fn key_values(text: &str) -> Result<Vec<(String, String)>, Error> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for part in text.split(',').filter(|p| !p.trim().is_empty()) {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| Error::Workload(format!("expected NAME=VALUE, found `{}`", part.trim())))?;
        let (key, value) = (key.trim(), value.trim());
        if pairs.iter().any(|(other, _)| other == key) {
            return Err(Error::Workload(format!("{key} is given twice")));
        }
        pairs.push((key.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

fn csv_row(path: &str) -> Result<Vec<(String, String)>, Error> {
    if !Path::new(path).is_file() {
        return Err(Error::Workload(format!(
            "expected input_tokens=NUMBER,output_tokens=NUMBER or the path of a CSV file, found `{path}`, which is neither"
        )));
    }
    let file = |problem: String| Error::WorkloadFile { path: PathBuf::from(path), problem };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(|e| file(e.to_string()))?;
    let headers = reader.headers().map_err(|e| file(e.to_string()))?.clone();
    let mut records = reader.records();
    let first = records.next().ok_or_else(|| file("expected one row under the header, found none".to_owned()))?;
    let first = first.map_err(|e| file(e.to_string()))?;
    if records.next().is_some() {
        return Err(file(
            "expected one row under the header, found several; one workload is answered at a time".to_owned(),
        ));
    }
    let given = |value: &&str| !matches!(value.to_ascii_lowercase().as_str(), "" | "na" | "nan");
    Ok(headers
        .iter()
        .map(|h| h.trim_start_matches('\u{feff}'))
        .zip(first.iter())
        .filter(|(key, value)| !CHOSEN.contains(key) && given(value))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_workload_is_read_from_a_line_and_from_a_file() {
        let line = Request::parse_workload("input_tokens=1024, output_tokens=256,batch_size=32,model=org/a=b").unwrap();
        assert_eq!((line.input_tokens, line.output_tokens, line.batch_size), (1024.0, 256.0, Some(32.0)));
        assert_eq!(line.model.as_deref(), Some("org/a=b"));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(
            file,
            "\u{feff}model,tensor_parallel,input_tokens,output_tokens,batch_size\r\norg/a=b,4,1024,256,32\r\n"
        )
        .unwrap();
        assert_eq!(Request::parse_workload(file.path().to_str().unwrap()).unwrap(), line);
        writeln!(file, "org/a=b,4,1,1,1").unwrap();
        let message = Request::parse_workload(file.path().to_str().unwrap()).unwrap_err().to_string();
        assert!(message.contains("found several"), "{message}");
    }

    #[test]
    fn a_wrong_workload_says_what_is_wrong() {
        for (text, expected) in [
            ("input_tokens=12", "lacks output_tokens"),
            ("input_token=12,output_tokens=1", "did you mean `input_tokens`"),
            ("input_tokens=0,output_tokens=1", "at least 1, found `0`"),
            ("input_tokens=inf,output_tokens=1", "found `inf`"),
            ("input_tokens=1,output_tokens=1,batch_size=2.5", "batch_size should be a whole number, found `2.5`"),
            ("input_tokens=1,input_tokens=2", "given twice"),
            ("input_tokens=1,output_tokens", "expected NAME=VALUE, found `output_tokens`"),
            ("input_tokens=1,output_tokens=1,tensor_parallel=4", "tensor_parallel is what is to be chosen"),
            ("no/such/file.csv", "no/such/file.csv"),
        ] {
            let message = Request::parse_workload(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message:?} should contain {expected:?}");
        }
    }
}
