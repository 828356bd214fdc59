//! What `require "energylens"` gives: the functions of docs/lua.md.

use std::path::{Path, PathBuf};

use mlua::{AnyUserData, Function, Lua, Table, UserData, Value};

use super::cards::{gpu_card, model_card};
use super::fields::{Fields, as_whole, show};
use super::place::Place;
use super::slurm::slurm;
use super::{servers, workloads};
use crate::card::ModelCard;
use crate::sweep::adaptive::{AdaptiveRule, FEWEST_START_POINTS, MOST_CANDIDATES};
use crate::sweep::axis::{Axes, Design, Levels, MOST_LEVELS, Sweep};
use crate::sweep::design::{MOST_OPTIMAL_POINTS, MOST_POINTS, PRECISIONS, precision_bytes};
use crate::sweep::plan::Measure;
use crate::sweep::workload::{ScriptSpec, WorkloadSpec};

/// What `el.sweep` returns.
pub(super) struct Returned {
    pub(super) sweep: Sweep,
    pub(super) accepts: Option<Function>,
    // Evaluated again, and called, when the plan is carried out.
    pub(super) run: Option<Function>,
}

/// `el.choice`: values as the script gave them; each axis knows what to make of them.
struct Choice(Vec<Value>);
/// `el.linear`, `el.geometric`.
struct Range(Levels);
/// `el.card_from`.
pub(super) struct Card(pub(super) ModelCard);
/// `el.latin_hypercube`, `el.factorial`, `el.d_optimal`, `el.adaptive`.
struct Chosen(Design);
/// `el.simulated`, `el.command`, `el.server` and the like.
struct Workload(WorkloadSpec);

impl UserData for Returned {}
impl UserData for Choice {}
impl UserData for Range {}
impl UserData for Card {}
impl UserData for Chosen {}
impl UserData for Workload {}

/// Largest whole number of an axis: sizes and degrees beyond it are slips.
const LARGEST_SIZE: u64 = 100_000_000;

/// The module.
pub(super) fn module(lua: &Lua, place: &Place, directory: &Path) -> mlua::Result<Table> {
    let el = lua.create_table()?;
    let add = |name: &str, function: Function| el.raw_set(name, function);
    let at = || place.clone();

    let p = at();
    add("choice", lua.create_function(move |lua, v: Value| choice(lua, &p, &v).map(Choice))?)?;
    let p = at();
    add("linear", lua.create_function(move |lua, v: Value| range(lua, &p, &v, false).map(Range))?)?;
    let p = at();
    add("geometric", lua.create_function(move |lua, v: Value| range(lua, &p, &v, true).map(Range))?)?;
    let (p, directory) = (at(), directory.to_owned());
    add("card_from", lua.create_function(move |lua, v: Value| card_from(lua, &p, &v, &directory).map(Card))?)?;
    let p = at();
    add("factorial", lua.create_function(move |lua, v: Value| factorial(lua, &p, &v).map(Chosen))?)?;
    let p = at();
    add("latin_hypercube", lua.create_function(move |lua, v: Value| latin_hypercube(lua, &p, &v).map(Chosen))?)?;
    let p = at();
    add("d_optimal", lua.create_function(move |lua, v: Value| d_optimal(lua, &p, &v).map(Chosen))?)?;
    let p = at();
    add("adaptive", lua.create_function(move |lua, v: Value| adaptive(lua, &p, &v).map(Chosen))?)?;
    let p = at();
    add("simulated", lua.create_function(move |lua, v: Value| simulated(lua, &p, &v).map(Workload))?)?;
    let p = at();
    add("command", lua.create_function(move |lua, v: Value| workloads::command(lua, &p, &v).map(Workload))?)?;
    let p = at();
    add("fill_in", lua.create_function(move |lua, v: Value| workloads::fill_in(lua, &p, &v).map(Workload))?)?;
    let p = at();
    add("server", lua.create_function(move |lua, v: Value| servers::server(lua, &p, &v).map(Workload))?)?;
    for (name, made) in [("vllm", servers::VLLM), ("sglang", servers::SGLANG), ("llama_server", servers::LLAMA_SERVER)]
    {
        let p = at();
        let make = move |lua: &Lua, v: Value| servers::ready_made(lua, &p, &v, &made).map(Workload);
        add(name, lua.create_function(make)?)?;
    }
    let p = at();
    add("sweep", lua.create_function(move |lua, v: Value| sweep(lua, &p, &v))?)?;
    Ok(el)
}

