//! NVIDIA's library for exchanges between GPUs.
//!
//! A loader of its own: the one of cudarc does not find the file of the pip package, `libnccl.so.2`, panics where the library is
//! missing, and reads error codes into an enum that newer libraries go beyond.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Arc;

use cudarc::driver::sys::{CUdeviceptr, CUstream};

use super::library::{self, LibrarySpec, OpenLibrary, SearchPaths};
use crate::DeviceError;

const LIBRARY: LibrarySpec = LibrarySpec {
    name: "nccl",
    variable: "LINC_NCCL",
    majors: &[2],
    pip_folders: &["nccl"],
    remedy: "pip install nvidia-nccl-cu13 (beside a driver of CUDA 12: nvidia-nccl-cu12)",
    companions: &[],
};

/// The first version that splits communicators.
const OLDEST: [u32; 2] = [2, 18];
/// The first version in which ranks may share a GPU.
const SHARES: [u32; 2] = [2, 30];
/// The variable that lets them, and what it is set to for that.
pub(super) const SHARE_VARIABLE: (&str, &str) = ("NCCL_MULTI_RANK_GPU_ENABLE", "1");

type Status = c_int;
/// `ncclSuccess`
const SUCCESS: Status = 0;
/// `ncclInProgress`
const IN_PROGRESS: Status = 7;
/// `ncclUint8`: what moves is bytes.
const BYTES: c_int = 1;
/// `ncclFloat32`: what is added up.
const FLOATS: c_int = 7;
/// `ncclSum`
const SUM: c_int = 0;

type Handle = *mut c_void;

/// What the ranks of a communicator have in common, made by one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UniqueId([u8; UniqueId::BYTES]);

impl UniqueId {
    /// Its size.
    pub const BYTES: usize = 128;

    /// The bytes, for others to make the same of.
    pub fn bytes(&self) -> [u8; Self::BYTES] {
        self.0
    }

    /// Of another rank's bytes.
    pub fn of(bytes: [u8; Self::BYTES]) -> UniqueId {
        UniqueId(bytes)
    }
}

