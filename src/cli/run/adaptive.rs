//! An adaptive sweep while it is carried out: its choices, and how far it has come.

use std::path::Path;

use energylens::choose::{Asked, decide};
use energylens::dataset;
use energylens::sweep::{Decision, Plan, Point};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::super::output;

/// Decides what comes next, from what the campaign in `dir` has recorded, and says so.
pub(super) fn next(
    plan: &Plan,
    dir: &Path,
    (measured, up, room): (&[usize], Option<&Point>, usize),
    bar: &ProgressBar,
) -> Result<Decision, dataset::Error> {
    let rows = dataset::phases::reduce(dir)?;
    let decision = decide(plan, &rows, &Asked { measured, up, room });
    if let Some(why) = decision.no_law.as_ref().filter(|_| room > 0) {
        bar.suspend(|| output::say(&format!("note: the start design goes on behind point {}: {why}", measured.len())));
    }
    if let (Some(half_width), Some(adaptive)) = (decision.half_width, &plan.adaptive) {
        let stands = format!("sure to {}, asked {}", percent(half_width), percent(adaptive.rule.precision));
        bar.set_message(format!("; {stands}"));
        // A log of a batch job has no bar.
        if bar.is_hidden() {
            output::say(&format!("after {} points: {stands}", measured.len()));
        }
    }
    Ok(decision)
}

/// How an adaptive sweep stands, in words; `None` for any other.
pub(crate) fn describe(plan: &Plan, decisions: &[Decision]) -> Option<String> {
    let rule = plan.adaptive.as_ref()?.rule;
    let Some(last) = decisions.last() else {
        return Some(format!("the start is not over; the law is fitted after {} points", rule.start));
    };
    let points = last.points_before;
    let mut text = match (last.half_width, last.largest_half_width) {
        (Some(half_width), Some(largest)) => format!(
            "after {points} points the law is sure of its value to {} on 95 % of {} candidates, to {} on all (asked {}); \
             rows scatter by {} around it",
            percent(half_width),
            plan.points.len(),
            percent(largest),
            percent(rule.precision),
            last.residual.map_or_else(|| "?".to_owned(), percent),
        ),
        _ => {
            let why = last.no_law.as_deref().unwrap_or("none was fitted");
            format!("after {points} points there is no law: {why}")
        }
    };
    if last.given_up > 0 {
        text += &format!("\n{} candidates are left out: nothing on their servers could be measured", last.given_up);
    }
    if let Some(reason) = last.stopped {
        text += &format!("\nit ended because {reason}");
    }
    Some(text)
}

/// The same for programs; null for any other sweep.
pub(crate) fn json(plan: &Plan, decisions: &[Decision]) -> Value {
    let Some(adaptive) = &plan.adaptive else { return Value::Null };
    let last = decisions.last();
    json!({
        "rule": adaptive.rule, "candidates": plan.points.len(), "batches": decisions.len(),
        "points": last.map_or(0, |d| d.points_before), "half_width": last.and_then(|d| d.half_width),
        "largest_half_width": last.and_then(|d| d.largest_half_width), "residual": last.and_then(|d| d.residual),
        "stopped": last.and_then(|d| d.stopped), "given_up": last.map_or(0, |d| d.given_up),
    })
}

fn percent(share: f64) -> String {
    match 100.0 * share {
        p if p < 9.95 => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    }
}
