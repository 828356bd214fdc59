//! Distributions of what users wait for, over all requests of a window.

use hdrhistogram::Histogram;

use super::load::Served;

/// Histograms hold microseconds, to three digits, up to an hour.
const HIGHEST_US: u64 = 3_600_000_000;
const DIGITS: u8 = 3;

/// Percentiles of one quantity, s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentiles {
    /// The median.
    pub p50_s: f64,
    /// Nine of ten lie below.
    pub p90_s: f64,
    /// 99 of 100 lie below.
    pub p99_s: f64,
}

/// What the requests of a window had to wait.
#[derive(Debug, Clone, PartialEq)]
pub struct Latency {
    /// To the first output token.
    pub ttft: Option<Percentiles>,
    /// Per output token after the first, of each request its mean.
    pub tpot: Option<Percentiles>,
    /// Between two arrivals of tokens.
    pub itl: Option<Percentiles>,
    /// Requests that were served, all of them whole.
    pub requests: u32,
    /// Output tokens of all requests per second of the batches.
    pub output_tokens_per_s: Option<f64>,
}

/// What has been served since the last window.
#[derive(Debug)]
pub(super) struct Tally {
    ttft: Histogram<u64>,
    tpot: Histogram<u64>,
    itl: Histogram<u64>,
    requests: u32,
    output_tokens: f64,
    duration_s: f64,
}

impl Tally {
    pub(super) fn new() -> Option<Self> {
        let empty = || Histogram::new_with_bounds(1, HIGHEST_US, DIGITS).ok();
        let (requests, output_tokens, duration_s) = (0, 0.0, 0.0);
        Some(Self { ttft: empty()?, tpot: empty()?, itl: empty()?, requests, output_tokens, duration_s })
    }

    pub(super) fn add(&mut self, served: &Served) {
        let us = |s: f64| (s * 1e6).round().max(0.0) as u64;
        for completion in &served.completions {
            self.ttft.saturating_record(us(completion.ttft.as_secs_f64()));
            if let Some(tpot_s) = completion.tpot_s() {
                self.tpot.saturating_record(us(tpot_s));
            }
            for gap in &completion.gaps {
                self.itl.saturating_record(us(gap.as_secs_f64()));
            }
            self.requests = self.requests.saturating_add(1);
            self.output_tokens += f64::from(completion.output_tokens);
        }
        self.duration_s += served.duration.as_secs_f64();
    }

    /// What there is to say; `None` where nothing was served.
    pub(super) fn latency(&self) -> Option<Latency> {
        (self.requests > 0).then(|| Latency {
            ttft: percentiles(&self.ttft),
            tpot: percentiles(&self.tpot),
            itl: percentiles(&self.itl),
            requests: self.requests,
            output_tokens_per_s: (self.duration_s > 0.0).then(|| self.output_tokens / self.duration_s),
        })
    }
}

fn percentiles(of: &Histogram<u64>) -> Option<Percentiles> {
    let at = |quantile| of.value_at_quantile(quantile) as f64 / 1e6;
    (!of.is_empty()).then(|| Percentiles { p50_s: at(0.5), p90_s: at(0.9), p99_s: at(0.99) })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sweep::server::Completion;

    #[test]
    fn percentiles_and_throughput_are_those_of_all_requests() {
        let sent = Instant::now();
        let ms = Duration::from_millis;
        // 100 requests with first tokens after 1 to 100 ms, then one token every 20 ms.
        let completions = (1..=100).map(|i| Completion {
            sent,
            ttft: ms(i),
            last: ms(i + 40),
            gaps: vec![ms(20); 2],
            output_tokens: 3,
            timings: None,
        });
        let served = Served { duration: ms(150), completions: completions.collect() };
        let mut tally = Tally::new().expect("a tally");
        assert_eq!(tally.latency(), None);
        tally.add(&served);
        tally.add(&served);
        let latency = tally.latency().expect("a latency");
        let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 2e-3;
        let ttft = latency.ttft.expect("first tokens");
        assert!(near(ttft.p50_s, 0.050) && near(ttft.p90_s, 0.090) && near(ttft.p99_s, 0.099), "{ttft:?}");
        for same in [latency.tpot, latency.itl] {
            assert!(same.is_some_and(|p| near(p.p50_s, 0.020) && near(p.p99_s, 0.020)), "{same:?}");
        }
        assert_eq!(latency.requests, 200);
        // 600 tokens in 0.3 s.
        assert!(latency.output_tokens_per_s.is_some_and(|rate| near(rate, 2000.0)));
    }
}
