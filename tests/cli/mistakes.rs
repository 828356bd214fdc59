//! What people get wrong, verb by verb: the exit code, and the words that help. A message names the thing, what was
//! expected and what was found; where a command helps, it stands in the message or in its hint.

use crate::support::desk::Desk;
use crate::support::known_law::{CARDS, HEADER, configurations, csv, measured_grid, unseen_grid};

/// What was typed, how it ends, and what stderr must hold. Words of one part are separated by spaces alone.
type Mistake<'a> = (&'a str, i32, &'a [&'a str]);

#[track_caller]
fn check(desk: &Desk, mistakes: &[Mistake<'_>]) {
    for (line, code, expected) in mistakes {
        let ran = desk.type_in(line);
        assert_eq!(ran.code, Some(*code), "{line}\nstdout: {}\nstderr: {}", ran.stdout, ran.stderr);
        for words in *expected {
            assert!(ran.stderr.contains(words), "{line}\nexpected {words:?} in\n{}", ran.stderr);
        }
        // Nothing of Rust's own notation, no cause told twice, no line that nobody reads to its end.
        for debris in ["Some(", "Err(", "kind:", "RUST_BACKTRACE", "called `Result"] {
            assert!(!ran.stderr.contains(debris), "{line}\n{}", ran.stderr);
        }
        for said in ran.stderr.lines() {
            assert!(said.len() < 600, "{line}\n{said}");
        }
        assert!(ran.stdout.is_empty() || *code != 1, "{line} failed and printed {}", ran.stdout);
    }
}

fn table() -> String {
    csv(&measured_grid(&CARDS[1..2]), 0.02, 1)
}

/// The table with `change` made to the fields of each row; rows count from 1.
fn changed(change: impl Fn(usize, &mut Vec<String>)) -> String {
    let table = table();
    let rows = table.lines().enumerate().map(|(i, line)| {
        let mut fields: Vec<String> = line.split(',').map(str::to_owned).collect();
        if i > 0 {
            change(i, &mut fields);
        }
        fields.join(",") + "\n"
    });
    rows.collect()
}

fn column(name: &str) -> usize {
    HEADER.split(',').position(|c| c == name).unwrap_or_else(|| panic!("no column {name}"))
}

fn energy_times(factor: f64) -> String {
    let energy = column("energy_j");
    changed(|_, row| row[energy] = (row[energy].parse::<f64>().expect("a number") * factor).to_string())
}

fn fitted() -> Desk {
    let desk = Desk::new();
    desk.put("rows.csv", table()).put("configs.csv", configurations(&unseen_grid(&CARDS[1..2])[..4]));
    desk.type_in("fit rows.csv -o model.json").done();
    desk
}

#[test]
fn files_that_are_no_table() {
    let desk = fitted();
    let text = table();
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::create_dir(desk.path("empty")).expect("a directory");
    desk.put("empty.csv", "")
        .put("header.csv", format!("{HEADER}\n"))
        .put("utf16.csv", [&[0xff, 0xfe][..], &utf16].concat())
        .put("binary.csv", [0_u8, 159, 146, 150].repeat(99))
        .put("binary.parquet", [7_u8; 400])
        .put("cut.parquet", b"PAR1 and then nothing")
        .put("other.json", "{\"a\": 1}")
        .put("list.json", "[1, 2]")
        .put("cut.json", &desk.text("model.json")[..900])
        .put("future.json", desk.text("model.json").replace("energylens-model/1", "energylens-model/9"))
        .put("page.html", "<html><body>login required</body></html>");
    check(
        &desk,
        &[
            (
                "fit no-such.csv",
                1,
                &["cannot read no-such.csv", "No such file", "hint: rows are a Parquet file, a CSV file"],
            ),
            ("fit empty", 1, &["empty is a directory without phases.parquet", "energylens run SWEEP.lua"]),
            ("fit empty.csv", 1, &["empty.csv is not a readable CSV file: it is empty; expected a header line"]),
            ("fit header.csv", 1, &["header.csv has a header and no rows"]),
            ("fit utf16.csv", 1, &["it is UTF-16 text; save it as UTF-8"]),
            ("fit binary.csv", 1, &["it holds binary data; expected text with a header line"]),
            ("fit binary.parquet", 1, &["does not begin with the four bytes PAR1"]),
            ("fit cut.parquet", 1, &["cut.parquet is not a readable Parquet file"]),
            ("fit model.json", 1, &["it is a model file that `fit` wrote; expected comma-separated text"]),
            ("fit other.json", 1, &["it is JSON; expected comma-separated text with a header line, or Parquet"]),
            ("fit page.html", 1, &["column model is missing", "expected at least the columns model, gpu_model"]),
            ("fit /dev/null", 1, &["it is empty"]),
            ("validate no-such.csv", 1, &["cannot read no-such.csv"]),
            ("report no-such.csv -o r.html", 1, &["cannot read no-such.csv"]),
            ("import no-such.csv -o i.csv", 1, &["cannot read no-such.csv"]),
            (
                "predict no-such.json configs.csv",
                1,
                &["model file no-such.json cannot be read", "energylens fit ROWS -o model.json"],
            ),
            (
                "predict configs.csv model.json",
                1,
                &["configs.csv is no energylens model: not JSON", "energylens fit ROWS -o model.json"],
            ),
            ("predict other.json configs.csv", 1, &["it has no `format`, expected `energylens-model/1`"]),
            ("predict list.json configs.csv", 1, &["it has no `format`"]),
            ("predict cut.json configs.csv", 1, &["cut.json is no energylens model: not JSON: EOF"]),
            (
                "predict future.json configs.csv",
                1,
                &["its format is `energylens-model/9`, expected `energylens-model/1`"],
            ),
            ("predict empty configs.csv", 1, &["model file empty cannot be read", "Is a directory"]),
            ("predict model.json header.csv", 1, &["header.csv has a header and no rows"]),
            ("predict model.json empty.csv", 1, &["it is empty"]),
            ("recommend rows.csv --workload input_tokens=1,output_tokens=1", 1, &["rows.csv is no energylens model"]),
            ("cards other.json", 1, &["other.json gives no card", "no key `hidden_size`"]),
            ("cards rows.csv", 1, &["rows.csv is not JSON"]),
            ("cards empty", 1, &["empty/config.json cannot be read"]),
        ],
    );
}

#[test]
fn columns_and_units_that_are_wrong() {
    let desk = Desk::new();
    let renamed = |from: &str, to: &str| table().replacen(from, to, 1);
    for (name, content) in [
        ("tp.csv", renamed(",tensor_parallel,", ",tp,")),
        ("typo.csv", renamed(",batch_size,", ",bacth_size,")),
        ("optional-typo.csv", renamed(",mean_tpot_s,", ",mean_tpto_s,")),
        ("mj-name.csv", renamed(",energy_j,", ",energy_mj,")),
        ("ms-name.csv", renamed(",mean_tpot_s,", ",mean_tpot_ms,")),
        ("double.csv", renamed(",engine,", ",energy_j,")),
        ("mj.csv", energy_times(1e3)),
        ("kj.csv", energy_times(1e-3)),
        ("kwh.csv", energy_times(1.0 / 3.6e6)),
        ("gb.csv", changed(|_, row| row[column("gpu_memory_bytes")] = "80".to_owned())),
        ("billions.csv", changed(|_, row| row[column("params")] = "8".to_owned())),
        ("degrees.csv", changed(|_, row| row[column("num_gpus")] = "6".to_owned())),
        ("seconds.csv", changed(|_, row| row[column("energy_j")] = "12 s".to_owned())),
    ] {
        desk.put(name, content);
    }
    check(
        &desk,
        &[
            (
                "fit tp.csv",
                1,
                &["column tensor_parallel is missing; column tp seems to be it: rename it", "energylens tables"],
            ),
            ("fit typo.csv", 1, &["column batch_size is missing", "nearest column is bacth_size"]),
            ("fit optional-typo.csv", 1, &["column mean_tpto_s is not known; did you mean mean_tpot_s?"]),
            ("fit mj-name.csv", 1, &["column energy_mj is in millijoules", "divide by 1000 and rename it energy_j"]),
            ("fit ms-name.csv", 0, &["column mean_tpot_ms is in milliseconds", "without that it is not used"]),
            ("fit double.csv", 1, &["column energy_j stands there 2 times; expected once"]),
            (
                "fit mj.csv",
                1,
                &["72 of 72 rows are off by one factor: energy_j seems to be in millijoules: divide it by 1000"],
            ),
            ("fit kj.csv", 1, &["energy_j seems to be in kilojoules: multiply it by 1000"]),
            ("fit kwh.csv", 1, &["energy_j seems to be in kWh: multiply it by 3.6e6"]),
            ("fit gb.csv", 1, &["none of 72 rows can be used", "expected bytes, found 80; in GB? multiply by 1e9"]),
            ("fit billions.csv", 1, &["expected a number of parameters, found 8; in billions? multiply by 1e9"]),
            (
                "fit degrees.csv",
                1,
                &[
                    "num_gpus: expected tensor_parallel x pipeline_parallel x data_parallel = 1 x 1 x 1 = 1, found 6",
                    "say data_parallel = 6",
                ],
            ),
            ("fit seconds.csv", 1, &["energy_j: expected a number, found `12 s`; write the number alone"]),
            ("predict rows.csv tp.csv", 1, &["cannot be read"]),
        ],
    );
}

#[test]
fn bad_rows_among_good_ones_are_refused_by_name() {
    let desk = Desk::new();
    let set = |row: &mut Vec<String>, name: &str, value: &str| row[column(name)] = value.to_owned();
    desk.put(
        "odd.csv",
        changed(|i, row| match i {
            3 => set(row, "energy_j", "NaN"),
            4 => set(row, "energy_j", "-5"),
            5 => set(row, "energy_j", "inf"),
            6 => set(row, "energy_j", "1e300"),
            7 => set(row, "batch_size", "0"),
            8 => set(row, "tensor_parallel", "3"),
            9 => set(row, "batch_size", "eight"),
            10 => set(row, "energy_j", "1,5"),
            11 => set(row, "input_tokens", ""),
            12 => set(row, "model", ""),
            13 => set(row, "tensor_parallel", "1.5"),
            14 => set(row, "batch_size", "1e308"),
            15 => set(row, "n_layers", "1e30"),
            _ => {}
        }),
    );
    let expected: [&str; 11] = [
        "rejected: row 3, energy_j: expected joules, found nothing (an empty field, NA or NaN)",
        "rejected: row 4, energy_j: expected more than 0, found -5",
        "rejected: row 5, energy_j: expected a finite number, found inf",
        "found 1e300",
        "rejected: row 7, batch_size: expected 1 or more, found 0",
        "rejected: row 8, num_gpus: expected tensor_parallel x pipeline_parallel x data_parallel = 3 x 1 x 1 = 3, found 1",
        "rejected: row 9, batch_size: expected a number, found `eight`",
        "rejected: row 10: expected 21 fields as in the header, found 22; is there a decimal comma",
        "rejected: row 12, model: expected a name, found nothing",
        "rejected: row 13, tensor_parallel: expected a whole number",
        "rejected: 3 more rows",
    ];
    check(&desk, &[("fit odd.csv -o odd.json", 3, &expected)]);
    let json = desk.type_in("fit odd.csv --json").ends_with(3).json();
    assert_eq!(
        (json["model"]["training"]["rows"].as_u64(), json["rejected"].as_array().map(Vec::len)),
        (Some(59), Some(13))
    );
    check(
        &desk,
        &[(
            "predict odd.json odd.csv --csv",
            3,
            &["row 7: batch_size: expected 1 or more, found 0", "row 11: input_tokens"],
        )],
    );
}

#[test]
fn numbers_beyond_all_machines_are_refused_before_anything_is_fitted() {
    // A batch of 1e308 made the fit search for ever, and one of 1e30 layers wrote a model file with holes.
    let desk = fitted();
    for (name, value) in [
        ("batch_size", "1e308"),
        ("input_tokens", "1e12"),
        ("params", "1e300"),
        ("n_layers", "1e30"),
        ("mean_tpot_s", "1e-300"),
    ] {
        desk.put("huge.csv", changed(|_, row| row[column(name)] = value.to_owned()));
        check(
            &desk,
            &[("fit huge.csv", 1, &["none of 72 rows can be used", &format!("column {name}: expected a value from")])],
        );
    }
}

#[test]
fn too_little_to_fit() {
    let desk = Desk::new();
    let table = table();
    let lines: Vec<&str> = table.lines().collect();
    let repeated = |row: &str, times: usize| format!("{HEADER}\n{}", format!("{row}\n").repeat(times));
    desk.put("one.csv", repeated(lines[1], 1)).put("same.csv", repeated(lines[5], 8));
    desk.put("latin1.csv", table.replacen("lab/dense-8b", "lab/d?nse-8b", 1).replace("d?nse", "d\u{fffd}nse"));
    check(
        &desk,
        &[
            (
                "fit one.csv",
                1,
                &[
                    "needs at least; found 1 usable in 1 combination of model, GPU, engine and precision",
                    "some fifty rows",
                ],
            ),
            ("validate one.csv", 1, &["nothing can be held out"]),
            ("validate same.csv", 1, &["nothing can be held out"]),
        ],
    );
    // One configuration measured eight times is a law of that configuration, and the verdicts say so.
    desk.type_in("fit same.csv").done().prints("UNIDENTIFIED");
}

#[test]
fn outputs_that_cannot_or_must_not_be_written() {
    let desk = fitted();
    std::fs::create_dir(desk.path("directory")).expect("a directory");
    let before = desk.text("rows.csv");
    check(
        &desk,
        &[
            (
                "fit rows.csv -o no/such/model.json",
                1,
                &[
                    "cannot write no/such/model.json: expected no/such to be a directory that you may write to, found: no such directory",
                ],
            ),
            ("fit rows.csv -o directory", 1, &["cannot write directory: it is a directory; name a file"]),
            ("fit rows.csv -o rows.csv", 1, &["cannot write rows.csv: it is what is read", "name another file"]),
            ("fit rows.csv -o ./directory/../rows.csv", 1, &["it is what is read"]),
            ("import rows.csv -o rows.csv", 1, &["it is what is read"]),
            (
                "import rows.csv -o rows.xlsx",
                1,
                &["cannot tell the format of rows.xlsx; expected a name ending in .csv or .parquet"],
            ),
            ("report rows.csv -o rows.csv", 1, &["it is what is read"]),
            ("report rows.csv -o model.json --model model.json", 1, &["it is what is read (model.json)"]),
            ("report rows.csv -o no/such/r.html", 1, &["cannot write no/such/r.html"]),
            (
                "agent -o rows.csv --duration 1s",
                1,
                &["cannot create rows.csv: a file of that name is in the way; expected a directory"],
            ),
            ("demo -o rows.csv", 1, &["cannot create rows.csv"]),
        ],
    );
    assert_eq!(desk.text("rows.csv"), before, "measured rows were written over");
}

#[test]
fn options_that_are_misspelt() {
    let desk = fitted();
    let all: &[Mistake<'_>] = &[
        ("", 2, &["Usage: energylens"]),
        ("ftt rows.csv", 2, &["unrecognized subcommand 'ftt'", "a similar subcommand exists: 'fit'"]),
        ("fit", 2, &["<RUNS>"]),
        ("fit rows.csv more.csv", 2, &["unexpected argument 'more.csv'"]),
        ("fit rows.csv --pool model", 2, &["invalid value 'model' for '--pool", "[possible values: none, models]"]),
        ("fit rows.csv --seed abc", 2, &["invalid value 'abc' for '--seed"]),
        ("fit rows.csv --seed -1", 2, &["invalid value '-1' for '--seed"]),
        ("fit rows.csv --out m.json", 2, &["'--output'"]),
        ("fit rows.csv --skeleton no.toml", 1, &["cannot read the skeleton no.toml: No such file"]),
        (
            "fit rows.csv --skeleton rows.csv",
            1,
            &["cannot use the skeleton rows.csv", "energylens laws energylens > my.toml"],
        ),
        ("predict model.json configs.csv --csv --json", 2, &["cannot be used with"]),
        (
            "predict model.json configs.csv --target energy",
            2,
            &["target `energy` is unknown; expected one of energy_j"],
        ),
        ("import rows.csv -o i.csv --from vllm", 2, &["format vllm is unknown; expected one of energylens, splitwise"]),
        ("import rows.csv -o i.csv --from splitwise", 1, &["import it with --from energylens"]),
        ("validate rows.csv --scheme workload", 2, &["did you mean `workloads`?"]),
        ("validate rows.csv --scheme workloads=1", 2, &["expected a number of folds, 2 or more"]),
        ("validate rows.csv --scheme models", 1, &["pool the models (--pool models)"]),
        ("validate rows.csv --leave-out gpu", 2, &["possible values: model, batch, hardware"]),
        ("validate rows.csv --leave-out batch --scheme models", 2, &["cannot be used with"]),
        ("validate rows.csv --train-batches-up-to 0", 2, &["`0` is no batch size"]),
        ("validate rows.csv --predictors randomforest", 2, &["did you mean `random-forest`?"]),
        ("validate rows.csv --prior rows.csv", 1, &["no energylens model"]),
        ("validate rows.csv --report rows.csv", 1, &["rows.csv"]),
        ("fit rows.csv --target energy", 2, &["target `energy` is unknown; expected one of energy_j"]),
        ("fit rows.csv --intervals exact", 2, &["possible values: profile, bootstrap, none"]),
        ("fit rows.csv --prior no-such.json", 1, &["model file no-such.json cannot be read"]),
        ("validate rows.csv --budget soon", 2, &["--budget"]),
        ("validate rows.csv --target joules", 2, &["expected one of energy_j, duration_s"]),
        ("validate rows.csv --noise 3", 2, &["`3` is no share; expected a number from 0 to below 1"]),
        ("validate rows.csv --training-rows 2", 2, &["invalid value '2' for '--training-rows"]),
        ("report rows.csv -o r.html --limit mean_tpot_s=1", 1, &["--limit is about a recommendation", "--workload"]),
        ("laws energylense", 1, &["law `energylense` is unknown; expected one of energylens"]),
        ("doctor --duration 1", 2, &["time unit needed, for example 1sec or 1ms"]),
        ("doctor --sources nvlm", 2, &["`nvlm` is no source", "expected one of nvml"]),
        ("agent -o r --poll-hz 0", 2, &["`0` is no rate; expected polls per second"]),
        ("agent -o r --resolution 1h", 2, &["`1h` is out of range; expected 10us to 1s"]),
        ("agent -o r --poll-hz 100 --resolution 1ms", 2, &["cannot be used with"]),
        ("record ls", 2, &["-- <COMMAND>"]),
    ];
    check(&desk, all);
}

#[test]
fn workloads_and_limits_that_nobody_can_meet() {
    let desk = fitted();
    let ask = |workload: &str, more: &str, code: i32, expected: &[&str]| {
        check(&desk, &[(&format!("recommend model.json --workload {workload} {more}"), code, expected)]);
    };
    let usual = "input_tokens=512,output_tokens=128";
    ask("input=512,output=128", "", 2, &["workload column `input` is unknown; did you mean `input_tokens`?"]);
    ask("input_tokens=512", "", 2, &["it lacks output_tokens; expected output_tokens=NUMBER"]);
    ask("no-such.csv", "", 2, &["found `no-such.csv`, which is neither"]);
    ask("rows.csv", "", 2, &["expected one row under the header, found several"]);
    ask(
        &format!("{usual},model=gpt-5"),
        "",
        1,
        &["no energy law for gpt-5; the model file knows lab/dense-8b", "--pool models"],
    );
    ask(&format!("{usual},model=dense-8b"), "", 1, &["model `dense-8b` is unknown; did you mean `lab/dense-8b`?"]);
    ask(&format!("{usual},gpu_model=H100"), "", 1, &["no energy law for lab/dense-8b / H100"]);
    ask(&format!("{usual},batch_size=0"), "", 2, &["batch_size should be a number of at least 1, found `0`"]);
    ask(&format!("{usual},batch_size=1e300"), "", 2, &["batch_size should be at most 1000000000, found `1e300`"]);
    ask(&format!("{usual},tensor_parallel=4"), "", 2, &["tensor_parallel is what is to be chosen"]);
    ask("input_tokens=1e8,output_tokens=8", "", 1, &["none of", "memory (weights and one sequence of KV cache)"]);
    ask(usual, "--max-gpus 0", 2, &["0 is not in 1.."]);
    ask(usual, "--max-gpus -3", 2, &["invalid value '-3' for '--max-gpus"]);
    ask(usual, "--limit tpot=0.05", 2, &["quantity `tpot` is unknown; did you mean `mean_tpot_s`?"]);
    ask(usual, "--limit mean_tpot_s=50ms", 2, &["found `50ms`; write the number alone"]);
    ask(usual, "--limit mean_tpot_s", 2, &["expected QUANTITY=NUMBER, for example mean_tpot_s=0.05"]);
    ask(usual, "--limit mean_tpot_s>=1", 2, &["mean_tpot_s has a maximum; write mean_tpot_s<=NUMBER"]);
    ask(
        usual,
        "--limit mean_tpot_s=0.000001",
        1,
        &["limit mean_tpot_s <= 0.000001; closest: mean_tpot_s", "loosen the limits"],
    );
    ask(usual, "--objective energy", 2, &["objective `energy` is unknown"]);
    let spaced =
        desk.run(&["recommend", "model.json", "--workload", "input_tokens=512 output_tokens=128"]).ends_with(2);
    spaced.remarks("separate the parts of a workload by commas");
    desk.put("two-models.csv", csv(&measured_grid(&CARDS[..2]), 0.02, 1));
    desk.type_in("fit two-models.csv -o model.json").done();
    ask(usual, "", 1, &["the model file knows several: lab/dense-3b; lab/dense-8b", "add model=NAME to the workload"]);
    // A law of energy alone cannot keep a latency limit.
    let without_time = changed(|_, row| row[column("mean_tpot_s")].clear());
    desk.put("timeless.csv", without_time).type_in("fit timeless.csv -o model.json").done();
    ask(usual, "--limit mean_tpot_s=0.05", 1, &["fit rows that carry the column mean_tpot_s"]);
}

#[test]
fn sweeps_that_do_not_parse_or_cannot_run() {
    let desk = Desk::new();
    let demo = include_str!("../../scripts/sweeps/demo.lua");
    for (name, from, to, expected) in [
        (
            "axis",
            "tensor_parallel",
            "tensor_paralel",
            "axis.lua:11: axes has no axis `tensor_paralel`; did you mean `tensor_parallel`?",
        ),
        ("model", "llama-2-70b", "llama-2-70", "model.lua:9: model `llama-2-70` is not built in; did you mean"),
        ("list", "el.choice { 1, 2, 4, 8 }", "{ 1, 2, 4, 8 }", "for several values write el.choice { ... }"),
        ("text", "points = 50", "points = \"fifty\"", "`points` is `fifty`; expected a whole number from 1 to 1000000"),
        ("no-return", "return el.sweep", "el.sweep", "the script returns nil; end it with `return el.sweep { ... }`"),
        ("syntax", "el.simulated { gpus = 8 },", "el.simulated ( gpus = 8 },", "syntax.lua:21: "),
        ("loop", "return el", "while true do end return el", "takes more than 50 million instructions"),
        (
            "memory",
            "return el",
            "local x = \"a\" while true do x = x .. x end return el",
            "more memory than a sweep may use",
        ),
        ("shell", "return el", "os.execute(\"ls\") return el", "`os` does not exist here"),
        (
            "adaptive-zero",
            "el.latin_hypercube { points = 50, prefill_share = 0.2 }",
            "el.adaptive { precision = 0 }",
            "adaptive-zero.lua:18: `precision` is 0; expected a number from 0.001 to 1",
        ),
        (
            "adaptive-short",
            "el.latin_hypercube { points = 50, prefill_share = 0.2 }",
            "el.adaptive { start = 20, max_points = 10 }",
            "`max_points` is 10, and the start alone has 20 points",
        ),
        (
            "adaptive-typo",
            "el.latin_hypercube { points = 50, prefill_share = 0.2 }",
            "el.adaptive { precison = 0.05 }",
            "el.adaptive has no option `precison`; did you mean `precision`?",
        ),
        ("swapped", "{ 64, 4096 }", "{ 4096, 64 }", "the smaller end first"),
        ("zero", "{ 1, 64 }", "{ 0, 64 }", "el.geometric ends at 0"),
        (
            "no-require",
            "local el = require \"energylens\"",
            "",
            "begin the script with `local el = require \"energylens\"`",
        ),
        ("function", "el.simulated", "el.simulate", "did you mean `simulated`?"),
        ("small-node", "gpus = 8", "gpus = 1", "needs 128 GiB for weights"),
        (
            "where",
            "  design =",
            "  where = function(p) return p.batch > 3 end,\n  design =",
            "has no field `batch`; did you mean `batch_size`?",
        ),
        (
            "where-none",
            "  design =",
            "  where = function(p) return false end,\n  design =",
            "widen the axes or loosen `where`",
        ),
        ("name", "name = \"demo\"", "name = \"../demo\"", "since a directory is named after it"),
        ("raised", "return el", "error({}) return el", "raised an error that is a table; use a text"),
    ] {
        assert!(demo.contains(from), "demo.lua has no {from} now");
        let script = format!("{name}.lua");
        desk.put(&script, demo.replacen(from, to, 1));
        check(&desk, &[(&format!("plan {script}"), 1, &[expected])]);
        check(&desk, &[(&format!("run {script} -o never"), 1, &[expected])]);
        assert!(!desk.path("never").exists(), "{script} made a campaign");
    }
    desk.put("rows.csv", table()).put("small.lua", demo.replace("points = 50", "points = 3"));
    desk.put("bytes.lua", [0x1b, b'L', b'u', b'a', 0xff]).put("other/notes.txt", "mine");
    desk.type_in("run small.lua -o c").done();
    let journal = desk.text("c/runs.jsonl");
    desk.put("c/runs.jsonl", format!("garbage\n{journal}"));
    check(
        &desk,
        &[
            ("plan no-such.lua", 1, &["no-such.lua cannot be read", "copy one from scripts/sweeps"]),
            ("plan rows.csv", 1, &["rows.csv:2:"]),
            ("plan bytes.lua", 1, &["bytes.lua cannot be read", "UTF-8"]),
            ("run small.lua -o rows.csv", 1, &["a file of that name is in the way"]),
            (
                "run small.lua -o other",
                1,
                &[
                    "other is no campaign: expected one, or a new or empty directory",
                    "found `notes.txt`",
                    "name a new directory with -o",
                ],
            ),
            ("run small.lua -o c", 1, &["c/runs.jsonl line 1 is no run", "restore the file from a copy"]),
        ],
    );
}
