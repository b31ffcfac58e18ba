//! The verifier: each rule is broken once, and the message names what was found and what was expected.

use linc_tile::{Elem, Kernel, Op, Region, Stmt, TileError, TileType, ValueId, parse, verify};

const PARAMS: &str = "x: read f32, h: readwrite bf16, n: read i32, y: write f32";

/// Values of every kind to break rules with.
const VALUES: &str = "%i: index = const 0 %k: i32 = const 1 %f: f32 = const 1.0 %c: bool = eq %k, %k \
    %v: f32[4] = load x[%i; 1] %w: f32[8] = load x[%i; 1] %m: f32[4, 8] = load x[%i; 8, 1] \
    %s: f32[8, 8] = load x[%i; 8, 1] %h: bf16[4, 8] = load h[%i; 8, 1] %g: bf16[4] = load h[%i; 1] \
    %q: i32[4] = load n[%i; 1] %b: bool[4] = eq %q, %q";

fn text(body: &str) -> String {
    format!("kernel k({PARAMS}) grid(1, 1, 1) {{ {VALUES}\n{body} }}")
}

/// The message for a body behind [`VALUES`]; the statement that is wrong stands in line 2.
fn broken(body: &str) -> String {
    match parse(&text(body)).map(|k| k.to_string()) {
        Err(TileError::Parse { line: 2, message, .. }) => message,
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn well_formed_bodies() {
    for body in [
        "",
        "%r: f32[4, 8] = dot %m, %s",
        "%r: f32[4, 4] = dot %m, trans %m",
        "%r: f32[8, 8] = dot trans %h, %h, acc %s",
        "%r: i32[4] = rem %q, %q %t: index = rem %i, %i",
        "%r: bf16[4] = select %b, %g, %g",
        "%r: bf16[4, 8] = expand %g axis 1 %t: bf16[8, 4] = transpose %r",
        "%r: bool[3, 4] = expand %b axis 0 %t: bool[2] = splat %c",
        "%r: f16[4] = cast %v %u: f32[4] = cast %r",
        "%r: f16[8, 8] = cast %s %u: f32[8, 8] = dot %r, trans %r",
        "%r: bf16[4] = cast %v store h[%i; 2 < %i], %r store y[%i; 1], %v",
        "%r: i32[4] = cast %v scatter y[%i], %v at %r scatter h[%i], %g at %q",
    ] {
        parse(&text(body)).unwrap_or_else(|e| panic!("{body}: {e}"));
    }
}

#[test]
fn pointwise_types() {
    for (body, message) in [
        ("%r: f32[4] = add %v, %w", "operands must have one type, found `%v: f32[4]` and `%w: f32[8]`"),
        ("%r: f32[8] = add %v, %v", "the result is f32[4], not f32[8]"),
        ("%r: bf16[4] = add %g, %g", "the operation works on f32, i32, index, found `%g: bf16[4]`"),
        ("%r: f32[4] = rem %v, %v", "the operation works on i32, index, found `%v: f32[4]`"),
        ("%r: f32[4] = and %v, %v", "the operation works on bool, found"),
        ("%r: bool[4] = add %b, %b", "the operation works on f32, i32, index, found"),
        ("%r: i32[4] = neg %q", "the operation works on f32, found `%q: i32[4]`"),
        ("%r: f32[4] = not %v", "the operation works on bool, found"),
        ("%r: bool[4] = neg %b", "the operation works on f32, found"),
        ("%r: i32[4] = fma %q, %q, %q", "the operation works on f32, found"),
        ("%r: f32[4] = fma %v, %v, %w", "operands must have one type"),
        ("%r: bool[4] = lt %g, %g", "the operation works on f32, i32, index, found"),
        ("%r: bool[4] = eq %b, %b", "the operation works on f32, i32, index, found"),
        ("%r: f32[4] = eq %v, %v", "the result is bool[4], not f32[4]"),
        ("%r: f32[4] = select %c, %v, %v", "the condition is bool[4], found `%c: bool`"),
        ("%r: f32[4] = select %b, %v, %w", "operands must have one type"),
        ("%r: i32 = const 2147483648", "2147483648 does not fit i32"),
        ("%r: f32[4] = const 1.0", "the result is f32, not f32[4]"),
        ("%r: bf16 = const 1.0", "the result is f32, not bf16"),
        ("%r: i32[4] = const 1", "a constant is a scalar, not i32[4]"),
        ("%r: index = program_id 3", "the grid has axes 0, 1 and 2, not 3"),
        ("%r: i32 = program_id 0", "the result is index, not i32"),
        ("%r: f32 = cast %f", "there is no cast from f32 to f32"),
        ("%r: f32 = cast %i", "there is no cast from index to f32"),
        ("%r: f32[4] = cast %b", "there is no cast from bool to f32"),
        ("%r: f16[4] = cast %g", "there is no cast from bf16 to f16"),
        ("%r: bf16[8] = cast %v", "a cast keeps the shape, found `%v: f32[4]` to bf16[8]"),
        ("%r: f32[4], %t: f32[4] = neg %v", "the operation has one result, 2 are defined"),
        ("neg %v", "the operation has one result, 0 are defined"),
    ] {
        let found = broken(body);
        assert!(found.starts_with(message) || found.contains(message), "{body}: {found}");
    }
}

#[test]
fn shape_types() {
    for (body, message) in [
        ("%r: f32[4, 8] = splat %v", "splat of a scalar, found `%v: f32[4]`"),
        ("%r: i32[4] = splat %f", "the result is f32[4], not i32[4]"),
        ("%r: f32[8, 4] = expand %v axis 1", "expand of `%v: f32[4]` along axis 1 does not give f32[8, 4]"),
        ("%r: f32[4, 8] = expand %v axis 0", "does not give f32[4, 8]"),
        ("%r: f32[4, 8] = expand %v axis 2", "does not give f32[4, 8]"),
        ("%r: f32[4, 8] = expand %m axis 0", "does not give f32[4, 8]"),
        ("%r: bf16[4, 8] = expand %v axis 1", "the result is f32[4, 8], not bf16[4, 8]"),
        ("%r: i32[4] = iota axis 1", "i32[4] has no axis 1"),
        ("%r: f32[4] = iota axis 0", "the result is i32[4], not f32[4]"),
        ("%r: f32[4] = transpose %v", "transpose of a matrix, found `%v: f32[4]`"),
        ("%r: f32[4, 8] = transpose %m", "the result is f32[8, 4], not f32[4, 8]"),
        ("%r: f32 = sum %v axis 1", "`%v: f32[4]` has no axis 1"),
        ("%r: f32[8] = sum %m axis 1", "the result is f32[4], not f32[8]"),
        ("%r: i32 = sum %q axis 0", "the operation works on f32, found `%q: i32[4]`"),
        ("%r: bf16 = reduce_max %g axis 0", "the operation works on f32, found `%g: bf16[4]`"),
        ("%r: f32 = scan %f axis 0", "`%f: f32` has no axis 0"),
        ("%r: f32 = scan %v axis 0", "the result is f32[4], not f32"),
        ("%r: f32[4, 4] = dot %m, %m", "dot of [4, 8] and [4, 8]: the inner sizes differ"),
        ("%r: f32[4] = dot %m, %w", "dot of matrices, found `%w: f32[8]`"),
        ("%r: f32[4, 4] = dot %m, trans %h", "dot of two element types"),
        ("%r: bf16[4, 4] = dot %h, trans %h", "the result is f32[4, 4], not bf16[4, 4]"),
        ("%r: f32[4, 8] = dot %m, %s, acc %s", "the accumulator is f32[4, 8], found `%s: f32[8, 8]`"),
        ("%r: f32[2, 2, 2] = splat %f", "has rank 3; tiles have at most 2 axes"),
        ("%r: index[4] = splat %i", "index is only scalar"),
        ("%r: f32[0] = splat %f", "f32[0] has an axis without elements"),
        ("%r: f32[4294967296, 4294967296] = splat %f", "more than 4194304 elements"),
        ("%r: f32[4096, 1025] = splat %f", "more than 4194304 elements"),
    ] {
        let found = broken(body);
        assert!(found.contains(message), "{body}: {found}");
    }
}

#[test]
fn memory_rules() {
    for (body, message) in [
        ("%r: f32[4] = load y[%i; 1]", "`y` is declared `write` and cannot be loaded from"),
        ("store x[%i; 1], %v", "`x` is declared `read` and cannot be stored to"),
        ("%r: f32[4] = load h[%i; 1]", "`h` holds bf16, the tile is f32[4]; cast it"),
        ("store h[%i; 1], %v", "`h` holds bf16, the tile is f32[4]; cast it"),
        ("%r: f32[4] = load x[%i]", "a tile f32[4] needs 1 strides, found 0"),
        ("store y[%i; 1, 1], %v", "a tile f32[4] needs 1 strides, found 2"),
        ("%r: f32[4] = load x[%k; 1]", "the offset is index, found `%k: i32`"),
        ("%r: f32[4] = load x[%i; 1 < %k]", "the bound is index, found `%k: i32`"),
        ("%r: f32[4] = store y[%i; 1], %v", "the operation has no result"),
        ("%r: f32[4] = scatter y[%i], %v at %q", "the operation has no result"),
        ("scatter y[%i], %m at %q", "scatter of a vector, found `%m: f32[4, 8]`"),
        ("scatter y[%i], %w at %q", "the places are i32[8], found `%q: i32[4]`"),
        ("scatter y[%i], %v at %v", "the places are i32[4], found `%v: f32[4]`"),
        ("scatter y[%i; 1], %v at %q", "scatter to a view without strides"),
        ("scatter h[%i], %v at %q", "`h` holds bf16, the tile is f32; cast it"),
        ("scatter x[%i], %v at %q", "`x` is declared `read` and cannot be stored to"),
    ] {
        let found = broken(body);
        assert!(found.contains(message), "{body}: {found}");
    }
}

#[test]
fn control_rules() {
    for (body, message) in [
        ("if %b { }", "the condition is bool, found `%b: bool[4]`"),
        ("%r: f32 = if %c { yield %f } else { yield %v }", "the values yielded if false are (f32[4])"),
        ("%r: f32 = if %c { yield %f }", "the results are (f32), the values yielded if false are ()"),
        ("if %c { yield %f }", "the results are (), the values yielded if true are (f32)"),
        ("for %j in %i..%k step %i { }", "the end of the loop is index, found `%k: i32`"),
        ("for %j in %i..%i step %i { }", "the step of a loop is positive, found 0"),
        ("for %j in %i..%i step %f { }", "the step is index, found `%f: f32`"),
        ("%n: index = const -1 for %j in %i..%i step %n { }", "the step of a loop is positive, found -1"),
        (
            "%1: index = const 1 %r: f32 = for %j in %i..%i step %1 carry(%a = %v) { yield %a }",
            "the results are (f32), the initial values are (f32[4])",
        ),
        (
            "%1: index = const 1 %r: f32 = for %j in %i..%i step %1 carry(%a = %f) { yield %v }",
            "the results are (f32), the yielded values are (f32[4])",
        ),
        ("%1: index = const 1 for %j in %i..%i step %1 { yield %f }", "the yielded values are (f32)"),
    ] {
        let found = broken(body);
        assert!(found.contains(message), "{body}: {found}");
    }
}

#[test]
fn header_rules() {
    let header = |text: &str| parse(text).unwrap_err().to_string();
    let same = header("kernel k(x: read f32, x: write f32) grid(1, 1, 1) { }");
    assert!(same.contains("two parameters are called `x`"), "{same}");
    for elem in ["index", "bool"] {
        let memory = header(&format!("kernel k(x: read {elem}) grid(1, 1, 1) {{ }}"));
        assert!(memory.contains("memory holds f32, bf16, f16 or i32"), "{memory}");
    }
    let grid = header("kernel k() grid(1, 0, 1) { }");
    assert!(grid.contains("an axis without programs"), "{grid}");
    let yields = header("kernel k() grid(1, 1, 1) { %i: index = const 0 yield %i }");
    assert!(yields.contains("the body of a kernel does not yield"), "{yields}");
}

/// What the text form cannot say: a kernel broken as data.
fn verify_broken(change: impl FnOnce(&mut Kernel)) -> String {
    let mut kernel = parse(&text("if %c { %t: f32 = neg %f store y[%i], %t } %u: f32 = neg %f")).unwrap();
    verify(&kernel).unwrap();
    change(&mut kernel);
    // Even an ill-formed kernel prints.
    assert!(!kernel.to_string().is_empty());
    match verify(&kernel).unwrap_err() {
        TileError::Verify { kernel: _, message } => message,
        error => panic!("{error}"),
    }
}

fn stmt(kernel: &mut Kernel, from_end: usize) -> &mut Stmt {
    let at = kernel.body.len() - 1 - from_end;
    &mut kernel.body[at]
}

#[test]
fn broken_data() {
    let float = |k: &mut Kernel| {
        k.types.push(TileType::scalar(Elem::F32));
        k.names.push(String::new());
        ValueId(k.types.len() as u32 - 1)
    };
    let cases: Vec<(String, &str)> = vec![
        (verify_broken(|k| k.name = "a b".into()), "the name \"a b\" is not a word"),
        (verify_broken(|k| k.params[0].name = "1x".into()), "the parameter name \"1x\" is not a word"),
        (verify_broken(|k| k.names.truncate(1)), "types but 1 name hints"),
        (
            verify_broken(|k| {
                let first = k.body[0].results.clone();
                stmt(k, 0).results = first;
            }),
            "`%i` is defined twice",
        ),
        (verify_broken(|k| stmt(k, 0).results = vec![ValueId(10_000)]), "value 10000 has no type"),
        (
            verify_broken(|k| {
                let undefined = float(k);
                stmt(k, 0).op = Op::Unary(linc_tile::Unary::Neg, undefined);
            }),
            "is used outside the region of its definition",
        ),
        (
            verify_broken(|k| {
                let Op::If { then, .. } = &stmt(k, 1).op else { panic!("not an if") };
                let inner = then.body[0].results[0];
                stmt(k, 0).op = Op::Unary(linc_tile::Unary::Neg, inner);
            }),
            "`%t` is used outside the region of its definition",
        ),
        (
            verify_broken(|k| {
                let arg = float(k);
                let Op::If { then, .. } = &mut stmt(k, 1).op else { panic!("not an if") };
                then.args.push(arg);
            }),
            "the regions of an `if` have no arguments",
        ),
        (
            verify_broken(|k| {
                let one = ValueId(0);
                stmt(k, 1).op =
                    Op::For { lower: one, upper: one, step: one, init: vec![], body: Region::default() };
            }),
            "a loop's region has its counter as first argument",
        ),
        (
            verify_broken(|k| {
                let Op::Load(view) = &mut k.body[4].op else { panic!("not a load") };
                view.param.0 = 9;
            }),
            "there is no parameter 9",
        ),
        (
            verify_broken(|k| {
                let cond = k.body[3].results[0];
                let mut body = vec![];
                for _ in 0..33 {
                    let then = Region { args: vec![], body, yields: vec![] };
                    body = vec![Stmt {
                        results: vec![],
                        op: Op::If { cond, then, otherwise: Region::default() },
                    }];
                }
                k.body.extend(body);
            }),
            "regions are nested deeper than 32",
        ),
    ];
    for (found, message) in cases {
        assert!(found.contains(message), "{message}: {found}");
    }
}
