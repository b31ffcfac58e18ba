//! What a run counted.

/// How memory was touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Loads to registers.
    Load,
    /// Stores from registers.
    Store,
    /// Asynchronous copies: reads of global memory, writes of shared memory.
    Copy,
    /// `load_matrices` and its transposed sister: reads of shared memory.
    Matrices,
}

/// An operation that the lanes of a warp, or the threads of a warpgroup, do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `shuffle_xor(value, mask)`: an exchange between lanes
    ShuffleXor,
    /// `shuffle(value, lane)`: a broadcast or gather between lanes
    Shuffle,
    /// `sync_warp()`: orders the memory accesses of a warp
    SyncWarp,
    /// `elected()`: one lane of a warp that issues a TMA copy
    Elected,
    /// `load_matrices`: ldmatrix of four 8×8 matrices
    LoadMatrices,
    /// `load_matrices_transposed`: ldmatrix.trans
    LoadMatricesTransposed,
    /// `mma_bf16` and `mma_f16`
    Mma,
    /// `wgmma_bf16` and `wgmma_f16`, by a whole warpgroup
    Wgmma,
    /// `copy_tile_async`, by one thread
    CopyTile,
}

/// The cost of accesses, each by a whole warp: sectors of 32 bytes in global memory, wavefronts in shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Instructions of a warp that touched memory.
    pub accesses: u64,
    /// Sectors or wavefronts.
    pub units: u64,
    /// The fewest that would do for the bytes.
    pub least: u64,
}

impl Traffic {
    /// Share of what was moved that was needed; 1 if nothing was.
    pub fn efficiency(&self) -> f64 {
        if self.units == 0 { 1.0 } else { self.least as f64 / self.units as f64 }
    }

    fn add(self, other: Traffic) -> Traffic {
        Traffic {
            accesses: self.accesses + other.accesses,
            units: self.units + other.units,
            least: self.least + other.least,
        }
    }
}

/// Sectors of global memory that accesses of one kind to one parameter moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Global {
    /// The parameter, by its place.
    pub parameter: usize,
    /// Load, store, copy or matrix load.
    pub access: Access,
    /// Sectors of 32 bytes, and how many would do.
    pub sectors: Traffic,
}

/// Wavefronts of shared memory that accesses of one kind took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Load, store, copy or matrix load.
    pub access: Access,
    /// Wavefronts, and how many would do.
    pub wavefronts: Traffic,
}

/// What one launch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// By parameter and kind; what did not happen is left out.
    pub global: Vec<Global>,
    /// By kind; what did not happen is left out.
    pub shared: Vec<Shared>,
    /// Operations of whole warps and warpgroups.
    pub operations: Vec<(Operation, u64)>,
    /// Barriers that blocks passed.
    pub barriers: u64,
    /// Changes from one thread to another: what a run costs here.
    pub switches: u64,
}

impl Report {
    /// Sectors of global memory that one kind of access moved, over all parameters.
    pub fn sectors(&self, access: Access) -> Traffic {
        self.sectors_of(access, |_| true)
    }

    /// The same over the parameters, by their places, that `counts` says.
    pub fn sectors_of(&self, access: Access, counts: impl Fn(usize) -> bool) -> Traffic {
        let of_kind = self.global.iter().filter(|g| g.access == access && counts(g.parameter));
        of_kind.fold(Traffic::default(), |sum, g| sum.add(g.sectors))
    }

    /// Wavefronts of shared memory that one kind of access took.
    pub fn wavefronts(&self, access: Access) -> Traffic {
        let of_kind = self.shared.iter().filter(|s| s.access == access);
        of_kind.fold(Traffic::default(), |sum, s| sum.add(s.wavefronts))
    }

    /// Wavefronts of shared memory above the least, over all kinds: bank conflicts.
    pub fn bank_conflicts(&self) -> u64 {
        self.shared.iter().map(|s| s.wavefronts.units - s.wavefronts.least).sum()
    }

    /// How often warps did an operation.
    pub fn count(&self, operation: Operation) -> u64 {
        self.operations.iter().filter(|(o, _)| *o == operation).map(|(_, count)| count).sum()
    }

    /// Reads what the runtime writes, up to the line `data`.
    pub(crate) fn parse(text: &str) -> Option<Report> {
        let mut report = Report::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |i: usize| words.get(i).and_then(|w| w.parse::<u64>().ok());
            let traffic = |i: usize| {
                Some(Traffic { accesses: number(i)?, units: number(i + 1)?, least: number(i + 2)? })
            };
            match *words.first()? {
                "global" => report.global.push(Global {
                    parameter: number(1)? as usize,
                    access: access(words.get(2)?)?,
                    sectors: traffic(3)?,
                }),
                "shared" => {
                    report.shared.push(Shared { access: access(words.get(1)?)?, wavefronts: traffic(2)? });
                }
                "operation" => report.operations.push((operation(words.get(1)?)?, number(2)?)),
                "barriers" => report.barriers = number(1)?,
                "switches" => report.switches = number(1)?,
                _ => return None,
            }
        }
        Some(report)
    }
}

fn access(word: &str) -> Option<Access> {
    Some(match word {
        "load" => Access::Load,
        "store" => Access::Store,
        "copy" => Access::Copy,
        "matrices" => Access::Matrices,
        _ => return None,
    })
}

fn operation(word: &str) -> Option<Operation> {
    Some(match word {
        "shuffle_xor" => Operation::ShuffleXor,
        "shuffle" => Operation::Shuffle,
        "load_matrices" => Operation::LoadMatrices,
        "load_matrices_transposed" => Operation::LoadMatricesTransposed,
        "mma" => Operation::Mma,
        "wgmma" => Operation::Wgmma,
        "sync_warp" => Operation::SyncWarp,
        "elected" => Operation::Elected,
        "copy_tile" => Operation::CopyTile,
        _ => return None,
    })
}
