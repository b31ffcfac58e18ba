//! NVIDIA's run-time compiler: CUDA C++ text to machine code (cubin) and PTX. Needs no GPU and no driver.
//!
//! A loader of its own, because the one of cudarc panics where the library is missing, gives PTX only, and reads error
//! codes into an enum that newer libraries go beyond.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::null_mut;

use super::library::{self, LibrarySpec, OpenLibrary, SearchPaths};
use super::resources::{self, Resources};
use crate::DeviceError;

const LIBRARY: LibrarySpec = LibrarySpec {
    name: "nvrtc",
    variable: "LINC_NVRTC",
    majors: library::CUDA_MAJORS,
    pip_folders: &["cu13", "cuda_nvrtc"],
    remedy: "pip install nvidia-cuda-nvrtc, or install the CUDA toolkit",
    companions: &["libnvrtc-builtins.so"],
};

/// Options of every compilation besides the architecture. `-v` has the assembler report registers and spills in the
/// log; line numbers cost no speed and let profilers show the source.
const OPTIONS: [&str; 3] = ["--std=c++17", "-lineinfo", "--ptxas-options=-v"];
/// Unknown to versions that have no cache.
const NO_CACHE: &str = "--no-cache";

type Handle = *mut c_void;
type Status = c_int;
type SizeOf = unsafe extern "C" fn(Handle, *mut usize) -> Status;
type CopyOf = unsafe extern "C" fn(Handle, *mut c_char) -> Status;

/// The functions that are called, as their header declares them.
struct Functions {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status,
    error_string: unsafe extern "C" fn(Status) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut Handle,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    destroy: unsafe extern "C" fn(*mut Handle) -> Status,
    compile: unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> Status,
    log: (SizeOf, CopyOf),
    cubin: (SizeOf, CopyOf),
    ptx: (SizeOf, CopyOf),
}

/// The compiler. One may serve many threads: each compilation is a program of its own.
pub struct Nvrtc {
    functions: Functions,
    version: (i32, i32),
    /// Owns the code behind `functions`.
    found: OpenLibrary,
}

/// Machine code of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cubin {
    /// The object file that a driver loads.
    pub bytes: Vec<u8>,
    /// What the kernel takes.
    pub resources: Resources,
}

impl Nvrtc {
    /// Finds and opens the library.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`]: where it was looked for, and what to install.
    pub fn open() -> Result<Nvrtc, DeviceError> {
        let unsupported = |e: String| DeviceError::Unsupported(format!("NVRTC, which compiles kernels: {e}"));
        let found = library::open(&LIBRARY, &SearchPaths::of_environment(&LIBRARY)).map_err(unsupported)?;
        let functions = functions(&found)
            .map_err(|e| unsupported(format!("{} is not NVRTC 12 or later: {e}", found.path.display())))?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both pointers are to live integers.
        unsafe { (functions.version)(&raw mut major, &raw mut minor) };
        Ok(Nvrtc { functions, version: (major, minor), found })
    }

    /// CUDA version of the library, major and minor.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// The file that was opened; a bare name if the system found it.
    pub fn path(&self) -> &Path {
        &self.found.path
    }

    /// All that the machine code depends on besides the source, in one line.
    pub(super) fn fingerprint(&self, arch: &str) -> String {
        let (major, minor) = self.version;
        format!("nvrtc {major}.{minor} {arch} {}", OPTIONS.join(" "))
    }

    /// Compiles the kernel `name` to machine code for an architecture such as `sm_90a`.
    ///
    /// # Errors
    /// [`DeviceError::Kernel`] with the compiler's log.
    pub fn cubin(&self, name: &str, source: &str, arch: &str) -> Result<Cubin, DeviceError> {
        let mut program = self.compile(name, source, arch, &[])?;
        let mut resources = resources::parse(&program.log(), name);
        if resources.is_none() {
            // Beside a driver, NVRTC 13 has a cache of its own, by the text without its comments, and no report on what
            // comes from it.
            if let Ok(again) = self.compile(name, source, arch, &[NO_CACHE]) {
                program = again;
                resources = resources::parse(&program.log(), name);
            }
        }
        let resources =
            resources.ok_or_else(|| failed(name, format!("the compiler's log has no entry point {name}")))?;
        let bytes = program.result(self.functions.cubin).map_err(|e| failed(name, e))?;
        Ok(Cubin { bytes, resources })
    }

