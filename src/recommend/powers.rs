//! A law as a sum of powers of the batch.
//!
//! Between the batches at which a pipeline is full or a cache overflows, every symbol of a skeleton is a constant or
//! proportional to the batch, so that each term is a constant times a power of it. Terms of the same power are then one, over
//! all classes of lengths: a candidate costs a multiplication and an addition or two. Where that does not hold of a class (a
//! pipeline that is not full, experts that few sequences visit), the folded law of that class is asked itself.

use super::fold::Folded;

/// `fixed + linear B + sum of factor B^power`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PowerSum {
    fixed: f64,
    linear: f64,
    others: Vec<(f64, f64)>,
}

/// A sum of powers, and the batches for which it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Range {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) sum: PowerSum,
}

impl PowerSum {
    pub(super) fn add(&mut self, factor: f64, power: f64) {
        if power == 0.0 {
            self.fixed += factor;
        } else if power == 1.0 {
            self.linear += factor;
        } else if let Some((sum, _)) = self.others.iter_mut().find(|(_, p)| *p == power) {
            *sum += factor;
        } else {
            self.others.push((factor, power));
        }
    }

    fn add_all(&mut self, share: f64, other: &Self) {
        self.fixed += share * other.fixed;
        self.linear += share * other.linear;
        other.others.iter().for_each(|(factor, power)| self.add(share * factor, *power));
    }

    fn value(&self, batch: f64) -> f64 {
        let others = self.others.iter().map(|(factor, power)| factor * batch.powf(*power));
        self.fixed + self.linear * batch + others.sum::<f64>()
    }
}

/// The mean between two batches: a sum of powers for the classes for which there is one, and the others by their places.
#[derive(Debug)]
struct Part {
    range: Range,
    asked: Vec<usize>,
}

/// The mean of a law over the classes of lengths.
#[derive(Debug)]
pub(super) struct Mean {
    classes: Vec<(f64, Folded)>,
    /// Ascending, without overlap.
    ranges: Vec<Part>,
    per_replica: bool,
}

impl Mean {
    pub(super) fn new(classes: Vec<(f64, Folded)>) -> Self {
        let own: Vec<(f64, Vec<Range>)> = classes.iter().map(|(share, folded)| (*share, folded.ranges())).collect();
        let mut edges: Vec<f64> = own.iter().flat_map(|(_, ranges)| ranges).flat_map(|r| [r.from, r.to]).collect();
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        let between = edges.windows(2).filter_map(|pair| {
            let [from, to] = *pair else { return None };
            let mut sum = PowerSum::default();
            let mut asked = Vec::new();
            for (place, (share, ranges)) in own.iter().enumerate() {
                match ranges.iter().find(|r| r.from <= from && to <= r.to) {
                    Some(range) => sum.add_all(*share, &range.sum),
                    // Of the classes of a trace another one overflows the cache at every batch: the rest need not suffer.
                    None => asked.push(place),
                }
            }
            (asked.len() < own.len()).then_some(Part { range: Range { from, to, sum }, asked })
        });
        let ranges = between.collect();
        let per_replica = classes.iter().any(|(_, folded)| folded.per_replica());
        Self { classes, ranges, per_replica }
    }

    /// The prediction for `replicas` replicas that hold `batch` sequences each.
    pub(super) fn value(&self, batch: f64, replicas: f64) -> f64 {
        match self.range(batch) {
            Some(Part { range, asked }) => {
                let value = range.sum.value(batch);
                let value = if self.per_replica { value * replicas } else { value };
                let others = asked.iter().filter_map(|place| self.classes.get(*place));
                others.fold(value, |sum, (share, folded)| sum + share * folded.value(batch, replicas))
            }
            None => self.classes.iter().map(|(share, folded)| share * folded.value(batch, replicas)).sum(),
        }
    }

    /// The batch above 1 at which so many per second are finished by a replica, where a straight line says so. A time grows
    /// with the batch, and less than it: there is one such batch at most.
    pub(super) fn batch_at_rate(&self, rate: f64) -> Option<f64> {
        self.ranges.iter().filter(|part| part.asked.is_empty()).find_map(|Part { range, .. }| {
            let PowerSum { fixed, linear, others } = &range.sum;
            let batch = rate * fixed / (1.0 - rate * linear);
            let is_inside = batch > 1.0 && range.from <= batch && batch <= range.to;
            (others.is_empty() && *fixed > 0.0 && is_inside).then_some(batch)
        })
    }

    fn range(&self, batch: f64) -> Option<&Part> {
        let at = self.ranges.partition_point(|part| part.range.to < batch);
        self.ranges.get(at).filter(|part| part.range.from <= batch)
    }

    #[cfg(test)]
    pub(super) fn is_tabulated(&self, batch: f64) -> bool {
        self.range(batch).is_some_and(|part| part.asked.is_empty())
    }
}
