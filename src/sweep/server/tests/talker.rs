//! A server that answers as it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use serde_json::Value;

/// What a test server does with a request's body: what it streams, or a refusal; it hangs up without a word for status 0.
pub(super) type Answer = dyn Fn(&Value) -> Result<Vec<String>, (u16, String)> + Send + Sync;

/// A server that lives as long as the test program.
pub(super) struct Talker {
    pub(super) url: String,
    /// Every body that came.
    pub(super) bodies: Arc<Mutex<Vec<Value>>>,
    /// Connections that were made.
    pub(super) connections: Arc<AtomicUsize>,
}

impl Talker {
    /// Answers each request with what `answer` makes of it; with `together`, only once so many are in flight.
    pub(super) fn new(together: usize, answer: Box<Answer>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (bodies, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (bodies_of, connections_of) = (bodies.clone(), connections.clone());
        let (answer, barrier) = (Arc::new(answer), Arc::new(Barrier::new(together)));
        thread::spawn(move || {
            // A connection that its client has given up meanwhile is an error here, and not the end.
            for stream in listener.incoming().flatten() {
                connections_of.fetch_add(1, Ordering::Relaxed);
                let (answer, barrier, bodies) = (answer.clone(), barrier.clone(), bodies_of.clone());
                thread::spawn(move || serve(stream, &**answer, &barrier, &bodies));
            }
        });
        Self { url, bodies, connections }
    }
}

fn serve(stream: TcpStream, answer: &Answer, barrier: &Barrier, bodies: &Mutex<Vec<Value>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = n.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body: Value = serde_json::from_slice(&body).ok()?;
        bodies.lock().ok()?.push(body.clone());
        barrier.wait();
        match answer(&body) {
            Ok(events) => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).ok()?;
                for event in events {
                    let event = format!("{event}\n\n");
                    stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).ok()?;
                    stream.flush().ok()?;
                }
                stream.write_all(b"0\r\n\r\n").ok()?;
            }
            Err((0, _)) => return None,
            Err((status, text)) => {
                let head = format!("HTTP/1.1 {status} No\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                stream.write_all(head.as_bytes()).ok()?;
            }
        }
    }
}

/// A proper stream for a body: as many tokens as it asks for.
pub(super) fn proper(body: &Value) -> Vec<String> {
    let (input, output) = (body["prompt"].as_array().map_or(0, Vec::len), body["max_tokens"].as_u64().unwrap_or(0));
    stream(input, output, "{}")
}

/// A stream of so many tokens that counts so many, and `details` of the prompt.
pub(super) fn stream(input: usize, output: u64, details: &str) -> Vec<String> {
    let token =
        |_| r#"data: {"id":"c","choices":[{"index":0,"text":" a","logprobs":null,"finish_reason":null}]}"#.to_owned();
    let mut events: Vec<String> = (0..output).map(token).collect();
    events.push(r#"data: {"choices":[{"index":0,"text":"","finish_reason":"length"}],"usage":null}"#.to_owned());
    events.push(format!(
        "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{input},\"completion_tokens\":{output},\
         \"prompt_tokens_details\":{details}}}}}"
    ));
    events.push("data: [DONE]".to_owned());
    events
}
