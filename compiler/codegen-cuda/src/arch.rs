//! The GPUs that code is generated for.

/// A family of GPUs that code is generated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    /// Ampere: A100.
    Sm80,
    /// Ada: L40, RTX 40.
    Sm89,
    /// Hopper without what only Hopper has: TMA copies, and products of warps as before.
    Sm90,
    /// Hopper with its own instructions: H100, H200.
    Sm90a,
}

impl Arch {
    /// All, oldest first.
    pub const ALL: [Arch; 4] = [Arch::Sm80, Arch::Sm89, Arch::Sm90, Arch::Sm90a];

    /// The name that NVRTC knows it by, `sm_80`.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Sm80 => "sm_80",
            Arch::Sm89 => "sm_89",
            Arch::Sm90 => "sm_90",
            Arch::Sm90a => "sm_90a",
        }
    }

    /// The architecture of that name.
    pub fn from_name(name: &str) -> Option<Arch> {
        Arch::ALL.into_iter().find(|a| a.name() == name)
    }

    /// Bytes of shared memory that one block may use at most.
    pub fn shared_bytes(self) -> u32 {
        match self {
            Arch::Sm80 => 163 << 10,
            Arch::Sm89 => 99 << 10,
            Arch::Sm90 | Arch::Sm90a => 227 << 10,
        }
    }

    /// Whether it has an engine that copies whole tiles.
    pub fn has_tensor_copies(self) -> bool {
        match self {
            Arch::Sm80 | Arch::Sm89 => false,
            Arch::Sm90 | Arch::Sm90a => true,
        }
    }

    /// Whether it has products of four warps together.
    pub fn has_warpgroups(self) -> bool {
        match self {
            Arch::Sm80 | Arch::Sm89 | Arch::Sm90 => false,
            Arch::Sm90a => true,
        }
    }
}
