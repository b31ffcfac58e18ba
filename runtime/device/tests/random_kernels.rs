//! Random tile programs: generated code must give the interpreter's bits, whatever is fused, copied, or kept in place.

use crate::support::check_all;

#[test]
fn generated_code_is_exact() {
    let count: u64 = std::env::var("LINC_RANDOM_KERNELS").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    check_all((1..=count).map(linc_cases::random_kernel));
}
