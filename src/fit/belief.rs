//! What is believed of the parameters before the rows speak.
//!
//! A normal distribution over `d = (k/scale - centre, a - centre)`: coefficients relative to an expected size, exponents
//! as they are. From a skeleton it is weak and diagonal; carried over from another platform's law ([`Belief::carried`])
//! it has that law's covariance, so that what the old rows knew only of sums is not mistaken for knowledge of parts.

use nalgebra::{DMatrix, DVector};

use crate::law::Skeleton;

/// A direction whose variance is this much smaller than the largest is as good as known.
const NARROWEST: f64 = 1e-9;

/// A normal belief about all parameters, coefficients first.
#[derive(Debug, Clone)]
pub(crate) struct Belief {
    /// Size of each coefficient's unit of deviation.
    scale: Vec<f64>,
    /// Centre of the relative coefficients and of the exponents.
    centre: DVector<f64>,
    /// Inverse covariance of the deviations; a zero diagonal is no belief.
    precision: DMatrix<f64>,
    /// Variance of each deviation; infinite without belief.
    variance: Vec<f64>,
    /// Where it comes from, in words: `the GPU's card`.
    pub(crate) origin: String,
    /// Whether it is another platform's law.
    pub(crate) is_carried: bool,
}

impl Belief {
    /// The priors that stand in the skeleton: a coefficient is expected at its price with a standard deviation as large,
    /// where it has one.
    pub(crate) fn of(skeleton: &Skeleton) -> Self {
        let expected: Vec<Option<f64>> = skeleton.terms.iter().map(|t| t.prior.and_then(|p| p.mean)).collect();
        let terms = expected.len();
        let mut precision = DMatrix::zeros(skeleton.parameter_count(), skeleton.parameter_count());
        for (j, known) in expected.iter().enumerate() {
            precision[(j, j)] = f64::from(u8::from(known.is_some()));
        }
        for (j, e) in skeleton.exponents.iter().enumerate() {
            precision[(terms + j, terms + j)] = e.prior_sd.powi(-2);
        }
        let variance = precision.diagonal().iter().map(|p| 1.0 / p).collect();
        let ones = std::iter::repeat_n(1.0, terms);
        let centre =
            DVector::from_iterator(skeleton.parameter_count(), ones.chain(skeleton.exponents.iter().map(|e| e.prior)));
        let scale = expected.into_iter().map(|e| e.unwrap_or(1.0)).collect();
        Self { scale, centre, precision, variance, origin: "the GPU's card".to_owned(), is_carried: false }
    }

    /// A belief with a full covariance: `scale` and `centre` of the coefficients, centres of the exponents, covariance of
    /// the deviations.
    pub(crate) fn carried(scale: Vec<f64>, centre: Vec<f64>, covariance: &DMatrix<f64>, origin: String) -> Self {
        let eigen = covariance.clone().symmetric_eigen();
        let largest = eigen.eigenvalues.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let inverse = eigen.eigenvalues.map(|v| 1.0 / v.max(NARROWEST * largest));
        let precision = &eigen.eigenvectors * DMatrix::from_diagonal(&inverse) * eigen.eigenvectors.transpose();
        let variance = covariance.diagonal().iter().copied().collect();
        Self { scale, centre: DVector::from_vec(centre), precision, variance, origin, is_carried: true }
    }

    fn terms(&self) -> usize {
        self.scale.len()
    }

    /// Centre of exponent `j`.
    pub(crate) fn exponent(&self, j: usize) -> f64 {
        self.centre[self.terms() + j]
    }

    /// Whether anything is believed of coefficient `j`.
    pub(crate) fn knows_coefficient(&self, j: usize) -> bool {
        self.precision[(j, j)] > 0.0
    }

    /// Variance of coefficient `j` relative to `value`, or of an exponent as it is.
    pub(crate) fn variance(&self, parameter: usize, value: f64) -> f64 {
        match self.scale.get(parameter) {
            Some(scale) => self.variance[parameter] * (scale / value).powi(2),
            None => self.variance[parameter],
        }
    }

    /// Precision between two parameters, coefficients taken relative to their `values`.
    pub(crate) fn precision(&self, one: usize, other: usize, values: (f64, f64)) -> f64 {
        let relative = |parameter: usize, value: f64| self.scale.get(parameter).map_or(1.0, |scale| value / scale);
        self.precision[(one, other)] * relative(one, values.0) * relative(other, values.1)
    }

    fn deviation(&self, k: &DVector<f64>, exponents: &[f64]) -> DVector<f64> {
        let relative = k.iter().zip(&self.scale).map(|(k, scale)| k / scale);
        DVector::from_iterator(self.centre.len(), relative.chain(exponents.iter().copied())) - &self.centre
    }

    /// `d' P d`.
    pub(crate) fn surprise(&self, k: &DVector<f64>, exponents: &[f64]) -> f64 {
        let d = self.deviation(k, exponents);
        d.dot(&(&self.precision * &d))
    }

    /// Half of the derivative of the surprise by the exponents.
    pub(crate) fn pull(&self, k: &DVector<f64>, exponents: &[f64]) -> Vec<f64> {
        let pd = &self.precision * self.deviation(k, exponents);
        pd.iter().skip(self.terms()).copied().collect()
    }

    /// Adds the belief, `weight` times, to the normal equations of the coefficients at given exponents.
    pub(crate) fn add_to(&self, gram: &mut DMatrix<f64>, rhs: &mut DVector<f64>, exponents: &[f64], weight: f64) {
        let terms = self.terms();
        // At k = 0 the deviation is what stands against the centre; its gradient is the right-hand side.
        let at_zero = self.deviation(&DVector::zeros(terms), exponents);
        let pull = &self.precision * at_zero;
        for a in 0..terms {
            rhs[a] -= weight * pull[a] / self.scale[a];
            for b in 0..terms {
                gram[(a, b)] += weight * self.precision[(a, b)] / (self.scale[a] * self.scale[b]);
            }
        }
    }
}
