//! Which structure does the data itself ask for?
//!
//! Start at [`discover`]: rows in, a front of skeletons out, small and wrong to large and right, and the one to believe.
//! Nothing is told of the energylens law. Candidates are sums of terms of a typed grammar (`catalogue`), coefficients
//! and powers fitted (`kernel`), judged on held-out workloads (`score`), bred on islands (`island`), and judged once
//! more on folds the search never saw (`front`). Beside them stand the laws that have a term for every mechanism
//! (`mechanism`), in whatever form (`complete`).
//!
//! Results depend on the rows, the options and the number of generations carried out, and on nothing else: not on the
//! number of threads, nor on the clock, which can only end a search early.
//!
//! Limits: what the rows cannot tell apart (a law for one scenario cannot tell `N` from `W`) is settled by the order of
//! the grammar; fifty rows support some dozen parameters; and a term that is a per cent of the energy of every row is
//! found by the islands by luck, or not at all. A complete law takes it for granted.

mod catalogue;
mod complete;
mod consensus;
mod free_form;
mod front;
mod genome;
mod ground;
mod island;
mod kernel;
mod mechanism;
mod parts;
mod score;
mod stability;
mod write;

use std::collections::BTreeMap;
use std::thread;

use serde::Serialize;

use super::group::{self, Group};
use super::{Error, MIN_ROWS, split};
use crate::dataset::Dataset;
use crate::law::{Pool, Skeleton, Target};
use front::Judged;
use ground::Ground;
use island::{Candidate, Island};
use score::Dealing;

pub use free_form::{FREE_FORM_CYCLES, FreeForm};
pub use parts::PartKind;
pub use stability::{Part, Stability, Survival, stability};

/// Islands: more than most machines have cores for, few enough that each gets somewhere.
const ISLANDS: u64 = 4;
/// Generations between migrations.
const MIGRATION: u64 = 10;
/// Candidates of each size that get the second look, from each island.
const SECOND_LOOKS: usize = 3;
/// Generations where nothing is said: some 7 s of processor time for 50 rows, complete laws included.
pub const GENERATIONS: u64 = 150;
/// Most terms where nothing is said.
pub const MAX_TERMS: usize = 12;

/// What to discover, and for how long.
#[derive(Clone)]
pub struct DiscoverOptions<'a> {
    /// One set of numbers per scenario, or one for all models of a platform; the structure is shared in either case.
    pub pool: Pool,
    /// Hold out whole models instead of workloads: asks for a structure that carries over to models never measured.
    pub hold_out_models: bool,
    /// Seed.
    pub seed: u64,
    /// Generations to carry out.
    pub generations: u64,
    /// Most terms of a candidate.
    pub max_terms: usize,
    /// Threads; `None` for one per core. Results do not depend on it.
    pub threads: Option<usize>,
    /// Asked between generations and while complete laws are searched whether to end here; what the islands found until
    /// then is kept, complete laws only as a whole.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Told after each generation: generations done, and the best held-out error so far.
    pub progress: &'a dyn Fn(u64, f64),
}

impl Default for DiscoverOptions<'_> {
    fn default() -> Self {
        Self {
            pool: Pool::None,
            hold_out_models: false,
            seed: 0,
            generations: GENERATIONS,
            max_terms: MAX_TERMS,
            threads: None,
            stop: &|| false,
            progress: &|_, _| {},
        }
    }
}

/// One point of the front.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FrontEntry {
    /// Terms.
    pub terms: usize,
    /// Fitted numbers: coefficients and powers.
    pub parameters: usize,
    /// Parameters, and one more for each term whose fixed powers no physics asked for: what sizes are compared by.
    pub complexity: usize,
    /// Held-out root mean square of the log error, robust.
    pub held_out_rms_log: f64,
    /// Held-out mean absolute percentage error, as a ratio.
    pub held_out_mape: f64,
    /// The structure.
    pub skeleton: Skeleton,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Discovery {
    /// Smallest first. Each but the one to believe is better than all before it, that one not counted.
    pub front: Vec<FrontEntry>,
    /// The place in `front` of the one to believe.
    pub chosen: usize,
    /// Whether that is a complete law: one with a term for each mechanism, as far as the rows allow.
    pub is_complete: bool,
    /// The energylens law on the same folds: what was found must beat it to be worth anything.
    pub reference: Option<FrontEntry>,
    /// Seed.
    pub seed: u64,
    /// Generations carried out; asking for as many gives the same result.
    pub generations: u64,
    /// Candidates fitted.
    pub evaluations: u64,
    /// Rows.
    pub rows: usize,
    /// Laws that share the structure.
    pub scopes: usize,
    /// What was held out together.
    pub held_out: &'static str,
}

