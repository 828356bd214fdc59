//! Which counters must never be added: those of which one may cover what the other covers.

use super::Scope;

impl Scope {
    /// Whether a counter of this scope covers what a counter of scope `inner` on the same node covers, or may do so.
    pub fn contains(self, inner: Self) -> bool {
        use Scope::{Cpu, CpuPackage, Dram, Gpu, GpuSlot, GpuTile, Memory, Module, Node, Rail};
        match self {
            Node => inner != Node,
            Module => !matches!(inner, Node | Module),
            GpuSlot => matches!(inner, Gpu | GpuTile),
            Gpu => inner == GpuTile,
            Cpu => matches!(inner, CpuPackage | Rail),
            CpuPackage => inner == Rail,
            Memory => inner == Dram,
            Dram | GpuTile | Rail => false,
        }
    }

    /// Whether counters of two different scopes may count the same joules; then their sum means nothing.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// The scope in words, for one counter.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Gpu => "GPU",
            Self::Module => "module",
            Self::CpuPackage => "CPU package",
            Self::Dram => "memory domain",
            Self::GpuTile => "GPU tile",
            Self::GpuSlot => "accelerator slot",
            Self::Cpu => "CPU domain",
            Self::Memory => "memory",
            Self::Rail => "supply rail",
            Self::Node => "whole node",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Scope; 10] = [
        Scope::Gpu,
        Scope::Module,
        Scope::CpuPackage,
        Scope::Dram,
        Scope::GpuTile,
        Scope::GpuSlot,
        Scope::Cpu,
        Scope::Memory,
        Scope::Rail,
        Scope::Node,
    ];

    #[test]
    fn containment_is_a_strict_order() {
        for a in ALL {
            assert!(!a.contains(a));
            for b in ALL {
                assert!(!(a.contains(b) && b.contains(a)), "{} and {}", a.describe(), b.describe());
                for c in ALL {
                    assert!(!(a.contains(b) && b.contains(c)) || a.contains(c), "{}", a.describe());
                }
            }
        }
    }

    #[test]
    fn what_must_not_be_added_overlaps_and_the_rest_does_not() {
        let overlapping = [
            (Scope::Module, Scope::Gpu),
            (Scope::Module, Scope::CpuPackage),
            (Scope::Node, Scope::GpuSlot),
            (Scope::GpuSlot, Scope::Gpu),
            (Scope::Gpu, Scope::GpuTile),
            (Scope::Cpu, Scope::CpuPackage),
            (Scope::CpuPackage, Scope::Rail),
            (Scope::Memory, Scope::Dram),
        ];
        for (a, b) in overlapping {
            assert!(a.overlaps(b) && b.overlaps(a), "{} and {}", a.describe(), b.describe());
        }
        // RAPL's package does not count its memory; a GPU is no part of a CPU.
        for (a, b) in [(Scope::CpuPackage, Scope::Dram), (Scope::Gpu, Scope::CpuPackage), (Scope::Gpu, Scope::Gpu)] {
            assert!(!a.overlaps(b), "{} and {}", a.describe(), b.describe());
        }
    }
}
