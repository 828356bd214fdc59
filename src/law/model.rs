//! The model file: laws with everything needed to use them elsewhere.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::case::Case;
use super::fitted::{Law, Prediction};
use super::matching::{agreement, same_model};
use super::one_line::OneLineTexts;
use super::resolve::{Descriptors, ResolveError};
use super::skeleton::SkeletonError;
use super::survival::SurvivalTable;
use super::target::Target;
use crate::card::{GpuCard, ModelCard};
use crate::dataset::Row;
use crate::file;

/// Version of the model file.
pub const MODEL_FORMAT: &str = "energylens-model/1";

/// A law takes some 15 kB: more than a thousand of them are no model file.
const LARGEST_FILE_BYTES: u64 = 64 << 20;

/// One set of numbers for one scenario, or for all models of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// One law per scenario.
    None,
    /// One law per platform, carried from model to model by their cards.
    Models,
}

/// What the file knows of one model on one platform, besides the law.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// Model.
    pub model: String,
    /// Architecture label, where known.
    pub architecture: Option<String>,
    /// GPU.
    pub gpu_model: String,
    /// Engine.
    pub engine: Option<String>,
    /// Precision.
    pub precision: Option<String>,
    /// Card numbers.
    pub descriptors: Descriptors,
    /// Memory of one GPU, bytes, where known.
    pub gpu_memory_bytes: Option<f64>,
    /// Share of memory that weights and cache were seen to use, from measured capacities.
    pub memory_utilisation: Option<f64>,
    /// Measured capacities: tensor_parallel, pipeline_parallel, tokens.
    pub kv_capacity_tokens: Vec<(u32, u32, f64)>,
}

/// Where a model came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Rows fitted.
    pub rows: usize,
    /// Rows refused.
    pub rejected: usize,
    /// SHA-256 of the rows, hex.
    pub sha256: String,
    /// Seed of the starts.
    pub seed: u64,
}

/// The model file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// [`MODEL_FORMAT`].
    pub format: String,
    /// Version of energylens that wrote it.
    pub energylens_version: String,
    /// Pooled or not.
    pub pool: Pool,
    /// Where it came from.
    pub training: Training,
    /// Laws.
    pub laws: Vec<Law>,
    /// Facts per scenario.
    pub scenarios: Vec<Scenario>,
    /// Where the structure survives; of models that `discover --stability` wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survival: Option<SurvivalTable>,
}

/// Why a model file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing failed.
    #[error("model file {path} cannot be {verb}")]
    Io {
        /// File.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// Cause.
        source: std::io::Error,
    },
    /// Not a model file.
    #[error("{path} is no energylens model: {problem}")]
    NotAModel {
        /// File.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The skeleton in it is wrong.
    #[error(transparent)]
    Skeleton(#[from] SkeletonError),
    /// No law for what was asked.
    #[error("the model has no law of {target} for {asked}; it knows {known}")]
    NoLaw {
        /// What was asked.
        asked: String,
        /// Which quantity.
        target: Target,
        /// What there is.
        known: String,
    },
    /// Several laws fit equally well, because the row leaves open what tells them apart.
    #[error("{asked} is ambiguous: {one} and {other} fit equally well; fill in engine and precision")]
    Ambiguous {
        /// What was asked.
        asked: String,
        /// One law.
        one: String,
        /// Another.
        other: String,
    },
    /// The configuration is beyond what numbers can say.
    #[error(
        "the law gives {value} for {asked}: expected a figure above 0; a batch, a length or a degree is out of bounds, or the phase has no tokens"
    )]
    NoFigure {
        /// What came out.
        value: f64,
        /// What was asked.
        asked: String,
    },
    /// The configuration is incomplete.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

impl Scenario {
    /// The case of a row of this scenario.
    pub fn case(&self, row: &Row) -> Result<Case, ResolveError> {
        self.descriptors.case(row, self.kv_capacity(row))
    }

    /// A scenario for a model that the file does not know, from the row's columns or the built-in card.
    pub fn of_stranger(row: &Row) -> Result<Self, ResolveError> {
        let card = ModelCard::builtin(&row.model);
        let gpu = GpuCard::builtin(&row.gpu_model);
        Ok(Self {
            model: row.model.clone(),
            architecture: row.architecture.clone().or(card.as_ref().map(|c| c.architecture.to_string())),
            gpu_model: row.gpu_model.clone(),
            engine: row.engine.clone(),
            precision: row.precision.clone(),
            descriptors: Descriptors::from_row(row, card.as_ref())?,
            gpu_memory_bytes: row.gpu_memory_bytes.or(gpu.map(|g| g.memory_bytes)),
            memory_utilisation: None,
            kv_capacity_tokens: Vec::new(),
        })
    }
}

/// What is looked at before the rest.
#[derive(Default, Deserialize)]
struct Head {
    format: Option<String>,
}

