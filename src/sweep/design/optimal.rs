//! The D-optimal design: the points that together say most about the parameters of a closed form of the energy.
//!
//! Energies are compared in relative terms, so a point tells about a parameter by the share of its energy that hangs on
//! it: the row of a point in the information matrix is the gradient of the logarithm of its energy. The gradient needs
//! energies before any is measured; the data sheets of GPU and model give them well enough. A fit to the rows that come
//! out does not know of these figures.
//!
//! From a Latin hypercube many times as large as what is asked for, points are taken one by one, always the one that
//! adds most to the logarithm of the determinant, and then exchanged while that helps. Ties and order follow from the
//! seed alone.

use nalgebra::{SMatrix, SVector};

use super::hypercube::Hypercube;
use super::{Accept, Candidate, Choice, Deployment, candidate};
use crate::sweep::Error;
use crate::sweep::axis::Axes;

/// Most points: beyond, a hypercube says as much.
pub const MOST_OPTIMAL_POINTS: usize = 500;
/// Candidates for each point that is asked for, and of all.
const POOL: (usize, usize) = (40, 4_000);
/// Information that is there before the first point, for the determinant to be one.
const RIDGE: f64 = 1e-6;
/// Rounds of exchanges; few change anything after the second.
const ROUNDS: usize = 4;
/// Host and launch time of one layer in one step, s: nothing on a data sheet says it, all engines are about there.
const LAYER_S: f64 = 1e-5;

/// Eight energies and four exponents.
const PARAMETERS: usize = 12;
type Row = SVector<f64, PARAMETERS>;
type Information = SMatrix<f64, PARAMETERS, PARAMETERS>;

/// What a point is measured to: its prefill, and the whole where there is more.
type Rows = [Row; 2];

/// The `n` points of the feasible ones that say most; sorted.
pub(super) fn draw(
    axes: &Axes,
    deployments: &[Deployment],
    accept: &mut Accept<'_>,
    n: usize,
    seed: u64,
) -> Result<Vec<Choice>, Error> {
    let pool = pool(axes, deployments, accept, ((n * POOL.0).min(POOL.1).max(n), n), seed)?;
    let rows = rows_of(&pool, deployments);
    let mut chosen: Vec<Choice> = choose(&rows, n).into_iter().filter_map(|i| pool.get(i).copied()).collect();
    chosen.sort_unstable();
    Ok(chosen)
}

/// Places of the `first` candidates that say most together, then one at a time those that add most, until there are
/// `most`.
pub(super) fn order(candidates: &[Choice], deployments: &[Deployment], first: usize, most: usize) -> Vec<usize> {
    let rows = rows_of(candidates, deployments);
    let mut order = choose(&rows, first);
    let mut taken = vec![false; rows.len()];
    let mut information = Information::identity() * RIDGE;
    let mut take = |place: usize, taken: &mut Vec<bool>| {
        if let (Some(taken), Some(rows)) = (taken.get_mut(place), rows.get(place)) {
            *taken = true;
            information += added(rows);
        }
        information.try_inverse().unwrap_or_else(Information::identity)
    };
    let mut inverse = Information::identity();
    for place in &order {
        inverse = take(*place, &mut taken);
    }
    while let (true, Some((place, _))) = (order.len() < most, best(&rows, &taken, &inverse)) {
        inverse = take(place, &mut taken);
        order.push(place);
    }
    order
}

fn rows_of(choices: &[Choice], deployments: &[Deployment]) -> Vec<Rows> {
    choices.iter().map(|c| candidate(*c, deployments).map_or([Row::zeros(); 2], |c| rows(&c))).collect()
}

/// Many feasible points, evenly spread; as many as there are, where these are few, and not fewer than `least`.
pub(super) fn pool(
    axes: &Axes,
    deployments: &[Deployment],
    accept: &mut Accept<'_>,
    (many, least): (usize, usize),
    seed: u64,
) -> Result<Vec<Choice>, Error> {
    let mut size = many;
    loop {
        match Hypercube::new(axes, deployments, accept).draw(size, 0.0, seed) {
            Err(Error::TooFewFeasible { .. }) if size > least => size = (size / 2).max(least),
            other => return other,
        }
    }
}

/// Joules of one batch by cause, from data sheets.
struct Causes {
    idle: f64,
    arithmetic: f64,
    attention: f64,
    weights: f64,
    decode: f64,
    cache: f64,
    link: f64,
    launch: f64,
}

