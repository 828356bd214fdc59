//! What a misspelt word was meant to be.

/// The nearest of `known` to a misspelt `word`, if any is near enough to be a likely slip; else the only one of which it
/// is a whole part, as `tpot` is of `mean_tpot_s`.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let known: Vec<&str> = known.into_iter().collect();
    let slip = known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(&word, k), *k))
        .filter(|(distance, k)| *distance <= k.len().max(word.len()) / 3 + 1)
        .min();
    let is_part = |k: &&&str| k.split('_').any(|part| part == word);
    let mut wholes = known.iter().filter(is_part);
    let whole = wholes.next().filter(|_| wholes.next().is_none());
    slip.map(|(_, k)| k).or(whole.copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::PHASES;

    #[test]
    fn a_misspelt_column_finds_its_neighbour_and_a_strange_one_none() {
        let names = || PHASES.columns.iter().map(|c| c.name);
        assert_eq!(nearest("tensor_paralel", names()), Some("tensor_parallel"));
        assert_eq!(nearest("energy_J", names()), Some("energy_j"));
        assert_eq!(nearest("zebra", names()), None);
    }
}
