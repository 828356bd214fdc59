//! Plain HTTP to a server on this node.

use std::io::Read;
use std::net::{IpAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectionDetails, Connector, TcpConnector, Transport};

/// Longest answer that is read of a server's facts: metrics of a busy vLLM are some 100 kB.
const LONGEST_BYTES: u64 = 8 << 20;
/// So long a question about a server's state may take.
const ASK: Duration = Duration::from_secs(10);
/// So long a connection may take: a server's queue that is full drops it, and it tries again after one, three, seven ...
/// seconds.
const CONNECT: Duration = Duration::from_secs(60);
/// Servers close idle connections after five seconds (uvicorn, cpp-httplib); one that is older than this is not used
/// again, lest a request meets the closing.
const IDLE_CONNECTION: Duration = Duration::from_secs(2);
/// Ports are chosen from here on: below lie those of well-known services.
const LOWEST_PORT: u16 = 20_000;
/// Where Linux begins to give ports to connections if nobody has said otherwise.
const LOWEST_GIVEN_PORT: u16 = 32_768;
/// Most requests in flight at once.
pub(super) const MOST_REQUESTS: usize = 4096;

/// What was asked for could not be had.
pub(super) type Failed = String;

/// An agent whose connections all requests of a deployment share.
pub(super) fn agent(batch_timeout: Duration) -> Agent {
    let config = Agent::config_builder()
        // An error's body says what is wrong; its number alone does not.
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .user_agent(concat!("energylens/", env!("CARGO_PKG_VERSION")))
        .max_idle_connections(MOST_REQUESTS)
        .max_idle_connections_per_host(MOST_REQUESTS)
        .max_idle_age(IDLE_CONNECTION)
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(batch_timeout))
        .build();
    Agent::with_parts(config, OneByOne::default(), DefaultResolver::default())
}

/// Opens one connection after the other.
///
/// Of many handshakes at once that find a server's queue full, the client believes some to be done and the server does
/// not; their requests are sent again and again, for seconds, and after a minute the server refuses them. A handshake
/// that is alone either finds room or is told to wait.
#[derive(Debug, Default)]
struct OneByOne {
    tcp: TcpConnector,
    turn: Mutex<()>,
}

impl<In: Transport> Connector<In> for OneByOne {
    type Out = <TcpConnector as Connector<In>>::Out;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.tcp.connect(details, chained)
    }
}

/// The status and the text that GET gives.
pub(super) fn get(agent: &Agent, url: &str) -> Result<(u16, String), Failed> {
    let request = agent.get(url).config().timeout_global(Some(ASK)).build();
    let mut response = request.call().map_err(|e| format!("{url} does not answer: {e}"))?;
    let status = response.status().as_u16();
    let mut bytes = Vec::new();
    let reader = response.body_mut().as_reader();
    reader.take(LONGEST_BYTES).read_to_end(&mut bytes).map_err(|e| format!("{url} breaks off: {e}"))?;
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}

/// What GET gives with status 200; `None` for anything else.
pub(super) fn text(agent: &Agent, url: &str) -> Option<String> {
    get(agent, url).ok().filter(|(status, _)| *status == 200).map(|(_, text)| text)
}

/// The same as JSON.
pub(super) fn json(agent: &Agent, url: &str) -> Option<Value> {
    serde_json::from_str(&text(agent, url)?).ok()
}

/// Host and port of `http://host:port`; the words of a template stand for their value.
fn host_and_port(url: &str) -> Result<(&str, &str), Failed> {
    let wanted = "expected http://HOST:PORT without a path";
    if url.starts_with("https://") {
        return Err(format!("`{url}` asks for https, which this program does not speak; {wanted}"));
    }
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("`{url}` is no address; {wanted}"))?;
    let (host, port) = rest.rsplit_once(':').ok_or_else(|| format!("`{url}` has no port; {wanted}"))?;
    let port_is_fine = port == "{port}" || port.parse::<u16>().is_ok_and(|p| p > 0);
    if host.is_empty() || host.contains(['/', '@']) || !port_is_fine {
        return Err(format!("`{url}` is no address; {wanted}"));
    }
    Ok((host.trim_start_matches('[').trim_end_matches(']'), port))
}

/// The port of an address that has a fixed one.
pub(super) fn port(url: &str) -> Option<u16> {
    host_and_port(url).ok()?.1.parse().ok()
}

