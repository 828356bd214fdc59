//! Texts of a model file are printed in lines of ours: one with a line break in it would forge the next.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Characters of a refused text that are shown.
const SHOWN: usize = 60;

/// Any JSON whose texts and keys are of one line each; nothing of it is kept.
pub(super) struct OneLineTexts;

impl<'de> Deserialize<'de> for OneLineTexts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for OneLineTexts {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self, E> {
        if !text.contains('\n') {
            return Ok(self);
        }
        let shown: String = text.chars().take(SHOWN).collect();
        Err(E::custom(format!("expected names and texts of one line, found `{}`", shown.escape_default())))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E: Error>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        while entries.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_is_found_in_values_and_keys_however_deep() {
        let read = |text: &str| serde_json::from_str::<OneLineTexts>(text).map(drop).map_err(|e| e.to_string());
        assert_eq!(read("{\"a\": [1, -2, 3.5, null, true, {\"b\": \"c d\"}],\n\"e\": \"\"}"), Ok(()));
        for text in [r#"{"a": [{"b": "x\nwarning: y"}]}"#, r#"{"a": {"x\nwarning: y": 1}}"#] {
            let said = read(text).unwrap_err();
            assert!(said.contains("found `x\\nwarning: y`") && !said.contains('\n'), "{said}");
        }
    }
}
