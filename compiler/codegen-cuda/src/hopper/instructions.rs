//! The device functions that issue `wgmma`, for the widths that a kernel needs: the number of registers of an asm statement
//! is fixed in its text.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use linc_tile::Op;

use crate::decisions::Decisions;
use crate::decisions::layout::ValueLayout;
use crate::decisions::warpgroups::columns;
use crate::text::spelling::memory_type;

/// The device functions for the products of warpgroups in a kernel.
pub(crate) fn instructions(decisions: &Decisions<'_>) -> String {
    let mut products = BTreeSet::new();
    decisions.kernel.for_each_stmt(|stmt| {
        let Op::Dot { b, .. } = stmt.op else { return };
        let result = stmt.results[0];
        if let (true, ValueLayout::Matrix(layout)) =
            (decisions.operands.by_warpgroups(result), decisions.place(result))
        {
            products.insert((memory_type(decisions.ty(b).elem), columns(&layout.cols)));
        }
    });
    products.into_iter().map(|(elem, columns)| instruction(elem, columns)).collect()
}

/// Register `i` of the accumulators of a thread: eight columns after each other, in each two of the upper row and two of
/// the lower one.
fn accumulator(i: usize) -> String {
    let row = if i % 4 < 2 { "upper" } else { "lower" };
    format!("\"+f\"({row}[{}])", i / 4 * 2 + i % 2)
}

fn instruction(elem: &str, n: usize) -> String {
    let (per_row, registers) = (n / 4, n / 2);
    let place = |i: usize| format!("%{i}");
    let list = |from: usize, count: usize| (from..from + count).map(place).collect::<Vec<_>>().join(", ");
    let outputs = (0..registers).map(accumulator).collect::<Vec<_>>().join(", ");
    let name = format!("wgmma.mma_async.sync.aligned.m64n{n}k16.f32.{elem}.{elem}");
    let mut text = String::new();
    for in_registers in [true, false] {
        let (flags, param, left, inputs) = if in_registers {
            let left = format!("{{{}}}", list(registers, 4));
            let inputs = (0..4).map(|i| format!("\"r\"(a[{i}])")).collect::<Vec<_>>().join(", ");
            ("int TRANS_B", "const u32 (&a)[4]", left, inputs)
        } else {
            ("int TRANS_A, int TRANS_B", "u64 a", place(registers), "\"l\"(a)".to_string())
        };
        let mut next = registers + if in_registers { 4 } else { 1 };
        let mut operand = || {
            next += 1;
            place(next - 1)
        };
        let (right, add) = (operand(), operand());
        let (trans, immediates) = if in_registers {
            (operand(), "\"n\"(TRANS_B)")
        } else {
            (format!("{}, {}", operand(), operand()), "\"n\"(TRANS_A), \"n\"(TRANS_B)")
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "template <{flags}>\nLINC_INLINE void wgmma_{elem}(float (&upper)[{per_row}], float (&lower)[{per_row}], {param}, u64 b, bool add) {{\n  \
             asm volatile(\"{{.reg .pred add; setp.ne.b32 add, {add}, 0; \"\n               \
             \"{name} {{{}}}, \"\n               \"{left}, {right}, add, 1, 1, {trans};}}\"\n               \
             : {outputs}\n               : {inputs}, \"l\"(b), \"r\"((int)add), {immediates});\n}}",
            list(0, registers)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_names_its_operands_in_order() {
        let text = instruction("bf16", 16);
        let instruction =
            "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7}, ";
        assert_eq!(text.matches(instruction).count(), 2);
        assert_eq!(text.matches("(float (&upper)[4], float (&lower)[4], ").count(), 2);
        for part in [
            "setp.ne.b32 add, %13, 0;",
            "{%8, %9, %10, %11}, %12, add, 1, 1, %14;}",
            "setp.ne.b32 add, %10, 0;",
            "%8, %9, add, 1, 1, %11, %12;}",
            // Two columns of a row, two of the one eight below, then the next eight columns.
            "\"+f\"(upper[0]), \"+f\"(upper[1]), \"+f\"(lower[0]), \"+f\"(lower[1]), \"+f\"(upper[2]), ",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
