//! The host twin has the functions of `device.cu`, with the same signatures.

use std::collections::BTreeSet;

use linc_codegen_cuda::{COMMON_PRELUDE, DEVICE_PRELUDE};

/// What `device.cu` uses itself and kernels do not call.
const DEVICE_ONLY: [&str; 4] = ["widen", "pack", "load_narrow", "store_narrow"];
/// What the host has as templates and the device as text for the numbers of columns that a kernel needs.
const GENERATED: [&str; 2] = ["wgmma_bf16", "wgmma_f16"];

/// Signatures of the functions that are marked `LINC_INLINE`, with `template <..>` in front, without the names in `without`.
fn signatures(text: &str, without: &dyn Fn(&str) -> bool) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.contains("LINC_INLINE ") && !line.starts_with("#define"));
    let signature = |line: &str| line[..=line.rfind(") {").expect("a function on one line")].to_string();
    let name = |signature: &str| {
        let head = signature.split('(').next().unwrap_or_default();
        head.rsplit(' ').next().unwrap_or_default().to_string()
    };
    lines.map(signature).filter(|signature| !without(&name(signature))).collect()
}

#[test]
fn the_twins_have_the_same_functions() {
    let device = signatures(DEVICE_PRELUDE, &|name| DEVICE_ONLY.contains(&name));
    let host = signatures(include_str!("../host/emulator.h"), &|name| {
        name.starts_with("linc_") || GENERATED.contains(&name)
    });
    assert!(device.len() > 20, "only {} functions found", device.len());
    let differing: Vec<&String> = device.symmetric_difference(&host).collect();
    assert!(differing.is_empty(), "in one of device.cu and emulator.h only: {differing:#?}");
    assert!(signatures(COMMON_PRELUDE, &|_| false).is_disjoint(&device));
}
