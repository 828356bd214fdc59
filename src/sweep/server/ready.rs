//! Whether an address answers, for scripts that start servers of their own.

use std::time::Duration;

use super::http;

/// So long one question may take.
const ASK: Duration = Duration::from_secs(10);

/// Whether `url` answers 200 now; an error where it never can.
pub(in crate::sweep) fn answers(url: &str) -> Result<bool, String> {
    let rest =
        url.strip_prefix("http://").ok_or_else(|| format!("`{url}` is no address; expected http://HOST:PORT/..."))?;
    let host = rest.split('/').next().unwrap_or_default();
    http::check_url(&format!("http://{host}"))?;
    Ok(http::text(&http::agent(ASK), url).is_some())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_answers_with_200_and_nothing_else() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}/health", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            for status in ["503 Service Unavailable", "200 OK"] {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]);
                let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        assert_eq!(answers(&url), Ok(false));
        assert_eq!(answers(&url), Ok(true));
        server.join().unwrap();
        assert_eq!(answers(&url), Ok(false), "nobody listens");
        assert!(answers("https://localhost:1/").is_err_and(|e| e.contains("expected http://")));
    }
}
