//! How much a plan has to do: runs and starts, at least and at most.

use super::{Plan, Point, Run};

/// Two repeats are the fewest that say how much repeats differ.
const FEWEST_REPEATS: u32 = 2;

impl Plan {
    /// The `repeat`th run of the point at a place, planned or not.
    pub fn run_of(&self, point: usize, repeat: u32) -> Option<Run> {
        self.points.get(point).map(|p| Run { run_id: format!("{}-{repeat}", p.point_id), point, repeat })
    }

    /// How many runs there are at least: repeats that [`Measure::relative_std`](super::Measure::relative_std) may ask for come on top.
    pub fn least_runs(&self) -> usize {
        self.runs.iter().filter(|run| self.is_certain(run)).count()
    }

    /// Whether a run is carried out whatever comes of those before it.
    fn is_certain(&self, run: &Run) -> bool {
        let certain = self.measure.relative_std.map_or(self.repeats, |_| self.repeats.max(FEWEST_REPEATS));
        run.repeat < certain
    }

    /// How often a deployment is started for the runs that are laid out: at least, and at most unless one dies. A
    /// deployment serves its points of one repeat in one go, and comes again with the next repeat.
    pub fn starts(&self) -> (usize, usize) {
        let starts = |runs: &mut dyn Iterator<Item = &Run>| {
            let (mut starts, mut up): (usize, Option<&Point>) = (0, None);
            for point in runs.filter_map(|run| self.points.get(run.point)) {
                if up.is_none_or(|up| !up.shares_deployment(point)) {
                    starts += 1;
                }
                up = Some(point);
            }
            starts
        };
        (starts(&mut self.runs.iter().filter(|run| self.is_certain(run))), starts(&mut self.runs.iter()))
    }

    /// How many runs there can be at most.
    pub fn most_runs(&self) -> usize {
        let Some(adaptive) = &self.adaptive else { return self.runs.len() };
        let points = adaptive.rule.max_points.min(self.points.len());
        points.saturating_mul(self.measure.most_repeats(self.repeats) as usize)
    }
}
