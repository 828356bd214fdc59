//! The agent as a service: marks, metrics, the service manager and its watchdog, and what is installed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use energylens::schema::MARKS;
use energylens::store::{MarkRow, read_table};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::desk::{Desk, program};
use crate::support::nvml::Stub;
use crate::support::powercap::Powercap;

/// Generous: the machines that run this are busy.
const LONG: Duration = Duration::from_secs(60);

/// A running agent, and the service manager's end of its socket.
struct Agent {
    child: Child,
    manager: UnixDatagram,
    heard: String,
}

impl Agent {
    fn start(desk: &Desk, arguments: &[&str], watchdog: Duration) -> Self {
        let path = desk.path("notify.sock");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        let child = Command::new(program())
            .args(["agent", "-o", "rec"])
            .args(arguments)
            .current_dir(desk.path(""))
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", watchdog.as_micros().to_string())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program");
        Self { child, manager, heard: String::new() }
    }

    /// What the manager hears within `patience`, or nothing.
    fn hear(&mut self, patience: Duration) -> Option<String> {
        let mut buffer = [0; 4096];
        self.manager.set_read_timeout(Some(patience)).expect("a timeout");
        let bytes = self.manager.recv(&mut buffer).ok()?;
        let text = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
        self.heard += &text;
        self.heard += "\n";
        Some(text)
    }

    fn hear_of(&mut self, word: &str) {
        while let Some(text) = self.hear(LONG) {
            if text.contains(word) {
                return;
            }
        }
        panic!("{word} was never heard; only:\n{}", self.heard);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a living agent");
    }

    /// A line of stderr that begins with `start`.
    fn line(&mut self, start: &str) -> String {
        let stderr = BufReader::new(self.child.stderr.take().expect("stderr"));
        let mut lines = stderr.lines().map_while(Result::ok);
        let line = lines.find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("no line begins with {start}"));
        // Read on, so that the agent never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        line
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn with_cpu<'a>(tree: &'a Powercap, rest: &[&'a str]) -> Vec<&'a str> {
    let root = tree.root().to_str().expect("a path of text");
    [&["--sources", "rapl", "--sysfs-root", root], rest].concat()
}

fn marks(dir: &Path) -> Vec<MarkRow> {
    let batches = read_table(dir, &MARKS).expect("a campaign");
    batches.flat_map(|b| MarkRow::from_batch(&b.expect("a batch")).expect("marks")).collect()
}

#[test]
fn a_service_tells_when_it_is_ready_takes_marks_serves_metrics_and_ends_when_told() {
    let (desk, tree) = (Desk::new(), Powercap::drawing(120.0));
    let socket = desk.path("marks.sock");
    let socket = socket.to_str().expect("text");
    let options = with_cpu(&tree, &["--marks", socket, "--metrics", "127.0.0.1:0"]);
    let mut agent = Agent::start(&desk, &options, LONG);
    let metrics = agent.line("metrics at ");
    agent.hear_of("READY=1");
    agent.hear_of("STATUS=recording 2 devices");

    desk.run(&["mark", "begin", "prefill", "--run-id", "r1", "--socket", socket]).done();
    desk.run(&["mark", "end", "pre fill", "--socket", socket]).ends_with(1).remarks("`phase` must have 1 to 64");
    let rows = marks(&desk.path("rec"));
    assert_eq!((rows.len(), rows[0].run_id.as_str()), (1, "r1"), "it is on disk before `mark` returns");

    let address = metrics.trim_start_matches("metrics at http://").trim_end_matches("/metrics");
    let mut stream = TcpStream::connect(address).expect("the metrics endpoint");
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("a request");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("an answer");
    assert!(page.contains("energylens_device_energy_joules_total{device=\"rapl:package-0\"}"), "{page}");
    assert!(page.contains("energylens_marks_refused_total{reason=\"phase\"} 1"), "{page}");

    agent.signal(Signal::TERM);
    agent.hear_of("STOPPING=1");
    assert_eq!(agent.child.wait().expect("an end").code(), Some(0));
    assert!(desk.path("rec").read_dir().expect("files").flatten().any(|f| {
        let name = f.file_name().to_string_lossy().into_owned();
        name.starts_with("marks-") && name.ends_with(".parquet")
    }));
    desk.run(&["mark", "end", "prefill", "--socket", socket]).ends_with(1).remarks("no agent takes marks at");
}

#[test]
fn a_container_whose_session_was_opened_outside_of_it_can_mark() {
    let (desk, tree) = (Desk::new(), Powercap::drawing(120.0));
    let socket = desk.path("marks.sock");
    let socket = socket.to_str().expect("text");
    let mut agent = Agent::start(&desk, &with_cpu(&tree, &["--marks", socket]), LONG);
    agent.hear_of("READY=1");
    let alone = ["--user", "--map-root-user", "--pid", "--fork"];
    if !Command::new("unshare").args(alone).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no namespace of processes can be opened here (unshare)");
        return;
    }
    let marked = Command::new("unshare")
        .args(alone)
        .arg(program())
        .args(["mark", "begin", "prefill", "--socket", socket])
        .output()
        .expect("unshare");
    assert!(marked.status.success(), "{}", String::from_utf8_lossy(&marked.stderr));
    let rows = marks(&desk.path("rec"));
    assert!(rows.len() == 1 && rows[0].run_id.starts_with("caller-"), "{rows:?}");
}

