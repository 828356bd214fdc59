//! What a design left out, by reason: a point that is missing in silence is missed when the sweep is over.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Candidate;

/// How many of the combinations that the axes span were left out, and why; of each the first reason in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// Combinations that were looked at.
    pub of: u64,
    /// What they are combinations of.
    pub what: Counted,
    /// More GPUs than the node has.
    pub gpus: u64,
    /// More pipeline stages than layers.
    pub layers: u64,
    /// A hidden size that the tensor-parallel degree does not divide.
    pub hidden_size: u64,
    /// Weights that do not fit into the memory.
    pub memory: u64,
    /// Fewer sequences than replicas.
    pub replicas: u64,
    /// A sequence that does not fit into the KV cache.
    pub kv_cache: u64,
    /// The sweep's `where` said no.
    pub filtered: u64,
}

/// What is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// Combinations of all axes: the design looks at each.
    #[default]
    Combinations,
    /// Combinations of model, GPU, precision and degrees alone: sizes are drawn until they can run.
    Deployments,
    /// Random draws: there are too many combinations to look at each.
    Draws,
}

/// Why a deployment or a point is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Gpus,
    Layers,
    HiddenSize,
    Memory,
    Replicas,
    KvCache,
    Filtered,
}

impl Candidate<'_> {
    /// Why it cannot run, whatever `where` says.
    pub(super) fn obstacle(&self) -> Option<Reason> {
        if self.batch_size < self.deployment.data_parallel {
            return Some(Reason::Replicas);
        }
        let sequence = f64::from(self.input_tokens) + f64::from(self.output_tokens);
        (sequence > self.deployment.kv_capacity_tokens).then_some(Reason::KvCache)
    }
}

impl LeftOut {
    /// Counts `count` combinations that one reason leaves out.
    pub(super) fn add(&mut self, reason: Reason, count: u64) {
        let place = match reason {
            Reason::Gpus => &mut self.gpus,
            Reason::Layers => &mut self.layers,
            Reason::HiddenSize => &mut self.hidden_size,
            Reason::Memory => &mut self.memory,
            Reason::Replicas => &mut self.replicas,
            Reason::KvCache => &mut self.kv_cache,
            Reason::Filtered => &mut self.filtered,
        };
        *place = place.saturating_add(count);
    }

    /// From now on each deployment counts as so many combinations: those of its sizes.
    pub(super) fn of_sizes(&mut self, sizes: u64) {
        self.what = Counted::Combinations;
        for count in [&mut self.of, &mut self.gpus, &mut self.layers, &mut self.hidden_size, &mut self.memory] {
            *count = count.saturating_mul(sizes);
        }
    }

    /// The reasons there are, in words, with their counts.
    fn reasons(&self) -> impl Iterator<Item = (u64, &'static str)> {
        [
            (self.gpus, "for GPUs that the node does not have"),
            (self.layers, "for more stages than layers"),
            (self.hidden_size, "for a hidden_size that tensor_parallel does not divide"),
            (self.memory, "for memory"),
            (self.replicas, "for a batch_size below data_parallel"),
            (self.kv_cache, "for the KV cache"),
            (self.filtered, "by `where`"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.reasons().map(|(count, _)| count).sum()
    }
}

/// `18 of 24 combinations: 12 for memory, 6 by \`where\``; empty where nothing is left out.
impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            Counted::Combinations => "combinations",
            Counted::Deployments => "deployments",
            Counted::Draws => "draws",
        };
        for (i, (count, reason)) in self.reasons().enumerate() {
            match i {
                0 => write!(f, "{} of {} {what}: {count} {reason}", self.count(), self.of)?,
                _ => write!(f, ", {count} {reason}")?,
            }
        }
        Ok(())
    }
}
