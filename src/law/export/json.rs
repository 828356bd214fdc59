//! JSON: structure, numbers and cards, for programs that evaluate the law themselves.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::formula::meaning as symbol_meaning;
use super::ExportError;
use super::source::{Card, Cards, Formula, Source, meaning};
use crate::law::Symbol;

/// Version of the layout.
const FORMAT: &str = "energylens-law/1";

pub(super) fn write(source: &Source<'_>) -> Result<String, ExportError> {
    let (open, cards) = match &source.cards {
        Cards::Fixed(card) => (false, std::slice::from_ref(card)),
        Cards::Open(cards) => (true, cards.as_slice()),
    };
    let used = |s: &&Symbol| {
        let uses = |f: &Formula<'_>| {
            let of_term = |t: &crate::law::Term| {
                t.product.iter().any(|factor| factor.symbol == **s) || t.scaling.contains_key(s.as_str())
            };
            f.skeleton.terms.iter().any(of_term)
        };
        source.formulas.iter().any(uses)
    };
    let symbols: BTreeMap<_, _> = Symbol::ALL.iter().filter(used).map(|s| (s.as_str(), symbol_meaning(*s))).collect();
    let page = json!({
        "format": FORMAT,
        "about": source.preface,
        "symbols": symbols,
        "phases": {
            "total": "every product at m = output_tokens",
            "prefill": "every product at m = 1",
            "decode": "for each term max(0, product at m = output_tokens - product at m = 1)",
        },
        "value": "sum over terms of coefficient * product (* data_parallel, for energies) (/ max(1, m - 1), for mean_tpot_s) * symbol^exponent of its scaling, the scaling always at m = output_tokens",
        "open_card": open,
        "cards": cards.iter().map(card).collect::<Vec<_>>(),
        "laws": source.formulas.iter().map(law).collect::<Vec<_>>(),
    });
    Ok(serde_json::to_string_pretty(&page)? + "\n")
}

fn card(card: &Card) -> Value {
    let mut object: Map<String, Value> =
        card.columns().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    object.insert("model".to_owned(), json!(card.model));
    let measured = card
        .kv_capacity_tokens
        .iter()
        .map(|(t, p, tokens)| json!({ "tensor_parallel": t, "pipeline_parallel": p, "kv_capacity_tokens": tokens }));
    object.insert("kv_capacities".to_owned(), measured.collect());
    Value::Object(object)
}

fn law(formula: &Formula<'_>) -> Value {
    let skeleton = formula.skeleton;
    let terms = skeleton.terms.iter().enumerate().map(|(i, term)| {
        let fitted = formula.law.and_then(|l| l.coefficients.get(i));
        json!({
            "name": term.name,
            "title": term.title,
            "group": term.group,
            "unit": term.unit,
            "coefficient": fitted.map(|c| c.value),
            "low": fitted.map(|c| c.low),
            "high": fitted.and_then(|c| c.high),
            "product": term.product.iter().map(|f| json!({ "symbol": f.symbol.as_str(), "power": f.power })).collect::<Vec<_>>(),
            "scaling": term.scaling,
        })
    });
    let exponents = skeleton.exponents.iter().enumerate().map(|(i, spec)| {
        let fitted = formula.law.and_then(|l| l.exponents.get(i));
        json!({
            "name": spec.name,
            "title": spec.title,
            "value": fitted.map(|e| e.value),
            "low": fitted.map(|e| e.low),
            "high": fitted.map(|e| e.high),
        })
    });
    let target = formula.target();
    json!({
        "target": target,
        "unit": formula.unit(),
        "about": meaning(target),
        "phase": formula.fixed_part(),
        "skeleton": skeleton.name,
        "terms": terms.collect::<Vec<_>>(),
        "exponents": exponents.collect::<Vec<_>>(),
        "domain": formula.law.map(|l| &l.domain),
        "rows": formula.law.map(|l| l.rows),
        "sigma_log": formula.law.map(|l| l.sigma_log),
        "simulated": formula.law.map(|l| l.simulated),
        "verdicts": formula.law.map(|l| l.verdicts.iter().map(ToString::to_string).collect::<Vec<_>>()),
    })
}