impl Discovery {
    /// The entry to believe.
    pub fn best(&self) -> Option<&FrontEntry> {
        self.front.get(self.chosen)
    }
}

/// Searches for the structure behind the energies of `dataset`.
pub fn discover(dataset: &Dataset, options: &DiscoverOptions<'_>) -> Result<Discovery, Error> {
    Ok(search(&ground(dataset, options)?, options))
}

/// The free-form search on the largest law of `dataset`, judged on five folds of workloads; `None` if no finite
/// expression was found.
pub fn free_form(dataset: &Dataset, cycles: usize, options: &DiscoverOptions<'_>) -> Result<Option<FreeForm>, Error> {
    let ground = ground(dataset, options)?;
    let search =
        |scope| free_form::free_form(scope, folds_seed(options), options.seed, cycles, threads(options), options.stop);
    Ok(largest(&ground).and_then(search))
}

/// The free-form search on the largest law of `learnt`, judged on that of `unseen`.
pub fn free_form_against(
    learnt: &Dataset,
    unseen: &Dataset,
    cycles: usize,
    options: &DiscoverOptions<'_>,
) -> Result<Option<FreeForm>, Error> {
    let (learnt, unseen) = (ground(learnt, options)?, ground(unseen, options)?);
    let scopes = largest(&learnt).zip(largest(&unseen));
    Ok(scopes.and_then(|(learnt, unseen)| free_form::against(learnt, unseen, options.seed, cycles)))
}

fn largest(ground: &Ground) -> Option<&ground::Scope> {
    ground.scopes.iter().max_by_key(|s| s.rows())
}

fn ground(dataset: &Dataset, options: &DiscoverOptions<'_>) -> Result<Ground, Error> {
    let (groups, refused) = group::groups(dataset, options.pool)?;
    let groups: Vec<Group> = groups.into_iter().filter(|g| g.rows.len() >= MIN_ROWS).collect();
    if groups.is_empty() {
        let found = format!("found {} rows, {} refused", dataset.rows.len(), refused.len());
        return Err(Error::TooFewRows { found });
    }
    let models = groups.iter().map(|g| g.models().len()).max().unwrap_or(0);
    if options.hold_out_models && models < 2 {
        let found = "no law has rows of more than one model; hold out workloads".to_owned();
        return Err(Error::NothingToHoldOut { scheme: "models".to_owned(), found });
    }
    Ok(Ground::new(&groups, |group, lines| units(group, lines, options.hold_out_models)))
}

/// The dealing that the free-form search is judged on.
fn folds_seed(options: &DiscoverOptions<'_>) -> u64 {
    options.seed >> 1
}

fn threads(options: &DiscoverOptions<'_>) -> usize {
    options.threads.or_else(|| thread::available_parallelism().ok().map(usize::from)).unwrap_or(1)
}

fn search(ground: &Ground, options: &DiscoverOptions<'_>) -> Discovery {
    let threads = threads(options);
    // First, so that a search cut short while it breeds can be repeated.
    let complete = complete::search(ground, options, threads);
    let (islands, generations) = breed(ground, options, threads);
    let judged = second_look(ground, &islands, options.seed, threads);
    let mut front = front::front(judged);
    let proven = front::choose(&front, ground.rows());
    let admitted = complete.and_then(|complete| front::admit(&mut front, proven, complete, ground));
    Discovery {
        chosen: admitted.unwrap_or(proven),
        is_complete: admitted.is_some(),
        reference: judge_skeleton(ground, &Skeleton::default_for(Target::EnergyJ), options.seed),
        front: front.iter().map(|j| entry(ground, j)).collect(),
        seed: options.seed,
        generations,
        evaluations: islands.iter().map(|i| i.evaluations).sum(),
        rows: ground.rows(),
        scopes: ground.scopes.len(),
        held_out: match options.hold_out_models {
            true if ground.scopes.len() > 1 => "models (workloads, where a law has but one model)",
            true => "models",
            false => "workloads",
        },
    }
}

