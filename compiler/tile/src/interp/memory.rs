//! Buffers during a run: tiles in and out through views, bounds, and who touched which element.

use super::Buffer;
use super::eval::Data;
use super::real::Real;
use crate::ir::{Kernel, Mode, ParamId, TileType};

/// A view with its scalars evaluated.
pub(super) struct Window {
    pub(super) param: ParamId,
    pub(super) offset: i64,
    /// Stride and bound of each axis.
    pub(super) axes: Vec<(i64, Option<i64>)>,
}

/// The elements of a window that exist: rows and columns within the bounds, and where they are in the buffer.
struct Span {
    param: usize,
    rows: usize,
    cols: usize,
    /// Columns of the whole tile.
    width: usize,
    offset: i64,
    strides: [i64; 2],
}

impl Span {
    /// Positions in buffer and tile, row by row. All are valid once [`Memory::span`] has accepted the window.
    fn elements(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.rows).flat_map(move |i| {
            let start = self.offset + i as i64 * self.strides[0];
            (0..self.cols).map(move |j| ((start + j as i64 * self.strides[1]) as usize, i * self.width + j))
        })
    }
}

/// Who touched the elements of one parameter. 0 is nobody, a program is its number plus one.
struct Touched {
    writer: Vec<u32>,
    reader: Vec<u32>,
}

/// Stands for more than one reader.
const SEVERAL: u32 = u32::MAX;

pub(super) struct Memory<'a> {
    kernel: &'a Kernel,
    buffers: &'a mut [Buffer],
    /// By parameter; only of those that are written, and only if races are checked.
    touched: Vec<Option<Touched>>,
    /// The running program, plus one.
    pub(super) program: u32,
}

impl<'a> Memory<'a> {
    pub(super) fn new(kernel: &'a Kernel, buffers: &'a mut [Buffer], check_races: bool) -> Self {
        let touched = kernel.params.iter().zip(&*buffers).map(|(param, buffer)| {
            let reader = match param.mode {
                Mode::Read => return None,
                // Never loaded.
                Mode::Write => 0,
                Mode::ReadWrite => buffer.len(),
            };
            check_races.then(|| Touched { writer: vec![0; buffer.len()], reader: vec![0; reader] })
        });
        let touched = touched.collect();
        Memory { kernel, buffers, touched, program: 1 }
    }

    /// Checks that all elements within the bounds are in the buffer.
    fn span(&self, window: &Window, ty: &TileType) -> Result<Span, String> {
        let param = window.param.0 as usize;
        let mut span = Span { param, rows: 1, cols: 1, width: 1, offset: window.offset, strides: [0, 0] };
        // The last tile axis is the columns.
        let first = 2 - ty.shape.len().min(2);
        for (i, (size, (stride, bound))) in ty.shape.iter().zip(&window.axes).enumerate() {
            let count = bound.map_or(*size, |b| b.clamp(0, *size as i64) as usize);
            span.strides[first + i] = *stride;
            if first + i == 0 {
                span.rows = count;
            } else {
                span.cols = count;
                span.width = *size;
            }
        }
        if span.rows == 0 || span.cols == 0 {
            span.rows = 0;
            return Ok(span);
        }
        let len = self.buffers[param].len();
        // The four corners bound everything between them; i128 holds any product of a stride and a size.
        for i in [0, span.rows - 1] {
            for j in [0, span.cols - 1] {
                let at = i128::from(span.offset)
                    + i as i128 * i128::from(span.strides[0])
                    + j as i128 * i128::from(span.strides[1]);
                if at < 0 || at >= len as i128 {
                    let name = &self.kernel.params[param].name;
                    let element = match ty.shape.len() {
                        0 => "the scalar".to_string(),
                        1 => format!("element {j}"),
                        _ => format!("element ({i}, {j})"),
                    };
                    return Err(format!("{element} is at index {at} of `{name}`, which has {len} elements"));
                }
            }
        }
        Ok(span)
    }

    pub(super) fn load<R: Real>(&mut self, window: &Window, ty: &TileType) -> Result<Data<R>, String> {
        let span = self.span(window, ty)?;
        self.note_read(&span)?;
        let numel = ty.numel();
        Ok(match &self.buffers[span.param] {
            Buffer::F32(data) => Data::reals(gather(&span, data, numel, R::ZERO, R::from_f32)),
            Buffer::F64(data) => Data::reals(gather(&span, data, numel, R::ZERO, R::from_f64)),
            Buffer::Bf16(data) => {
                let widen = |bits| R::from_f32(half::bf16::from_bits(bits).to_f32());
                Data::reals(gather(&span, data, numel, R::ZERO, widen))
            }
            Buffer::F16(data) => {
                let widen = |bits| R::from_f32(half::f16::from_bits(bits).to_f32());
                Data::reals(gather(&span, data, numel, R::ZERO, widen))
            }
            Buffer::I32(data) => Data::ints(gather(&span, data, numel, 0, |x| x)),
        })
    }

