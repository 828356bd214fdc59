//! The smallest web server that a scraper needs: GET of one page, one thread, a few connections, short patience.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Connections at a time; the next ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 8;
/// Bytes of the longest request: a line and a scraper's headers.
const MAX_REQUEST_BYTES: usize = 8 * 1024;
/// A connection that is not done by then is closed, whatever it was about to say.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nothing need happen before the stop flag is looked at.
const IDLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

type Answer = Box<dyn Fn() -> String + Send>;

pub(super) struct Listener {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Connection {
    stream: TcpStream,
    end: Instant,
    request: Vec<u8>,
    /// What is left to be said, once the request is whole.
    response: Option<(Vec<u8>, usize)>,
}

impl Listener {
    pub(super) fn start(address: SocketAddr, answer: Answer) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("el-metrics".to_owned())
            .spawn(move || serve(&listener, &answer, &stopped))?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, answer: &Answer, stop: &AtomicBool) {
    let mut connections: Vec<Connection> = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let has_room = connections.len() < MAX_CONNECTIONS;
        let mut watched: Vec<PollFd<'_>> = connections
            .iter()
            .map(|c| {
                let wanted = if c.response.is_some() { PollFlags::OUT } else { PollFlags::IN };
                PollFd::new(&c.stream, wanted)
            })
            .collect();
        if has_room {
            watched.push(PollFd::new(listener, PollFlags::IN));
        }
        if poll(&mut watched, Some(&IDLE)).is_err() {
            // Interrupted; or out of memory, which a pause does not make worse.
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(watched);
        connections.retain_mut(|c| Instant::now() < c.end && c.go_on(answer));
        if has_room {
            match listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => connections.push(Connection {
                    stream,
                    end: Instant::now() + PATIENCE,
                    request: Vec::new(),
                    response: None,
                }),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                // Out of descriptors: the connection stays in the queue, and asking again at once would spin.
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

impl Connection {
    /// Does what can be done without waiting; `false` once it is over.
    fn go_on(&mut self, answer: &Answer) -> bool {
        if self.response.is_none() && !self.read(answer) {
            return false;
        }
        self.write()
    }

    fn read(&mut self, answer: &Answer) -> bool {
        let mut part = [0; 1024];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return false,
                Ok(n) => self.request.extend_from_slice(part.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return false,
            }
            if self.request.windows(4).any(|w| w == b"\r\n\r\n") {
                self.response = Some((respond(&self.request, answer), 0));
                return true;
            }
            if self.request.len() > MAX_REQUEST_BYTES {
                self.response =
                    Some((page("431 Request Header Fields Too Large", "text/plain", "too long\n", true), 0));
                return true;
            }
        }
    }

    fn write(&mut self) -> bool {
        let Some((bytes, written)) = &mut self.response else { return true };
        while let Some(rest) = bytes.get(*written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return false,
                Ok(n) => *written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        false
    }
}

fn respond(request: &[u8], answer: &Answer) -> Vec<u8> {
    let line = request.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ');
    let (method, target, version) = (words.next(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split(|b| *b == b'?').next().unwrap_or_default();
    let has_body = method != Some(b"HEAD");
    if !version.starts_with(b"HTTP/1.") {
        return page("400 Bad Request", "text/plain", "expected HTTP/1.1\n", has_body);
    }
    if !matches!(method, Some(b"GET" | b"HEAD")) {
        return page("405 Method Not Allowed\r\nAllow: GET, HEAD", "text/plain", "expected GET\n", has_body);
    }
    match path {
        b"/metrics" => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            page("200 OK", kind, &answer(), has_body)
        }
        b"/" => page("200 OK", "text/plain", "energylens agent; see /metrics\n", has_body),
        _ => page("404 Not Found", "text/plain", "expected /metrics\n", has_body),
    }
}

fn page(status: &str, kind: &str, body: &str, has_body: bool) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let body = if has_body { body } else { "" };
    [head.as_bytes(), body.as_bytes()].concat()
}
