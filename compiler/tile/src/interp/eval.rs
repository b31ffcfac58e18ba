//! Evaluates the statements of one program of the grid, in order.

use std::borrow::Cow;
use std::rc::Rc;

use super::axis_ops;
use super::memory::{Memory, Window, grid_position};
use super::real::Real;
use super::{Buffer, Precision, RunOptions};
use crate::error::TileError;
use crate::ir::{Binary, Compare, Elem, Kernel, Op, Region, Stmt, TileType, ValueId, View};
use crate::text::{stmt_line, value_names};

/// A value. Tiles are row-major; a scalar tile has one element. Clones are cheap.
#[derive(Clone)]
pub(super) enum Data<R> {
    /// F32, Bf16 and F16.
    Real(Rc<Vec<R>>),
    /// Tiles of I32.
    Int(Rc<Vec<i32>>),
    /// Results of comparisons, of any shape.
    Bool(Rc<Vec<bool>>),
    /// An Index; there are no tiles of them.
    Index(i64),
}

/// Only a kernel that the verifier should have refused gets here.
const TYPED: &str = "the verifier has checked the types";

impl<R: Real> Data<R> {
    pub(super) fn reals(data: Vec<R>) -> Self {
        Data::Real(Rc::new(data))
    }

    pub(super) fn ints(data: Vec<i32>) -> Self {
        Data::Int(Rc::new(data))
    }

    fn bools(data: Vec<bool>) -> Self {
        Data::Bool(Rc::new(data))
    }

    pub(super) fn as_reals(&self) -> &[R] {
        match self {
            Data::Real(data) => data,
            Data::Int(_) | Data::Bool(_) | Data::Index(_) => unreachable!("{TYPED}"),
        }
    }

    pub(super) fn as_ints(&self) -> &[i32] {
        match self {
            Data::Int(data) => data,
            Data::Real(_) | Data::Bool(_) | Data::Index(_) => unreachable!("{TYPED}"),
        }
    }

    fn as_bools(&self) -> &[bool] {
        match self {
            Data::Bool(data) => data,
            Data::Real(_) | Data::Int(_) | Data::Index(_) => unreachable!("{TYPED}"),
        }
    }

    /// Moves elements around: `[rows, cols]` elements, `(i, j)` being operand element `source(i, j)`.
    fn pick(&self, rows: usize, cols: usize, source: impl Fn(usize, usize) -> usize) -> Self {
        fn gather<T: Copy>(
            x: &[T],
            rows: usize,
            cols: usize,
            source: impl Fn(usize, usize) -> usize,
        ) -> Rc<Vec<T>> {
            let mut out = Vec::with_capacity(rows * cols);
            for i in 0..rows {
                out.extend((0..cols).map(|j| x[source(i, j)]));
            }
            Rc::new(out)
        }
        match self {
            Data::Real(x) => Data::Real(gather(x, rows, cols, source)),
            Data::Int(x) => Data::Int(gather(x, rows, cols, source)),
            Data::Bool(x) => Data::Bool(gather(x, rows, cols, source)),
            Data::Index(x) => Data::Index(*x),
        }
    }
}

/// Runs the programs in the order that the options ask for.
pub(super) fn run<R: Real>(
    kernel: &Kernel,
    buffers: &mut [Buffer],
    options: &RunOptions,
) -> Result<(), TileError> {
    let programs =
        kernel.grid.iter().try_fold(1u32, |n, axis| n.checked_mul(*axis)).filter(|n| *n < u32::MAX - 1);
    let Some(programs) = programs else {
        let message = format!("the grid {:?} is too large to interpret", kernel.grid);
        return Err(TileError::Buffers { kernel: kernel.name.clone(), message });
    };
    let names = value_names(kernel);
    let mut machine = Machine {
        kernel,
        names: &names,
        memory: Memory::new(kernel, buffers, options.check_races),
        values: vec![Data::<R>::Index(0); kernel.types.len()],
        program: [0; 3],
        round_casts: options.precision != Precision::Exact,
    };
    let mut order: Vec<u32> = (0..programs).collect();
    if options.order != 0 {
        shuffle(&mut order, options.order);
    }
    for program in order {
        machine.program = grid_position(kernel.grid, program);
        machine.memory.program = program + 1;
        machine.body(&kernel.body).map_err(|message| TileError::Run {
            kernel: kernel.name.clone(),
            program: machine.program,
            message,
        })?;
    }
    Ok(())
}

/// Fisher-Yates with the splitmix64 generator.
fn shuffle(items: &mut [u32], seed: u64) {
    let mut state = seed;
    for i in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        items.swap(i, (z % (i as u64 + 1)) as usize);
    }
}

