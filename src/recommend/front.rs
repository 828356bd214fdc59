//! The candidates that no other beats in objective and latency.
//!
//! Of a million candidates a third may lie on it, so it is never one list that others are put into: candidates are sorted
//! by pieces, of each piece what it does not beat itself is kept, and the front is worked out of these runs as far as it is
//! asked for. In a run the objective rises and the latency falls, so that one look into it tells whether it beats another.

use super::select::Entry;

/// Candidates that are sorted at once.
const PIECE: usize = 16_384;

/// Candidates, of which the front is taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Front {
    /// Each by objective, the latency ever less.
    runs: Vec<Vec<Entry>>,
    waiting: Vec<Entry>,
}

impl Front {
    pub(super) fn add(&mut self, entry: Entry) {
        let beaten = |by: &Entry| by.latency <= entry.latency && by.order(&entry).is_lt();
        if !entry.latency.is_finite() || self.waiting.last().is_some_and(beaten) {
            return;
        }
        self.waiting.push(entry);
        if self.waiting.len() >= PIECE {
            self.settle();
        }
    }

    /// Makes a run of what waits.
    pub(super) fn settle(&mut self) {
        let mut run = std::mem::take(&mut self.waiting);
        // Stable for its speed: what comes in is in order but for a few places.
        run.sort_by(Entry::order);
        let mut least = f64::INFINITY;
        run.retain(|entry| {
            let stays = entry.latency < least;
            least = least.min(entry.latency);
            stays
        });
        if !run.is_empty() {
            self.runs.push(run);
        }
    }

    pub(super) fn join(&mut self, mut other: Self) {
        other.settle();
        self.settle();
        self.runs.append(&mut other.runs);
    }

    /// The first so many of the front, least objective first. Everything that was added must be settled.
    pub(super) fn first(&self, most: usize) -> Vec<Entry> {
        let mut front: Vec<Entry> = Vec::new();
        let mut rest: Vec<&[Entry]> = self.runs.iter().map(Vec::as_slice).collect();
        while front.len() < most {
            let least = front.last().map_or(f64::INFINITY, |entry| entry.latency);
            for run in &mut rest {
                *run = run.get(run.partition_point(|entry| entry.latency >= least)..).unwrap_or_default();
            }
            let Some(next) = rest.iter().filter_map(|run| run.first()).min_by(|a, b| a.order(b)) else { break };
            front.push(*next);
        }
        front
    }

    /// Whether it is on the front.
    pub(super) fn contains(&self, entry: &Entry) -> bool {
        let mut is_there = false;
        for run in &self.runs {
            let at = run.partition_point(|other| other.order(entry).is_lt());
            let before = at.checked_sub(1).and_then(|i| run.get(i));
            if before.is_some_and(|other| other.latency <= entry.latency) {
                return false;
            }
            is_there |= run.get(at).is_some_and(|other| other.order(entry).is_eq());
        }
        is_there
    }
}
