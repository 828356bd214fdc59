//! Mistakes in full: what was typed, how it ended and everything that stderr said, one file each in
//! `tests/golden/mistakes`. `UPDATE_GOLDEN=1 cargo test --test cli golden` writes them anew; what changed is to be read
//! as a newcomer would.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::desk::Desk;
use crate::support::known_law::{CARDS, configurations, csv, measured_grid, unseen_grid};

/// The file's name and the line that is typed. The first word of a name is the verb.
const MISTAKES: &[(&str, &str)] = &[
    ("demo-onto-a-file", "demo -o rows.csv"),
    ("doctor-source-misspelt", "doctor --sources nvlm"),
    ("doctor-duration-without-unit", "doctor --sources sim --duration 3"),
    ("agent-without-output", "agent"),
    ("agent-nothing-to-read", "agent -o rec --sources rapl --sysfs-root empty"),
    ("agent-into-my-notes", "agent -o notes --sources sim"),
    ("agent-metrics-for-everybody", "agent -o rec --sources sim --duration 1s --metrics 0.0.0.0:9400"),
    ("agent-replay-of-nothing", "agent -o rec --replay empty"),
    ("record-without-dashes", "record sleep 1"),
    ("record-nothing-to-read", "record --sources rapl --sysfs-root empty -- true"),
    ("record-no-such-command", "record --sources sim -- no-such-command"),
    ("mark-without-a-socket", "mark begin prefill"),
    ("mark-unknown-event", "mark start prefill"),
    ("mark-nobody-listens", "mark begin prefill --socket no.sock"),
    ("top-without-a-terminal", "top"),
    ("plan-no-such-script", "plan no-such.lua"),
    ("plan-axis-misspelt", "plan typo.lua"),
    ("plan-a-table", "plan rows.csv"),
    ("plan-wants-a-shell", "plan shell.lua"),
    ("plan-adaptive-sure-of-everything", "plan sure.lua"),
    ("run-into-my-notes", "run small.lua -o notes"),
    ("run-another-sweep-into-a-campaign", "run other.lua -o campaign"),
    ("submit-no-such-script", "submit no-such.lua -o never"),
    ("submit-adaptive", "submit adaptive.lua -o never"),
    ("status-never-submitted", "status campaign"),
    ("status-of-my-notes", "status notes"),
    ("import-to-a-spreadsheet", "import rows.csv -o rows.xlsx"),
    ("import-without-from", "import splitwise.csv -o i.csv"),
    ("import-in-millijoules", "import mj.csv -o i.csv"),
    ("import-unknown-format", "import rows.csv -o i.csv --from vllm"),
    ("fit-no-such-file", "fit no-such.csv"),
    ("fit-too-few-rows", "fit two.csv"),
    ("fit-column-renamed", "fit tp.csv"),
    ("fit-a-model-file", "fit model.json"),
    ("fit-my-notes", "fit notes"),
    ("fit-into-no-directory", "fit rows.csv -o no/such/model.json"),
    ("fit-over-its-rows", "fit rows.csv -o rows.csv"),
    ("discover-too-few-rows", "discover two.csv"),
    ("discover-no-such-file", "discover no-such.csv"),
    ("validate-too-few-rows", "validate two.csv"),
    ("validate-scheme-misspelt", "validate rows.csv --scheme workload"),
    ("validate-models-without-a-pool", "validate rows.csv --scheme models"),
    ("predict-swapped", "predict configs.csv model.json"),
    ("predict-no-such-model", "predict no-such.json configs.csv"),
    ("predict-nothing-known", "predict model.json strangers.csv"),
    ("recommend-without-a-workload", "recommend model.json"),
    ("recommend-workload-misspelt", "recommend model.json --workload input=512,output=128"),
    (
        "recommend-limit-misspelt",
        "recommend model.json --workload input_tokens=512,output_tokens=128 --limit tpot=0.05",
    ),
    (
        "recommend-limit-with-a-unit",
        "recommend model.json --workload input_tokens=512,output_tokens=128 --limit mean_tpot_s=50ms",
    ),
    (
        "recommend-impossible",
        "recommend model.json --workload input_tokens=512,output_tokens=128 --limit mean_tpot_s=0.000001",
    ),
    ("recommend-unknown-model", "recommend model.json --workload input_tokens=512,output_tokens=128,model=gpt-5"),
    ("export-to-another-language", "export model.json --to fortran"),
    ("export-of-a-table", "export rows.csv --to python"),
    (
        "recommend-price-below-nothing",
        "recommend model.json --workload input_tokens=512,output_tokens=128 --price-per-kwh -1",
    ),
    (
        "recommend-part-of-a-sequence",
        "recommend model.json --workload input_tokens=512,output_tokens=128,batch_size=2.5",
    ),
    ("sql-of-my-notes", "sql notes"),
    ("sql-of-an-empty-directory", "sql empty"),
    ("sql-of-the-directory-above", "sql above"),
    ("sql-of-no-statement", "sql campaign ;"),
    ("compact-without-a-partition", "compact notes"),
    ("compact-of-my-notes", "compact notes --in-place"),
    ("compact-of-a-lake", "compact lake --in-place"),
    ("fit-to-a-dash", "fit rows.csv -o -"),
    ("report-without-output", "report rows.csv"),
    ("report-limit-without-a-workload", "report rows.csv -o r.html --limit mean_tpot_s=1"),
    ("laws-misspelt", "laws energylense"),
    ("cards-of-a-table", "cards rows.csv"),
    ("cards-of-an-empty-directory", "cards empty"),
    ("tables-option-misspelt", "tables --jsn"),
    ("completions-of-another-shell", "completions tcsh"),
    ("man-verb-misspelt", "man fti"),
    ("verb-misspelt", "recomend model.json"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mistakes")
}

/// Everything that the lines above name.
fn desk() -> Desk {
    let desk = Desk::new();
    let rows = csv(&measured_grid(&CARDS[1..2]), 0.02, 1);
    let configs = configurations(&unseen_grid(&CARDS[1..2])[..3]);
    let first_rows = |n: usize| rows.lines().take(n + 1).map(|l| format!("{l}\n")).collect::<String>();
    let energy = rows.lines().next().and_then(|h| h.split(',').position(|c| c == "energy_j")).expect("the column");
    let in_mj: String = rows
        .lines()
        .enumerate()
        .map(|(i, line)| {
            let mut fields: Vec<String> = line.split(',').map(str::to_owned).collect();
            if i > 0 {
                fields[energy] = (fields[energy].parse::<f64>().expect("a number") * 1e3).to_string();
            }
            fields.join(",") + "\n"
        })
        .collect();
    let demo = include_str!("../../scripts/sweeps/demo.lua");
    let small = demo.replace("points = 50", "points = 3");
    desk.put("rows.csv", &rows)
        .put("configs.csv", &configs)
        .put("strangers.csv", configs.replace("lab/dense-8b", "lab/nobody"))
        .put("two.csv", first_rows(2))
        .put("tp.csv", rows.replacen(",tensor_parallel,", ",tp,", 1))
        .put("mj.csv", in_mj)
        .put(
            "splitwise.csv",
            "run_id,model,gpu,n_gpus,tp,batch,input_tokens,output_tokens,energy_j,time_s,ttft_s,itl_s\n\
             1,llama2-70b,a100-80gb,8,8,4,128,64,812.5,3.1,0.11,0.047\n",
        )
        .put("notes/notes.txt", "mine")
        .put("small.lua", &small)
        .put("other.lua", small.replace("seed = 1", "seed = 2"))
        .put("adaptive.lua", include_str!("../../scripts/sweeps/adaptive.lua"))
        .put("sure.lua", include_str!("../../scripts/sweeps/adaptive.lua").replace("precision = 0.05", "precision = 0"))
        .put("typo.lua", demo.replacen("tensor_parallel", "tensor_paralel", 1))
        .put("shell.lua", demo.replacen("return el", "os.execute(\"ls\")\nreturn el", 1));
    fs::create_dir(desk.path("empty")).expect("a directory");
    desk.type_in("fit rows.csv -o model.json --no-held-out").done();
    desk.type_in("run small.lua -o campaign").done();
    desk.type_in("compact campaign --partition lake").done();
    fs::create_dir(desk.path("above")).expect("a directory");
    fs::rename(desk.path("campaign"), desk.path("above/demo")).expect("a directory of the same desk");
    desk.type_in("run small.lua -o campaign").done();
    desk
}

#[test]
fn every_mistake_is_answered_as_it_was_agreed() {
    let desk = desk();
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut faults = Vec::new();
    for (name, line) in MISTAKES {
        let ran = desk.type_in(line);
        let code = ran.code.map_or_else(|| "by a signal".to_owned(), |code| code.to_string());
        // Some verbs name places in full, and the desk stands elsewhere each time.
        let said = ran.stderr.replace(desk.path("").to_str().expect("a path of text"), "/desk/");
        let text = format!("$ energylens {line}\nends with {code}\n\n{said}");
        let file = folder().join(format!("{name}.txt"));
        if update {
            fs::create_dir_all(folder()).and_then(|()| fs::write(&file, &text)).expect("a writable folder");
        }
        let agreed = fs::read_to_string(&file).unwrap_or_default();
        if agreed != text {
            faults.push(format!("{}\n--- agreed\n{agreed}--- now\n{text}", file.display()));
        }
        // A mistake is never taken for a success, and what failed printed no result.
        if !matches!(ran.code, Some(1 | 2 | 127)) || !ran.stdout.is_empty() {
            faults.push(format!("{line}: ends with {code}, stdout: {}", ran.stdout));
        }
    }
    assert!(faults.is_empty(), "UPDATE_GOLDEN=1 writes them anew\n{}", faults.join("\n"));
}

#[test]
fn each_verb_has_its_mistakes_and_no_file_is_left_over() {
    let help = Desk::new().type_in("--help").done().stdout;
    let verbs = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let named: BTreeSet<&str> = MISTAKES.iter().filter_map(|(name, _)| name.split('-').next()).collect();
    for verb in verbs.filter_map(|l| l.split_whitespace().next()).filter(|v| *v != "help") {
        assert!(named.contains(verb), "no mistake with the verb {verb} in tests/cli/golden.rs");
    }
    let listed: BTreeSet<String> = MISTAKES.iter().map(|(name, _)| format!("{name}.txt")).collect();
    let there: BTreeSet<String> = fs::read_dir(folder())
        .expect("the folder of golden files")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(there, listed);
    assert!(listed.len() >= 30);
}
