//! SQL that DuckDB and PostgreSQL read alike: one expression per law, put together for a select list.
//!
//! An expression cannot name what it uses twice, so the known factors stand written out wherever they are used; both
//! engines compute a common part once. Every number is cast: PostgreSQL would otherwise compute in decimals.

use super::super::skeleton::Term;
use super::super::target::Target;
use super::code::number;
use super::source::{Card, Cards, Formula, Source, line};
use crate::law::Symbol;

/// More tokens than any cache holds: what stands for a cache that never limits.
const ENDLESS: &str = "1e300::float8";

/// `e` to minus this is far below the last digit of 1. A power that underflows is an error in PostgreSQL.
const MOST_POWER: f64 = 70.0;

const TENSOR: &str = "tensor_parallel::float8";
const PIPELINE: &str = "pipeline_parallel::float8";
const REPLICAS: &str = "GREATEST(data_parallel, 1)::float8";
const BATCH: &str = "(batch_size::float8 / GREATEST(data_parallel, 1)::float8)";
const INPUT: &str = "input_tokens::float8";
const OUTPUT: &str = "output_tokens::float8";
const FIRST: &str = "1::float8";

/// No batch, no length and no degree is less than one; of such a row the figure is NULL. One without replicas has one.
const KNOWN: &str = "tensor_parallel >= 1 AND pipeline_parallel >= 1 AND COALESCE(data_parallel, 1) >= 1 \
                     AND batch_size >= 1 AND input_tokens >= 1 AND output_tokens >= 1";
/// Nor is a cache, where it is read from the row.
const KNOWN_CACHE: &str = " AND COALESCE(kv_capacity_tokens, 1) >= 1";

pub(super) fn write(source: &Source<'_>) -> String {
    let mut text: String = source.preface.iter().map(|l| format!("-- {l}\n")).collect();
    text.push_str("--\n-- Part of a select list, for DuckDB and PostgreSQL:  SELECT *, <this> FROM configurations\n");
    let card = match &source.cards {
        Cards::Fixed(card) => {
            text.push_str("-- It reads the columns above, save kv_capacity_tokens: the cache is that of the card.\n");
            Some(card)
        }
        Cards::Open(cards) => {
            text.push_str(&open_columns(cards));
            None
        }
    };
    if source.formulas.iter().any(|f| f.law.is_none()) {
        text.push_str("-- Coefficients and exponents are columns too, of their own names.\n");
    }
    let columns: Vec<_> = source.formulas.iter().map(|formula| column(formula, card)).collect();
    text.push_str(&columns.join(",\n"));
    text.push('\n');
    text
}

/// What a law for several models reads besides, and the values of the models that it was fitted to.
fn open_columns(cards: &[Card]) -> String {
    let mut text =
        "-- It reads the columns above (kv_capacity_tokens may be NULL) and those of the model's card:\n".to_owned();
    let Some(first) = cards.first() else {
        let d =
            "n_layers, active_params, weight_bytes, hidden_size, kv_bytes_per_token, num_experts, experts_per_token,";
        return format!(
            "{text}-- {d}\n-- routed_share, gpu_memory_bytes, memory_utilisation. What does not apply is 0.\n"
        );
    };
    let names: Vec<_> = first.columns().iter().map(|(name, _)| *name).collect();
    text.push_str(&format!("-- cards(model, {}) AS (VALUES\n", names.join(", ")));
    for (i, card) in cards.iter().enumerate() {
        let values: Vec<_> = card.columns().iter().map(|(_, value)| number(*value)).collect();
        let comma = if i + 1 < cards.len() { "," } else { ")" };
        text.push_str(&format!("--   ({}, {}){comma}\n", quoted(&card.model), values.join(", ")));
    }
    for card in cards.iter().filter(|c| !c.kv_capacity_tokens.is_empty()) {
        let measured = card.kv_capacity_tokens.iter().map(|(t, p, tokens)| format!("{t} x {p}: {}", number(*tokens)));
        let measured = measured.collect::<Vec<_>>().join(", ");
        text.push_str(&format!("-- kv_capacity_tokens of {} at tensor x pipeline: {measured}\n", line(&card.model)));
    }
    text
}

