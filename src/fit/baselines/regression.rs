//! Linear models.

use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linear::linear_regression::{LinearRegression, LinearRegressionParameters};
use smartcore::linear::ridge_regression::{RidgeRegression, RidgeRegressionParameters};

use super::columns::Columns;
use super::{Estimate, Estimator};
use crate::dataset::Row;

/// Penalty of the quadratic ridge, on standardised logs; small against 50 rows, enough to tame 28 coefficients.
const RIDGE: f64 = 0.1;
/// Rows below which a quadratic in logs is guesswork.
const QUADRATIC_ROWS: usize = 10;

pub(super) fn linear(rows: &[Row], pooled: bool) -> Result<Estimator, String> {
    ordinary(Columns::new(rows, pooled, false))
}

pub(super) fn log_linear(rows: &[Row], pooled: bool) -> Result<Estimator, String> {
    ordinary(Columns::new(rows, pooled, true))
}

/// Least squares with intercept.
fn ordinary(columns: Columns) -> Result<Estimator, String> {
    columns.enough(columns.width() + 2)?;
    let x = matrix(&columns.x)?;
    let fitted = LinearRegression::fit(&x, &columns.y, LinearRegressionParameters::default())
        .map_err(|e| format!("least squares failed: {e}"))?;
    Ok(Box::new(move |row| {
        let y = fitted.predict(&matrix(&[columns.of(row)?]).ok()?).ok()?;
        y.first().map(|y| Estimate::from(columns.joules(*y)))
    }))
}

pub(super) fn log_quadratic(rows: &[Row], pooled: bool) -> Result<Estimator, String> {
    let columns = Columns::new(rows, pooled, true);
    columns.enough(QUADRATIC_ROWS)?;
    let expanded: Vec<Vec<f64>> = columns.x.iter().map(|x| quadratic(x)).collect();
    let mean = columns.y.iter().sum::<f64>() / columns.y.len() as f64;
    let centred: Vec<f64> = columns.y.iter().map(|y| y - mean).collect();
    let parameters = RidgeRegressionParameters::default().with_alpha(RIDGE).with_normalize(false);
    let fitted = RidgeRegression::fit(&matrix(&expanded)?, &centred, parameters)
        .map_err(|e| format!("ridge regression failed: {e}"))?;
    Ok(Box::new(move |row| {
        let y: Vec<f64> = fitted.predict(&matrix(&[quadratic(&columns.of(row)?)]).ok()?).ok()?;
        y.first().map(|y| Estimate::from(columns.joules(y + mean)))
    }))
}

/// A constant, the columns, their squares and products. The constant takes up the means of the squares.
fn quadratic(x: &[f64]) -> Vec<f64> {
    let products = x.iter().enumerate().flat_map(|(i, a)| x.iter().skip(i).map(move |b| a * b));
    std::iter::once(1.0).chain(x.iter().copied()).chain(products).collect()
}

pub(super) fn matrix(rows: &[Vec<f64>]) -> Result<DenseMatrix<f64>, String> {
    DenseMatrix::from_2d_vec(&rows.to_vec()).map_err(|e| format!("rows do not form a matrix: {e}"))
}
