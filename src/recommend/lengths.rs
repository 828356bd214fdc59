//! The lengths of the requests: one pair, or a mixture of classes that stands for a trace.
//!
//! A trace of many requests is grouped by length, within a factor that grows until few classes are left; a class has the
//! mean lengths of its requests. What a batch costs is then the mean over classes of a batch of that class alone: requests
//! of unlike lengths that share a batch are taken to cost what they cost among their like. The law is linear in batch and
//! tokens but for the attention of long prompts and for a full cache, so that little is lost.

use std::collections::BTreeMap;

use serde::Serialize;

/// Classes that a trace is grouped into at most.
const MOST_CLASSES: usize = 48;

/// Requests of alike length.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LengthClass {
    /// Share of the requests.
    pub share: f64,
    /// Input tokens, mean.
    pub input_tokens: f64,
    /// Output tokens, mean.
    pub output_tokens: f64,
}

/// The lengths of the requests of a workload.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lengths {
    /// Classes, shares summing to 1.
    pub classes: Vec<LengthClass>,
    /// Requests behind them.
    pub requests: usize,
    /// Tokens of the longest sequence, input and output.
    pub longest_tokens: f64,
}

impl Lengths {
    /// All requests alike.
    pub fn of_one(input_tokens: f64, output_tokens: f64) -> Self {
        let class = LengthClass { share: 1.0, input_tokens, output_tokens };
        Self { classes: vec![class], requests: 1, longest_tokens: input_tokens + output_tokens }
    }

    /// Requests of the given input and output tokens; none where there are none.
    pub fn of_requests(requests: &[(f64, f64)]) -> Option<Self> {
        let longest_tokens = requests
            .iter()
            .map(|(s, m)| s + m)
            .fold(None, |most: Option<f64>, tokens| Some(most.map_or(tokens, |m| m.max(tokens))))?;
        // Steps per octave, from exact lengths down to one class.
        let classes = [None, Some(4.0), Some(2.0), Some(1.0), Some(0.5), Some(0.25), Some(0.0)]
            .into_iter()
            .find_map(|steps| classes(requests, steps))?;
        Some(Self { classes, requests: requests.len(), longest_tokens })
    }

    /// Mean input tokens of a request.
    pub fn mean_input_tokens(&self) -> f64 {
        self.classes.iter().map(|c| c.share * c.input_tokens).sum()
    }

    /// Mean output tokens of a request.
    pub fn mean_output_tokens(&self) -> f64 {
        self.classes.iter().map(|c| c.share * c.output_tokens).sum()
    }

    /// Whether requests differ in length.
    pub fn is_mixed(&self) -> bool {
        self.classes.len() > 1
    }
}

/// Requests grouped by length, `steps` classes per octave or each length its own; `None` where these are too many.
fn classes(requests: &[(f64, f64)], steps: Option<f64>) -> Option<Vec<LengthClass>> {
    let place = |tokens: f64| match steps {
        None => tokens.to_bits(),
        Some(steps) => (tokens.max(1.0).log2() * steps).floor() as u64,
    };
    let mut found: BTreeMap<(u64, u64, bool), (f64, f64, f64)> = BTreeMap::new();
    for (input, output) in requests {
        // A single token has no time per token after the first, so that it is never mixed with others.
        let sums = found.entry((place(*input), place(*output), *output < 2.0)).or_default();
        *sums = (sums.0 + 1.0, sums.1 + input, sums.2 + output);
        if found.len() > MOST_CLASSES && steps != Some(0.0) {
            return None;
        }
    }
    let of = |(count, input, output): &(f64, f64, f64)| LengthClass {
        share: count / requests.len() as f64,
        input_tokens: input / count,
        output_tokens: output / count,
    };
    Some(found.values().map(of).collect())
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn few_lengths_are_kept_as_they_are() {
        let lengths = Lengths::of_requests(&[(100.0, 10.0), (300.0, 50.0), (100.0, 10.0), (100.0, 10.0)]).unwrap();
        let of = |c: &LengthClass| (c.share, c.input_tokens, c.output_tokens);
        assert_eq!(lengths.classes.iter().map(of).collect::<Vec<_>>(), [(0.75, 100.0, 10.0), (0.25, 300.0, 50.0)]);
        assert_eq!((lengths.mean_input_tokens(), lengths.mean_output_tokens()), (150.0, 20.0));
        assert_eq!((lengths.requests, lengths.longest_tokens), (4, 350.0));
        assert_eq!(Lengths::of_requests(&[]), None);
    }

    #[test]
    fn many_lengths_become_few_classes_of_the_same_means() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut length = |octaves: f64| 2_f64.powf(rng.random_range(0.0..octaves)).round();
        let requests: Vec<(f64, f64)> = (0..20_000).map(|_| (length(13.0), length(10.0))).collect();
        let lengths = Lengths::of_requests(&requests).unwrap();
        assert!(lengths.classes.len() > 10 && lengths.classes.len() <= MOST_CLASSES, "{}", lengths.classes.len());
        let mean = |of: fn(&(f64, f64)) -> f64| requests.iter().map(of).sum::<f64>() / 20_000.0;
        assert!((lengths.mean_input_tokens() / mean(|r| r.0) - 1.0).abs() < 1e-9);
        assert!((lengths.mean_output_tokens() / mean(|r| r.1) - 1.0).abs() < 1e-9);
        assert!((lengths.classes.iter().map(|c| c.share).sum::<f64>() - 1.0).abs() < 1e-9);
        // Single tokens stand apart.
        assert!(lengths.classes.iter().all(|c| c.output_tokens == 1.0 || c.output_tokens >= 2.0));
    }
}
