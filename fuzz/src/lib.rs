//! What each fuzz target does with its bytes: it hands them to the program where a stranger's bytes come in, and holds what
//! comes out to a property. `tests/fuzz_seeds.rs` runs the same functions over the seeds on every check.
//!
//! A panic, an abort, an allocation beyond the limit or a hang is a finding. Panics inside the Arrow and Parquet decoders
//! are contained by the program itself (`store::decode`), so the hook that would end the process there is replaced.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};

use energylens::agent::{JobIds, MarkMessage};
use energylens::card::ModelCard;
use energylens::clock::SimClock;
use energylens::dataset::{self, Format, Row};
use energylens::fit::{self, FitOptions};
use energylens::law::{self, Model, Skeleton, formula_latex, formula_text};
use energylens::recommend::{Limit, Request, recommend};
use energylens::schema::TABLES;
use energylens::slurm::{JobStates, script, state};
use energylens::source::replay::ReplaySource;
use energylens::source::{CounterSource, amd, cray::CraySource, hwmon, rapl::RaplSource};
use energylens::store::{Campaign, read_file, read_metadata, read_trace};
use energylens::sweep::{Journal, Plan};
use tempfile::TempDir;

/// A target: its name, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target: its name, which is that of its file and of its folder of seeds, and what it does.
pub const TARGETS: &[Target] = &[
    ("rows_csv", rows_csv),
    ("rows_parquet", rows_parquet),
    ("fit_rows", fit_rows),
    ("model", model),
    ("card", card),
    ("skeleton", skeleton),
    ("arguments", arguments),
    ("sweep", sweep),
    ("campaign", campaign),
    ("segment", segment),
    ("spool", spool),
    ("gpu_metrics", gpu_metrics),
    ("sysfs", sysfs),
    ("mark", mark),
    ("cgroup", cgroup),
    ("slurm", slurm),
];

/// Keeps a panic that the program contains from ending the process: libFuzzer's own hook aborts at once. One that gets
/// out of a target still does.
fn let_contained_panics_pass() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
}

/// Calls `work` with a directory of this thread's own, empty again at each call.
fn in_scratch<R>(work: impl FnOnce(&Path) -> R) -> R {
    thread_local! { static SCRATCH: OnceCell<TempDir> = const { OnceCell::new() } }
    SCRATCH.with(|cell| {
        let root = cell.get_or_init(|| tempfile::tempdir().expect("a writable temporary directory")).path();
        let dir = root.join("work");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("a writable temporary directory");
        work(&dir)
    })
}

fn put(dir: &Path, name: &str, data: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, data).expect("a writable temporary directory");
    path
}

/// Rows as CSV, in every format that is known.
pub fn rows_csv(data: &[u8]) {
    in_scratch(|dir| table(dir, &put(dir, "rows.csv", data)));
}

/// Rows as Parquet.
pub fn rows_parquet(data: &[u8]) {
    let_contained_panics_pass();
    in_scratch(|dir| table(dir, &put(dir, "rows.parquet", data)));
}

/// What was taken can be written, and what was written is taken again, row by row.
fn table(dir: &Path, path: &Path) {
    for format in Format::ALL {
        let Ok(taken) = dataset::import(path, format) else { continue };
        for written in [dir.join("again.csv"), dir.join("again.parquet")] {
            let is_csv = written.extension().is_some_and(|e| e == "csv");
            let wrote =
                if is_csv { dataset::write_csv(&written, &taken) } else { dataset::write_phases(&written, &taken) };
            wrote.expect("rows that were taken can be written");
            let again = dataset::load(&written).expect("rows that were written can be read");
            assert_eq!((again.rows.len(), again.rejected.len()), (taken.rows.len(), 0), "{:?}", again.rejected);
            for (a, b) in again.rows.iter().zip(&taken.rows) {
                assert_eq!((&a.model, a.energy_j), (&b.model, b.energy_j));
            }
        }
    }
    let _ = dataset::load_configurations(path);
}

