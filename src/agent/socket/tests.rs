use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::keeper::Kept;
use super::message::{Sender, row_of};
use super::*;
use crate::agent::job::JobIds;
use crate::clock::{SimClock, SystemClock};
use crate::schema::{MARKS, MarkEvent, Origin};
use crate::store::{self, MarkRow};

const S: i64 = 1_000_000_000;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));

fn sender(job: Option<(&str, Option<&str>)>) -> Sender {
    let ids = |(job, step): (&str, Option<&str>)| JobIds { job_id: job.to_owned(), step_id: step.map(str::to_owned) };
    Sender { uid: 1000, job: job.map(ids) }
}

fn options(dir: &TempDir, name: &str) -> MarkSocketOptions {
    MarkSocketOptions {
        path: dir.path().join(name),
        mode: 0o666,
        dir: dir.path().to_owned(),
        host: "n".to_owned(),
        anchor: None,
        places: JobPlaces { proc_root: dir.path().join("proc"), cgroup_root: dir.path().join("cgroup") },
        tap: None,
    }
}

fn message(event: &str, phase: &str, run_id: &str) -> MarkMessage {
    MarkMessage {
        event: event.to_owned(),
        phase: phase.to_owned(),
        run_id: Some(run_id.to_owned()),
        t_mono_ns: None,
        job_id: None,
        step_id: None,
    }
}

fn marks(dir: &Path) -> Vec<MarkRow> {
    let batches = store::read_table(dir, &MARKS).unwrap();
    batches.flat_map(|b| MarkRow::from_batch(&b.unwrap()).unwrap()).collect()
}

fn refused(counts: &MarkCounts, reason: Refusal) -> u64 {
    counts.refused().find(|(r, _)| *r == reason).unwrap().1
}

/// Waits for what another thread will surely do.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("in 30 s it did not happen that {what}");
}

