//! Windows over counters whose true joules are known. The generator below knows nothing of the code under test.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const S: f64 = 1e9;

/// Piecewise constant power: from each instant on, so many watts.
struct Power(Vec<(f64, f64)>);

impl Power {
    /// Exact integral from 0, J.
    fn energy_j(&self, t_s: f64) -> f64 {
        let ends = self.0.iter().skip(1).map(|(t, _)| *t).chain([f64::INFINITY]);
        self.0.iter().zip(ends).map(|((from, w), to)| w * (t_s.min(to) - from).max(0.0)).sum()
    }
}

/// A counter with a refresh period and a jitter, polled on a grid.
struct Counter {
    refresh_s: f64,
    jitter: f64,
    poll_s: f64,
    step_j: f64,
}

impl Counter {
    fn edges(&self, power: &Power, until_s: f64, rng: &mut ChaCha8Rng) -> Vec<Edge> {
        let phase_s = rng.random_range(0.0..self.poll_s);
        let mut edges: Vec<Edge> = Vec::new();
        let mut t_s = rng.random_range(0.0..self.refresh_s);
        // Runs along the power with the refreshes: the integral by hand, not by `energy_j`, which is quadratic.
        let (mut piece, mut energy_j, mut at_s) = (0, 0.0, 0.0);
        while t_s < until_s {
            while power.0.get(piece + 1).is_some_and(|(next, _)| *next <= t_s) {
                energy_j += power.0[piece].1 * (power.0[piece + 1].0 - at_s);
                at_s = power.0[piece + 1].0;
                piece += 1;
            }
            energy_j += power.0[piece].1 * (t_s - at_s);
            at_s = t_s;
            let shown_uj = ((energy_j / self.step_j).floor() * self.step_j * 1e6).round() as u128;
            let poll = ((t_s - phase_s) / self.poll_s).ceil();
            let t_latest_ns = ((phase_s + poll * self.poll_s) * S) as i64;
            let edge = Edge { t_earliest_ns: t_latest_ns - (self.poll_s * S) as i64, t_latest_ns, energy_uj: shown_uj };
            match edges.last_mut() {
                Some(last) if last.energy_uj == shown_uj => {}
                Some(last) if last.t_latest_ns == t_latest_ns => last.energy_uj = shown_uj,
                _ => edges.push(edge),
            }
            t_s += self.refresh_s * (1.0 + self.jitter * rng.random_range(-1.0..1.0));
        }
        edges
    }
}

fn log_uniform(rng: &mut ChaCha8Rng, from: f64, to: f64) -> f64 {
    (rng.random_range(from.ln()..to.ln())).exp()
}

struct Trial {
    inside: bool,
    relative_std: f64,
    z: f64,
    is_short: bool,
}