/// Numbers that pass the checks of a row do not upset the fit.
pub fn fit_rows(data: &[u8]) {
    // A fit of more rows takes longer and finds no more.
    if data.len() > 6_000 {
        return;
    }
    let Some(rows) = in_scratch(|dir| dataset::load(&put(dir, "rows.csv", data))).ok() else { return };
    let targets = vec![law::Target::EnergyJ];
    let Ok(fitted) = fit::fit_model(&rows, &FitOptions { targets, ..FitOptions::default() }) else { return };

    for row in &rows.rows {
        if let Ok(prediction) = fitted.model.predict(law::Target::EnergyJ, row) {
            assert!(prediction.value.is_finite() && prediction.value > 0.0, "{prediction:?}");
        }
    }
}

/// A model file: read, asked, written and read again.
pub fn model(data: &[u8]) {
    in_scratch(|dir| {
        let Ok(model) = Model::load(&put(dir, "model.json", data)) else { return };

        let mut rows: Vec<Row> = model.scenarios.iter().map(|s| Row::new(&s.model, &s.gpu_model)).collect();
        rows.push(Row::new("nobody's", "A100-SXM4-80GB"));
        for row in &rows {
            for target in law::Target::ALL.iter().copied() {
                if let Ok(prediction) = model.predict(target, row) {
                    assert!(prediction.value.is_finite() && prediction.value > 0.0, "{prediction:?}");
                }
            }
        }
        let _ = recommend(&model, &Request { batch_size: Some(4.0), max_gpus: 4, ..Request::new(64.0, 16.0) });
        let again = dir.join("again.json");
        model.save(&again).expect("a model that was read can be written");
        Model::load(&again).expect("a model that was written can be read");
    });
}

/// A `config.json` of a model hub.
pub fn card(data: &[u8]) {
    let Ok(config) = serde_json::from_slice(data) else { return };
    let Ok(card) = ModelCard::from_config("x", &config) else { return };
    for figure in [card.params, card.active_params, card.weight_bytes(), card.expert_coverage(7.0)] {
        assert!(figure.is_finite() && figure >= 0.0, "{card:?}");
    }
}

/// The structure of a law, as TOML.
pub fn skeleton(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(skeleton) = Skeleton::from_toml(text) else { return };
    if skeleton.check().is_err() {
        return;
    }
    let _ = (formula_text(&skeleton), formula_latex(&skeleton));
    let again = skeleton.to_toml().expect("a skeleton that was read can be printed");
    assert_eq!(Skeleton::from_toml(&again).ok().as_ref(), Some(&skeleton), "{again}");
}

/// What stands on a command line.
pub fn arguments(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A workload may be a file's name: none is to be opened.
    if text.contains('=') && !text.contains('/') {
        let _ = Request::parse_workload(text);
    }
    if let Ok(limit) = text.parse::<Limit>() {
        assert!(limit.to_string().parse::<Limit>().is_ok_and(|again| again == limit), "{limit}");
    }
    let _ = text.parse::<fit::split::Scheme>();
    let _ = text.parse::<fit::Predictor>();
    let _ = text.parse::<Format>();
}

/// A sweep script.
pub fn sweep(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    in_scratch(|dir| {
        let before = fs::read_dir(dir).map(Iterator::count).ok();
        if let Ok(plan) = Plan::from_source("fuzz.lua", text, dir, &mut |_| ()) {
            let json = serde_json::to_vec(&plan).expect("a plan can be written");
            let again: Plan = serde_json::from_slice(&json).expect("a plan that was written can be read");
            assert_eq!(again.difference(&plan), None);
        }
        assert_eq!(fs::read_dir(dir).map(Iterator::count).ok(), before, "a script wrote a file");
    });
}

const PLAN: &str = "local el = require 'energylens'\nreturn el.sweep { name = 'f', axes = { model = 'llama-2-7b', \
                    gpu_model = 'a100', batch_size = 2, input_tokens = 64, output_tokens = 16 }, design = el.factorial {}, \
                    workload = el.simulated {} }";

