//! A plan with addresses: what each step calls, with which offsets, and how its work is cut.

use linc_plan::{ALIGN, Action, DType, Plan, Ref};

use super::exchanges::{Exchanges, Started};
use super::gemm::{Product, Split};
use super::jit::{Code, Jit};
use super::pool::Pool;
use super::primitives::Level;
use super::primitives::matrix::{Elem, Matrix};
use super::scratch::{Needs, Scratch};
use crate::DeviceError;
use crate::comm::Group;
use crate::device::{address, check_arena};

/// Steps with less work than this run on the calling thread: waking others would take longer.
const SMALL: u64 = 50_000;

/// Bytes per piece of a copy, at least and at most: where it is small, each thread has one.
const COPY_PIECE: [usize; 2] = [16 << 10, 1 << 20];

/// Offsets are bytes from the start of the arena.
enum BoundStep {
    Launch { code: Code, args: Vec<usize>, programs: usize, chunk: usize, alone: bool },
    Gemm { product: Product, split: Split, a: usize, b: usize, c: usize },
    Copy { from: usize, to: usize, bytes: usize },
    Start { started: Started, from: usize, to: usize },
    Wait { id: usize },
}

/// What makes machine code of a plan.
pub(super) struct Maker<'a> {
    pub(super) jit: &'a mut Jit,
    pub(super) level: Level,
    pub(super) threads: usize,
    /// Hears how many kernels of how many are compiled, and says whether to go on.
    pub(super) progress: &'a mut dyn FnMut(usize, usize) -> bool,
}

/// A plan that is ready to run.
pub(super) struct LoadedProgram {
    steps: Vec<BoundStep>,
    needs: Needs,
}

// SAFETY: the products' pointers are null until a step runs.
unsafe impl Send for LoadedProgram {}

impl LoadedProgram {
    /// Validates and compiles a plan, whose groups of ranks are `groups`, for an arena of `arena` bytes whose scratch part begins at `scratch`.
    pub(super) fn new(
        plan: &Plan,
        groups: &[Group],
        scratch: u64,
        arena: u64,
        maker: Maker<'_>,
    ) -> Result<LoadedProgram, DeviceError> {
        let Maker { jit, level, threads, progress } = maker;
        let invalid = |message: String| DeviceError::Plan { plan: plan.name.clone(), message };
        check_arena(plan, scratch, arena)?;
        let texts: Vec<&str> = plan.kernels.iter().map(|k| k.text.as_str()).collect();
        let codes = jit.compile(&texts, threads, progress)?;
        for (kernel, code) in plan.kernels.iter().zip(&codes) {
            if kernel.grid != code.grid {
                let (name, a, b) = (&kernel.name, kernel.grid, code.grid);
                return Err(invalid(format!("kernel {name}: the plan's grid is {a:?}, the text's {b:?}")));
            }
        }
        let at = |r: &Ref| address(plan, r, scratch) as usize;
        let mut steps = vec![];
        let own = codes.iter().map(|code| code.scratch).max().unwrap_or(0);
        let mut needs = Needs { own, shared: 0 };
        for step in &plan.steps {
            steps.push(match &step.action {
                Action::Launch { kernel, args } => {
                    let code = codes[*kernel];
                    if args.len() != code.params {
                        let (label, given, params) = (&step.label, args.len(), code.params);
                        return Err(invalid(format!("{label}: {given} arguments for {params} parameters")));
                    }
                    let programs = code
                        .grid
                        .iter()
                        .try_fold(1usize, |n, axis| n.checked_mul(*axis as usize))
                        .ok_or_else(|| invalid(format!("{}: the grid overflows", step.label)))?;
                    let alone = step.flops.saturating_add(step.bytes) < SMALL;
                    let chunk = (programs / 64).max(1);
                    BoundStep::Launch { code, args: args.iter().map(at).collect(), programs, chunk, alone }
                }
                Action::Gemm(g) => {
                    let matrix = |strides: (usize, usize), dtype: DType| match dtype {
                        DType::F32 => Ok(unplaced(strides, Elem::F32)),
                        DType::Bf16 => Ok(unplaced(strides, Elem::Bf16)),
                        DType::F16 => Ok(unplaced(strides, Elem::F16)),
                        DType::I32 => Err(invalid(format!("{}: a matmul of i32", step.label))),
                    };
                    let product = Product {
                        m: g.m,
                        n: g.n,
                        k: g.k,
                        a: matrix(g.a_strides, g.dtype)?,
                        b: matrix(g.b_strides, g.dtype)?,
                        c: matrix(g.c_strides, g.c_dtype)?,
                        accumulate: g.accumulate,
                    };
                    let cut = product.by_rows();
                    let split = Split::of(&cut, level);
                    needs.own = needs.own.max(split.scratch_bytes());
                    needs.shared = needs.shared.max(split.shared_bytes(&cut));
                    BoundStep::Gemm { product, split, a: at(&g.a), b: at(&g.b), c: at(&g.c) }
                }
                Action::Copy { from, to, bytes } => {
                    BoundStep::Copy { from: at(from), to: at(to), bytes: *bytes as usize }
                }
                Action::Start { exchange, id } => {
                    let group = groups
                        .get(exchange.group)
                        .ok_or_else(|| invalid(format!("{}: an exchange of no group", step.label)))?;
                    let started = Started::new(exchange, *id, group, &step.label.to_string())?;
                    BoundStep::Start { started, from: at(&exchange.from), to: at(&exchange.to) }
                }
                Action::Wait { id } => BoundStep::Wait { id: *id },
            });
        }
        Ok(LoadedProgram { steps, needs })
    }

