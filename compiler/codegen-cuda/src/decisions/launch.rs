//! In which order programs start. A GPU starts blocks along x first, then y, then z, each when another has ended. Where
//! work depends on the place along the first axis of the tile program's grid (causal attention, whose longest programs
//! come first there), the second axis comes before it: long programs of all heads start before the short ones of any,
//! and no long one is left for the end. The third axis stays behind: programs of one sequence read the same keys.

use linc_tile::Kernel;
use linc_tile::cost::uneven_axes;

/// Blocks along y at most.
const MOST: u32 = 65_535;
/// Axes of a launch, by the axis of the tile program.
const IN_ORDER: [usize; 3] = [0, 1, 2];
const FIRST_BEHIND: [usize; 3] = [1, 0, 2];

/// The axis of the launch that each axis of a kernel's grid becomes.
pub(crate) fn axes(kernel: &Kernel) -> [usize; 3] {
    let [first, second, _] = kernel.grid;
    if second > 1 && first <= MOST && uneven_axes(kernel)[0] { FIRST_BEHIND } else { IN_ORDER }
}

/// Blocks of the launch along x, y, z.
pub(crate) fn grid(kernel: &Kernel, axes: [usize; 3]) -> [u32; 3] {
    let mut grid = [1; 3];
    for (count, axis) in kernel.grid.iter().zip(axes) {
        grid[axis] = *count;
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(programs: &str, upper: &str) -> Kernel {
        let text = format!(
            "kernel k(y: write f32) grid({programs}) {{
  %p: index = program_id 0
  %h: index = program_id 1
  %o: index = const 0
  %s: index = const 8
  %n: index = mul {upper}, %s
  for %i in %o..%n step %s {{
    %f: f32 = const 1.0
    store y[%o], %f
  }}
}}"
        );
        linc_tile::parse(&text).expect("a kernel")
    }

    #[test]
    fn long_programs_of_all_heads_come_before_short_ones() {
        let causal = kernel("5, 3, 2", "%p");
        assert_eq!((axes(&causal), grid(&causal, axes(&causal))), (FIRST_BEHIND, [3, 5, 2]));
        // Alike along the first axis, one head, more than there may be.
        for (programs, upper) in [("5, 3, 2", "%h"), ("5, 1, 2", "%p"), ("65536, 3, 2", "%p")] {
            let other = kernel(programs, upper);
            assert_eq!((axes(&other), grid(&other, axes(&other))), (IN_ORDER, other.grid));
        }
    }
}
