//! Complete laws: one term for each mechanism, in whatever form.
//!
//! The islands ask of every term that the rows prove it, and fifty rows do not prove a term of one per cent. Left out, it is
//! missed wherever it weighs more than in those rows. But that each mechanism is there needs no proof (`mechanism`); what
//! the rows must tell is its form. So all terms of a complete law are taken for granted, and the forms are searched:
//! a few coordinate descents from seeded random starts, one mechanism or the powers of one phase at a time, until nothing
//! changes. A mechanism that the rows deny has a coefficient of nothing, and is no term of the result.
//!
//! Many laws are then about as likely, and the likeliest of them by luck. Their mean prediction errs less than most of them
//! do, and the one nearest to it is the one to believe (`consensus`).

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::consensus;
use super::front::{Judged, dealings};
use super::genome::{Gene, Genome, PHASES, tensor_base};
use super::ground::Ground;
use super::island::Candidate;
use super::kernel::Form;
use super::mechanism::Mechanism;
use super::score::train;
use super::{DiscoverOptions, spread};

/// Descents, for at most so many rows. More of them end where others did; where there are more rows a fit takes longer,
/// and there are fewer places to end.
const STARTS: [(usize, u64); 3] = [(100, 12), (1000, 4), (usize::MAX, 2)];
/// Rounds of a descent; three or four are common.
const ROUNDS: usize = 6;
/// The random streams of the descents, apart from those of the islands.
const STREAM: u64 = 1 << 16;
/// Laws that are asked for their predictions, the likeliest.
const CONTENDERS: usize = 60;
/// Dealings that the contenders meet.
const DEALINGS: u64 = 8;
/// By what differences of the two criteria, of fitted and of held-out rows, are divided before they weigh: their mean,
/// and twice as wide as the letter of either has it, for both were looked at while searching.
const TEMPER: f64 = 4.0;

/// A form for each mechanism that has one, and the bases of the powers of each phase.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    forms: Vec<Option<usize>>,
    powers: [usize; 2],
}

/// What shapes are made of.
struct Space {
    /// Quantities that a mechanism may take, by mechanism.
    forms: Vec<Vec<usize>>,
    /// Sets of bases that the powers of a phase may stand on.
    powers: Vec<Vec<usize>>,
}

impl Space {
    fn new(ground: &Ground) -> Self {
        let of = |mechanism: &Mechanism| {
            let quantities = ground.quantities.iter().enumerate();
            quantities.filter(|(_, q)| q.mechanisms.contains(mechanism)).map(|(place, _)| place).collect()
        };
        let tensor = tensor_base().filter(|b| ground.bases.contains(b));
        let others = ground.bases.iter().copied().filter(|b| Some(*b) != tensor_base());
        let mut powers = Vec::new();
        for other in others.map(Some).chain([None]) {
            for tensor in if tensor.is_some() { vec![tensor, None] } else { vec![None] } {
                powers.push(tensor.into_iter().chain(other).collect());
            }
        }
        Self { forms: Mechanism::ALL.iter().map(of).collect(), powers }
    }

    fn genome(&self, ground: &Ground, shape: &Shape) -> Genome {
        let genes = shape.forms.iter().flatten().map(|quantity| Gene { quantity: *quantity, scaled: true }).collect();
        let bases = |place: usize| self.powers.get(place).cloned().unwrap_or_default();
        Genome { genes, powers: shape.powers.map(bases) }.canonical(ground)
    }

    /// A shape of forms that physics asks for, at random.
    fn draw(&self, ground: &Ground, rng: &mut ChaCha8Rng) -> Shape {
        let mut form = |forms: &Vec<usize>| {
            let is_known = |place: &&usize| ground.quantities.get(**place).is_some_and(|q| q.cost == 1);
            let known: Vec<usize> = forms.iter().filter(is_known).copied().collect();
            (!known.is_empty()).then(|| known.get(rng.random_range(0..known.len())).copied()).flatten()
        };
        let forms = self.forms.iter().map(&mut form).collect();
        Shape { forms, powers: [0, 1].map(|_| rng.random_range(0..self.powers.len())) }
    }

