//! What batches do to the node.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

#[test]
fn published_measurements_of_llama_2_70b_on_a100_come_out_roughly() {
    // Splitwise traces (arXiv 2311.18677), batch of one, 512 in, 128 out: time to first token, time per token and watts
    // per GPU. An older engine with more launch overhead, hence the wide margin downwards on time per token.
    for (tensor_parallel, ttft_s, tpot_s, power_w) in [(2, 0.197, 0.0548, 294.0), (4, 0.127, 0.0450, 240.0)] {
        let node = quiet_node(A100);
        let (duration_s, energy_j, outcome) =
            served(&node, &request(llama_70b(), A100, (tensor_parallel, 1, 1), (1, 512, 128)));
        let mean_power_w = energy_j / duration_s / f64::from(tensor_parallel);
        let within = |found: f64, expected: f64, low: f64, high: f64| {
            assert!((low..high).contains(&(found / expected)), "t={tensor_parallel}: {found} against {expected}");
        };
        within(outcome.mean_ttft_s, ttft_s, 0.8, 1.25);
        within(outcome.mean_tpot_s.unwrap(), tpot_s, 0.55, 1.1);
        within(mean_power_w, power_w, 0.85, 1.2);
    }
}

#[test]
fn pipelining_does_not_shorten_the_decode_of_one_sequence() {
    let tpot =
        |layout| served(&quiet_node("MI300X"), &request(llama_70b(), "MI300X", layout, (1, 256, 64))).2.mean_tpot_s;
    let alone = tpot((1, 1, 1)).unwrap();
    for p in [2, 4, 8] {
        let pipelined = tpot((1, p, 1)).unwrap();
        assert!(pipelined > alone && pipelined < 1.2 * alone, "p={p}: {pipelined} against {alone}");
    }
}

#[test]
fn stages_without_work_only_wait() {
    // One sequence keeps one of eight stages busy: the mean power is an eighth of the way up.
    let node = quiet_node("MI300X");
    let mean_w = |layout: (u32, u32, u32)| {
        let (duration_s, energy_j, _) = served(&node, &request(llama_70b(), "MI300X", layout, (1, 64, 128)));
        energy_j / duration_s / f64::from(layout.0 * layout.1)
    };
    let waiting_w = physics::waiting_power_w(&Hardware::of(&gpu("MI300X")), 1.0);
    let share = (mean_w((1, 8, 1)) - waiting_w) / (mean_w((1, 1, 1)) - waiting_w);
    assert!((0.1..0.15).contains(&share), "{share}");
}

#[test]
fn batching_saves_energy_per_token_and_more_stages_cost_time_in_prefill() {
    let per_token = |batch| {
        served(&quiet_node(A100), &request(llama_70b(), A100, (4, 1, 1), (batch, 128, 128))).1 / f64::from(batch)
    };
    assert!(per_token(32) < per_token(1) / 8.0);
    // Four chunks of 2048 through p stages take (4 + p - 1)/4 of the ideal time.
    let prefill = |p| served(&quiet_node("MI300X"), &request(llama_70b(), "MI300X", (1, p, 1), (4, 2048, 1))).0;
    let speedup = prefill(2) / prefill(8);
    assert!((1.2..2.0).contains(&speedup), "ideal 4·5/11 = 1.8, found {speedup}");
}

#[test]
fn replicas_split_the_batch_and_an_idle_one_waits() {
    let node = quiet_node(A100);
    let (whole_s, _, _) = served(&node, &request(llama_70b(), A100, (2, 1, 1), (4, 256, 64)));
    let (split_s, _, outcome) = served(&node, &request(llama_70b(), A100, (2, 1, 2), (8, 256, 64)));
    assert!((split_s / whole_s - 1.0).abs() < 0.02, "{split_s} {whole_s}");
    assert_eq!(outcome.devices, ["sim:0", "sim:1", "sim:2", "sim:3"]);
    let lone = node.execute(&request(llama_70b(), A100, (2, 1, 2), (1, 256, 64))).unwrap();
    let energy = |d| node.true_energy_j(d, lone.t_begin_mono_ns, lone.t_end_mono_ns).unwrap();
    let seconds = crate::units::ns_to_s(lone.t_end_mono_ns - lone.t_begin_mono_ns);
    let waiting_w = physics::waiting_power_w(&Hardware::of(&gpu(A100)), 1.0);
    assert!((energy("sim:2") / seconds - waiting_w).abs() < 1e-6);
    assert!((energy("sim:7") / seconds - 60.0).abs() < 1e-6, "GPUs outside the deployment idle");
    assert!(energy("sim:0") > 1.5 * energy("sim:2"));
}

