//! Python, Rust, C and Lua: one template each over the same data.

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use super::source::{Card, Cards, Formula, Source, line, meaning};
use super::{ExportError, Language};
use crate::law::{Symbol, Target};

/// How a language writes the few things that differ.
struct Dialect {
    template: &'static str,
    power: fn(&str, &str) -> String,
    quote: fn(&str) -> String,
}

fn dialect(language: Language) -> Dialect {
    let call: fn(&str, &str) -> String = |base, exponent| format!("pow({base}, {exponent})");
    match language {
        Language::Rust => Dialect {
            template: include_str!("templates/law.rs.j2"),
            power: |base, exponent| format!("{base}.powf({exponent})"),
            quote: |text| format!("\"{}\"", text.escape_default()),
        },
        Language::C => Dialect { template: include_str!("templates/law.h.j2"), power: call, quote: octal },
        Language::Lua => Dialect {
            template: include_str!("templates/law.lua.j2"),
            power: |base, exponent| format!("{base} ^ ({exponent})"),
            quote: decimal,
        },
        _ => Dialect { template: include_str!("templates/law.py.j2"), power: call, quote: four_hex },
    }
}

#[derive(Debug, Serialize)]
struct Page {
    preface: Vec<String>,
    /// Whether the caller hands over a card.
    open: bool,
    cards: Vec<CardView>,
    laws: Vec<LawView>,
}

#[derive(Debug, Serialize)]
struct CardView {
    name: String,
    columns: Vec<(&'static str, String)>,
    capacities: Vec<(u32, u32, String)>,
}

#[derive(Debug, Serialize)]
struct LawView {
    target: Target,
    about: String,
    /// `total`, `prefill` or `decode`; none where the caller says so.
    part: Option<&'static str>,
    per_replica: bool,
    per_step: bool,
    /// Whether coefficients and exponents are asked for, and how many there are.
    asked: Option<(usize, usize)>,
    terms: Vec<TermView>,
}

#[derive(Debug, Serialize)]
struct TermView {
    name: String,
    title: String,
    unit: String,
    coefficient: String,
    product: String,
    scale: Option<String>,
}

pub(super) fn write(source: &Source<'_>, language: Language) -> Result<String, ExportError> {
    let dialect = dialect(language);
    let (open, cards) = match &source.cards {
        Cards::Fixed(card) => (false, std::slice::from_ref(card)),
        Cards::Open(cards) => (true, cards.as_slice()),
    };
    let page = Page {
        preface: source.preface.clone(),
        open,
        cards: cards.iter().map(|card| card_view(card, &dialect)).collect(),
        laws: source.formulas.iter().map(|formula| law_view(formula, &dialect)).collect(),
    };
    let wrong = |source| ExportError::Template { language, source };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    // Lines that hold nothing but a tag leave nothing behind.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(syntax.map_err(wrong)?);
    environment.render_str(dialect.template, minijinja::value::Serde(page)).map_err(wrong)
}

fn card_view(card: &Card, dialect: &Dialect) -> CardView {
    CardView {
        name: (dialect.quote)(&card.model),
        columns: card.columns().into_iter().map(|(name, value)| (name, number(value))).collect(),
        capacities: card.kv_capacity_tokens.iter().map(|(t, p, tokens)| (*t, *p, number(*tokens))).collect(),
    }
}

fn law_view(formula: &Formula<'_>, dialect: &Dialect) -> LawView {
    let skeleton = formula.skeleton;
    let symbol = |s: Symbol| format!("x.{}", s.as_str());
    let terms = formula.terms().enumerate().map(|(i, (term, coefficient))| {
        let factors = term.product.iter().map(|f| match f.power {
            1.0 => symbol(f.symbol),
            power => (dialect.power)(&symbol(f.symbol), &number(power)),
        });
        let exponent = |j: usize| formula.exponent(j).map_or_else(|| format!("a[{j}]"), number);
        let scales: Vec<_> = skeleton.scalings(term).map(|(s, j)| (dialect.power)(&symbol(s), &exponent(j))).collect();
        TermView {
            name: line(&term.name),
            title: line(&term.title),
            unit: line(&term.unit),
            coefficient: coefficient.map_or_else(|| format!("k[{i}]"), number),
            product: factors.collect::<Vec<_>>().join(" * "),
            scale: (!scales.is_empty()).then(|| scales.join(" * ")),
        }
    });
    let target = formula.target();
    LawView {
        target,
        about: format!("The {}, {}.", meaning(target), formula.unit()),
        part: formula.fixed_part(),
        per_replica: target == Target::EnergyJ,
        per_step: target == Target::MeanTpotS,
        asked: formula.law.is_none().then_some((skeleton.terms.len(), skeleton.exponents.len())),
        terms: terms.collect(),
    }
}

/// The shortest text that reads back as the same number; every language here reads it as a floating-point one.
pub(super) fn number(value: f64) -> String {
    format!("{value:?}")
}

fn quoted(text: &str, escape: impl Fn(char) -> String) -> String {
    let plain = |c: char| (c.is_ascii_graphic() || c == ' ') && c != '"' && c != '\\' && c != '?';
    let body: String = text.chars().map(|c| if plain(c) { c.to_string() } else { escape(c) }).collect();
    format!("\"{body}\"")
}

fn bytes(c: char) -> Vec<u8> {
    c.to_string().into_bytes()
}

fn octal(text: &str) -> String {
    quoted(text, |c| bytes(c).iter().map(|b| format!("\\{b:03o}")).collect())
}

fn decimal(text: &str) -> String {
    quoted(text, |c| bytes(c).iter().map(|b| format!("\\{b:03}")).collect())
}

fn four_hex(text: &str) -> String {
    quoted(text, |c| format!("\\U{:08x}", u32::from(c)))
}
