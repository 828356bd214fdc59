//! The dependency rule: data passes through the rooms in one direction, and so do `use`s.
//!
//! A room may use the rooms named beside it and nothing else; `sweep` and `agent` above all do not know each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room and what it may use.
const RULE: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("clock", &[]),
    ("schema", &[]),
    ("file", &[]),
    ("card", &["schema", "units"]),
    ("source", &["card", "clock", "schema", "units"]),
    ("store", &["clock", "file", "schema", "source", "units"]),
    ("agent", &["clock", "schema", "source", "store", "units"]),
    ("sweep", &["card", "clock", "file", "schema", "source", "store", "units"]),
    ("slurm", &["clock", "file", "schema", "store", "sweep", "units"]),
    ("dataset", &["card", "clock", "file", "schema", "source", "store", "units"]),
    ("law", &["card", "dataset", "file", "schema", "units"]),
    ("fit", &["card", "dataset", "law", "schema", "units"]),
    ("choose", &["card", "dataset", "fit", "law", "schema", "sweep", "units"]),
    ("recommend", &["card", "dataset", "law", "schema", "units"]),
    ("report", &["dataset", "file", "law", "recommend", "schema", "units"]),
];

fn rust_files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("source directory").flatten() {
            rust_files(&entry.path(), found);
        }
    } else if path.extension().is_some_and(|e| e == "rs") {
        found.push(path.to_owned());
    }
}

/// Rooms named after `crate::` in a file, test code included: a test that reaches across couples rooms just as well.
fn used_rooms(text: &str) -> BTreeSet<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1).map(name).collect::<Vec<_>>())
        .collect()
}

#[test]
fn rooms_use_only_the_rooms_before_them() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut offences = Vec::new();
    for (room, allowed) in RULE {
        let mut files = Vec::new();
        for candidate in [source.join(room), source.join(format!("{room}.rs"))] {
            if candidate.exists() {
                rust_files(&candidate, &mut files);
            }
        }
        assert!(!files.is_empty(), "the room {room} is gone; change the rule");
        for file in files {
            let text = fs::read_to_string(&file).expect("source file");
            for used in used_rooms(&text) {
                let is_room = RULE.iter().any(|(name, _)| *name == used);
                if is_room && used != *room && !allowed.contains(&used.as_str()) {
                    offences.push(format!("{}: {room} uses {used}", file.display()));
                }
            }
        }
    }
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn every_module_of_the_library_has_a_rule() {
    let lib = include_str!("../src/lib.rs");
    for module in lib.lines().filter_map(|l| l.strip_prefix("pub mod ")) {
        let module = module.trim_end_matches(';');
        assert!(RULE.iter().any(|(room, _)| *room == module), "{module} is in lib.rs but not in the rule");
    }
}

#[test]
fn unsafe_code_stands_only_at_driver_boundaries() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    for file in files.iter().filter(|f| !f.starts_with(source.join("source"))) {
        let text = fs::read_to_string(file).expect("source file");
        let offending = text.lines().find(|l| !l.trim_start().starts_with("//") && l.contains("unsafe {"));
        assert!(offending.is_none(), "{}: {}", file.display(), offending.unwrap_or_default());
    }
}