fn column(formula: &Formula<'_>, card: Option<&Card>) -> String {
    let target = formula.target();
    let at = |m: &'static str| Symbols { card, m };
    let sum = |product: &dyn Fn(&Term) -> String| {
        let terms = formula.terms().enumerate().map(|(i, (term, coefficient))| {
            let coefficient = coefficient.map_or_else(|| column_name(&term.name, "k", i), float);
            let mut product = product(term);
            if target == Target::MeanTpotS {
                product = format!("{product} / GREATEST({OUTPUT} - 1::float8, 1::float8)");
            }
            if target == Target::EnergyJ {
                product = format!("{product} * {REPLICAS}");
            }
            let scales: Vec<_> = formula
                .skeleton
                .scalings(term)
                .map(|(symbol, j)| {
                    let asked =
                        || formula.skeleton.exponents.get(j).map_or_else(String::new, |e| column_name(&e.name, "a", j));
                    power(&at(OUTPUT).value(symbol), &formula.exponent(j).map_or_else(asked, float))
                })
                .collect();
            let scale = if scales.is_empty() { String::new() } else { format!(" * ({})", scales.join(" * ")) };
            format!("{coefficient} * ({product}){scale} -- {}: {}", line(&term.name), line(&term.title))
        });
        terms.collect::<Vec<_>>().join("\n    + ")
    };
    let whole = sum(&|term| at(OUTPUT).product(term));
    let prefill = sum(&|term| at(FIRST).product(term));
    let decode =
        sum(&|term| format!("GREATEST({} - {}, 0::float8)", at(OUTPUT).product(term), at(FIRST).product(term)));
    let body = match formula.fixed_part() {
        Some("prefill") => format!("    {prefill}"),
        Some(_) => format!("    {decode}"),
        None => format!(
            "  CASE phase WHEN 'total' THEN\n    {whole}\n  WHEN 'prefill' THEN\n    {prefill}\n  WHEN 'decode' THEN\n    {decode}\n  END"
        ),
    };
    let known_cache = if card.is_some() { "" } else { KNOWN_CACHE };
    format!("(\n  CASE WHEN {KNOWN}{known_cache} THEN\n{body}\n  END\n) AS {target}")
}

/// The known quantities of a batch that stops after `m` tokens.
struct Symbols<'a> {
    card: Option<&'a Card>,
    m: &'static str,
}

