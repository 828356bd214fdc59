use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::dataset::Row;
use crate::dataset::row::RejectedRow;
use crate::law::Target;
use crate::recommend::fixture::{self, GPU, MODEL};
use crate::recommend::{Request, recommend};
use crate::schema::Phase;

fn row(line: usize, t: u32, p: u32, batch_size: f64, input: f64, output: f64) -> Row {
    Row {
        line,
        run_id: format!("a1b2c3-{line}"),
        architecture: Some("dense".to_owned()),
        engine: Some("vllm".to_owned()),
        precision: Some("bf16".to_owned()),
        num_gpus: t * p,
        tensor_parallel: t,
        pipeline_parallel: p,
        batch_size,
        input_tokens: Some(input),
        output_tokens: output,
        ..Row::new(MODEL, GPU)
    }
}

/// Fifty rows that scatter by some 4 % about the law of the fixture.
fn dataset(source: EnergySource) -> Dataset {
    let model = fixture::model();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let degrees = [(2, 1), (4, 1), (8, 1), (2, 2), (4, 2)];
    let rows = (0..50).map(|i| {
        let (t, p) = degrees[i % degrees.len()];
        let batch = 2_f64.powf(rng.random_range(0.0..7.0)).round();
        let input = 64.0 * 2_f64.powf(rng.random_range(0.0..6.0)).round();
        let output = if i % 5 == 0 { 1.0 } else { 16.0 * rng.random_range(1..40) as f64 };
        let mut row = row(i + 1, t, p, batch, input, output);
        let scatter: f64 = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let energy = model.predict(Target::EnergyJ, &row).unwrap().value * (0.04 * scatter).exp();
        row.energy_j = Some(energy);
        row.energy_j_std = Some(0.01 * energy);
        row.mean_tpot_s = (output > 1.0).then(|| model.predict(Target::MeanTpotS, &row).unwrap().value);
        row.phase = if output > 1.0 { Phase::Total } else { Phase::Prefill };
        row.source = source;
        row
    });
    let rejected = vec![RejectedRow {
        line: 51,
        column: Some("energy_j".to_owned()),
        reason: "expected a positive number, found -3; energy is that of the whole batch, in joules".to_owned(),
    }];
    Dataset { rows: rows.collect(), rejected, notes: Vec::new() }
}

fn trace(device: &str, phase: f64) -> PowerTrace {
    let t_s: Vec<f64> = (0..6_000).map(|i| f64::from(i) * 0.01).collect();
    let power = |t: &f64| if (t % 20.0) < 4.0 { 85.0 } else { 330.0 + 40.0 * (t * 1.7 + phase).sin() };
    PowerTrace { device: device.to_owned(), power_w: t_s.iter().map(power).collect(), t_s }
}

fn bands() -> Vec<PhaseBand> {
    let band = |phase: &str, run: usize, start_s: f64, end_s: f64| PhaseBand {
        phase: phase.to_owned(),
        run_id: format!("a1b2c3-{run}"),
        start_s,
        end_s,
    };
    (0..3)
        .flat_map(|i| {
            let t = 20.0 * i as f64;
            [band("idle", i, t, t + 4.0), band("prefill", i, t + 4.0, t + 9.0), band("total", i, t + 9.0, t + 20.0)]
        })
        .collect()
}

