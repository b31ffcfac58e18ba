//! Static counts against counts by hand, and against what the interpreter does.

use linc_tile::cost::{Cost, cost};
use linc_tile::parse;

fn cost_of(params: &str, grid: &str, body: &str) -> Cost {
    let text = format!("kernel k({params}) grid({grid}) {{ %z: index = const 0 {body} }}");
    cost(&parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}")))
}

#[test]
fn operations() {
    let body = "%m: f32[4, 8] = load x[%z; 8, 1] %h: bf16[8, 16] = load h[%z; 16, 1] %w: f32[8, 16] = cast %h \
        %d: f32[4, 16] = dot %m, %w %t: f32[16, 16] = dot trans %d, %d \
        %e: f32[4, 16] = exp %d %f: f32[4, 16] = fma %d, %e, %e %g: f32[4, 16] = add %f, %f \
        %s: f32[4] = sum %g axis 1 %c: f32[4] = scan %s axis 0 %n: f32[4] = neg %c \
        %i: i32[4] = iota axis 0 %j: i32[4] = add %i, %i store y[%z; 1], %n";
    let found = cost_of("x: read f32, h: read bf16, y: write f32", "5, 1, 2", body);
    let expected = Cost {
        dot_flops: 10 * (2 * 4 * 8 * 16 + 2 * 16 * 4 * 16),
        pointwise_flops: 10 * (2 * 64 + 64 + 64 + 4 + 4),
        transcendentals: 10 * 64,
        bytes_loaded: 10 * (4 * 32 + 2 * 128),
        bytes_stored: 10 * 16,
        exact: true,
    };
    assert_eq!(found, expected);
    assert_eq!(found.flops(), found.dot_flops + found.pointwise_flops + found.transcendentals);
    assert_eq!(found.bytes(), found.bytes_loaded + found.bytes_stored);
}

#[test]
fn scattered_elements_are_counted_all() {
    let body = "%n: i32[4] = load n[%z; 1] %x: bf16[4] = load x[%z; 1] scatter x[%z], %x at %n";
    let found = cost_of("n: read i32, x: readwrite bf16", "3, 1, 1", body);
    let expected = Cost { bytes_loaded: 3 * 24, bytes_stored: 3 * 8, exact: false, ..Cost::default() };
    assert_eq!(found, expected);
}

#[test]
fn ragged_ends_are_not_counted() {
    // 10 rows in blocks of 4: the last program has 2. The second axis changes nothing.
    let body = "%p: index = program_id 0 %4: index = const 4 %10: index = const 10 %at: index = mul %p, %4 \
        %left: index = sub %10, %at %x: f32[4] = load x[%at; 1 < %left] store y[%at; 1 < %left], %x";
    let found = cost_of("x: read f32, y: write f32", "3, 7, 1", body);
    let expected = Cost { bytes_loaded: 7 * 40, bytes_stored: 7 * 40, exact: true, ..Cost::default() };
    assert_eq!(found, expected);
}

#[test]
fn loops_that_depend_on_the_program() {
    // Program p makes p rounds of 3 and in each a round less than that of an inner loop over its counter.
    let body = "%p: index = program_id 1 %1: index = const 1 %v: f32[3] = load x[%z; 1] \
        for %i in %z..%p step %1 { %a: f32[3] = add %v, %v for %j in %1..%i step %1 { %b: f32[3] = exp %v } }";
    let found = cost_of("x: read f32", "2, 5, 1", body);
    assert_eq!(found.pointwise_flops, 2 * 3 * (1 + 2 + 3 + 4));
    assert_eq!(found.transcendentals, 2 * 3 * (1 + (1 + 2)));
    assert!(found.exact);
}

#[test]
fn carried_scalars_are_followed() {
    // The inner loop doubles: 1, 2, 4, 8 iterations.
    let body = "%1: index = const 1 %2: index = const 2 %4: index = const 4 %f: f32 = const 1.0 \
        %n: index = for %i in %z..%4 step %1 carry(%a = %1) { \
            for %j in %z..%a step %1 { %s: f32 = add %f, %f } %b: index = mul %a, %2 yield %b } \
        for %k in %z..%n step %1 { %t: f32 = exp %f }";
    let found = cost_of("", "1, 1, 1", body);
    assert_eq!((found.pointwise_flops, found.transcendentals, found.exact), (15, 16, true));
}

#[test]
fn branches() {
    let body = "%p: index = program_id 0 %1: index = const 1 %c: bool = lt %p, %1 %f: f32 = const 1.0 \
        %m: index = if %c { %a: f32 = add %f, %f yield %z } else { %b: f32 = exp %f yield %1 } \
        for %i in %z..%m step %1 { %d: f32 = log %f }";
    let found = cost_of("", "4, 1, 1", body);
    assert_eq!((found.pointwise_flops, found.transcendentals, found.exact), (1, 6, true));
}

#[test]
fn data_makes_it_an_estimate() {
    let params = "n: read i32, x: read f32";
    let load = "%n: i32 = load n[%z] %m: index = cast %n %f: f32 = const 1.0 %1: index = const 1";
    let cases = [
        ("for %i in %z..%m step %1 { %a: f32 = add %f, %f }", 1, 0),
        ("%c: bool = lt %m, %z if %c { %a: f32 = add %f, %f } else { %b: f32 = exp %f }", 1, 0),
        ("%x: f32[8] = load x[%z; 1 < %m]", 0, 32),
    ];
    for (body, flops, bytes) in cases {
        let found = cost_of(params, "1, 1, 1", &format!("{load} {body}"));
        assert_eq!((found.flops(), found.bytes(), found.exact), (flops, bytes + 4, false), "{body}");
    }
}

#[test]
fn a_large_grid_is_sampled() {
    let body = "%p: index = program_id 0 %8: index = const 8 %end: index = const 800000003 %at: index = mul %p, %8 \
        %left: index = sub %end, %at %x: f32[8] = load x[%at; 1 < %left]";
    let found = cost_of("x: read f32", "100000001, 1, 1", body);
    assert!(!found.exact);
    let ratio = found.bytes_loaded as f64 / (4.0 * 800_000_003.0);
    assert!((ratio - 1.0).abs() < 1e-6, "{ratio}");
}
