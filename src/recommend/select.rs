//! What a search keeps of many candidates: counts, the best few, the front, and what rules of thumb would pick. Candidates
//! are looked at by several threads; what each keeps is joined, and the outcome does not depend on who saw what.

use std::cmp::Ordering;

use super::front::Front;
use super::search::Point;

/// What is kept of a candidate while there are millions; the rest is worked out again for the few that are shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Entry {
    pub(super) objective: f64,
    pub(super) latency: f64,
    pub(super) num_gpus: u32,
    pub(super) setting: u32,
}

impl Entry {
    pub(super) fn of(point: &Point) -> Self {
        Self {
            objective: point.objective,
            latency: point.latency,
            num_gpus: point.num_gpus(),
            setting: u32::try_from(point.setting).unwrap_or(u32::MAX),
        }
    }

    /// Least first; what is equal is ordered by fewer GPUs, then by degrees, so that an answer is one answer.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let key = |e: &Self| (e.num_gpus, e.setting);
        self.objective.total_cmp(&other.objective).then_with(|| key(self).cmp(&key(other)))
    }
}

/// The best so many candidates, kept in a buffer that is cut back when it is full.
#[derive(Debug, Clone)]
pub(super) struct Best {
    most: usize,
    entries: Vec<Entry>,
    /// Nothing above it can be among the best.
    bar: f64,
}

impl Best {
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), entries: Vec::new(), bar: f64::INFINITY }
    }

    pub(super) fn add(&mut self, entry: Entry) {
        if entry.objective > self.bar {
            return;
        }
        self.entries.push(entry);
        if self.entries.len() >= self.most.saturating_mul(4) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.entries.len() > self.most {
            let (_, last, _) = self.entries.select_nth_unstable_by(self.most - 1, Entry::order);
            self.bar = last.objective;
            self.entries.truncate(self.most);
        }
    }

    pub(super) fn join(&mut self, other: Self) {
        other.entries.into_iter().for_each(|e| self.add(e));
    }

    /// Best first.
    pub(super) fn sorted(&self) -> Vec<Entry> {
        let mut all = self.clone();
        all.cut();
        all.entries.sort_unstable_by(Entry::order);
        all.entries
    }
}

/// How many configurations something excluded, and which came closest.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) count: usize,
    /// Factor by which the closest missed, the point, and its figure.
    pub(super) closest: Option<(f64, Point, f64)>,
}

impl Tally {
    pub(super) fn add(&mut self, count: usize, excess: f64, point: &Point, value: f64) {
        self.count += count;
        let is_closer = |(least, other, _): &(f64, Point, f64)| {
            excess.total_cmp(least).then_with(|| point.place().cmp(&other.place())).is_lt()
        };
        if self.closest.as_ref().is_none_or(is_closer) {
            self.closest = Some((excess, *point, value));
        }
    }

    fn join(&mut self, other: Self) {
        match other.closest {
            Some((excess, point, value)) => self.add(other.count, excess, &point, value),
            None => self.count += other.count,
        }
    }
}

/// What rules of thumb would pick among candidates of one batch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rules {
    pub(super) fewest_gpus: Option<Entry>,
    pub(super) fastest: Option<Entry>,
}

impl Rules {
    fn add(&mut self, entry: &Entry) {
        let fewer = |a: &Entry, b: &Entry| a.num_gpus.cmp(&b.num_gpus).then_with(|| a.order(b)).is_lt();
        let faster = |a: &Entry, b: &Entry| a.latency.total_cmp(&b.latency).then_with(|| a.order(b)).is_lt();
        if self.fewest_gpus.is_none_or(|other| fewer(entry, &other)) {
            self.fewest_gpus = Some(*entry);
        }
        if entry.latency.is_finite() && self.fastest.is_none_or(|other| faster(entry, &other)) {
            self.fastest = Some(*entry);
        }
    }
}

/// All that is kept.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) candidates: usize,
    pub(super) feasible: usize,
    pub(super) best: Best,
    pub(super) front: Front,
    pub(super) outside: Best,
    pub(super) memory: Tally,
    pub(super) range: Tally,
    /// Too slow for the requests that come.
    pub(super) overrun: Tally,
    pub(super) limits: Vec<Tally>,
    /// One for each batch that is searched, or one for all where the load decides on it.
    pub(super) rules: Vec<Rules>,
}

