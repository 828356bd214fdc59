//! What every deployment spends energy on.
//!
//! A GPU that draws no static power, a decode that reads no weights, a kernel that is launched for nothing are not to be
//! had. What is in doubt is the form of each (with which degrees, waves and micro-batches it grows), not that it is there.

use crate::law::TermGroup;

/// A cause of energy that no deployment is without. Its forms are the quantities of the grammar that name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Mechanism {
    /// Power that is drawn whatever is done.
    Static,
    /// Arithmetic of the prompt.
    PrefillArithmetic,
    /// Attention of the prompt to itself.
    PrefillAttention,
    /// Weights that come from memory.
    WeightsRead,
    /// Arithmetic of the answer.
    DecodeArithmetic,
    /// The cache that each step reads.
    CacheRead,
    /// What GPUs send each other, or wait for.
    Communication,
    /// Launches, and work of the host.
    Overhead,
}

impl Mechanism {
    /// Every mechanism, in the order in which a law lists its terms.
    pub(super) const ALL: [Self; 8] = [
        Self::Static,
        Self::PrefillArithmetic,
        Self::PrefillAttention,
        Self::WeightsRead,
        Self::DecodeArithmetic,
        Self::CacheRead,
        Self::Communication,
        Self::Overhead,
    ];

    /// What a product with picked powers may stand for: whatever has no power of its own in its phase.
    pub(super) fn of_unknown_cause(group: TermGroup) -> &'static [Self] {
        match group {
            TermGroup::Prefill => &[Self::PrefillArithmetic, Self::PrefillAttention],
            TermGroup::Decode => &[Self::WeightsRead, Self::DecodeArithmetic, Self::CacheRead],
            TermGroup::Static | TermGroup::Communication | TermGroup::Overhead => &[Self::Static, Self::Overhead],
        }
    }
}
