//! What a recording wants to tell its operator while it runs: back-offs, hung drivers, refused priorities.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Sentences that wait to be said. Beyond, the oldest go: nobody is listening.
const MOST: usize = 64;

/// Sentences on their way from the recording's threads to whoever prints them.
#[derive(Debug, Clone, Default)]
pub struct Notices(Arc<Mutex<VecDeque<String>>>);

impl Notices {
    pub(super) fn say(&self, sentence: String) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MOST {
            waiting.pop_front();
        }
        waiting.push_back(sentence);
    }

    /// Takes what was said since the last time, in order.
    pub fn take(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}
