//! What energy costs beyond joules: money, carbon, and both by the day.
//!
//! Joules are what the GPUs draw. Everything at the meter (kilowatt-hours a day, money, carbon) is that times the PUE, which
//! stands for cooling and conversion. What the law does not know of is not in it: host, network, unused GPUs.

use serde::Serialize;

use super::answer::Estimate;
use super::series::Rate;

/// Joules in a kilowatt-hour.
const J_PER_KWH: f64 = 3.6e6;

const SECONDS_PER_DAY: f64 = 86_400.0;
const SECONDS_PER_HOUR: f64 = 3600.0;

/// Prices of what a deployment uses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Prices {
    /// Price of a kilowatt-hour, in the asker's currency.
    pub price_per_kwh: Option<Rate>,
    /// Carbon dioxide of a kilowatt-hour, g.
    pub carbon_g_per_kwh: Option<Rate>,
    /// Price of one GPU for an hour, without its energy.
    pub price_per_gpu_hour: Option<f64>,
    /// Power at the meter over power of the GPUs.
    pub pue: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self { price_per_kwh: None, carbon_g_per_kwh: None, price_per_gpu_hour: None, pue: 1.0 }
    }
}

impl Prices {
    /// Whether anything has a price.
    pub fn know_cost(&self) -> bool {
        self.price_per_kwh.is_some() || self.price_per_gpu_hour.is_some()
    }

    /// What one joule costs.
    pub(super) fn per_joule(&self) -> f64 {
        self.pue * self.price_per_kwh.map_or(0.0, |r| r.mean) / J_PER_KWH
    }

    /// What one GPU costs for a second.
    pub(super) fn per_gpu_second(&self) -> f64 {
        self.price_per_gpu_hour.unwrap_or(0.0) / SECONDS_PER_HOUR
    }

    /// Grams of carbon dioxide of one joule.
    pub(super) fn carbon_g_per_joule(&self) -> f64 {
        self.pue * self.carbon_g_per_kwh.map_or(0.0, |r| r.mean) / J_PER_KWH
    }

    /// The bill of one request of `energy_j` that keeps GPUs for `gpu_s` GPU seconds. Its interval is that of the worst
    /// case: both err the same way.
    pub(super) fn of_request(
        &self,
        energy_j: Estimate,
        gpu_s: Option<Estimate>,
    ) -> (Option<Estimate>, Option<Estimate>) {
        let rent = match (self.price_per_gpu_hour, gpu_s) {
            (Some(_), Some(gpu_s)) => Some(gpu_s.times(self.per_gpu_second())),
            (None, _) => Some(Estimate::exactly(0.0)),
            (Some(_), None) => None,
        };
        let cost = rent.filter(|_| self.know_cost()).map(|rent| energy_j.times(self.per_joule()).plus(rent));
        (cost, self.carbon_g_per_kwh.map(|_| energy_j.times(self.carbon_g_per_joule())))
    }

    /// Kilowatt-hours at the meter.
    pub(super) fn kwh(&self, energy_j: Estimate) -> Estimate {
        energy_j.times(self.pue / J_PER_KWH)
    }
}

/// A day of a deployment, at the meter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Day {
    /// Energy, kWh.
    pub energy_kwh: Estimate,
    /// Price of energy and GPU hours, where there is one.
    pub cost: Option<Estimate>,
    /// Carbon dioxide, kg, where the grid's intensity is known.
    pub carbon_kg: Option<Estimate>,
}

/// What a choice costs more than the first of the ranking, in a day; negative where it costs less.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Waste {
    /// Energy of the GPUs, J.
    pub energy_j: f64,
    /// Energy at the meter, kWh.
    pub energy_kwh: f64,
    /// Money.
    pub cost: Option<f64>,
    /// Carbon dioxide, kg.
    pub carbon_kg: Option<f64>,
}

/// Requests that come in a day at `rate` requests per second.
pub(super) fn requests_per_day(rate: f64) -> f64 {
    rate * SECONDS_PER_DAY
}

impl Day {
    pub(super) fn of(
        prices: &Prices,
        requests: f64,
        energy_per_request_j: Estimate,
        cost: Option<Estimate>,
        carbon_g: Option<Estimate>,
    ) -> Self {
        Self {
            energy_kwh: prices.kwh(energy_per_request_j.times(requests)),
            cost: cost.map(|c| c.times(requests)),
            carbon_kg: carbon_g.map(|g| g.times(requests / 1e3)),
        }
    }

    /// What `self` takes more than `best`.
    pub(super) fn waste(&self, best: &Self, pue: f64) -> Waste {
        let more = |own: Option<Estimate>, best: Option<Estimate>| Some(own?.value - best?.value);
        let energy_kwh = self.energy_kwh.value - best.energy_kwh.value;
        Waste {
            energy_j: energy_kwh * J_PER_KWH / pue,
            energy_kwh,
            cost: more(self.cost, best.cost),
            carbon_kg: more(self.carbon_kg, best.carbon_kg),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubtful(value: f64) -> Estimate {
        Estimate { value, low: 0.5 * value, high: 2.0 * value }
    }

    #[test]
    fn a_bill_is_what_it_is_by_hand() {
        let prices = Prices {
            price_per_kwh: Some(Rate::constant(0.30)),
            carbon_g_per_kwh: Some(Rate::constant(400.0)),
            price_per_gpu_hour: Some(1.80),
            pue: 1.25,
        };
        // 7200 J are 2 Wh, at the meter 2.5 Wh: 0.00075 of money and 1 g; 20 GPU seconds at 1.80 an hour are 0.01.
        let (cost, carbon) = prices.of_request(doubtful(7200.0), Some(doubtful(20.0)));
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-12 * want, "{got} is not {want}");
        near(cost.unwrap().value, 0.00075 + 0.01);
        near(cost.unwrap().high, 0.0015 + 0.02);
        near(cost.unwrap().low, 0.000375 + 0.005);
        near(carbon.unwrap().value, 1.0);
        // One request every ten seconds: 8640 a day, 21.6 kWh, 92.88 of money, 8.64 kg.
        let day = Day::of(&prices, requests_per_day(0.1), doubtful(7200.0), cost, carbon);
        near(day.energy_kwh.value, 21.6);
        near(day.cost.unwrap().value, 92.88);
        near(day.carbon_kg.unwrap().value, 8.64);
        // A tenth more energy: 2.16 kWh at the meter, which is 6.2208 MJ of the GPUs.
        let (cost, carbon) = prices.of_request(doubtful(7920.0), Some(doubtful(20.0)));
        let waste = Day::of(&prices, 8640.0, doubtful(7920.0), cost, carbon).waste(&day, prices.pue);
        assert!((waste.energy_kwh - 2.16).abs() < 1e-9 && (waste.energy_j - 6.2208e6).abs() < 1e-3, "{waste:?}");
        assert!((waste.cost.unwrap() - 0.648).abs() < 1e-9 && (waste.carbon_kg.unwrap() - 0.864).abs() < 1e-9);
    }

    #[test]
    fn what_has_no_price_has_no_bill() {
        assert_eq!(Prices::default().of_request(doubtful(1.0), Some(doubtful(1.0))), (None, None));
        let rented = Prices { price_per_gpu_hour: Some(2.0), ..Prices::default() };
        assert_eq!(rented.of_request(doubtful(1.0), None).0, None);
        assert!(rented.of_request(doubtful(1.0), Some(doubtful(1.0))).0.is_some());
    }
}
