//! What a command cost: repeats, totals, and what lies above idle. Small sums, each with its uncertainty.

use super::interval::WindowEnergy;

/// A figure with its standard uncertainty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// The value.
    pub value: f64,
    /// Its standard uncertainty.
    pub std: f64,
}

/// Mean and standard deviation of repeats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation from one repeat to another; `None` for fewer than two.
    pub sd: Option<f64>,
}

impl Spread {
    /// Of some values; `None` of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        Some(Self { mean, sd: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) })
    }
}

/// Energies of devices that cover different things, added. Their uncertainties add up as well: the devices are looked at
/// between the same two marks, and what is mistaken about the power around a mark is mistaken alike on all of them.
pub fn total<'a>(energies: impl IntoIterator<Item = &'a WindowEnergy>) -> Figure {
    energies.into_iter().fold(Figure { value: 0.0, std: 0.0 }, |sum, e| Figure {
        value: sum.value + e.energy_j,
        std: sum.std + e.std_j,
    })
}

/// Energy of a window above what an idle device would have taken, given an idle window: `E - P_idle t`. The two windows
/// have different marks, so their uncertainties add up in quadrature.
pub fn above_idle(gross: &WindowEnergy, duration_s: f64, idle: &WindowEnergy, idle_s: f64) -> Figure {
    let reach = duration_s / idle_s;
    Figure { value: gross.energy_j - idle.energy_j * reach, std: gross.std_j.hypot(idle.std_j * reach) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joules(energy_j: f64, std_j: f64) -> WindowEnergy {
        WindowEnergy { energy_j, std_j, edges_inside: 10, quality: Vec::new() }
    }

    #[test]
    fn repeats_have_a_mean_and_a_sample_deviation() {
        // 1, 2, 6: mean 3, squares 4 + 1 + 9 = 14, over two.
        assert_eq!(Spread::of(&[1.0, 2.0, 6.0]), Some(Spread { mean: 3.0, sd: Some(7.0_f64.sqrt()) }));
        assert_eq!(Spread::of(&[5.0]), Some(Spread { mean: 5.0, sd: None }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn uncertainties_of_devices_add_up_and_those_of_windows_do_not() {
        assert_eq!(total(&[joules(10.0, 0.3), joules(20.0, 0.4)]), Figure { value: 30.0, std: 0.7 });
        // 5 s idle at 60 W; 2 s of work took 500 J: 380 J of it above idle, and 2/5 of the idle window's 1 J join 0.3 J.
        let above = above_idle(&joules(500.0, 0.3), 2.0, &joules(300.0, 1.0), 5.0);
        assert!((above.value - 380.0).abs() < 1e-9 && (above.std - 0.5).abs() < 1e-9, "{above:?}");
    }
}