/// `plan.json` and `runs.jsonl` of a campaign; the first byte says which of them the rest is.
pub fn campaign(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    static LAID_OUT: OnceLock<Plan> = OnceLock::new();
    let lay_out = || Plan::from_source("f.lua", PLAN, Path::new("."), &mut |_| ()).expect("the plan of this file");
    let plan = LAID_OUT.get_or_init(lay_out);
    in_scratch(|dir| {
        let campaign = Campaign::create_or_open(dir).expect("an empty directory");
        put(dir, if *which == b'p' { "plan.json" } else { "runs.jsonl" }, data);
        let Ok(journal) = Journal::open(&campaign, plan) else { return };
        let runs = (journal.finished(), journal.failed());
        drop(journal);
        let again = Journal::open(&campaign, plan).expect("a journal that was opened can be opened again");
        assert_eq!((again.finished(), again.failed()), runs);
        let anchor = energylens::clock::ClockAnchor::now(&energylens::clock::SystemClock);
        let _ = again.write_table(anchor);
    });
}

/// A sealed segment of any table.
pub fn segment(data: &[u8]) {
    let_contained_panics_pass();
    in_scratch(|dir| {
        put(dir, "campaign.json", b"{}");
        for table in TABLES {
            read_all(&put(dir, &format!("{}-h-000000.parquet", table.name), data));
        }
        let _ = dataset::reduce(dir);
        replay(dir);
    });
}

/// A spool of any table, and its recovery.
pub fn spool(data: &[u8]) {
    let_contained_panics_pass();
    in_scratch(|dir| {
        put(dir, "campaign.json", b"{}");
        for table in TABLES {
            read_all(&put(dir, &format!("{}-h-000000.arrows.spool", table.name), data));
        }
        let campaign = Campaign::open(dir).expect("a campaign");
        let recovered = campaign.recover().expect("a spool of whatever content stops no recovery");
        assert_eq!(recovered.len(), TABLES.len());
        let _ = dataset::reduce(dir);
        replay(dir);
    });
}

fn read_all(path: &Path) {
    for table in TABLES {
        let Ok(batches) = read_file(path, table) else { continue };
        // More batches than bytes are a decoder that does not advance.
        for batch in batches.take(10_000) {
            if batch.is_err() {
                break;
            }
        }
    }
    let _ = read_metadata(path);
}

fn replay(dir: &Path) {
    let Ok(trace) = read_trace(dir) else { return };
    let devices = trace.devices.len();
    let mut source = ReplaySource::new(trace.into(), std::sync::Arc::new(SimClock::starting_at(0)));
    for index in 0..devices {
        let _ = source.read(index);
    }
}

/// The binary file that the amdgpu driver shows.
pub fn gpu_metrics(data: &[u8]) {
    let Ok(metrics) = amd::gpu_metrics::parse(data) else { return };
    let figures = [metrics.power_w, metrics.temperature_c, metrics.core_clock_hz, metrics.memory_clock_hz];
    assert!(figures.into_iter().flatten().all(|v| v.is_finite() && v >= 0.0), "{metrics:?}");
    assert!(metrics.utilization.is_none_or(|u| (0.0..=1.0).contains(&u)), "{metrics:?}");
    let _ = metrics.throttle.map(|t| (t.words(None), t.words(Some(t))));
}

/// A tree of sysfs: a line `== PATH` begins each file. Every source that reads files opens and polls it.
pub fn sysfs(data: &[u8]) {
    in_scratch(|dir| {
        let mut open: Option<(PathBuf, Vec<u8>)> = None;
        let mut files = Vec::new();
        for line in data.split_inclusive(|b| *b == b'\n') {
            match line.strip_prefix(b"== ") {
                Some(name) => {
                    files.extend(open.take());
                    open = place(dir, name).map(|path| (path, Vec::new()));
                }
                None => open.iter_mut().for_each(|(_, text)| text.extend_from_slice(line)),
            }
        }
        files.extend(open);
        for (path, text) in files.iter().take(24) {
            if path.parent().is_some_and(|parent| fs::create_dir_all(parent).is_ok()) {
                let _ = fs::write(path, text);
            }
        }
        poll(RaplSource::open(&dir.join("class/powercap")).ok());
        hwmon::open(&dir.join("class/hwmon"), &|_| false).into_iter().for_each(|found| poll(found.sources));
        poll(CraySource::open(&dir.join("cray/pm_counters")).ok());
        let nowhere = Path::new("/nonexistent");
        let places = amd::Places { sysfs_root: dir, amd_smi_library: Some(nowhere), rocm_smi_library: Some(nowhere) };
        for mut source in amd::open(places).into_iter().flat_map(|opened| opened.sources) {
            poll_one(source.as_mut());
        }
    });
}

