use energylens::agent::{DeviceRecording, ReadCost};
use energylens::schema::EnergySource;
use energylens::source::Device;
use energylens::store::SampleRow;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::state::Message;
use super::*;

fn device(id: &str, name: &str) -> Device {
    Device {
        id: id.to_owned(),
        name: name.to_owned(),
        scope: Scope::Gpu,
        energy_source: EnergySource::Counter,
        counter_modulus_uj: None,
        counter_step_uj: None,
        power_limit_w: Some(700.0),
        memory_bytes: None,
    }
}

/// Two GPUs for 4 s: 300 W, and 100 W that become 500 W; the second was reset once.
fn state() -> State {
    let ids = ["nvml:GPU-6f2f6c9e-0001-0001-0001-00000000000a", "nvml:GPU-6f2f6c9e-0001-0001-0001-00000000000b"];
    let mut state = State::new("node07".to_owned(), ids.map(|id| device(id, "NVIDIA H100 80GB HBM3")).to_vec());
    let mut counters = [5_000_000_000_u64, 9_000_000_000];
    for tenth in 0..=40_i64 {
        if tenth == 5 {
            counters[1] = 0;
        }
        for (i, id) in ids.iter().enumerate() {
            let t_mono_ns = tenth * 100_000_000;
            state.take(Message::Row(SampleRow {
                device: (*id).into(),
                t_mono_ns,
                t_prev_poll_ns: t_mono_ns - 50_000_000,
                energy_counter_uj: Some(counters[i]),
                power_w: None,
                t_device_ns: None,
                source: EnergySource::Counter,
                job_id: None,
            }));
            counters[i] += if i == 0 {
                30_000_000
            } else if tenth < 20 {
                10_000_000
            } else {
                50_000_000
            };
        }
        if tenth % 5 == 0 {
            state.tick(tenth * 100_000_000);
        }
    }
    let summary = |id: &str| DeviceRecording {
        device: id.to_owned(),
        polls: 80,
        edges: 40,
        rows: 41,
        read_errors: 2,
        refresh_period_s: Some(0.1),
        ..DeviceRecording::default()
    };
    let read_cost = ReadCost { p50_read_ns: 63_400, p99_read_ns: 151_000, ..ReadCost::default() };
    state.take(Message::Summary { devices: ids.map(summary).to_vec(), read_cost, late_polls: 3 });
    state
}

fn screen(width: u16, height: u16, state: &mut State) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test terminal");
    terminal.draw(|frame| draw(frame, state, 4.0)).expect("a test terminal");
    let buffer = terminal.backend().buffer().clone();
    let lines = (0..height).map(|y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>());
    lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[test]
fn watts_and_joules_come_from_the_counters_and_a_reset_adds_none() {
    let state = state();
    let [first, second] = &state.meters[..] else { panic!("two meters") };
    // 40 intervals of 30 J; of the second 19 of 10 J and 20 of 50 J, the one across the reset being unknown.
    assert!((first.joules - 1_200.0).abs() < 1e-6 && (second.joules - 1_190.0).abs() < 1e-6);
    assert_eq!((first.power_w.map(f64::round), second.power_w.map(f64::round)), (Some(300.0), Some(500.0)));
    assert_eq!((first.gaps, second.gaps), (0, 1));
}

#[test]
fn everything_that_matters_is_on_a_terminal_of_80_by_24() {
    let text = screen(80, 24, &mut state());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "energylens top   node07   4 s   2 GPUs 800.0 W");
    assert_eq!(lines[2], "device               name               W         J   refresh errors trend");
    assert_eq!(lines[3], "nvml:GPU-6…00000000a NVIDIA… HBM3   300.0      1200  100.0 ms      2 ▁████████");
    assert_eq!(lines[4], "nvml:GPU-6…00000000b NVIDIA… HBM3   500.0      1190  100.0 ms      3 ▁▂▂▂▂▅███");
    assert_eq!(lines[22], "a read takes 63.40 us (99 %: 151.0 us), 3 polls late");
    assert_eq!(lines[23], "q quits");
}

#[test]
fn small_and_wide_terminals_are_no_trouble() {
    let tiny = screen(60, 6, &mut state());
    assert!(tiny.contains("up/down: 1 more devices"), "{tiny}");
    assert!(tiny.contains("300.0") && !tiny.contains("HBM3"), "{tiny}");
    assert!(screen(160, 24, &mut state()).contains("NVIDIA H100 80GB HBM3"));
    for (width, height) in [(1, 1), (3, 2), (10, 4)] {
        screen(width, height, &mut state());
    }
    let text = plain(&state(), 4.0);
    assert!(text.contains("nvml:GPU-6f2f6c9e-0001-0001-0001-00000000000a") && text.contains("1200"), "{text}");
}
