//! The text form: what it looks like, that it round-trips exactly, and that bad text gives an error with a position.

use linc_tile::{
    Binary, Builder, Compare, Elem, Kernel, Mode, Op, TileError, Unary, parse, parse_all, verify,
};

/// A kernel with every operation of the IR.
fn every_op() -> Kernel {
    let mut b = Builder::new("every_op", [3, 2, 1]);
    let x = b.param("x", Elem::F32, Mode::Read);
    let h = b.param("h", Elem::Bf16, Mode::ReadWrite);
    let n = b.param("n", Elem::I32, Mode::Read);
    let y = b.param("y", Elem::F32, Mode::Write);
    let pid = b.program_id(0);
    b.name(pid, "pid");
    let zero = b.index(0);
    let count = b.load(n, zero, &[], &[]);
    let count = b.cast(count, Elem::Index);
    b.name(count, "count");
    let start = b.scale_index(pid, 32);
    let rest = b.sub(count, start);
    let tile = b.load(x, start, &[4, 8], &[(8, Some(rest)), (1, None)]);
    b.name(tile, "x");
    let tile = b.unary(Unary::Abs, tile);
    b.name(tile, "x");
    let half = b.load_f32(h, start, &[4, 8], &[(8, None), (1, None)]);
    let dot = b.dot(tile, false, half, true, None);
    let dot = b.dot(tile, false, half, true, Some(dot));
    let square = b.transpose(dot);
    let rows = b.sum(1, square);
    let most = b.reduce_max(0, rows);
    let running = b.scan(0, true, rows);
    let spread = b.expand_cols(running, 8);
    let columns = b.reduce_max(0, tile);
    let spread_columns = b.expand_rows(columns, 4);
    let iota = b.iota(1, &[4, 8]);
    let two = b.int(2);
    let two = b.splat(two, &[4, 8]);
    let parity = b.rem(iota, two);
    let as_float = b.cast(parity, Elem::F32);
    let even = b.compare(Compare::Lt, parity, two);
    let big = b.compare(Compare::Gt, tile, as_float);
    let even = b.binary(Binary::And, even, big);
    let even = b.unary(Unary::Not, even);
    let mixed = b.select(even, spread, spread_columns);
    let mixed = b.fma(mixed, tile, as_float);
    let one = b.index(1);
    let sums = b.for_loop(zero, count, 2, &[mixed, most], |b, i, carried| {
        b.name(i, "i");
        b.name(carried[0], "acc");
        let first = b.compare(Compare::Eq, i, one);
        let next = b.if_else(first, |b| vec![b.exp(carried[0])], |_| vec![carried[0]]);
        b.if_else(
            first,
            |b| {
                b.store(h, start, next[0], &[(8, None), (1, None)]);
                vec![]
            },
            |_| vec![],
        );
        vec![next[0], carried[1]]
    });
    b.store(y, start, sums[0], &[(8, Some(rest)), (1, None)]);
    b.store(y, zero, sums[1], &[]);
    let places = b.iota(0, &[8]);
    b.scatter(y, start, places, columns);
    for value in [1e-5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.0, 0.1, f64::MAX, 5e-324] {
        b.float(value);
    }
    b.finish()
}

/// Bits of every float constant.
fn constants(kernel: &Kernel) -> Vec<u64> {
    let mut found = vec![];
    kernel.for_each_stmt(|stmt| {
        if let Op::ConstF(value) = stmt.op {
            found.push(value.to_bits());
        }
    });
    found
}

#[test]
fn every_op_round_trips() {
    let kernel = every_op();
    verify(&kernel).unwrap();
    let text = kernel.to_string();
    let parsed = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(parsed.to_string(), text);
    assert_eq!(constants(&parsed), constants(&kernel));
    assert_eq!((parsed.grid, parsed.params.clone()), (kernel.grid, kernel.params.clone()));
    // The second round changes nothing at all, not even ids and hints.
    let again = parse(&parsed.to_string()).unwrap();
    assert_eq!(format!("{again:?}"), format!("{parsed:?}"));
}

const SUMS: &str = "\
kernel row_sums(x: read bf16, y: write f32) grid(4, 1, 1) {
  %pid: index = program_id 0
  %0: index = const 64
  %off: index = mul %pid, %0
  %lo: index = const 0
  %hi: index = const 8
  %1: index = const 2
  %2: f32 = const 0.0
  %acc: f32[2] = splat %2
  %acc.1: f32[2] = for %i in %lo..%hi step %1 carry(%acc.2 = %acc) {
    %at: index = add %off, %i
    %left: index = sub %hi, %i
    %x: bf16[2, 2] = load x[%at; 8, 1 < %left]
    %3: f32[2, 2] = cast %x
    %4: f32[2] = sum %3 axis 1
    %5: f32[2] = add %acc.2, %4
    yield %5
  }
  %6: index = const 2
  %7: index = mul %pid, %6
  store y[%7; 1], %acc.1
}
";

#[test]
fn printed_text_is_the_source() {
    assert_eq!(parse(SUMS).unwrap().to_string(), SUMS);
}

