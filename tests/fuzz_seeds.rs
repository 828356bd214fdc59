//! The seeds of the fuzz targets, and what fuzzing has found, through the same functions that `cargo fuzz` calls.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub)]
mod fuzz;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names_in(dir: &Path, extension: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let names = entries.map(|e| e.expect("an entry").file_name().into_string().expect("a name in UTF-8"));
    names.filter_map(|n| n.strip_suffix(extension).map(str::to_owned)).collect()
}

#[test]
fn every_target_has_a_file_a_binary_and_seeds() {
    let listed: BTreeSet<String> = fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names_in(&root().join("fuzz_targets"), ".rs"), listed);
    assert_eq!(names_in(&root().join("seeds"), ""), listed);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    for name in &listed {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "fuzz/Cargo.toml lacks {name}");
    }
}

/// What `cargo fuzz` gathered on this machine, with the checks of a debug build: arithmetic that overflows panics here.
#[test]
#[ignore = "needs a corpus; run after scripts/fuzz.sh"]
fn the_corpus_passes_with_checks_of_arithmetic() {
    for (name, target) in fuzz::TARGETS {
        let dir = root().join("corpus").join(name);
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let data = fs::read(entry.path()).expect("a file of the corpus");
            if let Err(panic) = std::panic::catch_unwind(|| target(&data)) {
                let text = panic.downcast_ref::<String>().map_or("", String::as_str);
                panic!("{}: {text}", entry.path().display());
            }
        }
    }
}

#[test]
fn seeds_and_former_findings_pass() {
    for (name, target) in fuzz::TARGETS {
        let dir = root().join("seeds").join(name);
        let seeds = names_in(&dir, "");
        assert!(!seeds.is_empty(), "{name} has no seed");
        for seed in seeds {
            let data = fs::read(dir.join(&seed)).expect("a seed");
            if let Err(panic) = std::panic::catch_unwind(|| target(&data)) {
                let text = panic.downcast_ref::<String>().map_or("", String::as_str);
                panic!("fuzz/seeds/{name}/{seed}: {text}");
            }
            // As a cut-off file or datagram is.
            for part in [data.len() / 2, data.len().saturating_sub(1)] {
                target(&data[..part]);
            }
        }
    }
}