#[test]
fn the_watchdog_starves_when_the_driver_hangs() {
    let (desk, stub) = (Desk::new(), Stub::new("devices 1, 0.ramp_mw 250000, 0.refresh_ms 20"));
    let library = stub.library();
    let options = ["--sources", "nvml", "--nvml-library", library.to_str().expect("text")];
    let mut agent = Agent::start(&desk, &options, Duration::from_secs(4));
    agent.hear_of("READY=1");
    agent.hear_of("WATCHDOG=1");
    agent.hear_of("WATCHDOG=1");
    stub.says("devices 1, 0.block_ms 600000");
    // What was read before the hang may still be told; then there is silence but for the status.
    let mut fed = 0;
    while let Some(text) = agent.hear(Duration::from_secs(15)) {
        fed += usize::from(text.contains("WATCHDOG=1"));
        if text.contains("hang in their driver") {
            break;
        }
        assert!(fed < 10, "fed while nothing is read:\n{}", agent.heard);
    }
    assert!(agent.heard.contains("1 hang in their driver"), "{}", agent.heard);
    while let Some(text) = agent.hear(Duration::from_secs(6)) {
        assert!(!text.contains("WATCHDOG=1"), "fed while nothing is read:\n{}", agent.heard);
        if text.contains("STATUS") {
            break;
        }
    }
}

#[test]
fn marks_survive_the_death_of_the_agent() {
    let (desk, tree) = (Desk::new(), Powercap::drawing(120.0));
    let socket = desk.path("marks.sock");
    let socket = socket.to_str().expect("text");
    let mut agent = Agent::start(&desk, &with_cpu(&tree, &["--marks", socket]), LONG);
    agent.hear_of("READY=1");
    desk.run(&["mark", "begin", "decode", "--run-id", "r1", "--socket", socket]).done();
    agent.child.kill().expect("a living agent");
    agent.child.wait().expect("an end");
    let again = with_cpu(&tree, &["--marks", socket, "--duration", "300ms"]);
    let ran = desk.run(&[&["agent", "-o", "rec"], again.as_slice()].concat()).done();
    ran.remarks("recovered 1 rows of an interrupted recording");
    assert_eq!(marks(&desk.path("rec"))[0].phase, "decode");
}

#[test]
fn metrics_are_refused_on_addresses_that_others_reach() {
    let (desk, tree) = (Desk::new(), Powercap::drawing(120.0));
    let options = with_cpu(&tree, &["--metrics", "0.0.0.0:9400"]);
    let ran = desk.run(&[&["agent", "-o", "rec"], options.as_slice()].concat()).ends_with(1);
    ran.remarks("metrics cannot be served on 0.0.0.0:9400");
}

/// The block of docs/marks.md that is fenced as `language`.
fn snippet(language: &str) -> String {
    let page = include_str!("../../docs/marks.md");
    let (_, rest) = page.split_once(&format!("```{language}\n")).expect("a snippet");
    rest.split_once("```").expect("its end").0.to_owned()
}

fn record(desk: &Desk, tree: &Powercap, command: &[&str]) -> serde_json::Value {
    let mut arguments = vec!["record", "-o", "rec", "--json"];
    arguments.extend(with_cpu(tree, &["--"]));
    arguments.extend(command);
    let ran = desk.run(&arguments).done();
    serde_json::from_str(&ran.stderr).unwrap_or_else(|e| panic!("{e}: {}", ran.stderr))
}

fn phases_have_energy(json: &serde_json::Value, phase: &str, power_w: f64) {
    let found = json["phases"].as_array().and_then(|p| p.iter().find(|p| p["phase"] == phase));
    let found = found.unwrap_or_else(|| panic!("no {phase} in {json}"));
    let devices = found["devices"].as_array().expect("devices");
    let package = devices.iter().find(|d| d["device"] == "rapl:package-0").expect("the package");
    let mean_w = package["energy_j"].as_f64().expect("J") / found["duration_s"].as_f64().expect("s");
    assert!((mean_w / power_w - 1.0).abs() < 0.1, "{mean_w} W in {found}");
}