/// Idle, a busy window whose power steps at its boundaries, idle again; with `steps_per_s` further steps anywhere.
fn trial(rng: &mut ChaCha8Rng, refresh_s: f64, duration_s: f64, steps_per_s: f64) -> Trial {
    let begin_s = 1.5 + rng.random_range(0.0..0.2);
    let end_s = begin_s + duration_s;
    let until_s = end_s + 1.5;
    let busy_w = rng.random_range(200.0..700.0);
    let mut pieces =
        vec![(0.0, rng.random_range(50.0..120.0)), (begin_s, busy_w), (end_s, rng.random_range(50.0..120.0))];
    if steps_per_s > 0.0 {
        let mut t_s = 0.0;
        loop {
            t_s += -rng.random_range(f64::MIN_POSITIVE..1.0_f64).ln() / steps_per_s;
            if t_s > until_s {
                break;
            }
            let is_inside = (begin_s..end_s).contains(&t_s);
            let base_w = if is_inside { busy_w } else { 80.0 };
            pieces.push((t_s, base_w * rng.random_range(0.8..1.2)));
        }
        pieces.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let power = Power(pieces);
    let poll_s = if rng.random_bool(0.5) { 1e-3 } else { 5e-3 };
    let counter = Counter { refresh_s, jitter: 0.03, poll_s, step_j: 1e-3 };
    let edges = counter.edges(&power, until_s, rng);
    let window = Window { t_begin_ns: (begin_s * S) as i64, t_end_ns: (end_s * S) as i64 };
    let truth_j = power.energy_j(end_s) - power.energy_j(begin_s);
    let got = energy(edges, window).expect("the recording covers the window");
    let z = (got.energy_j - truth_j) / got.std_j;
    Trial {
        inside: z.abs() <= 1.96,
        relative_std: got.std_j / got.energy_j,
        z,
        is_short: got.quality.contains(&Reason::WindowShorterThanRefreshes),
    }
}

#[test]
fn explore() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut all = Vec::new();
    for (refresh, r0, r1) in [("1-5ms", 1e-3, 5e-3), ("5-20ms", 5e-3, 2e-2), ("20-100", 2e-2, 0.1)] {
        for (window, w0, w1) in [("50-300ms", 0.05, 0.3), ("0.3-3s", 0.3, 3.0), ("3-60s", 3.0, 60.0)] {
            for steps_per_s in [0.0, 1.0, 10.0, 50.0] {
                let n = 600;
                let trials: Vec<Trial> = (0..n)
                    .map(|_| {
                        let (refresh_s, duration_s) = (log_uniform(&mut rng, r0, r1), log_uniform(&mut rng, w0, w1));
                        trial(&mut rng, refresh_s, duration_s, steps_per_s)
                    })
                    .collect();
                let inside = trials.iter().filter(|t| t.inside).count();
                let short = trials.iter().filter(|t| t.is_short).count();
                let mut std: Vec<f64> = trials.iter().map(|t| t.relative_std).collect();
                std.sort_by(f64::total_cmp);
                let rms = (trials.iter().map(|t| t.z * t.z).sum::<f64>() / n as f64).sqrt();
                let bias = trials.iter().map(|t| t.z).sum::<f64>() / n as f64;
                println!(
                    "{refresh:7} {window:9} steps {steps_per_s:4}: {:5.1} %  short {short:3}  median rel std {:.2e} z rms {rms:.2} bias {bias:.2}",
                    100.0 * inside as f64 / n as f64,
                    std[n / 2]
                );
                all.extend(trials);
            }
        }
    }
    let inside = all.iter().filter(|t| t.inside).count();
    println!("all: {:.2} % of {}", 100.0 * inside as f64 / all.len() as f64, all.len());
}

#[test]
fn explore_fast() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for r_ms in [0.5, 1.0, 1.3, 2.0, 2.7, 3.5, 4.3, 4.9, 5.1, 5.4, 6.0, 7.5, 9.0] {
        for poll_ms in [1.0, 5.0] {
            let n = 400;
            let mut z = Vec::new();
            for _ in 0..n {
                let duration_s = log_uniform(&mut rng, 0.1, 3.0);
                let begin_s = 0.5 + rng.random_range(0.0..0.2);
                let end_s = begin_s + duration_s;
                let power = Power(vec![(0.0, 80.0), (begin_s, 500.0), (end_s, 80.0)]);
                let counter = Counter { refresh_s: r_ms * 1e-3, jitter: 0.03, poll_s: poll_ms * 1e-3, step_j: 1e-3 };
                let edges = counter.edges(&power, end_s + 0.5, &mut rng);
                let window = Window { t_begin_ns: (begin_s * S) as i64, t_end_ns: (end_s * S) as i64 };
                let truth_j = power.energy_j(end_s) - power.energy_j(begin_s);
                let got = energy(edges, window).unwrap();
                z.push(((got.energy_j - truth_j) / got.std_j, got.std_j, got.energy_j - truth_j));
            }
            let m = z.iter().map(|z| z.0).sum::<f64>() / n as f64;
            let rms = (z.iter().map(|z| z.0 * z.0).sum::<f64>() / n as f64).sqrt();
            let inside = z.iter().filter(|z| z.0.abs() < 1.96).count();
            let err = (z.iter().map(|z| z.2 * z.2).sum::<f64>() / n as f64).sqrt();
            let bias = z.iter().map(|z| z.2).sum::<f64>() / n as f64;
            let std = z.iter().map(|z| z.1).sum::<f64>() / n as f64;
            println!(
                "r {r_ms} ms poll {poll_ms}: in {:.1} % z mean {m:.2} rms {rms:.2}; error rms {err:.4} J bias {bias:.4} J, stated {std:.4}",
                100.0 * inside as f64 / n as f64
            );
        }
    }
}
