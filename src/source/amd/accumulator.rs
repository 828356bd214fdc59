//! From counts of the energy accumulator to microjoules, and what is known to be odd about it.

use super::card::Card;
use crate::source::Device;

/// The counter that 32 bits of 2^-16 J hold: 65,536 J, three minutes at 350 W.
const MODULUS_32_BITS_UJ: u64 = 65_536_000_000;

/// Microjoules of `counts`, whole ones, exactly: one count is 2^-16 J, which is 15625/1024 uJ.
pub(super) fn counts_to_uj(counts: u64) -> Option<u64> {
    u64::try_from((u128::from(counts) * 15_625) >> 10).ok()
}

/// The same with the resolution that a library states, uJ. AMD's own round 15.2588 to 15.3, which would be 0.27 % too much.
pub(super) fn scaled_to_uj(counts: u64, resolution_uj: f32) -> Result<u64, String> {
    let too_large = || format!("is {counts} counts: expected less than 2^64 uJ");
    if (15.2..15.35).contains(&resolution_uj) {
        return counts_to_uj(counts).ok_or_else(too_large);
    }
    if !resolution_uj.is_finite() || resolution_uj <= 0.0 {
        return Err(format!("has a resolution of {resolution_uj} uJ: expected a positive number"));
    }
    let uj = counts as f64 * f64::from(resolution_uj);
    if uj < u64::MAX as f64 { Ok(uj as u64) } else { Err(too_large()) }
}

/// Whether this count says that there is no counter.
pub(super) fn is_absent(counts: u64) -> bool {
    counts == u64::MAX || counts == u64::from(u32::MAX)
}

/// Where the counter starts again at 0. Formats up to 1.3 hold a 32-bit register of the firmware, on Instinct MI200 alone one of
/// 64 bits.
pub(super) fn modulus_uj(card: &Card) -> Option<u64> {
    let (major, minor) = card.metrics()?.ok()?.version;
    (major == 1 && minor <= 3 && !is_mi200(card.pci_device)).then_some(MODULUS_32_BITS_UJ)
}

fn is_mi200(pci_device: Option<u16>) -> bool {
    matches!(pci_device, Some(0x7408 | 0x740c | 0x740f | 0x7410))
}

/// Two dies on one card.
pub(super) fn is_pair_card(name: &str, pci_device: Option<u16>) -> bool {
    matches!(pci_device, Some(0x7408 | 0x740c)) || name.contains("MI250")
}

/// One GPU before it is decided whether it is read.
pub(super) struct Candidate<T> {
    pub(super) device: Device,
    pub(super) is_pair_card: bool,
    /// What the counter said when the GPU was found; `None` without a counter.
    pub(super) counts: Option<u64>,
    pub(super) handle: T,
}

/// The first die of an MI250X or MI250 counts the energy of both, the second 0: the first is said to be both, and the second
/// left out, so that nothing is counted twice and nobody waits for a counter that never moves.
pub(super) fn join_dies<T>(candidates: Vec<Candidate<T>>, notes: &mut Vec<String>) -> Vec<Candidate<T>> {
    let mut kept: Vec<Candidate<T>> = Vec::new();
    let mut first_is_free = false;
    for candidate in candidates {
        let silent = candidate.is_pair_card && candidate.counts == Some(0);
        match kept.last_mut() {
            Some(first) if silent && first_is_free => {
                notes.push(format!(
                    "{} is the second die of the card of {}, which counts the energy of both: it is not read",
                    candidate.device.id, first.device.id
                ));
                first.device.name.push_str(" (both dies)");
                // The limit stands on the first die too.
                first_is_free = false;
            }
            _ if silent => notes.push(format!(
                "{} ({}) counts 0 uJ and follows no die that counts for both: it is not read",
                candidate.device.id, candidate.device.name
            )),
            _ => {
                first_is_free = candidate.is_pair_card;
                kept.push(candidate);
            }
        }
    }
    kept
}

/// What is known of cards that count wrongly.
pub(super) fn warn(device: &Device, notes: &mut Vec<String>) {
    if device.name.contains("MI100") {
        notes.push(format!(
            "{} ({}): counters of this model are known to be wrong until a reboot; compare counter and power with \
             `energylens doctor`",
            device.id, device.name
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::EnergySource;
    use crate::source::Scope;

    #[test]
    fn a_count_is_two_to_the_minus_sixteen_joules_exactly() {
        // 65,536 counts are 1 J; 2^32 counts are 65,536 J; one count is 15.26 uJ, of which 15 whole.
        for (counts, uj) in [(0, 0), (1, 15), (65_536, 1_000_000), (1 << 32, 65_536_000_000), (131_071, 1_999_984)] {
            assert_eq!(counts_to_uj(counts), Some(uj), "{counts}");
        }
        assert_eq!(counts_to_uj(1 << 32), Some(MODULUS_32_BITS_UJ));
        assert_eq!(counts_to_uj(u64::MAX), None);
    }

    #[test]
    fn a_rounded_resolution_is_taken_for_the_true_one() {
        assert_eq!(scaled_to_uj(65_536, 15.3), Ok(1_000_000));
        assert_eq!(scaled_to_uj(65_536, 15.259), Ok(1_000_000));
        assert_eq!(scaled_to_uj(100, 1000.0), Ok(100_000));
        for garbage in [f32::NAN, f32::INFINITY, 0.0, -15.3] {
            assert!(scaled_to_uj(1, garbage).is_err(), "{garbage}");
        }
        assert!(scaled_to_uj(u64::MAX, 15.3).is_err() && scaled_to_uj(u64::MAX, 1e9).is_err());
    }

    fn candidate(number: u32, is_pair_card: bool, counts: Option<u64>) -> Candidate<u32> {
        let device = Device {
            id: format!("amd:{number}"),
            name: "AMD Instinct MI250X".to_owned(),
            scope: Scope::Gpu,
            energy_source: EnergySource::Counter,
            counter_modulus_uj: None,
            counter_step_uj: None,
            power_limit_w: None,
            memory_bytes: None,
        };
        Candidate { device, is_pair_card, counts, handle: number }
    }

    #[test]
    fn the_dies_of_a_card_are_counted_once() {
        let mut notes = Vec::new();
        // Two cards of two dies each; then a card whose dies both count, which a later driver may bring.
        let dies = [(0, 900), (1, 0), (2, 800), (3, 0), (4, 700), (5, 600)]
            .map(|(number, counts)| candidate(number, true, Some(counts)));
        let kept = join_dies(dies.into(), &mut notes);
        let names: Vec<_> = kept.iter().map(|c| (c.handle, c.device.name.contains("both dies"))).collect();
        assert_eq!(names, [(0, true), (2, true), (4, false), (5, false)]);
        assert_eq!(notes.len(), 2);
        assert!(notes[0].contains("amd:1 is the second die of the card of amd:0"), "{}", notes[0]);
    }

    #[test]
    fn a_silent_die_never_joins_a_die_that_is_joined_already() {
        let mut notes = Vec::new();
        let dies = [(0, 0), (1, 900), (2, 0), (3, 0)].map(|(number, counts)| candidate(number, true, Some(counts)));
        let kept = join_dies(dies.into(), &mut notes);
        assert_eq!(kept.iter().map(|c| c.handle).collect::<Vec<_>>(), [1]);
        assert_eq!(notes.iter().filter(|note| note.contains("follows no die")).count(), 2);
        // A fresh card of another kind may stand at 0.
        let fresh = [candidate(0, false, Some(0)), candidate(1, false, None)];
        assert_eq!(join_dies(fresh.into(), &mut Vec::new()).len(), 2);
    }
}