impl Causes {
    fn of(c: &Candidate<'_>, output_tokens: f64) -> Self {
        let (d, m) = (c.deployment, output_tokens);
        let (model, gpu) = (&d.model, &d.gpu);
        let (b, s) = (f64::from(c.batch_size) / f64::from(d.data_parallel), f64::from(c.input_tokens));
        let (t, p) = (f64::from(d.tensor_parallel), f64::from(d.pipeline_parallel));
        let waves = (b * (s + m) / d.kv_capacity_tokens).max(1.0);
        let per_flop = gpu.power_limit_w / gpu.peak_flops;
        let per_byte = gpu.power_limit_w / gpu.memory_bandwidth_bytes_per_s;
        let per_link_byte = gpu.power_limit_w / gpu.link_bandwidth_bytes_per_s;
        let steps_s = LAYER_S * model.n_layers * m * waves;
        Self {
            idle: gpu.idle_power_w * t * p * steps_s,
            arithmetic: per_flop * 2.0 * model.active_params * b * s,
            attention: per_flop * 2.0 * model.n_layers * model.hidden_size * b * s * s,
            weights: per_byte * model.weight_bytes() * model.expert_coverage(b) * waves * m,
            decode: per_flop * 2.0 * model.active_params * b * m,
            cache: per_byte * model.kv_bytes_per_token * b * (s + m / 2.0) * m,
            link: per_link_byte * 8.0 * model.n_layers * model.hidden_size * b * (s + m) * (t - 1.0),
            launch: gpu.power_limit_w * steps_s,
        }
    }

    /// The gradient of the logarithm of their sum, by the logarithms of the energies and by the exponents of the degrees.
    fn gradient(&self, tensor_parallel: f64, pipeline_parallel: f64) -> Row {
        let energies =
            [self.idle, self.arithmetic, self.attention, self.weights, self.decode, self.cache, self.link, self.launch];
        let sum: f64 = energies.iter().sum();
        let (prefill, decode) = (self.arithmetic + self.attention, self.weights + self.decode + self.cache);
        let (t, p) = (tensor_parallel.ln(), pipeline_parallel.ln());
        let exponents = [t * prefill, p * prefill, t * decode, p * decode];
        Row::from_iterator(energies.into_iter().chain(exponents).map(|x| x / sum))
    }
}

fn rows(c: &Candidate<'_>) -> Rows {
    let degrees = (f64::from(c.deployment.tensor_parallel), f64::from(c.deployment.pipeline_parallel));
    let prefill = Causes::of(c, 1.0).gradient(degrees.0, degrees.1);
    match c.output_tokens {
        1 => [prefill, Row::zeros()],
        m => [prefill, Causes::of(c, f64::from(m)).gradient(degrees.0, degrees.1)],
    }
}

fn added(rows: &Rows) -> Information {
    rows[0] * rows[0].transpose() + rows[1] * rows[1].transpose()
}

/// By how much the determinant grows with a point, of which `inverse` is the inverse before.
fn growth(rows: &Rows, inverse: &Information) -> f64 {
    let [x, y] = rows;
    let (ix, iy) = (inverse * x, inverse * y);
    (1.0 + x.dot(&ix)) * (1.0 + y.dot(&iy)) - x.dot(&iy).powi(2)
}

/// The best candidate that is not taken.
fn best(rows: &[Rows], taken: &[bool], inverse: &Information) -> Option<(usize, f64)> {
    let free = rows.iter().zip(taken).enumerate().filter(|(_, (_, taken))| !**taken);
    free.map(|(i, (rows, _))| (i, growth(rows, inverse))).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// Numbers of the `n` rows that together say most.
fn choose(rows: &[Rows], n: usize) -> Vec<usize> {
    let mut taken = vec![false; rows.len()];
    let mut information = Information::identity() * RIDGE;
    let mut now = information;
    let inverse = |m: &Information| m.try_inverse().unwrap_or_else(Information::identity);
    let mut chosen = Vec::with_capacity(n);
    let mut flip = |i: usize, to: bool, taken: &mut Vec<bool>| {
        if let (Some(taken), Some(rows)) = (taken.get_mut(i), rows.get(i)) {
            *taken = to;
            information += added(rows) * if to { 1.0 } else { -1.0 };
        }
        information
    };
    while let (true, Some((i, _))) = (chosen.len() < n, best(rows, &taken, &inverse(&now))) {
        now = flip(i, true, &mut taken);
        chosen.push(i);
    }
    for _ in 0..ROUNDS {
        let mut improved = false;
        for place in &mut chosen {
            let without = inverse(&flip(*place, false, &mut taken));
            let own = rows.get(*place).map_or(0.0, |rows| growth(rows, &without));
            // Rounding must not exchange twins for ever.
            let better = best(rows, &taken, &without).filter(|(_, growth)| *growth > own * (1.0 + 1e-9));
            if let Some((i, _)) = better {
                (*place, improved) = (i, true);
            }
            flip(*place, true, &mut taken);
        }
        if !improved {
            break;
        }
    }
    chosen
}

/// The logarithm of the determinant of what points tell.
#[cfg(test)]
pub(super) fn log_determinant<'a>(candidates: impl Iterator<Item = Candidate<'a>>) -> f64 {
    let sum = candidates.fold(Information::identity() * RIDGE, |sum, c| sum + added(&rows(&c)));
    sum.determinant().ln()
}
