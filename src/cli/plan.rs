//! `energylens plan`: what a sweep would do; touches nothing.

use std::path::PathBuf;

use clap::Args;
use energylens::sweep::{Plan, Point, WorkloadSpec};
use serde::Serialize;

use super::{Outcome, output};

/// Points that are listed without `--all`.
const LISTED: usize = 12;

/// Print what a sweep would run, without running anything.
#[derive(Debug, Args)]
#[command(after_help = "Example:  energylens plan scripts/sweeps/demo.lua --all")]
pub(crate) struct Arguments {
    /// The Lua script.
    script: PathBuf,
    /// List every point.
    #[arg(long)]
    all: bool,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let plan = Plan::from_script(&a.script, &mut output::say)?;
    if a.json {
        let servers = servers(&plan)?;
        let starts = (!servers.is_empty()).then(|| plan.starts());
        output::print_json(&Shown {
            plan: &plan,
            least_runs: plan.least_runs(),
            most_runs: plan.most_runs(),
            least_starts: starts.map(|s| s.0),
            most_starts: starts.map(|s| s.1),
            servers,
        })?;
        return Ok(Outcome::Done);
    }
    let mut headers = vec!["point", "model", "gpu", "tp", "pp", "dp", "batch", "in", "out"];
    // Points that differ in it alone would look like one point twice.
    let several_precisions =
        plan.points.iter().any(|p| Some(&p.precision) != plan.points.first().map(|f| &f.precision));
    headers.extend(several_precisions.then_some("precision"));
    let mut table = output::table(&headers, &[3, 4, 5, 6, 7, 8]);
    // Of an adaptive sweep the start is what is known to run.
    let start = plan.adaptive.as_ref().filter(|_| !a.all).map(|adaptive| adaptive.start());
    let points: Vec<&Point> = match start {
        Some(start) => start.iter().filter_map(|&place| plan.points.get(place)).collect(),
        None => plan.points.iter().collect(),
    };
    let listed = if a.all { points.len() } else { LISTED };
    for p in points.iter().take(listed) {
        let mut row = vec![
            p.point_id.clone(),
            p.model.model.clone(),
            p.gpu.gpu_model.clone(),
            p.tensor_parallel.to_string(),
            p.pipeline_parallel.to_string(),
            p.data_parallel.to_string(),
            p.batch_size.to_string(),
            p.input_tokens.to_string(),
            p.output_tokens.to_string(),
        ];
        row.extend(several_precisions.then(|| p.precision.clone()));
        table.add_row(row);
    }
    let more = points.len().saturating_sub(listed);
    let rest = if more > 0 { format!("\n ... and {more} more points (--all lists them)") } else { String::new() };
    output::print(&format!(
        "sweep {}: {}, seed {}, workload {}\n{}\n{}{rest}{}",
        plan.name,
        extent(&plan),
        plan.seed,
        plan.workload.engine(),
        left_out(&plan),
        table.trim_fmt(),
        first_server(&servers(&plan)?, &plan)
    ))?;
    Ok(Outcome::Done)
}

/// The plan as it is kept in a campaign (cards once each, points by reference), and what follows from it.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    least_runs: usize,
    most_runs: usize,
    /// Of servers, for the runs that are laid out.
    least_starts: Option<usize>,
    most_starts: Option<usize>,
    servers: Vec<Vec<String>>,
}

/// How much there is to be done.
fn extent(plan: &Plan) -> String {
    match plan.adaptive.as_ref().map(|adaptive| adaptive.rule) {
        None => format!("{} points, {} runs", plan.points.len(), between(plan.least_runs(), plan.runs.len())),
        Some(rule) => format!(
            "{} candidates; a start of {} points in {} runs, then {} points at a time until the law is sure to {} % on 95 % \
             of the candidates, {} points at most",
            plan.points.len(),
            rule.start,
            between(plan.least_runs(), plan.runs.len()),
            rule.batch,
            (1e4 * rule.precision).round() / 1e2,
            rule.max_points
        ),
    }
}

/// A number that is known, or the two between which it will be.
fn between(least: usize, most: usize) -> String {
    if least == most { most.to_string() } else { format!("{least} to {most}") }
}

/// What the axes span and nobody will measure.
fn left_out(plan: &Plan) -> String {
    match plan.left_out.count() {
        0 => String::new(),
        _ => format!("left out: {}\n", plan.left_out),
    }
}

/// The commands of the servers that a plan starts.
fn servers(plan: &Plan) -> anyhow::Result<Vec<Vec<String>>> {
    match &plan.workload {
        WorkloadSpec::Server(server) => server.commands(&plan.points).map_err(anyhow::Error::msg),
        _ => Ok(Vec::new()),
    }
}

fn first_server(servers: &[Vec<String>], plan: &Plan) -> String {
    let Some(first) = servers.first() else { return String::new() };
    let quoted = |word: &String| match word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c)) {
        true if !word.is_empty() => word.clone(),
        _ => format!("'{}'", word.replace('\'', "'\\''")),
    };
    let words: Vec<String> = first.iter().map(quoted).collect();
    let (least, most) = plan.starts();
    let starts = match (most, &plan.adaptive) {
        (1, None) => "started once".to_owned(),
        (_, None) => format!("{} starts", between(least, most)),
        (_, Some(_)) => format!("{} starts for the start design", between(least, most)),
    };
    let count = match servers.len() {
        1 => format!("one server, {starts}"),
        n => format!("{n} servers, one after the other, in {starts}; the first"),
    };
    format!("\n\n{count}:\n  {}", words.join(" "))
}
