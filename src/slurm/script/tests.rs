use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::slurm::Class;

/// What names and paths may hold that a shell would obey.
const NASTY: &str = "it's \"$(touch pwned)\" `touch pwned` #1 ; & | > < * ~ \\ !x {a,b} $HOME \u{e9}\u{1F600}";

fn plan(slurm: &str) -> Plan {
    let source = format!(
        "local el = require 'energylens'\nreturn el.sweep {{ name = 'arrays', axes = {{ model = 'llama-2-7b',\n\
         gpu_model = 'h100', tensor_parallel = el.choice {{ 1, 4 }}, batch_size = el.choice {{ 1, 2, 3 }},\n\
         input_tokens = 64, output_tokens = 16 }}, design = el.factorial {{}}, workload = el.simulated {{ gpus = 8 }},\n\
         slurm = {{ {slurm} }} }}"
    );
    Plan::from_source("arrays.lua", &source, Path::new("."), &mut |_| ()).unwrap()
}

fn places<'a>(campaign: &'a str, program: &'a str) -> Places<'a> {
    Places { campaign: Path::new(campaign), program: Path::new(program), directory: Path::new("/home/u") }
}

fn record(plan: &Plan, num_gpus: u32) -> ArrayRecord {
    let class = Class { num_gpus, gpu_model: plan.points[0].gpu.gpu_model.clone() };
    ArrayRecord { array: 3, class, job_id: None, tasks: vec![vec![]; 12] }
}

fn script(slurm: &str, num_gpus: u32) -> Result<String, Error> {
    let plan = plan(slurm);
    array(&plan, plan.slurm.as_ref().unwrap(), &record(&plan, num_gpus), places("/data/c", "/usr/bin/energylens"))
}

fn golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(text == expected, "{name} differs; UPDATE_GOLDEN=1 rewrites it\n{text}");
}

#[test]
fn the_texts_are_as_kept() {
    let given = "partition = 'gpu', time = '1-12:00:00', gres = 'gpu:h100:{num_gpus}', cpus_per_task = 8,\n\
                 mem_per_gpu = '64G', exclusive = true, mail_type = 'FAIL', at_once = 4, stop_early_s = 90,\n\
                 comment = [[it's \"$(touch pwned)\" `x` #1 \\]], merge = { partition = 'cpu', time = 30 }";
    golden("array.sh", &script(given, 4).unwrap());
    golden("array-plain.sh", &script("requeue = false", 1).unwrap());
    let plan = plan(given);
    let merge = plan.slurm.as_ref().unwrap().merge.as_ref().unwrap();
    let text = super::merge(&plan, merge, 0, places("/data/it's c", "/opt/el's/energylens")).unwrap();
    golden("merge.sh", &text);
}

#[test]
fn what_cannot_stand_in_a_script_is_refused() {
    let plan = plan("partition = 'x'");
    let spec = plan.slurm.as_ref().unwrap();
    let refused = |campaign, program| array(&plan, spec, &record(&plan, 1), places(campaign, program)).unwrap_err();
    assert!(refused("/a\nrm -rf /", "/e").to_string().contains("control characters"));
    assert!(refused("/a", "/e\u{1b}[0m").to_string().contains("control characters"));
    assert!(refused("/a/%a", "/e").to_string().contains("choose another directory"));
    assert!(refused("/a\\b", "/e").to_string().contains("choose another directory"));
}

#[test]
fn too_few_gpus_are_refused_before_the_cluster_wastes_time_on_them() {
    for (given, asked) in
        [("gres = 'gpu:2'", 2), ("gpus = 3", 3), ("gres = 'gpu:h100'", 1), ("gres = 'lustre:1,gpu:a:1'", 1)]
    {
        match script(given, 4) {
            Err(Error::TooFewGpus { asked: found, needed: 4, .. }) => assert_eq!(found, asked, "{given}"),
            other => panic!("{given}: {other:?}"),
        }
    }
    for given in [
        "gres = 'gpu:8'",
        "gpus_per_node = 'h100:4'",
        "gres = 'gpu:{num_gpus},lustre:1'",
        "mem = '1G'",
        "gres = 'lustre:1'",
    ] {
        assert!(script(given, 4).is_ok(), "{given}");
    }
    assert!(script("gres = 'gpu:{num_gpus}'", 4).unwrap().contains("--gres=gpu:4\n"));
}

/// Bash's reading of a script that prints the two paths instead of starting the program.
fn printed(campaign: &str, program: &str, dir: &Path) -> Vec<String> {
    let plan = plan("partition = 'x'");
    let mut given = plan.slurm.clone().unwrap();
    given.options.insert("comment".to_owned(), OptionValue::Text(campaign.replace('{', "{{").replace('}', "}}")));
    let text = array(&plan, &given, &record(&plan, 1), places(campaign, program)).unwrap();
    let path = dir.join("script.sh");
    let (head, _) = text.split_once("\n# Slurm writes the log").unwrap();
    std::fs::write(&path, format!("{head}\nprintf '%s\\n' \"$campaign\" \"$program\"\n")).unwrap();
    std::fs::write(dir.join("whole.sh"), &text).unwrap();
    let checked = Command::new("bash").arg("-n").arg(dir.join("whole.sh")).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let output = Command::new("bash").arg(&path).current_dir(dir).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// How sbatch splits the words of a `#SBATCH` line: blanks, quotes, backslash, `#`.
fn sbatch_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.chars().peekable();
    while rest.peek().is_some() {
        while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        let (mut word, mut quote, mut any) = (String::new(), None, false);
        while let Some(&c) = rest.peek() {
            if quote.is_none() && c.is_ascii_whitespace() {
                break;
            }
            rest.next();
            any = true;
            match (c, quote) {
                ('\\', _) => word.extend(rest.next()),
                (c, Some(q)) if c == q => quote = None,
                ('"' | '\'', None) => quote = Some(c),
                ('#', None) => return words,
                (c, _) => word.push(c),
            }
        }
        assert_eq!(quote, None, "unmatched quote in {line}");
        if any {
            words.push(word);
        }
    }
    words
}

#[test]
fn nothing_in_a_name_is_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let nasty = NASTY.replace('\\', "");
    let campaign = format!("/c/{nasty}");
    assert_eq!(printed(&campaign, &format!("/p/{NASTY}"), dir.path()), [campaign, format!("/p/{NASTY}")]);
    assert!(!dir.path().join("pwned").exists());
    let word = format!("--comment={}", escaped("x", NASTY).unwrap());
    assert_eq!(sbatch_words(&word), [format!("--comment={NASTY}")]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn texts_pass_through_bash_and_sbatch_as_they_are(a in "[ -~\u{e0}-\u{ff}]{1,40}", b in "[$`'\"(){};&|<>#!*? a-c]{1,30}") {
        let dir = tempfile::tempdir().unwrap();
        let campaign = format!("/{}", a.replace(['%', '\\'], ""));
        let program = format!("/{b}");
        prop_assert_eq!(printed(&campaign, &program, dir.path()), [campaign.clone(), program.clone()]);
        for text in [&a, &b] {
            let word = format!("--comment={}", escaped("x", text).unwrap());
            prop_assert_eq!(sbatch_words(&word), [format!("--comment={text}")]);
        }
    }
}
