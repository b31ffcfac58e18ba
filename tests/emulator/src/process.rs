//! A launch: one process that gets the buffers, runs all blocks, and gives the buffers back. A kernel that goes astray
//! takes its process with it and nothing else.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use linc_codegen_cuda::{CudaKernel, TensorMap};
use linc_tile::interp::Buffer;
use linc_tile::ir::{Elem, Mode, Param};

use crate::error::{Error, Fault, FaultKind};
use crate::report::Report;
use crate::toolchain::{Built, Emulator};

/// The order in which threads run, and blocks. Checks find what they find in any order; results of a wrong kernel
/// that no check finds may differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Each thread in turn, up to the next place where it waits.
    #[default]
    RoundRobin,
    /// The same from the last thread and block to the first.
    Reverse,
    /// The same in a permutation of threads and one of blocks, which the seed chooses; not 0.
    Permuted(u64),
    /// One warp as far as it can go, before the next; the seed permutes warps, lanes and blocks, 0 leaves them.
    Greedy(u64),
}

impl Order {
    /// One of each kind: what a test of a kernel runs.
    pub const ALL: [Order; 5] =
        [Order::RoundRobin, Order::Reverse, Order::Permuted(1), Order::Greedy(0), Order::Greedy(1)];
}

/// How to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchOptions {
    /// Order of threads and blocks.
    pub order: Order,
    /// Alignment of each pointer in bytes, powers of two from the element's size up: pointers are aligned to that and
    /// to no more. Empty: 256 for all, as memory comes from an allocator.
    pub alignment: Vec<u32>,
    /// The launch fails if it takes longer.
    pub seconds: u32,
}

impl Default for LaunchOptions {
    fn default() -> Self {
        LaunchOptions { order: Order::default(), alignment: vec![], seconds: 120 }
    }
}

impl LaunchOptions {
    /// The default with another order.
    pub fn ordered(order: Order) -> LaunchOptions {
        LaunchOptions { order, ..LaunchOptions::default() }
    }
}

impl Emulator {
    /// Builds one kernel and runs it: [`Emulator::build`], [`Built::run`].
    ///
    /// # Errors
    /// [`Error`]
    pub fn run(
        &self,
        kernel: &CudaKernel,
        params: &[Param],
        buffers: &mut [Buffer],
        options: &LaunchOptions,
    ) -> Result<Report, Error> {
        self.build(std::slice::from_ref(kernel))?.run(0, params, buffers, options)
    }
}

impl Built {
    /// Runs all blocks of the kernel at place `which` of those that were built. `params` are the parameters of its
    /// tile program; `buffers` has one for each, of its type; those of `write` and `readwrite` parameters change.
    ///
    /// # Errors
    /// [`Error::Fault`] with the first thing that the kernel does wrong, and buffers as they were; the other errors if
    /// it cannot be run.
    ///
    /// # Panics
    /// If there is no kernel at that place.
    pub fn run(
        &self,
        which: usize,
        params: &[Param],
        buffers: &mut [Buffer],
        options: &LaunchOptions,
    ) -> Result<Report, Error> {
        let (key, kernel) = &self.kernels[which];
        check(kernel, params, buffers, options)
            .map_err(|message| Error::Launch { kernel: kernel.name.clone(), message })?;
        let mut input = request(key, kernel, params, buffers, options).into_bytes();
        for buffer in &*buffers {
            append(&mut input, buffer);
        }
        let system = |error: std::io::Error| Error::System(format!("{}: {error}", self.program.display()));
        let mut child = Command::new(&self.program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(system)?;
        // It reads everything before it writes anything. If it ends early, its output says why.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(&input);
        }
        let output = child.wait_with_output().map_err(system)?;
        if !output.status.success() {
            return Err(fault(kernel, &output.stdout).map_or_else(
                || Error::System(format!("kernel {}: the process ended with {}", kernel.name, output.status)),
                Error::Fault,
            ));
        }
        response(&output.stdout, params, buffers)
            .ok_or_else(|| Error::System(format!("kernel {}: an incomplete response", kernel.name)))
    }
}

/// Everything that the runtime relies on.
fn check(
    kernel: &CudaKernel,
    params: &[Param],
    buffers: &[Buffer],
    options: &LaunchOptions,
) -> Result<(), String> {
    if kernel.threads == 0 || !kernel.threads.is_multiple_of(32) || kernel.threads > 1024 {
        return Err(format!("{} threads: expected a multiple of 32 up to 1024", kernel.threads));
    }
    if params.len() != buffers.len() {
        return Err(format!("{} parameters, but {} buffers", params.len(), buffers.len()));
    }
    if !options.alignment.is_empty() && options.alignment.len() != params.len() {
        return Err(format!("{} parameters, but {} alignments", params.len(), options.alignment.len()));
    }
    if options.order == Order::Permuted(0) {
        return Err("Order::Permuted(0): a permutation needs another seed than 0".into());
    }
    for (i, (param, buffer)) in params.iter().zip(buffers).enumerate() {
        let size = match (param.elem, buffer) {
            (Elem::F32, Buffer::F32(_)) | (Elem::I32, Buffer::I32(_)) => 4,
            (Elem::Bf16, Buffer::Bf16(_)) | (Elem::F16, Buffer::F16(_)) => 2,
            _ => return Err(format!("parameter {} is {:?}, but its buffer is not", param.name, param.elem)),
        };
        let alignment = options.alignment.get(i).copied().unwrap_or(256);
        if !alignment.is_power_of_two() || alignment < size {
            return Err(format!("parameter {}: an alignment of {alignment} bytes", param.name));
        }
    }
    Ok(())
}

