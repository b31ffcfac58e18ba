//! What stands above a kernel, for people: its launch, what it computes and moves, and its tiles.

use linc_tile::cost::cost;
use linc_tile::{Kernel, Op};

use crate::Arch;

/// Comment lines of a kernel. Operations and bytes are those of its tile program, for one launch; where they depend on
/// data, they are an estimate (`about`).
pub(crate) fn header(
    kernel: &Kernel,
    arch: Arch,
    [x, y, z]: [u32; 3],
    threads: usize,
    shared_bytes: u32,
) -> String {
    let cost = cost(kernel);
    let about = if cost.exact { "" } else { "about " };
    let (flops, bytes) = (quantity(cost.flops(), "FLOP"), quantity(cost.bytes(), "B"));
    let mut text = format!(
        "// {}: grid {x} x {y} x {z}, {threads} threads, {shared_bytes} bytes of shared memory, {}\n\
         // {about}{flops}, {bytes} of loads and stores",
        kernel.name,
        arch.name()
    );
    let tiles = tiles(kernel);
    if !tiles.is_empty() {
        text.push_str(&format!("; tiles: {}", tiles.join(", ")));
    }
    text.push('\n');
    text
}

/// Parameters with the shape of the largest tile that is loaded or stored of each.
fn tiles(kernel: &Kernel) -> Vec<String> {
    let mut shapes: Vec<Vec<usize>> = vec![vec![]; kernel.params.len()];
    kernel.for_each_stmt(|stmt| {
        let (view, tile) = match &stmt.op {
            Op::Load(view) => (view, stmt.results[0]),
            Op::Store(view, value) | Op::Scatter { to: view, value, .. } => (view, *value),
            _ => return,
        };
        let (shape, known) = (&kernel.ty(tile).shape, &mut shapes[view.param.0 as usize]);
        if shape.iter().product::<usize>() > known.iter().product() {
            known.clone_from(shape);
        }
    });
    let text = |shape: &[usize]| shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    let tiled = kernel.params.iter().zip(&shapes).filter(|(_, shape)| !shape.is_empty());
    tiled.map(|(param, shape)| format!("{} {}", param.name, text(shape))).collect()
}

/// Three digits and a prefix of thousands: `33.6 MFLOP`.
fn quantity(n: u64, unit: &str) -> String {
    let prefixes = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let n = n as f64;
    match prefixes.into_iter().find(|(size, _)| n >= size * 0.9995) {
        Some((size, prefix)) => {
            let scaled = n / size;
            let digits = if scaled < 9.995 {
                2
            } else if scaled < 99.95 {
                1
            } else {
                0
            };
            format!("{scaled:.digits$} {prefix}{unit}")
        }
        None => format!("{n} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_what_a_launch_does() {
        let text = "kernel double(x: read f32, s: read f32, y: write f32) grid(3, 1, 1) {
  %p: index = program_id 0
  %w: index = const 64
  %o: index = mul %p, %w
  %z: index = const 0
  %f: f32 = load s[%z]
  %a: f32[64] = load x[%o; 1]
  %t: f32[64] = splat %f
  %d: f32[64] = mul %a, %t
  store y[%o; 1], %d
}";
        let kernel = linc_tile::parse(text).expect("a kernel");
        let expected = "// double: grid 3 x 1 x 1, 32 threads, 0 bytes of shared memory, sm_80
// 192 FLOP, 1.55 kB of loads and stores; tiles: x 64, y 64
";
        assert_eq!(header(&kernel, Arch::Sm80, kernel.grid, 32, 0), expected);
    }

    #[test]
    fn quantities_have_three_digits() {
        let all = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (33_554_432, "33.6 MB"),
            (99_960_000, "100 MB"),
            (999_600, "1.00 MB"),
        ];
        for (n, text) in all {
            assert_eq!(quantity(n, "B"), text);
        }
    }
}
