//! Every exported function is run in its own language and held against the law itself, to 1e-12, over a few hundred random
//! configurations and the edges: one token, one sequence, more replicas than sequences, a cache that is full, experts.
//!
//! An interpreter, compiler or database that is not there costs its test, which says so on stderr.

// The law by hand that the tests of recommendations use; only that is of use here.
#[allow(dead_code)]
#[path = "../../src/recommend/fixture.rs"]
mod fixture;
mod languages;
mod models;
mod postgres;
mod structure;

// For the fixture, whose `crate::law` it is.
use energylens::law;
use law::export::{Language, Selection, export};

use models::{Asked, World};

/// Relative difference that two orders of rounding may make.
const TOLERANCE: f64 = 1e-12;

/// What came of running one export: for each configuration a figure per target, or why nothing could be run.
type Ran = Result<Vec<Vec<f64>>, String>;

/// Runs `text` with `run` for each world, and compares.
fn agree(language: Language, run: impl Fn(&World, &str, &[Asked]) -> Ran) {
    for world in models::worlds() {
        let text = export(&world.model, &Selection::default(), language).expect("an export");
        let asked = world.asked();
        let figures = match run(&world, &text, &asked) {
            Ok(figures) => figures,
            Err(missing) => {
                eprintln!("SKIPPED: the export to {language} was not run: {missing}");
                return;
            }
        };
        assert_eq!(figures.len(), asked.len(), "{}: {language}", world.name);
        for (one, got) in asked.iter().zip(&figures) {
            let want = world.figures(one);
            assert_eq!(got.len(), want.len());
            for ((got, want), law) in got.iter().zip(&want).zip(&world.model.laws) {
                let near = (got - want).abs() <= TOLERANCE * want.abs();
                assert!(near, "{}: {language}: {} of {one:?}: {got} is not {want}", world.name, law.skeleton.target);
            }
        }
    }
}

#[test]
fn python_agrees() {
    agree(Language::Python, languages::python);
}

/// Configurations that there are none of.
fn amiss(world: &World) -> Vec<Asked> {
    let good = world.asked().swap_remove(0);
    vec![
        Asked { tensor: 0, ..good.clone() },
        Asked { pipeline: 0, ..good.clone() },
        Asked { replicas: 0, ..good.clone() },
        Asked { batch: 0.0, ..good.clone() },
        Asked { input: -512.0, ..good.clone() },
        // SQL takes the capacity from the card, unless the law is pooled, and has another order for what is no number.
        Asked { capacity: Some(-5.0), ..good.clone() },
        Asked { output: f64::NAN, ..good },
    ]
}

#[test]
fn what_no_configuration_is_has_no_figure() {
    for world in models::worlds() {
        let amiss = amiss(&world);
        let text = |language| export(&world.model, &Selection::default(), language).expect("an export");
        let compiled =
            [languages::rust(&world, &text(Language::Rust), &amiss), languages::c(&world, &text(Language::C), &amiss)];
        for figures in compiled.into_iter().flatten() {
            assert_eq!(figures.len(), amiss.len(), "{}", world.name);
            assert!(figures.iter().flatten().all(|figure| figure.is_nan()), "{}: {figures:?}", world.name);
        }
        for one in &amiss {
            let said = languages::lua_error(&world, &text(Language::Lua), one);
            assert!(said.contains("expected at least 1"), "{one:?}: {said}");
            match languages::python_error(&world, &text(Language::Python), one) {
                Ok(said) => assert!(said.contains("expected at least 1"), "{one:?}: {said}"),
                Err(missing) => eprintln!("SKIPPED: the export to python was not run: {missing}"),
            }
        }
        let rows = if world.is_open() { 6 } else { 5 };
        match languages::duckdb_text(&world, &text(Language::Sql), &amiss[..rows]) {
            Ok(text) => assert_eq!(text.trim(), vec!["None None None None"; rows].join("\n"), "{}", world.name),
            Err(missing) => eprintln!("SKIPPED: the export to sql was not run: {missing}"),
        }
    }
}

#[test]
fn rust_agrees() {
    agree(Language::Rust, languages::rust);
}

#[test]
fn c_agrees() {
    agree(Language::C, languages::c);
}

#[test]
fn lua_agrees() {
    agree(Language::Lua, languages::lua);
}

#[test]
fn sql_agrees_in_duckdb() {
    agree(Language::Sql, languages::duckdb);
}

#[test]
fn sql_agrees_in_postgres() {
    let server = match postgres::Server::start() {
        Ok(server) => server,
        Err(missing) => {
            eprintln!("SKIPPED: the export to sql was not run in PostgreSQL: {missing}");
            return;
        }
    };
    agree(Language::Sql, |world, text, asked| server.figures(world, text, asked));
}

#[test]
fn json_agrees() {
    agree(Language::Json, structure::json);
}
