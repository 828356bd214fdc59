//! The formula of a law as MathML, which browsers typeset by themselves.

use serde::Serialize;

use crate::law::{Skeleton, Term};

/// One term: its formula as markup, and what it stands for in words.
#[derive(Debug, Serialize)]
pub(super) struct TypesetTerm {
    /// A `math` element. Everything in it that comes from a model file is escaped.
    pub(super) math: String,
    pub(super) title: String,
}

/// The terms one by one; the first says what they add up to.
pub(super) fn typeset(skeleton: &Skeleton) -> Vec<TypesetTerm> {
    let head = format!("<mtext>{}</mtext><mo>=</mo>", escaped(skeleton.target.as_str()));
    let term = |(i, term): (usize, &Term)| {
        let lead = if i == 0 { head.clone() } else { "<mo form=\"prefix\">+</mo>".to_owned() };
        TypesetTerm { math: format!("<math><mrow>{lead}{}</mrow></math>", product(term)), title: term.title.clone() }
    };
    skeleton.terms.iter().enumerate().map(term).collect()
}

fn product(term: &Term) -> String {
    let mut factors = vec![indexed(&term.name)];
    for factor in &term.product {
        let base = expression(factor.symbol.display());
        factors.push(match factor.power {
            1.0 => base,
            power => format!("<msup>{base}<mn>{power}</mn></msup>"),
        });
    }
    for (symbol, exponent) in &term.scaling {
        factors.push(format!("<msup>{}{}</msup>", expression(symbol), indexed(exponent)));
    }
    // A thin space: a dot between every two letters would be most of the line.
    factors.join("<mspace width=\"0.17em\"></mspace>")
}

/// `k3` as k with index 3; a name without digits as it is.
fn indexed(name: &str) -> String {
    let digits = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
    let (stem, index) = name.split_at(digits);
    let stem = format!("<mi>{}</mi>", escaped(stem));
    if index.is_empty() { stem } else { format!("<msub>{stem}<mn>{}</mn></msub>", escaped(index)) }
}

/// A sum in brackets or a single letter, letter by letter.
fn expression(text: &str) -> String {
    let token = |c: char| match c {
        'a'..='z' | 'A'..='Z' => format!("<mi>{c}</mi>"),
        '0'..='9' => format!("<mn>{c}</mn>"),
        '-' => "<mo>−</mo>".to_owned(),
        c => format!("<mo stretchy=\"false\">{}</mo>", escaped(&c.to_string())),
    };
    format!("<mrow>{}</mrow>", text.chars().map(token).collect::<String>())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::Target;

    #[test]
    fn powers_indices_and_brackets_become_elements() {
        let terms = typeset(&Skeleton::default_for(Target::EnergyJ));
        assert!(terms[0].math.contains("<mtext>energy_j</mtext>"), "{}", terms[0].math);
        let attention = terms.iter().find(|t| t.math.contains("<msub><mi>k</mi><mn>2</mn></msub>")).unwrap();
        assert!(attention.math.contains("<msup><mrow><mi>S</mi></mrow><mn>2</mn></msup>"), "{}", attention.math);
        let reduce = terms.iter().find(|t| t.math.contains("<mn>6</mn></msub>")).unwrap();
        assert!(reduce.math.contains("<mi>t</mi><mo>−</mo><mn>1</mn>"), "{}", reduce.math);
        assert!(terms.iter().all(|t| t.math.matches("<mrow>").count() == t.math.matches("</mrow>").count()));
    }

    #[test]
    fn names_of_a_model_file_cannot_become_markup() {
        let mut skeleton = Skeleton::default_for(Target::EnergyJ);
        skeleton.terms[0].name = "<script>1".to_owned();
        assert!(!typeset(&skeleton)[0].math.contains("<script>"));
    }
}
