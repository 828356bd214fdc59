//! What the memory of a scenario's GPUs holds: the cache of a replica, or not even the weights.
//!
//! What was measured is a fact about the memory that it was measured on. Where another is asked for, it only says which
//! share of a memory the engine hands out.

use super::model::Scenario;
use super::resolve::{MEMORY_UTILISATION, memory_kv_capacity};
use crate::dataset::Row;

/// Relative difference up to which two memories are one: drivers and data sheets count the same GPU a little differently.
const SAME_MEMORY: f64 = 0.01;

/// Shares of memory that a measured capacity may imply: outside of them the card or the memory is not the measured one.
const SHARES: std::ops::RangeInclusive<f64> = 0.3..=1.0;

impl Scenario {
    /// Whether `given` bytes are another memory than the one that the capacities were measured on.
    pub(crate) fn is_other_memory(&self, given: Option<f64>) -> bool {
        let differs = |given: f64| match self.gpu_memory_bytes {
            Some(own) => (given / own - 1.0).abs() > SAME_MEMORY,
            // What is not known is not known to differ.
            None => false,
        };
        // Without a card nothing says how a capacity goes with the memory.
        !self.descriptors.nominal && given.is_some_and(differs)
    }

    /// The capacity that was measured at these degrees.
    pub(crate) fn measured_capacity(&self, tensor_parallel: u32, pipeline_parallel: u32) -> Option<f64> {
        let all = self.kv_capacity_tokens.iter();
        let mut here = all.filter(|(t, p, _)| (*t, *p) == (tensor_parallel, pipeline_parallel));
        here.next().map(|(_, _, tokens)| *tokens)
    }

    /// Share of the memory that the engine hands out at these degrees: as measured there, else as measured elsewhere.
    pub(crate) fn memory_share(&self, tensor_parallel: u32, pipeline_parallel: u32) -> f64 {
        let d = &self.descriptors;
        let here = || {
            let tokens = self.measured_capacity(tensor_parallel, pipeline_parallel).filter(|_| !d.nominal)?;
            let memory = f64::from(tensor_parallel) * f64::from(pipeline_parallel) * self.gpu_memory_bytes?;
            Some((tokens * d.kv_bytes_per_token + d.weight_bytes) / memory).filter(|share| SHARES.contains(share))
        };
        here().or(self.memory_utilisation).unwrap_or(MEMORY_UTILISATION)
    }

    /// KV capacity at the row's degrees: the row's own, else measured at the same degrees, else from memory. Where the row
    /// names another memory than the measured one, from that memory.
    pub fn kv_capacity(&self, row: &Row) -> Option<f64> {
        let (t, p) = (row.tensor_parallel, row.pipeline_parallel);
        let other = self.is_other_memory(row.gpu_memory_bytes);
        let from_memory = || {
            memory_kv_capacity(
                &self.descriptors,
                row.gpu_memory_bytes.or(self.gpu_memory_bytes)?,
                f64::from(t),
                f64::from(p),
                Some(self.memory_share(t, p)),
            )
        };
        let measured = || self.measured_capacity(t, p).filter(|_| !other);
        row.kv_capacity_tokens.or_else(measured).or_else(from_memory)
    }

    /// Why the configuration cannot run at all: weights and one sequence of KV cache exceed the memory of its GPUs.
    pub(super) fn shortage(&self, row: &Row) -> Option<String> {
        let (t, p) = (row.tensor_parallel, row.pipeline_parallel);
        let other = self.is_other_memory(row.gpu_memory_bytes);
        let known_to_fit = row.kv_capacity_tokens.is_some() || (!other && self.measured_capacity(t, p).is_some());
        if known_to_fit || self.descriptors.nominal {
            return None;
        }
        let memory = row.gpu_memory_bytes.or(self.gpu_memory_bytes)?;
        let there = f64::from(t) * f64::from(p) * memory * self.memory_share(t, p);
        let tokens = row.input_tokens.unwrap_or(0.0) + row.output_tokens;
        let needed = self.descriptors.weight_bytes + self.descriptors.kv_bytes_per_token * tokens;
        (needed > there).then(|| {
            let gigabytes = |bytes: f64| format!("{:.1} GB", bytes / 1e9);
            format!("weights and one sequence need {}, its GPUs offer {}", gigabytes(needed), gigabytes(there))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::Descriptors;

    /// 138 GB of weights, 327,680 bytes a token; measured on two GPUs of 80 GB, where 0.95 of the memory was handed out.
    fn measured() -> Scenario {
        Scenario {
            model: "m".to_owned(),
            architecture: None,
            gpu_model: "g".to_owned(),
            engine: None,
            precision: None,
            descriptors: Descriptors {
                n_layers: 80.0,
                active_params: 69e9,
                weight_bytes: 138e9,
                hidden_size: 8192.0,
                kv_bytes_per_token: 327_680.0,
                num_experts: 0.0,
                experts_per_token: 0.0,
                routed_share: 1.0,
                nominal: false,
            },
            gpu_memory_bytes: Some(80e9),
            memory_utilisation: Some(0.9),
            kv_capacity_tokens: vec![(2, 1, 14e9 / 327_680.0)],
        }
    }

    fn row(gpu_memory_bytes: Option<f64>) -> Row {
        Row { tensor_parallel: 2, input_tokens: Some(1000.0), gpu_memory_bytes, ..Row::new("m", "g") }
    }

    #[test]
    fn another_memory_holds_what_the_measured_share_of_it_does() {
        let near = |found: Option<f64>, bytes: f64| {
            let want = bytes / 327_680.0;
            assert!(found.is_some_and(|tokens| (tokens / want - 1.0).abs() < 1e-9), "{found:?} is not {want}");
        };
        near(measured().kv_capacity(&row(None)), 14e9);
        near(measured().kv_capacity(&row(Some(80.5e9))), 14e9);
        // 2 x 100e9 x 0.95 - 138e9; the other degrees have the usual share, 4 x 100e9 x 0.9 - 138e9.
        near(measured().kv_capacity(&row(Some(100e9))), 52e9);
        near(measured().kv_capacity(&Row { tensor_parallel: 4, ..row(Some(100e9)) }), 222e9);
        // A capacity that the row itself has is none of ours.
        assert_eq!(measured().kv_capacity(&Row { kv_capacity_tokens: Some(7.0), ..row(Some(1e9)) }), Some(7.0));
    }

    #[test]
    fn what_ran_on_another_memory_may_not_run_on_this_one() {
        assert_eq!(measured().shortage(&row(None)), None);
        let said = measured().shortage(&row(Some(1e9))).unwrap();
        assert!(said.contains("its GPUs offer 1.9 GB"), "{said}");
        let nominal = Scenario { descriptors: Descriptors::nominal(), ..measured() };
        assert_eq!(nominal.shortage(&row(Some(1e9))), None);
        assert_eq!(nominal.kv_capacity(&row(Some(1e9))), Some(14e9 / 327_680.0));
    }
}