impl Model {
    /// Reads and checks a model file. Any bytes give a model or an error, never a panic.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let fail = |source| Error::Io { path: path.to_owned(), verb: "read", source };
        let not = |problem: String| Error::NotAModel { path: path.to_owned(), problem };
        let mut bytes = Vec::new();
        let file = fs::File::open(path).map_err(fail)?;
        file.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > LARGEST_FILE_BYTES {
            return Err(not(format!("it has more than {LARGEST_FILE_BYTES} bytes")));
        }
        // Only the head: a tree of everything would take twenty times the memory of the text.
        let head = match serde_json::from_slice::<Head>(&bytes) {
            Ok(head) => head,
            Err(e) if e.is_data() => Head::default(),
            Err(e) => return Err(not(format!("not JSON: {e}"))),
        };
        match head.format.as_deref() {
            Some(MODEL_FORMAT) => {}
            Some(other) => {
                let shown: String = other.chars().take(60).collect();
                return Err(not(format!("its format is `{shown}`, expected `{MODEL_FORMAT}`")));
            }
            None => return Err(not(format!("it has no `format`, expected `{MODEL_FORMAT}`"))),
        }
        serde_json::from_slice::<OneLineTexts>(&bytes).map_err(|e| not(e.to_string()))?;
        let model: Self = serde_json::from_slice(&bytes).map_err(|e| not(e.to_string()))?;
        for law in &model.laws {
            law.skeleton.check()?;
            law.check().map_err(not)?;
        }
        Ok(model)
    }

    /// Writes the file, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let io = |source| Error::Io { path: path.to_owned(), verb: "written", source };
        let text = serde_json::to_string_pretty(self).map_err(|e| io(e.into()))?;
        file::replace(path, |file| file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n"))).map_err(io)
    }

    /// The law of `target` that covers `row`: the one whose names agree best.
    pub fn law_for(&self, target: Target, row: &Row) -> Result<&Law, Error> {
        let rank = |law: &Law| -> Option<u32> {
            let model = match &law.model {
                Some(name) if *name == row.model => 1,
                Some(name) => same_model(name, &row.model).then_some(0)?,
                None => 0,
            };
            Some(model + 2 * agreement(row, &law.gpu_model, law.engine.as_ref(), law.precision.as_ref())?)
        };
        let of_target = || self.laws.iter().filter(|l| l.skeleton.target == target);
        let best = of_target().filter_map(rank).max();
        let mut found = of_target().filter(|law| best.is_some() && rank(law) == best);
        match (found.next(), found.next()) {
            (Some(law), None) => Ok(law),
            (Some(one), Some(other)) => {
                Err(Error::Ambiguous { asked: row.scenario_key(), one: one.scope(), other: other.scope() })
            }
            (None, _) => {
                let known: Vec<_> = of_target().map(Law::scope).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join("; ") };
                Err(Error::NoLaw { asked: row.scenario_key(), target, known })
            }
        }
    }

    /// The scenario of `row` on the platform of `law`: as fitted, or built from the row's columns for a model that was not.
    pub fn scenario_for(&self, law: &Law, row: &Row) -> Result<Scenario, ResolveError> {
        let on_platform =
            |s: &&Scenario| (&s.gpu_model, &s.engine, &s.precision) == (&law.gpu_model, &law.engine, &law.precision);
        let known = || self.scenarios.iter().filter(on_platform);
        let named = known().find(|s| s.model == row.model);
        named
            .or_else(|| known().find(|s| same_model(&s.model, &row.model)))
            .cloned()
            .map_or_else(|| Scenario::of_stranger(row), Ok)
    }

    /// Predicts `target` for a configuration.
    pub fn predict(&self, target: Target, row: &Row) -> Result<Prediction, Error> {
        let law = self.law_for(target, row)?;
        let mut scenario = self.scenario_for(law, row)?;
        let mut remarks: Vec<String> = scenario.shortage(row).into_iter().collect();
        let own = Scenario::of_stranger(row).map(|s| s.descriptors);
        let says_weights = row.params.is_some() || row.bytes_per_weight.is_some() || row.precision.is_some();
        if let Ok(own) = own
            && says_weights
            && !scenario.descriptors.nominal
            && (own.weight_bytes / scenario.descriptors.weight_bytes - 1.0).abs() > 0.02
        {
            if law.model.is_none() {
                scenario.descriptors = own;
            } else {
                remarks.push(format!(
                    "its weights are {:.3e} bytes, those of the fitted rows {:.3e}",
                    own.weight_bytes, scenario.descriptors.weight_bytes
                ));
            }
        }
        let mut prediction = law.predict(&scenario.case(row)?, law.knows(&row.model));
        if !prediction.value.is_finite() || prediction.value <= 0.0 {
            return Err(Error::NoFigure { value: prediction.value, asked: row.scenario_key() });
        }
        prediction.outside.extend(remarks);
        Ok(prediction)
    }
}
