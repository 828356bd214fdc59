//! What scripts rely on: options, columns, exit codes, JSON, and which of stdout and stderr says what.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::desk::{Desk, program};
use crate::support::known_law::{CARDS, configurations, csv, measured_grid, unseen_grid};

/// A desk with `rows.csv` of one model and the `model.json` fitted to it.
fn fitted() -> Desk {
    let desk = Desk::new();
    desk.put("rows.csv", csv(&measured_grid(&CARDS[1..2]), 0.02, 1));
    desk.type_in("fit rows.csv -o model.json").done();
    desk
}

#[test]
fn fit_prints_the_law_and_writes_the_model() {
    let desk = Desk::new();
    desk.put("rows.csv", csv(&measured_grid(&CARDS[1..2]), 0.02, 1));
    let ran = desk.type_in("fit rows.csv -o model.json").done();
    assert_eq!(ran.stderr, "", "nothing to remark");
    for expected in ["energy_j =", "lab/dense-8b / A100-SXM4-80GB / vllm / bf16: 72 rows", "k0", "a4", "95 % interval"]
    {
        assert!(ran.stdout.contains(expected), "{expected}: {}", ran.stdout);
    }
    let model: Value = serde_json::from_str(&desk.text("model.json")).expect("a model file is JSON");
    assert_eq!(model["format"], "energylens-model/1");
    let json = desk.type_in("fit rows.csv --json").done().json();
    assert_eq!(json["model"], model, "--json and -o tell the same");
    assert_eq!(json["rejected"], Value::Array(Vec::new()));
    let law = &model["laws"][0];
    assert_eq!((law["rows"].as_u64(), law["simulated"].as_bool()), (Some(72), Some(false)));
    assert_eq!(law["coefficients"].as_array().map(Vec::len), Some(8));
    assert_eq!(law["exponents"].as_array().map(Vec::len), Some(4));
}

#[test]
fn one_seed_gives_one_model() {
    let desk = Desk::new();
    desk.put("rows.csv", csv(&measured_grid(&CARDS[..1]), 0.02, 1));
    for name in ["one.json", "two.json"] {
        desk.run(&["fit", "rows.csv", "--seed", "7", "-o", name]).done();
    }
    assert_eq!(desk.text("one.json"), desk.text("two.json"));
}

#[test]
fn predict_appends_its_columns_and_keeps_everything_else() {
    let desk = fitted();
    let works = unseen_grid(&CARDS[1..2]);
    // A column of the user's own, with a comma in it, in front of ours.
    let table: String = configurations(&works)
        .lines()
        .enumerate()
        .map(|(i, line)| if i == 0 { format!("why,{line}\n") } else { format!("\"a, b\",{line}\n") })
        .collect();
    desk.put("configs.csv", &table);
    let ran = desk.type_in("predict model.json configs.csv --csv").done();
    let (mut before, mut after) = (table.lines(), ran.stdout.lines());
    let header = before.next().expect("a header");
    assert_eq!(after.next(), Some(format!("{header},predicted_energy_j,low_j,high_j").as_str()));
    assert_eq!(ran.stdout.lines().count(), table.lines().count());
    for (asked, answered) in before.zip(after) {
        let added = answered.strip_prefix(asked).unwrap_or_else(|| panic!("{answered} does not begin with {asked}"));
        let figures: Vec<f64> = added.split(',').skip(1).map(|f| f.parse().expect("a number")).collect();
        assert!(matches!(figures[..], [value, low, high] if 0.0 < low && low < value && value < high), "{answered}");
    }
    let json = desk.type_in("predict model.json configs.csv --json").done().json();
    let objects = json.as_array().expect("an array");
    assert_eq!(objects.len(), works.len());
    for (object, work) in objects.iter().zip(&works) {
        assert_eq!((object["why"].as_str(), object["batch_size"].as_f64()), (Some("a, b"), Some(work.batch)));
        assert!(object["low_j"].as_f64() < object["predicted_energy_j"].as_f64());
    }
    desk.type_in("predict model.json configs.csv").done().prints("90 % interval");
    let seconds = desk.type_in("predict model.json configs.csv --csv --target mean_tpot_s").done();
    assert!(
        seconds.stdout.starts_with(&format!("{header},predicted_mean_tpot_s,low_s,high_s\n")),
        "{}",
        seconds.stdout
    );
}

