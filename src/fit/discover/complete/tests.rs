use super::*;
use crate::fit::discover::tests::fifty_rows;
use crate::fit::discover::{ground, write};
use crate::law::Skeleton;

fn found(seed: u64) -> (Ground, Skeleton, Complete) {
    let options = DiscoverOptions { seed, ..DiscoverOptions::default() };
    let ground = ground(&fifty_rows(seed), &options).unwrap();
    let complete = search(&ground, &options, 2).unwrap();
    let skeleton = write::skeleton(&ground, &complete.judged.candidate.genome, "complete");
    (ground, skeleton, complete)
}

#[test]
fn each_mechanism_has_one_term_and_each_phase_its_powers() {
    let (ground, skeleton, complete) = found(1);
    let genome = &complete.judged.candidate.genome;
    // A product with picked powers may stand for several.
    let said = |mechanism: &Mechanism| {
        let of = |g: &&Gene| ground.quantities[g.quantity].mechanisms == [*mechanism];
        genome.genes.iter().filter(of).count()
    };
    let counts: Vec<usize> = Mechanism::ALL.iter().map(said).collect();
    // Rows may deny one or another; none has two terms.
    assert!(counts.iter().all(|n| *n <= 1), "{counts:?}");
    assert!((7..=8).contains(&genome.genes.len()) && skeleton.parameter_count() <= 12, "{skeleton:?}");
    // Prefill arithmetic and weights make most of the energy of these rows.
    assert_eq!((counts[1], counts[3]), (1, 1));
    // The error is that of all dealings, and what there was to pick from is many laws.
    assert!(complete.judged.error.sqrt() < 0.04, "{}", complete.judged.error.sqrt());
    assert!(complete.picked > 8.0, "{}", complete.picked);
}

#[test]
fn a_turn_changes_one_thing_and_takes_every_form() {
    let ground = ground(&fifty_rows(2), &DiscoverOptions::default()).unwrap();
    let space = Space::new(&ground);
    let shape = space.draw(&ground, &mut ChaCha8Rng::seed_from_u64(0));
    for slot in 0..space.slots() {
        let turned = space.turn(&shape, slot);
        let expected = space.forms.get(slot).map_or(space.powers.len(), Vec::len);
        assert_eq!((turned.len(), turned.iter().filter(|t| **t == shape).count()), (expected, 1), "slot {slot}");
        let differs = |t: &Shape| {
            let forms = t.forms.iter().zip(&shape.forms).filter(|(a, b)| a != b).count();
            forms + t.powers.iter().zip(&shape.powers).filter(|(a, b)| a != b).count()
        };
        assert!(turned.iter().all(|t| differs(t) <= 1));
    }
}

#[test]
fn a_form_with_picked_powers_pays_for_being_picked() {
    let ground = ground(&fifty_rows(2), &DiscoverOptions::default()).unwrap();
    let space = Space::new(&ground);
    let shape = space.draw(&ground, &mut ChaCha8Rng::seed_from_u64(0));
    assert_eq!(space.picked(&ground, &shape), 0.0, "a draw has forms that physics asks for");
    let slot = Mechanism::ALL.iter().position(|m| *m == Mechanism::PrefillArithmetic).unwrap();
    let picked: Vec<usize> = space.forms[slot].iter().copied().filter(|q| ground.quantities[*q].cost == 2).collect();
    let mut other = shape.clone();
    other.forms[slot] = picked.first().copied();
    let expected = (picked.len() as f64).ln() + 0.5 * 50.0_f64.ln();
    assert!((space.picked(&ground, &other) - expected).abs() < 1e-12);
}

#[test]
fn fewer_terms_than_mechanisms_leave_no_complete_law() {
    let ground = ground(&fifty_rows(1), &DiscoverOptions::default()).unwrap();
    let options = DiscoverOptions { max_terms: 7, ..DiscoverOptions::default() };
    assert!(search(&ground, &options, 1).is_none());
    // Nor does a search whose time is over: what it had found depends on the clock.
    let options = DiscoverOptions { stop: &|| true, ..DiscoverOptions::default() };
    assert!(search(&ground, &options, 1).is_none());
}

#[test]
fn nearest_is_nearest_to_the_weighted_mean() {
    let (ground, _, complete) = found(1);
    let whole = complete.judged.candidate.genome;
    let without = |place: usize| {
        let mut genome = whole.clone();
        genome.genes.remove(place);
        genome.canonical(&ground)
    };
    let alone = Genome { genes: vec![whole.genes[0]], ..Genome::default() }.canonical(&ground);
    let (one, other) = (without(whole.genes.len() - 1), without(whole.genes.len() - 2));
    let nearest = |weights: [f64; 4]| {
        let genomes = [&alone, &one, &whole, &other];
        let weighed: Vec<(&Genome, f64)> = genomes.into_iter().zip(weights).collect();
        consensus::nearest(&ground, &weighed, 5, 2)
    };
    assert_eq!(nearest([1.0, 0.0, 0.0, 0.0]), Some(0));
    assert_eq!(nearest([0.0, 0.0, 0.0, 1.0]), Some(3));
    // A law of one term is far from all others.
    assert_ne!(nearest([1.0, 1.0, 1.0, 1.0]), Some(0));
    assert_eq!(consensus::nearest(&ground, &[], 5, 2), None);
}
