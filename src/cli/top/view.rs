//! How `top` looks: one line per device, in a terminal and in plain text.

use energylens::source::Scope;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table};

use super::state::{Meter, State};
use crate::cli::output::{self, short};

/// Eight heights of a character cell.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

const HEADERS: [&str; 7] = ["device", "name", "W", "J", "refresh", "errors", "trend"];

/// The cells of a device, the trend left out.
fn cells(meter: &Meter) -> [String; 6] {
    let watts = meter.power_w.map_or_else(|| "-".to_owned(), short);
    let refresh = match meter.summary.as_ref() {
        Some(summary) if summary.gone => "gone".to_owned(),
        Some(summary) if summary.stuck_since_mono_ns.is_some() => "hung".to_owned(),
        // What moved at every poll moves faster than it is polled here.
        Some(summary) if summary.edges > 8 && summary.edges * 10 >= summary.polls * 9 => "fast".to_owned(),
        Some(summary) => summary.refresh_period_s.map_or_else(|| "-".to_owned(), |s| format!("{} ms", short(1e3 * s))),
        None => "-".to_owned(),
    };
    let errors = meter.summary.as_ref().map_or(0, |s| s.read_errors) + meter.gaps;
    let joules = if meter.is_sensor { format!("~{}", short(meter.joules)) } else { short(meter.joules) };
    [shortened(&meter.device.id, 20), shortened(&meter.device.name, 22), watts, joules, refresh, errors.to_string()]
}

/// Begin and end of a name that is too long: identifiers differ at the end, and their kind is at the begin.
fn shortened(text: &str, most: usize) -> String {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= most {
        return text.to_owned();
    }
    let tail = (most - 1) / 2;
    let head: String = characters.iter().take(most - 1 - tail).collect();
    let end: String = characters.iter().skip(characters.len() - tail).collect();
    format!("{head}…{end}")
}

/// The last `width` values, as bars between zero and the highest of them.
fn trend(values: impl DoubleEndedIterator<Item = f64> + ExactSizeIterator + Clone, width: usize) -> String {
    let skipped = values.len().saturating_sub(width);
    let shown = values.skip(skipped);
    let most = shown.clone().fold(0.0, f64::max);
    let bar = |value: f64| {
        let height = if most > 0.0 { (value / most * 7.0).round().clamp(0.0, 7.0) as usize } else { 0 };
        BARS.get(height).copied().unwrap_or(' ')
    };
    shown.map(bar).collect()
}

/// The lines above and below the devices.
fn heading(state: &State, elapsed_s: f64) -> String {
    let gpus: Vec<&Meter> = state.meters.iter().filter(|m| m.device.scope == Scope::Gpu).collect();
    let watts: f64 = gpus.iter().filter_map(|m| m.power_w).sum();
    let gpus = if gpus.is_empty() { String::new() } else { format!("   {} GPUs {} W", gpus.len(), short(watts)) };
    let label = output::simulated(state.meters.iter().map(|m| &m.device));
    format!("energylens top   {}   {elapsed_s:.0} s{gpus}{label}", state.host)
}

fn footing(state: &State) -> String {
    let (p50, p99) = (state.read_cost.p50_read_ns as f64 / 1e3, state.read_cost.p99_read_ns as f64 / 1e3);
    format!("a read takes {} us (99 %: {} us), {} polls late", short(p50), short(p99), state.late_polls)
}

/// Draws everything; usable from 60 x 6 on.
pub(super) fn draw(frame: &mut Frame, state: &mut State, elapsed_s: f64) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(2), Constraint::Length(2)]).areas(frame.area());
    frame.render_widget(Paragraph::new(Line::styled(heading(state, elapsed_s), Modifier::BOLD)), head);
    let rows_shown = usize::from(body.height.saturating_sub(1));
    state.scrolled = state.scrolled.min(state.meters.len().saturating_sub(rows_shown));
    // Each column and the space behind it, without name and trend.
    let fixed: u16 = [20_u16, 7, 9, 9, 6].iter().map(|w| w + 1).sum();
    // On 80 columns the names give way to the trend, on fewer they go altogether.
    let name = match body.width.saturating_sub(fixed) {
        0..20 => 0,
        20..40 => 12,
        _ => 22,
    };
    let trend_width = body.width.saturating_sub(fixed + name + 1);
    let constraints = [20, name, 7, 9, 9, 6, trend_width].map(Constraint::Length);
    let rows = state.meters.iter().skip(state.scrolled).take(rows_shown).map(|meter| {
        let [id, label, watts, joules, refresh, errors] = cells(meter);
        let [watts, joules, refresh, errors] =
            [(watts, 7), (joules, 9), (refresh, 9), (errors, 6)].map(|(text, width)| format!("{text:>width$}"));
        let label = if name == 0 { String::new() } else { shortened(&label, usize::from(name)) };
        Row::new([id, label, watts, joules, refresh, errors, trend(meter.trend.iter().copied(), trend_width.into())])
    });
    let header = HEADERS.iter().zip(["", "", "7", "9", "9", "6", ""]).map(|(header, width)| match width.parse() {
        Ok(width) => format!("{header:>width$}", width = width),
        Err(_) => (*header).to_owned(),
    });
    let header = Row::new(header).style(Style::new().add_modifier(Modifier::UNDERLINED));
    frame.render_widget(Table::new(rows, constraints).header(header).column_spacing(1), body);
    let hidden = state.meters.len().saturating_sub(rows_shown);
    let more = if hidden > 0 { format!("   up/down: {hidden} more devices") } else { String::new() };
    let text = vec![Line::raw(footing(state)), Line::raw(format!("q quits{more}"))];
    frame.render_widget(Paragraph::new(text), foot);
}

/// One frame as plain text, for `--once`.
pub(super) fn plain(state: &State, elapsed_s: f64) -> String {
    let mut table = output::table(&HEADERS[..6], &[2, 3, 4, 5]);
    for meter in &state.meters {
        let [_, _, watts, joules, refresh, errors] = cells(meter);
        table.add_row([meter.device.id.clone(), meter.device.name.clone(), watts, joules, refresh, errors]);
    }
    format!("{}\n\n{}\n\n{}", heading(state, elapsed_s), table.trim_fmt(), footing(state))
}

#[cfg(test)]
mod tests;