/// Refuses an address that this program could never ask.
pub(super) fn check_url(url: &str) -> Result<(), Failed> {
    host_and_port(url).map(drop)
}

/// The addresses of a url whose names are filled in, all of them on this node.
///
/// The counters of this node are recorded: work done elsewhere would be paired with the wrong joules.
fn addresses(url: &str) -> Result<Vec<(IpAddr, u16)>, Failed> {
    let (host, port) = host_and_port(url)?;
    let port: u16 = port.parse().map_err(|_| format!("`{url}` has no port"))?;
    let found = (host, port).to_socket_addrs().map_err(|e| format!("the host `{host}` is not known: {e}"))?;
    let found: Vec<(IpAddr, u16)> = found.map(|a| (a.ip(), port)).collect();
    // An address that can be bound to is one of this node's.
    let here = |ip: &IpAddr| ip.is_loopback() || TcpListener::bind((*ip, 0)).is_ok();
    if found.is_empty() || !found.iter().any(|(ip, _)| here(ip)) {
        return Err(format!("`{url}` is on another node; this one's energy counters would not see its work"));
    }
    Ok(found)
}

/// Refuses an address on another node.
pub(super) fn check_here(url: &str) -> Result<(), Failed> {
    addresses(url).map(drop)
}

/// Whether somebody listens there already.
pub(super) fn is_taken(url: &str) -> Result<bool, Failed> {
    let connects = |address: &(IpAddr, u16)| TcpStream::connect_timeout(&(*address).into(), ASK).is_ok();
    Ok(addresses(url)?.iter().any(connects))
}

/// A port on which nobody listens at this moment.
///
/// It lies outside of the range from which the kernel gives ports to connections: whoever asks again and again whether a
/// server listens on a port of that range connects, sooner or later, to himself, and the server finds it taken.
pub(super) fn free_port() -> Result<u16, Failed> {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(LOWEST_GIVEN_PORT);
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let count = end.saturating_sub(LOWEST_PORT);
    // Two programs begin at different ports, and one program gives none twice in a row.
    let own = (std::process::id() % u32::from(count.max(1))) as u16;
    for _ in 0..count {
        let offset = own.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % count;
        if is_free(LOWEST_PORT + offset) {
            return Ok(LOWEST_PORT + offset);
        }
    }
    let any = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).map(|a| a.port());
    any.map_err(|e| format!("no free port can be had: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_plain_http_with_a_port() {
        assert_eq!(host_and_port("http://127.0.0.1:{port}"), Ok(("127.0.0.1", "{port}")));
        assert_eq!(host_and_port("http://[::1]:8000"), Ok(("::1", "8000")));
        for (url, says) in [
            ("https://127.0.0.1:8000", "https"),
            ("127.0.0.1:8000", "no address"),
            ("http://localhost", "no port"),
            ("http://localhost:8000/v1", "no address"),
            ("http://user@host:80", "no address"),
            ("http://localhost:0", "no address"),
            ("http://:80", "no address"),
        ] {
            let message = check_url(url).expect_err(url);
            assert!(message.contains(says), "{url}: {message}");
        }
    }

    #[test]
    fn a_server_on_another_node_is_refused_and_one_here_is_not() {
        // 192.0.2.0/24 is nobody's: it is set aside for documents.
        assert!(check_here("http://192.0.2.7:8000").is_err_and(|e| e.contains("another node")));
        assert_eq!(check_here("http://127.0.0.1:8000"), Ok(()));
    }

    #[test]
    fn a_port_is_taken_while_somebody_listens() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let url = format!("http://127.0.0.1:{}", listener.local_addr().expect("an address").port());
        assert_eq!(is_taken(&url), Ok(true));
        drop(listener);
        assert_eq!(is_taken(&url), Ok(false));
    }

    #[test]
    fn chosen_ports_are_free_and_different() {
        let ports: Vec<u16> = (0..20).map(|_| free_port().expect("a port")).collect();
        assert!(ports.windows(2).all(|p| p[0] != p[1]), "{ports:?}");
        for port in ports {
            assert!(port >= LOWEST_PORT);
            assert_eq!(is_taken(&format!("http://127.0.0.1:{port}")), Ok(false));
        }
    }
}