impl Symbols<'_> {
    fn product(&self, term: &Term) -> String {
        let factor = |f: &super::super::skeleton::Factor| {
            let value = self.value(f.symbol);
            if f.power == 1.0 { value } else { power(&value, &float(f.power)) }
        };
        let factors: Vec<_> = term.product.iter().map(factor).collect();
        format!("({})", factors.join(" * "))
    }

    fn value(&self, symbol: Symbol) -> String {
        let m = self.m;
        match symbol {
            Symbol::TensorParallel => TENSOR.to_owned(),
            Symbol::TensorParallelLessOne => format!("({TENSOR} - 1::float8)"),
            Symbol::PipelineParallel => PIPELINE.to_owned(),
            Symbol::PipelineParallelLessOne => format!("({PIPELINE} - 1::float8)"),
            Symbol::Batch => BATCH.to_owned(),
            Symbol::Input => INPUT.to_owned(),
            Symbol::Output => m.to_owned(),
            Symbol::MeanContext => format!("({INPUT} + {m} / 2::float8)"),
            Symbol::Sequence => format!("({INPUT} + {m})"),
            Symbol::Layers => self.column("n_layers"),
            Symbol::ActiveParams => self.column("active_params"),
            Symbol::WeightBytes => self.column("weight_bytes"),
            Symbol::Hidden => self.column("hidden_size"),
            Symbol::KvBytes => self.column("kv_bytes_per_token"),
            Symbol::Coverage => self.coverage(&self.sequences_together()),
            Symbol::Reads => {
                let together = self.sequences_together();
                let prompts = format!("({together} * GREATEST({INPUT}, 1::float8))");
                let (prefill, step) = (self.coverage(&prompts), self.coverage(&together));
                format!("({prefill} + GREATEST({m} - 1::float8, 0::float8) * {step})")
            }
            Symbol::Waves => self.waves(),
            Symbol::MicroBatches => self.micro_batches(),
            Symbol::StagesPerMicroBatch => format!("({PIPELINE} / {})", self.micro_batches()),
            Symbol::Bubble => {
                let u = self.micro_batches();
                format!("(({u} + {PIPELINE} - 1::float8) / {u})")
            }
        }
    }

    /// A number of the card: put in, or read from its column.
    fn column(&self, name: &str) -> String {
        let known = self.card.and_then(|card| card.columns().into_iter().find(|(n, _)| *n == name));
        known.map_or_else(|| format!("{name}::float8"), |(_, value)| float(value))
    }

    /// Tokens of the cache; `None` where it never limits.
    fn capacity(&self) -> Option<String> {
        let [memory, share, weights, kv] =
            ["gpu_memory_bytes", "memory_utilisation", "weight_bytes", "kv_bytes_per_token"].map(|n| self.column(n));
        let Some(card) = self.card else {
            let left = format!("(({TENSOR} * {PIPELINE} * {memory} * {share} - {weights}) / NULLIF({kv}, 0::float8))");
            let derived = format!("CASE WHEN {memory} > 0 AND {left} >= 1 THEN {left} ELSE {ENDLESS} END");
            return Some(format!("COALESCE(kv_capacity_tokens::float8, {derived})"));
        };
        let from_memory = (card.gpu_memory_bytes > 0.0 && card.descriptors.kv_bytes_per_token > 0.0).then(|| {
            let left = format!("(({TENSOR} * {PIPELINE} * {memory} * {share} - {weights}) / {kv})");
            format!("CASE WHEN {left} >= 1 THEN {left} ELSE {ENDLESS} END")
        });
        if card.kv_capacity_tokens.is_empty() {
            return from_memory.map(|m| format!("({m})"));
        }
        let measured = card.kv_capacity_tokens.iter().map(|(t, p, tokens)| {
            format!("WHEN tensor_parallel = {t} AND pipeline_parallel = {p} THEN {}", float(*tokens))
        });
        let measured = measured.collect::<Vec<_>>().join(" ");
        Some(format!("(CASE {measured} ELSE {} END)", from_memory.unwrap_or_else(|| ENDLESS.to_owned())))
    }

    fn waves(&self) -> String {
        let Some(capacity) = self.capacity() else { return FIRST.to_owned() };
        let tokens = self.value(Symbol::Sequence);
        format!("GREATEST(LEAST({BATCH} * {tokens} / {capacity}, {BATCH}), 1::float8)")
    }

    fn micro_batches(&self) -> String {
        format!("LEAST(GREATEST({BATCH} / {}, 1::float8), GREATEST({PIPELINE}, 1::float8))", self.waves())
    }

    /// Sequences that share every pass.
    fn sequences_together(&self) -> String {
        format!("({BATCH} / ({} * {}))", self.waves(), self.micro_batches())
    }

    /// Share of the weights that a pass over so many tokens reads.
    fn coverage(&self, tokens: &str) -> String {
        if self.card.is_some_and(|card| !card.routes()) {
            return FIRST.to_owned();
        }
        let [experts, visited, routed] = ["num_experts", "experts_per_token", "routed_share"].map(|n| self.column(n));
        let missed = format!("(1::float8 - {visited} / NULLIF({experts}, 0::float8))");
        let together = format!("GREATEST({tokens}, 1::float8)");
        let most = format!("({}::float8 / -ln({missed}))", number(MOST_POWER));
        let missed_by_all = format!("power({missed}, LEAST({together}, {most}))");
        let share = format!("(1::float8 - {routed} * (1::float8 - (1::float8 - {missed_by_all})))");
        if self.card.is_some() {
            return share;
        }
        format!("(CASE WHEN {experts} > 1 AND {visited} > 0 AND {visited} < {experts} THEN {share} ELSE 1::float8 END)")
    }
}

fn power(base: &str, exponent: &str) -> String {
    format!("power({base}, {exponent})")
}

fn float(value: f64) -> String {
    format!("{}::float8", number(value))
}

/// The column of a parameter: its own name, where that can be one.
fn column_name(name: &str, stem: &str, index: usize) -> String {
    let mut letters = name.chars();
    let is_name = letters.next().is_some_and(|c| c.is_ascii_lowercase())
        && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_name { format!("{name}::float8") } else { format!("{stem}_{index}::float8") }
}

fn quoted(text: &str) -> String {
    format!("'{}'", line(text).replace('\'', "''"))
}