    /// All shapes that differ from `shape` in one slot: a mechanism, or behind those the powers of a phase.
    fn turn(&self, shape: &Shape, slot: usize) -> Vec<Shape> {
        if let Some(forms) = self.forms.get(slot) {
            let with = |form: &usize| {
                let mut turned = shape.clone();
                if let Some(own) = turned.forms.get_mut(slot) {
                    *own = Some(*form);
                }
                turned
            };
            return forms.iter().map(with).collect();
        }
        let with = |place: usize| {
            let mut turned = shape.clone();
            if let Some(own) = turned.powers.get_mut(slot - self.forms.len()) {
                *own = place;
            }
            turned
        };
        (0..self.powers.len()).map(with).collect()
    }

    fn slots(&self) -> usize {
        self.forms.len() + PHASES.len()
    }

    /// What it costs to have picked a form: the logarithm of how many there were to pick from. Forms that physics asks for
    /// cost one law as much as the next; a form with picked powers also has one number more.
    fn picked(&self, ground: &Ground, shape: &Shape) -> f64 {
        let of = |(form, forms): (&Option<usize>, &Vec<usize>)| {
            let is_picked = |place: &usize| ground.quantities.get(*place).is_some_and(|q| q.cost > 1);
            if !form.as_ref().is_some_and(is_picked) {
                return 0.0;
            }
            let picked = forms.iter().filter(|f| is_picked(f)).count().max(1) as f64;
            picked.ln() + 0.5 * (ground.rows().max(1) as f64).ln()
        };
        shape.forms.iter().zip(&self.forms).map(of).sum()
    }

    /// The logarithm of the number of laws that physics asks for.
    fn size_ln(&self, ground: &Ground) -> f64 {
        let is_known = |place: &&usize| ground.quantities.get(**place).is_some_and(|q| q.cost == 1);
        let forms = self.forms.iter().map(|forms| (forms.iter().filter(is_known).count().max(1) as f64).ln());
        forms.sum::<f64>() + PHASES.len() as f64 * (self.powers.len().max(1) as f64).ln()
    }
}

/// One descent, and all that it looked at with what it is worth.
struct Descent {
    number: u64,
    seen: BTreeMap<Shape, f64>,
}

/// The complete law to believe.
pub(super) struct Complete {
    pub(super) judged: Judged,
    /// What there was to pick from, as a logarithm: what the choice of its forms costs it.
    pub(super) picked: f64,
}

/// Searches the complete laws; `None` where not every one of them may have so many terms, or the time is over.
pub(super) fn search(ground: &Ground, options: &DiscoverOptions<'_>, threads: usize) -> Option<Complete> {
    let space = Space::new(ground);
    let mechanisms = space.forms.iter().filter(|forms| !forms.is_empty()).count();
    if mechanisms == 0 || mechanisms > options.max_terms || space.powers.is_empty() {
        return None;
    }
    let starts = STARTS.iter().find(|(most, _)| ground.rows() <= *most).map_or(1, |(_, starts)| *starts);
    let mut descents: Vec<Descent> = (0..starts).map(|number| Descent { number, seen: BTreeMap::new() }).collect();
    let (seed, stop) = (options.seed, options.stop);
    spread(&mut descents, threads, |descent| descent.run(ground, &space, seed, stop));
    // What was found until then depends on the clock, and asking on would take its time.
    if stop() {
        return None;
    }

    let mut by_genome: BTreeMap<Genome, (f64, f64)> = BTreeMap::new();
    for (shape, worth) in descents.into_iter().flat_map(|d| d.seen) {
        let picked = space.picked(ground, &shape);
        let kept = by_genome.entry(space.genome(ground, &shape)).or_insert((worth, picked));
        if worth < kept.0 {
            *kept = (worth, picked);
        }
    }
    let mut likely: Vec<(Genome, f64, f64)> =
        by_genome.into_iter().map(|(g, (worth, cost))| (g, worth, cost)).collect();
    likely.retain(|(_, worth, _)| worth.is_finite());
    likely.sort_by(|a, b| a.1.total_cmp(&b.1));
    likely.truncate(CONTENDERS);

    let dealings = dealings(ground, options.seed);
    let contender = |(genome, worth, picked): (Genome, f64, f64)| {
        (Judged::new(ground, Candidate { genome, score: 0.0 }), worth, picked)
    };
    let mut contenders: Vec<(Judged, f64, f64)> = likely.into_iter().map(contender).collect();
    spread(&mut contenders, threads, |(judged, ..)| judged.meet(ground, &dealings, DEALINGS));
    contenders.retain(|(judged, ..)| judged.error.is_finite());
    let criterion = |(judged, worth, picked): &(Judged, f64, f64)| worth + judged.misfit(ground.rows()) + picked;
    let least = contenders.iter().map(criterion).fold(f64::INFINITY, f64::min);
    let weighed: Vec<(&Genome, f64)> =
        contenders.iter().map(|c| (&c.0.candidate.genome, (-(criterion(c) - least) / TEMPER).exp())).collect();
    let (found, _, picked) = contenders.get(consensus::nearest(ground, &weighed, options.seed, threads)?)?;

    let genome = speaking(ground, &found.candidate.genome, options.seed);
    let mut judged = Judged::new(ground, Candidate { genome, score: 0.0 });
    judged.meet(ground, &dealings, u64::MAX);
    judged.error.is_finite().then(|| Complete { judged, picked: space.size_ln(ground) + picked })
}

