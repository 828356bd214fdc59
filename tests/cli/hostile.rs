//! Files, names and directories of somebody who means harm: docs/security.md names these tests.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::desk::Desk;
use crate::support::known_law::{CARDS, csv, measured_grid};

const ESCAPE: char = '\u{1b}';

fn small_sweep() -> String {
    include_str!("../../scripts/sweeps/demo.lua").replace("points = 50", "points = 2")
}

/// A directory that everybody may write, as /tmp/shared might be.
fn open_directory(desk: &Desk, name: &str) {
    fs::create_dir(desk.path(name)).expect("a directory");
    fs::set_permissions(desk.path(name), fs::Permissions::from_mode(0o777)).expect("permissions");
}

#[test]
fn links_that_wait_in_a_campaign_lead_nowhere() {
    let desk = Desk::new();
    desk.put("victim", "precious\n").put("small.lua", small_sweep());
    for (i, file) in ["lock", "runs.jsonl"].into_iter().enumerate() {
        let dir = format!("c{i}");
        open_directory(&desk, &dir);
        // A campaign, or the sweep would not begin there.
        desk.put(&format!("{dir}/campaign.json"), "{}");
        symlink(desk.path("victim"), desk.path(&format!("{dir}/{file}"))).expect("a link");
        let ran = desk.type_in(&format!("run small.lua -o {dir}")).ends_with(1);
        assert!(ran.stderr.contains(file), "{}", ran.stderr);
        assert_eq!(desk.text("victim"), "precious\n", "{file} was followed");
    }
    // The lock says what is wrong.
    desk.type_in("run small.lua -o c0").ends_with(1).remarks("it is a symbolic link");
}

#[test]
fn a_spool_that_is_a_link_is_left_alone_and_no_name_is_written_through() {
    let desk = Desk::new();
    open_directory(&desk, "shared");
    desk.put("victim", "precious\n").put("small.lua", small_sweep()).put("shared/campaign.json", "{}");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
    let host = host.trim();
    // One to a file that is there, one to a file that is to be made.
    symlink(desk.path("victim"), desk.path(&format!("shared/samples-{host}-000000.arrows.spool"))).expect("a link");
    symlink(desk.path("made"), desk.path(&format!("shared/marks-{host}-000000.arrows.spool"))).expect("a link");
    for table in ["runs", "phases"] {
        symlink(desk.path("victim"), desk.path(&format!("shared/{table}.parquet"))).expect("a link");
    }
    let ran = desk.type_in("run small.lua -o shared");
    assert!(ran.stderr.contains("alone: it is a symbolic link"), "{}", ran.stderr);
    assert_eq!(desk.text("victim"), "precious\n");
    assert!(!desk.path("made").exists(), "a link was written through");
}

#[test]
fn an_output_that_is_a_link_replaces_the_link_and_not_what_it_leads_to() {
    let desk = Desk::new();
    desk.put("rows.csv", csv(&measured_grid(&CARDS[1..2]), 0.02, 1)).put("victim", "precious\n");
    for (output, line) in [
        ("model.json", "fit rows.csv --no-held-out --target energy_j -o model.json"),
        ("again.csv", "import rows.csv -o again.csv"),
        ("again.parquet", "import rows.csv -o again.parquet"),
        ("law.py", "export model.json --to python -o law.py"),
        ("next.lua", "recommend model.json --workload input_tokens=64,output_tokens=16 --next 1 -o next.lua"),
        ("summary.txt", "record --sources sim --summary summary.txt -- true"),
        ("pages/energylens.1", "man -o pages"),
    ] {
        fs::create_dir_all(desk.path(output).parent().expect("a directory")).expect("a directory");
        symlink(desk.path("victim"), desk.path(output)).expect("a link");
        desk.type_in(line).done();
        assert_eq!(desk.text("victim"), "precious\n", "{line}");
        assert!(fs::symlink_metadata(desk.path(output)).expect("a file").is_file(), "{line}");
    }
}

