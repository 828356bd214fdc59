//! A figure that is fixed or changes with time: the price of a kilowatt-hour, the carbon in it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::Serialize;

use super::Error;
use super::instant::Times;
use crate::dataset::{Field, load_columns};

/// A figure, or the mean of a series with its extremes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// The figure; of a series the mean over time, each value holding until the next.
    pub mean: f64,
    /// Least of the series.
    pub least: f64,
    /// Most of the series.
    pub most: f64,
}

/// Names of the column that says when.
const TIME: &[&str] = &["time", "timestamp", "datetime", "datetime_utc", "Datetime (UTC)"];

impl Rate {
    /// A figure that does not change.
    pub fn constant(value: f64) -> Self {
        Self { mean: value, least: value, most: value }
    }

    /// Whether it changes.
    pub fn varies(&self) -> bool {
        self.least < self.most
    }

    /// A series from a CSV or Parquet file with the columns `time` and `value`.
    pub fn load(path: &Path) -> Result<Self, Error> {
        const VALUE: &[&str] = &["value", "price_per_kwh", "g_per_kwh", "carbon_intensity", "gco2_per_kwh"];
        let wrong = |problem: String| Error::Series { path: path.to_owned(), problem };
        let table = load_columns(path, &[TIME, VALUE]).map_err(|e| wrong(e.to_string()))?;
        let lacks = |i: usize| table.names.get(i).is_none_or(Option::is_none);
        if lacks(0) || lacks(1) {
            return Err(wrong(format!(
                "expected the columns time and value (also read: {}, {}), found {}",
                TIME.join(", "),
                VALUE.join(", "),
                table.headers.join(", ")
            )));
        }
        let mut times = Times::default();
        let mut points: Vec<(f64, f64)> = Vec::with_capacity(table.rows.len());
        for row in &table.rows {
            let [time, value] = [0, 1].map(|i| row.fields.get(i).unwrap_or(&Field::Missing));
            let at = times.seconds(time).map_err(|e| wrong(format!("row {}, column time: {e}", row.line)))?;
            // Below 0 is an hour in which the grid has too much.
            let value = value.number().ok_or_else(|| {
                wrong(format!("row {}, column value: expected a number, found {value}; correct it", row.line))
            })?;
            if points.last().is_some_and(|(before, _)| *before >= at) {
                return Err(wrong(format!(
                    "row {}, column time: it is not after the row before; sort the rows, and say the zone (as in \
                     2026-10-25T02:00+01:00) where clocks were put back",
                    row.line
                )));
            }
            points.push((at, value));
        }
        let rate = Self::of_points(&points).ok_or_else(|| wrong("it has no rows".to_owned()))?;
        if rate.mean < 0.0 {
            return Err(wrong(format!(
                "its mean over time is {}; single values may be below 0, but at such a mean the configuration that \
                 wastes most would be the best: give a longer series, or a figure from 0",
                super::figure(rate.mean)
            )));
        }
        Ok(rate)
    }

    /// The mean of a sorted series: a value holds until the next, the last as long as the one before it.
    fn of_points(points: &[(f64, f64)]) -> Option<Self> {
        let (_, last) = *points.last()?;
        let span = |pair: &[(f64, f64)]| match pair {
            [(from, value), (to, _)] => Some((to - from, *value)),
            _ => None,
        };
        let mut spans: Vec<(f64, f64)> = points.windows(2).filter_map(span).collect();
        spans.push((spans.last().map_or(1.0, |(length, _)| *length), last));
        let length: f64 = spans.iter().map(|(length, _)| length).sum();
        let values = || points.iter().map(|(_, value)| *value);
        Some(Self {
            mean: spans.iter().map(|(length, value)| length * value).sum::<f64>() / length,
            least: values().fold(f64::INFINITY, f64::min),
            most: values().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use super::figure;
        if self.varies() {
            write!(f, "{} (mean of {} to {})", figure(self.mean), figure(self.least), figure(self.most))
        } else {
            f.write_str(&figure(self.mean))
        }
    }
}

impl FromStr for Rate {
    type Err = Error;
    /// A number from 0, or the path of a series.
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(value) = text.trim().parse::<f64>()
            && value.is_finite()
            && value >= 0.0
        {
            return Ok(Self::constant(value));
        }
        let path = Path::new(text);
        if path.is_file() {
            return Self::load(path);
        }
        Err(Error::Rate { found: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Rate, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Rate::load(file.path()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_series_is_weighed_by_how_long_its_values_hold() {
        // 300 for one hour, 100 for two, 400 for two more, as the last holds as long as the one before.
        let text = "time,value\n2026-03-01T00:00:00Z,300\n2026-03-01T01:00:00Z,100\n2026-03-01T03:00:00Z,400\n";
        let rate = load(text).unwrap();
        assert_eq!((rate.mean, rate.least, rate.most), ((300.0 + 200.0 + 800.0) / 5.0, 100.0, 400.0));
        assert_eq!(load("time,g_per_kwh\n0,300\n3600,100\n").unwrap().mean, 200.0);
        assert_eq!(load("time,value\n0,55\n").unwrap(), Rate::constant(55.0));
        assert_eq!("0.25".parse::<Rate>().unwrap(), Rate::constant(0.25));
    }

    #[test]
    fn hours_below_nothing_count_as_they_are() {
        // Of three equal hours one is paid for: (0.05 - 0.02 + 0.06) / 3.
        let text = "time,price_per_kwh\n2026-03-01 00:00,0.05\n2026-03-01 01:00,-0.02\n2026-03-01T03:00+01:00,0.06\n";
        let rate = load(text).unwrap();
        assert!((rate.mean - 0.03).abs() < 1e-12, "{rate:?}");
        assert_eq!((rate.least, rate.most), (-0.02, 0.06));
        assert_eq!(rate.to_string(), "0.03 (mean of -0.02 to 0.06)");
    }

    #[test]
    fn a_wrong_series_names_row_column_and_fix() {
        for (text, expected) in [
            ("when,value\n0,1\n", "expected the columns time and value"),
            ("time,value\n0,1\nsoon,2\n", "row 2, column time: expected seconds or a time"),
            ("time,value\n0,1\n5,-2\n", "its mean over time is -0.5"),
            ("time,value\n0,1\n5,low\n", "row 2, column value: expected a number, found `low`"),
            ("time,value\n5,1\n5,2\n", "row 2, column time: it is not after the row before; sort the rows"),
            ("time,value\n5,1\n2026-03-01,2\n", "row 2, column time: expected seconds, as in the rows before"),
            ("time,value,time\n5,1,6\n", "time stands there 2 times"),
            ("time,value\n", "it has no rows"),
        ] {
            let message = load(text).unwrap_err();
            assert!(message.contains(expected), "{text:?}: {message} should contain {expected:?}");
        }
        let message = "cheap".parse::<Rate>().unwrap_err().to_string();
        assert!(message.contains("expected a number from 0 or the path of a file"), "{message}");
    }
}
