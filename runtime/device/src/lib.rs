//! Machines that run plans: one trait, with the CPU and NVIDIA GPUs behind it.
//!
//! Invariants: this is the only crate with `unsafe`; a plan is checked before any of its code runs, so that every pointer
//! a step gets lies inside the arena; results do not depend on the number of threads. What a kernel does within the
//! buffers it is given is the compiler's promise, which the tile interpreter checks in tests.
//!
//! To add a primitive: a variant of `linc_codegen_cpu::Primitive` with its signature, a body over lanes in
//! `cpu/primitives/`, a line in the macro of `cpu/primitives/mod.rs`. To add a machine: a module that implements
//! [`Device`].

#![allow(
    unsafe_code,
    reason = "generated code, vector instructions and raw memory are what this crate is for"
)]

mod allocator;
pub mod available_memory;
mod choice;
pub mod comm;
pub mod cpu;
pub mod cuda;
mod device;
mod folder;
mod load;
mod normal;
pub mod process;
pub mod sandbox;
pub mod signals;
pub mod threads;
pub mod words;

pub use allocator::Allocator;
pub use choice::{Choice, Opened};
pub use device::{Arena, Device, DeviceError, Program, Progress};
pub use folder::{cache_folder, touch_entry, trim_folder, write_entry, write_to_disk};
pub use load::{Load, NOISY};
pub use normal::{CutNormal, RandomStream};
