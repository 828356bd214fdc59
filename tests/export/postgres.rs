//! A PostgreSQL server of the test's own: a directory, a Unix socket, no network.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::Ran;
use crate::languages::{figures, query};
use crate::models::{Asked, World};

pub(crate) struct Server {
    dir: TempDir,
    programs: PathBuf,
    as_user: Option<&'static str>,
}

impl Server {
    /// Starts one, or says what is missing.
    pub(crate) fn start() -> Result<Self, String> {
        let versions = fs::read_dir("/usr/lib/postgresql").map_err(|_| "no /usr/lib/postgresql".to_owned())?;
        let programs = versions.flatten().map(|e| e.path().join("bin")).find(|p| p.join("initdb").is_file());
        let programs = programs.ok_or("no initdb in /usr/lib/postgresql")?;
        let dir = tempfile::Builder::new().prefix("el-pg").tempdir_in("/tmp").map_err(|e| e.to_string())?;
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            // The server refuses to run as root; its Debian package brings a user.
            let user = |flag: &str| {
                let output =
                    Command::new("id").args([flag, "postgres"]).output().ok().filter(|o| o.status.success())?;
                String::from_utf8(output.stdout).ok()?.trim().parse::<u32>().ok()
            };
            let (uid, gid) = user("-u").zip(user("-g")).ok_or("running as root, and there is no user postgres")?;
            chown(dir.path(), Some(uid), Some(gid)).map_err(|e| e.to_string())?;
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).map_err(|e| e.to_string())?;
        let server = Self { dir, programs, as_user: is_root.then_some("postgres") };
        let data = server.data();
        let ran = |output: Output| {
            let said = || String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() { Ok(()) } else { Err(said()) }
        };
        ran(server.call("initdb", &["-D", &data, "-A", "trust", "-U", "tester", "--no-sync", "-E", "UTF8"])?)?;
        let options = format!("-k {} -c listen_addresses='' -c fsync=off", server.dir.path().display());
        let log = format!("{data}/log");
        ran(server.call("pg_ctl", &["-D", &data, "-w", "-t", "120", "-l", &log, "-o", &options, "start"])?)?;
        Ok(server)
    }

    pub(crate) fn figures(&self, world: &World, text: &str, asked: &[Asked]) -> Ran {
        let query_file = self.dir.path().join("query.sql");
        fs::write(&query_file, query(world, text, asked)).map_err(|e| e.to_string())?;
        let socket = self.dir.path().display().to_string();
        let file = query_file.display().to_string();
        let arguments = ["-h", &socket, "-U", "tester", "-d", "postgres", "-At", "-F", " ", "-v", "ON_ERROR_STOP=1"];
        let arguments: Vec<&str> = arguments.into_iter().chain(["-f", &file]).collect();
        let output = self.call("psql", &arguments)?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(figures(&String::from_utf8_lossy(&output.stdout)))
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    fn call(&self, program: &str, arguments: &[&str]) -> Result<Output, String> {
        let program = self.programs.join(program);
        let mut command = match self.as_user {
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", user, "--"]).arg(&program);
                command
            }
            None => Command::new(&program),
        };
        command.args(arguments).current_dir(Path::new("/")).output().map_err(|e| format!("{}: {e}", program.display()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.data();
        if let Err(problem) = self.call("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]) {
            eprintln!("PostgreSQL was not stopped: {problem}");
        }
    }
}