impl Found {
    pub(super) fn new(limits: usize, batches: usize, most: usize) -> Self {
        Self {
            candidates: 0,
            feasible: 0,
            best: Best::new(most),
            front: Front::default(),
            outside: Best::new(most),
            memory: Tally::default(),
            range: Tally::default(),
            overrun: Tally::default(),
            limits: vec![Tally::default(); limits],
            rules: vec![Rules::default(); batches.max(1)],
        }
    }

    /// A feasible candidate of the batch with this index.
    pub(super) fn add(&mut self, entry: Entry, batch: usize) {
        self.feasible += 1;
        self.best.add(entry);
        self.front.add(entry);
        if let Some(rules) = self.rules.get_mut(batch) {
            rules.add(&entry);
        }
    }

    pub(super) fn join(&mut self, other: Self) {
        self.candidates += other.candidates;
        self.feasible += other.feasible;
        self.best.join(other.best);
        self.front.join(other.front);
        self.outside.join(other.outside);
        self.memory.join(other.memory);
        self.range.join(other.range);
        self.overrun.join(other.overrun);
        for (own, other) in self.limits.iter_mut().zip(other.limits) {
            own.join(other);
        }
        for (own, other) in self.rules.iter_mut().zip(other.rules) {
            [other.fewest_gpus, other.fastest].iter().flatten().for_each(|p| own.add(p));
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn entries(count: u32) -> Vec<Entry> {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        // Coarse figures, so that there are ties.
        let mut figure = || f64::from(rng.random_range(1..40_u32));
        let mut entry = |num_gpus| {
            let objective = figure();
            Entry { objective, latency: (figure() + 40.0) / objective, num_gpus, setting: 0 }
        };
        (1..=count).map(&mut entry).collect()
    }

    /// Every entry that no earlier one is as fast as.
    fn front_of(sorted: &[Entry]) -> Vec<Entry> {
        let mut least = f64::INFINITY;
        let mut front = Vec::new();
        for entry in sorted {
            if entry.latency < least {
                least = entry.latency;
                front.push(*entry);
            }
        }
        front
    }

    #[test]
    fn what_is_kept_is_what_a_full_sort_gives_however_it_is_shared_out() {
        let all = entries(3000);
        let mut sorted = all.clone();
        sorted.sort_by(Entry::order);
        let front = front_of(&sorted);
        for parts in [1, 2, 7] {
            let mut found = Found::new(0, 1, 50);
            for part in 0..parts {
                let mut own = Found::new(0, 1, 50);
                for (i, entry) in all.iter().skip(part).step_by(parts).enumerate() {
                    own.add(*entry, 0);
                    if i % 300 == 299 {
                        own.front.settle();
                    }
                }
                found.join(own);
            }
            assert_eq!(found.front.first(usize::MAX), front);
            assert_eq!(found.front.first(2), front[..2]);
            assert!(all.iter().all(|e| found.front.contains(e) == front.contains(e)));
            let rules = found.rules[0];
            assert_eq!(rules.fewest_gpus.map(|e| e.num_gpus), Some(1));
            let fastest = all.iter().map(|e| e.latency).fold(f64::INFINITY, f64::min);
            assert_eq!(rules.fastest.map(|e| e.latency), Some(fastest));
            assert_eq!(found.feasible, 3000);
            assert_eq!(found.best.sorted(), sorted[..50]);
        }
    }

    #[test]
    fn a_front_of_many_pieces_is_that_of_one_sort() {
        // 60,000 on a curve and as many above it, from both ends.
        let of = |i: u32| {
            let x = f64::from(if i.is_multiple_of(2) { i } else { 120_000 - i });
            let above = if i.is_multiple_of(3) { 2.0 } else { 0.0 };
            Entry { objective: 1.0 + x, latency: 1e6 / (1.0 + x) + above, num_gpus: i, setting: i % 5 }
        };
        let mut front = Front::default();
        let mut all: Vec<Entry> = (0..120_000).map(of).collect();
        all.iter().for_each(|e| front.add(*e));
        front.settle();
        all.sort_by(Entry::order);
        let want = front_of(&all);
        assert!(want.len() > 10_000, "{}", want.len());
        assert_eq!(front.first(usize::MAX), want);
        let is_on = |e: &Entry| want.binary_search_by(|other| other.order(e)).is_ok();
        assert!(all.iter().step_by(17).all(|e| front.contains(e) == is_on(e)));
    }
}
