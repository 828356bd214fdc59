//! Measured rows of others, where they are at hand: beside a developer's checkout, or where `ENERGYLENS_DATA` says.

use std::path::{Path, PathBuf};

use crate::support::desk::Desk;

fn measured(name: &str) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut places = vec![root.join("../shared/data"), root.join("../../shared/data")];
    places.extend(std::env::var_os("ENERGYLENS_DATA").map(PathBuf::from));
    let found = places.into_iter().map(|p| p.join(name)).find(|p| p.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: {name} is not there; set ENERGYLENS_DATA to the directory that holds it");
    }
    found.map(|path| path.to_string_lossy().into_owned())
}

#[test]
fn every_named_format_comes_in() {
    for (format, file) in
        [("splitwise", "splitwise.csv"), ("mlenergy-v2", "mlenergy_v2.csv"), ("anl-bench", "anl_bench_power.csv")]
    {
        let Some(path) = measured(file) else { continue };
        let desk = Desk::new();
        let json = desk.run(&["import", &path, "--from", format, "-o", "rows.csv", "--json"]);
        assert!(matches!(json.code, Some(0 | 3)), "{}: {}", json.line, json.stderr);
        let rows = json.json()["rows"].as_u64().expect("a count");
        assert!(rows > 40, "{format}: {rows} rows");
        assert_eq!(desk.text("rows.csv").lines().count() as u64, rows + 1);
        // What was written is what we read ourselves.
        desk.run(&["import", "rows.csv", "-o", "again.csv"]).done();
        assert_eq!(desk.text("again.csv"), desk.text("rows.csv"), "{format}");
        // Given to `fit` as it is, the message names the importer.
        desk.run(&["fit", &path]).ends_with(1).remarks(&format!("import --from {format}"));
    }
}

#[test]
fn measured_a100_rows_give_a_law_and_a_recommendation() {
    let Some(path) = measured("splitwise.csv") else { return };
    let desk = Desk::new();
    desk.run(&["import", &path, "--from", "splitwise", "-o", "rows.csv"]);
    let mut lines = desk.text("rows.csv");
    lines = lines
        .lines()
        .enumerate()
        .filter(|(i, l)| *i == 0 || (l.contains("Llama-2-70b") && l.contains("A100")))
        .map(|(_, l)| format!("{l}\n"))
        .collect();
    desk.put("llama.csv", lines);
    let json = desk.run(&["fit", "llama.csv", "-o", "model.json", "--json"]).json();
    let law = &json["model"]["laws"][0];
    assert!(law["rows"].as_u64() > Some(50), "{law}");
    assert!(law["training_mape"].as_f64() < Some(0.2), "{law}");
    let best = desk.type_in("recommend model.json --workload input_tokens=1024,output_tokens=128 --max-gpus 8").done();
    best.prints("meta-llama/Llama-2-70b-hf");
}
