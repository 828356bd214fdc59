use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use openmetrics_parser::openmetrics::parse_openmetrics;

use super::*;
use crate::agent::recording::ReadCost;

fn recording() -> Recording {
    let device = |name: &str, energy_j, power_w| DeviceRecording {
        device: name.to_owned(),
        energy_j,
        power_w,
        refresh_period_s: power_w.map(|_| 0.02),
        gaps: 1,
        ..DeviceRecording::default()
    };
    Recording {
        rows: 50,
        lost_rows: 3,
        polls: 200,
        read_cost: ReadCost { count: 200, mean_read_ns: 5_000.0, ..ReadCost::default() },
        sampler_cpu_s: Some(0.25),
        devices: vec![
            device("nvml:GPU-\"odd\\name\"", Some(1234.5), Some(250.0)),
            device("rapl:package-0", None, None),
        ],
        ..Recording::default()
    }
}

fn server() -> (MetricsServer, Arc<MetricsState>) {
    let state = Arc::new(MetricsState::new(Some(Arc::new(MarkCounts::default()))));
    state.publish(recording());
    (MetricsServer::start("127.0.0.1:0".parse().unwrap(), state.clone()).unwrap(), state)
}

fn ask(server: &MetricsServer, request: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[test]
fn a_scrape_is_openmetrics_as_a_strict_parser_reads_it() {
    let (server, _) = server();
    let (head, body) = ask(&server, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    let parsed = parse_openmetrics(&body).unwrap_or_else(|e| panic!("{e}\n{body}"));
    let names: Vec<&str> = parsed.families.keys().map(String::as_str).collect();
    for name in [
        "energylens_device_energy_joules",
        "energylens_device_power_watts",
        "energylens_lost_rows",
        "energylens_marks_refused",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    for line in [
        r#"energylens_device_energy_joules_total{device="nvml:GPU-\"odd\\name\""} 1234.5"#,
        r#"energylens_device_power_watts{device="nvml:GPU-\"odd\\name\""} 250.0"#,
        r#"energylens_device_gaps_total{device="rapl:package-0"} 1"#,
        "energylens_rows_total 50",
        "energylens_lost_rows_total 3",
        "energylens_read_seconds_total 0.001",
        "energylens_sampler_cpu_seconds_total 0.25",
        r#"energylens_marks_refused_total{reason="rate"} 0"#,
    ] {
        assert!(body.lines().any(|l| l == line), "{line} is not in\n{body}");
    }
    assert!(!body.contains(r#"energy_joules_total{device="rapl"#), "what is not known is not said");
}

#[test]
fn anything_but_a_get_of_the_page_is_refused_and_large_requests_are_cut_off() {
    let (server, _) = server();
    let status = |request: &[u8]| ask(&server, request).0.lines().next().unwrap().to_owned();
    assert_eq!(status(b"POST /metrics HTTP/1.1\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status(b"GET /etc/passwd HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found");
    assert_eq!(status(b"GET / HTTP/1.0\r\n\r\n"), "HTTP/1.1 200 OK");
    assert_eq!(status(b"\xff\x00\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    assert_eq!(ask(&server, b"HEAD /metrics HTTP/1.1\r\n\r\n").1, "");
    let long = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 8 * 1024]].concat();
    assert_eq!(status(&long), "HTTP/1.1 431 Request Header Fields Too Large");
}

#[test]
fn connections_that_say_nothing_do_not_keep_others_out_for_long() {
    let (server, state) = server();
    let idle: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    state.publish(Recording { rows: 51, ..recording() });
    let (_, body) = ask(&server, b"GET /metrics HTTP/1.1\r\n\r\n");
    assert!(body.contains("energylens_rows_total 51"), "{body}");
    drop(idle);
}

#[test]
fn other_addresses_than_loopback_are_refused() {
    for address in ["0.0.0.0:9400", "192.0.2.1:9400", "[::]:9400"] {
        let refused = MetricsServer::start(address.parse().unwrap(), Arc::default()).err().unwrap();
        assert!(refused.to_string().contains("expected an address of this node only"), "{refused}");
    }
    let (taken, _) = server();
    let refused = MetricsServer::start(taken.address(), Arc::default()).err().unwrap();
    assert!(refused.to_string().contains("cannot listen on 127.0.0.1"), "{refused}");
}
