//! What a sweep runs on, as plain data: part of the plan.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::sweep::Point;
pub use crate::sweep::server::ServerSpec;

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
}

impl WorkloadSpec {
    /// Refuses points that it could not tell apart.
    pub fn check(&self, points: &[Point]) -> Result<(), String> {
        match self {
            Self::Server(server) => server.check_points(points),
            _ => Ok(()),
        }
    }

    /// What the `engine` column says.
    pub fn engine(&self) -> &str {
        match self {
            Self::Simulated { .. } => "simulated",
            Self::Server(ServerSpec { engine, .. })
            | Self::Command(CommandSpec { engine, .. })
            | Self::Script(ScriptSpec { engine, .. }) => engine,
        }
    }

    /// GPUs of one model that a point may occupy.
    pub fn gpus(&self) -> u32 {
        match self {
            Self::Simulated { gpus, .. }
            | Self::Server(ServerSpec { gpus, .. })
            | Self::Command(CommandSpec { gpus, .. })
            | Self::Script(ScriptSpec { gpus, .. }) => *gpus,
        }
    }
}
