//! What a compiled kernel takes of a multiprocessor, as the assembler reports it in its log.

use serde::{Deserialize, Serialize};

/// Resources of one kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of local memory of a thread: arrays that did not fit registers.
    pub stack: u32,
    /// Bytes that a thread writes to local memory for want of registers.
    pub spill_stores: u32,
    /// Bytes that it reads back.
    pub spill_loads: u32,
    /// Bytes of shared memory of a block that the code declares; dynamic shared memory comes on top.
    pub static_shared: u32,
    /// Barriers that are used.
    pub barriers: u32,
    /// Products of warpgroups that the assembler makes wait for each other, since something touches their registers.
    pub serialised: bool,
}

impl Resources {
    /// Whether something of a thread is in memory for want of registers.
    pub fn leaves_registers(&self) -> bool {
        self.stack > 0 || self.spill_stores > 0 || self.spill_loads > 0
    }
}

/// Reads the assembler's report on the kernel `name`; nothing if the log has none.
///
/// The lines are `Function properties for NAME`, `0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads` and
/// `Used 14 registers, used 1 barriers, 1024 bytes smem`; a part that is 0 may be missing.
pub(super) fn parse(log: &str, name: &str) -> Option<Resources> {
    // Its remarks on them have numbers of their own, C7510 and its neighbours.
    let mut resources = Resources { serialised: log.contains("(C75"), ..Resources::default() };
    let mut ours = false;
    for line in log.lines() {
        if let Some(kernel) = between(line, "Compiling entry function '", "'") {
            ours = kernel == name;
        }
        if !ours {
            continue;
        }
        if line.contains("bytes stack frame") {
            resources.stack = number_before(line, " bytes stack frame");
            resources.spill_stores = number_before(line, " bytes spill stores");
            resources.spill_loads = number_before(line, " bytes spill loads");
        }
        if line.contains("registers") && line.contains("Used ") {
            resources.registers = number_before(line, " registers");
            resources.barriers = number_before(line, " barriers");
            resources.static_shared = number_before(line, " bytes smem");
            return Some(resources);
        }
    }
    None
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = &line[line.find(before)? + before.len()..];
    rest.find(after).map(|end| &rest[..end])
}

/// The number that stands before these words; 0 if they are not there.
fn number_before(line: &str, words: &str) -> u32 {
    let before = line.find(words).map_or("", |at| &line[..at]);
    let digits = before.rfind(|c: char| !c.is_ascii_digit()).map_or(before, |at| &before[at + 1..]);
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'big' for 'sm_90a'
ptxas info    : Function properties for big
ptxas         .     800 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 48 registers, used 0 barriers, 800 bytes cumulative stack size
ptxas info    : Compiling entry function 'axpy' for 'sm_80'
ptxas info    : Function properties for axpy
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 14 registers, used 1 barriers, 1024 bytes smem, 368 bytes cmem[0]
";

    #[test]
    fn products_that_wait_for_each_other_are_noticed() {
        let remark =
            "ptxas info : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized";
        let read = |log: &str| parse(log, "big").expect("a report").serialised;
        assert!(!read(LOG));
        assert!(read(&format!("{remark}\n{LOG}")));
    }

    #[test]
    fn the_report_of_the_kernel_is_read() {
        let big = Resources {
            registers: 48,
            stack: 800,
            spill_stores: 16,
            spill_loads: 24,
            ..Resources::default()
        };
        assert_eq!(parse(LOG, "big"), Some(big));
        let axpy = Resources { registers: 14, static_shared: 1024, barriers: 1, ..Resources::default() };
        assert_eq!(parse(LOG, "axpy"), Some(axpy));
        assert_eq!(parse(LOG, "other"), None);
        assert_eq!(parse("", "axpy"), None);
    }
}
