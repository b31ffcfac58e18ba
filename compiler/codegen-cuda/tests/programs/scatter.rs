//! Elements that go to places, or come from addresses, which the program computes.

use linc_tile::interp::Buffer;

use super::{b, f, frac, one};

/// What is scattered meets what the rounds before, other threads and plain stores left there.
#[test]
fn rounds_are_ordered() {
    one(
        "scatter_rounds",
        "kernel k(p: read i32, x: read f32, y: readwrite f32) grid(1, 1, 1) {
  %o: index = const 0
  %1: index = const 1
  %3: index = const 3
  %p: i32[300] = load p[%o; 1]
  %x: f32[300] = load x[%o; 1]
  %last: f32[300] = for %i in %o..%3 step %1 carry(%c = %x) {
    scatter y[%i], %c at %p
    %y: f32[300] = load y[%1; 1]
    %z: f32[300] = add %y, %x
    store y[%i; 1], %z
    scatter y[%1], %x at %p
    %w: f32[300] = load y[%i; 1]
    yield %w
  }
  store y[%3; 1], %last
}",
        vec![
            Buffer::I32((0..300).map(|i| if i % 7 == 3 { -1 } else { (i * 37 + 5) % 301 }).collect()),
            f(300, frac),
            f(304, |_| 0.5),
        ],
    );
}

#[test]
fn elements_of_every_type_go_backwards() {
    one(
        "scatter_bf16",
        "kernel k(x: read bf16, n: readwrite i32, y: write bf16) grid(2, 1, 1) {
  %o: index = const 0
  %pid: index = program_id 0
  %96: index = const 96
  %at: index = mul %pid, %96
  %x: bf16[96] = load x[%at; 1]
  %i: i32[96] = iota axis 0
  %f: f32[96] = cast %i
  %95: f32 = const 95.0
  %l: f32[96] = splat %95
  %r: f32[96] = sub %l, %f
  %p: i32[96] = cast %r
  scatter y[%at], %x at %p
  scatter n[%at], %i at %p
}",
        vec![b(192, frac), Buffer::I32(vec![7; 192]), b(192, |_| 0.0)],
    );
}

#[test]
fn a_quarter_of_four_is_no_aligned_address() {
    one(
        "float_address",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %4: i32 = const 4
  %f: f32 = cast %4
  %q: f32 = const 0.25
  %p: f32 = mul %f, %q
  %i: i32 = cast %p
  %at: index = cast %i
  %x: f32[64] = load x[%at; 1]
  store y[%o; 1], %x
}",
        vec![f(80, frac), f(64, |_| 0.0)],
    );
}
