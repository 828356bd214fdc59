//! `energylens top`: watts, joules and the state of every counter, live in the terminal.

mod state;
mod view;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use crossbeam_channel::{Receiver, Sender, bounded};
use energylens::agent::{Cadence, Sampler, SamplerOptions};
use energylens::clock::{Clock, SystemClock};
use energylens::source::CounterSource;
use energylens::store::host_name;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use self::state::{Message, State};
use super::sources::SourceArguments;
use super::{Outcome, output};

/// How often the counters are read: enough for the eye, and next to nothing for the node.
const POLL_HZ: f64 = 20.0;

/// How often the screen is drawn, and how soon a key is heard.
const FRAME: Duration = Duration::from_millis(250);

/// How long `--once` watches.
const ONCE: Duration = Duration::from_millis(1_500);

/// Show watts, joules and the state of every counter, live.
#[derive(Debug, Args)]
#[command(after_help = "Example:  energylens top --once\n\nKeys: q, Esc or Ctrl-C quits; up and down scroll.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    sources: SourceArguments,
    /// Print one view as plain text after a second or so, and end; needs no terminal.
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(a: &Arguments) -> anyhow::Result<Outcome> {
    let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    anyhow::ensure!(
        a.once || is_terminal,
        "top draws on a terminal, and stdin or stdout is none; `energylens top --once` prints one view as text"
    );
    let detection = a.sources.require()?;
    let mut state = State::new(host_name(), detection.devices().cloned().collect());
    let stop = Arc::new(AtomicBool::new(false));
    let (tell, told) = bounded(65_536);
    let stopped = stop.clone();
    // Not joined: a driver that hangs must not keep the terminal.
    std::thread::Builder::new()
        .name("el-top".to_owned())
        .spawn(move || sample(detection.found, &tell, &stopped))
        .context("cannot start the sampling thread")?;
    // SIGTERM and a hangup end it as a key does: the terminal must be handed back as it was.
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot listen for signals")?;
    }
    let done = if a.once {
        std::thread::sleep(ONCE);
        told.try_iter().for_each(|message| state.take(message));
        output::print(&view::plain(&state, ONCE.as_secs_f64()))
    } else {
        let mut terminal = ratatui::try_init().context("cannot draw on this terminal; try `energylens top --once`")?;
        let shown = show(&mut terminal, &mut state, &told, &stop);
        ratatui::restore();
        shown.context("the terminal failed")
    };
    stop.store(true, Ordering::Release);
    done.map(|()| Outcome::Done)
}

/// Polls until told to stop, or until nobody listens.
fn sample(sources: Vec<Box<dyn CounterSource>>, tell: &Sender<Message>, stop: &AtomicBool) {
    let clock = Arc::new(SystemClock);
    let options = SamplerOptions { cadence: Cadence::FixedRate { poll_hz: POLL_HZ }, ..SamplerOptions::default() };
    let mut sampler = Sampler::new(sources, clock.clone(), options);
    let mut next_summary_ns = clock.now();
    while !stop.load(Ordering::Acquire) {
        // A full channel means that nobody draws; the counter will say the same later.
        sampler.run_until(clock.now() + 100_000_000, &mut |row| drop(tell.try_send(Message::Row(row))));
        if clock.now() >= next_summary_ns || !sampler.is_alive() {
            next_summary_ns = clock.now() + 500_000_000;
            let (devices, read_cost, late_polls) =
                (sampler.device_recordings(), sampler.read_cost(), sampler.late_polls());
            let _ = tell.try_send(Message::Summary { devices, read_cost, late_polls });
        }
        if !sampler.is_alive() {
            return;
        }
    }
}

/// Draws until a key or `stop` says to quit.
fn show(
    terminal: &mut ratatui::DefaultTerminal,
    state: &mut State,
    told: &Receiver<Message>,
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let start = Instant::now();
    let mut next_tick = start;
    while !stop.load(Ordering::Acquire) {
        told.try_iter().for_each(|message| state.take(message));
        if Instant::now() >= next_tick {
            state.tick(SystemClock.now());
            next_tick += Duration::from_secs(1);
        }
        terminal.draw(|frame| view::draw(frame, state, start.elapsed().as_secs_f64()))?;
        // A resize is an event as well, and is drawn at once.
        if !event::poll(FRAME)? {
            continue;
        }
        if let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                KeyCode::Down | KeyCode::Char('j') => state.scrolled = state.scrolled.saturating_add(1),
                KeyCode::Up | KeyCode::Char('k') => state.scrolled = state.scrolled.saturating_sub(1),
                _ => {}
            }
        }
    }
    Ok(())
}