    pub(super) fn store<R: Real>(
        &mut self,
        window: &Window,
        ty: &TileType,
        value: &Data<R>,
    ) -> Result<(), String> {
        let span = self.span(window, ty)?;
        self.note_write(&span)?;
        match &mut self.buffers[span.param] {
            Buffer::F32(data) => scatter(&span, data, value.as_reals(), R::to_f32),
            Buffer::F64(data) => scatter(&span, data, value.as_reals(), R::to_f64),
            Buffer::Bf16(data) => scatter(&span, data, value.as_reals(), R::to_bf16),
            Buffer::F16(data) => scatter(&span, data, value.as_reals(), R::to_f16),
            Buffer::I32(data) => scatter(&span, data, value.as_ints(), |x| x),
        }
        Ok(())
    }

    fn note_read(&mut self, span: &Span) -> Result<(), String> {
        let program = self.program;
        let Some(touched) = &mut self.touched[span.param] else { return Ok(()) };
        let conflict = span.elements().find(|(at, _)| {
            let reader = &mut touched.reader[*at];
            *reader = if *reader == 0 || *reader == program { program } else { SEVERAL };
            ![0, program].contains(&touched.writer[*at])
        });
        let Some((at, _)) = conflict else { return Ok(()) };
        let writer = touched.writer[at];
        Err(self.race(span, at, "is read here but written by", writer))
    }

    fn note_write(&mut self, span: &Span) -> Result<(), String> {
        let program = self.program;
        let Some(touched) = &mut self.touched[span.param] else { return Ok(()) };
        let other = |who: u32| who != 0 && who != program;
        let reader = |at: usize| touched.reader.get(at).copied().unwrap_or(0);
        let conflict = span.elements().find(|(at, _)| {
            let free = !other(touched.writer[*at]) && !other(reader(*at));
            if free {
                touched.writer[*at] = program;
            }
            !free
        });
        let Some((at, _)) = conflict else { return Ok(()) };
        let (writer, reader) = (touched.writer[at], reader(at));
        Err(match other(writer) {
            true => self.race(span, at, "is written here and by", writer),
            false => self.race(span, at, "is written here but read by", reader),
        })
    }

    fn race(&self, span: &Span, at: usize, what: &str, other: u32) -> String {
        let name = &self.kernel.params[span.param].name;
        let other = match other {
            SEVERAL => "several other programs".to_string(),
            other => format!("program {:?}", grid_position(self.kernel.grid, other - 1)),
        };
        format!("race: index {at} of `{name}` {what} {other}")
    }
}

/// Grid position of a program number; the first axis runs fastest.
pub(super) fn grid_position(grid: [u32; 3], program: u32) -> [u32; 3] {
    let [x, y, _] = grid;
    [program % x, program / x % y, program / x / y]
}

fn gather<S: Copy, T: Copy>(
    span: &Span,
    data: &[S],
    numel: usize,
    zero: T,
    convert: impl Fn(S) -> T,
) -> Vec<T> {
    let mut out = vec![zero; numel];
    if span.strides[1] == 1 {
        for i in 0..span.rows {
            let start = (span.offset + i as i64 * span.strides[0]) as usize;
            let row = &mut out[i * span.width..][..span.cols];
            row.iter_mut().zip(&data[start..][..span.cols]).for_each(|(to, from)| *to = convert(*from));
        }
    } else {
        span.elements().for_each(|(at, to)| out[to] = convert(data[at]));
    }
    out
}

fn scatter<S, T: Copy>(span: &Span, data: &mut [S], tile: &[T], convert: impl Fn(T) -> S) {
    if span.strides[1] == 1 {
        for i in 0..span.rows {
            let start = (span.offset + i as i64 * span.strides[0]) as usize;
            let row = &tile[i * span.width..][..span.cols];
            data[start..][..span.cols].iter_mut().zip(row).for_each(|(to, from)| *to = convert(*from));
        }
    } else {
        span.elements().for_each(|(at, from)| data[at] = convert(tile[from]));
    }
}
