//! The interpreter, operation by operation, against values computed by hand or by plain loops.

use linc_tile::interp::{Buffer, Precision, RunOptions, run};
use linc_tile::{Kernel, TileError, parse};

/// A kernel of one program from its parameters and body.
pub(crate) fn kernel(params: &str, body: &str) -> Kernel {
    let text = format!("kernel test({params}) grid(1, 1, 1) {{ %z: index = const 0 {body} }}");
    parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Runs a pointwise body on `%a: f32[n]` that defines `%y: f32[n]`.
pub(crate) fn pointwise(a: &[f32], body: &str) -> Vec<f32> {
    let n = a.len();
    let body = format!("%a: f32[{n}] = load a[%z; 1] {body} store y[%z; 1], %y");
    let kernel = kernel("a: read f32, y: write f32", &body);
    let mut buffers = [Buffer::F32(a.to_vec()), Buffer::F32(vec![0.0; n])];
    run(&kernel, &mut buffers, &RunOptions::default()).unwrap();
    let [_, Buffer::F32(y)] = buffers else { panic!("the type of a buffer never changes") };
    y
}

pub(crate) fn f32s(buffer: &Buffer) -> &[f32] {
    let Buffer::F32(data) = buffer else { panic!("not f32: {buffer:?}") };
    data
}

pub(crate) fn i32s(buffer: &Buffer) -> &[i32] {
    let Buffer::I32(data) = buffer else { panic!("not i32: {buffer:?}") };
    data
}

pub(crate) fn run_error(kernel: &Kernel, buffers: &mut [Buffer], options: &RunOptions) -> String {
    run(kernel, buffers, options).unwrap_err().to_string()
}

#[test]
fn unary_functions() {
    let x = [0.25f32, 1.0, 2.5];
    type Function = (&'static str, fn(f32) -> f32);
    let cases: [Function; 9] = [
        ("neg", |x| -x),
        ("abs", f32::abs),
        ("exp", f32::exp),
        ("log", f32::ln),
        ("sqrt", f32::sqrt),
        ("rsqrt", |x| 1.0 / x.sqrt()),
        ("recip", |x| 1.0 / x),
        ("sigmoid", |x| 1.0 / (1.0 + (-x).exp())),
        ("tanh", f32::tanh),
    ];
    for (name, f) in cases {
        assert_eq!(pointwise(&x, &format!("%y: f32[3] = {name} %a")), x.map(f), "{name}");
    }
    let far = pointwise(&[f32::NEG_INFINITY, -200.0, 200.0], "%y: f32[3] = sigmoid %a");
    assert_eq!(far, [0.0, 0.0, 1.0]);
    assert_eq!(pointwise(&[f32::NEG_INFINITY], "%y: f32[1] = exp %a"), [0.0]);
}

#[test]
fn binary_functions() {
    let (x, b) = ([3.0f32, -1.5, 0.1], 0.7f32);
    type Function = (&'static str, fn(f32, f32) -> f32);
    let cases: [Function; 6] = [
        ("add", |a, b| a + b),
        ("sub", |a, b| a - b),
        ("mul", |a, b| a * b),
        ("div", |a, b| a / b),
        ("min", f32::min),
        ("max", f32::max),
    ];
    for (name, f) in cases {
        let body = format!("%c: f32 = const 0.7 %b: f32[3] = splat %c %y: f32[3] = {name} %a, %b");
        assert_eq!(pointwise(&x, &body), x.map(|a| f(a, b)), "{name}");
    }
    let fma = "%c: f32 = const 0.7 %b: f32[3] = splat %c %y: f32[3] = fma %a, %b, %a";
    assert_eq!(pointwise(&x, fma), x.map(|a| a * b + a));
}

#[test]
fn comparisons_and_selection() {
    let x = [1.0, 2.0, 3.0, f32::NAN];
    let cases = [
        ("eq", [0.0, 1.0, 0.0, 0.0]),
        ("ne", [1.0, 0.0, 1.0, 1.0]),
        ("lt", [1.0, 0.0, 0.0, 0.0]),
        ("le", [1.0, 1.0, 0.0, 0.0]),
        ("gt", [0.0, 0.0, 1.0, 0.0]),
        ("ge", [0.0, 1.0, 1.0, 0.0]),
    ];
    for (name, expected) in cases {
        let numbers = "%2: f32 = const 2.0 %b: f32[4] = splat %2 \
             %0: f32 = const 0.0 %f: f32[4] = splat %0 %1: f32 = const 1.0 %t: f32[4] = splat %1";
        let body = format!("{numbers} %c: bool[4] = {name} %a, %b %y: f32[4] = select %c, %t, %f");
        assert_eq!(pointwise(&x, &body), expected, "{name}");
        let body = format!(
            "{numbers} %c: bool[4] = {name} %a, %b %d: bool[4] = not %c %y: f32[4] = select %d, %f, %t"
        );
        assert_eq!(pointwise(&x, &body), expected, "not {name}");
    }
}

#[test]
fn logic() {
    let body = "%2: f32 = const 2.0 %b: f32[3] = splat %2 %3: f32 = const 3.0 %c: f32[3] = splat %3 \
        %lo: bool[3] = ge %a, %b %hi: bool[3] = ge %a, %c %m: bool[3] = OP %lo, %hi %y: f32[3] = select %m, %a, %b";
    assert_eq!(pointwise(&[1.0, 2.5, 4.0], &body.replace("OP", "and")), [2.0, 2.0, 4.0]);
    assert_eq!(pointwise(&[1.0, 2.5, 4.0], &body.replace("OP", "or")), [2.0, 2.5, 4.0]);
}

#[test]
fn integers() {
    let cases = [
        ("add", [12, -2, i32::MIN]),
        ("sub", [2, -12, i32::MAX - 1]),
        ("mul", [35, -35, i32::MAX]),
        ("div", [1, -1, i32::MAX]),
        ("rem", [2, -2, 0]),
        ("min", [5, -7, 1]),
        ("max", [7, 5, i32::MAX]),
    ];
    for (name, expected) in cases {
        let body = format!(
            "%a: i32[3] = load a[%z; 1] %b: i32[3] = load b[%z; 1] %y: i32[3] = {name} %a, %b store y[%z; 1], %y"
        );
        let kernel = kernel("a: read i32, b: read i32, y: write i32", &body);
        let mut buffers =
            [Buffer::I32(vec![7, -7, i32::MAX]), Buffer::I32(vec![5, 5, 1]), Buffer::I32(vec![0; 3])];
        run(&kernel, &mut buffers, &RunOptions::default()).unwrap();
        assert_eq!(i32s(&buffers[2]), expected, "{name}");
    }
}

#[test]
fn division_of_integers_by_zero_is_an_error() {
    for ty in ["i32", "index"] {
        for op in ["div", "rem"] {
            let kernel = kernel("", &format!("%a: {ty} = const 1 %b: {ty} = const 0 %y: {ty} = {op} %a, %b"));
            let error = run_error(&kernel, &mut [], &RunOptions::default());
            assert!(error.contains(&format!("%y: {ty} = {op} %a, %b")), "{error}");
        }
    }
}

#[test]
fn index_overflow_is_an_error() {
    let body = format!("%a: index = const {} %y: index = mul %a, %a", i64::MAX);
    let error = run_error(&kernel("", &body), &mut [], &RunOptions::default());
    assert!(error.contains("has no result"), "{error}");
    let body = format!("%a: index = const {} %y: i32 = cast %a", 1i64 << 31);
    let error = run_error(&kernel("", &body), &mut [], &RunOptions::default());
    assert!(error.contains("2147483648 does not fit i32"), "{error}");
}

#[test]
fn casts() {
    let body = "%n: i32[2] = load n[%z; 1] %f: f32[2] = cast %n store f[%z; 1], %f \
        %1: i32 = const 1 %i: index = cast %1 %m: i32 = load n[%i] %mi: index = cast %m %mb: i32 = cast %mi \
        store n[%z], %mb";
    let kernel = kernel("n: readwrite i32, f: write f32", body);
    let mut buffers = [Buffer::I32(vec![16_777_217, -5]), Buffer::F32(vec![0.0; 2])];
    run(&kernel, &mut buffers, &RunOptions::default()).unwrap();
    assert_eq!(f32s(&buffers[1]), [16_777_216.0, -5.0]);
    assert_eq!(i32s(&buffers[0]), [-5, -5]);
}

#[test]
fn whole_floats_become_integers() {
    let body = "%x: f32[4] = load x[%z; 1] %n: i32[4] = cast %x store n[%z; 1], %n";
    let kernel = kernel("x: read f32, n: write i32", body);
    let cast = |x: [f32; 4]| {
        let mut buffers = [Buffer::F32(x.to_vec()), Buffer::I32(vec![9; 4])];
        run(&kernel, &mut buffers, &RunOptions::default()).map(|()| i32s(&buffers[1]).to_vec())
    };
    assert_eq!(cast([0.0, -3.0, 16_777_216.0, -2_147_483_648.0]).unwrap(), [0, -3, 16_777_216, i32::MIN]);
    assert!(cast([0.0, 0.5, 1.0, 2.0]).unwrap_err().to_string().contains("0.5 is no whole number of i32"));
}

#[test]
fn scattered_elements_have_places_of_their_own() {
    let body = "%off: index = const 2 %n: i32[4] = load n[%z; 1] %x: f32[4] = load x[%z; 1] scatter y[%off], %x at %n";
    let kernel = kernel("n: read i32, x: read f32, y: write f32", body);
    let scatter = |places: [i32; 4]| {
        let x = Buffer::F32(vec![1.0, 2.0, 3.0, 4.0]);
        let mut buffers = [Buffer::I32(places.to_vec()), x, Buffer::F32(vec![0.0; 6])];
        run(&kernel, &mut buffers, &RunOptions::default()).map(|()| f32s(&buffers[2]).to_vec())
    };
    assert_eq!(scatter([3, -1, 0, 1]).unwrap(), [0.0, 0.0, 3.0, 4.0, 0.0, 1.0]);
    // Nothing else is off limits than what is negative.
    assert_eq!(scatter([-1, i32::MIN, 2, -2]).unwrap(), [0.0, 0.0, 0.0, 0.0, 3.0, 0.0]);
    for (places, message) in
        [([0, 3, -1, 3], "two elements have the place 3"), ([0, 4, 1, 2], "index 6 of `y`")]
    {
        let error = scatter(places).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn bf16_rounds_to_nearest_even() {
    // 1 + 2^-8 is a tie between 1 and 1 + 2^-7 and goes to the even 1; 1 + 3·2^-8 is one and goes up.
    let x = [1.0 + 2f32.powi(-8), 1.0 + 3.0 * 2f32.powi(-8), 1.0 + 2f32.powi(-8) + 2f32.powi(-20), f32::MAX];
    let rounded = [1.0, 1.0 + 2f32.powi(-6), 1.0 + 2f32.powi(-7), f32::INFINITY];
    assert_eq!(pointwise(&x, "%h: bf16[4] = cast %a %y: f32[4] = cast %h"), rounded);

    let body = "%a: f32[4] = load a[%z; 1] %h: bf16[4] = cast %a store h[%z; 1], %h";
    let kernel = kernel("a: read f32, h: write bf16", body);
    let mut buffers = [Buffer::F32(x.to_vec()), Buffer::Bf16(vec![0; 4])];
    run(&kernel, &mut buffers, &RunOptions::default()).unwrap();
    assert_eq!(buffers[1], Buffer::Bf16(vec![0x3f80, 0x3f82, 0x3f81, 0x7f80]));
    assert_eq!(buffers[1].to_f64(), rounded.map(f64::from));
}

#[test]
fn f16_rounds_to_nearest_even_and_ends_at_both_ends() {
    let tiny = 2f32.powi(-24);
    let x = [1.0 + 2f32.powi(-11), 1.0 + 3.0 * 2f32.powi(-11), 65519.9, 65520.0, 1.5 * tiny, -0.5 * tiny];
    let rounded = [1.0, 1.0 + 2f32.powi(-9), 65504.0, f32::INFINITY, 2.0 * tiny, -0.0];
    let body = "%a: f32[6] = load a[%z; 1] %h: f16[6] = cast %a store h[%z; 1], %h \
        %b: f16[6] = load h[%z; 1] %y: f32[6] = cast %b store y[%z; 1], %y";
    let kernel = kernel("a: read f32, h: readwrite f16, y: write f32", body);
    let mut buffers = [Buffer::F32(x.to_vec()), Buffer::F16(vec![0; 6]), Buffer::F32(vec![9.0; 6])];
    run(&kernel, &mut buffers, &RunOptions::default()).unwrap();
    assert_eq!(buffers[1], Buffer::F16(vec![0x3c00, 0x3c02, 0x7bff, 0x7c00, 2, 0x8000]));
    assert_eq!(f32s(&buffers[2]), rounded);
}

#[test]
fn precisions() {
    let body = "%a: f32[1] = load a[%z; 1] %t: f32[1] = mul %a, %a %h: bf16[1] = cast %t \
        %u: f32[1] = cast %h store y[%z; 1], %u";
    let kernel = kernel("a: read f32, y: write f32", body);
    let result = |precision, x: Buffer, y: Buffer| {
        let mut buffers = [x, y];
        run(&kernel, &mut buffers, &RunOptions { precision, ..RunOptions::default() }).unwrap();
        buffers[1].to_f64()[0]
    };
    let (f32s, f64s) = (|x: f32| Buffer::F32(vec![x]), |x: f64| Buffer::F64(vec![x]));
    // 0.1² in bf16 is 0.0100097656; nothing is lost in `Exact`.
    assert_eq!(result(Precision::F32, f32s(0.1), f32s(0.0)), 0.010_009_765_625);
    assert_eq!(result(Precision::F64, f64s(0.1), f64s(0.0)), 0.010_009_765_625);
    assert_eq!(result(Precision::Exact, f64s(0.1), f64s(0.0)), 0.1 * 0.1);
    assert_eq!(result(Precision::Exact, f64s(0.1), f32s(0.0)), f64::from((0.1f64 * 0.1) as f32));
}

#[test]
fn shapes() {
    // Each result row: splat, expand of columns, expand of rows, both iotas, transpose.
    let body = "%v: f32[2] = load v[%z; 1] %w: f32[3] = load w[%z; 1] %m: f32[2, 3] = load m[%z; 3, 1] \
        %1: index = const 1 %s: f32 = load v[%1] \
        %0: f32[2, 3] = splat %s store y[%z; 3, 1], %0 \
        %a: f32[2, 3] = expand %v axis 1 %6: index = const 6 store y[%6; 3, 1], %a \
        %b: f32[2, 3] = expand %w axis 0 %12: index = const 12 store y[%12; 3, 1], %b \
        %i: i32[2, 3] = iota axis 0 %c: f32[2, 3] = cast %i %18: index = const 18 store y[%18; 3, 1], %c \
        %j: i32[2, 3] = iota axis 1 %d: f32[2, 3] = cast %j %24: index = const 24 store y[%24; 3, 1], %d \
        %t: f32[3, 2] = transpose %m %30: index = const 30 store y[%30; 2, 1], %t \
        %n: i32[4] = iota axis 0 %e: f32[4] = cast %n %36: index = const 36 store y[%36; 1], %e";
    let kernel = kernel("v: read f32, w: read f32, m: read f32, y: write f32", body);
    let mut buffers = [
        Buffer::F32(vec![1.0, 2.0]),
        Buffer::F32(vec![3.0, 4.0, 5.0]),
        Buffer::F32(vec![10.0, 11.0, 12.0, 20.0, 21.0, 22.0]),
        Buffer::F32(vec![f32::NAN; 40]),
    ];
    run(&kernel, &mut buffers, &RunOptions::default()).unwrap();
    let expected: [&[f32]; 7] = [
        &[2.0; 6],
        &[1.0, 1.0, 1.0, 2.0, 2.0, 2.0],
        &[3.0, 4.0, 5.0, 3.0, 4.0, 5.0],
        &[0.0, 0.0, 0.0, 1.0, 1.0, 1.0],
        &[0.0, 1.0, 2.0, 0.0, 1.0, 2.0],
        &[10.0, 20.0, 11.0, 21.0, 12.0, 22.0],
        &[0.0, 1.0, 2.0, 3.0],
    ];
    assert_eq!(f32s(&buffers[3]), expected.concat());
}

#[test]
fn reductions_and_scans() {
    let m = "%m: f32[2, 3] = load m[%z; 3, 1]";
    let cases: [(&str, &str, &[f32]); 9] = [
        ("%y: f32[3] = sum %m axis 0", "1", &[5.0, -7.0, 9.0]),
        ("%y: f32[2] = sum %m axis 1", "1", &[2.0, 5.0]),
        ("%y: f32[3] = reduce_max %m axis 0", "1", &[4.0, -2.0, 6.0]),
        ("%y: f32[2] = reduce_max %m axis 1", "1", &[3.0, 6.0]),
        ("%r: f32[2] = sum %m axis 1 %y: f32 = reduce_max %r axis 0", "", &[5.0]),
        ("%y: f32[2, 3] = scan %m axis 0", "3, 1", &[1.0, -2.0, 3.0, 5.0, -7.0, 9.0]),
        ("%y: f32[2, 3] = scan %m axis 1", "3, 1", &[1.0, -1.0, 2.0, 4.0, -1.0, 5.0]),
        ("%y: f32[2, 3] = scan %m axis 0 reverse", "3, 1", &[5.0, -7.0, 9.0, 4.0, -5.0, 6.0]),
        ("%y: f32[2, 3] = scan %m axis 1 reverse", "3, 1", &[2.0, 1.0, 3.0, 5.0, 1.0, 6.0]),
    ];
    for (op, strides, expected) in cases {
        let strides = if strides.is_empty() { String::new() } else { format!("; {strides}") };
        let kernel = kernel("m: read f32, y: write f32", &format!("{m} {op} store y[%z{strides}], %y"));
        let mut buffers =
            [Buffer::F32(vec![1.0, -2.0, 3.0, 4.0, -5.0, 6.0]), Buffer::F32(vec![0.0; expected.len()])];
        run(&kernel, &mut buffers, &RunOptions::default()).unwrap();
        assert_eq!(f32s(&buffers[1]), expected, "{op}");
    }
}

#[test]
fn dots_of_every_orientation() {
    let (m, k, n) = (2, 3, 4);
    let a: Vec<f32> = (0..m * k).map(|i| (i * i) as f32 - 7.0).collect();
    let b: Vec<f32> = (0..k * n).map(|i| 3.0 - i as f32).collect();
    let mut product = vec![100.0f32; m * n];
    for i in 0..m {
        for j in 0..n {
            product[i * n + j] += (0..k).map(|p| a[i * k + p] * b[p * n + j]).sum::<f32>();
        }
    }
    for bits in 0..8 {
        let (ta, tb, bf16) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
        // A transposed operand is stored so; its tile comes from swapped strides.
        let load = |name: &str, rows: usize, cols: usize, trans: bool| {
            let (shape, strides) = if trans { ([cols, rows], [1, cols]) } else { ([rows, cols], [cols, 1]) };
            let load = format!("%{name}f: f32{shape:?} = load {name}[%z; {}, {}]", strides[0], strides[1]);
            if bf16 {
                // The values are small integers, exact in bf16.
                format!("{load} %{name}: bf16{shape:?} = cast %{name}f")
            } else {
                load.replacen("f:", ":", 1)
            }
        };
        let flag = |trans| if trans { "trans " } else { "" };
        let body = format!(
            "{} {} %c: f32 = const 100.0 %acc: f32[2, 4] = splat %c %y: f32[2, 4] = dot {}%a, {}%b, acc %acc \
             store y[%z; 4, 1], %y",
            load("a", m, k, ta),
            load("b", k, n, tb),
            flag(ta),
            flag(tb)
        );
        let kernel = kernel("a: read f32, b: read f32, y: write f32", &body);
        let mut buffers = [Buffer::F32(a.clone()), Buffer::F32(b.clone()), Buffer::F32(vec![0.0; m * n])];
        run(&kernel, &mut buffers, &RunOptions::default()).unwrap();
        assert_eq!(f32s(&buffers[2]), product, "{body}");
    }
}

#[test]
fn bounds_leave_memory_alone_and_load_zero() {
    let body = "%r: index = const 1 %c: index = const 2 \
        %x: f32[2, 3] = load x[%z; 3 < %r, 1 < %c] store y[%z; 3, 1], %x \
        store w[%z; 3 < %r, 1 < %c], %x %neg: index = const -4 store w[%z; 3 < %neg, 1], %x";
    let kernel = kernel("x: read f32, y: write f32, w: write f32", body);
    // `x` and `w` end right behind the bounds: what is outside them is not touched.
    let mut buffers = [Buffer::F32(vec![1.0, 2.0]), Buffer::F32(vec![9.0; 6]), Buffer::F32(vec![7.0, 7.0])];
    run(&kernel, &mut buffers, &RunOptions::default()).unwrap();
    assert_eq!(f32s(&buffers[1]), [1.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(f32s(&buffers[2]), [1.0, 2.0]);
}

#[test]
fn an_access_outside_a_buffer_is_located() {
    let body = "%o: index = const 1 %x: f32[2, 3] = load x[%o; 3, 1]";
    let mut buffers = [Buffer::F32(vec![0.0; 6])];
    let error = run(&kernel("x: read f32", body), &mut buffers, &RunOptions::default()).unwrap_err();
    let TileError::Run { kernel: name, program, message } = error else { panic!("{error}") };
    assert_eq!((name.as_str(), program), ("test", [0, 0, 0]));
    assert_eq!(
        message,
        "element (1, 2) is at index 6 of `x`, which has 6 elements\n  in `%x: f32[2, 3] = load x[%o; 3, 1]`"
    );
    let body = format!("%o: index = const {} %x: f32[2] = load x[%o; {}]", i64::MAX, i64::MAX);
    let error = run_error(&kernel("x: read f32", &body), &mut buffers, &RunOptions::default());
    assert!(error.contains(&format!("element 0 is at index {} of", i64::MAX)), "{error}");
    let body = "%o: index = const 1 %x: f32[3] = load x[%o; -1]";
    let error = run_error(&kernel("x: read f32", body), &mut buffers, &RunOptions::default());
    assert!(error.contains("element 2 is at index -1 of"), "{error}");
}

#[test]
fn buffers_must_fit_the_parameters() {
    let kernel = kernel("x: read f32, h: write bf16", "");
    let (f, h, d) = (|| Buffer::F32(vec![]), || Buffer::Bf16(vec![]), || Buffer::F64(vec![]));
    let error = |buffers: &mut [Buffer], precision| {
        run(&kernel, buffers, &RunOptions { precision, ..RunOptions::default() }).map_err(|e| e.to_string())
    };
    assert_eq!(error(&mut [f()], Precision::F32).unwrap_err(), "kernel test: 2 parameters, but 1 buffers");
    let message = error(&mut [h(), h()], Precision::F32).unwrap_err();
    assert!(message.contains("parameter `x` holds f32, its buffer bf16"), "{message}");
    assert!(error(&mut [d(), h()], Precision::F32).is_err());
    assert!(error(&mut [d(), d()], Precision::F64).is_ok());
    assert!(error(&mut [f(), h()], Precision::Exact).is_ok());
}

#[test]
fn from_f64_rounds() {
    use linc_tile::Elem;
    assert_eq!(Buffer::from_f64(Elem::F32, &[0.1]), Some(Buffer::F32(vec![0.1])));
    assert_eq!(Buffer::from_f64(Elem::Bf16, &[1.0]), Some(Buffer::Bf16(vec![0x3f80])));
    assert_eq!(Buffer::from_f64(Elem::I32, &[1.0]), None);
}