    /// Compiles the kernel `name` to PTX for an architecture such as `sm_90a`.
    ///
    /// # Errors
    /// [`DeviceError::Kernel`] with the compiler's log.
    pub fn ptx(&self, name: &str, source: &str, arch: &str) -> Result<String, DeviceError> {
        let program = self.compile(name, source, &arch.replace("sm_", "compute_"), &[])?;
        let mut text = program.result(self.functions.ptx).map_err(|e| failed(name, e))?;
        while text.last() == Some(&0) {
            text.pop();
        }
        String::from_utf8(text).map_err(|e| failed(name, e.to_string()))
    }

    fn compile(
        &self,
        name: &str,
        source: &str,
        arch: &str,
        more: &[&str],
    ) -> Result<Program<'_>, DeviceError> {
        let text = |s: &str| CString::new(s).map_err(|_| failed(name, "the source has a 0 byte".into()));
        // What messages call the file: as the kernel's dump.
        let (source, file) = (text(source)?, text(&format!("{name}.cu"))?);
        let mut handle = null_mut();
        // SAFETY: the texts end with 0 and live over the call; there are no headers.
        let status = unsafe {
            (self.functions.create)(
                &raw mut handle,
                source.as_ptr(),
                file.as_ptr(),
                0,
                std::ptr::null(),
                std::ptr::null(),
            )
        };
        self.check(status).map_err(|e| failed(name, e))?;
        let program = Program { nvrtc: self, handle };
        let options = [format!("--gpu-architecture={arch}")];
        let options = options.iter().map(String::as_str).chain(OPTIONS).chain(more.iter().copied());
        let options: Vec<CString> = options.map(text).collect::<Result<_, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        // SAFETY: the program is live, and the options live over the call.
        let status =
            unsafe { (self.functions.compile)(program.handle, pointers.len() as c_int, pointers.as_ptr()) };
        match self.check(status) {
            Ok(()) => Ok(program),
            Err(error) => {
                let (major, minor) = self.version;
                let log = program.log();
                Err(failed(name, format!("NVRTC {major}.{minor} for {arch}: {error}\n{}", log.trim_end())))
            }
        }
    }

    fn check(&self, status: Status) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the function takes any number and returns a constant text or null.
        let text = unsafe {
            let text = (self.functions.error_string)(status);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        };
        Err(text.unwrap_or_else(|| format!("error {status}")))
    }
}

fn failed(kernel: &str, message: String) -> DeviceError {
    DeviceError::Kernel { kernel: kernel.to_string(), message }
}

/// A compilation with its results.
struct Program<'a> {
    nvrtc: &'a Nvrtc,
    handle: Handle,
}

impl Program<'_> {
    /// The bytes of a result.
    fn result(&self, (size, copy): (SizeOf, CopyOf)) -> Result<Vec<u8>, String> {
        let mut len = 0;
        // SAFETY: the program is live, and the pointer is to a live integer.
        self.nvrtc.check(unsafe { size(self.handle, &raw mut len) })?;
        let mut bytes = vec![0u8; len];
        // SAFETY: the buffer has as many bytes as the library just said.
        self.nvrtc.check(unsafe { copy(self.handle, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }

    /// What the compiler said; empty if it cannot be had.
    fn log(&self) -> String {
        let bytes = self.result(self.nvrtc.functions.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_string()
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle was created by this library and is not used any more.
        unsafe { (self.nvrtc.functions.destroy)(&raw mut self.handle) };
    }
}

fn functions(found: &OpenLibrary) -> Result<Functions, libloading::Error> {
    // SAFETY: the types are those of NVRTC's header, which have not changed since these functions exist; the pointers
    // are kept beside the library.
    unsafe {
        macro_rules! get {
            ($name:literal) => {
                *found.library.get(concat!($name, "\0").as_bytes())?
            };
        }
        Ok(Functions {
            version: get!("nvrtcVersion"),
            error_string: get!("nvrtcGetErrorString"),
            create: get!("nvrtcCreateProgram"),
            destroy: get!("nvrtcDestroyProgram"),
            compile: get!("nvrtcCompileProgram"),
            log: (get!("nvrtcGetProgramLogSize"), get!("nvrtcGetProgramLog")),
            cubin: (get!("nvrtcGetCUBINSize"), get!("nvrtcGetCUBIN")),
            ptx: (get!("nvrtcGetPTXSize"), get!("nvrtcGetPTX")),
        })
    }
}
