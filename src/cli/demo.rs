//! `energylens demo`: the whole main job on the built-in simulated node.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use energylens::fit::validate::{ValidateOptions, Validation, validate_against};
use energylens::fit::{FitOptions, Predictor, fit_model};
use energylens::recommend::{Limit, Recommendation, Request, recommend};
use energylens::report::write_html;
use energylens::source::detect::{DetectOptions, detect};
use energylens::sweep::Plan;
use serde_json::json;

use super::run::{Conducted, Means, conduct};
use super::{Outcome, fit, output, report, signals};

/// The sweep that the law is fitted to, and the workloads that it is judged on.
const FITTED: (&str, &str) = ("demo.lua", include_str!("../../scripts/sweeps/demo.lua"));
const UNSEEN: (&str, &str) = ("unseen.lua", include_str!("../../scripts/sweeps/unseen.lua"));
/// The deployment that somebody must choose.
const WORKLOAD: &str = "input_tokens=1024,output_tokens=256";
/// A reader's pace: 20 tokens per second.
const LIMIT: &str = "mean_tpot_s=0.05";

/// Do the whole main job on a simulated node: sweep, record, fit, judge, recommend, report.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:  energylens demo -o /tmp/energylens-demo\n\nNeeds no GPU, no root, no network. Everything it writes is labelled simulated."
)]
pub(crate) struct Arguments {
    /// Where to write: two campaigns, the model and the report. What is there already is not measured again.
    #[arg(short, long, default_value = "energylens-demo")]
    output: PathBuf,
    /// Seed of the fit and of the recommendation's draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print everything as one JSON document.
    #[arg(long)]
    json: bool,
}

/// What the demo found, for people and for JSON.
struct Findings {
    fitted: Conducted,
    unseen: Conducted,
    model: energylens::law::Model,
    judged: Validation,
    answer: Recommendation,
    seed: u64,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let (dir, stop) = (&a.output, signals::stop_on_signal()?);
    let say = |text: &str| if a.json { Ok(()) } else { output::print(text) };
    std::fs::create_dir_all(dir).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => {
            anyhow::anyhow!(
                "cannot create {}: a file of that name is in the way; name a directory with -o",
                dir.display()
            )
        }
        _ => anyhow::anyhow!("cannot create {}: {e}", dir.display()),
    })?;
    say(&real_counters())?;

    let campaign = |(name, source): (&str, &str)| -> anyhow::Result<(Plan, Conducted)> {
        let plan = Plan::from_source(name, source, Path::new("."), &mut output::say)?;
        let conducted = conduct(&plan, &dir.join(&plan.name), &stop, Means::Simulated)?;
        anyhow::ensure!(conducted.runs.left == 0, "stopped; the same command goes on with what is left");
        Ok((plan, conducted))
    };
    say(&format!("\n1. a sweep, from scripts/sweeps/{}, on a simulated node of eight GPUs  [simulated]", FITTED.0))?;
    let (plan, fitted) = campaign(FITTED)?;
    say(&format!("   {} points, laid out as a Latin hypercube", plan.points.len()))?;
    say(&indented(&fitted.describe(&dir.join(&plan.name))))?;
    let (inside, all) = fitted.coverage();
    if all > 0 {
        say(&format!(
            "   {inside} of {all} stated 95 % intervals hold the true joules, which only the simulator knows"
        ))?;
    }

    say("\n2. the law, fitted to these rows  [simulated]\n")?;
    let options = FitOptions { seed: a.seed, ..FitOptions::default() };
    let mut model = fit_model(&fitted.dataset, &options)?.model;
    say(&indented(&fit::describe(&model)?))?;

    say(&format!("3. judged on workloads that were never fitted, from scripts/sweeps/{}  [simulated]", UNSEEN.0))?;
    let (_, unseen) = campaign(UNSEEN)?;
    let predictors = Predictor::QUICK.to_vec();
    let judge = ValidateOptions { seed: a.seed, predictors, ..ValidateOptions::default() };
    let judged = validate_against(&fitted.dataset, &unseen.dataset, &judge)?;
    say(&indented(&judged.to_string()))?;
    if let Some(law) = model.laws.first_mut() {
        law.held_out = Some(judged.summary());
    }
    model.save(&dir.join("model.json"))?;

    say("4. the deployment to choose  [simulated]")?;
    let limits: Vec<Limit> = vec![LIMIT.parse()?];
    let answer = recommend(&model, &Request { limits, seed: a.seed, top: 5, ..Request::parse_workload(WORKLOAD)? })?;
    say(&indented(&answer.table()))?;

    let page = dir.join("report.html");
    let findings = Findings { fitted, unseen, model, judged, answer, seed: a.seed };
    write_html(&page, &findings.report(&dir.join("demo"))?)?;
    say(&format!("5. the report: open {} in a browser", page.display()))?;
    say(&format!(
        "\nyour turn:\n   energylens plan scripts/sweeps/demo.lua\n   energylens fit rows.csv -o model.json\n   energylens recommend {} --workload {WORKLOAD} --limit {LIMIT}",
        dir.join("model.json").display()
    ))?;
    if a.json {
        output::print_json(&findings.json(dir))?;
    }
    Ok(Outcome::Done)
}

impl Findings {
    fn report(&self, campaign: &Path) -> anyhow::Result<energylens::report::ReportInput<'_>> {
        let mut input = report::of_campaign("energylens demo", campaign, &self.fitted.dataset, &self.model)?;
        input.simulated = true;
        input.recommendation = Some(&self.answer);
        input.learning = report::learning(&self.fitted.dataset, Some(&self.unseen.dataset), &[10, 20, 40], self.seed);
        input.held_out_rows = self.judged.predictions.iter().map(|r| (r.measured, r.predicted)).collect();
        Ok(input)
    }

    fn json(&self, dir: &Path) -> serde_json::Value {
        let (inside, all) = self.fitted.coverage();
        json!({
            "simulated": true,
            "output": dir,
            "recording": self.fitted.recording,
            "phases": self.fitted.dataset.rows.len(),
            "rejected": self.fitted.dataset.rejected,
            "unseen_phases": self.unseen.dataset.rows.len(),
            "true_joules_inside_95_interval": { "inside": inside, "of": all },
            "model": self.model,
            "held_out": self.judged,
            "recommendation": self.answer,
            "report": dir.join("report.html"),
        })
    }
}

/// What this machine itself could measure, and with which command.
fn real_counters() -> String {
    let devices: Vec<_> = detect(&DetectOptions::default()).devices().map(|d| d.name.clone()).collect();
    if devices.is_empty() {
        return "this machine has no energy counter that can be read (energylens doctor says why); all below is simulated".to_owned();
    }
    format!(
        "this machine has real counters ({}): `energylens record -- CMD` measures a command with them; all below is simulated",
        devices.join(", ")
    )
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("   {line}\n") }).collect()
}
