//! Learners without a form: forests, boosting, neighbours. All on logs: joules span decades.

use smartcore::algorithm::neighbour::KNNAlgorithmName;
use smartcore::ensemble::random_forest_regressor::{RandomForestRegressor, RandomForestRegressorParameters};
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::metrics::distance::euclidian::Euclidian;
use smartcore::neighbors::KNNWeightFunction;
use smartcore::neighbors::knn_regressor::{KNNRegressor, KNNRegressorParameters};
use smartcore::xgboost::xgb_regressor::{XGRegressor, XGRegressorParameters};

use super::columns::Columns;
use super::regression::matrix;
use super::{Estimate, Estimator};
use crate::dataset::Row;

/// Trees of the forest; more change the third digit.
const TREES: usize = 200;
/// Rounds, depth and rate of boosting: scikit-learn's depth and rate, with three times the rounds.
const ROUNDS: usize = 300;
const DEPTH: u16 = 3;
const RATE: f64 = 0.1;
/// Neighbours, weighted by inverse distance.
const NEIGHBOURS: usize = 3;
/// Rows below which a tree is a constant.
const TREE_ROWS: usize = 8;

type Matrix = DenseMatrix<f64>;

pub(super) fn random_forest(rows: &[Row], pooled: bool, seed: u64) -> Result<Estimator, String> {
    let columns = Columns::new(rows, pooled, true);
    columns.enough(TREE_ROWS)?;
    // All columns at each split, as scikit-learn does for regression; the crate's own default is their square root.
    let parameters =
        RandomForestRegressorParameters::default().with_n_trees(TREES).with_m(columns.width()).with_seed(seed);
    let fitted: RandomForestRegressor<f64, f64, Matrix, Vec<f64>> =
        RandomForestRegressor::fit(&matrix(&columns.x)?, &columns.y, parameters)
            .map_err(|e| format!("random forest failed: {e}"))?;
    Ok(estimator(columns, move |x| fitted.predict(x).ok()))
}

pub(super) fn gradient_boosting(rows: &[Row], pooled: bool, seed: u64) -> Result<Estimator, String> {
    let columns = Columns::new(rows, pooled, true);
    columns.enough(TREE_ROWS)?;
    // Boosting starts at the base score, and the crate's default of 0.5 takes many rounds to leave.
    let mean = columns.y.iter().sum::<f64>() / columns.y.len() as f64;
    let parameters = XGRegressorParameters::default()
        .with_n_estimators(ROUNDS)
        .with_max_depth(DEPTH)
        .with_learning_rate(RATE)
        .with_base_score(mean)
        .with_seed(seed);
    let fitted: XGRegressor<f64, f64, Matrix, Vec<f64>> =
        XGRegressor::fit(&matrix(&columns.x)?, &columns.y, parameters)
            .map_err(|e| format!("gradient boosting failed: {e}"))?;
    Ok(estimator(columns, move |x| fitted.predict(x).ok()))
}

pub(super) fn nearest_neighbours(rows: &[Row], pooled: bool) -> Result<Estimator, String> {
    let columns = Columns::new(rows, pooled, true);
    columns.enough(NEIGHBOURS + 1)?;
    let parameters = KNNRegressorParameters::default()
        .with_k(NEIGHBOURS)
        .with_algorithm(KNNAlgorithmName::LinearSearch)
        .with_weight(KNNWeightFunction::Distance);
    let fitted: KNNRegressor<f64, f64, Matrix, Vec<f64>, Euclidian<f64>> =
        KNNRegressor::fit(&matrix(&columns.x)?, &columns.y, parameters)
            .map_err(|e| format!("nearest neighbours failed: {e}"))?;
    Ok(estimator(columns, move |x| fitted.predict(x).ok()))
}

fn estimator(columns: Columns, predict: impl Fn(&Matrix) -> Option<Vec<f64>> + 'static) -> Estimator {
    Box::new(move |row| {
        let y = predict(&matrix(&[columns.of(row)?]).ok()?)?;
        y.first().map(|y| Estimate::from(columns.joules(*y)))
    })
}
