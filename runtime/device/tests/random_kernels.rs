//! Random tile programs: generated code must give the interpreter's bits, whatever is fused, copied, or kept in place.

use crate::support::{check, devices};

#[test]
fn generated_code_is_exact() {
    let count: u64 = std::env::var("LINC_RANDOM_KERNELS").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let mut devices = devices();
    for seed in 1..=count {
        check(&mut devices, &linc_cases::random_kernel(seed));
    }
}
