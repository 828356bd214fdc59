//! The simulated node knows its true joules: phase-locked sampling, edges and windows must find them, as surely as they
//! say. Marks lie where batches begin and end, as a workload would set them.

use std::sync::Arc;

use energylens::agent::{Cadence, Sampler, SamplerOptions};
use energylens::card::{Architecture, GpuCard, ModelCard, Vendor};
use energylens::clock::SimClock;
use energylens::dataset::interval::{Collector, Window};
use energylens::dataset::unwrap::Unwrapper;
use energylens::source::sim::{BatchRequest, SimNode, SimOptions};

fn gpu(name: &str, vendor: Vendor, power_limit_w: f64, idle_power_w: f64) -> GpuCard {
    GpuCard {
        gpu_model: name.to_owned(),
        vendor,
        memory_bytes: 80e9,
        peak_flops: 312e12,
        memory_bandwidth_bytes_per_s: 2e12,
        link_bandwidth_bytes_per_s: 300e9,
        power_limit_w,
        idle_power_w,
    }
}

fn model() -> ModelCard {
    ModelCard {
        model: "meta-llama/Llama-3.1-8B".to_owned(),
        architecture: Architecture::Dense,
        params: 8.03e9,
        active_params: 8.03e9,
        n_layers: 32.0,
        hidden_size: 4096.0,
        kv_bytes_per_token: 131_072.0,
        num_experts: 0.0,
        experts_per_token: 0.0,
        bytes_per_weight: 2.0,
        ssm_share: 0.0,
    }
}

/// Deviations in units of the stated standard uncertainty, of every window long enough, and the mean relative std.
fn deviations(card: &GpuCard, cadence: Cadence, seed: u64) -> (Vec<f64>, f64) {
    let node = SimNode::new(&[(card.clone(), 2)], SimOptions { seed, ..SimOptions::default() });
    let mut windows = Vec::new();
    for (i, batch_size) in [1, 4, 16, 64].into_iter().enumerate() {
        let tensor_parallel = 1 + (i as u32 % 2);
        for output_tokens in [1, 64] {
            let request = BatchRequest {
                model: model(),
                gpu_model: card.gpu_model.clone(),
                tensor_parallel,
                pipeline_parallel: 1,
                data_parallel: 1,
                batch_size,
                input_tokens: 512,
                output_tokens,
            };
            node.idle(0.7 + 0.013 * seed as f64);
            let t_begin_ns = node.now();
            while node.now() < t_begin_ns + 1_500_000_000 {
                node.execute(&request).expect("it fits");
            }
            windows.push(Window { t_begin_ns, t_end_ns: node.now() });
        }
    }
    node.idle(1.0);
    let clock = SimClock::starting_at(0);
    let source = node.source(clock.clone());
    let mut sampler =
        Sampler::new(vec![Box::new(source)], Arc::new(clock), SamplerOptions { cadence, ..SamplerOptions::default() });
    let devices = sampler.devices();
    let mut samples = Vec::new();
    sampler.run_until(node.now(), &mut |row| samples.push(row));
    let (mut z, mut relative) = (Vec::new(), 0.0);
    for device in &devices {
        let mut unwrapper = Unwrapper::new(device.counter_modulus_uj, device.power_limit_w);
        let mut collector = Collector::new(&windows);
        for row in samples.iter().filter(|row| *row.device == *device.id) {
            let Some(counter_uj) = row.energy_counter_uj else { continue };
            if let Some((edge, gap)) = unwrapper.push(counter_uj, row.t_mono_ns, row.t_prev_poll_ns).edge() {
                assert_eq!(gap, None, "a healthy counter");
                collector.push(edge);
            }
        }
        for (window, result) in windows.iter().zip(collector.finish()) {
            let got = result.expect("recorded from before to after");
            let truth_j = node.true_energy_j(&device.id, window.t_begin_ns, window.t_end_ns).expect("remembered");
            z.push((got.energy_j - truth_j) / got.std_j);
            relative += got.std_j / got.energy_j;
        }
    }
    let n = z.len() as f64;
    (z, relative / n)
}

#[test]
fn the_true_joules_lie_within_the_stated_interval() {
    let cards = [
        gpu("A100-SXM4-80GB", Vendor::Nvidia, 400.0, 60.0),
        gpu("H100-SXM5-80GB", Vendor::Nvidia, 700.0, 75.0),
        gpu("MI300X", Vendor::Amd, 750.0, 140.0),
        gpu("Max 1550", Vendor::Intel, 600.0, 130.0),
    ];
    let cadences = [Cadence::PhaseLocked { resolution_ns: 1_000_000 }, Cadence::FixedRate { poll_hz: 200.0 }];
    let share = |z: &[f64]| z.iter().filter(|z| z.abs() <= 1.96).count() as f64 / z.len() as f64;
    let mut all = Vec::new();
    for cadence in cadences {
        for card in &cards {
            let mut z = Vec::new();
            for seed in 0..12 {
                let (more, relative_std) = deviations(card, cadence, seed);
                assert!(relative_std < 0.005, "{}: stated {relative_std} of 1.5 s windows", card.gpu_model);
                z.extend(more);
            }
            assert!((0.91..=0.995).contains(&share(&z)), "{} {cadence:?}: {}", card.gpu_model, share(&z));
            all.extend(z);
        }
    }
    assert!((0.93..=0.97).contains(&share(&all)), "{} of {}", share(&all), all.len());
}