/// Reads a FIFO until its writers are gone, and those are gone when `carry_out` has ended, whatever it did.
fn heard(fifo: &Path, carry_out: impl FnOnce()) -> Vec<u8> {
    let made = Command::new("mkfifo").arg(fifo).status().expect("mkfifo");
    assert!(made.success());
    // Whoever opens either end finds the other one there.
    let keeper = fs::OpenOptions::new().read(true).write(true).open(fifo).expect("a FIFO");
    let mut reader = fs::File::open(fifo).expect("a FIFO");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    });
    carry_out();
    drop(keeper);
    reader.join().expect("a reader").expect("a FIFO that can be read")
}

#[test]
fn an_output_that_is_a_fifo_is_written_into_and_stays_one() {
    let desk = Desk::new();
    desk.put("rows.csv", csv(&measured_grid(&CARDS[1..2]), 0.02, 1));
    desk.type_in("fit rows.csv --no-held-out --target energy_j -o model.json").done();
    let workload = "--workload input_tokens=64,output_tokens=16";
    for (fifo, begin, line) in [
        ("fifo", "{", "fit rows.csv --no-held-out --target energy_j -o"),
        ("fifo.csv", "run_id,", "import rows.csv -o"),
        ("fifo.parquet", "PAR1", "import rows.csv -o"),
        ("fifo.py", "# ", "export model.json --to python -o"),
        ("fifo.lua", "-- ", &format!("recommend model.json {workload} --next 1 -o")),
        ("fifo.html", "<!doctype html>", "report rows.csv --model model.json -o"),
        ("fifo.txt", "", "record --sources sim -- true --summary"),
    ] {
        let line = line
            .split_once(" -- true")
            .map_or_else(|| format!("{line} {fifo}"), |(record, summary)| format!("{record}{summary} {fifo} -- true"));
        let heard = heard(&desk.path(fifo), || drop(desk.type_in(&line).done()));
        let heard_text = String::from_utf8_lossy(&heard);
        assert!(
            !heard.is_empty() && heard_text.to_lowercase().starts_with(&begin.to_lowercase()),
            "{line}: {heard_text:.200}"
        );
        assert!(fs::symlink_metadata(desk.path(fifo)).expect("a file").file_type().is_fifo(), "{line}");
    }
    // Through a link somebody could lead it anywhere.
    symlink(desk.path("fifo"), desk.path("link")).expect("a link");
    let line = "export model.json --to c -o link";
    desk.type_in(line).ends_with(1).remarks("it is a link to a FIFO; name that itself");
    assert!(fs::symlink_metadata(desk.path("link")).expect("a link").is_symlink());
    // A socket cannot be opened, and is not replaced either.
    let _socket = std::os::unix::net::UnixListener::bind(desk.path("socket")).expect("a socket");
    desk.type_in("export model.json --to c -o socket").ends_with(1).remarks("found a socket; name another");
    assert!(fs::symlink_metadata(desk.path("socket")).expect("a socket").file_type().is_socket());
}

#[test]
fn the_standard_output_has_one_name_and_then_holds_the_result_alone() {
    let desk = Desk::new();
    desk.put("rows.csv", csv(&measured_grid(&CARDS[1..2]), 0.02, 1));
    // What /dev/stdout is a link to.
    symlink("/proc/self/fd/1", desk.path("stdout")).expect("a link");
    for place in ["stdout", "/proc/self/fd/1"] {
        let fit = desk.type_in(&format!("fit rows.csv --no-held-out --target energy_j -o {place}")).done();
        assert_eq!(fit.json()["format"], "energylens-model/1");
        assert!(fit.stderr.contains("model written to"), "{}", fit.stderr);
        let import = desk.type_in(&format!("import rows.csv -o {place}")).done();
        assert_eq!(import.stdout.lines().count(), desk.text("rows.csv").lines().count());
    }
    assert!(fs::symlink_metadata(desk.path("stdout")).expect("a link").is_symlink());
    desk.put("model.json", desk.type_in("fit rows.csv --no-held-out --target energy_j -o stdout").done().stdout);
    for line in [
        "fit rows.csv -o -",
        "import rows.csv -o -",
        "report rows.csv -o -",
        "export model.json --to c -o -",
        "validate rows.csv --report -",
        "discover rows.csv -o -",
        "record --sources sim --summary - -- true",
        "recommend model.json --workload input_tokens=64,output_tokens=16 --next 1 -o -",
    ] {
        desk.type_in(line).ends_with(1).remarks("for the standard output name /dev/stdout");
        assert!(!desk.path("-").exists(), "{line}");
    }
}