/// The launch as one line, which `read_request` in `host/runtime.cpp` reads; the buffers' bytes follow it.
fn request(
    key: &str,
    kernel: &CudaKernel,
    params: &[Param],
    buffers: &[Buffer],
    options: &LaunchOptions,
) -> String {
    let CudaKernel { threads, shared_bytes, grid: [x, y, z], .. } = kernel;
    let (order, seed) = match options.order {
        Order::RoundRobin => ("round-robin", 0),
        Order::Reverse => ("reverse", 0),
        Order::Permuted(seed) => ("permuted", seed),
        Order::Greedy(seed) => ("greedy", seed),
    };
    let (seconds, count, maps) = (options.seconds, params.len(), kernel.maps.len());
    let mut line =
        format!("{key} {x} {y} {z} {threads} {shared_bytes} {order} {seed} {seconds} {count} {maps}");
    for (i, (param, buffer)) in params.iter().zip(buffers).enumerate() {
        let mode = match param.mode {
            Mode::Read => "read",
            Mode::Write => "write",
            Mode::ReadWrite => "readwrite",
        };
        let elem = match param.elem {
            Elem::F32 => 'f',
            Elem::Bf16 => 'b',
            Elem::F16 => 'h',
            Elem::I32 | Elem::Index | Elem::Bool => 'i',
        };
        let alignment = options.alignment.get(i).copied().unwrap_or(256);
        // Writing to a string cannot fail.
        let _ = write!(line, " {mode} {elem} {} {alignment} {}", buffer.len(), param.name);
    }
    for TensorMap { param, stride, rows, columns, .. } in &kernel.maps {
        let _ = write!(line, " {param} {stride} {rows} {columns}");
    }
    line.push('\n');
    line
}

fn append(bytes: &mut Vec<u8>, buffer: &Buffer) {
    match buffer {
        Buffer::F32(data) => bytes.extend(data.iter().flat_map(|x| x.to_ne_bytes())),
        Buffer::F64(data) => bytes.extend(data.iter().flat_map(|x| x.to_ne_bytes())),
        Buffer::Bf16(data) | Buffer::F16(data) => bytes.extend(data.iter().flat_map(|x| x.to_ne_bytes())),
        Buffer::I32(data) => bytes.extend(data.iter().flat_map(|x| x.to_ne_bytes())),
    }
}

/// Fills a buffer from the front of `bytes`, and takes that off.
fn take(bytes: &mut &[u8], buffer: &mut Buffer) -> Option<()> {
    fn fill<T, const N: usize>(bytes: &mut &[u8], data: &mut [T], value: fn([u8; N]) -> T) -> Option<()> {
        let (own, rest) = bytes.split_at_checked(data.len() * N)?;
        for (x, bytes) in data.iter_mut().zip(own.as_chunks().0) {
            *x = value(*bytes);
        }
        *bytes = rest;
        Some(())
    }
    match buffer {
        Buffer::F32(data) => fill(bytes, data, f32::from_ne_bytes),
        Buffer::F64(data) => fill(bytes, data, f64::from_ne_bytes),
        Buffer::Bf16(data) | Buffer::F16(data) => fill(bytes, data, u16::from_ne_bytes),
        Buffer::I32(data) => fill(bytes, data, i32::from_ne_bytes),
    }
}

/// What `write_response` in `host/runtime.cpp` has written: counts, then the buffers that the kernel may write.
fn response(output: &[u8], params: &[Param], buffers: &mut [Buffer]) -> Option<Report> {
    const END: &[u8] = b"\ndata\n";
    let at = output.windows(END.len()).position(|window| window == END)?;
    let report = Report::parse(std::str::from_utf8(&output[..at]).ok()?)?;
    let mut bytes = &output[at + END.len()..];
    let written = params.iter().zip(buffers).filter(|(param, _)| param.mode != Mode::Read);
    for (_, buffer) in written {
        take(&mut bytes, buffer)?;
    }
    bytes.is_empty().then_some(report)
}

/// What `fault` in `host/fault.h` has written.
fn fault(kernel: &CudaKernel, output: &[u8]) -> Option<Fault> {
    let text = String::from_utf8_lossy(output);
    let mut lines = text.splitn(4, '\n');
    let kind = FaultKind::from_name(lines.next()?.strip_prefix("fault ")?)?;
    let block: Vec<u32> =
        lines.next()?.strip_prefix("block ")?.split(' ').map(|w| w.parse().ok()).collect::<Option<_>>()?;
    let thread: Option<u32> = lines.next()?.strip_prefix("thread ")?.parse().ok();
    let block = if thread.is_some() { <[u32; 3]>::try_from(block).ok() } else { None };
    Some(Fault { kernel: kernel.name.clone(), kind, block, thread, what: lines.next()?.to_string() })
}
