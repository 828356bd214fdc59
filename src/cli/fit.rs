//! `energylens fit`: the law, its parameters with intervals, its verdicts.

use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use energylens::dataset;
use energylens::fit::{FitOptions, Predictor, attach_held_out, fit_model, prior_is_elsewhere};
use energylens::law::{HeldOut, Intervals, Law, Model, Pool, Skeleton, Target, formula_text, legend};
use indicatif::ProgressBar;
use serde_json::json;

use super::destination::{Destination, tell};
use super::output::{plus_minus, short};
use super::{Outcome, output};

/// Fit the energylens law to measured rows.
#[derive(Debug, Args)]
#[command(after_help = "Example:  energylens fit rows.csv -o model.json --pool models")]
pub(crate) struct Arguments {
    /// A campaign directory, a Parquet file or a CSV file.
    runs: PathBuf,
    /// The model file to write.
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// One law per scenario (model, GPU, engine, precision), or one for all models of a GPU, engine and precision.
    #[arg(long, value_enum, default_value_t = PoolChoice::None)]
    pool: PoolChoice,
    /// Seed of the search's starts and of the held-out split.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A skeleton file to fit instead of the built-in law of energy, or of times, whichever it predicts (see `energylens
    /// laws`).
    #[arg(long)]
    skeleton: Option<PathBuf>,
    /// Fit only these quantities: energy_j, duration_s, mean_ttft_s, mean_tpot_s. All that the rows carry if left out.
    #[arg(long = "target", value_name = "TARGET", value_delimiter = ',', value_parser = super::predict::parse_target)]
    targets: Vec<Target>,
    /// How the 95 % intervals of parameters are made.
    #[arg(long, value_enum, default_value_t = IntervalChoice::Profile)]
    intervals: IntervalChoice,
    /// A model file of another platform to start from; ten rows are then enough.
    #[arg(long, value_name = "MODEL")]
    prior: Option<PathBuf>,
    /// Leave out the held-out accuracy, which refits the law and its rivals several times.
    #[arg(long)]
    no_held_out: bool,
    /// Print the model as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PoolChoice {
    None,
    Models,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum IntervalChoice {
    /// Profile likelihood: how far each can go before the rows object.
    Profile,
    /// Refits to workloads drawn with replacement (seeded).
    Bootstrap,
    /// First order only, from the curvature at the minimum.
    None,
}

impl From<IntervalChoice> for Intervals {
    fn from(choice: IntervalChoice) -> Self {
        match choice {
            IntervalChoice::Profile => Self::Profile,
            IntervalChoice::Bootstrap => Self::Bootstrap,
            IntervalChoice::None => Self::FirstOrder,
        }
    }
}

impl From<PoolChoice> for Pool {
    fn from(choice: PoolChoice) -> Self {
        match choice {
            PoolChoice::None => Self::None,
            PoolChoice::Models => Self::Models,
        }
    }
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let destination = a.output.as_ref().map(|path| Destination::of(path, &[&a.runs])).transpose()?;
    let skeleton = a.skeleton.as_deref().map(|path| read_skeleton(path, &a.targets)).transpose()?;
    let prior = a.prior.as_deref().map(Model::load).transpose()?.map(Arc::new);
    let dataset = dataset::load(&a.runs)?;
    let targets = if a.targets.is_empty() { Target::ALL.to_vec() } else { a.targets.clone() };
    let options =
        FitOptions { pool: a.pool.into(), seed: a.seed, targets, skeleton, intervals: a.intervals.into(), prior };
    let held_out = !a.no_held_out && options.targets.contains(&Target::EnergyJ);
    if let Some(prior) = options.prior.as_ref().filter(|_| held_out) {
        prior_is_elsewhere(prior, &dataset.rows)
            .context("cannot say how well a fit from this prior does; --no-held-out leaves that out")?;
    }
    let mut fitted = fit_model(&dataset, &options)?;
    if held_out {
        let bar = ProgressBar::new(0);
        attach_held_out(&mut fitted.model, &dataset, &options, a.seed, &|done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
    }
    if let Some(destination) = &destination {
        destination.fill(|path| fitted.model.save(path))?;
    }
    output::remark(&dataset, &fitted.refused);
    output::note_expert_parallel(dataset.rows.iter());
    if a.json {
        let rejected: Vec<_> = dataset.rejected.iter().chain(&fitted.refused).collect();
        output::print_json(&json!({ "model": fitted.model, "rejected": rejected }))?;
    } else {
        tell(destination.as_ref(), &describe(&fitted.model)?)?;
        if let Some(path) = &a.output {
            tell(destination.as_ref(), &format!("model written to {}", path.display()))?;
        }
    }
    let rejected = dataset.rejected.len() + fitted.refused.len();
    Ok(if rejected == 0 { Outcome::Done } else { Outcome::SomeRejected })
}

/// Far more than a skeleton of forty terms has; what lies behind it would not parse in any case.
const LONGEST_SKELETON_BYTES: u64 = 1 << 20;

/// A skeleton from its file, whatever it predicts.
pub(crate) fn skeleton_file(path: &Path) -> anyhow::Result<Skeleton> {
    let mut text = String::new();
    let file = std::fs::File::open(path);
    file.and_then(|file| file.take(LONGEST_SKELETON_BYTES).read_to_string(&mut text))
        .map_err(|e| anyhow::anyhow!("cannot read the skeleton {}: {e}", path.display()))?;
    anyhow::ensure!(
        (text.len() as u64) < LONGEST_SKELETON_BYTES,
        "cannot use the skeleton {}: it has {LONGEST_SKELETON_BYTES} bytes or more",
        path.display()
    );
    Skeleton::from_toml(&text).with_context(|| format!("cannot use the skeleton {}", path.display()))
}

/// The same, of one of `targets`; of any where there are none.
pub(crate) fn read_skeleton(path: &Path, targets: &[Target]) -> anyhow::Result<Skeleton> {
    let skeleton = skeleton_file(path)?;
    let wanted = || targets.iter().map(|t| t.as_str()).collect::<Vec<_>>().join(" or ");
    anyhow::ensure!(
        targets.is_empty() || targets.iter().any(|target| skeleton.serving(*target).is_some()),
        "the skeleton {} predicts {}; expected one of {}, as --target says (a structure of one time serves all times)",
        path.display(),
        skeleton.target,
        wanted()
    );
    Ok(skeleton)
}

/// The energy laws in full, the others in a line each.
pub(crate) fn describe(model: &Model) -> anyhow::Result<String> {
    let mut text = String::new();
    // Without a law of energy, the first of what was asked for is described in full.
    let shown = if model.laws.iter().any(|l| l.skeleton.target == Target::EnergyJ) {
        Target::EnergyJ
    } else {
        model.laws.first().map_or(Target::EnergyJ, |l| l.skeleton.target)
    };
    let energy: Vec<&Law> = model.laws.iter().filter(|l| l.skeleton.target == shown).collect();
    if let Some(first) = energy.first() {
        writeln!(text, "{}\n", formula_text(&first.skeleton))?;
        let width = legend(&first.skeleton).iter().map(|(s, _)| s.len()).max().unwrap_or(0);
        for (symbol, meaning) in legend(&first.skeleton) {
            writeln!(text, "  {symbol:<width$}  {meaning}")?;
        }
    }
    for law in &energy {
        writeln!(text, "\n{}", describe_law(law)?)?;
    }
    let others: Vec<&Law> = model.laws.iter().filter(|l| l.skeleton.target != shown).collect();
    for law in others {
        writeln!(
            text,
            "also fitted: {} for {}, {} rows; {}{}",
            law.skeleton.target,
            law.scope(),
            law.rows,
            scatter(law),
            if law.simulated { "  [simulated]" } else { "" }
        )?;
        for verdict in law.verdicts.iter().filter(|v| !v.is_good()) {
            writeln!(text, "  - {verdict}")?;
        }
    }
    Ok(text)
}

/// How far rows are off: such as the law has not seen, where there were any.
fn scatter(law: &Law) -> String {
    if law.scatter.is_empty() {
        return format!("residual {:.1} % of rows that were fitted", 100.0 * law.sigma_log);
    }
    let kinds = law.scatter.iter().map(|(kind, s)| format!("{kind} {:.1} %", 100.0 * s.sigma_log));
    format!("one row that was left out is off by: {}", kinds.collect::<Vec<_>>().join(", "))
}

fn describe_law(law: &Law) -> anyhow::Result<String> {
    let mut text = String::new();
    let simulated = if law.simulated { "  [simulated]" } else { "" };
    writeln!(text, "{}: {} rows{simulated}", output::one_line(&law.scope()), law.rows)?;
    let mut table = output::table(&["", "value ± std", "95 % interval", "unit"], &[1, 2]);
    for c in &law.coefficients {
        let high = c.high.map_or_else(|| "?".to_owned(), short);
        table.add_row([
            c.name.clone(),
            plus_minus(c.value, c.std_error),
            format!("{} to {high}", short(c.low)),
            c.unit.clone(),
        ]);
    }
    for e in &law.exponents {
        let title = law.skeleton.exponents.iter().find(|s| s.name == e.name).map(|s| s.title.clone());
        let interval = format!("{} to {}", short(e.low), short(e.high));
        table.add_row([
            e.name.clone(),
            plus_minus(e.value, e.std_error),
            interval,
            format!("exponent: {}", title.unwrap_or_default()),
        ]);
    }
    writeln!(text, "{}", table.trim_fmt())?;
    writeln!(
        text,
        "  residual {:.1} % per row, {} parameters, {:.0} degrees of freedom",
        100.0 * law.sigma_log,
        law.skeleton.parameter_count(),
        law.degrees_of_freedom
    )?;
    if !law.scatter.is_empty() {
        writeln!(text, "  {}", scatter(law))?;
    }
    writeln!(text, "  intervals of parameters: {}", law.intervals)?;
    if let Some(prior) = &law.prior {
        writeln!(text, "  started from {prior}")?;
    }
    if law.sigma_model_log > 0.0 {
        writeln!(
            text,
            "  a model that was never fitted differs by {:.0} % (leave-one-model-out)",
            100.0 * law.sigma_model_log
        )?;
    }
    for verdict in &law.verdicts {
        writeln!(text, "  - {verdict}")?;
    }
    if let Some(held_out) = &law.held_out {
        writeln!(text, "\n{}", describe_held_out(held_out, &law.skeleton.name))?;
    }
    Ok(text.trim_end().to_owned())
}

/// Accuracy on rows that were not fitted, the law beside its rivals. The law bears the name of its structure: only the
/// built-in one is the energylens law.
fn describe_held_out(held_out: &HeldOut, structure: &str) -> String {
    let law = Predictor::Law.to_string();
    let columns = ["mape", "top1", "top1_tolerant", "regret", "pairwise", "coverage"];
    let mut table =
        output::table(&["held out", "MAPE", "Top-1", "± noise", "regret", "pairs", "90 % holds"], &[1, 2, 3, 4, 5, 6]);
    // A rule only chooses; where there is no choice to make it has no figure.
    for (predictor, figures) in held_out.figures.iter().filter(|(_, f)| columns.iter().any(|c| f.contains_key(*c))) {
        let figure = |name: &&str| figures.get(*name).map_or_else(|| "-".to_owned(), |v| format!("{:.1} %", 100.0 * v));
        let name = predictor.strip_prefix(&law).map_or_else(|| predictor.clone(), |rest| format!("{structure}{rest}"));
        table.add_row(std::iter::once(output::one_line(&name)).chain(columns.iter().map(figure)));
    }
    let table: String = table.trim_fmt().lines().map(|line| format!(" {line}\n")).collect();
    format!(
        "{table}  {}, learnt from {} rows, {} groups offer a choice, seed {}",
        held_out.scheme, held_out.training_rows, held_out.groups, held_out.seed
    )
}
