//! Intel GPUs: the widest energy counter of each card.

use super::{Candidate, Entry, Quantity, watts};
use crate::schema::EnergySource;
use crate::source::{Device, Scope};

/// Channels that a card may have; today's drivers use two.
const CHANNELS: std::ops::RangeInclusive<u32> = 1..=4;

/// Whether a driver of that name is Intel's: `i915`, `xe`, and `i915_gt0` and so on for single tiles.
pub(super) fn is_intel(name: &str) -> bool {
    matches!(name, "i915" | "xe") || tile(name).is_some()
}

fn tile(name: &str) -> Option<u32> {
    name.strip_prefix("i915_gt")?.parse().ok()
}

/// The counters of one card that may be added up: one for the card, or one for each tile.
pub(super) fn candidates(card: &str, entries: &[&Entry], notes: &mut Vec<String>) -> Vec<Candidate> {
    let whole = entries.iter().filter(|e| tile(&e.name).is_none()).find_map(|e| Some((*e, widest(e)?)));
    if let Some((entry, channel)) = whole {
        if entry.name == "i915" {
            notes.push(format!(
                "GPU {card} (i915) counts in 32 bits that the kernel extends only if it is read at least once a minute"
            ));
        }
        if channel.is_package {
            notes.push(format!(
                "GPU {card} ({}) counts its package only: what the rest of the card draws is missing",
                entry.name
            ));
        }
        let (id, name) = (format!("intel:{card}"), format!("Intel GPU {card} ({})", entry.name));
        return vec![candidate(entry, channel.number, id, name, Scope::Gpu)];
    }
    let mut tiles: Vec<_> = entries
        .iter()
        .filter(|e| e.find("energy1_input").is_some())
        .filter_map(|e| Some((tile(&e.name)?, *e)))
        .collect();
    tiles.sort_by_key(|(tile, _)| *tile);
    if tiles.is_empty() {
        notes.push(format!("GPU {card} shows no energy counter: expected energy1_input or energy2_input"));
    } else {
        notes.push(format!("GPU {card} has no counter for the whole card: its {} tiles are read", tiles.len()));
    }
    let of_tile = |(tile, entry): (u32, &Entry)| {
        let (id, name) = (format!("intel:{card}/tile{tile}"), format!("Intel GPU {card} tile {tile}"));
        candidate(entry, 1, id, name, Scope::GpuTile)
    };
    tiles.into_iter().map(of_tile).collect()
}

#[derive(Clone, Copy)]
struct Channel {
    number: u32,
    is_package: bool,
}

/// The channel that covers most: the card before the package. Drivers without labels put the card first.
fn widest(entry: &Entry) -> Option<Channel> {
    let present = CHANNELS.filter(|number| entry.find(&format!("energy{number}_input")).is_some());
    let ranked = present.map(|number| {
        let label = entry.text(&format!("energy{number}_label"));
        // xe shows the package on channel 2, with or without a label.
        let rank = match (label.as_deref(), number) {
            (Some("card"), _) | (None, 1) => 0,
            (Some("pkg" | "package"), _) | (None, 2) => 1,
            _ => 2,
        };
        (rank, number)
    });
    let (rank, number) = ranked.min()?;
    // A counter of something else (memory, media) is not the card's.
    (rank < 2).then_some(Channel { number, is_package: rank == 1 })
}

fn candidate(entry: &Entry, channel: u32, id: String, name: String, scope: Scope) -> Candidate {
    let limits = [format!("power{channel}_max"), format!("power{channel}_rated_max")];
    let power_limit_w = limits.iter().filter_map(|file| entry.number(file)).filter(|uw| *uw > 0).max().map(watts);
    let file = format!("energy{channel}_input");
    Candidate {
        quantity: Quantity::EnergyUj,
        path: entry.find(&file).unwrap_or_else(|| entry.path.join(&file)),
        limit: entry.find(&format!("power{channel}_max")),
        device: Device {
            id,
            name,
            scope,
            energy_source: EnergySource::Counter,
            // 64 bits of microjoules, as the kernel shows it.
            counter_modulus_uj: None,
            counter_step_uj: None,
            power_limit_w,
            memory_bytes: None,
        },
    }
}
