//! Machines without what a cage is made of.

use std::io;
use std::process::Command;

use super::Cage;

pub(super) fn check() -> Result<(), String> {
    Err("programs can be contained on Linux only, on x86-64 and 64-bit Arm processors".to_owned())
}

pub(super) fn hold(_: &Cage, _: &mut Command) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
