//! LaTeX: the formulas, what their symbols mean, and the fitted numbers. It needs `amsmath` and nothing else.

use super::super::formula::{legend, term_latex};
use super::source::{Cards, Formula, Source, line, meaning};
use crate::law::Symbol;

pub(super) fn write(source: &Source<'_>) -> String {
    let mut text: String = source.preface.iter().map(|l| format!("% {l}\n")).collect();
    text.push_str("%\n% Needs \\usepackage{amsmath}.\n");
    for formula in &source.formulas {
        text.push('\n');
        text.push_str(&equation(formula));
    }
    text.push('\n');
    text.push_str(&symbols(source));
    text.push('\n');
    text.push_str(DEFINITIONS);
    if let Cards::Fixed(card) = &source.cards {
        let d = &card.descriptors;
        let constants = [
            ("L", d.n_layers),
            ("N", d.active_params),
            ("W", d.weight_bytes),
            ("h", d.hidden_size),
            ("K", d.kv_bytes_per_token),
        ];
        let constants = constants.map(|(name, value)| format!("{name} &= {}", number(value)));
        text.push_str(&format!(
            "\n% {}\n\\begin{{align*}}\n{}\n\\end{{align*}}\n",
            line(&card.model),
            constants.join(r" & ")
        ));
    }
    for formula in source.formulas.iter().filter(|f| f.law.is_some()) {
        text.push('\n');
        text.push_str(&parameters(formula));
    }
    text
}

fn equation(formula: &Formula<'_>) -> String {
    let terms: Vec<_> = formula.skeleton.terms.iter().map(term_latex).collect();
    let target = formula.target();
    format!(
        "% {target}: {}, {}\n\\begin{{align*}}\n{} ={{}} & {}\n\\end{{align*}}\n",
        meaning(target),
        formula.unit(),
        target.latex(),
        terms.join(" \\\\\n & + ")
    )
}

fn symbols(source: &Source<'_>) -> String {
    let mut used: Vec<(&str, &str)> = Vec::new();
    for entry in source.formulas.iter().flat_map(|f| legend(f.skeleton)) {
        if !used.contains(&entry) {
            used.push(entry);
        }
    }
    let latex = |shown: &str| Symbol::ALL.iter().find(|s| s.display() == shown).map_or("", |s| s.latex());
    let row = |(shown, meaning): &(&str, &str)| format!("${}$ & {} \\\\\n", latex(shown), escaped(meaning));
    format!("\\begin{{tabular}}{{ll}}\n{}\\end{{tabular}}\n", used.iter().map(row).collect::<String>())
}

/// The known factors.
const DEFINITIONS: &str = r"\begin{align*}
w & = \max\left(1, \min\left(B, \frac{B\,(S+m)}{\text{KV capacity}}\right)\right) &
u & = \min\left(p, \max\left(1, \frac{B}{w}\right)\right) &
i & = \frac{p}{u} &
b & = \frac{u+p-1}{u} \\
c(n) & = 1 - s\,(1-k_\text{visited}/E_\text{experts})^{\max(1, n/(w u))} & & & & & & \\
r & = c(B\,\max(1, S)) + \max(0, m-1)\,c(B) & & & & & &
\end{align*}
% s: share of the weights that belongs to routed experts; c = 1 and r = m without experts.
% Prefill is the batch stopped at m = 1, decode the rest, a time per output token the rest over m - 1 steps.
% Replicas multiply energy and share the batch.
";

fn parameters(formula: &Formula<'_>) -> String {
    let Some(law) = formula.law else { return String::new() };
    let deviation = |d: Option<f64>| d.map_or_else(String::new, |d| format!(r" \pm {}", number(d)));
    let coefficients = law.coefficients.iter().map(|c| (&c.name, c.value, c.std_error, c.unit.clone()));
    let titled = |name: &String| formula.skeleton.exponents.iter().find(|e| e.name == *name).map(|e| e.title.clone());
    let exponents = law.exponents.iter().map(|e| (&e.name, e.value, e.std_error, titled(&e.name).unwrap_or_default()));
    let rows: String = coefficients
        .chain(exponents)
        .map(|(name, value, std_error, about)| {
            let name = super::super::formula::indexed(name);
            format!("${}$ & ${}{}$ & {} \\\\\n", letters(&name), number(value), deviation(std_error), escaped(&about))
        })
        .collect();
    format!("% {}\n\\begin{{tabular}}{{lll}}\n{rows}\\end{{tabular}}\n", formula.target())
}

/// Four significant digits: this is for reading; the other languages have them all.
fn number(value: f64) -> String {
    if value == 0.0 || (1e-3..1e5).contains(&value.abs()) {
        let decimals = if value == 0.0 { 0 } else { (3 - value.abs().log10().floor() as i32).max(0) as usize };
        return format!("{value:.decimals$}");
    }
    let text = format!("{value:.3e}");
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    format!(r"{digits} \times 10^{{{power}}}")
}

/// A parameter's name inside a formula: what is special there is left out.
fn letters(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "_{}".contains(*c)).collect()
}

fn escaped(text: &str) -> String {
    line(text)
        .chars()
        .map(|c| match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => format!("\\{c}"),
            '^' => r"\textasciicircum{}".to_owned(),
            '~' => r"\textasciitilde{}".to_owned(),
            '\\' => r"\textbackslash{}".to_owned(),
            other => other.to_string(),
        })
        .collect()
}