#[test]
fn a_confirmed_mark_is_on_disk_with_its_senders_uid_and_time() {
    let dir = TempDir::new().unwrap();
    let socket = MarkSocket::bind(options(&dir, "marks.sock"), Arc::new(SystemClock)).unwrap();
    let mode = fs::metadata(socket.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    let before_ns = SystemClock.now();
    assert_eq!(send_mark(socket.path(), &message("begin", "prefill", "r1"), PATIENCE).unwrap(), Answer::Recorded);
    let after_ns = SystemClock.now();
    // Read while the socket lives: what a kill -9 now would leave.
    let rows = marks(dir.path());
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(rows.len(), 1);
    assert!((before_ns..=after_ns).contains(&rows[0].t_mono_ns));
    assert_eq!((rows[0].uid, rows[0].event, rows[0].source), (Some(uid), MarkEvent::Begin, Origin::Measured));
    assert_eq!((rows[0].phase.as_str(), rows[0].run_id.as_str()), ("prefill", "r1"));

    let at = MarkMessage { t_mono_ns: Some(after_ns), ..message("end", "prefill", "r1") };
    assert_eq!(send_mark(socket.path(), &at, None).unwrap(), Answer::Sent);
    assert_eq!(send_mark(socket.path(), &message("end", "total", "r1"), PATIENCE).unwrap(), Answer::Recorded);
    let (path, counts) = (socket.path().to_owned(), socket.counts().clone());
    assert_eq!(counts.accepted(), 3);
    let received = socket.finish().unwrap();
    assert_eq!((received.rows, received.files.len()), (3, 1));
    assert_eq!(marks(dir.path())[1].t_mono_ns, after_ns);
    assert!(!path.exists(), "a socket that nobody reads is removed");
    let error = send_mark(&path, &message("end", "total", "r1"), PATIENCE).unwrap_err();
    assert!(error.to_string().contains("no agent takes marks at"), "{error}");
}

#[test]
fn a_refused_mark_says_why_and_is_counted() {
    let dir = TempDir::new().unwrap();
    let socket = MarkSocket::bind(options(&dir, "marks.sock"), Arc::new(SystemClock)).unwrap();
    let why = |m: MarkMessage| match send_mark(socket.path(), &m, PATIENCE) {
        Err(Error::MarkRefused { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(message("start", "prefill", "r")), "event");
    assert_eq!(why(message("begin", "", "r")), "phase");
    assert_eq!(why(message("begin", "prefill", "$(reboot)")), "run_id");
    assert_eq!(why(MarkMessage { run_id: None, ..message("begin", "prefill", "") }), "run_id");
    assert_eq!(why(MarkMessage { t_mono_ns: Some(5), ..message("begin", "prefill", "r") }), "time");
    assert_eq!(why(MarkMessage { job_id: Some("x".to_owned()), ..message("begin", "prefill", "r") }), "job_id");
    assert_eq!(why(message("begin", &"x".repeat(4_000), "r")), "phase");
    let raw = UnixDatagram::unbound().unwrap();
    raw.connect(socket.path()).unwrap();
    for hostile in [&b"\xff\xfe"[..], b"", b"[[[[", &[b'['; 4_096], &[b'x'; 4_097], &[0; 60_000]] {
        raw.send(hostile).unwrap();
    }
    let counts = socket.counts().clone();
    until("all were looked at", || counts.refused().map(|(_, n)| n).sum::<u64>() == 13);
    assert_eq!((refused(&counts, Refusal::Malformed), refused(&counts, Refusal::TooLong)), (4, 2));
    assert_eq!((refused(&counts, Refusal::RunId), refused(&counts, Refusal::Phase)), (2, 2));
    assert_eq!((counts.accepted(), socket.finish().unwrap().files.len()), (0, 0));
}

#[test]
fn descriptors_that_come_with_a_mark_are_refused_and_not_kept_open() {
    use std::io::IoSlice;
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    let dir = TempDir::new().unwrap();
    let socket = MarkSocket::bind(options(&dir, "marks.sock"), Arc::new(SystemClock)).unwrap();
    let raw = UnixDatagram::unbound().unwrap();
    raw.connect(socket.path()).unwrap();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let (reader, writer) = std::io::pipe().unwrap();
    for _ in 0..50 {
        let bytes = serde_json::to_vec(&message("begin", "x", "r")).unwrap();
        let fds = [writer.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(raw.as_raw_fd(), &[IoSlice::new(&bytes)], &rights, MsgFlags::empty(), None).unwrap();
    }
    let counts = socket.counts().clone();
    until("all were refused", || refused(&counts, Refusal::Sender) == 50);
    // Other tests open files meanwhile; fifty would show.
    assert!(open() < before + 40, "{} descriptors, {before} before", open());
    drop((reader, writer));
    assert_eq!(socket.finish().unwrap().rows, 0);
}

#[test]
fn a_stale_socket_is_replaced_a_living_one_and_other_files_are_not() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("marks.sock");
    drop(UnixDatagram::bind(&path).unwrap());
    let first = MarkSocket::bind(options(&dir, "marks.sock"), Arc::new(SystemClock)).unwrap();
    let second = MarkSocket::bind(options(&dir, "marks.sock"), Arc::new(SystemClock)).err().unwrap();
    assert!(second.to_string().contains("in use by another agent"), "{second}");
    send_mark(first.path(), &message("begin", "x", "r"), PATIENCE).unwrap();
    drop(first);
    assert!(!path.exists());
    fs::write(&path, "precious").unwrap();
    let error = MarkSocket::bind(options(&dir, "marks.sock"), Arc::new(SystemClock)).err().unwrap();
    assert!(error.to_string().contains("another kind of file"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let long = "x".repeat(120);
    let error = MarkSocket::bind(options(&dir, &long), Arc::new(SystemClock)).err().unwrap();
    assert!(error.to_string().contains("may have 107"), "{error}");
    let error = MarkSocket::bind(options(&dir, "none/marks.sock"), Arc::new(SystemClock)).err().unwrap();
    assert!(error.to_string().contains("its directory does not exist"), "{error}");
}

#[test]
fn a_mark_knows_the_job_of_its_sender_and_the_kernel_is_believed_before_the_sender() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("proc").join(std::process::id().to_string());
    fs::create_dir_all(&file).unwrap();
    fs::write(file.join("cgroup"), "0::/system.slice/slurmstepd.scope/job_6/step_1/user/task_0\n").unwrap();
    let socket = MarkSocket::bind(options(&dir, "marks.sock"), Arc::new(SystemClock)).unwrap();
    let claims = MarkMessage { job_id: Some("7".to_owned()), run_id: None, ..message("begin", "x", "") };
    send_mark(socket.path(), &claims, PATIENCE).unwrap();
    socket.finish().unwrap();
    let row = marks(dir.path()).remove(0);
    assert_eq!((row.job_id.as_deref(), row.step_id.as_deref(), row.run_id.as_str()), (Some("6"), Some("1"), "6.1"));
    let text = br#"{"event":"end","phase":"x","job_id":"7","step_id":"batch"}"#;
    let row = row_of(text, &sender(None), 0).unwrap();
    assert_eq!(
        (row.job_id.as_deref(), row.step_id.as_deref(), row.run_id.as_str()),
        (Some("7"), Some("batch"), "7.batch")
    );
}

#[test]
fn a_flood_is_taken_up_to_the_allowance_and_the_rest_is_counted() {
    let dir = TempDir::new().unwrap();
    // A clock that stands still: no allowance grows back.
    let clock = SimClock::starting_at(100 * S);
    let socket = MarkSocket::bind(options(&dir, "marks.sock"), Arc::new(clock.clone())).unwrap();
    let raw = UnixDatagram::unbound().unwrap();
    raw.connect(socket.path()).unwrap();
    let bytes = serde_json::to_vec(&message("begin", "x", "r")).unwrap();
    (0..12_000).for_each(|_| assert_eq!(raw.send(&bytes).unwrap(), bytes.len()));
    let counts = socket.counts().clone();
    until("all were looked at", || counts.accepted() + refused(&counts, Refusal::Rate) == 12_000);
    assert_eq!(counts.accepted(), 10_000);
    let received = socket.finish().unwrap();
    assert_eq!(received.rows, 10_000);
    assert_eq!(marks(dir.path()).len(), 10_000);
}

#[test]
fn marks_wait_for_a_disk_that_is_full_and_are_written_once_it_is_not() {
    let dir = TempDir::new().unwrap();
    let meta = FileMetadata::of_host("n", ClockAnchor { t_mono_ns: 0, t_unix_ns: 0 });
    let mut keeper = Keeper::create(dir.path().to_owned(), meta, 0).unwrap();
    let row =
        |t_ms: i64| row_of(&serde_json::to_vec(&message("begin", "x", "r")).unwrap(), &sender(None), t_ms).unwrap();
    keeper.push(row(0));
    assert_eq!(keeper.flush(0), Kept::Written);
    keeper.limit_room(100);
    (1..200).for_each(|t| keeper.push(row(t)));
    assert_eq!(keeper.flush(S), Kept::Waiting);
    keeper.push(row(200));
    assert_eq!(keeper.flush(S + 1), Kept::Waiting, "the disk is not asked again at once");
    assert_eq!((keeper.flush(3 * S), keeper.written()), (Kept::Written, 201));
    keeper.push(row(201));
    let (written, files) = keeper.finish().unwrap();
    assert_eq!((written, files.len()), (202, 2));
    let times: Vec<i64> = marks(dir.path()).iter().map(|m| m.t_mono_ns).collect();
    assert_eq!(times, (0..=201).collect::<Vec<_>>());
}

#[test]
fn marks_are_sealed_each_hour_and_when_asked() {
    let dir = TempDir::new().unwrap();
    let meta = FileMetadata::of_host("n", ClockAnchor { t_mono_ns: 0, t_unix_ns: 0 });
    let mut keeper = Keeper::create(dir.path().to_owned(), meta, 0).unwrap();
    let sealed = || {
        fs::read_dir(dir.path())
            .unwrap()
            .flatten()
            .filter(|f| f.path().extension().is_some_and(|e| e == "parquet"))
            .count()
    };
    let text = serde_json::to_vec(&message("begin", "x", "r")).unwrap();
    let push = |keeper: &mut Keeper, t_ns: i64| {
        keeper.push(row_of(&text, &sender(None), t_ns).unwrap());
        keeper.flush(t_ns)
    };
    push(&mut keeper, S);
    assert_eq!(sealed(), 0);
    push(&mut keeper, 3_601 * S);
    assert_eq!(sealed(), 1);
    push(&mut keeper, 3_602 * S);
    keeper.reopen(3_603 * S);
    keeper.reopen(3_603 * S);
    assert_eq!(sealed(), 2);
    assert_eq!(keeper.finish().unwrap().1.len(), 2, "an empty segment leaves no file");
}

proptest! {
    #[test]
    fn any_bytes_are_a_row_of_plain_words_or_a_reason(bytes in proptest::collection::vec(any::<u8>(), 0..5_000)) {
        judge(&bytes);
    }

    #[test]
    fn anything_shaped_like_a_mark_is_too(
        event in "(begin|end|\\PC{0,8})", phase in "(prefill|\\PC{0,70})", run in "([a-z]{1,140}|\\PC{0,9})",
        t in any::<i64>(), job in "([0-9]{1,12}|\\PC{0,9})",
    ) {
        let text = serde_json::json!({ "event": event, "phase": phase, "run_id": run, "t_mono_ns": t, "job_id": job });
        judge(text.to_string().as_bytes());
        let text = serde_json::json!({ "event": event, "phase": phase, "run_id": run });
        judge(text.to_string().as_bytes());
    }
}

fn judge(bytes: &[u8]) {
    let now_ns = 77 * S;
    if let Ok(row) = row_of(bytes, &sender(None), now_ns) {
        assert!((now_ns - 10 * S..=now_ns + S / 100).contains(&row.t_mono_ns));
        let is_plain =
            |text: &str| text.chars().all(|c| c.is_ascii_graphic() && !"\"'`$&;|<>\\*?!(){}[]#,%^~".contains(c));
        assert!(is_plain(&row.phase) && is_plain(&row.run_id), "{} {}", row.phase, row.run_id);
        assert!((1..=64).contains(&row.phase.len()) && (1..=128).contains(&row.run_id.len()));
        assert_eq!(row.uid, Some(1000));
    }
}