#[test]
fn sequences_beyond_the_cache_take_a_fractional_number_of_rounds() {
    // Two A100s hold 18 432 tokens of Llama-2-70B: (2·80e9·0.9 - 137.96e9) / 327 680.
    let node = quiet_node(A100);
    let at = |batch| served(&node, &request(llama_70b(), A100, (2, 1, 1), (batch, 512, 512)));
    let (fits_s, _, outcome) = at(18);
    assert_eq!(outcome.kv_capacity_tokens, Some(18_432.0));
    let durations: Vec<f64> = [19, 22, 27, 36, 54].map(|batch| at(batch).0 / fits_s).to_vec();
    // No jump to two rounds at the first sequence too many, and about n times the time for n times the cache.
    assert!((1.0..1.25).contains(&durations[0]), "{durations:?}");
    assert!(durations.windows(2).all(|w| w[0] < w[1]), "{durations:?}");
    assert!((1.5..2.4).contains(&durations[3]) && (2.2..3.6).contains(&durations[4]), "{durations:?}");
    assert!(at(54).2.mean_ttft_s > 5.0 * outcome.mean_ttft_s, "sequences that wait see their first token late");
    // Prefill alone never holds all caches at once, so it knows no rounds.
    let prefill = |batch| served(&node, &request(llama_70b(), A100, (2, 1, 1), (batch, 512, 1))).0;
    assert!((prefill(144) / prefill(72) - 2.0).abs() < 0.05);
}

#[test]
fn what_does_not_fit_is_refused_with_both_numbers() {
    let node = quiet_node(A100);
    let error = node.execute(&request(llama_70b(), A100, (1, 1, 1), (1, 16, 16))).unwrap_err();
    assert!(matches!(error, SimError::OutOfMemory { .. }));
    // 137.96e9 + 32·327 680 bytes against 72e9.
    assert!(error.to_string().contains("needs 128.5 GiB") && error.to_string().contains("67.1 GiB"), "{error}");
    let error = node.execute(&request(llama_70b(), A100, (8, 2, 1), (1, 16, 16))).unwrap_err();
    assert_eq!(error.to_string(), format!("16 GPUs of model {A100} are needed; the simulated node has 8"));
    let error = node.execute(&request(llama_70b(), "TPU", (1, 1, 1), (1, 16, 16))).unwrap_err();
    assert!(matches!(error, SimError::NotEnoughGpus { available: 0, .. }));
    for layout in [(3, 1, 1), (0, 1, 1), (1, 0, 1), (1, 81, 1), (1, 1, 0)] {
        let error = node.deploy(&request(llama_70b(), A100, layout, (1, 16, 16))).unwrap_err();
        assert!(matches!(error, SimError::InvalidParallelism { .. }), "{layout:?}: {error}");
    }
    for load in [(0, 16, 16), (1, 0, 16), (1, 16, 0)] {
        let error = node.execute(&request(llama_70b(), A100, (4, 1, 1), load)).unwrap_err();
        assert!(matches!(error, SimError::InvalidRequest { .. }), "{load:?}: {error}");
    }
    assert_eq!(node.now(), 0, "a refusal takes no time");
}

#[test]
fn a_node_may_mix_gpu_models() {
    let node = SimNode::new(&[(gpu(A100), 2), (gpu("H100-SXM5-80GB"), 2)], SimOptions::default());
    let outcome = node.execute(&request(llama_7b(), "h100-sxm5-80gb", (2, 1, 1), (4, 128, 16))).unwrap();
    assert_eq!(outcome.devices, ["sim:2", "sim:3"]);
}