fn choice(lua: &Lua, place: &Place, value: &Value) -> mlua::Result<Vec<Value>> {
    let fields = Fields::new(lua, place, value, "el.choice", "field", &[], MOST_LEVELS as usize)?;
    let mut values = Vec::new();
    for i in 1..=MOST_LEVELS as usize {
        match fields.positional(i)? {
            Value::Nil => break,
            value => values.push(value),
        }
    }
    if values.is_empty() {
        return Err(place.fail(lua, "el.choice has no value; expected el.choice { value, ... }"));
    }
    Ok(values)
}

fn range(lua: &Lua, place: &Place, value: &Value, geometric: bool) -> mlua::Result<Levels> {
    let what = if geometric { "el.geometric" } else { "el.linear" };
    let fields = Fields::new(lua, place, value, what, "option", &["points"], 2)?;
    let end = |i| {
        let found = fields.positional(i)?;
        as_whole(&found).filter(|n| (1..=LARGEST_SIZE).contains(n)).map(|n| n as u32).ok_or_else(|| {
            let message = format!("{what} ends at {}; expected whole numbers from 1 to {LARGEST_SIZE}", show(&found));
            place.fail(lua, message)
        })
    };
    let (low, high) = (end(1)?, end(2)?);
    if low > high {
        return Err(place.fail(lua, format!("{what} goes from {low} to {high}; expected the smaller end first")));
    }
    Ok(match fields.get("points")? {
        Value::Nil if geometric => Levels::Geometric(low, high),
        Value::Nil => Levels::Linear(low, high),
        _ => Levels::spaced(low, high, fields.whole("points", 1, MOST_LEVELS.into(), None)? as u32, geometric),
    })
}

fn card_from(lua: &Lua, place: &Place, value: &Value, directory: &Path) -> mlua::Result<ModelCard> {
    let (path, name) = match value {
        Value::String(path) => (path.to_string_lossy(), None),
        _ => {
            let fields = Fields::new(lua, place, value, "el.card_from", "option", &["name"], 1)?;
            let Value::String(path) = fields.positional(1)? else {
                return Err(place.fail(lua, "el.card_from needs the path of a config.json or of its directory"));
            };
            let name = match fields.get("name")? {
                Value::Nil => None,
                _ => Some(fields.text("name", "a model name")?),
            };
            (path.to_string_lossy(), name)
        }
    };
    let path: PathBuf = directory.join(path);
    ModelCard::from_hugging_face(&path, name.as_deref()).map_err(|error| {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        place.fail(lua, message)
    })
}

fn factorial(lua: &Lua, place: &Place, value: &Value) -> mlua::Result<Design> {
    if !value.is_nil() {
        Fields::new(lua, place, value, "el.factorial", "option", &[], 0)?;
    }
    Ok(Design::Factorial)
}

fn latin_hypercube(lua: &Lua, place: &Place, value: &Value) -> mlua::Result<Design> {
    let fields = Fields::new(lua, place, value, "el.latin_hypercube", "option", &["points", "prefill_share"], 0)?;
    Ok(Design::LatinHypercube {
        points: fields.whole("points", 1, MOST_POINTS as u64, None)? as usize,
        prefill_share: fields.number("prefill_share", 0.0, 1.0, Some(0.0))?,
    })
}

fn d_optimal(lua: &Lua, place: &Place, value: &Value) -> mlua::Result<Design> {
    let fields = Fields::new(lua, place, value, "el.d_optimal", "option", &["points"], 0)?;
    Ok(Design::DOptimal { points: fields.whole("points", 1, MOST_OPTIMAL_POINTS as u64, None)? as usize })
}

/// What an adaptive sweep does where it says nothing.
const USUAL: AdaptiveRule = AdaptiveRule { start: 12, batch: 4, max_points: 60, precision: 0.05, candidates: 2_000 };

