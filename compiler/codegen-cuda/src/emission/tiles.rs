//! Tiles that products read from shared memory: from registers, from global memory by asynchronous copies (`cp.async`), and
//! back to registers.

use linc_tile::{ValueId, View};

use super::addresses::pointer;
use super::code::Code;
use super::fragments::{column_block, column_blocks, strip};
use super::shared_memory::StagedTile;
use super::values::Def;
use crate::decisions::layout::ValueLayout;
use crate::decisions::shared_form::SharedForm;
use crate::text::shared_tile;
use crate::text::spelling::memory_type;

/// Takes room for a matrix in the body being written.
pub(crate) fn new_tile(code: &mut Code<'_>, value: ValueId) -> StagedTile {
    code.shared.new_tile(SharedForm::of(code.decisions.ty(value)), code.values.body())
}

/// Copies a value from registers to where products read it.
pub(crate) fn stage(code: &mut Code<'_>, value: ValueId) {
    let tile = new_tile(code, value);
    write(code, value, &tile);
    note_operand(code, value, &tile);
    code.shared.tiles.insert(value, tile);
}

/// Starts an asynchronous copy of a load to where products read it.
pub(crate) fn stage_load(code: &mut Code<'_>, value: ValueId, view: &View) {
    let tile = new_tile(code, value);
    code.shared.wait_to_write(&mut code.out, tile.range);
    copy(code, view, &tile.form, &tile.at);
    code.out.line("copy_async_commit();");
    code.shared.hazards.note_copy(tile.range);
    note_operand(code, value, &tile);
    code.shared.tiles.insert(value, tile);
}

/// Announces that products of warpgroups will read what is written of a value, or copied, if they will.
pub(crate) fn note_operand(code: &mut Code<'_>, value: ValueId, tile: &StagedTile) {
    if code.decisions.operands.is_described(value) {
        code.shared.hazards.note_unfenced(tile.range);
    }
}

/// Writes a matrix from registers into a tile, with its padding.
pub(crate) fn write(code: &mut Code<'_>, value: ValueId, tile: &StagedTile) {
    code.shared.writes(&mut code.out, tile.range);
    let place = code.decisions.place(value);
    let ValueLayout::Matrix(layout) = place else { unreachable!("verified: products are of matrices") };
    let form = &tile.form;
    let pair = if form.elem.is_narrow() { 2 } else { 1 };
    let slots = code.open_slots(place, pair);
    let positions = &mut code.values.positions;
    let (i, j) = (positions.at(layout.rows, slots[0]), positions.at(layout.cols, slots[1]));
    code.out.line(format!("const int i = {i}, j = {j};"));
    let mut elements = vec![code.values.element(value, slots)];
    if pair == 2 {
        elements.push(code.values.element(value, [slots[0], &format!("{} + 1", slots[1])]));
    }
    if form.elem.is_narrow() {
        // What the layout holds beyond the tile becomes the zeros of the padding.
        let mut real = vec![];
        if layout.rows.covered() > form.extent[0] {
            real.push(format!("i < {}", form.extent[0]));
        }
        let cut = layout.cols.covered() > form.extent[1];
        for (e, element) in elements.iter_mut().enumerate() {
            let mut real = real.clone();
            if cut {
                let at = if e == 0 { "j".to_string() } else { format!("j + {e}") };
                real.push(format!("{at} < {}", form.extent[1]));
            }
            if !real.is_empty() {
                *element = format!("{} ? {element} : 0.0f", real.join(" && "));
            }
        }
    }
    let (rows, cols) = if pair == 2 { (form.rows, form.cols) } else { (form.extent[0], form.extent[1]) };
    let mut guards = vec![];
    if layout.rows.covered() > rows {
        guards.push(format!("i < {rows}"));
    }
    if layout.cols.covered() > cols {
        guards.push(format!("j < {cols}"));
    }
    let guard = if guards.is_empty() { String::new() } else { format!("if ({}) ", guards.join(" && ")) };
    let text = if pair == 2 {
        let (piece, ty) = (tile.piece("i", "j / 8"), memory_type(form.elem));
        format!("shared_store_pair({piece} + j % 8 * 2, pack_{ty}({}));", elements.join(", "))
    } else {
        format!("shared_store({} + (i * {} + j) * 4, {});", tile.at, form.cols, elements[0])
    };
    code.out.line(format!("{guard}{text}"));
    code.close_slots(place);
}

