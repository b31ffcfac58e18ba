//! Verified tile programs with what no kernel of the library has: names that the generated text uses itself, values
//! carried into addresses, windows that overlap from round to round, extreme numbers, odd operands of products. Each
//! gives the interpreter's values on the emulator.

mod harness;
mod scatter;

use linc_codegen_cuda::{Arch, Options, compile};
use linc_tile::interp::Buffer;

use harness::{Program, b, check, f, frac, one};

#[test]
fn programs() {
    let mut all = vec![];
    let mut one = |name: &str, text: &str, buffers| all.push(Program::new(name, text, buffers));
    one(
        "round_dropped",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %a: f32[64] = load x[%o; 1]
  %c: bf16[64] = cast %a
  %d: f32[64] = cast %c
  store y[%o; 1], %d
}",
        vec![f(64, |i| 1.0 + i as f64 / 1000.0), f(64, |_| 0.0)],
    );

    one(
        "f32_dot_of_bf16_load",
        "kernel k(x: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %a: bf16[16, 16] = load x[%o; 16, 1]
  %c: f32[16, 16] = cast %a
  %d: f32[16, 16] = dot %c, %c
  store y[%o; 16, 1], %d
}",
        vec![b(256, frac), f(256, |_| 0.0)],
    );

    one(
        "bf16_roundtrip_dot",
        "kernel k(x: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %a: bf16[16, 16] = load x[%o; 16, 1]
  %c: f32[16, 16] = cast %a
  %e: bf16[16, 16] = cast %c
  %d: f32[16, 16] = dot %a, %e
  store y[%o; 16, 1], %d
}",
        vec![b(256, frac), f(256, |_| 0.0)],
    );

    one(
        "carried_offset",
        "kernel k(x: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %one: index = const 1
  %n: index = const 3
  %step: index = const 256
  %z: f32 = const 0.0
  %init: f32[16, 16] = splat %z
  %r: f32[16, 16], %last: index = for %i in %o..%n step %one carry(%acc = %init, %off = %o) {
    %a: bf16[16, 16] = load x[%off; 16, 1]
    %d: f32[16, 16] = dot %a, %a, acc %acc
    %next: index = add %off, %step
    yield %d, %next
  }
  store y[%o; 16, 1], %r
}",
        vec![b(768, frac), f(256, |_| 0.0)],
    );

    one(
        "pair_dot",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %one: index = const 1
  %a: f32[16, 16] = load x[%o; 32, 2]
  %p: index = add %o, %one
  %b: f32[16, 16] = load x[%p; 32, 2]
  %d: f32[16, 16] = dot %a, %b
  store y[%o; 16, 1], %d
}",
        vec![f(512, frac), f(256, |_| 0.0)],
    );

    one(
        "scan_cancel",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %a: f32[64] = load x[%o; 1]
  %s: f32[64] = scan %a axis 0
  store y[%o; 1], %s
}",
        vec![f(64, |i| if i == 31 { 1e20 } else { 1.0 }), f(64, |_| 0.0)],
    );
    one(
        "scan_inf",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %a: f32[64] = load x[%o; 1]
  %s: f32[64] = scan %a axis 0
  store y[%o; 1], %s
}",
        vec![f(64, |i| if i == 31 { f64::NEG_INFINITY } else { 1.0 }), f(64, |_| 0.0)],
    );

    one(
        "transpose_i32",
        "kernel k(x: read i32, y: write i32) grid(1, 1, 1) {
  %o: index = const 0
  %a: i32[16, 16] = load x[%o; 16, 1]
  %s: i32[16, 16] = transpose %a
  store y[%o; 16, 1], %s
}",
        vec![Buffer::I32((0..256).map(|i| 16777217 + 2 * i).collect()), Buffer::I32(vec![0; 256])],
    );

    one(
        "name_rows",
        "kernel k(x: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %pid: index = program_id 0
  %five: index = const 5
  %rows: index = add %pid, %five
  %a: bf16[16, 16] = load x[%o; 16 < %rows, 1]
  %d: f32[16, 16] = dot %a, %a
  store y[%o; 16, 1], %d
}",
        vec![b(256, frac), f(256, |_| 0.0)],
    );
    one(
        "name_rows_cols",
        "kernel k(x: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %pid: index = program_id 0
  %eight: index = const 8
  %three: index = const 4
  %q: index = mul %pid, %eight
  %rows: index = add %q, %eight
  %r: index = add %pid, %three
  %a: bf16[16, 16] = load x[%o; 16 < %r, 1 < %rows]
  %d: f32[16, 16] = dot trans %a, %a
  store y[%o; 16, 1], %d
}",
        vec![b(256, frac), f(256, |_| 0.0)],
    );
    for n in 1..4 {
        one(
            &format!("name_temp{n}"),
            &format!(
                "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {{
  %o: index = const 0
  %b: f32[64] = load x[%o; 1]
  %y_{n}: f32[64] = add %b, %b
  store y[%o; 1], %y_{n}
}}"
            ),
            vec![f(64, frac), f(64, |_| 0.0)],
        );
    }
    one(
        "name_out",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %b: f32[64] = load x[%o; 1]
  %out: f32[64] = add %b, %b
  store y[%o; 1], %out
}",
        vec![f(64, frac), f(64, |_| 0.0)],
    );
    one(
        "name_out_scalar",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %b: f32[64] = load x[%o; 1]
  %out: f32 = sum %b axis 0
  store y[%o], %out
}",
        vec![f(64, frac), f(64, |_| 0.0)],
    );
    one(
        "name_sigmoid",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %b: f32[64] = load x[%o; 1]
  %sigmoid: f32[64] = sigmoid %b
  store y[%o; 1], %sigmoid
}",
        vec![f(64, frac), f(64, |_| 0.0)],
    );
    one(
        "name_stage",
        "kernel k(x: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %pid: index = program_id 0
  %one: index = const 1
  %n: index = const 3
  %z: f32 = const 0.0
  %c: index = const 256
  %m: index = mul %pid, %c
  %stage: index = add %m, %c
  %init: f32[16, 16] = splat %z
  %r: f32[16, 16] = for %i in %o..%n step %one carry(%acc = %init) {
    %off: index = mul %i, %stage
    %a: bf16[16, 16] = load x[%off; 16, 1]
    %d: f32[16, 16] = dot %a, %a, acc %acc
    yield %d
  }
  store y[%o; 16, 1], %r
}",
        vec![b(768, frac), f(256, |_| 0.0)],
    );
    one(
        "param_index",
        "kernel k(index: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = program_id 0
  %b: f32[64] = load index[%o; 1]
  store y[%o; 1], %b
}",
        vec![f(64, frac), f(64, |_| 0.0)],
    );
    one(
        "neg_const",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %m: f32 = const -1.5
  %b: f32 = neg %m
  store y[%o], %b
}",
        vec![f(64, frac), f(64, |_| 0.0)],
    );
    one(
        "const_overflow",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %m: index = const 65536
  %mm: index = mul %m, %m
  %d: index = div %mm, %m
  %i: i32 = cast %d
  %b: f32 = cast %i
  store y[%o], %b
}",
        vec![f(64, frac), f(64, |_| 0.0)],
    );
    one(
        "i32_wrap",
        "kernel k(x: read i32, y: write i32) grid(1, 1, 1) {
  %o: index = const 0
  %b: i32[64] = load x[%o; 1]
  %one: i32 = const 1
  %s: i32[64] = splat %one
  %c: i32[64] = add %b, %s
  %l: bool[64] = lt %b, %c
  %z: i32 = const 0
  %zz: i32[64] = splat %z
  %q: i32[64] = select %l, %s, %zz
  store y[%o; 1], %q
}",
        vec![Buffer::I32(vec![i32::MAX; 64]), Buffer::I32(vec![0; 64])],
    );
    one(
        "max_nan",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %s: index = const 64
  %b: f32[64] = load x[%o; 1]
  %z: f32 = const 0.0
  %zz: f32[64] = splat %z
  %m: f32[64] = max %zz, %b
  %r: f32 = reduce_max %b axis 0
  store y[%o; 1], %m
  store y[%s], %r
}",
        vec![f(64, |i| if i == 3 { f64::NAN } else { 1.0 }), f(65, |_| 0.0)],
    );
    one(
        "window_race",
        "kernel k(p: readwrite f32) grid(1, 1, 1) {
  %o: index = const 0
  %one: index = const 1
  %n: index = const 5
  %f: f32 = const 1.0
  %ff: f32[8, 128] = splat %f
  for %i in %o..%n step %one {
    %b: f32[8, 128] = load p[%i; 128, 1]
    %c: f32[8, 128] = add %b, %ff
    store p[%i; 128, 1], %c
  }
}",
        vec![f(1100, frac)],
    );
    one(
        "window_race_write",
        "kernel k(p: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %s: index = const 1
  %n: index = const 600
  %st: index = const 100
  for %i in %o..%n step %st {
    %ii: i32 = cast %i
    %f: f32 = cast %ii
    %ff: f32[8, 128] = splat %f
    store p[%i; 128, 1], %ff
  }
}",
        vec![f(2000, frac)],
    );
    one(
        "pieces_then_registers",
        "kernel k(x: read bf16, y: write bf16) grid(1, 1, 1) {
  %o: index = const 0
  %pid: index = program_id 0
  %t: index = const 13
  %n: index = add %pid, %t
  %a: bf16[16, 16] = load x[%o; 16, 1]
  %d: f32[16, 16] = dot %a, %a
  %e: bf16[16, 16] = cast %d
  %z: f32 = const 7.0
  %zz: f32[16, 16] = splat %z
  %zb: bf16[16, 16] = cast %zz
  store y[%o; 16, 1], %zb
  store y[%o; 16, 1 < %n], %e
}",
        vec![b(256, frac), b(256, |_| 0.0)],
    );
    one(
        "divisor",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %pid: index = program_id 0
  %t: index = const 2199023255551
  %m: index = mul %pid, %t
  %u: index = const 2199023255553
  %one: index = const 1
  %v: index = mul %u, %one
  %w: index = sub %v, %u
  %b: f32[64] = load x[%w; 1]
  store y[%o; 1], %b
}",
        vec![f(64, frac), f(64, |_| 0.0)],
    );
    one(
        "scalar_alias",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %a: f32 = load x[%o]
  %c: bf16 = cast %a
  %d: f32 = cast %c
  store y[%o], %d
}",
        vec![f(64, |_| 1.001), f(64, |_| 0.0)],
    );
    one(
        "len1",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %a: f32[1] = load x[%o; 1]
  %m: f32[3, 1] = expand %a axis 0
  %r: f32[3] = sum %m axis 1
  %t: f32[3, 3] = expand %r axis 1
  %c: f32[3] = sum %t axis 0
  %d: f32[3, 3] = expand %c axis 0
  %s: f32[3, 3] = scan %d axis 1 reverse
  store y[%o; 3, 1], %s
}",
        vec![f(64, frac), f(64, |_| 0.0)],
    );
    one(
        "loop_swap",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %one: index = const 1
  %n: index = const 3
  %p: index = const 64
  %a: f32[64] = load x[%o; 1]
  %b: f32[64] = load x[%p; 1]
  %ra: f32[64], %rb: f32[64] = for %i in %o..%n step %one carry(%ca = %a, %cb = %b) {
    %e: f32[2, 64] = expand %ca axis 0
    %s: f32[64] = sum %e axis 0
    yield %cb, %s
  }
  store y[%o; 1], %ra
  store y[%p; 1], %rb
}",
        vec![f(128, frac), f(128, |_| 0.0)],
    );

    one(
        "divisor2",
        "kernel k(x: read f32, y: write f32) grid(2, 1, 1) {
  %o: index = const 0
  %pid: index = program_id 0
  %t: index = const 1099511627777
  %z: index = const 1099511627776
  %m: index = mul %pid, %t
  %n: index = mul %pid, %z
  %w: index = sub %m, %n
  %s: index = const 64
  %d: index = mul %pid, %s
  %b: f32[64] = load x[%w; 1]
  store y[%d; 1], %b
}",
        vec![f(128, frac), f(128, |_| 0.0)],
    );
    one(
        "dot_operands",
        "kernel k(x: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %pid: index = program_id 0
  %h: f32 = const 0.5
  %a: bf16[24, 40] = load x[%o; 40, 1]
  %b: bf16[40] = load x[%o; 1]
  %e: bf16[24, 40] = expand %b axis 0
  %t: bf16[40, 24] = transpose %e
  %p: f32[24, 24] = dot %a, %t
  %c: bool = eq %pid, %o
  %q: bf16[24, 40] = if %c { yield %e } else { yield %a }
  %pp: f32[24, 24] = dot %q, trans %e, acc %p
  %hb: bf16 = cast %h
  %s: bf16[24, 40] = splat %hb
  %r: f32[24, 24] = dot %s, trans %q, acc %pp
  %u: f32[40, 40] = dot trans %a, %q
  %v: bf16[40, 40] = cast %u
  %w: f32[24, 40] = dot %a, %v
  %vv: f32[40, 40] = cast %v
  %w2: f32[24, 40] = cast %a
  %w3: f32[24, 40] = dot %w2x, trans %vv, acc %w
  store y[%o; 24, 1], %r
}"
        .replace("  %w2: f32[24, 40] = cast %a\n  %w3: f32[24, 40] = dot %w2x, trans %vv, acc %w\n", "")
        .as_str(),
        vec![b(24 * 40, frac), f(576, |_| 0.0)],
    );
    one(
        "acc_reuse",
        "kernel k(x: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %one: index = const 1
  %n: index = const 3
  %st: index = const 256
  %z: f32 = const 0.0
  %init: f32[16, 16] = splat %z
  %r: f32[16, 16], %q: f32[16, 16] = for %i in %o..%n step %one carry(%acc = %init, %old = %init) {
    %off: index = mul %i, %st
    %a: bf16[16, 16] = load x[%off; 16, 1]
    %d: f32[16, 16] = dot %a, %a, acc %old
    %e: f32[16, 16] = dot %a, trans %a, acc %acc
    yield %d, %e
  }
  %f: f32[16, 16] = sub %r, %q
  store y[%o; 16, 1], %f
}",
        vec![b(768, frac), f(256, |_| 0.0)],
    );
    one(
        "cond_carried_bf16",
        "kernel k(x: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %one: index = const 1
  %n: index = const 3
  %st: index = const 256
  %i0: bf16[16, 16] = load x[%o; 16, 1]
  %r: bf16[16, 16] = for %i in %o..%n step %one carry(%acc = %i0) {
    %off: index = mul %i, %st
    %a: bf16[16, 16] = load x[%off; 16, 1]
    %d: f32[16, 16] = dot %a, %acc
    %s: f32 = sum0 %d
    %e: bf16[16, 16] = cast %d
    yield %e
  }
  %f: f32[16, 16] = cast %r
  store y[%o; 16, 1], %f
}"
        .replace("    %s: f32 = sum0 %d\n", "")
        .as_str(),
        vec![b(768, frac), f(256, |_| 0.0)],
    );
    one(
        "if_sync",
        "kernel k(x: read bf16, id: read i32, y: write f32) grid(2, 1, 1) {
  %o: index = const 0
  %pid: index = program_id 0
  %st: index = const 4096
  %offy: index = mul %pid, %st
  %i: i32 = load id[%pid]
  %z: i32 = const 0
  %c: bool = gt %i, %z
  %up: index = cast %i
  %one: index = const 1
  %zf: f32 = const 0.0
  %init: f32[64, 64] = splat %zf
  %r: f32[64, 64] = if %c {
    %q: f32[64, 64] = for %k in %o..%up step %one carry(%acc = %init) {
      %off: index = mul %k, %st
      %a: bf16[64, 64] = load x[%off; 64, 1]
      %d: f32[64, 64] = dot %a, %a, acc %acc
      %m: f32[64] = reduce_max %d axis 1
      %mx: f32 = reduce_max %m axis 0
      %l: f32 = const 100.0
      %cc: bool = gt %mx, %l
      %w: f32[64, 64] = if %cc {
        %t: f32[64, 64] = transpose %d
        %tb: bf16[64, 64] = cast %t
        %u: f32[64, 64] = dot %tb, %a
        %h: f32 = const 0.001
        %hh: f32[64, 64] = splat %h
        %uu: f32[64, 64] = mul %u, %hh
        yield %uu
      } else { yield %d }
      yield %w
    }
    yield %q
  } else { yield %init }
  store y[%offy; 64, 1], %r
}",
        vec![b(4096 * 3, frac), Buffer::I32(vec![3, 0]), f(8192, |_| 0.0)],
    );
    one(
        "name_left",
        "kernel k(x: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %a: bf16[16, 16] = load x[%o; 16, 1]
  %left: f32[16, 16] = dot %a, %a
  store y[%o; 16, 1], %left
}",
        vec![b(256, frac), f(256, |_| 0.0)],
    );
    one(
        "name_sum",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %sum: f32[64] = load x[%o; 1]
  %d: f32[64] = scan %sum axis 0
  store y[%o; 1], %d
}",
        vec![f(64, frac), f(64, |_| 0.0)],
    );
    one(
        "name_below",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %pid: index = program_id 0
  %c: index = const 5
  %limit_1: index = add %pid, %c
  %d: f32[64] = load x[%o; 1 < %limit_1]
  store y[%o; 1], %d
}",
        vec![f(64, frac), f(64, |_| 0.0)],
    );
    for n in 1..4 {
        one(
            &format!("name_limit{n}"),
            &format!(
                "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {{
  %o: index = const 0
  %pid: index = program_id 0
  %c: index = const 5
  %limit_{n}: index = add %pid, %c
  %d: f32[64] = load x[%o; 1 < %limit_{n}]
  store y[%o; 1], %d
}}"
            ),
            vec![f(64, frac), f(64, |_| 0.0)],
        );
    }
    one(
        "scan_decay_matrix",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %a: f32[64, 64] = load x[%o; 64, 1]
  %s: f32[64, 64] = scan %a axis 0
  %z: f32[64, 64] = dot %a, %a
  %q: f32[64, 64] = scan %s axis 1
  store y[%o; 64, 1], %q
}",
        vec![f(4096, |i| if i / 64 == 20 { -1e9 } else { frac(i) }), f(4096, |_| 0.0)],
    );
    one(
        "nested_fetch",
        "kernel k(x: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %one: index = const 1
  %n: index = const 3
  %st: index = const 256
  %z: f32 = const 0.0
  %init: f32[16, 16] = splat %z
  %r: f32[16, 16] = for %i in %o..%n step %one carry(%acc = %init) {
    %offi: index = mul %i, %st
    %a: bf16[16, 16] = load x[%offi; 16, 1]
    %q: f32[16, 16] = for %j in %i..%n step %one carry(%ac = %acc) {
      %off: index = mul %j, %st
      %b: bf16[16, 16] = load x[%off; 16, 1]
      %d: f32[16, 16] = dot %a, %b, acc %ac
      yield %d
    }
    yield %q
  }
  store y[%o; 16, 1], %r
}",
        vec![b(768, frac), f(256, |_| 0.0)],
    );
    one(
        "index_carried_bound",
        "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %one: index = const 1
  %n: index = const 4
  %s: index = const 16
  %q: index = for %i in %o..%n step %one carry(%c = %s) {
    %a: f32[64] = load x[%c; 1 < %c]
    store y[%c; 1 < %c], %a
    %d: index = add %c, %s
    yield %d
  }
}",
        vec![f(256, frac), f(256, |_| 0.0)],
    );

    one(
        "ahead_carried_mul",
        "kernel k(x: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %one: index = const 1
  %n: index = const 3
  %step: index = const 256
  %z: f32 = const 0.0
  %init: f32[16, 16] = splat %z
  %r: f32[16, 16], %last: index = for %i in %o..%n step %one carry(%acc = %init, %page = %o) {
    %off: index = mul %page, %step
    %a: bf16[16, 16] = load x[%off; 16, 1]
    %d: f32[16, 16] = dot %a, %a, acc %acc
    %next: index = add %page, %one
    yield %d, %next
  }
  store y[%o; 16, 1], %r
}",
        vec![b(768, frac), f(256, |_| 0.0)],
    );
    one(
        "ahead_carried_bound",
        "kernel k(x: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %one: index = const 1
  %n: index = const 3
  %step: index = const 256
  %four: index = const 4
  %z: f32 = const 0.0
  %init: f32[16, 16] = splat %z
  %r: f32[16, 16], %last: index = for %i in %o..%n step %one carry(%acc = %init, %valid = %four) {
    %off: index = mul %i, %step
    %a: bf16[16, 16] = load x[%off; 16 < %valid, 1]
    %d: f32[16, 16] = dot %a, %a, acc %acc
    %next: index = add %valid, %four
    yield %d, %next
  }
  store y[%o; 16, 1], %r
}",
        vec![b(768, frac), f(256, |_| 0.0)],
    );
    one(
        "param_out_scalar",
        "kernel k(x: read f32, out: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %b: f32[64] = load x[%o; 1]
  %s: f32 = sum %b axis 0
  store out[%o], %s
}",
        vec![f(64, frac), f(64, |_| 0.0)],
    );
    one(
        "param_rows",
        "kernel k(rows: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %pid: index = program_id 0
  %five: index = const 5
  %n: index = add %pid, %five
  %a: bf16[16, 16] = load rows[%o; 16 < %n, 1]
  %d: f32[16, 16] = dot %a, %a
  store y[%o; 16, 1], %d
}",
        vec![b(256, frac), f(256, |_| 0.0)],
    );
    one(
        "scalar_cycle",
        "kernel k(x: read f32, p: readwrite f32) grid(1, 1, 1) {
  %o: index = const 0
  %one: index = const 1
  %n: index = const 5
  for %i in %o..%n step %one {
    %a: f32 = load p[%i]
    %c: f32 = load x[%i]
    %d: f32 = add %a, %c
    %j: index = add %i, %one
    store p[%j], %d
  }
}",
        vec![f(64, frac), f(64, frac)],
    );
    one(
        "stage_swap",
        "kernel k(x: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %one: index = const 1
  %n: index = const 3
  %st: index = const 256
  %i0: bf16[16, 16] = load x[%o; 16, 1]
  %i1: bf16[16, 16] = load x[%st; 16, 1]
  %r: bf16[16, 16], %q: bf16[16, 16] = for %i in %o..%n step %one carry(%aa = %i0, %bb = %i1) {
    %d: f32[16, 16] = dot %aa, %bb
    %e: bf16[16, 16] = cast %d
    yield %bb, %e
  }
  %h: f32[16, 16] = dot %r, %q
  store y[%o; 16, 1], %h
}",
        vec![b(768, frac), f(256, |_| 0.0)],
    );

    one(
        "across2c",
        "kernel k(x: read bf16, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %a: bf16[24, 136] = load x[%o; 136, 1]
  %w: bf16[136, 136] = load x[%o; 136, 1]
  %d: f32[24, 136] = dot %a, %w
  %e: f32[24, 136] = cast %a
  %s: f32[24, 136] = add %d, %e
  %v: f32[24] = reduce_max %s axis 1
  %vv: f32[24, 136] = expand %v axis 1
  %t: f32[24, 136] = sub %s, %vv
  %u: f32[24, 136] = scan %e axis 1
  %q: f32[136] = sum %u axis 0
  %qq: f32[24, 136] = expand %q axis 0
  %tb: bf16[24, 136] = cast %u
  %g: f32[24, 136] = dot %tb, trans %w, acc %t
  %gg: f32[24, 136] = mul %qq, %s
  %ggg: f32[24, 136] = mul %d, %gg
  %gggg: f32[24, 136] = add %ggg, %g
  store y[%o; 136, 1], %gggg
}",
        vec![b(264 * 264, frac), f(24 * 264, |_| 0.0)],
    );
    check(&all);
}

#[test]
fn tiles_that_no_thread_can_hold_are_refused() {
    let text = "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %a: f32[2048, 2048] = load x[%o; 2048, 1]
  %b: f32[2048, 2048] = add %a, %a
  store y[%o; 2048, 1], %b
}";
    let kernel = linc_tile::parse(text).unwrap_or_else(|e| panic!("{e}"));
    let error = compile(&kernel, &Options { arch: Arch::Sm90a, alignment: vec![64; 2] });
    let message = error.expect_err("16384 numbers a thread").to_string();
    assert!(message.contains("too large"), "{message}");
}