#[test]
fn a_module_that_waits_in_the_working_directory_is_not_run() {
    let desk = Desk::new();
    desk.put("small.lua", small_sweep());
    desk.type_in("run small.lua -o c").done();
    for module in ["duckdb", "json", "csv", "math", "os", "sys"] {
        desk.put(&format!("{module}.py"), "open('was-run', 'w').write(__name__)\n");
    }
    // Whether there is a DuckDB somewhere else is no matter here.
    desk.run(&["sql", "c", "SELECT 1 AS one"]);
    assert!(!desk.path("was-run").exists(), "{} was run", desk.text("was-run"));
}

#[test]
fn names_cannot_command_a_terminal() {
    let desk = Desk::new();
    let evil = format!("lab/{ESCAPE}]0;owned\u{7}{ESCAPE}[2J\u{202e}b8");
    let rows = csv(&measured_grid(&CARDS[1..2]), 0.02, 1).replace("lab/dense-8b", &evil);
    // A row that is refused says its cell too.
    let broken = rows.lines().nth(1).expect("a row").replacen(&evil, &format!("{evil},x"), 1);
    desk.put("rows.csv", format!("{rows}{broken}\n"));
    desk.put("evil.lua", format!("print(\"{ESCAPE}[2J hello\")\nerror(\"{ESCAPE}]0;x\u{7}\")\n"));
    desk.put(&format!("{ESCAPE}[31m.csv"), "nothing,here\n1,2\n");
    let tree = "sys/class/powercap/intel-rapl:0";
    desk.put(&format!("{tree}/name"), format!("package-0{ESCAPE}[31m\n"))
        .put(&format!("{tree}/energy_uj"), "1000\n")
        .put(&format!("{tree}/max_energy_range_uj"), "262143328850\n");
    let mut heard = Vec::new();
    for line in [
        "fit rows.csv -o model.json --no-held-out --target energy_j",
        "validate rows.csv --predictors energylens,fewest-gpus",
        "recommend model.json --workload input_tokens=64,output_tokens=16",
        "recommend model.json --workload input_tokens=64,output_tokens=16,model=none",
        "predict model.json rows.csv",
        "plan evil.lua",
        &format!("fit {ESCAPE}[31m.csv"),
        "doctor --sources rapl --sysfs-root sys --duration 200ms",
        "record --sources rapl --sysfs-root sys -- true",
    ] {
        let ran = desk.type_in(line);
        let acts = |text: &str| text.chars().any(|c| (c.is_control() && c != '\n' && c != '\t') || c == '\u{202e}');
        assert!(!acts(&ran.stdout) && !acts(&ran.stderr), "{line}\n{:?}\n{:?}", ran.stdout, ran.stderr);
        heard.push(ran.stdout + &ran.stderr);
    }
    assert!(heard[0].contains("lab/\\u{1b}]0;owned"), "the name is shown, harmless: {}", heard[0]);
    assert!(heard[5].contains("\\u{1b}[2J hello"), "{}", heard[5]);
    // For programs nothing is changed: CSV keeps its bytes, JSON has its own escapes.
    let csv = desk.type_in("predict model.json rows.csv --csv").stdout;
    assert!(csv.contains(&evil), "a table for programs was changed");
    let json = desk.type_in("predict model.json rows.csv --json");
    assert!(!json.stdout.contains(ESCAPE) && json.json().to_string().contains("\\u001b"));
}

