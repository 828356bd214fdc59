//! The manual and the completions: made from the same words as `--help`, and where the shells look once installed.

use std::path::Path;
use std::process::Command;

use crate::support::desk::{Desk, program};

fn verbs() -> Vec<String> {
    let help = Desk::new().type_in("--help").done().stdout;
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let verbs = listed.filter_map(|l| l.split_whitespace().next()).filter(|v| *v != "help");
    verbs.map(str::to_owned).collect()
}

#[test]
fn every_verb_has_a_page_and_an_example() {
    let desk = Desk::new();
    desk.type_in("man -o pages").done().prints("pages written to pages");
    let program = desk.text("pages/energylens.1");
    let verbs = verbs();
    assert!(verbs.len() > 15, "{verbs:?}");
    for verb in verbs {
        let page = desk.text(&format!("pages/energylens-{verb}.1"));
        assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH OPTIONS"), "{verb}: {page}");
        assert_eq!(desk.type_in(&format!("man {verb}")).done().stdout, page);
        assert!(program.contains(&format!("energylens\\-{verb}(1)")), "energylens(1) does not name {verb}");
        let help = desk.run(&[verb.as_str(), "--help"]).done().stdout;
        let shown = format!("energylens {verb}");
        let has_example = help.split_once("Example").is_some_and(|(_, rest)| rest.contains(&shown));
        assert!(has_example, "`energylens {verb} --help` ends without an example");
        assert!(page.contains("Example"), "the page of {verb} has no example");
    }
}

#[test]
fn examples_name_options_that_there_are() {
    let desk = Desk::new();
    for verb in verbs() {
        let help = desk.run(&[verb.as_str(), "--help"]).done().stdout;
        let (_, examples) = help.split_once("Example").expect("an example");
        for line in examples.lines().filter(|l| l.contains(&format!("energylens {verb}"))) {
            // What stands behind a lone `--` is another program's.
            let own = line.split(" -- ").next().unwrap_or(line);
            for option in own.split_whitespace().filter(|w| w.starts_with("--")) {
                assert!(help.matches(option).count() > 1, "{verb}: {option} in `{line}` is no option");
            }
        }
    }
}

#[test]
fn completions_are_scripts_that_know_the_verbs() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        let text = desk.type_in(&format!("completions {shell}")).done().stdout;
        for verb in verbs() {
            assert!(text.contains(&verb), "{shell} does not know {verb}");
        }
        assert!(text.contains("max-gpus"), "{shell} knows no options");
        desk.put(shell, text);
    }
    let check = Command::new("bash").arg("-n").arg(desk.path("bash")).output().expect("bash");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    // As a user who presses the tab key.
    let script = "source ./bash; COMP_WORDS=(energylens recomm); COMP_CWORD=1; _energylens energylens recomm energylens; \
                  echo ${COMPREPLY[@]}";
    let tab = Command::new("bash").args(["-c", script]).current_dir(desk.path("")).output().expect("bash");
    assert_eq!(String::from_utf8_lossy(&tab.stdout).trim(), "recommend", "{}", String::from_utf8_lossy(&tab.stderr));
}

#[test]
fn installing_puts_the_manual_and_the_completions_where_they_are_found() {
    let desk = Desk::new();
    let install = |arguments: &[&str]| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install.sh");
        let mut command = Command::new("bash");
        command.arg(script).args(arguments).env("DESTDIR", desk.path("image")).env("BINARY", program());
        let output = command.output().expect("bash");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    install(&[]);
    let share = desk.path("image/usr/share");
    let files = [
        "man/man1/energylens.1",
        "man/man1/energylens-recommend.1",
        "bash-completion/completions/energylens",
        "zsh/site-functions/_energylens",
        "fish/vendor_completions.d/energylens.fish",
    ];
    for file in files {
        assert!(share.join(file).metadata().is_ok_and(|m| m.len() > 100), "{file}");
    }
    install(&["--uninstall"]);
    for file in files {
        assert!(!share.join(file).exists(), "{file} is left over");
    }
}