struct Machine<'a, R> {
    kernel: &'a Kernel,
    names: &'a [String],
    memory: Memory<'a>,
    /// By id; meaningful once defined.
    values: Vec<Data<R>>,
    program: [u32; 3],
    round_casts: bool,
}

impl<R: Real> Machine<'_, R> {
    fn data(&self, value: ValueId) -> &Data<R> {
        &self.values[value.0 as usize]
    }

    fn set(&mut self, value: ValueId, data: Data<R>) {
        self.values[value.0 as usize] = data;
    }

    fn reals(&self, value: ValueId) -> &[R] {
        self.data(value).as_reals()
    }

    fn index(&self, value: ValueId) -> i64 {
        match self.data(value) {
            Data::Index(index) => *index,
            Data::Real(_) | Data::Int(_) | Data::Bool(_) => unreachable!("{TYPED}"),
        }
    }

    fn shape(&self, value: ValueId) -> &[usize] {
        &self.kernel.ty(value).shape
    }

    fn body(&mut self, body: &[Stmt]) -> Result<(), String> {
        body.iter().try_for_each(|stmt| self.stmt(stmt))
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), String> {
        let locate = |message| format!("{message}\n  in `{}`", stmt_line(self.kernel, self.names, stmt));
        match &stmt.op {
            Op::For { lower, upper, step, init, body } => {
                let (mut i, upper, step) = (self.index(*lower), self.index(*upper), self.index(*step));
                if step <= 0 {
                    return Err(locate(format!("the step is {step}; it must be positive")));
                }
                let mut carried: Vec<Data<R>> = init.iter().map(|v| self.data(*v).clone()).collect();
                while i < upper {
                    self.set(body.args[0], Data::Index(i));
                    for (arg, data) in body.args[1..].iter().zip(carried) {
                        self.set(*arg, data);
                    }
                    carried = self.region(body)?;
                    // Past the largest counter there is no next iteration.
                    let Some(next) = i.checked_add(step) else { break };
                    i = next;
                }
                stmt.results.iter().zip(carried).for_each(|(result, data)| self.set(*result, data));
            }
            Op::If { cond, then, otherwise } => {
                let taken = if self.data(*cond).as_bools()[0] { then } else { otherwise };
                let values = self.region(taken)?;
                stmt.results.iter().zip(values).for_each(|(result, data)| self.set(*result, data));
            }
            Op::Store(view, value) => {
                let window = self.window(view);
                let value = *value;
                let ty = self.kernel.ty(value);
                self.memory.store(&window, ty, &self.values[value.0 as usize]).map_err(locate)?;
            }
            Op::Scatter { to, places, value } => {
                let window = self.window(to);
                let ty = TileType::scalar(self.kernel.ty(*value).elem);
                let (places, value) = (self.data(*places).clone(), self.data(*value).clone());
                let places = places.as_ints();
                let mut taken: Vec<i32> = places.iter().copied().filter(|place| *place >= 0).collect();
                taken.sort_unstable();
                if let Some(pair) = taken.windows(2).find(|pair| pair[0] == pair[1]) {
                    return Err(locate(format!("two elements have the place {}", pair[0])));
                }
                for (i, place) in places.iter().enumerate().filter(|(_, place)| **place >= 0) {
                    let offset = window.offset.saturating_add(i64::from(*place));
                    let element = Window { param: window.param, offset, axes: vec![] };
                    self.memory.store(&element, &ty, &value.pick(1, 1, |_, _| i)).map_err(locate)?;
                }
            }
            Op::Load(view) => {
                let window = self.window(view);
                let ty = self.kernel.ty(stmt.results[0]);
                let data = self.memory.load(&window, ty).map_err(locate)?;
                self.set(stmt.results[0], data);
            }
            // `pure` knows all the others.
            op => {
                let data = self.pure(op, self.kernel.ty(stmt.results[0])).map_err(locate)?;
                self.set(stmt.results[0], data);
            }
        }
        Ok(())
    }

    fn region(&mut self, region: &Region) -> Result<Vec<Data<R>>, String> {
        self.body(&region.body)?;
        Ok(region.yields.iter().map(|v| self.data(*v).clone()).collect())
    }

    fn window(&self, view: &View) -> Window {
        let axes = view.axes.iter().map(|axis| (axis.stride, axis.bound.map(|b| self.index(b)))).collect();
        Window { param: view.param, offset: self.index(view.offset), axes }
    }

    /// The only result of an operation without regions and effects.
    fn pure(&self, op: &Op, ty: &TileType) -> Result<Data<R>, String> {
        Ok(match op {
            Op::ConstF(value) => Data::reals(vec![R::from_f64(*value)]),
            Op::ConstI(value) if ty.elem == Elem::Index => Data::Index(*value),
            Op::ConstI(value) => Data::ints(vec![*value as i32]),
            Op::ProgramId(axis) => Data::Index(i64::from(self.program[*axis])),
            Op::Unary(op, a) => match self.data(*a) {
                Data::Bool(x) => Data::bools(x.iter().map(|x| !x).collect()),
                x => Data::reals(x.as_reals().iter().map(|x| R::unary(*op, *x)).collect()),
            },
            Op::Binary(op, a, b) => binary(*op, self.data(*a), self.data(*b))?,
            Op::Fma(a, b, c) => {
                let pairs = self.reals(*a).iter().zip(self.reals(*b));
                Data::reals(pairs.zip(self.reals(*c)).map(|((a, b), c)| *a * *b + *c).collect())
            }
            Op::Compare(op, a, b) => compare(*op, self.data(*a), self.data(*b)),
            Op::Select(cond, a, b) => self.select(*cond, *a, *b),
            Op::Cast(a) => self.cast(*a, ty.elem)?,
            Op::Splat(a) => self.data(*a).pick(1, ty.numel(), |_, _| 0),
            Op::Expand { vector, axis } => {
                let by_row = *axis == 1;
                self.data(*vector).pick(ty.shape[0], ty.shape[1], |i, j| if by_row { i } else { j })
            }
            Op::Iota { axis } => {
                let (outer, len, inner) = axis_ops::around(&ty.shape, *axis);
                let once = || (0..len as i32).flat_map(|i| std::iter::repeat_n(i, inner));
                Data::ints((0..outer).flat_map(|_| once()).collect())
            }
            Op::Dot { a, b, acc, trans_a, trans_b } => self.dot((*a, *trans_a), (*b, *trans_b), *acc, ty),
            Op::Reduce { op, axis, value } => {
                let around = axis_ops::around(self.shape(*value), *axis);
                Data::reals(axis_ops::reduce(*op, around, self.reals(*value)))
            }
            Op::Scan { axis, reverse, value } => {
                let around = axis_ops::around(self.shape(*value), *axis);
                Data::reals(axis_ops::scan(*reverse, around, self.reals(*value)))
            }
            Op::Transpose(a) => {
                let (rows, cols) = (ty.shape[0], ty.shape[1]);
                self.data(*a).pick(rows, cols, |i, j| j * rows + i)
            }
            Op::Load(_) | Op::Store(..) | Op::Scatter { .. } | Op::For { .. } | Op::If { .. } => {
                unreachable!("effects and regions are handled by the caller")
            }
        })
    }

    fn select(&self, cond: ValueId, a: ValueId, b: ValueId) -> Data<R> {
        fn choose<T: Copy>(cond: &[bool], a: &[T], b: &[T]) -> Rc<Vec<T>> {
            Rc::new(cond.iter().zip(a.iter().zip(b)).map(|(c, (a, b))| if *c { *a } else { *b }).collect())
        }
        let cond = self.data(cond).as_bools();
        match (self.data(a), self.data(b)) {
            (Data::Real(a), Data::Real(b)) => Data::Real(choose(cond, a, b)),
            (Data::Int(a), Data::Int(b)) => Data::Int(choose(cond, a, b)),
            (Data::Bool(a), Data::Bool(b)) => Data::Bool(choose(cond, a, b)),
            (a, b) => if cond[0] { a } else { b }.clone(),
        }
    }

    fn cast(&self, a: ValueId, to: Elem) -> Result<Data<R>, String> {
        let from = self.kernel.ty(a).elem;
        Ok(match (self.data(a), to) {
            (Data::Real(x), Elem::Bf16) if self.round_casts && from != Elem::Bf16 => {
                let round = |x: &R| R::from_f32(half::bf16::from_bits(x.to_bf16()).to_f32());
                Data::reals(x.iter().map(round).collect())
            }
            (Data::Real(x), Elem::F16) if self.round_casts && from != Elem::F16 => {
                let round = |x: &R| R::from_f32(half::f16::from_bits(x.to_f16()).to_f32());
                Data::reals(x.iter().map(round).collect())
            }
            (Data::Real(x), Elem::I32) => {
                let whole = |x: &R| {
                    let (x, whole) = (x.to_f64(), x.to_f64() as i32);
                    if f64::from(whole) == x {
                        Ok(whole)
                    } else {
                        Err(format!("{x} is no whole number of i32"))
                    }
                };
                Data::ints(x.iter().map(whole).collect::<Result<_, _>>()?)
            }
            (Data::Int(x), Elem::F32) => Data::reals(x.iter().map(|x| R::from_i32(*x)).collect()),
            (Data::Int(x), Elem::Index) => Data::Index(i64::from(x[0])),
            (Data::Index(x), Elem::I32) => {
                let x = i32::try_from(*x).map_err(|_| format!("{x} does not fit i32"))?;
                Data::ints(vec![x])
            }
            (x, Elem::F32 | Elem::Bf16 | Elem::F16 | Elem::I32 | Elem::Index | Elem::Bool) => x.clone(),
        })
    }

    fn dot(&self, a: (ValueId, bool), b: (ValueId, bool), acc: Option<ValueId>, ty: &TileType) -> Data<R> {
        let n = ty.shape[1];
        let k = self.shape(a.0)[if a.1 { 0 } else { 1 }];
        let straight = |(value, trans): (ValueId, bool)| {
            let (x, shape) = (self.reals(value), self.shape(value));
            if trans { Cow::Owned(axis_ops::transpose(shape[0], shape[1], x)) } else { Cow::Borrowed(x) }
        };
        let mut out = acc.map_or_else(|| vec![R::ZERO; ty.numel()], |acc| self.reals(acc).to_vec());
        axis_ops::dot(k, n, &straight(a), &straight(b), &mut out);
        Data::reals(out)
    }
}

