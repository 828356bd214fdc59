//! What a sweep runs on, as plain data: part of the plan.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::sweep::server::ServerSpec;
use crate::sweep::{Error, Point};

/// What the runs run on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum WorkloadSpec {
    /// The built-in simulated node, with so many GPUs of each model that the sweep names.
    Simulated {
        /// GPUs of each model.
        gpus: u32,
        /// Standard deviation of power and of time from one deployment to the next, relative.
        run_noise: f64,
    },
    /// An OpenAI-compatible inference server, driven by the load generator.
    Server(ServerSpec),
    /// A command that marks its own phases.
    Command(CommandSpec),
    /// The script's own `run` function.
    Script(ScriptSpec),
    /// A place for a workload that nobody has described yet: it is planned, and not run.
    Blank {
        /// What the `engine` column is to say.
        engine: String,
        /// GPUs of the node.
        gpus: u32,
    },
}

/// A command that is run once per run, marks its own phases and leaves its counts in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandSpec {
    /// What the `engine` column says.
    pub engine: String,
    /// GPUs of the node.
    pub gpus: u32,
    /// The command, a [template](super::super::template) for each word.
    pub argv: Vec<String>,
    /// Its environment beside the present one, templates too.
    pub env: BTreeMap<String, String>,
    /// How long one run may take, s.
    pub timeout_s: f64,
}

/// The script's own `run` function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptSpec {
    /// What the `engine` column says.
    pub engine: String,
    /// GPUs of the node.
    pub gpus: u32,
    /// Hash of what the script does, hex: its `run` is in none of the plan's figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_sha256: Option<String>,
}

impl WorkloadSpec {
    /// Refuses points that it could not tell apart.
    pub fn check(&self, points: &[Point]) -> Result<(), String> {
        match self {
            Self::Server(server) => server.check_points(points),
            _ => Ok(()),
        }
    }

    /// Refuses to run what nobody has described yet.
    pub fn check_described(&self) -> Result<(), Error> {
        match self {
            Self::Blank { engine, .. } => Err(Self::not_described(engine)),
            _ => Ok(()),
        }
    }

    pub(super) fn not_described(engine: &str) -> Error {
        Error::Workload(format!(
            "the sweep does not say yet how its rows are measured: put the workload of {engine} in the place of \
             `el.fill_in`, such as el.vllm {{}} or el.command {{ argv = {{ ... }}, engine = \"{engine}\" }}"
        ))
    }

    /// What the `engine` column says.
    pub fn engine(&self) -> &str {
        match self {
            Self::Simulated { .. } => "simulated",
            Self::Server(ServerSpec { engine, .. })
            | Self::Command(CommandSpec { engine, .. })
            | Self::Script(ScriptSpec { engine, .. })
            | Self::Blank { engine, .. } => engine,
        }
    }

    /// GPUs of one model that a point may occupy.
    pub fn gpus(&self) -> u32 {
        match self {
            Self::Simulated { gpus, .. }
            | Self::Server(ServerSpec { gpus, .. })
            | Self::Command(CommandSpec { gpus, .. })
            | Self::Script(ScriptSpec { gpus, .. })
            | Self::Blank { gpus, .. } => *gpus,
        }
    }
}
