//! `energylens discover`: which structure the data itself asks for.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, ValueEnum};
use energylens::dataset;
use energylens::fit::discover::{
    DiscoverOptions, Discovery, FREE_FORM_CYCLES, FreeForm, FrontEntry, GENERATIONS, MAX_TERMS, Part, PartKind,
    Stability, discover, free_form, stability,
};
use energylens::fit::{FitOptions, attach_held_out, fit_model};
use energylens::law::{formula_line, formula_text};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::destination::{Destination, tell};
use super::fit::{PoolChoice, describe};
use super::{Outcome, output};

/// A search of a part or a resample carries out this share of the generations: it looks for much less.
const PART_SHARE: u64 = 3;

/// What ends a search early.
const END: &str = "--budget or a signal ended the search";

/// Parts whose shares are shown side by side.
const SHARES: usize = 8;

/// Search for the structure of the law: a front of skeletons from small to accurate, and the one to believe.
#[derive(Debug, Args)]
#[command(after_help = "Examples:  energylens discover rows.csv -o model.json --skeleton-out found.toml
           energylens fit rows.csv --skeleton found.toml
The search knows nothing of the built-in law. The same rows, seed and generations give the same result to the last
bit on any number of threads; a search cut short (--budget, Ctrl-C) says how many generations it carried out.")]
pub(crate) struct Arguments {
    /// A campaign directory, a Parquet file or a CSV file.
    runs: PathBuf,
    /// The model file to write: the chosen skeleton, fitted.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// The skeleton file to write, for `energylens fit --skeleton`.
    #[arg(long)]
    skeleton_out: Option<PathBuf>,
    /// One set of numbers per scenario, or one for all models of a GPU, engine and precision; one structure in any case.
    #[arg(long, value_enum, default_value_t = PoolChoice::None)]
    pool: PoolChoice,
    /// What is held out together when candidates are judged; whole models need `--pool models`.
    #[arg(long, value_enum, default_value_t = HoldOut::Workloads)]
    hold_out: HoldOut,
    /// Seed of folds and search.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Generations to carry out.
    #[arg(long, default_value_t = GENERATIONS, value_parser = clap::value_parser!(u64).range(1..))]
    generations: u64,
    /// End the search after so long, such as `60s`, and keep what was found until then.
    #[arg(long, value_parser = humantime::parse_duration)]
    budget: Option<Duration>,
    /// Threads; one per core if left out. The result does not depend on it.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Most terms of a skeleton.
    #[arg(long, default_value_t = MAX_TERMS as u32, value_parser = clap::value_parser!(u32).range(1..=40))]
    max_terms: u32,
    /// Search each architecture, GPU and scenario by itself, and resamples of the rows: which terms survive where.
    #[arg(long)]
    stability: bool,
    /// Resamples for `--stability`.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=1000))]
    resamples: u32,
    /// Also search without a grammar, by the `symbolic_regression` crate, for so many cycles.
    #[arg(long, value_name = "CYCLES", num_args = 0..=1, default_missing_value = default_cycles(), value_parser = clap::value_parser!(u32).range(1..))]
    free_form: Option<u32>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

fn default_cycles() -> &'static str {
    const TEXT: &str = "400";
    debug_assert_eq!(TEXT.parse().ok(), Some(FREE_FORM_CYCLES));
    TEXT
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HoldOut {
    Workloads,
    Models,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let destination = |path: &Option<PathBuf>| path.as_ref().map(|path| Destination::of(path, &[&a.runs])).transpose();
    let (output, skeleton_out) = (destination(&a.output)?, destination(&a.skeleton_out)?);
    anyhow::ensure!(
        a.hold_out == HoldOut::Workloads || matches!(a.pool, PoolChoice::Models),
        "--hold-out models asks how numbers carry over to other models; expected --pool models beside it"
    );
    let dataset = dataset::load(&a.runs)?;
    let signal = super::signals::stop_on_signal()?;
    let end = a.budget.and_then(|b| Instant::now().checked_add(b));
    let stop = || signal.load(Ordering::Acquire) || end.is_some_and(|e| Instant::now() >= e);
    let bar = ProgressBar::new(a.generations);
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}") {
        bar.set_style(style);
    }
    let progress = |generation: u64, error: f64| {
        bar.set_position(generation);
        bar.set_message(format!("held-out error {:.2} %", 100.0 * error));
    };
    let options = DiscoverOptions {
        pool: a.pool.into(),
        hold_out_models: a.hold_out == HoldOut::Models,
        seed: a.seed,
        generations: a.generations,
        max_terms: a.max_terms as usize,
        threads: a.threads.map(|n| n as usize),
        stop: &stop,
        progress: &progress,
    };
    bar.set_message("complete laws");
    let found = discover(&dataset, &options)?;
    let cut = found.generations < a.generations;
    let best = found.best().context("the search found no structure at all: expected rows with energies that differ")?;

    let second_opinion = match a.free_form {
        // It would be asked to stop before it began.
        Some(_) if stop() => {
            eprintln!("note: the free-form search is left out: {END} before its turn");
            None
        }
        Some(cycles) => {
            bar.set_message("free-form search");
            Some(free_form(&dataset, cycles as usize, &options)?)
        }
        None => None,
    };
    let survivors = match a.stability {
        true => {
            let report = |done: usize, total: usize| {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                bar.set_message("parts and resamples");
            };
            let quiet = |_: u64, _: f64| {};
            let share = (found.generations / PART_SHARE).max(1);
            let options = DiscoverOptions { generations: share, progress: &quiet, ..options.clone() };
            Some(stability(&dataset, &found, a.resamples as usize, &options, &report)?)
        }
        false => None,
    };
    bar.finish_and_clear();

    let fit = FitOptions {
        pool: a.pool.into(),
        seed: a.seed,
        skeleton: Some(best.skeleton.clone()),
        ..FitOptions::default()
    };
    let mut fitted = fit_model(&dataset, &fit)?;
    attach_held_out(&mut fitted.model, &dataset, &fit, a.seed, &|_, _| {})?;
    fitted.model.survival = survivors.as_ref().map(Stability::table);
    if let Some(destination) = &skeleton_out {
        destination.write(&best.skeleton.to_toml()?)?;
    }
    if let Some(destination) = &output {
        destination.fill(|path| fitted.model.save(path))?;
    }
    output::remark(&dataset, &fitted.refused);
    match found.generations {
        0 if cut => eprintln!(
            "note: {END} before the first generation; the structures are those that a search begins with: give it longer"
        ),
        n if cut => eprintln!("note: ended early; --generations {n} gives the same result again"),
        _ => {}
    }
    if a.json {
        output::print_json(&json!({
            "discovery": found, "free_form": second_opinion, "stability": survivors, "model": fitted.model,
        }))?;
    } else {
        let mut text = describe_front(&found)? + "\n";
        if let Some(opinion) = &second_opinion {
            writeln!(text, "\n{}", describe_free_form(opinion.as_ref())?)?;
        }
        if let Some(survivors) = &survivors {
            writeln!(text, "\n{}", describe_stability(survivors)?)?;
        }
        writeln!(text, "\nThe chosen structure, fitted to all rows:\n\n{}", describe(&fitted.model)?.trim_end())?;
        writeln!(
            text,
            "\nThe structure was chosen with these rows: their held-out figures flatter it. Rows measured anew judge it\n(`validate NEW_ROWS --skeleton FILE`, with what --skeleton-out writes)."
        )?;
        let beside = [&skeleton_out, &output].into_iter().flatten().find(|d| d.is_stdout());
        tell(beside, text.trim_end())?;
        for (what, path) in [("skeleton", &a.skeleton_out), ("model", &a.output)] {
            if let Some(path) = path {
                tell(beside, &format!("{what} written to {}", path.display()))?;
            }
        }
    }
    let rejected = dataset.rejected.len() + fitted.refused.len();
    Ok(if rejected == 0 { Outcome::Done } else { Outcome::SomeRejected })
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn describe_front(found: &Discovery) -> anyhow::Result<String> {
    let mut text = String::new();
    let laws = if found.scopes == 1 { "one law".to_owned() } else { format!("{} laws of one structure", found.scopes) };
    writeln!(
        text,
        "{} rows, {laws}; {} generations, {} candidates fitted, seed {}; errors are of held-out {}\n",
        found.rows, found.generations, found.evaluations, found.seed, found.held_out
    )?;
    let mut table = output::table(&["", "terms", "parameters", "RMS", "MAPE", "structure"], &[1, 2, 3, 4]);
    let mut row = |mark: &str, terms: usize, parameters: usize, e: &FrontEntry, structure: String| {
        let numbers =
            [terms.to_string(), parameters.to_string(), percent(e.held_out_rms_log), percent(e.held_out_mape)];
        table.add_row([mark.to_owned()].into_iter().chain(numbers).chain([structure]));
    };
    for (place, e) in found.front.iter().enumerate() {
        let mark = if place == found.chosen { "*" } else { "" };
        row(mark, e.terms, e.parameters, e, formula_line(&e.skeleton));
    }
    if let Some(e) = &found.reference {
        row("", e.skeleton.terms.len(), e.skeleton.parameter_count(), e, "the energylens law".to_owned());
    }
    writeln!(text, "{}", table.trim_fmt())?;
    if let Some(best) = found.best() {
        let why = if found.is_complete {
            "a term for each mechanism that the rows do not deny, in the form nearest to what all likely forms say"
        } else {
            "the least of held-out error and size together; a number more must lower the error by what it costs (BIC)"
        };
        writeln!(text, "\n* {why}:\n")?;
        writeln!(text, "{}", formula_text(&best.skeleton))?;
    }
    Ok(text.trim_end().to_owned())
}

