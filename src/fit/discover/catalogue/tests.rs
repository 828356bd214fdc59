use super::*;
use crate::law::{Skeleton, Target};

#[test]
fn every_line_of_the_grammar_is_readable_and_no_term_stands_twice() {
    let physical: usize = FAMILIES.iter().map(|f| f.times.len()).sum();
    let all = catalogue();
    assert_eq!(all.iter().filter(|q| q.cost == 1).count(), physical);
    assert_eq!(all.iter().filter(|q| q.cost == 1 && q.prior.is_none()).count(), 0);
    for (i, q) in all.iter().enumerate() {
        let twins = all[..i].iter().filter(|o| o.group == q.group && distance(&o.product, &q.product) == 0.0);
        assert_eq!(twins.count(), 0, "{}", q.text);
    }
}

#[test]
fn the_energylens_law_can_be_said_in_this_grammar() {
    let all = catalogue();
    for term in Skeleton::default_for(Target::EnergyJ).terms {
        let says = |q: &&Quantity| q.group == term.group && distance(&q.product, &term.product) == 0.0;
        let said = all.iter().find(says).unwrap_or_else(|| panic!("{} is not in the grammar", term.title));
        assert_eq!(said.title, term.title);
        assert_eq!(said.prior, term.prior);
    }
}

#[test]
fn every_mechanism_has_forms_and_the_energylens_law_one_of_each() {
    let all = catalogue();
    for mechanism in Mechanism::ALL {
        assert!(all.iter().any(|q| q.cost == 1 && q.mechanisms.contains(&mechanism)), "{mechanism:?}");
    }
    assert!(all.iter().filter(|q| q.cost == 1).all(|q| q.mechanisms.len() <= 1));
    let of = |term: &crate::law::Term| {
        let said = all.iter().find(|q| q.group == term.group && distance(&q.product, &term.product) == 0.0);
        said.unwrap().mechanisms[0]
    };
    let mut said: Vec<Mechanism> = Skeleton::default_for(Target::EnergyJ).terms.iter().map(of).collect();
    said.sort_unstable();
    assert_eq!(said, Mechanism::ALL);
}

#[test]
fn distance_counts_powers() {
    let product = |text: &str| parse_product(text).unwrap();
    assert_eq!(distance(&product("N*B*S"), &product("N*B*S")), 0.0);
    assert_eq!(distance(&product("N*B*S"), &product("N*B*S^2")), 1.0);
    assert_eq!(distance(&product("L*m*w"), &product("L*m*w*t1*t^-1")), 2.0);
}
