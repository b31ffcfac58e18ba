//! What can go wrong: a fault of the emulated kernel, or something around it.

use std::fmt;

/// What an emulated kernel did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// An access to global memory outside of the parameter.
    OutOfBounds,
    /// An access, to global or shared memory, whose address is not a multiple of its size.
    Misaligned,
    /// A write to a parameter that the tile program only reads.
    ReadOnly,
    /// A read of a parameter that the tile program only writes.
    WriteOnly,
    /// An access to shared memory behind the kernel's `shared_bytes`.
    SharedBounds,
    /// A read of shared memory that the block has not written.
    Uninitialised,
    /// Two threads of a block at one word of shared memory, one of them to write it, with no barrier in between.
    SharedRace,
    /// The same for an element of global memory.
    GlobalRace,
    /// Two blocks at one element of global memory, one of them to write it.
    BlockRace,
    /// An access to shared memory that an asynchronous copy is under way to.
    CopyPending,
    /// A thread that ends with asynchronous copies under way or not committed.
    CopyUnfinished,
    /// Lanes of a warp, or threads of a warpgroup, that do not come to the same operation.
    Divergence,
    /// A matrix descriptor that means nothing.
    Descriptor,
    /// A product of a warpgroup with no fence behind what its operands or registers were written by.
    Unfenced,
    /// Registers that are changed while a product reads them, or a thread that ends with products under way.
    ProductPending,
    /// A barrier that some threads do not come to.
    Barrier,
    /// An mbarrier that is none, is used before others know of it, whose phase nobody ends, or that is overwritten.
    Mbarrier,
    /// Parameters in the kernel's text that are not those of the tile program.
    Signature,
    /// A signal: the kernel follows a pointer itself, overflows its stack or divides by zero.
    Crash,
    /// The launch did not end within [`LaunchOptions::seconds`](crate::LaunchOptions::seconds).
    Timeout,
    /// The emulator's two halves do not understand each other.
    Protocol,
}

impl FaultKind {
    const NAMES: [(&str, FaultKind); 21] = [
        ("out-of-bounds", FaultKind::OutOfBounds),
        ("misaligned", FaultKind::Misaligned),
        ("read-only", FaultKind::ReadOnly),
        ("write-only", FaultKind::WriteOnly),
        ("shared-bounds", FaultKind::SharedBounds),
        ("uninitialised", FaultKind::Uninitialised),
        ("shared-race", FaultKind::SharedRace),
        ("global-race", FaultKind::GlobalRace),
        ("block-race", FaultKind::BlockRace),
        ("copy-pending", FaultKind::CopyPending),
        ("copy-unfinished", FaultKind::CopyUnfinished),
        ("divergence", FaultKind::Divergence),
        ("descriptor", FaultKind::Descriptor),
        ("unfenced", FaultKind::Unfenced),
        ("product-pending", FaultKind::ProductPending),
        ("barrier", FaultKind::Barrier),
        ("mbarrier", FaultKind::Mbarrier),
        ("signature", FaultKind::Signature),
        ("crash", FaultKind::Crash),
        ("timeout", FaultKind::Timeout),
        ("protocol", FaultKind::Protocol),
    ];

    /// The kind that the runtime calls so.
    pub(crate) fn from_name(name: &str) -> Option<FaultKind> {
        FaultKind::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }
}

/// The first thing that an emulated kernel did wrong; the run ended there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its name, which finds its source.
    pub kernel: String,
    /// What kind of mistake.
    pub kind: FaultKind,
    /// The block that ran; none before the first.
    pub block: Option<[u32; 3]>,
    /// The thread at fault, if it is one.
    pub thread: Option<u32>,
    /// What happened, with address or parameter.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}", self.kernel)?;
        if let Some([x, y, z]) = self.block {
            write!(f, ", block ({x}, {y}, {z})")?;
        }
        if let Some(thread) = self.thread {
            write!(f, ", thread {thread}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Why a kernel could not be run to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel did something wrong.
    #[error("{0}")]
    Fault(Fault),
    /// The C++ compiler refused it.
    #[error("{what} does not compile:\n{message}")]
    Compile {
        /// A kernel, or the emulator's runtime.
        what: String,
        /// What the compiler says.
        message: String,
    },
    /// Buffers or options that do not fit the kernel.
    #[error("kernel {kernel}: {message}")]
    Launch {
        /// Its name, which finds its source.
        kernel: String,
        /// What does not fit.
        message: String,
    },
    /// A file or a process could not be handled.
    #[error("{0}")]
    System(String),
}

impl Error {
    /// The fault of the kernel, if it is one.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Error::Fault(fault) => Some(fault),
            Error::Compile { .. } | Error::Launch { .. } | Error::System(_) => None,
        }
    }
}