/// Carries out the generations, as many as there is time for.
fn breed(ground: &Ground, options: &DiscoverOptions<'_>, threads: usize) -> (Vec<Island>, u64) {
    let island = |i| {
        // The upper half of the seeds is for the second look.
        let dealing = Dealing::new(ground, options.seed.wrapping_mul(ISLANDS).wrapping_add(i) & (u64::MAX >> 1));
        Island::new(dealing, options.seed, i, options.max_terms)
    };
    let mut islands: Vec<Island> = (0..ISLANDS).map(island).collect();
    spread(&mut islands, threads, |island| island.settle(ground));
    let mut generations = 0;
    while generations < options.generations && !(options.stop)() {
        spread(&mut islands, threads, |island| island.evolve(ground));
        generations += 1;
        if generations % MIGRATION == 0 {
            migrate(&mut islands, ground);
        }
        let scores = islands.iter().flat_map(Island::best).map(|c| c.score);
        (options.progress)(generations, scores.fold(f64::INFINITY, f64::min).sqrt());
    }
    (islands, generations)
}

/// What is held out together, for each observation of a group.
fn units(group: &Group, lines: &[usize], by_model: bool) -> Vec<usize> {
    let models = group.models();
    let by_workload = split::units(&group.rows);
    let of_row = |(place, row): (usize, &crate::dataset::Row)| {
        let model = models.iter().position(|m| *m == row.model).unwrap_or(0);
        let workload = by_workload.get(place).copied().unwrap_or(0);
        // A scenario has one model, and nothing but its workloads to hold out.
        (row.line, if by_model && models.len() > 1 { model } else { workload })
    };
    let unit_of: BTreeMap<usize, usize> = group.rows.iter().enumerate().map(of_row).collect();
    lines.iter().map(|line| unit_of.get(line).copied().unwrap_or(0)).collect()
}

/// Does `work` on every item; which thread does it has no influence on the outcome.
fn spread<T: Send>(items: &mut [T], threads: usize, work: impl Fn(&mut T) + Sync) {
    let share = items.len().div_ceil(threads.max(1)).max(1);
    if share >= items.len() {
        items.iter_mut().for_each(work);
        return;
    }
    thread::scope(|scope| {
        for part in items.chunks_mut(share) {
            let work = &work;
            scope.spawn(move || part.iter_mut().for_each(work));
        }
    });
}

/// Each island gets the best of its neighbour, all at the same moment.
fn migrate(islands: &mut [Island], ground: &Ground) {
    let travellers: Vec<Vec<Candidate>> = islands.iter().map(Island::best).collect();
    for (island, guests) in islands.iter_mut().zip(travellers.iter().cycle().skip(1)) {
        island.welcome(ground, guests);
    }
}

fn second_look(ground: &Ground, islands: &[Island], seed: u64, threads: usize) -> Vec<Judged> {
    let all = islands.iter().flat_map(|i| i.archive.values().flat_map(|kept| kept.iter().take(SECOND_LOOKS)));
    let distinct: BTreeMap<&genome::Genome, &Candidate> = all.map(|c| (&c.genome, c)).collect();
    let candidates = distinct.into_values().cloned().collect();
    front::second_look(ground, candidates, seed, |judged, work| spread(judged, threads, work))
}

/// A given structure on the folds of the second look; `None` where the grammar cannot say it.
fn judge_skeleton(ground: &Ground, skeleton: &Skeleton, seed: u64) -> Option<FrontEntry> {
    let genome = ground.genome(skeleton)?;
    let judged = front::judge(ground, Candidate { genome, score: 0.0 }, seed);
    judged.error.is_finite().then(|| FrontEntry { skeleton: skeleton.clone(), ..entry(ground, &judged) })
}

fn entry(ground: &Ground, judged: &Judged) -> FrontEntry {
    let genome = &judged.candidate.genome;
    FrontEntry {
        terms: genome.genes.len(),
        parameters: genome.parameters(),
        complexity: genome.complexity(ground),
        held_out_rms_log: judged.error.sqrt(),
        held_out_mape: judged.mape,
        skeleton: write::skeleton(ground, genome, "discovered"),
    }
}

#[cfg(test)]
mod tests;
