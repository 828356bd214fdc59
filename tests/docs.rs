//! The documents against the program: commands that they show run, files that they name exist, `docs/tables.md` is what
//! `schema/tables.rs` says, and no line is too long to be read in a terminal.
//!
//! A block that is fenced as `console` (or `sh`) is a session: its lines that start with `$ energylens` are carried out
//! one after the other, all of one document in one temporary directory that holds copies of `scripts/sweeps` and
//! `docs`. Other lines are output; those of README.md are compared with what the command prints now, and so is a block
//! fenced as `text VERB`, an excerpt of what the last command of that verb above it printed: each line must be there word
//! for word, wherever lines are broken, and figures must agree to one per cent or the last digit shown. `# exits 3` behind
//! a command states its exit code (0 where nothing is stated). A fence `console counters` marks commands that need energy counters: they get a powercap tree of
//! the test's own. A fence `csv NAME` is a file of that name.

// The program's own way of breaking lines.
#[path = "../src/recommend/wrap.rs"]
mod wrap;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use energylens::schema::{Column, FORMAT_VERSION, TABLES};
use tempfile::TempDir;
use wrap::wrapped;

/// Characters of the longest line.
const WIDTH: usize = 120;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// README, CONTRIBUTING, CHANGELOG and everything in docs/, in a fixed order.
fn documents() -> Vec<PathBuf> {
    let markdown = |dir: &Path| {
        let entries = fs::read_dir(dir).expect("a directory of documents").flatten().map(|e| e.path());
        entries.filter(|p| p.extension().is_some_and(|e| e == "md")).collect::<Vec<_>>()
    };
    let mut found = markdown(root());
    found.extend(markdown(&root().join("docs")));
    found.sort();
    found
}

/// A fenced block: what stands behind the fence, the line of the fence, the lines inside.
struct Block<'a> {
    fence: &'a str,
    line: usize,
    lines: Vec<&'a str>,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut found: Vec<Block<'_>> = Vec::new();
    let mut inside = false;
    for (i, line) in text.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(_) if inside => inside = false,
            Some(fence) => {
                inside = true;
                found.push(Block { fence: fence.trim(), line: i + 1, lines: Vec::new() });
            }
            None if inside => found.last_mut().expect("an open block").lines.push(line),
            None => {}
        }
    }
    assert!(!inside, "a fence is not closed");
    found
}

/// A document's commands: arguments, expected exit code, whether they need counters, and where they stand.
struct Shown {
    arguments: Vec<String>,
    code: i32,
    needs_counters: bool,
    line: usize,
    /// Lines of output under it.
    output: Vec<String>,
}

fn commands(block: &Block<'_>) -> Vec<Shown> {
    let mut words = block.fence.split_whitespace();
    if !matches!(words.next(), Some("console" | "sh")) {
        return Vec::new();
    }
    let needs_counters = words.any(|w| w == "counters");
    let mut found = Vec::new();
    for (i, line) in block.lines.iter().enumerate() {
        let Some(rest) = line.strip_prefix("$ energylens ") else {
            if let Some(Shown { output, .. }) = found.last_mut() {
                output.push((*line).to_owned());
            }
            continue;
        };
        let (command, comment) = rest.split_once(" # ").unwrap_or((rest, ""));
        let code = comment.trim().strip_prefix("exits ").map_or(0, |c| {
            c.split(|d: char| !d.is_ascii_digit()).next().and_then(|d| d.parse().ok()).expect("an exit code")
        });
        assert!(!command.contains(['\'', '"', '|', '>', '&', ';', '*']), "line {}: no shell here", block.line + i + 1);
        let arguments = command.split_whitespace().map(str::to_owned).collect();
        found.push(Shown { arguments, code, needs_counters, line: block.line + i + 1, output: Vec::new() });
    }
    found
}

