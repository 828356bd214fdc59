//! What a search keeps of many candidates: counts, the best few, the front, and what rules of thumb would pick. Candidates
//! are looked at by several threads; what each keeps is joined, and the outcome does not depend on who saw what.

use super::search::Point;

/// The best so many points, kept in a buffer that is cut back when it is full.
#[derive(Debug, Clone)]
pub(super) struct Best {
    most: usize,
    points: Vec<Point>,
    /// Nothing above it can be among the best.
    bar: f64,
}

impl Best {
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), points: Vec::new(), bar: f64::INFINITY }
    }

    pub(super) fn add(&mut self, point: Point) {
        if point.objective > self.bar {
            return;
        }
        self.points.push(point);
        if self.points.len() >= 4 * self.most {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.points.len() > self.most {
            let (_, last, _) = self.points.select_nth_unstable_by(self.most - 1, Point::order);
            self.bar = last.objective;
            self.points.truncate(self.most);
        }
    }

    pub(super) fn join(&mut self, other: Self) {
        other.points.into_iter().for_each(|p| self.add(p));
    }

    /// Best first.
    pub(super) fn sorted(mut self) -> Vec<Point> {
        self.cut();
        self.points.sort_unstable_by(Point::order);
        self.points
    }
}

/// Points that no other beats in objective and latency, least objective first.
#[derive(Debug, Clone, Default)]
pub(super) struct Front {
    points: Vec<Point>,
}

impl Front {
    pub(super) fn add(&mut self, point: Point) {
        if !point.latency.is_finite() {
            return;
        }
        let at = self.points.partition_point(|p| p.order(&point).is_lt());
        let before = at.checked_sub(1).and_then(|i| self.points.get(i));
        if before.is_some_and(|p| p.latency <= point.latency) {
            return;
        }
        let beaten = self.points.iter().skip(at).take_while(|p| p.latency >= point.latency).count();
        self.points.splice(at..at + beaten, [point]);
    }

    pub(super) fn join(&mut self, other: Self) {
        other.points.into_iter().for_each(|p| self.add(p));
    }

    pub(super) fn points(&self) -> &[Point] {
        &self.points
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
    pub(super) fn add(&mut self, count: usize, excess: f64, point: Point, value: f64) {
        self.count += count;
        let is_closer = |(least, other, _): &(f64, Point, f64)| {
            excess.total_cmp(least).then_with(|| point.place().cmp(&other.place())).is_lt()
        };
        if self.closest.as_ref().is_none_or(is_closer) {
            self.closest = Some((excess, point, value));
        }
    }

    fn join(&mut self, other: Self) {
        match other.closest {
            Some((excess, point, value)) => self.add(other.count, excess, point, value),
            None => self.count += other.count,
        }
    }
}

/// What rules of thumb would pick among points of one batch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rules {
    pub(super) fewest_gpus: Option<Point>,
    pub(super) fastest: Option<Point>,
}

impl Rules {
    fn add(&mut self, point: &Point) {
        let fewer = |a: &Point, b: &Point| a.num_gpus().cmp(&b.num_gpus()).then_with(|| a.order(b)).is_lt();
        let faster = |a: &Point, b: &Point| a.latency.total_cmp(&b.latency).then_with(|| a.order(b)).is_lt();
        if self.fewest_gpus.is_none_or(|other| fewer(point, &other)) {
            self.fewest_gpus = Some(*point);
        }
        if point.latency.is_finite() && self.fastest.is_none_or(|other| faster(point, &other)) {
            self.fastest = Some(*point);
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

    /// A feasible point of the batch with this index.
    pub(super) fn add(&mut self, point: Point, batch: usize) {
        self.feasible += 1;
        self.best.add(point);
        self.front.add(point);
        if let Some(rules) = self.rules.get_mut(batch) {
            rules.add(&point);
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

    fn points(count: u32) -> Vec<Point> {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        // Coarse figures, so that there are ties.
        let mut figure = || f64::from(rng.random_range(1..40_u32));
        (1..=count).map(|i| Point { objective: figure(), latency: figure(), ..Point::of_degrees(0, i, 1) }).collect()
    }

    #[test]
    fn what_is_kept_is_what_a_full_sort_gives_however_it_is_shared_out() {
        let all = points(3000);
        let mut sorted = all.clone();
        sorted.sort_by(Point::order);
        let mut least = f64::INFINITY;
        let mut front: Vec<u32> = Vec::new();
        for point in &sorted {
            if point.latency < least {
                least = point.latency;
                front.push(point.tensor);
            }
        }
        for parts in [1, 2, 7] {
            let mut found = Found::new(0, 1, 50);
            for part in 0..parts {
                let mut own = Found::new(0, 1, 50);
                all.iter().skip(part).step_by(parts).for_each(|p| own.add(*p, 0));
                found.join(own);
            }
            assert_eq!(found.front.points().iter().map(|p| p.tensor).collect::<Vec<_>>(), front);
            let rules = found.rules[0];
            assert_eq!(rules.fewest_gpus.map(|p| p.tensor), Some(1));
            let fastest = all.iter().map(|p| p.latency).fold(f64::INFINITY, f64::min);
            assert_eq!(rules.fastest.map(|p| p.latency), Some(fastest));
            assert_eq!(found.feasible, 3000);
            let best: Vec<u32> = found.best.sorted().iter().map(|p| p.tensor).collect();
            assert_eq!(best, sorted[..50].iter().map(|p| p.tensor).collect::<Vec<_>>());
        }
    }
}