/// Declares the table of functions, whose names are NCCL's.
macro_rules! functions {
    ($($field:ident = $name:literal ($($argument:ty),*) -> $result:ty;)*) => {
        struct Functions {
            $($field: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            fn of(found: &OpenLibrary) -> Result<Functions, String> {
                Ok(Functions {
                    $($field: {
                        // SAFETY: the types are those of NCCL's header.
                        let symbol = unsafe {
                            found.library.get::<unsafe extern "C" fn($($argument),*) -> $result>($name.as_bytes())
                        };
                        *symbol.map_err(|_| format!("it has no {}", $name))?
                    },)*
                })
            }
        }
    };
}

functions! {
    unique_id = "ncclGetUniqueId" (*mut UniqueId) -> Status;
    error_string = "ncclGetErrorString" (Status) -> *const c_char;
    last_error = "ncclGetLastError" (Handle) -> *const c_char;
    init = "ncclCommInitRank" (*mut Handle, c_int, UniqueId, c_int) -> Status;
    split = "ncclCommSplit" (Handle, c_int, c_int, *mut Handle, *mut c_void) -> Status;
    abort = "ncclCommAbort" (Handle) -> Status;
    async_error = "ncclCommGetAsyncError" (Handle, *mut Status) -> Status;
    group_start = "ncclGroupStart" () -> Status;
    group_end = "ncclGroupEnd" () -> Status;
    send = "ncclSend" (CUdeviceptr, usize, c_int, c_int, Handle, CUstream) -> Status;
    receive = "ncclRecv" (CUdeviceptr, usize, c_int, c_int, Handle, CUstream) -> Status;
    all_gather = "ncclAllGather" (CUdeviceptr, CUdeviceptr, usize, c_int, Handle, CUstream) -> Status;
    all_reduce = "ncclAllReduce" (CUdeviceptr, CUdeviceptr, usize, c_int, c_int, Handle, CUstream) -> Status;
    reduce_scatter = "ncclReduceScatter" (CUdeviceptr, CUdeviceptr, usize, c_int, c_int, Handle, CUstream) -> Status;
}

/// The library. It stays open until the process ends: its threads outlive what is done with it.
pub struct Nccl {
    functions: Functions,
    version: [u32; 3],
    /// Owns the code behind `functions`.
    found: OpenLibrary,
}

impl Nccl {
    /// Finds and opens the library. Needs no GPU and no driver.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`]: where it was looked for, or that it is too old, and what to install.
    pub fn open() -> Result<Nccl, DeviceError> {
        let unsupported =
            |e: String| DeviceError::Unsupported(format!("NCCL, by which GPUs exchange between ranks: {e}"));
        let found = library::open(&LIBRARY, &SearchPaths::of_environment(&LIBRARY)).map_err(unsupported)?;
        let path = found.path.display();
        let stranger = |e: String| unsupported(format!("{path} is not NCCL: {e}"));
        let version = version_of(&found).map_err(stranger)?;
        if version[..2] < OLDEST[..] {
            let (LibrarySpec { remedy, variable, .. }, [a, b, c], [d, e]) = (&LIBRARY, version, OLDEST);
            return Err(unsupported(format!(
                "{path} is version {a}.{b}.{c}, which is too old: {d}.{e} is the first that does\n  help: {remedy}, or set {variable} to a newer one"
            )));
        }
        let functions = Functions::of(&found).map_err(stranger)?;
        Ok(Nccl { functions, version, found })
    }

    /// Major, minor and patch.
    pub fn version(&self) -> [u32; 3] {
        self.version
    }

    /// The file that was opened; a bare name if the system found it.
    pub fn path(&self) -> &Path {
        &self.found.path
    }

    /// Whether several ranks may have one GPU, where the environment lets them.
    pub(super) fn shares_gpus(&self) -> bool {
        self.version[..2] >= SHARES[..]
    }

    /// What a new communicator begins with, on one of its ranks.
    ///
    /// # Errors
    /// What the library says.
    pub fn unique_id(&self) -> Result<UniqueId, String> {
        let mut id = UniqueId([0; UniqueId::BYTES]);
        // SAFETY: the pointer is to a live id.
        let status = unsafe { (self.functions.unique_id)(&raw mut id) };
        self.check(status, null_mut()).map(|()| id)
    }

    /// The library's words for a status that is no success, of a communicator or of none.
    fn check(&self, status: Status, of: Handle) -> Result<(), String> {
        if status == SUCCESS || status == IN_PROGRESS {
            return Ok(());
        }
        // SAFETY: both functions give texts that stay; the communicator is live or null, which stands for the last call.
        let words = unsafe { [(self.functions.error_string)(status), (self.functions.last_error)(of)] };
        let words = words.map(|text| {
            if text.is_null() {
                return String::new();
            }
            // SAFETY: the texts end in 0.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
        });
        let [error, last] = words;
        Err(if last.is_empty() { error } else { format!("{error} ({last})") })
    }
}

fn version_of(found: &OpenLibrary) -> Result<[u32; 3], String> {
    // SAFETY: the type is that of NCCL's header.
    let symbol =
        unsafe { found.library.get::<unsafe extern "C" fn(*mut c_int) -> Status>(b"ncclGetVersion") };
    let function = symbol.map_err(|_| "it has no ncclGetVersion".to_owned())?;
    let mut code = 0;
    // SAFETY: the pointer is to a live integer.
    let status = unsafe { function(&raw mut code) };
    if status != SUCCESS {
        return Err(format!("ncclGetVersion fails with {status}"));
    }
    Ok(version_in(u32::try_from(code).unwrap_or(0)))
}

/// Versions up to 2.8 have one digit less for the major one.
fn version_in(code: u32) -> [u32; 3] {
    let major = if code < 10_000 { 1_000 } else { 10_000 };
    [code / major, code % major / 100, code % 100]
}

/// This rank's end of a communicator: ranks with a GPU each.
///
/// Nothing destroys it but an [abort](Communicator::abort): to leave in order is to wait for others, and it ends with the process.
#[derive(Clone)]
pub(super) struct Communicator {
    nccl: Arc<Nccl>,
    handle: Handle,
    size: usize,
    place: usize,
}

// SAFETY: an abort is what a communicator's other threads may call; all else stays on the thread that made it.
unsafe impl Send for Communicator {}

impl Communicator {
    /// Waits for the other ranks, of which this is number `place`. The context of its GPU is bound.
    pub(super) fn connect(
        nccl: &Arc<Nccl>,
        id: UniqueId,
        place: usize,
        size: usize,
    ) -> Result<Communicator, String> {
        let mut handle = null_mut();
        // SAFETY: the pointer is to a live handle.
        let status = unsafe { (nccl.functions.init)(&raw mut handle, size as c_int, id, place as c_int) };
        nccl.check(status, null_mut())?;
        Ok(Communicator { nccl: Arc::clone(nccl), handle, size, place })
    }

    /// The communicator of those that give the same number, which all ranks of this one call alike: this rank is member `place` of
    /// `size`.
    pub(super) fn split(&self, number: usize, place: usize, size: usize) -> Result<Communicator, String> {
        let (mut handle, functions) = (null_mut(), &self.nccl.functions);
        // SAFETY: the communicator is live; the pointer is to a live handle; no configuration is handed over.
        let status = unsafe {
            (functions.split)(self.handle, number as c_int, place as c_int, &raw mut handle, null_mut())
        };
        self.check(status)?;
        Ok(Communicator { nccl: Arc::clone(&self.nccl), handle, size, place })
    }

    /// Queues that each member's `bytes` at `from` come to their place in `to`, everywhere.
    ///
    /// # Safety
    /// Both places have the bytes on the GPU, which nobody else touches until the stream is through; the stream is the GPU's.
    pub(super) unsafe fn all_gather(
        &self,
        from: CUdeviceptr,
        to: CUdeviceptr,
        bytes: usize,
        stream: CUstream,
    ) -> Result<(), String> {
        // SAFETY: as the caller vouches.
        let status = unsafe { (self.nccl.functions.all_gather)(from, to, bytes, BYTES, self.handle, stream) };
        self.check(status)
    }

    /// Queues that part i of `from` goes to member i, and what member j sends comes to part j of `to`; this rank's own part is left
    /// to the caller.
    ///
    /// # Safety
    /// As [`Communicator::all_gather`]: both places have a part of so many bytes for each member.
    pub(super) unsafe fn all_to_all(
        &self,
        from: CUdeviceptr,
        to: CUdeviceptr,
        bytes: usize,
        stream: CUstream,
    ) -> Result<(), String> {
        let functions = &self.nccl.functions;
        // SAFETY: a group is begun and ended here, whatever comes in between.
        self.check(unsafe { (functions.group_start)() })?;
        let queued = (1..self.size).try_for_each(|step| {
            let (next, last) = ((self.place + step) % self.size, (self.place + self.size - step) % self.size);
            let at = |start: CUdeviceptr, member: usize| start + (member * bytes) as CUdeviceptr;
            // SAFETY: as the caller vouches, for the parts of these members.
            unsafe {
                let to_next = at(from, next);
                self.check((functions.send)(to_next, bytes, BYTES, next as c_int, self.handle, stream))?;
                let of_last = at(to, last);
                self.check((functions.receive)(of_last, bytes, BYTES, last as c_int, self.handle, stream))
            }
        });
        // SAFETY: the group was begun above.
        let ended = self.check(unsafe { (functions.group_end)() });
        queued.and(ended)
    }

    /// Queues that `to` has the sum of all members' floats at `from`, everywhere, in an order of NCCL's.
    ///
    /// # Safety
    /// As [`Communicator::all_gather`]: both places have so many bytes, and may be one.
    pub(super) unsafe fn all_reduce(
        &self,
        from: CUdeviceptr,
        to: CUdeviceptr,
        bytes: usize,
        stream: CUstream,
    ) -> Result<(), String> {
        let (reduce, count) = (self.nccl.functions.all_reduce, bytes / size_of::<f32>());
        // SAFETY: as the caller vouches.
        self.check(unsafe { reduce(from, to, count, FLOATS, SUM, self.handle, stream) })
    }

    /// Queues that `to` has the sum of all members' parts at this one's place in `from`, in an order of NCCL's.
    ///
    /// # Safety
    /// As [`Communicator::all_gather`]: `to` has so many bytes, and `from` as many for each member.
    pub(super) unsafe fn reduce_scatter(
        &self,
        from: CUdeviceptr,
        to: CUdeviceptr,
        bytes: usize,
        stream: CUstream,
    ) -> Result<(), String> {
        let (reduce, count) = (self.nccl.functions.reduce_scatter, bytes / size_of::<f32>());
        // SAFETY: as the caller vouches.
        self.check(unsafe { reduce(from, to, count, FLOATS, SUM, self.handle, stream) })
    }

    /// What has gone wrong since, if anything.
    pub(super) fn async_error(&self) -> Result<(), String> {
        let mut error = SUCCESS;
        // SAFETY: the communicator is live; the pointer is to a live number.
        let status = unsafe { (self.nccl.functions.async_error)(self.handle, &raw mut error) };
        self.check(status)?;
        self.check(error)
    }

    /// Ends what is under way, whose kernels may wait for ever. May itself not come back.
    pub(super) fn abort(&self) {
        // SAFETY: the communicator is live, and used by nothing after.
        unsafe { (self.nccl.functions.abort)(self.handle) };
    }

    fn check(&self, status: Status) -> Result<(), String> {
        self.nccl.check(status, self.handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_of_two_kinds() {
        for (code, version) in [(23_203, [2, 32, 3]), (21_800, [2, 18, 0]), (2_804, [2, 8, 4]), (0, [0; 3])] {
            assert_eq!(version_in(code), version);
        }
        assert!([2, 8] < OLDEST && OLDEST < SHARES && [2, 32] > SHARES);
    }
}