fn zip<T: Copy, U>(a: &[T], b: &[T], f: impl Fn(T, T) -> U) -> Vec<U> {
    a.iter().zip(b).map(|(a, b)| f(*a, *b)).collect()
}

fn binary<R: Real>(op: Binary, a: &Data<R>, b: &Data<R>) -> Result<Data<R>, String> {
    match (a, b) {
        (Data::Real(a), Data::Real(b)) => Ok(Data::reals(match op {
            Binary::Add => zip(a, b, |a, b| a + b),
            Binary::Sub => zip(a, b, |a, b| a - b),
            Binary::Mul => zip(a, b, |a, b| a * b),
            Binary::Div => zip(a, b, |a, b| a / b),
            Binary::Min => zip(a, b, R::min),
            Binary::Max => zip(a, b, R::max),
            Binary::Rem | Binary::And | Binary::Or => unreachable!("{TYPED}"),
        })),
        (Data::Int(a), Data::Int(b)) => {
            if matches!(op, Binary::Div | Binary::Rem) && b.contains(&0) {
                return Err("an integer is divided by zero".into());
            }
            Ok(Data::ints(match op {
                Binary::Add => zip(a, b, i32::wrapping_add),
                Binary::Sub => zip(a, b, i32::wrapping_sub),
                Binary::Mul => zip(a, b, i32::wrapping_mul),
                Binary::Div => zip(a, b, i32::wrapping_div),
                Binary::Rem => zip(a, b, i32::wrapping_rem),
                Binary::Min => zip(a, b, std::cmp::min),
                Binary::Max => zip(a, b, std::cmp::max),
                Binary::And | Binary::Or => unreachable!("{TYPED}"),
            }))
        }
        (Data::Bool(a), Data::Bool(b)) => Ok(Data::bools(match op {
            Binary::And => zip(a, b, |a, b| a && b),
            Binary::Or => zip(a, b, |a, b| a || b),
            Binary::Add
            | Binary::Sub
            | Binary::Mul
            | Binary::Div
            | Binary::Rem
            | Binary::Min
            | Binary::Max => unreachable!("{TYPED}"),
        })),
        (Data::Index(a), Data::Index(b)) => {
            let result = match op {
                Binary::Add => a.checked_add(*b),
                Binary::Sub => a.checked_sub(*b),
                Binary::Mul => a.checked_mul(*b),
                Binary::Div => a.checked_div(*b),
                Binary::Rem => a.checked_rem(*b),
                Binary::Min => Some(*a.min(b)),
                Binary::Max => Some(*a.max(b)),
                Binary::And | Binary::Or => unreachable!("{TYPED}"),
            };
            match result {
                Some(result) => Ok(Data::Index(result)),
                None => Err(format!("{op} of the indices {a} and {b} has no result")),
            }
        }
        _ => unreachable!("{TYPED}"),
    }
}

fn compare<R: Real>(op: Compare, a: &Data<R>, b: &Data<R>) -> Data<R> {
    fn compared<T: Copy + PartialOrd>(op: Compare, a: &[T], b: &[T]) -> Vec<bool> {
        match op {
            Compare::Eq => zip(a, b, |a, b| a == b),
            Compare::Ne => zip(a, b, |a, b| a != b),
            Compare::Lt => zip(a, b, |a, b| a < b),
            Compare::Le => zip(a, b, |a, b| a <= b),
            Compare::Gt => zip(a, b, |a, b| a > b),
            Compare::Ge => zip(a, b, |a, b| a >= b),
        }
    }
    Data::bools(match (a, b) {
        (Data::Real(a), Data::Real(b)) => compared(op, a, b),
        (Data::Int(a), Data::Int(b)) => compared(op, a, b),
        (Data::Index(a), Data::Index(b)) => compared(op, &[*a], &[*b]),
        _ => unreachable!("{TYPED}"),
    })
}
