//! The second opinion: free-form symbolic regression, which knows of no units, terms or phases.
//!
//! This is the only file that knows the `symbolic_regression` crate. What experience with it says: relative errors must
//! be asked for by weights `1/y^2`; features and target of fifteen decades must be scaled; it repeats itself only when
//! stepped one cycle at a time and bounded by cycles instead of seconds; and its best tree can be non-finite, so every
//! tree is evaluated before it is believed.

use dynamic_expressions::{EvalOptions, PostfixExpr, StringTreeOptions, eval_tree_array, string_tree};
use ndarray::{Array1, Array2};
use serde::Serialize;
use symbolic_regression::prelude::BuiltinOpsF64;
use symbolic_regression::{Dataset as Table, Options, OutputStyle, SearchEngine};

use super::ground::{FOLDS, Scope};
use super::spread;
use crate::fit::problem::Observation;
use crate::law::Symbol;

/// Arity of the operators.
const ARITY: usize = 3;
/// Nodes of a tree: a law of twelve parameters written out has some fifty, which no search here has reached.
const NODES: usize = 40;
/// Populations of a search.
const POPULATIONS: usize = 8;
/// Cycles of one search where nothing is said, all populations together: some 20 s for 50 rows.
pub const FREE_FORM_CYCLES: usize = 400;
/// What a tree may look at: configuration, card, and the two known factors.
const FEATURES: &[Symbol] = &[
    Symbol::TensorParallel,
    Symbol::PipelineParallel,
    Symbol::Batch,
    Symbol::Input,
    Symbol::Output,
    Symbol::Layers,
    Symbol::ActiveParams,
    Symbol::WeightBytes,
    Symbol::KvBytes,
    Symbol::Coverage,
    Symbol::Waves,
];

type Tree = PostfixExpr<f64, BuiltinOpsF64, ARITY>;

/// What the free-form search found for one law.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FreeForm {
    /// The best tree; each variable is divided by its scale, the result is in units of `scale_j`.
    pub expression: String,
    /// Variables and what they are divided by.
    pub scales: Vec<(String, f64)>,
    /// Joules of one unit of the tree.
    pub scale_j: f64,
    /// Nodes of the tree.
    pub nodes: usize,
    /// Mean absolute percentage error on the rows fitted, as a ratio.
    pub training_mape: f64,
    /// The same on held-out workloads, each fold searched anew; a row without a finite answer counts as 100 %.
    pub held_out_mape: f64,
    /// Held-out rows without a finite answer.
    pub unanswered: usize,
    /// Cycles of each search.
    pub cycles: usize,
    /// Whether it was stopped before all cycles were carried out.
    pub ended_early: bool,
    /// Trees evaluated, all searches together.
    pub evaluations: u64,
    /// Rows.
    pub rows: usize,
}

/// One finished search.
struct Found {
    tree: Tree,
    nodes: usize,
    mape: f64,
    evaluations: u64,
    ended_early: bool,
}

/// A search to do: rows to learn from, rows to be asked.
struct Piece {
    learn: Vec<Observation>,
    held: Vec<Observation>,
    found: Option<Found>,
}

/// Searches once on all rows and once for each fold; `None` if no finite tree was found for all rows.
pub(super) fn free_form(
    scope: &Scope,
    folds_seed: u64,
    seed: u64,
    cycles: usize,
    threads: usize,
    stop: &(dyn Fn() -> bool + Sync),
) -> Option<FreeForm> {
    let folds = scope.folds(folds_seed);
    let all = &scope.observations;
    let scaling = Scaling::of(all)?;
    let mut pieces = vec![Piece { learn: all.clone(), held: Vec::new(), found: None }];
    pieces.extend((0..FOLDS).map(|fold| {
        let (held, learn): (Vec<_>, Vec<_>) = all.iter().zip(&folds).partition(|(_, f)| **f == fold);
        let bare = |rows: Vec<(&Observation, &usize)>| rows.into_iter().map(|(o, _)| *o).collect();
        Piece { learn: bare(learn), held: bare(held), found: None }
    }));
    pieces.retain(|p| !p.learn.is_empty());
    spread(&mut pieces, threads, |piece| piece.found = scaling.search(&piece.learn, seed, cycles, stop));
    let judged = pieces.iter().skip(1).map(|p| (p.found.as_ref(), p.held.as_slice())).collect::<Vec<_>>();
    let (held_out_mape, unanswered) = scaling.errors(&judged);
    let evaluations = pieces.iter().filter_map(|p| p.found.as_ref()).map(|f| f.evaluations).sum();
    let ended_early = pieces.iter().any(|p| p.found.as_ref().is_none_or(|f| f.ended_early)) && stop();
    let whole = pieces.into_iter().next().and_then(|p| p.found)?;
    let opinion = scaling.opinion(&whole, cycles, all.len());
    Some(FreeForm { held_out_mape, unanswered, evaluations, ended_early, ..opinion })
}

/// Searches once on all rows of `scope` and judges on `unseen`.
pub(super) fn against(scope: &Scope, unseen: &Scope, seed: u64, cycles: usize) -> Option<FreeForm> {
    let scaling = Scaling::of(&scope.observations)?;
    let found = scaling.search(&scope.observations, seed, cycles, &|| false)?;
    let (held_out_mape, unanswered) = scaling.errors(&[(Some(&found), unseen.observations.as_slice())]);
    let opinion = scaling.opinion(&found, cycles, scope.rows());
    Some(FreeForm { held_out_mape, unanswered, ..opinion })
}

