//! A trace of requests: their lengths, and when they came.

use std::path::{Path, PathBuf};

use super::Error;
use super::instant::Times;
use super::lengths::Lengths;
use crate::dataset::{Field, load_columns};

/// A trace, reduced to what a recommendation needs of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// File.
    pub path: PathBuf,
    /// The lengths of its requests.
    pub lengths: Lengths,
    /// Requests per second over the trace's span; `None` without arrival times, and where they give none.
    pub arrival_rate: Option<f64>,
    /// Why arrival times that are there give no rate.
    pub no_rate: Option<String>,
}

/// Names of the columns: ours first, then those of public traces (Azure LLM inference, BurstGPT) and of serving engines.
const INPUT: &[&str] = &["input_tokens", "ContextTokens", "Request tokens", "prompt_tokens"];
const OUTPUT: &[&str] = &["output_tokens", "GeneratedTokens", "Response tokens", "completion_tokens"];
const ARRIVAL: &[&str] = &["arrival_s", "TIMESTAMP", "Timestamp", "arrival_time", "time"];

/// More tokens than this are a slip.
const MOST_TOKENS: f64 = 1e8;

impl Trace {
    /// Reads a CSV or Parquet file with a row per request.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let wrong = |problem: String| Error::Trace { path: path.to_owned(), problem };
        let table = load_columns(path, &[INPUT, OUTPUT, ARRIVAL]).map_err(|e| wrong(e.to_string()))?;
        let [input, output, arrival] = table.names.as_slice() else {
            return Err(wrong("it could not be read".to_owned()));
        };
        let missing = [(input, INPUT), (output, OUTPUT)].into_iter().find(|(found, _)| found.is_none());
        if let Some((_, names)) = missing {
            let [name, others @ ..] = names else { return Err(wrong("a column is missing".to_owned())) };
            return Err(wrong(format!(
                "it lacks the column {name} (also read: {}); it has {}",
                others.join(", "),
                table.headers.join(", ")
            )));
        }
        let mut requests = Vec::with_capacity(table.rows.len());
        let (mut arrivals_s, mut times) = (Vec::new(), Times::default());
        for row in &table.rows {
            let tokens = |place: usize, name: &Option<String>| {
                let name = name.as_deref().unwrap_or_default();
                let field = row.fields.get(place).unwrap_or(&Field::Missing);
                match field.number() {
                    Some(n) if (1.0..=MOST_TOKENS).contains(&n) => Ok(n),
                    _ => Err(wrong(format!(
                        "row {}, column {name}: expected tokens, a number from 1 to {MOST_TOKENS:e}, found {field}; \
                         correct the row or take it out",
                        row.line
                    ))),
                }
            };
            requests.push((tokens(0, input)?, tokens(1, output)?));
            if let Some(name) = arrival {
                let field = row.fields.get(2).unwrap_or(&Field::Missing);
                let at = times.seconds(field).map_err(|e| {
                    wrong(format!(
                        "row {}, column {name}: {e}; correct it, or take the column out and give --arrival-rate",
                        row.line
                    ))
                })?;
                arrivals_s.push(at);
            }
        }
        let lengths = Lengths::of_requests(&requests).ok_or_else(|| wrong("it has no rows".to_owned()))?;
        let arrival_rate = rate(&arrivals_s);
        let no_rate = arrival.as_ref().filter(|_| arrival_rate.is_none()).map(|name| {
            let how = if arrivals_s.len() == 1 { "there is one request" } else { "all requests come at one instant" };
            format!(
                "column {name}: {how}, from which no rate follows; give --arrival-rate, or take the column out for \
                 requests at full speed"
            )
        });
        Ok(Self { path: path.to_owned(), lengths, arrival_rate, no_rate })
    }

    /// Fails where the arrival times were meant to give a rate and do not.
    pub fn check_rate(&self) -> Result<(), Error> {
        match &self.no_rate {
            Some(problem) => Err(Error::Trace { path: self.path.clone(), problem: problem.clone() }),
            None => Ok(()),
        }
    }
}

/// Requests per second: the gaps between requests over the time that they span.
fn rate(arrivals_s: &[f64]) -> Option<f64> {
    let first = arrivals_s.iter().copied().fold(f64::INFINITY, f64::min);
    let last = arrivals_s.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let gaps = arrivals_s.len().checked_sub(1)? as f64;
    let rate = gaps / (last - first);
    (rate.is_finite() && rate > 0.0).then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Trace, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Trace::load(file.path()).map_err(|e| e.to_string())
    }

    #[test]
    fn lengths_and_rate_are_those_of_the_rows() {
        let trace = load("arrival_s,input_tokens,output_tokens\n10,100,8\n12,300,24\n18,100,8\n").unwrap();
        assert_eq!(trace.lengths.classes.len(), 2);
        assert!((trace.lengths.mean_input_tokens() - 500.0 / 3.0).abs() < 1e-9);
        // Two gaps in eight seconds.
        assert_eq!(trace.arrival_rate, Some(0.25));
        let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.4799600,3180,8\n";
        let azure = load(azure).unwrap();
        assert!((azure.arrival_rate.unwrap() - 2.0).abs() < 1e-5, "{azure:?}");
        assert_eq!(azure.lengths.longest_tokens, 4818.0);
        assert_eq!(load("input_tokens,output_tokens\n5,6\n").unwrap().arrival_rate, None);
    }

    #[test]
    fn arrivals_that_give_no_rate_are_not_full_speed() {
        let one = load("arrival_s,input_tokens,output_tokens\n10,5,6\n").unwrap();
        let said = one.check_rate().unwrap_err().to_string();
        assert!(said.contains("column arrival_s: there is one request") && said.contains("--arrival-rate"), "{said}");
        let at_once = load("time,input_tokens,output_tokens\n2026-03-01,5,6\n2026-03-01,5,6\n").unwrap();
        assert!(at_once.check_rate().unwrap_err().to_string().contains("all requests come at one instant"));
        for text in ["input_tokens,output_tokens\n5,6\n", "arrival_s,input_tokens,output_tokens\n1,5,6\n2,5,6\n"] {
            assert!(load(text).unwrap().check_rate().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_wrong_trace_names_row_column_and_fix() {
        for (text, expected) in [
            ("input_tokens,output_tokens\n5,6\n5,0\n", "row 2, column output_tokens: expected tokens"),
            ("input_tokens,output_tokens\n5,six\n", "found `six`; correct the row or take it out"),
            (
                "input_tokens,output_tokens\n,6\n",
                "row 1, column input_tokens: expected tokens, a number from 1 to 1e8, found nothing",
            ),
            ("input_tokens,outputs\n5,6\n", "it lacks the column output_tokens (also read: GeneratedTokens"),
            ("input_tokens,output_tokens\n", "it has no rows"),
            ("time,input_tokens,output_tokens\nnoon,5,6\n", "row 1, column time: expected seconds or a time"),
            (
                "time,input_tokens,output_tokens\n2026-03-01T00:00:00Z,5,6\n5,5,6\n",
                "row 2, column time: expected a time, as in the rows before, found 5; correct it",
            ),
            ("input_tokens,output_tokens,Input_Tokens\n5,6,7\n", "input_tokens stands there 2 times"),
            ("input_tokens,output_tokens\n1e12,6\n", "found 1000000000000"),
        ] {
            let message = load(text).unwrap_err();
            assert!(message.contains(expected), "{text:?}: {message} should contain {expected:?}");
        }
    }
}