#[test]
fn a_configuration_that_cannot_be_predicted_leaves_a_blank_in_its_place() {
    let desk = fitted();
    let table = configurations(&unseen_grid(&CARDS[1..2])[..5]);
    let mut lines: Vec<String> = table.lines().map(str::to_owned).collect();
    lines[2] = lines[2].replace("lab/dense-8b", "lab/nobody");
    lines[4] = lines[4].replacen(",1,1,1,", ",1,3,1,", 1);
    desk.put("configs.csv", lines.join("\n") + "\n");
    let ran = desk.type_in("predict model.json configs.csv --csv").ends_with(3);
    let ran = ran.remarks("rejected: row 2: the model has no law of energy_j for lab/nobody");
    let ran = ran.remarks("rejected: row 4: num_gpus: expected tensor_parallel x pipeline_parallel x data_parallel");
    for (i, (asked, answered)) in lines.iter().zip(ran.stdout.lines()).enumerate() {
        assert_eq!(answered.ends_with(",,,"), [2, 4].contains(&i), "{answered}");
        assert!(answered.starts_with(asked.as_str()), "{answered} is not {asked}");
    }
    let json = desk.type_in("predict model.json configs.csv --json").ends_with(3).json();
    assert_eq!(json[1]["predicted_energy_j"], Value::Null);
    assert!(json[1]["error"].as_str().is_some_and(|e| e.contains("lab/nobody")), "{}", json[1]);
    assert!(json[0]["predicted_energy_j"].is_f64() && json[0].get("error").is_none());
}

#[test]
fn predicting_a_prediction_replaces_its_columns() {
    let desk = fitted();
    desk.put("configs.csv", configurations(&unseen_grid(&CARDS[1..2])[..4]));
    let once = desk.type_in("predict model.json configs.csv --csv").done().stdout;
    // Stale figures, and columns of the user's own behind them.
    let stale: String = once
        .lines()
        .enumerate()
        .map(|(i, line)| match (i, line.rsplitn(4, ',').last()) {
            (0, _) => format!("{line},why\n"),
            (_, Some(asked)) => format!("{asked},1,1,1,mine\n"),
            (_, None) => String::new(),
        })
        .collect();
    desk.put("stale.csv", stale);
    let twice = desk.type_in("predict model.json stale.csv --csv").done().stdout;
    for (i, (before, after)) in once.lines().zip(twice.lines()).enumerate() {
        let (asked, figures) =
            before.match_indices(',').rev().nth(2).map(|(at, _)| before.split_at(at)).expect("three");
        assert_eq!(after, format!("{asked},{}{figures}", if i == 0 { "why" } else { "mine" }));
    }
    assert_eq!(twice.lines().count(), 5);
}

#[test]
fn a_table_of_which_nothing_can_be_predicted_is_a_failure() {
    let desk = fitted();
    let table = configurations(&unseen_grid(&CARDS[1..2])[..3]).replace("lab/dense-8b", "lab/nobody");
    desk.put("configs.csv", table);
    for line in ["predict model.json configs.csv --csv", "predict model.json configs.csv --json"] {
        let ran = desk.type_in(line).ends_with(1).remarks("none of the 3 configurations in configs.csv");
        assert_eq!(ran.remarks("rejected: row 3: the model has no law of energy_j").stdout, "");
    }
}