/// Variables that differ between rows, and what brings each near 1.
struct Scaling {
    features: Vec<(Symbol, f64)>,
    energy_j: f64,
}

impl Scaling {
    fn of(rows: &[Observation]) -> Option<Self> {
        let middle = |values: &dyn Fn(&Observation) -> f64| {
            (rows.iter().map(|o| values(o).ln()).sum::<f64>() / rows.len() as f64).exp()
        };
        let varies = |s: &&Symbol| {
            let first = rows.first().map(|o| o.case.value(**s));
            rows.iter().any(|o| Some(o.case.value(**s)) != first)
        };
        let scale = |s: &Symbol| (*s, middle(&|o: &Observation| o.case.value(*s)));
        let features: Vec<(Symbol, f64)> =
            FEATURES.iter().filter(varies).map(scale).filter(|(_, m)| m.is_finite() && *m > 0.0).collect();
        let energy_j = middle(&|o: &Observation| o.value);
        (!features.is_empty() && energy_j.is_finite() && energy_j > 0.0).then_some(Self { features, energy_j })
    }

    fn names(&self) -> Vec<String> {
        self.features.iter().map(|(s, _)| s.as_str().to_owned()).collect()
    }

    fn table(&self, rows: &[Observation]) -> Array2<f64> {
        let at = |(j, i): (usize, usize)| match (self.features.get(j), rows.get(i)) {
            (Some((s, scale)), Some(o)) => o.case.value(*s) / scale,
            _ => f64::NAN,
        };
        Array2::from_shape_fn((self.features.len(), rows.len()), at)
    }

    /// Joules that a tree says; NaN where it has no finite answer.
    fn answers(&self, tree: &Tree, rows: &[Observation]) -> Vec<f64> {
        let table = self.table(rows);
        let (values, _) = eval_tree_array(tree, table.view(), &EvalOptions { check_finite: false, early_exit: false });
        values.into_iter().map(|v| if v.is_finite() { v * self.energy_j } else { f64::NAN }).collect()
    }

    /// Mean absolute percentage error over rows that each search did not see, and how many it had no answer for.
    fn errors(&self, judged: &[(Option<&Found>, &[Observation])]) -> (f64, usize) {
        let (mut off, mut unanswered, mut rows) = (0.0, 0, 0_u32);
        for (found, held) in judged {
            let answers = found.map(|f| self.answers(&f.tree, held)).unwrap_or_default();
            for (place, o) in held.iter().enumerate() {
                let error = answers.get(place).map_or(f64::NAN, |answer| (answer / o.value - 1.0).abs());
                unanswered += usize::from(!error.is_finite());
                off += if error.is_finite() { error } else { 1.0 };
                rows += 1;
            }
        }
        (off / f64::from(rows.max(1)), unanswered)
    }

    /// A finished search in words; what it is worth on other rows is filled in by the caller.
    fn opinion(&self, found: &Found, cycles: usize, rows: usize) -> FreeForm {
        let names = self.names();
        let options = StringTreeOptions { variable_names: Some(&names), pretty: true, print_precision: Some(4) };
        FreeForm {
            expression: string_tree(&found.tree, options),
            scales: self.features.iter().map(|(s, scale)| (s.as_str().to_owned(), *scale)).collect(),
            scale_j: self.energy_j,
            nodes: found.nodes,
            training_mape: found.mape,
            held_out_mape: f64::NAN,
            unanswered: 0,
            cycles,
            ended_early: false,
            evaluations: found.evaluations,
            rows,
        }
    }

    fn search(
        &self,
        rows: &[Observation],
        seed: u64,
        cycles: usize,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Option<Found> {
        let energies: Array1<f64> = rows.iter().map(|o| o.value / self.energy_j).collect();
        let weights = energies.mapv(|y| 1.0 / (y * y));
        let data = Table::with_weights_and_names(self.table(rows), energies, Some(weights), self.names());
        let options = Options::<f64, ARITY> {
            operators: BuiltinOpsF64::from_names(["+", "sub", "*", "/", "sqrt"]).ok()?,
            seed,
            deterministic: true,
            maxsize: NODES,
            populations: POPULATIONS,
            niterations: cycles.div_ceil(POPULATIONS),
            progress: false,
            output_style: OutputStyle::Plain,
            ..Options::default()
        };
        let mut engine = SearchEngine::<f64, BuiltinOpsF64, ARITY>::new(data, options);
        let mut ended_early = false;
        while !ended_early && engine.step(1) > 0 {
            ended_early = stop();
        }
        let mut members = engine.hall_of_fame().pareto_front();
        members.sort_by(|a, b| a.loss.total_cmp(&b.loss).then(a.complexity.cmp(&b.complexity)));
        let mape = |tree: &Tree| {
            let errors = self.answers(tree, rows).into_iter().zip(rows).map(|(v, o)| (v / o.value - 1.0).abs());
            errors.sum::<f64>() / rows.len().max(1) as f64
        };
        members.into_iter().find_map(|member| {
            let mape = mape(&member.expr);
            let found = || Found {
                tree: member.expr.clone(),
                nodes: member.complexity,
                mape,
                evaluations: engine.total_evals(),
                ended_early,
            };
            mape.is_finite().then(found)
        })
    }
}