    /// Number of steps.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Memory besides the arena that the steps need.
    pub(super) fn needs(&self) -> Needs {
        self.needs
    }

    /// Runs one step.
    ///
    /// # Safety
    /// `arena` is the arena that the plan was validated for, and nobody else uses it; `scratch` has what
    /// [`LoadedProgram::needs`] says for each thread of the pool.
    pub(super) unsafe fn run(
        &self,
        step: usize,
        arena: *mut u8,
        pool: &mut Pool,
        scratch: &Scratch,
        exchanges: &mut Exchanges,
    ) -> Result<(), DeviceError> {
        let areas = scratch.areas();
        match &self.steps[step] {
            BoundStep::Launch { code, args, programs, chunk, alone } => {
                // SAFETY: the offsets are within the arena.
                let args: Vec<*mut u8> = args.iter().map(|at| unsafe { arena.add(*at) }).collect();
                let args = Pointers(args);
                let [x, y, _] = code.grid.map(|axis| axis as usize);
                let work = |worker: usize, range: std::ops::Range<usize>| {
                    let area = areas.of(worker);
                    for program in range {
                        let at = [program % x, program / x % y, program / x / y].map(|p| p as i64);
                        // SAFETY: the code is for as many pointers; each points into a live buffer of the arena;
                        // programs of one launch touch different elements.
                        unsafe { (code.entry)(args.get(), at[0], at[1], at[2], area) };
                    }
                };
                if *alone {
                    work(0, 0..*programs);
                } else {
                    pool.run(*programs, *chunk, &work);
                }
            }
            BoundStep::Gemm { product, split, a, b, c } => {
                let mut product = *product;
                // SAFETY: the offsets are within the arena, and the plan's extents are validated.
                unsafe {
                    product.a.at = arena.add(*a);
                    product.b.at = arena.add(*b);
                    product.c.at = arena.add(*c);
                    product.by_rows().run(split, pool, areas);
                }
            }
            BoundStep::Copy { from, to, bytes } => {
                // SAFETY: both ranges are within the arena.
                let ends = unsafe { Pointers(vec![arena.add(*from), arena.add(*to)]) };
                let each = bytes.div_ceil(pool.threads()).next_multiple_of(ALIGN as usize);
                let each = each.clamp(COPY_PIECE[0], COPY_PIECE[1]);
                pool.run(bytes.div_ceil(each), 1, &|_, range| {
                    for piece in range {
                        let at = piece * each;
                        let len = each.min(bytes - at);
                        // SAFETY: the validated ranges are disjoint, and each piece is copied once.
                        unsafe {
                            let [from, to] = [0, 1].map(|k| (*ends.get().add(k)).add(at));
                            std::ptr::copy_nonoverlapping(from, to, len);
                        }
                    }
                });
            }
            // SAFETY: both ranges are within the arena, and the plan's steps leave them alone until the wait.
            BoundStep::Start { started, from, to } => unsafe {
                exchanges.start(started, arena.add(*from), arena.add(*to))?;
            },
            BoundStep::Wait { id } => exchanges.wait(*id)?,
        }
        Ok(())
    }
}

/// A matrix whose place is not known before a step runs.
fn unplaced(strides: (usize, usize), elem: Elem) -> Matrix {
    Matrix { at: std::ptr::null_mut(), strides: strides.into(), elem }
}

/// Arena pointers that threads may share.
struct Pointers(Vec<*mut u8>);

// SAFETY: the pointers are only read from this list; what they point to is kept apart by the plan.
unsafe impl Sync for Pointers {}

impl Pointers {
    fn get(&self) -> *const *mut u8 {
        self.0.as_ptr()
    }
}