#[test]
fn the_python_snippet_marks_the_phases_of_a_recorded_command() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no python3");
        return;
    }
    let (desk, tree) = (Desk::new(), Powercap::drawing(120.0));
    let work = "\nfor _ in range(2):\n    with phase('decode'): time.sleep(0.5)\n";
    desk.put("work.py", snippet("python") + work);
    let json = record(&desk, &tree, &["python3", "work.py"]);
    phases_have_energy(&json, "decode", 120.0);
    assert_eq!(json["phases"][0]["windows"], 2);
    // Without an agent the work is done all the same.
    let alone = Command::new("python3").arg(desk.path("work.py")).env_remove("ENERGYLENS_MARKS").status();
    assert!(alone.expect("python3").success());
}

#[test]
fn the_lua_snippet_marks_the_phases_of_a_recorded_command() {
    let (desk, tree) = (Desk::new(), Powercap::drawing(120.0));
    let work = "\nassert(phase('prefill', function() os.execute('sleep 1'); return 7 end) == 7)\n";
    desk.put("work.lua", snippet("lua") + work);
    // This very test binary is the Lua interpreter: `lua_interpreter` below.
    let interpreter = std::env::current_exe().expect("this test");
    let interpreter = interpreter.to_str().expect("text");
    let path =
        format!("{}:{}", program().parent().expect("a directory").display(), std::env::var("PATH").unwrap_or_default());
    let set_path = format!("PATH={path}");
    let script = format!("LUA_SCRIPT={}", desk.path("work.lua").display());
    let name = "service::lua_interpreter";
    let json = record(&desk, &tree, &["env", &set_path, &script, interpreter, "-q", "--ignored", "--exact", name]);
    phases_have_energy(&json, "prefill", 120.0);
}

#[test]
#[ignore = "run by the test above, in a process with an environment of its own"]
fn lua_interpreter() {
    let script = fs::read_to_string(std::env::var("LUA_SCRIPT").expect("a script")).expect("a script");
    mlua::Lua::new().load(script).exec().expect("a script that runs");
}

#[test]
fn installing_into_an_image_is_repeatable_and_removable() {
    let desk = Desk::new();
    desk.put("energylens", "#!/bin/sh\n");
    let binary = desk.path("energylens");
    let mut permissions = fs::metadata(&binary).expect("a file").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    fs::set_permissions(&binary, permissions).expect("a file");
    let image = desk.path("image");
    let install = |arguments: &[&str]| {
        let mut command = Command::new("bash");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install.sh")).args(arguments);
        command.env("DESTDIR", &image).env("PREFIX", "/opt/el").env("BINARY", &binary);
        let output = command.output().expect("bash");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    install(&[]);
    let options = image.join("etc/energylens/agent.env");
    fs::write(&options, "ENERGYLENS_AGENT_OPTIONS=--sources nvml\n").expect("a file");
    install(&[]);
    assert!(fs::read_to_string(&options).expect("options").contains("nvml"), "options that were changed stay");
    let unit = fs::read_to_string(image.join("usr/lib/systemd/system/energylens-agent.service")).expect("the unit");
    assert!(unit.contains("ExecStart=/opt/el/bin/energylens agent --output /var/lib/energylens"), "{unit}");
    for file in ["opt/el/bin/energylens", "usr/lib/sysusers.d/energylens.conf", "usr/lib/tmpfiles.d/energylens.conf"] {
        assert!(image.join(file).is_file(), "{file}");
    }
    install(&["--uninstall"]);
    assert!(!image.join("opt/el/bin/energylens").exists() && options.is_file());
}

#[test]
fn the_unit_is_valid_and_exposes_little() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no systemd-analyze (Debian's package systemd has it)");
        return;
    }
    let desk = Desk::new();
    // The program that the unit starts must exist where it is checked.
    let unit = include_str!("../../systemd/energylens-agent.service").replace("/usr/bin/energylens", "/bin/true");
    desk.put("energylens-agent.service", unit);
    for arguments in [&["verify", "--man=no"][..], &["security", "--offline=yes", "--threshold=20", "--no-pager"]] {
        let mut command = Command::new("systemd-analyze");
        let output =
            command.args(arguments).arg(desk.path("energylens-agent.service")).output().expect("it ran before");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}\n{said}");
        assert!(arguments[0] != "verify" || said.trim().is_empty(), "{said}");
    }
}
