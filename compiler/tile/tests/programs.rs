//! Loops, branches and the programs of a grid in the interpreter: programs run in any order, and what depends on the order
//! is an error.

use linc_tile::interp::{Buffer, RunOptions, run};
use linc_tile::parse;

use crate::interp::{f32s, i32s, kernel, run_error};

#[test]
fn loops_carry_values() {
    // Fibonacci, and the counters seen.
    let body = "%n: i32 = load n[%z] %hi: index = cast %n %lo: index = const 2 %st: index = const 3 \
        %0: f32 = const 0.0 %1: f32 = const 1.0 \
        %a: f32, %b: f32 = for %i in %lo..%hi step %st carry(%p = %0, %q = %1) { \
            %sum: f32 = add %p, %q %k: i32 = cast %i %f: f32 = cast %k store seen[%i], %f yield %q, %sum } \
        store y[%z], %a";
    let kernel = kernel("n: read i32, y: write f32, seen: write f32", body);
    for (n, result, seen) in [
        (14, 3.0, vec![2.0, 5.0, 8.0, 11.0]),
        (12, 3.0, vec![2.0, 5.0, 8.0, 11.0]),
        (11, 2.0, vec![2.0, 5.0, 8.0]),
        (2, 0.0, vec![]),
        (-9, 0.0, vec![]),
    ] {
        let mut buffers = [Buffer::I32(vec![n]), Buffer::F32(vec![-1.0]), Buffer::F32(vec![f32::NAN; 14])];
        run(&kernel, &mut buffers, &RunOptions::default()).unwrap();
        assert_eq!(f32s(&buffers[1]), [result], "{n}");
        let written: Vec<f32> = f32s(&buffers[2]).iter().copied().filter(|x| !x.is_nan()).collect();
        assert_eq!(written, seen, "{n}");
    }
}

#[test]
fn a_step_that_is_computed_must_be_positive() {
    let body = "%n: i32 = load n[%z] %st: index = cast %n for %i in %z..%st step %st { }";
    let kernel = kernel("n: read i32", body);
    let error = run_error(&kernel, &mut [Buffer::I32(vec![0])], &RunOptions::default());
    assert!(error.contains("the step is 0; it must be positive"), "{error}");
    run(&kernel, &mut [Buffer::I32(vec![1])], &RunOptions::default()).unwrap();
}

#[test]
fn branches() {
    let body = "%n: i32 = load n[%z] %0: i32 = const 0 %c: bool = lt %n, %0 \
        %r: i32, %s: i32 = if %c { %m: i32 = sub %0, %n yield %m, %n } else { yield %n, %0 } \
        if %c { store y[%z], %s } store r[%z], %r";
    let kernel = kernel("n: read i32, y: write i32, r: write i32", body);
    for (n, y, r) in [(-3, -3, 3), (4, 77, 4)] {
        let mut buffers = [Buffer::I32(vec![n]), Buffer::I32(vec![77]), Buffer::I32(vec![0])];
        run(&kernel, &mut buffers, &RunOptions::default()).unwrap();
        assert_eq!((i32s(&buffers[1]), i32s(&buffers[2])), (&[y][..], &[r][..]));
    }
}

#[test]
fn programs_cover_the_grid_in_any_order() {
    let text = "kernel ids(y: write i32) grid(2, 3, 4) { \
        %x: index = program_id 0 %p: index = program_id 1 %q: index = program_id 2 \
        %2: index = const 2 %3: index = const 3 \
        %a: index = mul %q, %3 %b: index = add %a, %p %c: index = mul %b, %2 %at: index = add %c, %x \
        %v: i32 = cast %at store y[%at], %v }";
    let kernel = parse(text).unwrap();
    for order in [0, 1, 2] {
        let mut buffers = [Buffer::I32(vec![-1; 24])];
        run(&kernel, &mut buffers, &RunOptions { order, ..RunOptions::default() }).unwrap();
        assert_eq!(i32s(&buffers[0]), (0..24).collect::<Vec<i32>>());
    }
}

/// Runs on a grid of 4 with `%p` the program, once for each of some orders, and returns the results.
fn orders(
    params: &str,
    body: &str,
    buffers: &[Buffer],
    check_races: bool,
) -> Vec<Result<Vec<Buffer>, String>> {
    let text = format!("kernel test({params}) grid(4, 1, 1) {{ %p: index = program_id 0 {body} }}");
    let kernel = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let run_in = |order| {
        let mut buffers = buffers.to_vec();
        let options = RunOptions { order, check_races, ..RunOptions::default() };
        run(&kernel, &mut buffers, &options).map(|()| buffers).map_err(|e| e.to_string())
    };
    (0..6).map(run_in).collect()
}

#[test]
fn races_are_errors_in_every_order() {
    let y = [Buffer::I32(vec![0; 8])];
    let cases = [
        ("write", "%1: index = const 1 %v: i32 = const 5 store y[%1], %v", "`y` is written here and by"),
        (
            "readwrite",
            "%2: index = const 2 %1: index = const 1 %v: i32 = load y[%p] %n: index = add %p, %1 store y[%n], %v",
            "`y` is ",
        ),
    ];
    for (mode, body, message) in cases {
        for result in orders(&format!("y: {mode} i32"), body, &y, true) {
            let error = result.unwrap_err();
            assert!(error.contains("race: index") && error.contains(message), "{error}");
        }
        assert!(orders(&format!("y: {mode} i32"), body, &y, false).iter().all(Result::is_ok));
    }
    let scattered = "%n: i32[2] = iota axis 0 scatter y[%p], %n at %n";
    for result in orders("y: write i32", scattered, &y, true) {
        assert!(result.unwrap_err().contains("race: index"));
    }
    // All read element 0; the write comes before, between or after the reads.
    let shared = "%0: index = const 0 %v: i32 = load y[%0] %2: index = const 2 %c: bool = eq %p, %2 \
        if %c { store y[%0], %v }";
    for result in orders("y: readwrite i32", shared, &y, true) {
        assert!(result.unwrap_err().contains("race: index 0 of `y`"));
    }
}

#[test]
fn a_program_may_read_what_it_wrote() {
    let body = "%v: i32 = cast %p store y[%p], %v %w: i32 = load y[%p] %x: i32 = add %w, %w store y[%p], %x";
    for result in orders("y: readwrite i32", body, &[Buffer::I32(vec![9; 4])], true) {
        assert_eq!(result.unwrap(), [Buffer::I32(vec![0, 2, 4, 6])]);
    }
}

#[test]
fn poison_shows_what_is_not_written() {
    let kernel =
        kernel("y: write f32, n: write i32, k: readwrite f32", "%v: f32 = const 1.0 store y[%z], %v");
    let mut buffers = [Buffer::F32(vec![0.0; 2]), Buffer::I32(vec![0]), Buffer::F32(vec![3.0])];
    run(&kernel, &mut buffers, &RunOptions { poison: true, ..RunOptions::default() }).unwrap();
    assert!(f32s(&buffers[0])[0] == 1.0 && f32s(&buffers[0])[1].is_nan());
    assert_eq!((i32s(&buffers[1]), f32s(&buffers[2])), (&[i32::MIN][..], &[3.0f32][..]));
}
