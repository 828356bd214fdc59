//! Jobs that Slurm ends for others that are more urgent, and starts again later.

use crate::Cluster;

/// Takes node n1 for a moment, from whoever may be made to give it up.
pub(crate) fn take_node(cluster: &Cluster) -> u64 {
    let options =
        ["--parsable", "--partition=urgent", "--nodelist=n1", "--exclusive", "--time=5", "--output=/dev/null"];
    let given = cluster.slurm("sbatch", &[&options[..], &["--wrap=sleep 1"]].concat());
    given.trim().parse().expect("the number of a job")
}

/// Waits until the urgent job is over.
pub(crate) fn wait_ended(cluster: &Cluster, job: u64) {
    cluster.wait("the urgent job is over", || {
        let shown = cluster.slurm("squeue", &["--noheader", "--states=all", "--format=%T", &format!("--jobs={job}")]);
        shown.trim() == "COMPLETED"
    });
}

/// Waits until task 0 waits to be started again.
pub(crate) fn wait_requeued(cluster: &Cluster, name: &str) {
    cluster.wait("the preempted task waits", || {
        let status = cluster.status(name);
        status["tasks"].as_array().is_some_and(|t| t.iter().any(|t| t["task"] == "000-0" && t["state"] == "PENDING"))
    });
}

/// From now on Slurm tells batch jobs when they are about to be preempted, as some sites have it.
pub(crate) fn tell_of_grace(cluster: &Cluster) {
    let path = cluster.dir.path().join("slurm/etc/slurm.conf");
    let text = std::fs::read_to_string(&path).expect("a configuration");
    std::fs::write(&path, format!("{text}SlurmctldParameters=preempt_send_user_signal\n")).expect("a configuration");
    cluster.slurm("scontrol", &["reconfigure"]);
    cluster.wait("the controller knows", || {
        cluster.slurm("scontrol", &["show", "config"]).contains("preempt_send_user_signal")
    });
}

/// In `spare` SIGTERM comes at once; in `patient` Slurm waits for GraceTime, and tells the batch shell first.
pub(crate) fn gives_way_and_goes_on(cluster: &Cluster, partition: &str) {
    let options = format!(
        "partition = '{partition}', nodelist = 'n1', exclusive = true, time = 30, runs_per_task = 400, gpus = 2, stop_early_s = 60"
    );
    let job = cluster.submit(partition, 400, 2, &options);
    cluster.wait("some runs", || cluster.runs(partition, "000-0") >= 3);
    let urgent = take_node(cluster);
    wait_requeued(cluster, partition);
    let log = cluster.log(partition, "000-0");
    // The task itself says how far it came: it was not killed.
    let before = cluster.runs(partition, "000-0");
    assert!(log.contains(&format!("task 000-0: {before} runs carried out, 0 done before, 0 failed, ")), "{log}");
    assert!((3..400).contains(&before), "{before}");
    // Who was told gave way by itself; who was not was cancelled.
    assert_eq!(log.contains("DUE TO PREEMPTION"), partition == "spare", "{log}");
    wait_ended(cluster, urgent);
    cluster.start_now(job);
    cluster.wait_merged(partition);
    assert_eq!(cluster.journal(partition).len(), 400);
    let log = cluster.log(partition, "000-0");
    assert!(log.contains(&format!("task 000-0: {} runs carried out, {before} done before, ", 400 - before)), "{log}");
    let phases = energylens::dataset::load(&cluster.desk.join(partition)).expect("phases");
    let with_phases: std::collections::BTreeSet<&str> = phases.rows.iter().map(|r| r.run_id.as_str()).collect();
    assert_eq!(with_phases.len(), 400, "{} rejected", phases.rejected.len());
}
