//! The engine's environment, its model, and a server of it for the test itself.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use energylens::sweep::process::Process;

/// One engine at a time: two of them on two busy cores measure each other.
static TURN: Mutex<()> = Mutex::new(());
static MODEL: OnceLock<PathBuf> = OnceLock::new();

/// Whatever an engine needs, for one test at a time.
pub(crate) struct Machine {
    pub(crate) python: PathBuf,
    pub(crate) model: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

/// A server that the test itself has started.
pub(crate) struct Server {
    pub(crate) url: String,
    _process: Process,
}

/// A file of this repository.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

impl Machine {
    /// The machine, once the others are done with it; `None`, said aloud, where it lacks the engine.
    pub(crate) fn ready() -> Option<Self> {
        let python = file("target/python-env/bin/python");
        let imports = Command::new(&python).args(["-c", "import xllamacpp, gguf, numpy"]).output();
        if !imports.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: {} has no xllamacpp; bash scripts/python_env.sh installs it", python.display());
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let model = MODEL.get_or_init(|| {
            let model = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("random-{}.gguf", std::process::id()));
            let made = Command::new(&python).arg(file("scripts/workloads/random_llama.py")).arg(&model).output();
            let made = made.expect("the environment's python");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            model
        });
        Some(Self { python, model: model.clone(), _turn: turn })
    }

    /// The words that start a server, but for its options.
    pub(crate) fn words(&self, port: &str) -> Vec<String> {
        let text = |path: &Path| path.to_str().expect("a path of text").to_owned();
        let script = file("scripts/workloads/llama_cpu.py");
        vec![text(&self.python), text(&script), text(&self.model), port.to_owned()]
    }

    /// A server that is ready.
    pub(crate) fn serve(&self, options: &[&str]) -> Server {
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).expect("a port").port();
        let mut argv = self.words(&port.to_string());
        argv.extend(options.iter().map(|o| (*o).to_owned()));
        let log = self.model.with_extension(format!("{port}.log"));
        let process = Process::start(&argv, &[], &log).expect("the environment's python");
        let server = Server { url: format!("http://127.0.0.1:{port}"), _process: process };
        for _ in 0..1200 {
            if server.answers() {
                return server;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("no server: {}", energylens::sweep::process::log_tail(&log, 20));
    }

    /// Fails if a process that has to do with the model is left.
    pub(crate) fn assert_quiet(&self) {
        let model = self.model.to_str().expect("a path of text");
        let about_it = |entry: std::fs::DirEntry| {
            let words = std::fs::read(entry.path().join("cmdline")).ok()?;
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            words.contains(model).then_some(words)
        };
        // What was killed is gone when init has seen it.
        for _ in 0..200 {
            let left: Vec<String> = std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(about_it).collect();
            if left.is_empty() {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("something of {model} still runs");
    }
}

impl Server {
    /// Whether it is ready.
    pub(crate) fn answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(self.url.trim_start_matches("http://"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /health HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")?;
            let mut head = [0; 15];
            stream.read_exact(&mut head)?;
            Ok(head.ends_with(b"200 OK"))
        };
        ask().unwrap_or(false)
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(which: &str, id: &str) {
    let sent = Command::new("kill").args([which, id]).status().expect("kill");
    assert!(sent.success(), "{id} does not get {which}");
}
