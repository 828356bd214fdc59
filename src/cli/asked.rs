//! What a deployment is asked for: the options that `recommend` and `report` share.

use std::path::Path;

use clap::Args;
use energylens::law::Model;
use energylens::recommend::{
    self, Limit, NextMeasurements, Objective, Prices, Rate, Recommendation, Request, Trace, measure_next, recommend,
};

use super::Usage;

/// GPUs, configurations to list and PUE unless told otherwise.
const MAX_GPUS: u32 = 8;
const TOP: u32 = 10;
const PUE: f64 = 1.0;

#[derive(Debug, Args)]
pub(crate) struct Asked {
    /// Requests per second that come in; decides how many are in flight. A trace's own rate if left out.
    #[arg(long, value_name = "PER_SECOND", value_parser = positive)]
    arrival_rate: Option<f64>,
    /// GPUs there are.
    #[arg(long, default_value_t = MAX_GPUS, value_parser = clap::value_parser!(u32).range(1..))]
    max_gpus: u32,
    /// What the answer must respect, such as mean_tpot_s=0.05, throughput_tok_s>=500 or power_w=3000; may be repeated.
    #[arg(long = "limit")]
    limits: Vec<Limit>,
    /// What is made small: energy_per_token_j, energy_per_request_j, energy_per_day_kwh, cost_per_request or
    /// carbon_per_request_g.
    #[arg(long, default_value = "energy_per_token_j")]
    objective: Objective,
    /// Price of a kilowatt-hour: a number, or a file with the columns time and value.
    #[arg(long, value_name = "NUMBER|FILE")]
    price_per_kwh: Option<Rate>,
    /// Carbon dioxide of a kilowatt-hour, g: a number, or a file with the columns time and value.
    #[arg(long, value_name = "NUMBER|FILE")]
    carbon_g_per_kwh: Option<Rate>,
    /// Price of one GPU for an hour, without its energy.
    #[arg(long, value_name = "NUMBER", value_parser = positive)]
    price_per_gpu_hour: Option<f64>,
    /// Power at the meter over power of the GPUs: what cooling and conversion add.
    #[arg(long, default_value_t = PUE, value_parser = pue)]
    pue: f64,
    /// Rank configurations outside the measured range too.
    #[arg(long)]
    allow_outside: bool,
    /// How many configurations to list.
    #[arg(long, default_value_t = TOP, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Name so many configurations whose measurement would improve the choice most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    next: Option<u32>,
}

/// The answer, and what to measure next where that was asked.
pub(crate) struct Answered {
    pub(crate) recommendation: Recommendation,
    pub(crate) next: Option<NextMeasurements>,
}

impl Asked {
    /// The request for a workload, a trace, or both; `None` where neither is given.
    pub(crate) fn request(
        &self,
        workload: Option<&str>,
        trace: Option<&Path>,
        seed: u64,
    ) -> anyhow::Result<Option<Request>> {
        let asked = match (trace, workload) {
            (Some(path), text) => {
                let trace = Trace::load(path)?;
                if self.arrival_rate.is_none() {
                    trace.check_rate()?;
                }
                Request::of_trace(trace, text).map_err(usage)?
            }
            (None, Some(text)) => Request::parse_workload(text).map_err(usage)?,
            (None, None) => return Ok(None),
        };
        Ok(Some(Request {
            arrival_rate: self.arrival_rate.or(asked.arrival_rate),
            prices: Prices {
                price_per_kwh: self.price_per_kwh,
                carbon_g_per_kwh: self.carbon_g_per_kwh,
                price_per_gpu_hour: self.price_per_gpu_hour,
                pue: self.pue,
            },
            max_gpus: self.max_gpus,
            limits: self.limits.clone(),
            objective: self.objective,
            allow_outside: self.allow_outside,
            top: self.top as usize,
            seed,
            ..asked
        }))
    }

    pub(crate) fn answer(&self, model: &Model, request: &Request) -> anyhow::Result<Answered> {
        let recommendation = recommend(model, request)?;
        let next = self.next.map(|count| measure_next(model, request, count as usize)).transpose()?;
        Ok(Answered { recommendation, next })
    }

    /// An option that says nothing without a workload, where one is given.
    pub(crate) fn any(&self) -> Option<&'static str> {
        let given = [
            ("--limit", !self.limits.is_empty()),
            ("--arrival-rate", self.arrival_rate.is_some()),
            ("--max-gpus", self.max_gpus != MAX_GPUS),
            ("--objective", self.objective != Objective::default()),
            ("--price-per-kwh", self.price_per_kwh.is_some()),
            ("--carbon-g-per-kwh", self.carbon_g_per_kwh.is_some()),
            ("--price-per-gpu-hour", self.price_per_gpu_hour.is_some()),
            ("--pue", self.pue != PUE),
            ("--allow-outside", self.allow_outside),
            ("--top", self.top != TOP),
            ("--next", self.next.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(name, _)| name)
    }
}

/// A workload is mistyped as a limit is.
fn usage(error: recommend::Error) -> Usage {
    Usage(error.to_string())
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0);
    number.ok_or_else(|| format!("expected a number above 0, found `{text}`"))
}

fn pue(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| (1.0..=10.0).contains(n));
    number.ok_or_else(|| format!("expected a number from 1 (no overhead) to 10, found `{text}`"))
}