#[test]
fn expert_parallel_is_said_to_be_ignored_and_only_where_it_is_used() {
    let desk = fitted();
    let with = |table: &str, degree: &str| {
        let lines = table.lines().enumerate();
        lines
            .map(|(i, line)| match i {
                0 => format!("{line},expert_parallel\n"),
                // The last row has tensor-parallel ranks to spread experts over.
                _ if i + 1 == table.lines().count() => format!("{line},{degree}\n"),
                _ => format!("{line},1\n"),
            })
            .collect::<String>()
    };
    let (rows, asked) = (desk.text("rows.csv"), configurations(&unseen_grid(&CARDS[1..2])));
    for (degree, notes) in [("1", 0), ("2", 1)] {
        desk.put("experts.csv", with(&rows, degree)).put("asked.csv", with(&asked, degree));
        for line in ["fit experts.csv --no-held-out", "predict model.json asked.csv --csv"] {
            let said = desk.type_in(line).done().stderr;
            assert_eq!(said.matches("the law does not look at it").count(), notes, "{line}: {said}");
        }
    }
}

#[test]
fn recommend_respects_its_limits_and_counts_its_gpus() {
    let desk = fitted();
    let ask = |more: &str| {
        desk.type_in(&format!("recommend model.json --workload input_tokens=512,output_tokens=128 {more}"))
    };
    let ranking = |more: &str| {
        let json = ask(&format!("{more} --json")).done().json();
        json["ranked"].as_array().cloned().unwrap_or_else(|| panic!("no ranked in {json}"))
    };
    let free = ranking("--max-gpus 8");
    let energies: Vec<f64> = free.iter().filter_map(|c| c["energy_per_token_j"]["value"].as_f64()).collect();
    assert_eq!(energies.len(), 10);
    assert!(energies.is_sorted(), "{energies:?}");
    for (more, holds) in [
        ("--max-gpus 2", (|c| c["num_gpus"].as_u64() <= Some(2)) as fn(&Value) -> bool),
        ("--max-gpus 8 --limit mean_tpot_s=0.005", |c| c["mean_tpot_s"]["value"].as_f64() <= Some(0.005)),
        ("--max-gpus 8 --limit throughput_tok_s>=2000", |c| c["throughput_tok_s"]["value"].as_f64() >= Some(2000.0)),
        ("--max-gpus 8 --limit batch_size=4 --limit num_gpus=4", |c| {
            c["batch_size"].as_f64() <= Some(4.0) && c["num_gpus"].as_u64() <= Some(4)
        }),
    ] {
        let listed = ranking(more);
        assert!(!listed.is_empty() && listed.iter().all(holds), "{more}: {listed:?}");
    }
    // The limit costs something, or it would not be one.
    let limited = ranking("--max-gpus 8 --limit mean_tpot_s=0.005");
    assert!(limited[0]["energy_per_token_j"]["value"].as_f64() > Some(energies[0]), "{}", limited[0]);
    ask("--max-gpus 8 --limit mean_tpot_s=0.005").done().prints("under mean_tpot_s <= 0.005");
}