fn describe_free_form(found: Option<&FreeForm>) -> anyhow::Result<String> {
    let Some(found) = found else { return Ok("free form: no finite expression was found".to_owned()) };
    let mut text = String::new();
    writeln!(
        text,
        "free form: held-out MAPE {}, {} on the rows fitted; {} nodes, {} cycles a search, {} trees, {} rows",
        percent(found.held_out_mape),
        percent(found.training_mape),
        found.nodes,
        found.cycles,
        found.evaluations,
        found.rows
    )?;
    if found.ended_early {
        writeln!(text, "  ended early: not all cycles were carried out, and another run may end elsewhere")?;
    }
    if found.unanswered > 0 {
        writeln!(text, "  {} held-out rows had no finite answer and count as 100 %", found.unanswered)?;
    }
    writeln!(text, "  energy_j / {} = {}", output::short(found.scale_j), found.expression)?;
    let scales: Vec<_> = found.scales.iter().map(|(s, v)| format!("{s} / {}", output::short(*v))).collect();
    writeln!(text, "  with {}", scales.join(", "))?;
    Ok(text.trim_end().to_owned())
}

fn describe_stability(found: &Stability) -> anyhow::Result<String> {
    let mut text = String::new();
    let shown: Vec<(usize, &Part)> =
        found.parts.iter().enumerate().filter(|(_, p)| p.kind != PartKind::Resample).collect();
    let mut table =
        output::table(&["", "part", "rows", "own structure", "common structure", "energylens law"], &[2, 3, 4, 5]);
    let optional = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), percent);
    for (number, (_, part)) in shown.iter().enumerate() {
        table.add_row([
            format!("{}", number + 1),
            part.name.clone(),
            part.rows.to_string(),
            format!("{} ({})", percent(part.chosen.held_out_mape), part.chosen.parameters),
            optional(part.common_mape),
            optional(part.reference_mape),
        ]);
    }
    writeln!(text, "Held-out MAPE of one structure across parts (in brackets: parameters)\n{}", table.trim_fmt())?;
    for (name, rows) in &found.too_small {
        writeln!(text, "  left out: {name} has {rows} rows")?;
    }
    let resamples = found.parts.len() - shown.len();
    // More columns are not read; scenarios are listed last, and stand in full in the JSON.
    let shown: Vec<(usize, &Part)> = shown.into_iter().take(SHARES).collect();
    let mut headers = vec!["share of energy by part".to_owned()];
    headers.extend((1..=shown.len()).map(|n| n.to_string()));
    headers.extend([format!("in {resamples} resamples"), "coefficient".to_owned(), "commonest shape".to_owned()]);
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    let numeric: Vec<usize> = (1..=shown.len() + 1).collect();
    let mut table = output::table(&headers, &numeric);
    for role in &found.roles {
        let share = |place: usize| match role.shares.get(place).copied().flatten() {
            Some(share) => format!("{:.1} %", 100.0 * share),
            None => "-".to_owned(),
        };
        let mut row = vec![role.role.clone()];
        row.extend(shown.iter().map(|(place, _)| share(*place)));
        row.push(role.in_resamples.map_or_else(|| "-".to_owned(), |s| format!("{:.0} %", 100.0 * s)));
        row.push(format!("{} to {}", output::short(role.coefficients.0), output::short(role.coefficients.1)));
        row.push(role.products.first().map(|(p, _)| p.clone()).unwrap_or_default());
        table.add_row(row);
    }
    writeln!(text, "\n{}", table.trim_fmt())?;
    if found.cut {
        writeln!(text, "  ended early: parts or resamples are missing")?;
    }
    Ok(text.trim_end().to_owned())
}
