//! Products of symbols as text: `L*h*B*S^2`.

use serde::{Deserializer, Serializer, de};

use super::case::Symbol;
use super::skeleton::Factor;
use crate::schema::nearest;

pub(crate) fn parse(text: &str) -> Result<Vec<Factor>, String> {
    text.split('*')
        .map(|part| {
            let (name, power) = match part.split_once('^') {
                Some((name, power)) => {
                    let parsed = power.trim().parse::<f64>().ok().filter(|p| p.is_finite());
                    (name.trim(), parsed.ok_or(format!("`{}` in `{text}` is no power", power.trim()))?)
                }
                None => (part.trim(), 1.0),
            };
            let known = Symbol::ALL.iter().map(|s| s.as_str());
            let symbol = Symbol::ALL.iter().copied().find(|s| s.as_str() == name).ok_or_else(|| {
                match nearest(name, known.clone()) {
                    Some(near) => format!("symbol `{name}` in `{text}` is unknown; did you mean `{near}`?"),
                    None => format!(
                        "symbol `{name}` in `{text}` is unknown; expected some of {}",
                        known.collect::<Vec<_>>().join(" ")
                    ),
                }
            })?;
            Ok(Factor { symbol, power })
        })
        .collect()
}

pub(super) fn print(factors: &[Factor]) -> String {
    let part = |f: &Factor| match f.power {
        1.0 => f.symbol.to_string(),
        power => format!("{}^{power}", f.symbol),
    };
    factors.iter().map(part).collect::<Vec<_>>().join("*")
}

pub(super) fn serialize<S: Serializer>(factors: &[Factor], s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&print(factors))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Factor>, D::Error> {
    let text: String = de::Deserialize::deserialize(d)?;
    parse(&text).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_print_what_they_parse() {
        for text in ["L*t*p*m*w", "L*h*B*S^2", "L*m*w*t1*t^-1", "B^0.5"] {
            assert_eq!(print(&parse(text).unwrap()), text);
        }
    }
}