/// `el.adaptive { start = 12, batch = 4, max_points = 60, precision = 0.05 }`
fn adaptive(lua: &Lua, place: &Place, value: &Value) -> mlua::Result<Design> {
    const KNOWN: [&str; 5] = ["start", "batch", "max_points", "precision", "candidates"];
    let fields = Fields::new(lua, place, value, "el.adaptive", "option", &KNOWN, 0)?;
    let most = MOST_OPTIMAL_POINTS as u64;
    let start = fields.whole("start", FEWEST_START_POINTS as u64, most, Some(USUAL.start as u64))?;
    let max_points = fields.whole("max_points", 1, most, Some(start.max(USUAL.max_points as u64)))?;
    if max_points < start {
        let message = format!("`max_points` is {max_points}, and the start alone has {start} points");
        return Err(fields.fail("max_points", message));
    }
    let candidates = fields.whole("candidates", 1, MOST_CANDIDATES as u64, Some(USUAL.candidates as u64))?;
    if candidates < max_points {
        let message = format!("`candidates` is {candidates}, and {max_points} of them may be measured (max_points)");
        return Err(fields.fail("candidates", message));
    }
    Ok(Design::Adaptive(AdaptiveRule {
        start: start as usize,
        batch: fields.whole("batch", 1, most, Some(USUAL.batch as u64))? as usize,
        max_points: max_points as usize,
        precision: fields.number("precision", 0.001, 1.0, Some(USUAL.precision))?,
        candidates: candidates as usize,
    }))
}

fn simulated(lua: &Lua, place: &Place, value: &Value) -> mlua::Result<WorkloadSpec> {
    let fields = Fields::new(lua, place, value, "el.simulated", "option", &["gpus", "run_noise"], 0)?;
    Ok(WorkloadSpec::Simulated {
        gpus: fields.whole("gpus", 1, 1024, Some(8))? as u32,
        run_noise: fields.number("run_noise", 0.0, 0.5, Some(0.02))?,
    })
}

/// What a design may be.
const DESIGNS: &str = "el.latin_hypercube { ... }, el.d_optimal { ... }, el.adaptive { ... } or el.factorial {}";

fn sweep(lua: &Lua, place: &Place, value: &Value) -> mlua::Result<Returned> {
    const KNOWN: [&str; 12] =
        ["name", "seed", "repeats", "axes", "where", "design", "measure", "workload", "slurm", "run", "engine", "gpus"];
    let fields = Fields::new(lua, place, value, "el.sweep", "field", &KNOWN, 0)?;
    let name = fields.text("name", "a text")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(plain) {
        let found = show(&fields.get("name")?);
        let expected = "1 to 64 letters, digits, `-`, `_` or `.`, since a directory is named after it";
        return Err(fields.fail("name", format!("`name` is {found}; expected {expected}")));
    }
    let design = match borrowed(&fields.need("design", DESIGNS)?, |d: &Chosen| d.0) {
        Some(design) => design,
        None => return Err(fields.fail("design", format!("`design` must be {DESIGNS}"))),
    };
    let (workload, run) = what_runs(&fields)?;
    let accepts = match fields.get("where")? {
        Value::Nil => None,
        Value::Function(function) => Some(function),
        other => return Err(fields.fail("where", format!("`where` is {}; expected a function", show(&other)))),
    };
    let axes = fields.need("axes", "a table of axes")?;
    let axes = Fields::at(place, fields.line_of("axes"), &axes, "axes", "axis", &Axes::NAMES, 0)?;
    let repeats = fields.whole("repeats", 1, 1000, Some(1))? as u32;
    let sweep = Sweep {
        name,
        seed: fields.whole("seed", 0, 1 << 53, Some(0))?,
        repeats,
        axes: read_axes(&axes, design)?,
        design,
        measure: measure(&fields, &workload, repeats)?,
        workload,
        slurm: match fields.get("slurm")? {
            Value::Nil => None,
            value => Some(slurm(place, fields.line_of("slurm"), &value)?),
        },
    };
    Ok(Returned { sweep, accepts, run })
}

