//! What a GPU card does not say: how much of its rates a server reaches, and what an operation costs in joules.
//!
//! These constants are set by hand, not measured here. Energies per operation are chosen so that known operating points
//! come out: a large bf16 matrix product runs an A100, H100 or MI300X near its power limit, and Llama-2-70B at a batch
//! of one on A100s draws within 3 % of the Splitwise traces (arXiv 2311.18677) on two GPUs, 12 % on four and 24 % on
//! eight, where that older engine left the GPUs waiting for half of the time. Times to first token agree within 20 % there
//! from 512 to 2048 tokens. They are device totals: register files, caches and voltage conversion included, which is
//! why a byte of HBM costs 90 to 140 pJ here and not the 30 to 60 pJ of the memory stack alone.

use crate::card::{GpuCard, Vendor};
use crate::units::NS_PER_MS;

/// Smallest step of an energy counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantum {
    /// NVML counts millijoules.
    Millijoule,
    /// AMD's accumulator counts 2^-16 J (15.259 µJ).
    TwoPowMinus16Joule,
    /// Level Zero counts microjoules.
    Microjoule,
}

/// A GPU card together with the constants of its family.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hardware {
    pub(super) card: GpuCard,
    /// Share of the peak FLOP rate that wide, tall matrix products reach.
    pub(super) gemm_efficiency: f64,
    /// Share of the peak bandwidth that streaming reads reach.
    pub(super) bandwidth_efficiency: f64,
    /// Joules of one bf16 FLOP at full clock.
    pub(super) joules_per_flop: f64,
    /// Joules of one byte moved between memory and cores.
    pub(super) joules_per_byte: f64,
    /// Joules of one byte sent to another GPU, at the sender.
    pub(super) joules_per_link_byte: f64,
    /// Factor on the latency of a collective, NVLink with NCCL = 1.
    pub(super) collective_latency: f64,
    /// Power of a GPU that has clocks up and waits, W.
    pub(super) waiting_power_w: f64,
    /// Nominal refresh period of the energy counter, ns.
    pub(super) refresh_ns: i64,
    /// Step of the energy counter.
    pub(super) quantum: Quantum,
}

/// Share of the way from idle power to the limit that a clocked-up but waiting GPU draws. On eight A100s the Splitwise
/// traces draw 175 W at 0.4 TB/s a GPU; taking the bytes off leaves some 110 to 125 W of a 400 W limit.
const WAITING_SHARE: f64 = 0.13;

impl Hardware {
    /// The constants for `card`, by product name; an unknown product gets its maker's, scaled to its data sheet.
    pub(super) fn of(card: &GpuCard) -> Self {
        let name = card.gpu_model.to_ascii_uppercase();
        let is = |part: &str| name.contains(part);
        // Refresh periods: no public table per product exists (PETSc's manual gives 20 to 100 ms for NVML); these
        // spread over that range on purpose, so that everything downstream must learn the period.
        let (gemm, bandwidth, pj_flop, pj_byte, refresh_ms) = match card.vendor {
            Vendor::Nvidia if is("A100") => (0.72, 0.86, 1.35, 125.0, 100),
            Vendor::Nvidia if is("H100") || is("H200") || is("GH200") => (0.68, 0.86, 0.95, 105.0, 50),
            Vendor::Nvidia if is("V100") => (0.65, 0.84, 1.9, 170.0, 20),
            // Smaller shares than NVIDIA's: about half of 1307 TFLOP/s and three quarters of 5.3 TB/s were reported
            // for 2024's libraries. Recalled, not checked again.
            Vendor::Amd if is("MI300") => (0.50, 0.74, 0.80, 92.0, 20),
            // Data Center GPU Max 1550, both stacks: about half of the peak rate, somewhat more of the bandwidth.
            // Recalled, not checked again.
            Vendor::Intel if is("PVC") || is("MAX 1550") => (0.46, 0.62, 1.05, 135.0, 40),
            Vendor::Nvidia => (0.68, 0.84, family_pj(card, 0.70), byte_pj(card), 100),
            Vendor::Amd => (0.50, 0.74, family_pj(card, 0.52), byte_pj(card), 20),
            Vendor::Intel => (0.46, 0.62, family_pj(card, 0.48), byte_pj(card), 40),
        };
        let (collective_latency, quantum) = match card.vendor {
            Vendor::Nvidia => (1.0, Quantum::Millijoule),
            Vendor::Amd => (1.4, Quantum::TwoPowMinus16Joule),
            Vendor::Intel => (2.0, Quantum::Microjoule),
        };
        Self {
            gemm_efficiency: gemm,
            bandwidth_efficiency: bandwidth,
            joules_per_flop: pj_flop * 1e-12,
            joules_per_byte: pj_byte * 1e-12,
            // Two memory touches and the serialiser; NVLink itself is near 10 pJ a byte.
            joules_per_link_byte: (1.5 * pj_byte + 10.0) * 1e-12,
            collective_latency,
            waiting_power_w: card.idle_power_w + WAITING_SHARE * (card.power_limit_w - card.idle_power_w),
            refresh_ns: refresh_ms * NS_PER_MS,
            quantum,
            card: card.clone(),
        }
    }
}

/// Picojoules per FLOP such that `share` of the peak rate takes 70 % of the power limit.
fn family_pj(card: &GpuCard, share: f64) -> f64 {
    0.7 * card.power_limit_w / (share * card.peak_flops) * 1e12
}

/// Picojoules per byte such that the full bandwidth takes 60 % of the power limit.
fn byte_pj(card: &GpuCard) -> f64 {
    0.6 * card.power_limit_w / card.memory_bandwidth_bytes_per_s * 1e12
}