/// A node whose only counter is one that stands still.
fn sysfs_tree(dir: &Path) -> PathBuf {
    let zone = dir.join("sys/class/powercap/intel-rapl:0");
    fs::create_dir_all(&zone).expect("a zone");
    for (file, content) in [("name", "package-0"), ("energy_uj", "1000"), ("max_energy_range_uj", "262143328850")] {
        fs::write(zone.join(file), format!("{content}\n")).expect("a file of the zone");
    }
    dir.join("sys")
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    // Pictures lie in a directory of their own, which no command needs.
    for entry in fs::read_dir(from).expect("a directory").flatten().filter(|e| e.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

/// Carries out what `document` shows.
fn carry_out(document: &str) {
    let text = read(&root().join(document));
    let scratch = TempDir::new().expect("a temporary directory");
    let dir = scratch.path();
    copy_files(&root().join("scripts/sweeps"), &dir.join("scripts/sweeps"));
    copy_files(&root().join("docs"), &dir.join("docs"));
    let sysfs = sysfs_tree(dir);
    let blocks = blocks(&text);
    for block in &blocks {
        if let Some(name) = block.fence.strip_prefix("csv ") {
            fs::write(dir.join(name), block.lines.join("\n") + "\n").expect("a file of the document");
        }
    }
    let shown: Vec<Shown> = blocks.iter().flat_map(commands).collect();
    assert!(!shown.is_empty(), "{document} shows no command");
    let mut printed: Vec<(usize, &str, String)> = Vec::new();
    for command in &shown {
        let (verb, rest) = command.arguments.split_first().expect("a verb");
        let mut process = Command::new(env!("CARGO_BIN_EXE_energylens"));
        process.current_dir(dir).arg(verb);
        if command.needs_counters {
            process.args(["--sources", "rapl", "--sysfs-root"]).arg(&sysfs);
        }
        let output = process.args(rest).output().expect("the built binary runs");
        assert_eq!(
            output.status.code(),
            Some(command.code),
            "{document}:{}: energylens {}\n{}{}",
            command.line,
            command.arguments.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if document == "README.md" {
            compare(document, command.line, command.output.iter().map(String::as_str), &text);
        }
        printed.push((command.line, verb, text));
    }
    for block in &blocks {
        let Some(verb) = block.fence.strip_prefix("text ") else { continue };
        let above = printed.iter().rfind(|(line, of, _)| *line < block.line && *of == verb);
        // The demo is not shown as a command: it is what builds the program.
        let text = above.map(|(.., text)| text.clone()).unwrap_or_else(|| {
            assert_eq!(verb, "demo", "{document}:{}: no such command stands above", block.line);
            let demo = Command::new(env!("CARGO_BIN_EXE_energylens")).current_dir(dir).arg(verb).output();
            String::from_utf8_lossy(&demo.expect("the built binary runs").stdout).into_owned()
        });
        compare(document, block.line, block.lines.iter().copied(), &text);
    }
}

/// Holds lines of a document against what a program printed.
fn compare<'a>(document: &str, line: usize, shown: impl Iterator<Item = &'a str>, printed: &str) {
    let printed_words: Vec<&str> = printed.split_whitespace().collect();
    for text in shown {
        let words: Vec<&str> = text.split_whitespace().collect();
        let is_there = words.is_empty()
            || words == ["..."]
            || printed_words.windows(words.len()).any(|window| window.iter().zip(&words).all(|(a, b)| agree(b, a)));
        assert!(is_there, "{document}:{line}: this is not what the program prints now:\n{text}\nin\n{printed}");
    }
}

/// Whether a word is the same, or a figure the same to one per cent or to one in the last digit that is shown.
fn agree(shown: &str, printed: &str) -> bool {
    let figure = |word: &str| word.trim_matches(['(', ')', ',', ';', ':']).parse::<f64>().ok();
    match (figure(shown), figure(printed)) {
        (Some(a), Some(b)) => {
            let digits = shown.trim_matches(['(', ')', ',', ';', ':']).split('e').next().unwrap_or_default();
            let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
            let last_digit = if shown.contains('e') { 0.0 } else { 10_f64.powi(-(decimals as i32)) };
            (a - b).abs() <= f64::max(0.01 * b.abs(), 1.001 * last_digit)
        }
        _ => shown == printed,
    }
}

#[test]
fn figures_that_have_moved_are_told_from_those_that_have_not() {
    let printed = "TP 4, batch 32\n  needs 2.396 J (90 %: 2.227 to\n  2.579); 98 % of 12 runs, 1.23e7 J";
    let holds = |shown: &str| std::panic::catch_unwind(|| compare("a page", 1, [shown].into_iter(), printed)).is_ok();
    for same in ["batch 32 needs 2.396 J (90 %: 2.227 to 2.579);", "needs 2.41 J", "97 % of", "1.24e7", "", "..."] {
        assert!(holds(same), "{same}");
    }
    for moved in ["needs 2.45 J", "2.227 to 2.679);", "95 % of", "1.3e7", "needs 2.396 W", "batch 36", "batch needs"] {
        assert!(!holds(moved), "{moved}");
    }
}

#[test]
fn commands_of_the_readme_run() {
    carry_out("README.md");
}

#[test]
fn commands_of_the_law_page_run() {
    carry_out("docs/law.md");
}

#[test]
fn commands_of_the_measuring_page_run() {
    carry_out("docs/measuring.md");
}

#[test]
fn commands_of_the_sources_page_run() {
    carry_out("docs/sources.md");
}

#[test]
fn commands_of_the_agent_page_run() {
    carry_out("docs/agent.md");
}

#[test]
fn commands_of_the_analysis_page_run() {
    carry_out("docs/analysis.md");
}

#[test]
fn commands_of_the_discovery_page_run() {
    carry_out("docs/discovery.md");
}

#[test]
fn commands_of_the_tutorial_run() {
    carry_out("docs/tutorial.md");
}

#[test]
fn commands_of_the_questions_run() {
    carry_out("docs/faq.md");
}

#[test]
fn commands_of_the_recommendation_page_run() {
    carry_out("docs/recommend.md");
}

#[test]
fn commands_of_the_export_page_run() {
    carry_out("docs/export.md");
}

#[test]
fn commands_of_the_slurm_page_run() {
    carry_out("docs/slurm.md");
}

#[test]
fn commands_of_the_servers_page_run() {
    carry_out("docs/servers.md");
}

#[test]
fn commands_of_the_scale_page_run() {
    carry_out("docs/scale.md");
}

#[test]
fn every_document_with_commands_is_carried_out() {
    let carried = [
        "README.md",
        "agent.md",
        "analysis.md",
        "discovery.md",
        "export.md",
        "faq.md",
        "law.md",
        "measuring.md",
        "recommend.md",
        "scale.md",
        "servers.md",
        "slurm.md",
        "sources.md",
        "tutorial.md",
    ];
    for path in documents() {
        let text = read(&path);
        let shows = blocks(&text).iter().any(|b| !commands(b).is_empty());
        let name = path.file_name().and_then(|n| n.to_str()).expect("a file name");
        assert_eq!(shows, carried.contains(&name), "{}: add a test that carries it out", path.display());
    }
}

#[test]
fn lines_are_short_and_links_lead_somewhere() {
    let mut faults = Vec::new();
    for path in documents() {
        let text = read(&path);
        for (i, line) in text.lines().enumerate() {
            if line.chars().count() > WIDTH {
                faults.push(format!("{}:{}: longer than {WIDTH} characters", path.display(), i + 1));
            }
            // `[text](target)`; targets outside the repository and anchors are left alone.
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let file = target.split('#').next().unwrap_or_default();
                let is_local = !file.is_empty() && !target.contains("://");
                if is_local && !path.parent().expect("a directory").join(file).exists() {
                    faults.push(format!("{}:{}: {target} does not exist", path.display(), i + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_readme_knows_every_room_and_every_verb() {
    let readme = read(&root().join("README.md"));
    for module in include_str!("../src/lib.rs").lines().filter_map(|l| l.strip_prefix("pub mod ")) {
        let module = module.trim_end_matches(';');
        assert!(readme.contains(&format!("`{module}`")), "the map in README.md lacks the room {module}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_energylens")).arg("--help").output().expect("the built binary runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let verbs: Vec<&str> = listed.filter_map(|l| l.split_whitespace().next()).filter(|v| *v != "help").collect();
    assert!(verbs.contains(&"demo"), "no verbs found in the help text:\n{help}");
    for verb in verbs {
        assert!(readme.contains(&format!("`{verb}`")), "README.md lacks the verb {verb}");
    }
}

fn sources(dir: &Path, found: &mut String) {
    for path in fs::read_dir(dir).expect("a directory of sources").flatten().map(|e| e.path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push_str(&read(&path));
        }
    }
}

/// `docs/security.md` names tests in backquotes behind the words `test` and `tests`: names in one style that no other
/// word has, several words joined by underscores.
#[test]
fn each_claim_about_security_names_a_test_that_there_is() {
    let page = read(&root().join("docs/security.md"));
    let mut code = String::new();
    for dir in ["src", "tests"] {
        sources(&root().join(dir), &mut code);
    }
    let quoted = page.split('`').skip(1).step_by(2);
    let named: Vec<&str> = quoted.filter(|word| word.matches('_').count() > 1 && !word.contains(['/', '.'])).collect();
    assert!(named.len() > 30, "only {} tests are named", named.len());
    for name in named {
        assert!(code.contains(&format!("fn {name}(")), "docs/security.md names the test {name}, which there is not");
    }
}

#[test]
fn the_changelog_speaks_of_this_version() {
    let changelog = read(&root().join("CHANGELOG.md"));
    let heading = concat!("## ", env!("CARGO_PKG_VERSION"));
    assert!(changelog.lines().any(|l| l.starts_with(heading)), "CHANGELOG.md lacks `{heading}`");
}

fn column_entry(column: &Column) -> String {
    let mut facts = vec![column.column_type.to_string()];
    facts.extend((!column.unit.is_empty()).then(|| column.unit.to_owned()));
    facts.extend(column.nullable.then(|| "may be missing".to_owned()));
    wrapped(&format!("- `{}` ({}): ", column.name, facts.join(", ")), column.doc, WIDTH)
}

fn tables_page() -> String {
    let mut page = String::from("# Tables\n\n");
    page.push_str(&wrapped(
        "",
        &format!(
            "Every table and column that energylens writes, format version {FORMAT_VERSION}. This page is generated from \
             `src/schema/tables.rs`; `energylens tables` prints the same, `energylens tables --json` for programs. Files are \
             Parquet, named after their table, and carry unit and description of each column in the field's metadata."
        ),
        WIDTH,
    ).replace("\n  ", "\n"));
    page.push_str(
        "\nTypes: `f64`, `i64`, `u64`, `u32` are numbers; `label` is text with few distinct values, dictionary-encoded;\n\
         `text` is any text; `labels` is a list of labels; `timestamp` is an instant in UTC.\n\
         A number without a unit is a count, or a ratio from 0 to 1.\n",
    );
    for table in TABLES {
        page.push_str(&format!("\n## {}\n\n{}\n\n", table.name, table.doc));
        page.extend(table.columns.iter().map(column_entry));
    }
    page
}

#[test]
fn the_page_of_tables_is_what_the_schema_says() {
    let path = root().join("docs/tables.md");
    let page = tables_page();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &page).expect("a writable page");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differs = page.lines().zip(found.lines()).position(|(a, b)| a != b);
    assert!(
        found == page,
        "docs/tables.md is not what src/schema/tables.rs says (first at line {}); run UPDATE_GOLDEN=1 cargo test --test docs",
        differs.map_or(found.lines().count().min(page.lines().count()), |i| i) + 1
    );
}