/// Without the terms that come to nothing in every law.
fn speaking(ground: &Ground, genome: &Genome, seed: u64) -> Genome {
    let Some(dealing) = dealings(ground, seed).into_iter().next() else { return genome.clone() };
    let numbers = train(ground, genome, &dealing).numbers;
    let speaks = |place: usize| numbers.iter().any(|n| n.coefficients.get(place).is_some_and(|k| *k > 0.0));
    let genes = genome.genes.iter().enumerate().filter(|(place, _)| speaks(*place)).map(|(_, g)| *g).collect();
    Genome { genes, ..genome.clone() }.canonical(ground)
}

impl Descent {
    fn run(&mut self, ground: &Ground, space: &Space, seed: u64, stop: &(dyn Fn() -> bool + Sync)) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(STREAM + self.number);
        let mut shape = space.draw(ground, &mut rng);
        let mut best = self.worth(ground, space, &shape);
        for _ in 0..ROUNDS {
            let before = best;
            let mut slots: Vec<usize> = (0..space.slots()).collect();
            slots.shuffle(&mut rng);
            for slot in slots {
                if stop() {
                    return;
                }
                for turned in space.turn(&shape, slot) {
                    let worth = self.worth(ground, space, &turned);
                    if worth < best {
                        (best, shape) = (worth, turned);
                    }
                }
            }
            if best >= before {
                break;
            }
        }
    }

    /// What is to be least: minus the logarithm of how likely the rows make a shape, up to a constant.
    fn worth(&mut self, ground: &Ground, space: &Space, shape: &Shape) -> f64 {
        if let Some(worth) = self.seen.get(shape) {
            return *worth;
        }
        let forms: Vec<usize> = shape.forms.iter().flatten().copied().collect();
        let worth = if forms.iter().collect::<BTreeSet<_>>().len() < forms.len() {
            // One product cannot be two mechanisms.
            f64::INFINITY
        } else {
            let genome = space.genome(ground, shape);
            let loss = |scope| {
                let form = Form::new(ground, scope, &genome);
                form.fit(&(0..scope.rows()).collect::<Vec<_>>()).loss
            };
            let rows = ground.rows().max(1) as f64;
            let loss: f64 = ground.scopes.iter().map(loss).sum();
            0.5 * rows * (loss / rows).ln() + space.picked(ground, shape)
        };
        let worth = if worth.is_nan() { f64::INFINITY } else { worth };
        self.seen.insert(shape.clone(), worth);
        worth
    }
}

#[cfg(test)]
mod tests;