#[test]
fn names_do_not_depend_on_ids() {
    let mut kernel = parse(SUMS).unwrap();
    // Two more values that nothing defines, in front.
    fn shift(kernel: &mut Kernel) {
        fn body(stmts: &mut [linc_tile::Stmt]) {
            for stmt in stmts {
                stmt.results.iter_mut().for_each(|v| v.0 += 2);
                match &mut stmt.op {
                    Op::Binary(_, a, b) => {
                        a.0 += 2;
                        b.0 += 2;
                    }
                    Op::ConstI(_) | Op::ProgramId(_) => {}
                    op => panic!("not in this test: {op:?}"),
                }
            }
        }
        kernel.body.truncate(3);
        body(&mut kernel.body);
        let extra = kernel.types[0].clone();
        kernel.types.splice(0..0, [extra.clone(), extra]);
        kernel.names.splice(0..0, [String::from("a"), String::from("b")]);
    }
    shift(&mut kernel);
    verify(&kernel).unwrap();
    let lines: Vec<&str> = SUMS.lines().take(4).collect();
    assert_eq!(kernel.to_string(), lines.join("\n") + "\n}\n");
}

#[test]
fn hints_become_words() {
    let mut b = Builder::new("hints", [1, 1, 1]);
    for hint in ["Σ x²", "2nd", "a.1", "a_1", "a", "a"] {
        let value = b.float(1.0);
        b.name(value, hint);
    }
    let text = b.finish().to_string();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|l| l.trim().strip_prefix('%'))
        .map(|l| l.split(':').next().unwrap())
        .collect();
    assert_eq!(names, ["__x_", "_2nd", "a_1", "a_1.1", "a", "a.1"]);
    assert_eq!(parse(&text).unwrap().to_string(), text);
}

#[test]
fn comments_and_several_kernels() {
    let text = "# one\nkernel a() grid(1, 1, 1) { } # two\nkernel b() grid(1, 1, 1) { }";
    let kernels = parse_all(text).unwrap();
    assert_eq!(kernels.iter().map(|k| k.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(parse_all("  # nothing\n").unwrap().is_empty());
    for (text, found) in [(text, "several"), ("", "none")] {
        assert!(parse(text).unwrap_err().to_string().contains(found));
    }
}

/// Replaces a part of `SUMS` and returns where the error is and what it says.
fn error_of(from: &str, to: &str) -> (usize, usize, String) {
    assert!(SUMS.contains(from), "{from}");
    match parse(&SUMS.replacen(from, to, 1)).unwrap_err() {
        TileError::Parse { line, column, message } => (line, column, message),
        error => panic!("{error}"),
    }
}

#[test]
fn errors_say_where_and_what() {
    let cases = [
        ("program_id 0", "program_idx 0", 2, 17, "`program_idx` is not an operation"),
        ("const 64", "const", 4, 3, "expected an integer, found `%off`"),
        ("const 64", "const 6.4", 3, 21, "expected an integer, found `6.4`"),
        ("mul %pid, %0", "mul %pid %0", 4, 26, "expected `,`, found `%0`"),
        ("mul %pid, %0", "mul %pid, %q", 4, 27, "`%q` is not defined"),
        ("mul %pid, %0", "mul %pid, %off", 4, 27, "the operation being read"),
        ("%lo: index", "%off: index", 5, 3, "`%off` is already defined in line 4"),
        ("%2: f32", "%2: f33", 8, 7, "an element type"),
        ("load x[", "load z[", 13, 27, "`z` is not a parameter of this kernel; it has x, y"),
        ("8, 1 < %left", "8, 1 > %left", 13, 39, "unexpected character '>'"),
        ("splat %2", "splat %2 %3", 10, 3, "expected `:`, found `%acc.1`"),
        ("store y[%7; 1], %acc.1", "store y[%7; 1], %5", 21, 19, "its region has ended"),
        ("%lo..%hi", "%lo.%hi", 10, 33, "unexpected character '.'"),
        ("\n}\n", "\n", 22, 1, "expected a statement or `}`, found the end of the text"),
    ];
    for (from, to, line, column, message) in cases {
        let found = error_of(from, to);
        assert!(found.2.contains(message), "{from} -> {to}: {found:?}");
        assert_eq!((found.0, found.1), (line, column), "{from} -> {to}: {found:?}");
    }
}

#[test]
fn broken_rules_are_located() {
    let (line, column, message) = error_of("sum %3 axis 1", "sum %x axis 1");
    assert_eq!((line, column), (15, 5));
    assert!(message.contains("works on f32, found `%x: bf16[2, 2]`"), "{message}");
    assert!(message.contains("in `%4: f32[2] = sum %x axis 1`"), "{message}");
}

#[test]
fn deep_nesting_is_an_error() {
    let mut text = String::from("kernel deep() grid(1, 1, 1) { %a: i32 = const 1 %c: bool = eq %a, %a ");
    text.push_str(&"if %c { ".repeat(100_000));
    let error = parse(&text).unwrap_err().to_string();
    assert!(error.contains("nested deeper than"), "{error}");
}
