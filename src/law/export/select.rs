//! From a model file to the one scenario that is exported, and what must be said about it.

use super::super::fitted::Law;
use super::super::matching::same_model;
use super::super::model::Model;
use super::super::resolve::Descriptors;
use super::super::target::Target;
use super::source::{Card, Cards, Formula, Source, arguments, line, meaning};
use super::{ExportError, Selection};
use crate::card::{GpuCard, ModelCard};

/// Scenarios or models that a message lists before it stops.
const NAMES: usize = 6;

pub(super) fn select<'a>(model: &'a Model, selection: &Selection) -> Result<Source<'a>, ExportError> {
    let laws = scenario(model, selection.scenario.as_deref())?;
    let first = *laws.first().ok_or(ExportError::NoLaw)?;
    let chosen: Vec<&Law> = if selection.targets.is_empty() {
        laws
    } else {
        let of = |target: Target| {
            laws.iter().copied().find(|l| l.skeleton.target == target).ok_or_else(|| ExportError::NoTarget {
                scope: first.scope(),
                target,
                known: laws.iter().map(|l| l.skeleton.target.as_str()).collect::<Vec<_>>().join(", "),
            })
        };
        selection.targets.iter().map(|t| of(*t)).collect::<Result<_, _>>()?
    };
    let cards = cards(model, first, selection.model.as_deref())?;
    Ok(Source {
        preface: preface(model, &chosen, &cards),
        formulas: chosen.into_iter().map(|law| Formula { skeleton: &law.skeleton, law: Some(law) }).collect(),
        cards,
    })
}

/// The laws of one scenario, one of each target, in the order of targets.
fn scenario<'a>(model: &'a Model, asked: Option<&str>) -> Result<Vec<&'a Law>, ExportError> {
    let mut scopes: Vec<String> = Vec::new();
    for law in &model.laws {
        let scope = law.scope();
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    let known = listing(&scopes);
    if let Some(asked) = asked {
        let plain = |text: &str| text.to_lowercase();
        let exactly = scopes.iter().filter(|s| plain(s) == plain(asked)).cloned().collect::<Vec<_>>();
        let partly = || scopes.iter().filter(|s| plain(s).contains(&plain(asked))).cloned().collect::<Vec<_>>();
        scopes = if exactly.is_empty() { partly() } else { exactly };
        if scopes.is_empty() {
            return Err(ExportError::UnknownScenario { asked: asked.to_owned(), known });
        }
    }
    let scope = match scopes.as_slice() {
        [] => return Err(ExportError::NoLaw),
        [only] => only,
        several => return Err(ExportError::WhichScenario { count: several.len(), known: listing(several) }),
    };
    let of = |target: &Target| model.laws.iter().find(|l| l.skeleton.target == *target && l.scope() == *scope);
    Ok(Target::ALL.iter().filter_map(of).collect())
}

fn cards(model: &Model, law: &Law, asked: Option<&str>) -> Result<Cards, ExportError> {
    let platform = (&law.gpu_model, &law.engine, &law.precision);
    let mut known: Vec<Card> = Vec::new();
    for scenario in model.scenarios.iter().filter(|s| (&s.gpu_model, &s.engine, &s.precision) == platform) {
        let is_covered = law.model.as_ref().is_none_or(|m| *m == scenario.model);
        if is_covered && !known.iter().any(|k| k.model == scenario.model) {
            known.push(scenario.into());
        }
    }
    let names: Vec<String> = known.iter().map(|k| k.model.clone()).collect();
    match asked {
        Some(asked) => {
            let of_file = known.into_iter().find(|k| same_model(&k.model, asked));
            // A law for one model is exported with the card that it was fitted with, or not at all.
            let of_table = || law.model.is_none().then(|| builtin(asked, &law.gpu_model)).flatten();
            let card = of_file.or_else(of_table).ok_or_else(|| ExportError::UnknownModel {
                asked: asked.to_owned(),
                hint: format!("the law has been fitted to {}, and `energylens cards` lists others", listing(&names)),
            })?;
            Ok(Cards::Fixed(card))
        }
        None if law.model.is_none() => Ok(Cards::Open(known)),
        None => {
            let name = law.model.clone().unwrap_or_default();
            let hint = "the model file has no scenario of it; fit it again".to_owned();
            known.into_iter().next().map(Cards::Fixed).ok_or(ExportError::UnknownModel { asked: name, hint })
        }
    }
}

fn builtin(model: &str, gpu_model: &str) -> Option<Card> {
    let card = ModelCard::builtin(model)?;
    Some(Card {
        model: card.model.clone(),
        descriptors: Descriptors::from_card(&card),
        gpu_memory_bytes: GpuCard::builtin(gpu_model).map_or(0.0, |g| g.memory_bytes),
        memory_utilisation: 0.9,
        kv_capacity_tokens: Vec::new(),
    })
}

fn preface(model: &Model, laws: &[&Law], cards: &Cards) -> Vec<String> {
    let training = &model.training;
    let scope = laws.first().map(|l| line(&l.scope())).unwrap_or_default();
    let mut preface = vec![format!("The energylens law for {scope}.")];
    if laws.iter().any(|l| l.simulated) {
        preface
            .push("SIMULATED: it was fitted to rows of the simulated node and says nothing of real hardware.".into());
    }
    preface.push(format!(
        "Written by energylens {}; fitted by {} to",
        env!("CARGO_PKG_VERSION"),
        line(&model.energylens_version)
    ));
    preface.push(format!("{} rows ({} more refused), seed {},", training.rows, training.rejected, training.seed));
    preface.push(format!("SHA-256 of the rows {}.", line(&training.sha256)));
    if let Cards::Fixed(card) = cards {
        preface.push(format!("The card is that of {}.", line(&card.model)));
    }
    preface.extend(arguments());
    for law in laws {
        let target = law.skeleton.target;
        preface.push(format!(
            "{target}: {}, {}; {} rows, one row scatters by {:.1} %.",
            meaning(target),
            target.unit(),
            law.rows,
            100.0 * law.sigma_log
        ));
        let domain: Vec<_> =
            law.domain.iter().map(|(symbol, d)| format!("{} {} to {}", line(symbol), d.low, d.high)).collect();
        if !domain.is_empty() {
            preface.push(format!("  fitted on {}", domain.join(", ")));
        }
        preface.extend(law.verdicts.iter().filter(|v| !v.is_good()).map(|v| format!("  {}", line(&v.to_string()))));
    }
    preface.push("Outside these ranges it extrapolates, and nothing here says so.".into());
    preface
}

fn listing(names: &[String]) -> String {
    let shown = names.iter().take(NAMES).cloned().collect::<Vec<_>>().join("; ");
    match names.len() {
        0 => "none".to_owned(),
        n if n > NAMES => format!("{shown}; and {} more", n - NAMES),
        _ => shown,
    }
}