#[test]
fn a_name_of_two_lines_forges_no_message() {
    let desk = Desk::new();
    desk.put("small.lua", small_sweep()).put("c/campaign.json", "{}");
    desk.put("c/samples-x\nrecovered 9 rows-000000.arrows.spool", "garbage beyond any header");
    let ran = desk.type_in("run small.lua -o c").done();
    assert!(!ran.stderr.lines().any(|l| l.starts_with("recovered 9 rows")), "{}", ran.stderr);
    assert!(ran.stderr.contains("samples-x\\nrecovered"), "{}", ran.stderr);

    let evil = "lab/dense-8b\nwarning: forged";
    let rows = csv(&measured_grid(&CARDS[1..2]), 0.02, 1);
    desk.put("rows.csv", &rows);
    desk.put("evil.csv", rows.replace("lab/dense-8b", &format!("\"{evil}\"")));
    desk.put("header.csv", rows.replacen("energy_j,", "\"energy_jj\nwarning: forged\",", 1));
    desk.type_in("fit rows.csv --no-held-out --target energy_j -o model.json").done();
    let model = desk.text("model.json");
    desk.put("evil.json", model.replace("lab/dense-8b", &evil.replace('\n', "\\n")));
    let rejected = rows.lines().nth(1).expect("a row").replacen("lab/dense-8b", &format!("\"{evil}\""), 1);
    desk.put("one.csv", format!("{rows}{rejected}\n"));
    let workload = "--workload input_tokens=64,output_tokens=16";
    for (line, code) in [
        (format!("recommend evil.json {workload}"), 1),
        ("export evil.json --to python".to_owned(), 1),
        ("predict evil.json rows.csv".to_owned(), 1),
        ("fit evil.csv".to_owned(), 1),
        ("fit header.csv".to_owned(), 1),
        ("fit one.csv --no-held-out --target energy_j".to_owned(), 3),
    ] {
        let ran = desk.type_in(&line).ends_with(code);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!said.lines().any(|l| l.starts_with("warning: forged")), "{line}\n{said}");
    }
    desk.type_in(&format!("recommend evil.json {workload}")).remarks("found `lab/dense-8b\\nwarning: forged`");
    desk.type_in("fit one.csv --no-held-out --target energy_j").remarks("expected a name of one line");
}

#[test]
fn files_without_an_end_come_to_one() {
    let desk = Desk::new();
    desk.put("rows.csv", csv(&measured_grid(&CARDS[1..2]), 0.02, 1));
    desk.type_in("fit rows.csv --no-held-out --target energy_j -o model.json").done();
    for (line, expected) in [
        ("predict /dev/zero rows.csv", "it has more than 67108864 bytes"),
        ("cards /dev/zero", "is a pipe or a device; expected a regular file"),
        ("plan /dev/zero", "expected a Lua script"),
        ("fit rows.csv --skeleton /dev/zero", "cannot use the skeleton"),
        ("fit /dev/zero", "it holds binary data"),
        ("import /dev/zero -o rows-again.csv", "it holds binary data"),
        ("recommend model.json --trace /dev/zero", "it holds binary data"),
    ] {
        let ran = desk.type_in(line).ends_with(1);
        assert!(ran.stderr.contains(expected), "{line}\n{}", ran.stderr);
        assert!(ran.stderr.len() < 2_000, "{line} says {} bytes", ran.stderr.len());
    }
}

#[test]
fn json_of_any_depth_and_size_is_refused_in_a_few_words() {
    let desk = Desk::new();
    desk.put("rows.csv", csv(&measured_grid(&CARDS[1..2]), 0.02, 1)).put("small.lua", small_sweep());
    desk.type_in("run small.lua -o c").done();
    let deep = "[".repeat(2_000_000);
    let long = format!("{{\"format\": \"{}\"}}", "x".repeat(3_000_000));
    for (name, text) in [("deep.json", &deep), ("long.json", &long)] {
        desk.put(name, text);
        for line in [format!("predict {name} rows.csv"), format!("cards {name}")] {
            let ran = desk.type_in(&line).ends_with(1);
            assert!(ran.stderr.len() < 2_000, "{line} says {} bytes", ran.stderr.len());
        }
    }
    for file in ["plan.json", "runs.jsonl"] {
        let before = desk.text(&format!("c/{file}"));
        desk.put(&format!("c/{file}"), format!("{deep}\n"));
        let ran = desk.type_in("run small.lua -o c").ends_with(1);
        assert!(ran.stderr.contains(file) && ran.stderr.len() < 2_000, "{}", ran.stderr);
        desk.put(&format!("c/{file}"), before);
    }
}
