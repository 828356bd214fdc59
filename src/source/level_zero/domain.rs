//! Which of a card's power domains may be read together.
//!
//! A driver lists domains that lie inside each other: the card, its package, each tile, the memory. Exactly one that
//! covers the card is read, the widest; only where there is none, the widest of each tile. Never both.

use super::abi::{self, Api, Code, Handle};

const UNKNOWN: u32 = 0;
const CARD: u32 = 1;
const PACKAGE: u32 = 2;
const STACK: u32 = 3;
const GPU: u32 = 5;

/// One power domain, as its driver describes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Domain {
    pub(super) handle: Handle,
    /// The tile, if it is one's.
    pub(super) tile: Option<u32>,
    kind: u32,
    /// Whether the driver calls it the card's domain.
    is_the_cards: bool,
    /// The highest of the limits in the properties, W.
    pub(super) limit_w: Option<f64>,
}

/// The domains of `device` that count energy. The second part is the first refusal, for a message.
pub(super) fn list(api: &Api, device: Handle) -> (Vec<Domain>, Option<Code>) {
    let mut refusal = None;
    let mut handles = abi::children(api.power_domains, device).unwrap_or_else(|code| {
        refusal = Some(code);
        Vec::new()
    });
    let mut the_cards = Handle::NULL;
    let found = api.card_power_domain.map(|query| abi::query(query, device, &mut the_cards));
    let the_cards = Some(the_cards).filter(|handle| matches!(found, Some(Ok(()))) && !handle.is_null());
    // Some drivers list the card's domain only there.
    if let Some(handle) = the_cards.filter(|handle| !handles.contains(handle)) {
        handles.push(handle);
    }
    let mut domains = Vec::new();
    for handle in handles {
        match describe(api, handle, the_cards == Some(handle)) {
            Ok(domain) => domains.push(domain),
            Err(code) => {
                refusal.get_or_insert(code);
            }
        }
    }
    (domains, refusal)
}

fn describe(api: &Api, handle: Handle, is_the_cards: bool) -> Result<Domain, Code> {
    let mut counter = abi::EnergyCounter::default();
    abi::query(api.energy_counter, handle, &mut counter)?;
    let mut extension = abi::PowerExtProperties::empty();
    let mut properties = abi::PowerProperties::empty();
    properties.next = (&raw mut extension).cast();
    let mut kind = UNKNOWN;
    if abi::query(api.power_properties, handle, &mut properties).is_ok() {
        kind = extension.domain;
    } else {
        // Drivers from before the extension refuse it.
        properties = abi::PowerProperties::empty();
        if abi::query(api.power_properties, handle, &mut properties).is_err() {
            properties = abi::PowerProperties::empty();
        }
    }
    // Milliwatts; -1 is unknown.
    let limit_mw = properties.default_limit.max(properties.max_limit);
    Ok(Domain {
        handle,
        tile: (properties.on_subdevice != 0).then_some(properties.subdevice_id),
        kind,
        is_the_cards,
        limit_w: (limit_mw > 0).then(|| f64::from(limit_mw) / 1e3),
    })
}

impl Domain {
    /// How much it covers, 0 most; `None` for parts (memory) and for kinds that a later interface may add.
    fn rank(&self) -> Option<u32> {
        match self.kind {
            CARD => Some(0),
            UNKNOWN if self.is_the_cards => Some(1),
            UNKNOWN => Some(2),
            PACKAGE => Some(3),
            STACK => Some(4),
            GPU => Some(5),
            _ => None,
        }
    }

    /// Whether it leaves out a part of the card, as far as the driver tells.
    pub(super) fn is_partial(&self) -> bool {
        matches!(self.kind, PACKAGE | STACK | GPU)
    }
}

/// The domains whose energies may be added: one of the card, else one of each tile in order.
pub(super) fn choose(domains: &[Domain]) -> Vec<Domain> {
    let widest = |of: Option<u32>| {
        let candidates = domains.iter().filter(|d| d.tile == of).filter_map(|d| Some((d.rank()?, d)));
        candidates.min_by_key(|(rank, _)| *rank).map(|(_, domain)| *domain)
    };
    if let Some(card) = widest(None) {
        return vec![card];
    }
    let mut tiles: Vec<u32> = domains.iter().filter_map(|d| d.tile).collect();
    tiles.sort_unstable();
    tiles.dedup();
    tiles.into_iter().filter_map(|tile| widest(Some(tile))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: u32 = 4;

    fn domain(tile: Option<u32>, kind: u32, is_the_cards: bool) -> Domain {
        Domain { handle: Handle::NULL, tile, kind, is_the_cards, limit_w: None }
    }

    fn chosen(domains: &[Domain]) -> Vec<(Option<u32>, u32)> {
        choose(domains).iter().map(|d| (d.tile, d.kind)).collect()
    }

    #[test]
    fn a_card_and_its_tiles_are_never_both_read() {
        let tiles = [domain(Some(0), STACK, false), domain(Some(1), STACK, false)];
        let card = [domain(None, PACKAGE, false), tiles[0], domain(None, CARD, false), tiles[1]];
        assert_eq!(chosen(&card), [(None, CARD)]);
        assert_eq!(chosen(&card[..2]), [(None, PACKAGE)], "a package still covers every tile");
        assert_eq!(chosen(&tiles), [(Some(0), STACK), (Some(1), STACK)]);
    }

    #[test]
    fn one_domain_of_each_tile_and_the_widest() {
        let domains = [
            domain(Some(1), GPU, false),
            domain(Some(0), MEMORY, false),
            domain(Some(0), STACK, false),
            domain(Some(1), PACKAGE, false),
        ];
        assert_eq!(chosen(&domains), [(Some(0), STACK), (Some(1), PACKAGE)]);
    }

    #[test]
    fn drivers_that_do_not_name_domains_are_believed_about_the_cards() {
        let plain = [domain(None, UNKNOWN, false), domain(None, UNKNOWN, true)];
        assert!(choose(&plain)[0].is_the_cards);
        assert_eq!(chosen(&[domain(None, UNKNOWN, false), domain(None, PACKAGE, true)]), [(None, UNKNOWN)]);
    }

    #[test]
    fn memory_alone_is_no_card() {
        assert!(choose(&[domain(None, MEMORY, false), domain(None, 77, false)]).is_empty());
    }
}
