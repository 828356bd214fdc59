//! A sample of what `where` was asked, to be asked again: a plan must not hang on the order of the questions.

use crate::sweep::design::{Candidate, Deployment};

/// Questions that are kept.
const KEPT: usize = 64;

/// Some of the questions, evenly spread over all that were asked, whatever their number is.
#[derive(Default)]
pub(super) struct Sample {
    kept: Vec<Asked>,
    asked: usize,
    every: usize,
}

/// A question and its answer.
pub(super) struct Asked {
    deployment: Deployment,
    sizes: [u32; 3],
    pub(super) answer: bool,
}

impl Asked {
    pub(super) fn candidate(&self) -> Candidate<'_> {
        let [batch_size, input_tokens, output_tokens] = self.sizes;
        Candidate { deployment: &self.deployment, batch_size, input_tokens, output_tokens }
    }
}

impl Sample {
    pub(super) fn note(&mut self, c: &Candidate<'_>, answer: bool) {
        let every = self.every.max(1);
        if self.asked.is_multiple_of(every) {
            if self.kept.len() == KEPT {
                // Of twice as many questions, every second one.
                let mut number = 0;
                self.kept.retain(|_| {
                    number += 1;
                    number % 2 == 1
                });
                self.every = every * 2;
            }
            if self.asked.is_multiple_of(self.every.max(1)) {
                let sizes = [c.batch_size, c.input_tokens, c.output_tokens];
                self.kept.push(Asked { deployment: c.deployment.clone(), sizes, answer });
            }
        }
        self.asked += 1;
    }

    pub(super) fn into_kept(self) -> Vec<Asked> {
        self.kept
    }
}
