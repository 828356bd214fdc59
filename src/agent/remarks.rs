//! What a recording has to say while it goes on: few sentences, for stderr or the journal.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Remarks that wait for somebody to print them; older ones go first when nobody does.
const MAX_WAITING: usize = 64;

/// A short, bounded list of sentences. Clones share it: the recording's threads say, whoever has a terminal prints.
#[derive(Debug, Clone, Default)]
pub struct Remarks {
    waiting: Arc<Mutex<VecDeque<String>>>,
}

impl Remarks {
    /// Adds a sentence. It never waits for a terminal, and says nothing twice in a row.
    pub fn say(&self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.back() == Some(&sentence) {
            return;
        }
        if waiting.len() >= MAX_WAITING {
            waiting.pop_front();
        }
        waiting.push_back(sentence);
    }

    /// Takes what was said since the last time, in order.
    pub fn take(&self) -> Vec<String> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_nobody_takes_are_bounded_and_the_latest_stay() {
        let remarks = Remarks::default();
        let twin = remarks.clone();
        (0..1_000).for_each(|i| twin.say(i.to_string()));
        twin.say("999");
        let taken = remarks.take();
        assert_eq!(taken.len(), MAX_WAITING);
        assert_eq!(taken.last().map(String::as_str), Some("999"));
        assert!(remarks.take().is_empty());
    }
}