/// Where a file of the tree lies; names that would lead out of it are none.
fn place(dir: &Path, name: &[u8]) -> Option<PathBuf> {
    let name = std::str::from_utf8(name).ok()?.trim();
    let is_plain = |part: &str| {
        (1..40).contains(&part.len())
            && part != "."
            && part != ".."
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-:.".contains(&b))
    };
    let parts: Vec<&str> = name.split('/').collect();
    (parts.len() < 9 && parts.into_iter().all(is_plain)).then(|| dir.join(name))
}

fn poll<S: CounterSource>(sources: impl IntoIterator<Item = S>) {
    sources.into_iter().for_each(|mut source| poll_one(&mut source));
}

fn poll_one(source: &mut dyn CounterSource) {
    for index in 0..source.devices().len() {
        for _ in 0..2 {
            if let Ok(reading) = source.read(index) {
                assert!(reading.power_w.is_none_or(f64::is_finite), "{reading:?}");
            }
        }
        let _ = source.telemetry(index);
    }
}

/// A datagram on the marks socket.
pub fn mark(data: &[u8]) {
    const NOW_NS: i64 = 20_000_000_000;
    for job in [None, Some(JobIds { job_id: "7".to_owned(), step_id: None })] {
        let Ok(row) = MarkMessage::row_of(data, 1000, job, NOW_NS) else { continue };
        let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:/+@=-".contains(&b));
        assert!(is_plain(&row.run_id) && is_plain(&row.phase) && row.run_id.len() <= 128, "{row:?}");
        assert!((NOW_NS - 10_000_000_000..=NOW_NS + 2_000_000).contains(&row.t_mono_ns), "{row:?}");
    }
}

/// The text of a `/proc/PID/cgroup`, and of the environment's job.
pub fn cgroup(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let by_name = |_: &str| Some(text.clone().into_owned());
    for job in [JobIds::of_cgroups(&text), JobIds::of_environment(by_name)].into_iter().flatten() {
        assert!(job.job_id.len() <= 10 && job.job_id.bytes().all(|b| b.is_ascii_digit()), "{job:?}");
    }
}

/// A text that is to stand in a batch script, and what Slurm answers.
pub fn slurm(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut states = JobStates::default();
    state::read_squeue(&text, &mut states);
    state::read_sacct(&text, &mut states);
    let _ = state::max_array_size(&text);
    if let Ok(word) = script::quoted("text", &text) {
        assert_eq!(of_single_quotes(&word).as_deref(), Some(text.as_ref()), "{word}");
    }
    if let Ok(word) = script::escaped("text", &text) {
        assert!(!word.contains(['\n', '\r', '\0']), "{word:?}");
        let inside = word.strip_prefix('"').and_then(|w| w.strip_suffix('"')).unwrap_or(&word);
        assert_eq!(without_backslashes(inside), text, "{word}");
    }
}

/// What bash makes of a word of single quotes and escaped ones; `None` where anything of it stands outside of quotes.
fn of_single_quotes(word: &str) -> Option<String> {
    let (mut text, mut rest) = (String::new(), word);
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix("\\'") {
            text.push('\'');
            rest = behind;
        } else {
            let (inside, behind) = rest.strip_prefix('\'')?.split_once('\'')?;
            text.push_str(inside);
            rest = behind;
        }
    }
    Some(text)
}

fn without_backslashes(word: &str) -> String {
    let mut text = String::new();
    let mut characters = word.chars();
    while let Some(c) = characters.next() {
        text.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    text
}