/// Either a workload, or the script's own `run` with what its rows need.
fn what_runs(fields: &Fields<'_>) -> mlua::Result<(WorkloadSpec, Option<Function>)> {
    const EXPECTED: &str = "el.simulated { ... }, el.command { ... }";
    let Value::Function(run) = fields.get("run")? else {
        if let other @ (Value::Boolean(_) | Value::Table(_) | Value::String(_)) = fields.get("run")? {
            return Err(fields.fail("run", format!("`run` is {}; expected function(run) ... end", show(&other))));
        }
        for of_run in ["engine", "gpus"] {
            if !fields.get(of_run)?.is_nil() {
                return Err(fields.fail(of_run, format!("`{of_run}` belongs to `run`; a workload has its own")));
            }
        }
        let value = fields.need("workload", &format!("{EXPECTED}, or `run` instead"))?;
        return match borrowed(&value, |w: &Workload| w.0.clone()) {
            Some(workload) => Ok((workload, None)),
            None => Err(fields.fail("workload", format!("`workload` must be {EXPECTED}"))),
        };
    };
    if !fields.get("workload")?.is_nil() {
        return Err(fields.fail("run", "`run` stands beside `workload`; a sweep has one of them"));
    }
    let spec = ScriptSpec { engine: workloads::engine(fields)?, gpus: workloads::gpus(fields)?, code_sha256: None };
    Ok((WorkloadSpec::Script(spec), Some(run)))
}

/// What a userdata value is, as messages say it.
pub(super) fn kind(data: &AnyUserData) -> &'static str {
    if data.is::<Choice>() {
        "an el.choice"
    } else if data.is::<Range>() {
        "an el.linear or el.geometric"
    } else if data.is::<Card>() {
        "a model card"
    } else if data.is::<Chosen>() {
        "a design"
    } else if data.is::<Workload>() {
        "a workload"
    } else if data.is::<Returned>() {
        "a sweep"
    } else {
        "something that energylens gave"
    }
}

/// What `read` makes of a userdata value, if it is of the type that `read` takes.
pub(super) fn borrowed<T: UserData + 'static, R>(value: &Value, read: impl Fn(&T) -> R) -> Option<R> {
    match value {
        Value::UserData(data) => data.borrow::<T>().ok().map(|d| read(&d)),
        _ => None,
    }
}

/// Seconds that a real engine gets to settle after it was started; the simulated node needs none.
const SETTLE_S: f64 = 2.0;
/// Repeats that a script which asks for a precision gets at most, if it says nothing else.
const MAX_REPEATS: u64 = 10;

fn measure(fields: &Fields<'_>, workload: &WorkloadSpec, repeats: u32) -> mlua::Result<Measure> {
    const KNOWN: [&str; 7] =
        ["min_window_s", "idle_s", "warmup_batches", "max_batches", "settle_s", "relative_std", "max_repeats"];
    let is_simulated = matches!(workload, WorkloadSpec::Simulated { .. });
    let usual = Measure { settle_s: if is_simulated { 0.0 } else { SETTLE_S }, ..Measure::default() };
    let value = fields.get("measure")?;
    if value.is_nil() {
        return Ok(usual);
    }
    let fields = Fields::at(fields.place, fields.line_of("measure"), &value, "measure", "option", &KNOWN, 0)?;
    let relative_std = match fields.get("relative_std")? {
        Value::Nil => None,
        _ => Some(fields.number("relative_std", 0.001, 1.0, None)?),
    };
    let max_repeats = match (relative_std, fields.get("max_repeats")?) {
        (None, Value::Nil) => 0,
        (None, _) => {
            let message = "`max_repeats` bounds the repeats that `relative_std` asks for; give that too";
            return Err(fields.fail("max_repeats", message));
        }
        (Some(_), _) => fields.whole("max_repeats", 2, 1000, Some(MAX_REPEATS.max(repeats.into())))? as u32,
    };
    if relative_std.is_some() && max_repeats < repeats {
        let message = format!("`max_repeats` is {max_repeats}, and the sweep asks for {repeats} repeats at least");
        return Err(fields.fail("max_repeats", message));
    }
    Ok(Measure {
        min_window_s: fields.number("min_window_s", 0.01, 3600.0, Some(usual.min_window_s))?,
        idle_s: fields.number("idle_s", 0.0, 3600.0, Some(usual.idle_s))?,
        warmup_batches: fields.whole("warmup_batches", 0, 1000, Some(usual.warmup_batches.into()))? as u32,
        max_batches: fields.whole("max_batches", 1, 1_000_000, Some(usual.max_batches.into()))? as u32,
        settle_s: fields.number("settle_s", 0.0, 3600.0, Some(usual.settle_s))?,
        relative_std,
        max_repeats,
    })
}

