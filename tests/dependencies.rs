//! What we depend on: licences that a program under Apache-2.0 may carry, and one registry. `deny.toml` says the same to
//! cargo-deny; this test needs nothing but cargo.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Permissive licences. Also in `deny.toml`.
const ALLOWED: [&str; 9] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Crates under another licence, and why that does no harm.
const EXCEPTIONS: [(&str, &str, &str); 1] =
    [("openmetrics-parser", "LGPL-3.0", "used by a test alone, never part of the program")];

/// Crates that must not come in, and why.
const BANNED: [(&str, &str); 5] = [
    (
        "openssl-sys",
        "only servers that a sweep names are talked to, in plain HTTP; a library of TLS would have to be kept up to date",
    ),
    ("native-tls", "the same"),
    ("rustls", "the same"),
    ("reqwest", "the same"),
    ("pyo3", "no Python at run time"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    // What this machine builds has been fetched by now; what others need might not be.
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

/// Whether a licence expression can be met with [`ALLOWED`] ones: `A OR B`, `A AND B`, parentheses, and the old `A/B`.
fn is_met(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (met, rest) = either(&words);
    met && rest.is_empty()
}

fn either<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = both(words);
    while let ["OR", more @ ..] = rest {
        let (also, after) = both(more);
        (met, rest) = (met | also, after);
    }
    (met, rest)
}

fn both<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = one(words);
    while let ["AND", more @ ..] = rest {
        let (also, after) = one(more);
        (met, rest) = (met & also, after);
    }
    (met, rest)
}

fn one<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    match words {
        ["(", inner @ ..] => match either(inner) {
            (met, [")", rest @ ..]) => (met, rest),
            (_, rest) => (false, rest),
        },
        [licence, "WITH", exception, rest @ ..] => {
            (ALLOWED.contains(&format!("{licence} WITH {exception}").as_str()), rest)
        }
        [licence, rest @ ..] => (ALLOWED.contains(licence), rest),
        [] => (false, words),
    }
}

#[test]
fn licence_expressions_are_read_as_they_are_meant() {
    for met in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "MIT AND Zlib",
        "(MIT OR X) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception",
        "X AND Y OR MIT",
    ] {
        assert!(is_met(met), "{met}");
    }
    for not in
        ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR X) AND Y", "Apache-2.0 WITH Odd-exception", "(MIT", "MIT MIT"]
    {
        assert!(!is_met(not), "{not}");
    }
}

#[test]
fn every_dependency_may_be_given_away_under_our_licence() {
    let mut faults = Vec::new();
    for package in packages() {
        let name = package["name"].as_str().expect("a name");
        let licence = package["license"].as_str().unwrap_or_default();
        let is_exception = EXCEPTIONS.iter().any(|(n, l, _)| *n == name && *l == licence);
        if !is_exception && !is_met(licence) {
            faults.push(format!("{name}: `{licence}` is not among the licences allowed (deny.toml, this file)"));
        }
        if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == name) {
            faults.push(format!("{name} is not to be used: {why}"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_dependency_comes_from_the_one_registry_or_from_here() {
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let text = std::fs::read_to_string(root().join(lock)).unwrap_or_else(|e| panic!("{lock}: {e}"));
        let sources: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("source = ")).collect();
        assert!(sources.len() > 100, "{lock} has only {} sources", sources.len());
        let first = sources[0];
        assert!(first.starts_with("\"registry+"), "{lock}: {first}");
        for source in &sources {
            assert_eq!(*source, first, "{lock}");
        }
        // What comes from the registry is what it was: each has its checksum.
        assert_eq!(text.matches("\nsource = ").count(), text.matches("\nchecksum = ").count(), "{lock}");
    }
}

#[test]
fn cargo_deny_is_told_the_same() {
    let deny = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    for licence in ALLOWED.iter().filter(|l| **l != "CC0-1.0") {
        assert!(deny.contains(&format!("    \"{licence}\",\n")), "deny.toml lacks {licence}");
    }
    for (name, _) in BANNED {
        assert!(deny.contains(&format!("crate = \"{name}\"")), "deny.toml does not ban {name}");
    }
}