#[test]
fn runs_differ_by_the_noise_and_equal_seeds_by_nothing() {
    let energies = |seed, run_noise| -> Vec<f64> {
        let node = SimNode::new(&[(gpu(A100), 4)], SimOptions { seed, run_noise, ..SimOptions::default() });
        let request = request(llama_7b(), A100, (1, 1, 1), (8, 256, 64));
        (0..200)
            .map(|_| {
                node.deploy(&request).unwrap();
                served(&node, &request).1
            })
            .collect()
    };
    assert_eq!(energies(7, 0.02), energies(7, 0.02));
    assert_ne!(energies(7, 0.02), energies(8, 0.02));
    let sample = energies(7, 0.05);
    let mean = sample.iter().sum::<f64>() / 200.0;
    let sd = (sample.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / 199.0).sqrt();
    // 200 draws give the deviation to 5 %; three of that.
    assert!((sd / mean - 0.05).abs() < 0.0075, "{}", sd / mean);
}

#[test]
fn one_deployment_keeps_its_noise() {
    let node = SimNode::new(&[(gpu(A100), 1)], SimOptions { run_noise: 0.2, seed: 3, ..SimOptions::default() });
    let request = request(llama_7b(), A100, (1, 1, 1), (8, 256, 64));
    let durations: Vec<f64> = (0..3).map(|_| served(&node, &request).0).collect();
    // Ripple moves the power, and the time only where the cap bites.
    assert!(durations.iter().all(|d| (d / durations[0] - 1.0).abs() < 0.02), "{durations:?}");
    node.deploy(&request).unwrap();
    assert!((served(&node, &request).0 / durations[0] - 1.0).abs() > 0.02);
}

#[test]
fn the_past_is_forgotten_only_when_every_reader_has_passed() {
    let node = quiet_node(A100);
    let clock = SimClock::starting_at(0);
    let source = node.source(clock.clone());
    let request = request(llama_7b(), A100, (1, 1, 1), (1, 64, 32));
    for _ in 0..20 {
        node.execute(&request).unwrap();
    }
    let before = node.remembered_stretches();
    node.forget();
    assert_eq!(node.remembered_stretches(), before);
    clock.sleep_until(node.now());
    node.forget();
    assert!(node.remembered_stretches() < before / 4);
    assert_eq!(node.true_energy_j("sim:0", 0, node.now()), None);
    drop(source);
    for _ in 0..2_000 {
        node.execute(&request).unwrap();
        node.forget();
    }
    assert!(node.remembered_stretches() < 100, "{}", node.remembered_stretches());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, rng_seed: RngSeed::Fixed(2), ..ProptestConfig::default() })]

    #[test]
    fn any_configuration_keeps_to_its_limits_and_a_larger_batch_is_never_faster(
        gpu_index in 0_usize..4,
        model in 0_usize..4,
        t_log in 0_u32..4, p_log in 0_u32..4,
        batch in 1_u32..300, input in 1_u32..6000, output in 1_u32..600,
    ) {
        let (t, p) = (1 << t_log, 1 << p_log.min(3 - t_log));
        let card = gpu(GPUS[gpu_index]);
        let model = [llama_70b(), llama_7b(), mixtral(), mamba()][model].clone();
        let node = quiet_node(GPUS[gpu_index]);
        let asked = request(model, GPUS[gpu_index], (t, p, 1), (batch, input, output));
        let Ok(outcome) = node.execute(&asked) else { return Ok(()) };
        let seconds = crate::units::ns_to_s(outcome.t_end_mono_ns - outcome.t_begin_mono_ns);
        prop_assert!(outcome.t_begin_mono_ns < outcome.t_first_token_mono_ns);
        prop_assert!(outcome.t_first_token_mono_ns <= outcome.t_end_mono_ns);
        prop_assert!(outcome.mean_ttft_s > 0.0 && outcome.mean_ttft_s <= seconds * 1.000_001);
        prop_assert_eq!(outcome.mean_tpot_s.is_some(), output > 1);
        for device in &outcome.devices {
            let energy_j = node.true_energy_j(device, outcome.t_begin_mono_ns, outcome.t_end_mono_ns).unwrap();
            let power_w = energy_j / seconds;
            prop_assert!(power_w >= card.idle_power_w && power_w <= card.power_limit_w * 1.000_001, "{}", power_w);
        }
        let larger = BatchRequest { batch_size: batch + 1 + batch / 8, ..asked };
        let (larger_s, _, _) = served(&node, &larger);
        // Ripple of 1 % in power moves capped durations a little.
        prop_assert!(larger_s > 0.98 * seconds, "{} sequences {}, more {}", batch, seconds, larger_s);
    }
}
