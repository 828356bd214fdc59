//! What runs cost, in words: a line while a sweep goes on, a table at its end.

use std::path::Path;

use energylens::dataset::{Dataset, Row};
use energylens::schema::{Method, Phase};
use energylens::store::RunRow;

use super::super::output;

/// Runs that the table shows.
const LISTED: usize = 10;

/// A run's place in the space of configurations, in a few words.
pub(super) fn configuration(run: &RunRow) -> String {
    let replicas = if run.data_parallel > 1 { format!(" DP {}", run.data_parallel) } else { String::new() };
    format!(
        "{} on {}, TP {} PP {}{replicas}, batch {}, {} input and {} output tokens",
        run.model,
        run.gpu_model,
        run.tensor_parallel,
        run.pipeline_parallel,
        run.batch_size,
        run.input_tokens.unwrap_or(0.0),
        run.output_tokens
    )
}

/// The joules of one batch in each phase of `rows`, which are those of one run, or what is wrong with them.
pub(super) fn costs(rows: &[Row]) -> String {
    let cost = |row: &Row| {
        let doubts = if row.quality.is_empty() { String::new() } else { format!(" ({})", row.quality.join(", ")) };
        let energy = row.energy_j.map_or_else(|| "no joules".to_owned(), |j| joules(j, row.energy_j_std));
        format!("{} {energy}{doubts}", row.phase)
    };
    rows.iter().map(cost).collect::<Vec<_>>().join(", ")
}

/// The first runs of a campaign with the energy of a batch's prefill and decode; `None` where no run has any.
pub(super) fn table(data: &Dataset, file: &Path) -> Option<String> {
    // The rows of a run are neighbours.
    let mut runs: Vec<&[Row]> = data.rows.chunk_by(|a, b| a.run_id == b.run_id).collect();
    let all = runs.len();
    runs.truncate(LISTED);
    if runs.is_empty() {
        return None;
    }
    let headers = ["model", "tp", "pp", "dp", "batch", "in", "out", "prefill", "decode"];
    let mut table = output::table(&headers, &[1, 2, 3, 4, 5, 6, 7, 8]);
    for rows in runs {
        // Of two decodes the one that was marked is the surer.
        let of = |phase| rows.iter().filter(|r| r.phase == phase).max_by_key(|r| r.method == Some(Method::Marks));
        let energy =
            |phase| of(phase).and_then(|r| Some(joules(r.energy_j?, r.energy_j_std))).unwrap_or("-".to_owned());
        let Some(whole) = rows.iter().max_by(|a, b| a.output_tokens.total_cmp(&b.output_tokens)) else { continue };
        table.add_row([
            whole.model.clone(),
            whole.tensor_parallel.to_string(),
            whole.pipeline_parallel.to_string(),
            whole.data_parallel.to_string(),
            whole.batch_size.to_string(),
            whole.input_tokens.map_or_else(|| "-".to_owned(), |n| n.to_string()),
            whole.output_tokens.to_string(),
            energy(Phase::Prefill),
            energy(Phase::Decode),
        ]);
    }
    let more = if all > LISTED {
        format!("\n ... and {} more runs in {}", all - LISTED, file.display())
    } else {
        String::new()
    };
    Some(format!("{table}{more}"))
}

/// With as many digits as the uncertainty leaves any sense to.
fn joules(energy_j: f64, std_j: Option<f64>) -> String {
    match std_j.filter(|std| *std > 0.0) {
        Some(std_j) => {
            let decimals = (1 - std_j.log10().floor() as i32).clamp(0, 6) as usize;
            format!("{energy_j:.decimals$} ± {std_j:.decimals$} J")
        }
        None => format!("{} J", output::short(energy_j)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(run_id: &str, phase: Phase, output_tokens: f64, energy_j: f64, std_j: f64) -> Row {
        Row {
            run_id: run_id.to_owned(),
            phase,
            batch_size: 8.0,
            input_tokens: Some(512.0),
            output_tokens,
            energy_j: Some(energy_j),
            energy_j_std: Some(std_j),
            ..Row::new("lab/tiny", "g")
        }
    }

    #[test]
    fn joules_have_the_digits_that_their_uncertainty_leaves() {
        for (energy_j, std_j, text) in [
            (123.456, Some(0.123), "123.46 ± 0.12 J"),
            (123456.7, Some(250.0), "123457 ± 250 J"),
            (1.5, None, "1.500 J"),
            (1.5, Some(0.0), "1.500 J"),
        ] {
            assert_eq!(joules(energy_j, std_j), text);
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_of_the_first_runs_and_says_where_the_others_are() {
        let of = |n: usize| {
            let run_id = format!("r-{n}");
            let marked = Row { method: Some(Method::Marks), ..row(&run_id, Phase::Decode, 64.0, 30.0, 1.0) };
            let difference = Row { method: Some(Method::Difference), ..row(&run_id, Phase::Decode, 64.0, 99.0, 9.0) };
            [
                row(&run_id, Phase::Prefill, 1.0, 12.0, 0.5),
                difference,
                marked,
                row(&run_id, Phase::Total, 64.0, 42.0, 1.0),
            ]
        };
        let table_of = |runs: usize| {
            let rows = (0..runs).flat_map(of).collect();
            table(&Dataset { rows, ..Dataset::default() }, Path::new("c/phases.parquet"))
        };
        assert_eq!(table_of(0), None);
        let one = table_of(1).expect("a table");
        let line = one.lines().nth(1).expect("a run");
        for cell in ["lab/tiny", " 8 ", " 512 ", " 64 ", "12.00 ± 0.50 J", "30.0 ± 1.0 J"] {
            assert!(line.contains(cell), "{cell}: {one}");
        }
        assert!(!one.contains("99"), "{one}");
        let many = table_of(25).expect("a table");
        assert!(many.lines().count() == 12 && many.ends_with("... and 15 more runs in c/phases.parquet"), "{many}");
    }

    #[test]
    fn what_is_wrong_with_a_row_stands_beside_it() {
        let doubtful =
            Row { energy_j: None, quality: vec!["lost_samples".to_owned()], ..row("r", Phase::Total, 64.0, 1.0, 1.0) };
        let told = costs(&[row("r", Phase::Prefill, 1.0, 12.0, 0.5), doubtful]);
        assert_eq!(told, "prefill 12.00 ± 0.50 J, total no joules (lost_samples)");
    }
}