/// Starts the copies of a tile, zeros beyond its bounds and in its padding. Every thread copies some pieces.
pub(crate) fn copy(code: &mut Code<'_>, view: &View, form: &SharedForm, at: &str) {
    code.out.open("");
    let pointer = pointer(code, view, true);
    let (pieces, real) = (form.cols / 8, form.extent[1] / 8);
    let mut conditions = vec![];
    if let Some(bound) = view.axes[0].bound {
        let bound = code.values.scalar(bound);
        code.out.line(format!("const int rows = below({bound}, {});", form.extent[0]));
        conditions.push("i < rows".to_string());
    } else if form.rows > form.extent[0] {
        conditions.push(format!("i < {}", form.extent[0]));
    }
    if let Some(bound) = view.axes[1].bound {
        let bound = code.values.scalar(bound);
        code.out.line(format!("const int cols = below({bound}, {});", form.extent[1]));
        conditions.push("j * 8 < cols".to_string());
    } else if pieces > real {
        conditions.push(format!("j < {real}"));
    }
    let valid = if conditions.is_empty() { "true".into() } else { conditions.join(" && ") };
    open_pieces(code, form.rows, pieces);
    code.out.line(format!(
        "copy_async16({}, {pointer} + ((index)i * {} + j * 8), {valid});",
        shared_tile::piece(form, at, "i", "j"),
        view.axes[0].stride
    ));
    code.out.close();
    code.out.close();
}

/// Opens a loop that deals the 16-byte pieces `(i, j)` of a tile out to the threads.
pub(crate) fn open_pieces(code: &mut Code<'_>, rows: usize, pieces: usize) {
    let (total, threads) = (rows * pieces, code.decisions.layouts.threads());
    let out = &mut code.out;
    if total.is_multiple_of(threads) {
        out.line("#pragma unroll");
        out.open(format!("for (int p = 0; p < {}; ++p)", total / threads));
        out.line(format!("const int piece = p * {threads} + thread;"));
    } else {
        out.open(format!("for (int piece = thread; piece < {total}; piece += {threads})"));
    }
    out.line(format!("const int i = piece / {pieces}, j = piece % {pieces};"));
}

/// Reads a tile that came by asynchronous copy into registers.
pub(crate) fn unpack(code: &mut Code<'_>, value: ValueId) {
    let tile = code.shared.tiles[&value].clone();
    let ValueLayout::Matrix(layout) = code.decisions.place(value) else {
        unreachable!("only matrices are copied")
    };
    code.shared.reads(&mut code.out, tile.range);
    let name = code.declare(value);
    code.out.unrolled("i", layout.rows.outer, 1);
    code.out.unrolled("n", column_blocks(layout.cols), 1);
    code.out.line("u32 packed[4];");
    let strip = strip(layout.rows, tile.form.rows);
    let block = column_block(layout.cols, tile.form.cols);
    let piece = tile.piece(&format!("{strip} * 16 + lane % 16"), &format!("{block} * 2 + lane / 16"));
    code.out.line(format!("load_matrices(packed, {piece});"));
    code.out.unrolled("q", 4, 1);
    let ty = memory_type(tile.form.elem);
    code.out.line(format!("{name}[i * 2 + q % 2][n * 4 + q / 2 * 2] = low_{ty}(packed[q]);"));
    code.out.line(format!("{name}[i * 2 + q % 2][n * 4 + q / 2 * 2 + 1] = high_{ty}(packed[q]);"));
    code.out.close();
    code.out.close();
    code.out.close();
    code.values.define(value, Def::Array(name));
}
