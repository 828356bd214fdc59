use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn ids(job_id: &str, step_id: Option<&str>) -> Option<JobIds> {
    Some(JobIds { job_id: job_id.to_owned(), step_id: step_id.map(str::to_owned) })
}

fn nothing(_: &str) -> Option<String> {
    None
}

#[test]
fn both_layouts_of_cgroups_name_job_and_step() {
    for (text, expected) in [
        ("0::/system.slice/slurmstepd.scope/job_123/step_0/user/task_0\n", ids("123", Some("0"))),
        ("0::/system.slice/n1_slurmstepd.scope/job_7/step_batch/user/task_special", ids("7", Some("batch"))),
        ("0::/system.slice/slurmstepd.scope/job_9/step_0+1/user/task_3", ids("9", Some("0+1"))),
        ("0::/system.slice/slurmstepd.scope/job_123", ids("123", None)),
        (
            "12:pids:/user.slice\n5:memory:/slurm/uid_1000/job_44\n4:freezer:/slurm/uid_1000/job_44/step_extern\n",
            ids("44", Some("extern")),
        ),
        ("3:devices:/slurm_n2/uid_0/job_5/step_interactive/task_0", ids("5", Some("interactive"))),
        // Not Slurm's, not a number, no job, the daemon's own, a step without a job.
        ("0::/user.slice/job_123/step_0", None),
        ("0::/system.slice/slurmstepd.scope/job_x/step_0", None),
        ("0::/system.slice/slurmstepd.scope/system", None),
        ("0::/system.slice/slurmd.service", None),
        ("0::/", None),
        ("", None),
        // A step that is none is left out, the job stays.
        ("0::/system.slice/slurmstepd.scope/job_1/step_$(x)", ids("1", None)),
    ] {
        assert_eq!(JobIds::of_cgroups(text), expected, "{text}");
    }
}

#[test]
fn the_environment_serves_where_there_is_no_cgroup() {
    let of = |pairs: &'static [(&str, &str)]| {
        JobIds::of_environment(move |name| {
            pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    };
    assert_eq!(of(&[("SLURM_JOB_ID", "88"), ("SLURM_STEP_ID", "2")]), ids("88", Some("2")));
    assert_eq!(of(&[("SLURM_JOBID", "88"), ("SLURM_STEPID", "4294967291")]), ids("88", Some("batch")));
    assert_eq!(of(&[("SLURM_JOB_ID", "88")]), ids("88", None));
    assert_eq!(of(&[("SLURM_JOB_ID", "; rm"), ("SLURM_STEP_ID", "2")]), None);
    assert_eq!(of(&[("SLURM_STEP_ID", "2")]), None);

    let proc = TempDir::new().unwrap();
    let places = JobPlaces { proc_root: proc.path().to_owned(), cgroup_root: proc.path().to_owned() };
    let variable = |name: &str| (name == "SLURM_JOB_ID").then(|| "5".to_owned());
    assert_eq!(JobIds::own(&places, variable), ids("5", None));
    put(proc.path(), "self/cgroup", "0::/system.slice/slurmstepd.scope/job_6/step_1/user/task_0");
    assert_eq!(JobIds::own(&places, variable), ids("6", Some("1")), "the kernel is believed first");
    put(proc.path(), "4711/cgroup", "0::/system.slice/slurmstepd.scope/job_8/step_1/user/task_0");
    assert_eq!(JobIds::of_process(&places, 4711), ids("8", Some("1")));
    assert_eq!(JobIds::of_process(&places, 4712), None);
}

fn put(root: &Path, name: &str, content: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn the_label_names_the_jobs_that_have_a_cgroup() {
    for scope in ["system.slice/slurmstepd.scope", "system.slice/n1_slurmstepd.scope", "freezer/slurm/uid_1000"] {
        let root = TempDir::new().unwrap();
        let places = JobPlaces { proc_root: root.path().join("proc"), cgroup_root: root.path().to_owned() };
        fs::create_dir_all(root.path().join("system.slice/sshd.service")).unwrap();
        let watch = JobWatch::start(places, nothing);
        let seen = || {
            watch.look();
            watch.label().map(|label| label.to_string())
        };
        let job = |id: &str| root.path().join(scope).join(id);
        assert_eq!(seen(), None);
        fs::create_dir_all(job("job_124")).unwrap();
        fs::create_dir_all(job("system")).unwrap();
        assert_eq!(watch.label(), None, "nobody has looked yet");
        assert_eq!(seen().as_deref(), Some("124"), "{scope}");
        fs::create_dir_all(job("job_99")).unwrap();
        assert_eq!(seen().as_deref(), Some("99+124"), "in the order of their numbers");
        fs::remove_dir(job("job_124")).unwrap();
        fs::remove_dir(job("job_99")).unwrap();
        assert_eq!(seen(), None);
    }
    assert_eq!(JobWatch::default().label(), None);
}

#[test]
fn an_agent_inside_a_job_labels_with_its_own() {
    let root = TempDir::new().unwrap();
    let places = JobPlaces { proc_root: root.path().join("proc"), cgroup_root: root.path().to_owned() };
    put(root.path(), "proc/self/cgroup", "0::/system.slice/slurmstepd.scope/job_6/step_1/user/task_0");
    fs::create_dir_all(root.path().join("system.slice/slurmstepd.scope/job_7")).unwrap();
    assert_eq!(JobWatch::start(places, nothing).label().as_deref(), Some("6"));
}

proptest! {
    #[test]
    fn no_text_of_a_cgroup_file_panics_and_ids_keep_their_form(text in "\\PC{0,300}", tail in "[a-z0-9_/+:.]{0,60}") {
        for text in [text, format!("0::/slurm/uid_0/job_{tail}")] {
            if let Some(ids) = JobIds::of_cgroups(&text) {
                prop_assert!(is_job_id(&ids.job_id));
                prop_assert!(ids.step_id.as_deref().is_none_or(is_step_id));
            }
        }
    }
}