#[test]
fn json_is_all_there_is_on_stdout() {
    let desk = fitted();
    // A table with something to remark on every verb: a row that is refused.
    let mut rows = desk.text("rows.csv");
    let again = rows.lines().nth(1).expect("a row").to_owned();
    rows.push_str(&again);
    rows.push_str(",too,long\n");
    desk.put("odd.csv", &rows).put("configs.csv", configurations(&unseen_grid(&CARDS[1..2])[..3]));
    for (line, code) in [
        ("fit odd.csv --json", 3),
        ("fit odd.csv -o odd.json --pool models --json", 3),
        ("predict model.json configs.csv --json", 0),
        ("recommend model.json --workload input_tokens=512,output_tokens=128 --json", 0),
        ("validate odd.csv --training-rows 30 --json", 3),
        ("import odd.csv -o imported.csv --json", 3),
        ("laws --json", 0),
        ("laws energylens --json", 0),
        ("cards --json", 0),
        ("tables --json", 0),
    ] {
        let ran = desk.type_in(line).ends_with(code);
        ran.json();
        assert_eq!(ran.stderr.contains("rejected: row 73: expected 21 fields"), code == 3, "{line}: {}", ran.stderr);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let desk = fitted();
    let row = configurations(&unseen_grid(&CARDS[1..2])[..1]);
    let many: String = row
        .lines()
        .chain(std::iter::repeat_n(row.lines().nth(1).expect("a row"), 4000))
        .map(|l| format!("{l}\n"))
        .collect();
    desk.put("many.csv", many);
    for arguments in
        [&["predict", "model.json", "many.csv", "--csv"][..], &["predict", "model.json", "many.csv", "--json"]]
    {
        let mut child = Command::new(program())
            .args(arguments)
            .current_dir(desk.path(""))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        // As `| head -1`: one line, then nobody reads on. What follows is more than a pipe holds.
        let mut line = String::new();
        BufReader::with_capacity(1, child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a first line");
        assert!(!line.is_empty());
        let mut stderr = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
        let status = child.wait().expect("the program ends");
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn rows_of_spreadsheets_are_understood() {
    let desk = Desk::new();
    let table = csv(&measured_grid(&CARDS[1..2]), 0.02, 1);
    let tabs = table.replace(',', "\t");
    for (name, content, note) in [
        ("crlf.csv", table.replace('\n', "\r\n"), ""),
        ("bom.csv", format!("\u{feff}{table}"), ""),
        ("semicolons.csv", table.replace(',', ";"), "separated by semicolons"),
        ("tabs.tsv", tabs, "separated by tabs"),
        ("trailing.csv", table.lines().map(|l| format!("{l},,\n")).collect(), ""),
        ("blank-lines.csv", table.replace('\n', "\n\n"), ""),
    ] {
        desk.put(name, content);
        let ran = desk.run(&["fit", name, "--json"]).done().remarks(note);
        assert_eq!(ran.json()["model"]["training"]["rows"], 72, "{name}");
    }
}

#[test]
fn parquet_holds_what_csv_held() {
    let desk = Desk::new();
    desk.put("rows.csv", csv(&measured_grid(&CARDS[1..2]), 0.02, 1));
    desk.type_in("import rows.csv -o rows.parquet").done().prints("72 rows written to rows.parquet, 0 rejected");
    let law = |file: &str| desk.run(&["fit", file, "--json"]).done().json()["model"]["laws"].clone();
    assert_eq!(law("rows.parquet"), law("rows.csv"));
}

#[test]
fn reports_and_listings_are_written() {
    let desk = fitted();
    desk.type_in("report rows.csv -o report.html --workload input_tokens=512,output_tokens=128").done();
    let page = desk.text("report.html");
    assert!(page.contains("svg") && page.contains("dense-8b"), "no figure or no model in the report");
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"), "the report needs the network");
    desk.type_in("laws").done().prints("(12 parameters)");
    // A printed skeleton can be given back.
    desk.put("mine.toml", desk.type_in("laws energylens").done().stdout);
    desk.type_in("fit rows.csv --skeleton mine.toml").done().prints("12 parameters");
    desk.type_in("cards").done().prints("meta-llama/Llama-2-70b-hf");
    desk.type_in("tables").done().prints("energy_j_std");
    desk.type_in("validate rows.csv --training-rows 30").done().prints("fewest-gpus");
}

#[test]
fn validation_takes_curves_structures_and_writes_a_page() {
    let desk = fitted();
    let few = "--predictors energylens,log-linear";
    let curve = desk.type_in(&format!("validate rows.csv {few} --learning-curve 12,24 --report v.html")).done();
    let curve = curve.prints("learning curve").prints("regret from");
    assert!(!curve.stdout.contains("random-forest"), "{}", curve.stdout);
    let page = desk.text("v.html");
    assert!(page.contains("data-chart=\"curve\"") && page.contains("\"predicted\":"), "no figures on the page");
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"), "the page needs the network");
    let json = desk.type_in(&format!("validate rows.csv {few} --learning-curve 12,24 --json")).done().json();
    let points = json["learning_curve"]["points"].as_array().map(Vec::len);
    assert_eq!((points, json["scores"].as_array().map(Vec::len)), (Some(2), Some(2)));
    // Sizes that nobody has rows for are no points: all there are stands in their place, under its number.
    let json = desk.type_in(&format!("validate rows.csv {few} --learning-curve 12,5000,9000 --json")).done().json();
    let learnt = |i: usize| json["learning_curve"]["points"][i]["training_rows"].as_u64();
    assert_eq!((learnt(0), learnt(1)), (Some(12), json["training_rows_per_law_max"].as_u64()));
    assert!(learnt(1) < Some(5000) && learnt(2).is_none(), "{}", json["learning_curve"]);
    let note = json["learning_curve"]["notes"][0].as_str().unwrap_or_default();
    assert!(note.starts_with("5000, 9000 rows are more than any law has"), "{note}");
    desk.type_in(&format!("validate rows.csv {few} --train-batches-up-to 4")).done().prints("batches up to 4");
    desk.type_in(&format!("validate rows.csv {few} --budget 1h")).done().prints("energylens");
    desk.type_in("validate rows.csv --predictors energylens,linear --target duration_s").done().prints("duration_s");
    desk.put("mine.toml", desk.type_in("laws energylens").done().stdout);
    desk.type_in("validate rows.csv --predictors energylens --skeleton mine.toml").done().prints("energylens");
}

#[test]
fn a_fit_says_how_its_intervals_came_about() {
    let desk = fitted();
    let fit = |more: &str| desk.type_in(&format!("fit rows.csv --no-held-out --target energy_j {more}")).done();
    fit("").prints("intervals of parameters: profile likelihood");
    fit("--intervals none").prints("intervals of parameters: first order");
    fit("--intervals bootstrap").prints("intervals of parameters: bootstrap of workloads");
}

#[test]
fn help_and_version_go_to_stdout() {
    let desk = Desk::new();
    desk.type_in("--version").done().prints("energylens 0.");
    let help = desk.type_in("--help").done();
    for verb in [
        "demo",
        "doctor",
        "agent",
        "record",
        "plan",
        "run",
        "import",
        "fit",
        "predict",
        "validate",
        "recommend",
        "export",
        "report",
        "laws",
        "cards",
        "tables",
    ] {
        assert!(help.stdout.contains(&format!("\n  {verb} ")), "{verb} is not in the help");
        let ran = desk.run(&[verb, "--help"]).done();
        assert!(ran.stdout.contains("Usage: energylens") && ran.stderr.is_empty(), "{verb}");
    }
}

#[test]
fn validation_names_what_it_refused_and_fails_where_nothing_was_judged() {
    let desk = fitted();
    let table = desk.text("rows.csv");
    let input = table.lines().next().into_iter().flat_map(|h| h.split(',')).position(|c| c == "input_tokens");
    let input = input.expect("a column of prompt lengths");
    let blank = |(i, line): (usize, &str)| {
        let cells = line.split(',').enumerate();
        let cell = |(j, cell)| if j == input && (1..=5).contains(&i) { "" } else { cell };
        cells.map(cell).collect::<Vec<_>>().join(",")
    };
    desk.put("gaps.csv", table.lines().enumerate().map(blank).collect::<Vec<_>>().join("\n"));
    let ran = desk.type_in("validate gaps.csv --predictors linear").ends_with(3);
    assert!(ran.stderr.contains("rejected: row 1, input_tokens: input_tokens is missing"), "{}", ran.stderr);
    let json = desk.type_in("validate gaps.csv --predictors linear --json").ends_with(3).json();
    assert_eq!((json["rejected"].as_array().map(Vec::len), json["refused"].as_u64()), (Some(5), Some(5)));
    let ran = desk.type_in("validate rows.csv --predictors roofline --target duration_s").ends_with(1);
    assert!(ran.stderr.contains("nothing could be judged: roofline: "), "{}", ran.stderr);
    // Predictions stand in the unit of what was predicted.
    let json = desk.type_in("validate rows.csv --predictors energylens --target duration_s --json").done().json();
    assert_eq!(json["unit"], "s");
    let first = &json["predictions"][0];
    assert!(first["low"].as_f64() < first["predicted"].as_f64() && first["measured"].is_number(), "{first}");
}

#[test]
fn a_prior_of_these_rows_is_refused_before_anything_is_fitted() {
    let desk = fitted();
    let ran = desk.type_in("fit rows.csv --prior model.json -o new.json").ends_with(1);
    assert!(
        ran.stderr.contains("--no-held-out") && ran.stderr.contains("a prior of another platform"),
        "{}",
        ran.stderr
    );
    let ran = desk.type_in("fit rows.csv --prior model.json --no-held-out").ends_with(1);
    assert!(ran.stderr.contains("fitted to these very rows"), "{}", ran.stderr);
    // Another day's rows of the same platform may start from it, as long as nobody is told how well that does.
    let table = desk.text("rows.csv");
    desk.put("fewer.csv", table.lines().take(20).collect::<Vec<_>>().join("\n"));
    let fewer = "fit fewer.csv --target energy_j --intervals none";
    desk.type_in(&format!("{fewer} --prior model.json --no-held-out")).done().prints("started from the law of");
    // Another precision on the same GPU is another platform.
    desk.put("fp8.csv", desk.text("fewer.csv").replace(",bf16,", ",fp8,"));
    desk.type_in("fit fp8.csv --target energy_j --intervals none --prior model.json").done().prints("started from");
}

#[test]
fn structures_from_files_are_printed_and_kept_within_bounds() {
    let desk = fitted();
    desk.put(
        "mine.toml",
        desk.type_in("laws energylens").done().stdout.replace("name = \"energylens\"", "name = \"mine\""),
    );
    desk.type_in("laws mine.toml --latex").done().prints("mine: ").prints("E = k_{0}");
    desk.type_in("laws energylens-latency --latex").done().prints("D = k_{1}");
    let ran = desk.type_in("laws no-such.toml").ends_with(1);
    assert!(ran.stderr.contains("cannot read the skeleton no-such.toml"), "{}", ran.stderr);
    let ran = desk.type_in("fit rows.csv --skeleton mine.toml --target duration_s").ends_with(1);
    assert!(ran.stderr.contains("mine.toml predicts energy_j; expected one of duration_s"), "{}", ran.stderr);
    // A structure of times serves each of them, and leaves energy to its own law.
    let latency = desk.type_in("laws energylens-latency").done().stdout.replace("\"energylens-latency\"", "\"own\"");
    desk.put("times.toml", latency);
    desk.type_in("fit rows.csv --skeleton times.toml -o own.json").done();
    let model: serde_json::Value = serde_json::from_str(&desk.text("own.json")).expect("a model");
    let laws = model["laws"].as_array().expect("laws").iter();
    let names: Vec<_> = laws.map(|l| (l["skeleton"]["target"].as_str(), l["skeleton"]["name"].as_str())).collect();
    assert!(names.contains(&(Some("energy_j"), Some("energylens"))), "{names:?}");
    assert!(names.contains(&(Some("duration_s"), Some("own"))), "{names:?}");
    let judged = "validate rows.csv --predictors energylens --skeleton times.toml";
    desk.type_in(&format!("{judged} --target duration_s")).done().prints("duration_s");
    assert!(desk.type_in(judged).ends_with(1).stderr.contains("expected one of energy_j"));
    let term = |i: usize| {
        format!("[[term]]\nname = \"c{i}\"\ntitle = \"t\"\ngroup = \"static\"\nproduct = \"B\"\nunit = \"J\"\n")
    };
    let many: String = (0..300).map(term).collect();
    desk.put("many.toml", format!("name = \"many\"\ntarget = \"energy_j\"\nabout = \"too much\"\n{many}"));
    let ran = desk.type_in("fit rows.csv --skeleton many.toml").ends_with(1);
    assert!(ran.stderr.contains("has 300 terms; expected 40 at most"), "{}", ran.stderr);
}