/// What stands between the tags of the data element.
fn data(html: &str) -> serde_json::Value {
    let start = html.split_once(r#"id="figures">"#).unwrap().1;
    serde_json::from_str(start.split_once("</script>").unwrap().0).unwrap()
}

fn text_part(html: &str) -> &str {
    html.split_once(r#"<script type="application/json""#).unwrap().0
}

#[test]
fn a_full_report_has_every_section_and_its_figures() {
    let (dataset, model) = (dataset(EnergySource::Simulated), fixture::model_with_held_out());
    let limits = vec!["mean_tpot_s=0.05".parse().unwrap()];
    let answer = recommend(&model, &Request { limits, ..Request::new(1024.0, 256.0) }).unwrap();
    let mut input = ReportInput::new("demo", &dataset, &model);
    input.recommendation = Some(&answer);
    input.power = vec![trace("sim:0", 0.0), trace("sim:1", 1.0)];
    input.phases = bands();
    input.recording =
        Some(RecordingFacts { lost: Some(3), edges: Some(1200), polls: Some(60_000), ..Default::default() });
    let learnt = |training_rows, mape| LearningPoint {
        training_rows,
        training_rows_min: training_rows,
        predictor: "energylens".to_owned(),
        top1: None,
        regret: Some(0.01),
        mape: Some(mape),
    };
    input.learning = vec![learnt(10, 0.08), learnt(40, 0.04)];
    let failed = FailedRun { run_id: "a1b2c3-7".to_owned(), reason: "the server <ended>".to_owned() };
    input.failed_runs = Some(vec![failed]);
    let html = html(&input).unwrap();
    let text = text_part(&html);
    assert!(!text.contains("class=\"missing\""), "a section is missing");
    // Header, answer, and one per figure: power, curves, terms, tradeoff, parity, residuals, learning; and two laws.
    assert_eq!(text.matches(r#"<span class="badge">simulated</span>"#).count(), 1 + 1 + 7 + 2);
    assert!(text.contains("from 10, 40 rows"), "the learning curve says what it is");
    for expected in [
        "TP 4 x PP 1",
        "fewest GPUs",
        "What rules of thumb would pick",
        "Row 51, energy_j: expected a positive number",
        "a1b2c3-7: the server &lt;ended&gt;",
        "<dt>runs that failed</dt><dd>1</dd>",
        "<dt>samples lost</dt><dd>3</dd>",
        "All 59.99 s are shown",
        "1200 in 60000 readings",
        "log-log quadratic ridge",
        "95.8 %",
        "Fitted rows",
        "k3·W·r·w",
        "J per weight byte read",
        "converged: 7 of 8 starts",
    ] {
        assert!(text.contains(expected), "{expected} is missing");
    }
    let data = data(&html);
    assert_eq!(data["parity"].as_array().unwrap().len(), 50);
    assert_eq!(data["learning"][1]["mape"], 0.04);
    assert_eq!(data["views"][0]["points"].as_array().unwrap().len(), 40);
    // 5 pairs of degrees, 33 batches each; 8 terms each.
    assert_eq!(data["views"][0]["curves"].as_array().unwrap().len(), 5 * 33);
    assert_eq!(data["views"][0]["terms"].as_array().unwrap().len(), 5 * 8);
    assert_eq!(data["tradeoff"]["latency"], "mean_tpot_s");
    assert!(data["power"]["traces"][0]["points"].as_array().unwrap().len() <= 2_000);
}

#[test]
fn the_recommended_law_is_drawn_first_and_under_a_name_of_its_own() {
    // As many rows in fp8 as in bf16 and a few more, so that by rows fp8 would come first.
    let mut dataset = dataset(EnergySource::Imported);
    let mut model = fixture::model();
    let as_fp8 = |precision: &mut Option<String>| *precision = Some("fp8".to_owned());
    let mut twins: Vec<Row> = dataset.rows.clone();
    twins.extend(dataset.rows.iter().take(5).cloned());
    twins.iter_mut().for_each(|row| as_fp8(&mut row.precision));
    dataset.rows.extend(twins);
    let mut laws = model.laws.clone();
    laws.iter_mut().for_each(|law| as_fp8(&mut law.precision));
    // What fp8 takes more makes bf16 the recommended one.
    laws.iter_mut().flat_map(|law| &mut law.coefficients).for_each(|c| c.value *= 1.5);
    model.laws.extend(laws);
    let mut scenario = model.scenarios[0].clone();
    as_fp8(&mut scenario.precision);
    model.scenarios.push(scenario);
    let answer = recommend(&model, &Request::new(1000.0, 200.0)).unwrap();
    assert_eq!(answer.ranked[0].precision.as_deref(), Some("bf16"));
    let mut input = ReportInput::new("demo", &dataset, &model);
    input.recommendation = Some(&answer);
    let page = html(&input).unwrap();
    let text = text_part(&page);
    let place = |name: &str| text.find(&format!("on {GPU} (vllm, {name})")).unwrap_or(usize::MAX);
    assert!(place("bf16") < place("fp8") && place("fp8") < usize::MAX);
    // Both are drawn for what was asked, and the rows of the answer say which is which.
    assert!(text.matches("1000 input and 200 output tokens").count() >= 2);
    assert!(text.contains(&format!("x {GPU} (bf16) needs")), "the sentence names the precision");
    assert!(text.contains("<th>precision</th>") || text.contains(">precision<"), "the ranking has a column of it");
}

#[test]
fn what_stability_found_stands_in_the_report_of_its_model() {
    use crate::law::{SurvivalPart, SurvivalTable, SurvivalTerm};
    let part = |name: &str, common_mape| SurvivalPart {
        name: name.to_owned(),
        rows: 40,
        parameters: 9,
        own_mape: 0.05,
        common_mape,
        reference_mape: Some(0.094),
    };
    let term = SurvivalTerm {
        role: "weights read".to_owned(),
        product: "W*r*w".to_owned(),
        shares: vec![Some(0.31), None],
        in_resamples: Some(0.875),
        low: 1.0,
        high: 2.0,
        unit: "J".to_owned(),
    };
    let parts = vec![part("all rows", Some(0.05)), part("dense", None)];
    let survival = SurvivalTable { parts, terms: vec![term], resamples: 8, cut: false };
    let (dataset, mut model) = (dataset(EnergySource::Imported), fixture::model());
    assert!(!text_part(&html(&ReportInput::new("demo", &dataset, &model)).unwrap()).contains("Does the structure"));
    model.survival = Some(survival);
    let page = html(&ReportInput::new("demo", &dataset, &model)).unwrap();
    let text = text_part(&page);
    for expected in ["Does the structure survive?", "5.0 % (9)", "9.4 %", "31.0 %", "in 8 resamples", "87.5 %", "W*r*w"]
    {
        assert!(text.contains(expected), "{expected} is missing");
    }
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let (dataset, model) = (dataset(EnergySource::Imported), fixture::model());
    let html = html(&ReportInput::new("demo", &dataset, &model)).unwrap();
    for sign in ["src=", "@import", "url(", "<link rel=\"stylesheet"] {
        assert!(!text_part(&html).contains(sign), "{sign}");
    }
    assert_eq!(html.matches("<script").count(), 4);
    assert_eq!(html.matches("</script>").count(), 4);
}

#[test]
fn an_empty_report_says_why_each_section_is_empty() {
    let dataset = Dataset::default();
    let mut model = fixture::model();
    model.laws.clear();
    let html = html(&ReportInput::new("nothing", &dataset, &model)).unwrap();
    let text = text_part(&html);
    assert_eq!(text.matches("class=\"missing\"").count(), 9, "one for each of eight sections, two for accuracy");
    assert!(!text.contains("data-chart"));
    assert!(!text.contains("NaN") && !text.contains("inf"));
}

#[test]
fn hostile_names_stay_text() {
    let hostile = r#"</script><script>alert("x")</script><img src=x onerror='alert(1)'>&amp;"#;
    let mut dataset = dataset(EnergySource::Imported);
    let mut model = fixture::model();
    for row in &mut dataset.rows {
        row.model = hostile.to_owned();
        row.run_id = hostile.to_owned();
        row.quality = vec![hostile.to_owned()];
        (row.engine, row.gpu_model) = (Some(hostile.to_owned()), hostile.to_owned());
    }
    dataset.rejected[0].reason = hostile.to_owned();
    for law in &mut model.laws {
        law.model = Some(hostile.to_owned());
        law.fitted_models = vec![hostile.to_owned()];
        (law.engine, law.gpu_model) = (Some(hostile.to_owned()), hostile.to_owned());
        law.skeleton.terms[0].title = hostile.to_owned();
        law.verdicts = vec![crate::law::Verdict::NoCard { model: hostile.to_owned() }];
    }
    model.scenarios[0].model = hostile.to_owned();
    (model.scenarios[0].engine, model.scenarios[0].gpu_model) = (Some(hostile.to_owned()), hostile.to_owned());
    let answer = recommend(&model, &Request::new(1024.0, 256.0)).unwrap();
    let mut input = ReportInput::new(hostile, &dataset, &model);
    input.recommendation = Some(&answer);
    input.power = vec![trace(hostile, 0.0)];
    input.phases = vec![PhaseBand { phase: hostile.to_owned(), run_id: hostile.to_owned(), start_s: 0.0, end_s: 1.0 }];
    input.recording = Some(RecordingFacts { devices: Some(vec![hostile.to_owned()]), ..Default::default() });
    let html = html(&input).unwrap();
    assert_eq!(html.matches("</script>").count(), 4);
    assert!(!html.contains("<img") && !html.contains("alert(\"x\")"));
    let data = data(&html);
    assert_eq!(data["power"]["traces"][0]["device"], hostile);
    assert!(text_part(&html).contains("&lt;img src=x"));
}

#[test]
fn held_out_rows_take_the_place_of_fitted_ones() {
    let (dataset, mut model) = (dataset(EnergySource::Imported), fixture::model());
    model.laws.iter_mut().for_each(|l| l.simulated = false);
    let mut input = ReportInput::new("demo", &dataset, &model);
    input.held_out_rows = vec![(100.0, 98.0), (200.0, 230.0), (f64::NAN, 1.0)];
    let html = html(&input).unwrap();
    assert!(html.contains("Held-out rows: the law that predicts each") && !html.contains("Fitted rows: the law"));
    assert_eq!(data(&html)["parity"].as_array().unwrap().len(), 2);
    assert!(!text_part(&html).contains(r#"<span class="badge">"#));
}

#[test]
fn the_file_is_readable_and_replaces_an_older_one() {
    let (dataset, model) = (dataset(EnergySource::Imported), fixture::model());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.html");
    std::fs::write(&path, "old").unwrap();
    write_html(&path, &ReportInput::new("demo", &dataset, &model)).unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("<!DOCTYPE html>"));
    let missing = dir.path().join("no/such/report.html");
    let error = write_html(&missing, &ReportInput::new("demo", &dataset, &model)).unwrap_err().to_string();
    assert!(error.contains("no/such/report.html"), "{error}");
}

/// For looking at: `ENERGYLENS_REPORT_DIR=DIR cargo test --lib report:: -- --ignored`.
#[test]
#[ignore = "writes reports to look at into ENERGYLENS_REPORT_DIR"]
fn reports_to_look_at() {
    let dir = std::path::PathBuf::from(std::env::var_os("ENERGYLENS_REPORT_DIR").unwrap());
    let (dataset, model) = (dataset(EnergySource::Simulated), fixture::model_with_held_out());
    let limits = vec!["mean_tpot_s=0.05".parse().unwrap()];
    let answer = recommend(&model, &Request { limits, ..Request::new(1024.0, 256.0) }).unwrap();
    let mut input = ReportInput::new("demo: Llama-2-70B on a simulated node of eight A100s", &dataset, &model);
    input.recommendation = Some(&answer);
    input.power = vec![trace("sim:0", 0.0), trace("sim:1", 1.0), trace("sim:2", 2.0), trace("sim:3", 3.0)];
    input.phases = bands();
    input.recording = Some(RecordingFacts {
        devices: Some((0..8).map(|i| format!("sim:{i}")).collect()),
        lost: Some(0),
        edges: Some(48_211),
        polls: Some(391_004),
        duration_s: Some(812.4),
        cpu_share: Some(0.004),
        silent_files: None,
    });
    write_html(&dir.join("full.html"), &input).unwrap();
    let empty = Dataset::default();
    write_html(&dir.join("empty.html"), &ReportInput::new("nothing", &empty, &fixture::model())).unwrap();
}
