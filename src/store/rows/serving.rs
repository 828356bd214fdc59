//! What the clients of a server had to wait, and which server it was: part of a row of `runs`.

use serde::{Deserialize, Serialize};

/// What is known where each request is timed; all of it is missing elsewhere.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Serving {
    /// Version of the inference engine.
    pub engine_version: Option<String>,
    /// Requests that were served in the window that the times are of.
    pub completed_requests: Option<u32>,
    /// Output tokens of all requests per second.
    pub output_tokens_per_s: Option<f64>,
    /// Median time from request to first output token.
    pub p50_ttft_s: Option<f64>,
    /// Nine of ten requests had their first token sooner.
    pub p90_ttft_s: Option<f64>,
    /// 99 of 100 requests had their first token sooner.
    pub p99_ttft_s: Option<f64>,
    /// Median over the requests of the mean time per output token after the first.
    pub p50_tpot_s: Option<f64>,
    /// The same for nine of ten requests.
    pub p90_tpot_s: Option<f64>,
    /// The same for 99 of 100 requests.
    pub p99_tpot_s: Option<f64>,
    /// Median time between two arrivals of tokens.
    pub p50_itl_s: Option<f64>,
    /// Nine of ten such times are shorter.
    pub p90_itl_s: Option<f64>,
    /// 99 of 100 such times are shorter.
    pub p99_itl_s: Option<f64>,
}
