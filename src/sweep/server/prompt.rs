//! Prompts: random token ids, so that lengths are exact and no two prompts share a prefix.
//!
//! A prompt that begins like an earlier one is answered from the prefix cache, and its prefill costs nothing; a text
//! has a length that only the tokenizer knows. Ids are drawn from a range that in common vocabularies holds ordinary
//! tokens: special ones lie at either end.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// Ordinary tokens begin here: below lie special tokens and single bytes.
const LOWEST_ID: u32 = 1_000;
/// Vocabularies whose size is not known have at least so many ordinary tokens (Llama 2, the smallest common one, has
/// 32,000).
const SAFE_IDS: u32 = 30_000;

/// Draws prompts: the same ones for the same seed, and never one twice.
#[derive(Debug)]
pub(super) struct Prompts {
    rng: ChaCha8Rng,
    low: u32,
    high: u32,
}

impl Prompts {
    /// Prompts for a vocabulary of so many tokens; `salt` tells sessions with the same seed apart.
    pub(super) fn new(seed: u64, salt: &str, vocab_size: Option<u32>) -> Self {
        let hash: [u8; 32] = Sha256::digest(format!("prompts|{seed}|{salt}")).into();
        let mut prompts = Self { rng: ChaCha8Rng::from_seed(hash), low: LOWEST_ID, high: SAFE_IDS };
        prompts.set_vocab_size(vocab_size);
        prompts
    }

    /// Another vocabulary for the prompts to come.
    pub(super) fn set_vocab_size(&mut self, vocab_size: Option<u32>) {
        // The last sixteenth may hold added special tokens.
        let high = vocab_size.map_or(SAFE_IDS, |size| (size - size / 16).max(2));
        (self.low, self.high) = (LOWEST_ID.min(high / 2), high);
    }

    /// The ids of one prompt, as JSON.
    pub(super) fn draw(&mut self, tokens: u32) -> String {
        let mut text = String::with_capacity(tokens as usize * 6 + 2);
        text.push('[');
        for i in 0..tokens {
            if i > 0 {
                text.push(',');
            }
            text.push_str(&self.rng.random_range(self.low..self.high).to_string());
        }
        text.push(']');
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn ids(text: &str) -> Vec<u32> {
        serde_json::from_str(text).expect("a list of ids")
    }

    #[test]
    fn prompts_are_exact_in_length_inside_the_vocabulary_and_all_different() {
        for (vocab_size, range) in [(None, 1_000..30_000), (Some(8_192), 1_000..7_680), (Some(300), 141..282)] {
            let mut prompts = Prompts::new(1, "", vocab_size);
            let drawn: Vec<Vec<u32>> = (0..500).map(|_| ids(&prompts.draw(16))).collect();
            assert!(drawn.iter().all(|p| p.len() == 16 && p.iter().all(|id| range.contains(id))), "{vocab_size:?}");
            // No two of 500 agree in their first 4 tokens: 141^4 = 4e8 beginnings make even one such pair unlikely.
            let beginnings: HashSet<&[u32]> = drawn.iter().map(|p| &p[..4]).collect();
            assert_eq!(beginnings.len(), drawn.len());
        }
        assert_eq!(Prompts::new(1, "", None).draw(0), "[]");
    }

    #[test]
    fn the_seed_and_the_salt_decide() {
        let draw = |seed, salt| Prompts::new(seed, salt, None).draw(8);
        assert_eq!(draw(3, "a"), draw(3, "a"));
        assert_ne!(draw(3, "a"), draw(4, "a"));
        assert_ne!(draw(3, "a"), draw(3, "b"));
    }
}