fn read_axes(axes: &Fields<'_>, design: Design) -> mlua::Result<Axes> {
    let mut model = items(axes, "model")?.iter().map(|v| model_card(axes, v)).collect::<mlua::Result<Vec<_>>>()?;
    model.sort_by(|a, b| a.model.cmp(&b.model));
    let mut gpu_model =
        items(axes, "gpu_model")?.iter().map(|v| gpu_card(axes, v)).collect::<mlua::Result<Vec<_>>>()?;
    gpu_model.sort_by(|a, b| a.gpu_model.cmp(&b.gpu_model));
    let twice = model.windows(2).find(|w| w[0].model == w[1].model).map(|w| ("model", &w[0].model));
    let twice = twice.or_else(|| {
        gpu_model.windows(2).find(|w| w[0].gpu_model == w[1].gpu_model).map(|w| ("gpu_model", &w[0].gpu_model))
    });
    if let Some((axis, name)) = twice {
        return Err(axes.fail(axis, format!("axis `{axis}` has `{name}` twice; rows could not be told apart")));
    }
    let mut precision = Vec::new();
    if !axes.get("precision")?.is_nil() {
        for value in items(axes, "precision")? {
            let Value::String(text) = &value else {
                return Err(axes.fail("precision", format!("precision {} is no text such as \"bf16\"", show(&value))));
            };
            let text = text.to_string_lossy();
            if precision_bytes(&text).is_none() {
                let known = PRECISIONS.join(", ");
                return Err(axes.fail("precision", format!("precision `{text}` is unknown; expected one of {known}")));
            }
            precision.push(text);
        }
        precision.sort();
        precision.dedup();
    }
    let grid_wanted = design == Design::Factorial;
    Ok(Axes {
        model,
        gpu_model,
        precision,
        tensor_parallel: levels(axes, "tensor_parallel", true, Some(1))?,
        pipeline_parallel: levels(axes, "pipeline_parallel", true, Some(1))?,
        data_parallel: levels(axes, "data_parallel", true, Some(1))?,
        batch_size: levels(axes, "batch_size", grid_wanted, None)?,
        input_tokens: levels(axes, "input_tokens", grid_wanted, None)?,
        output_tokens: levels(axes, "output_tokens", grid_wanted, None)?,
    })
}

/// The values of an axis that is a list of things: one thing, or `el.choice` of several.
fn items(axes: &Fields<'_>, axis: &'static str) -> mlua::Result<Vec<Value>> {
    let value = axes.need(axis, "a value or el.choice { ... }")?;
    Ok(borrowed(&value, |c: &Choice| c.0.clone()).unwrap_or_else(|| vec![value]))
}

fn levels(axes: &Fields<'_>, axis: &'static str, grid_wanted: bool, default: Option<u32>) -> mlua::Result<Levels> {
    let value = match (axes.get(axis)?, default) {
        (Value::Nil, Some(default)) => return Ok(Levels::Choice(vec![default])),
        (Value::Nil, None) => axes.need(axis, "a whole number, el.choice, el.linear or el.geometric")?,
        (value, _) => value,
    };
    let whole = |v: &Value| {
        as_whole(v).filter(|n| (1..=LARGEST_SIZE).contains(n)).map(|n| n as u32).ok_or_else(|| {
            let expected = format!("a whole number from 1 to {LARGEST_SIZE}");
            let hint = if v.is_table() { "; for several values write el.choice { ... }" } else { "" };
            axes.fail(axis, format!("axis `{axis}` has {}; expected {expected}{hint}", show(v)))
        })
    };
    if let Some(levels) = borrowed(&value, |r: &Range| r.0.clone()) {
        if grid_wanted && levels.grid().is_none() {
            let message = format!("axis `{axis}` has too many levels for a grid; give el.linear a number of `points`");
            return Err(axes.fail(axis, message));
        }
        return Ok(levels);
    }
    match borrowed(&value, |c: &Choice| c.0.clone()) {
        Some(values) => Ok(Levels::choice(values.iter().map(whole).collect::<mlua::Result<Vec<_>>>()?)),
        None => Ok(Levels::Choice(vec![whole(&value)?])),
    }
}
