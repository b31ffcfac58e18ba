//! The functions of an MPI library that are used, and what the three binary interfaces differ in: the handles of the world, of
//! bytes, and of errors that are returned.
//!
//! Handles are C integers in MPICH's interface and pointers in the others. As arguments both travel in a register of a
//! pointer's size, of which a callee that takes an integer reads the lower half; a handle that is a pointer-sized number serves all.

use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

use libloading::Library;

use crate::comm::Launcher;

type Handle = *mut c_void;

/// A request, of any interface.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(16))]
pub(super) struct Request([usize; 2]);

/// A status, of any interface.
#[derive(Debug, Default)]
#[repr(C, align(16))]
pub(super) struct Status([u64; 16]);

/// Whose interface a library has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// That of the MPI 5 standard, in any library.
    Standard,
    /// MPICH's own.
    Mpich,
    /// Open MPI's own.
    OpenMpi,
}

/// Constants of an interface.
#[derive(Clone, Copy)]
struct Handles {
    world: Handle,
    byte: Handle,
    errors_return: Handle,
    /// `MPI_THREAD_FUNNELED`
    funneled: c_int,
    /// `MPI_ERR_TRUNCATE`
    truncate: c_int,
}

/// Declares the table of functions, whose names are MPI's.
macro_rules! functions {
    ($($field:ident = $name:literal ($($argument:ty),*);)*) => {
        struct Functions {
            $($field: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl Functions {
            fn of(library: &Library) -> Result<Functions, String> {
                Ok(Functions {
                    $($field: {
                        // SAFETY: the types are those of the MPI standard.
                        let symbol = unsafe {
                            library.get::<unsafe extern "C" fn($($argument),*) -> c_int>($name.as_bytes())
                        };
                        *symbol.map_err(|_| format!("it has no {}", $name))?
                    },)*
                })
            }
        }
    };
}

functions! {
    init_thread = "MPI_Init_thread" (*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int);
    finalize = "MPI_Finalize" ();
    abort = "MPI_Abort" (Handle, c_int);
    comm_rank = "MPI_Comm_rank" (Handle, *mut c_int);
    comm_size = "MPI_Comm_size" (Handle, *mut c_int);
    set_errhandler = "MPI_Comm_set_errhandler" (Handle, Handle);
    error_class = "MPI_Error_class" (c_int, *mut c_int);
    error_string = "MPI_Error_string" (c_int, *mut c_char, *mut c_int);
    library_version = "MPI_Get_library_version" (*mut c_char, *mut c_int);
    isend = "MPI_Isend" (*const c_void, c_int, Handle, c_int, c_int, Handle, *mut Request);
    irecv = "MPI_Irecv" (*mut c_void, c_int, Handle, c_int, c_int, Handle, *mut Request);
    test = "MPI_Test" (*mut Request, *mut c_int, *mut Status);
    get_count = "MPI_Get_count" (*const Status, Handle, *mut c_int);
}

/// An open library. It stays open until the process ends: MPIs do not like to be closed.
pub(super) struct Table {
    pub(super) family: Family,
    handles: Handles,
    functions: Functions,
}

/// More than `MPI_MAX_LIBRARY_VERSION_STRING` and `MPI_MAX_ERROR_STRING` of all interfaces.
const TEXT: usize = 16384;

impl Table {
    /// Of an open library with its file, whose name tells the standard's interface.
    ///
    /// # Errors
    /// The name of a function that it lacks.
    pub(super) fn of(library: Library, path: &Path) -> Result<Table, String> {
        // Its globals are the handles themselves.
        let global = |name: &str| -> Option<Handle> {
            // SAFETY: only the address is taken.
            let symbol = unsafe { library.get::<*mut c_void>(name.as_bytes()) };
            // SAFETY: the address is used while the library is open, which is until the process ends.
            symbol.ok().and_then(|symbol| unsafe { symbol.try_as_raw_ptr() })
        };
        let is_standard = path.file_name().is_some_and(|name| name.to_string_lossy().contains("mpi_abi"));
        let number = |handle: usize| ptr::without_provenance_mut::<c_void>(handle);
        let open_mpi = ["ompi_mpi_comm_world", "ompi_mpi_byte", "ompi_mpi_errors_return"].map(global);
        let (family, handles) = match open_mpi {
            _ if is_standard => {
                let (world, byte, errors_return) = (number(0x101), number(0x247), number(0x143));
                (Family::Standard, Handles { world, byte, errors_return, funneled: 1024, truncate: 15 })
            }
            [Some(world), Some(byte), Some(errors_return)] => {
                (Family::OpenMpi, Handles { world, byte, errors_return, funneled: 1, truncate: 15 })
            }
            _ => {
                let (world, byte) = (number(0x4400_0000), number(0x4c00_010d));
                let errors_return = number(0x5400_0001);
                (Family::Mpich, Handles { world, byte, errors_return, funneled: 1, truncate: 14 })
            }
        };
        let functions = Functions::of(&library)?;
        std::mem::forget(library);
        Ok(Table { family, handles, functions })
    }

    /// The MPI that the library belongs to, in words, unless ranks of this launcher find each other through it: the standard's
    /// interface may be anybody's, and what a library says of itself tells whose it is before MPI starts.
    pub(super) fn stranger_to(&self, launcher: Launcher) -> Option<&'static str> {
        let is_open_mpi = match self.family {
            Family::Standard => self.version().contains("Open MPI"),
            Family::Mpich => false,
            Family::OpenMpi => true,
        };
        match launcher {
            Launcher::OpenMpi if !is_open_mpi => Some("MPICH's kind"),
            Launcher::Mpich if is_open_mpi => Some("Open MPI"),
            Launcher::OpenMpi | Launcher::Mpich | Launcher::Slurm | Launcher::Torchrun => None,
        }
    }

    /// Starts MPI; this rank and how many there are. Errors are returned from now on.
    pub(super) fn init(&self) -> Result<(usize, usize), String> {
        let Handles { world, errors_return, funneled, .. } = self.handles;
        let (mut provided, mut rank, mut size) = (0, 0, 0);
        // SAFETY: as the standard has it; no arguments are handed over, and results are valid places.
        unsafe {
            let code =
                (self.functions.init_thread)(ptr::null_mut(), ptr::null_mut(), funneled, &mut provided);
            self.check(code)?;
            self.check((self.functions.set_errhandler)(world, errors_return))?;
            self.check((self.functions.comm_rank)(world, &mut rank))?;
            self.check((self.functions.comm_size)(world, &mut size))?;
        }
        Ok((usize::try_from(rank).unwrap_or(0), usize::try_from(size).unwrap_or(0)))
    }

    /// The library's words for a code that is no success.
    pub(super) fn check(&self, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        let (mut text, mut length) = (vec![0_u8; TEXT], 0);
        // SAFETY: the text has room for the longest message.
        unsafe { (self.functions.error_string)(code, text.as_mut_ptr().cast(), &mut length) };
        Err(words(&text, length))
    }

    /// Whether a code says that more has come than was to be received.
    pub(super) fn is_truncation(&self, code: c_int) -> bool {
        let mut class = 0;
        // SAFETY: the code is one that a function of the library gave; the result is a valid place.
        code != 0
            && unsafe { (self.functions.error_class)(code, &mut class) } == 0
            && class == self.handles.truncate
    }

    /// The first line of what the library says of itself, up to a comma.
    pub(super) fn version(&self) -> String {
        let (mut text, mut length) = (vec![0_u8; TEXT], 0);
        // SAFETY: the text has room for the longest version.
        unsafe { (self.functions.library_version)(text.as_mut_ptr().cast(), &mut length) };
        let text = words(&text, length);
        let line = text.lines().next().unwrap_or_default();
        let line = line.split(", ").next().unwrap_or_default().trim();
        line.split_whitespace().collect::<Vec<_>>().join(" ").replace("MPICH Version:", "MPICH")
    }

    /// # Safety
    /// The bytes stay as they are until the request is over.
    pub(super) unsafe fn isend(
        &self,
        from: *const c_void,
        bytes: usize,
        to: usize,
        tag: c_int,
        request: &mut Request,
    ) -> c_int {
        let Handles { world, byte, .. } = self.handles;
        // SAFETY: as the caller vouches; bytes and ranks are those of a C integer.
        unsafe { (self.functions.isend)(from, bytes as c_int, byte, to as c_int, tag, world, request) }
    }

    /// # Safety
    /// The bytes belong to the request until it is over.
    pub(super) unsafe fn irecv(
        &self,
        to: *mut c_void,
        bytes: usize,
        from: usize,
        tag: c_int,
        request: &mut Request,
    ) -> c_int {
        let Handles { world, byte, .. } = self.handles;
        // SAFETY: as the caller vouches; bytes and ranks are those of a C integer.
        unsafe { (self.functions.irecv)(to, bytes as c_int, byte, from as c_int, tag, world, request) }
    }

    /// Whether a request is over.
    ///
    /// # Safety
    /// The request was started and is not over.
    pub(super) unsafe fn test(&self, request: &mut Request, status: &mut Status) -> (c_int, bool) {
        let mut done = 0;
        // SAFETY: as the caller vouches.
        let code = unsafe { (self.functions.test)(request, &mut done, status) };
        (code, done != 0)
    }

    /// Bytes that a message had.
    pub(super) fn count(&self, status: &Status) -> usize {
        let mut count = 0;
        // SAFETY: the status is that of a receive that is over.
        unsafe { (self.functions.get_count)(status, self.handles.byte, &mut count) };
        usize::try_from(count).unwrap_or(0)
    }

    /// Ends all ranks.
    pub(super) fn abort(&self, code: u8) {
        // SAFETY: MPI was started.
        unsafe { (self.functions.abort)(self.handles.world, code.into()) };
    }

    /// Leaves MPI, when all ranks do.
    pub(super) fn finalize(&self) -> c_int {
        // SAFETY: MPI was started, and nothing is on its way.
        unsafe { (self.functions.finalize)() }
    }
}

fn words(text: &[u8], length: c_int) -> String {
    let length = usize::try_from(length).unwrap_or(0).min(text.len());
    String::from_utf8_lossy(&text[..length]).trim_end_matches(['\0', '\n']).to_owned()
}
