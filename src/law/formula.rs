//! A law written out for people: plain text and LaTeX.

use super::case::Symbol;
use super::skeleton::{Skeleton, Term};

/// The formula with its parameters by name, one term per line.
pub fn formula_text(skeleton: &Skeleton) -> String {
    let mut text = format!("{} =", skeleton.target);
    for (i, term) in skeleton.terms.iter().enumerate() {
        let sign = if i == 0 { ' ' } else { '+' };
        let mut product = term.name.clone();
        for factor in &term.product {
            product.push('·');
            product.push_str(factor.symbol.display());
            if factor.power != 1.0 {
                product.push_str(&format!("^{}", factor.power));
            }
        }
        for (symbol, exponent) in &term.scaling {
            product.push_str(&format!("·{symbol}^{exponent}"));
        }
        text.push_str(&format!("\n  {sign} {product:<34} {}", term.title));
    }
    text
}

/// The formula without the names of its coefficients, in one line.
pub fn formula_line(skeleton: &Skeleton) -> String {
    let term = |term: &Term| {
        let known = term.product.iter().map(|f| match f.power {
            1.0 => f.symbol.display().to_owned(),
            power => format!("{}^{power}", f.symbol.display()),
        });
        let fitted = term.scaling.iter().map(|(symbol, exponent)| format!("{symbol}^{exponent}"));
        known.chain(fitted).collect::<Vec<_>>().join("·")
    };
    skeleton.terms.iter().map(term).collect::<Vec<_>>().join(" + ")
}

/// The formula as a LaTeX expression.
pub fn formula_latex(skeleton: &Skeleton) -> String {
    let terms: Vec<_> = skeleton.terms.iter().map(term_latex).collect();
    format!("{} = {}", skeleton.target.latex(), terms.join(" + "))
}

/// One term as LaTeX.
pub(super) fn term_latex(term: &Term) -> String {
    let mut parts = vec![indexed(&term.name)];
    for factor in &term.product {
        let symbol = factor.symbol.latex();
        parts.push(if factor.power == 1.0 { symbol.to_owned() } else { format!("{symbol}^{{{}}}", factor.power) });
    }
    for (symbol, exponent) in &term.scaling {
        parts.push(format!("{symbol}^{{{}}}", indexed(exponent)));
    }
    parts.join(r"\,")
}

/// `k3` as `k_{3}`.
pub(super) fn indexed(name: &str) -> String {
    let digits = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
    let (stem, index) = name.split_at(digits);
    if index.is_empty() { stem.to_owned() } else { format!("{stem}_{{{index}}}") }
}

/// One line per symbol that the formula uses.
pub fn legend(skeleton: &Skeleton) -> Vec<(&'static str, &'static str)> {
    Symbol::ALL
        .iter()
        .filter(|s| {
            let uses = |t: &Term| t.product.iter().any(|f| f.symbol == **s) || t.scaling.contains_key(s.as_str());
            skeleton.terms.iter().any(uses)
        })
        .map(|s| (s.display(), meaning(*s)))
        .collect()
}

/// What a symbol stands for, in words.
pub(super) fn meaning(symbol: Symbol) -> &'static str {
    match symbol {
        Symbol::TensorParallel => "tensor_parallel",
        Symbol::TensorParallelLessOne => "tensor_parallel - 1",
        Symbol::PipelineParallel => "pipeline_parallel",
        Symbol::PipelineParallelLessOne => "pipeline_parallel - 1",
        Symbol::Batch => "batch_size per replica",
        Symbol::Input => "input_tokens, vision tokens included",
        Symbol::Output => "output_tokens",
        Symbol::MeanContext => "mean context of a decode step",
        Symbol::Sequence => "tokens of a sequence",
        Symbol::Layers => "n_layers",
        Symbol::ActiveParams => "active_params",
        Symbol::WeightBytes => "weight bytes: params x bytes_per_weight",
        Symbol::Hidden => "hidden_size",
        Symbol::KvBytes => "kv_bytes_per_token",
        Symbol::Coverage => "share of the weights that a decode step reads; 1 for models that do not route",
        Symbol::Reads => {
            "times that all weights are read, c(B S) + (m-1) c(B); output_tokens for models that do not route"
        }
        Symbol::Waves => "waves max(1, B(S+m)/kv_capacity)",
        Symbol::MicroBatches => "micro-batches in the pipeline, min(p, B/w)",
        Symbol::StagesPerMicroBatch => "stages per micro-batch, p/u: above 1 stages stand idle",
        Symbol::Bubble => "pipeline bubble of the prefill, (u+p-1)/u",
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::Target;
    use super::*;

    #[test]
    fn the_law_reads_as_in_the_documentation() {
        let text = formula_text(&Skeleton::default_for(Target::EnergyJ));
        assert!(text.contains("k2·L·h·B·S^2·b^a2·t^a1"), "{text}");
        assert!(text.contains("k6·L·h·B·(S+m)·(t-1)"), "{text}");
        assert_eq!(text.lines().count(), 9);
        let latex = formula_latex(&Skeleton::default_for(Target::EnergyJ));
        assert!(
            latex.starts_with("E = ") && formula_latex(&Skeleton::default_for(Target::DurationS)).starts_with("D = ")
        );
        assert!(latex.contains(r"k_{3}\,W\,r\,w\,u\,i^{a_{4}}\,t^{a_{3}}"), "{latex}");
    }
}
