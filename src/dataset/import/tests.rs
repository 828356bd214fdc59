//! Importers on headers as others write them, and on their real files where those are at hand.

use std::path::PathBuf;

use super::*;

/// The measured rows of others lie beside the checkout on a developer's machine, never in it.
fn measured(name: &str) -> Option<PathBuf> {
    let mut places = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data")];
    places.push(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"));
    places.extend(std::env::var_os("ENERGYLENS_DATA").map(PathBuf::from));
    let found = places.into_iter().map(|p| p.join(name)).find(|p| p.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: {name} is not there; set ENERGYLENS_DATA to the directory that holds it");
    }
    found
}

#[test]
fn the_measured_files_of_others_come_in_whole() {
    let table = [
        ("splitwise.csv", Format::Splitwise, 260),
        ("mlenergy_v2.csv", Format::MlenergyV2, 356),
        ("anl_bench_power.csv", Format::AnlBench, 48),
    ];
    for (name, format, expected) in table {
        let Some(path) = measured(name) else { continue };
        let dataset = import(&path, format).unwrap_or_else(|e| panic!("{name}: {e}"));
        let first = dataset.rejected.first().map(ToString::to_string);
        assert_eq!(dataset.rows.len(), expected, "{name}: {first:?}");
        assert!(!dataset.notes.is_empty(), "{name}");
    }
}
