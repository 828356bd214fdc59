use super::super::case::tests::llama_70b;
use super::*;

#[test]
fn the_energylens_law_has_twelve_parameters_and_its_sibling_predicts_times() {
    let energy = Skeleton::default_for(Target::EnergyJ);
    assert_eq!((energy.terms.len(), energy.exponents.len()), (8, 4));
    assert_eq!(energy.parameter_count(), 12);
    assert_eq!(Skeleton::builtin().len(), 2);
    assert_eq!(Skeleton::default_for(Target::MeanTpotS).target, Target::MeanTpotS);
}

#[test]
fn contributions_are_the_formula_worked_by_hand() {
    let law = Skeleton::default_for(Target::EnergyJ);
    let case = llama_70b(4.0, 2.0, 100.0, 10.0);
    let (k, a) = ([1e-3, 1e-12, 1e-12, 1e-12, 1e-12, 1e-12, 1e-12, 1e-3], [0.5, 0.0, -0.5, 0.0]);
    let got = law.contributions(&k, &a, &case);
    let want = [
        1e-3 * 80.0_f64.powf(0.7) * 4.0 * 10.0,
        1e-12 * 69e9 * 2.0 * 100.0 * 2.0,
        1e-12 * 80.0 * 8192.0 * 2.0 * 1e4 * 2.0,
        1e-12 * 138e9 * 10.0 * 0.5,
        1e-12 * 69e9 * 2.0 * 10.0 * 0.5,
        1e-12 * 327_680.0 * 2.0 * 105.0 * 10.0 * 0.5,
        1e-12 * 80.0 * 8192.0 * 2.0 * 110.0 * 3.0,
        1e-3 * 80.0 * 10.0,
    ];
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= 1e-12 * w, "k{i}: {g} is not {w}");
    }
}

#[test]
fn prefill_and_decode_add_up_to_the_batch() {
    let law = Skeleton::default_for(Target::EnergyJ);
    let whole = llama_70b(4.0, 300.0, 2000.0, 500.0);
    let part = |phase| law.products(&Case { phase, ..whole });
    for ((all, prefill), decode) in part(Phase::Total).into_iter().zip(part(Phase::Prefill)).zip(part(Phase::Decode)) {
        assert!((all - prefill - decode).abs() <= 1e-9 * all);
    }
}

#[test]
fn replicas_multiply_energy_and_leave_times_alone() {
    let one = llama_70b(4.0, 8.0, 500.0, 50.0);
    let two = Case { data_parallel: 2.0, ..one };
    let energy = Skeleton::default_for(Target::EnergyJ);
    let time = Skeleton::default_for(Target::DurationS);
    assert_eq!(energy.products(&two)[1], 2.0 * energy.products(&one)[1]);
    assert_eq!(time.products(&two), time.products(&one));
}

#[test]
fn a_skeleton_beyond_measure_is_refused_before_it_is_fitted() {
    let good = Skeleton::default_for(Target::EnergyJ);
    let refused = |change: &dyn Fn(&mut Skeleton)| {
        let mut skeleton = good.clone();
        change(&mut skeleton);
        skeleton.check().map_err(|e| e.to_string())
    };
    let terms = |count: usize| {
        refused(&|s| s.terms = (0..count).map(|i| Term { name: format!("c{i}"), ..good.terms[0].clone() }).collect())
    };
    assert_eq!(terms(40), Ok(()));
    assert!(terms(300).unwrap_err().contains("has 300 terms; expected 40 at most"));
    let exponents = refused(&|s| {
        let more = (0..60).map(|i| ExponentSpec { name: format!("e{i}"), ..good.exponents[0].clone() });
        s.exponents.extend(more);
    });
    assert!(exponents.unwrap_err().contains("has 64 exponents; expected 40 at most"));
    let power = refused(&|s| s.terms[0].product[0].power = 40.0);
    assert!(power.unwrap_err().contains("term `k0` has L^40; expected powers from -10 to 10"));
    let factors = refused(&|s| s.terms[0].product = vec![good.terms[0].product[0]; 41]);
    assert!(factors.unwrap_err().contains("has 41 factors in term `k0`"));
    // A time's coefficient is an amount of nothing that anybody could state beforehand.
    let mut time = Skeleton::default_for(Target::DurationS);
    time.terms[0].prior = good.terms[0].prior;
    assert!(time.check().unwrap_err().to_string().contains("expected its resource alone"));
}

#[test]
fn a_wrong_skeleton_says_what_is_wrong() {
    let good = include_str!("../skeletons/energylens.toml");
    for (from, to, expected) in [
        ("L*h*B*S^2", "L*h*B*S^x", "is no power"),
        ("K*B*ctx*m", "K*B*ctxx*m", "did you mean `ctx`"),
        ("{ t = \"a1\", b = \"a2\" }", "{ t = \"a9\" }", "exponent `a9`, which is not listed"),
        ("{ t = \"a1\", b = \"a2\" }", "{ B = \"a1\" }", "expected one of t, p, u, i, b"),
        ("amount = 3.3", "amount = 0.0", "needs an amount above 0"),
        ("name = \"k1\"", "name = \"k0\"", "two terms are called `k0`"),
        ("low = -1.0", "low = 2.0", "needs low < high"),
        ("about =", "abuot =", "abuot"),
    ] {
        let message = Skeleton::from_toml(&good.replace(from, to)).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} should contain {expected:?}");
    }
}
