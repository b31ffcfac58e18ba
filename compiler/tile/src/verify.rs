//! What a well-formed kernel is. Builder, parser and passes produce such kernels; interpreter and code generators may
//! rely on every rule, so that they need no checks of their own.
//!
//! Kernel:
//! 1. The names of the kernel and of its parameters are words ([`crate::text::is_word`]); parameter names differ.
//! 2. Parameters hold F32, Bf16, F16 or I32. Every grid axis has at least one program.
//! 3. `types` and `names` have the same length. Types have rank 0 to 2, axes of at least one element and at most
//!    [`MAX_ELEMENTS`] elements; Index is only scalar.
//!
//! Values:
//! 4. Every value is defined once, by a statement or as an argument of a region.
//! 5. A value is used only after its definition, in the same region or one nested in it.
//! 6. Only `for` has region arguments (counter, carried values); regions nest at most [`MAX_DEPTH`] deep; the body of the
//!    kernel yields nothing.
//!
//! Operations have the operands and results of their documentation ([`crate::ir::Op`]), and:
//! 7. Arithmetic, comparisons, reductions and scans are on F32; binary functions (but `and`, `or`) and comparisons also on
//!    I32 and Index; `rem` is for integers only, `and`, `or`, `not` are for Bool only. Bf16 and F16 are loaded, stored,
//!    cast, moved (splat, expand, transpose, select) and operands of `dot`, nothing else.
//! 8. Constants are scalars of F32, I32 (within its range) or Index.
//! 9. Casts are F32↔Bf16, F32↔F16, I32→F32, I32↔Index (scalars), F32→I32 (whole numbers within its range).
//! 10. Loads are from `read` and `readwrite`, stores to `write` and `readwrite` parameters; tile and parameter have
//!     the same element type; a view has one axis per tile axis; offsets and bounds are Index scalars. What is scattered
//!     is a vector with an I32 for each element, to a view without axes.
//! 11. The operands of `dot` are both F32, both Bf16 or both F16; accumulator and result are F32.
//! 12. A constant loop step is positive. (A step that is computed must be positive when it runs.)

use crate::error::TileError;
use crate::ir::{Elem, Kernel, Op, Region, Stmt, TileType, ValueId};
use crate::text::{is_word, stmt_line, value_names};

mod typing;

/// Regions nest at most this deep.
pub const MAX_DEPTH: usize = 32;

/// A tile has at most this many elements.
pub const MAX_ELEMENTS: usize = 1 << 22;

/// Checks every rule of this module. Errors are [`TileError::Verify`] with the first broken one.
pub fn verify(kernel: &Kernel) -> Result<(), TileError> {
    check(kernel).map_err(|fault| TileError::Verify { kernel: kernel.name.clone(), message: fault.message })
}

/// A broken rule and the statement that breaks it, counted from an outer one to those in its regions.
pub(crate) struct Fault {
    pub(crate) stmt: Option<usize>,
    pub(crate) message: String,
}

pub(crate) fn check(kernel: &Kernel) -> Result<(), Fault> {
    header(kernel).map_err(|message| Fault { stmt: None, message })?;
    let names = value_names(kernel);
    let mut checker = Checker {
        kernel,
        names: &names,
        defined: vec![false; kernel.types.len()],
        visible: vec![false; kernel.types.len()],
        constants: vec![None; kernel.types.len()],
        stmts: 0,
    };
    checker.body(&kernel.body, 0)
}

/// Rules 1 to 3.
fn header(kernel: &Kernel) -> Result<(), String> {
    if !is_word(&kernel.name) {
        return Err(format!("the name {:?} is not a word of letters, digits and `_`", kernel.name));
    }
    for (i, param) in kernel.params.iter().enumerate() {
        let name = &param.name;
        if !is_word(name) {
            return Err(format!("the parameter name {name:?} is not a word of letters, digits and `_`"));
        }
        if kernel.params[..i].iter().any(|p| p.name == *name) {
            return Err(format!("two parameters are called `{name}`"));
        }
        match param.elem {
            Elem::F32 | Elem::Bf16 | Elem::F16 | Elem::I32 => {}
            elem @ (Elem::Index | Elem::Bool) => {
                return Err(format!("parameter `{name}` holds {elem}; memory holds f32, bf16, f16 or i32"));
            }
        }
    }
    if kernel.grid.contains(&0) {
        return Err(format!("the grid {:?} has an axis without programs", kernel.grid));
    }
    if kernel.types.len() != kernel.names.len() {
        let (types, names) = (kernel.types.len(), kernel.names.len());
        return Err(format!("there are {types} types but {names} name hints"));
    }
    Ok(())
}

/// Rule 3 for one type.
fn check_type(ty: &TileType) -> Result<(), String> {
    let rank = ty.shape.len();
    if rank > 2 {
        return Err(format!("{ty} has rank {rank}; tiles have at most 2 axes"));
    }
    if ty.elem == Elem::Index && rank > 0 {
        return Err(format!("{ty}: index is only scalar, tiles of integers are i32"));
    }
    if ty.shape.contains(&0) {
        return Err(format!("{ty} has an axis without elements"));
    }
    let numel = ty.shape.iter().try_fold(1usize, |n, axis| n.checked_mul(*axis));
    match numel {
        Some(n) if n <= MAX_ELEMENTS => Ok(()),
        _ => Err(format!("{ty} has more than {MAX_ELEMENTS} elements")),
    }
}

struct Checker<'a> {
    kernel: &'a Kernel,
    names: &'a [String],
    /// By id: whether the value has a definition so far.
    defined: Vec<bool>,
    /// By id: whether it can be used here.
    visible: Vec<bool>,
    /// By id: the value of an integer constant.
    constants: Vec<Option<i64>>,
    stmts: usize,
}

impl Checker<'_> {
    fn name(&self, value: ValueId) -> &str {
        self.names.get(value.0 as usize).map_or("undefined", String::as_str)
    }

    fn body(&mut self, body: &[Stmt], depth: usize) -> Result<(), Fault> {
        for stmt in body {
            let index = self.stmts;
            self.stmts += 1;
            self.stmt(stmt, depth).map_err(|error| match error {
                Broken::Here(message) => {
                    let line = stmt_line(self.kernel, self.names, stmt);
                    Fault { stmt: Some(index), message: format!("{message}\n  in `{line}`") }
                }
                Broken::Inside(fault) => fault,
            })?;
        }
        Ok(())
    }

    fn stmt(&mut self, stmt: &Stmt, depth: usize) -> Result<(), Broken> {
        for operand in stmt.op.operands() {
            self.use_of(operand)?;
        }
        // Types of results and arguments must be known before the rules that compare them.
        let regions = stmt.op.regions();
        for value in stmt.results.iter().chain(regions.iter().flat_map(|r| &r.args)) {
            self.define(*value)?;
        }
        for region in regions {
            self.region(region, depth + 1)?;
        }
        typing::check(self.kernel, self.names, stmt)?;
        self.constant_step(stmt)?;
        self.set_visible(&stmt.results, true);
        Ok(())
    }

    fn region(&mut self, region: &Region, depth: usize) -> Result<(), Broken> {
        if depth > MAX_DEPTH {
            return Err(Broken::Here(format!("regions are nested deeper than {MAX_DEPTH}")));
        }
        self.set_visible(&region.args, true);
        self.body(&region.body, depth).map_err(Broken::Inside)?;
        for value in &region.yields {
            self.use_of(*value)?;
        }
        for stmt in &region.body {
            self.set_visible(&stmt.results, false);
        }
        self.set_visible(&region.args, false);
        Ok(())
    }

    /// Rule 12. The types are valid, so an integer constant has one result.
    fn constant_step(&mut self, stmt: &Stmt) -> Result<(), String> {
        if let (Op::ConstI(value), [result]) = (&stmt.op, &stmt.results[..]) {
            self.constants[result.0 as usize] = Some(*value);
        }
        if let Op::For { step, .. } = &stmt.op
            && let Some(value) = self.constants[step.0 as usize].filter(|v| *v <= 0)
        {
            return Err(format!("the step of a loop is positive, found {value}"));
        }
        Ok(())
    }

    /// Rule 5.
    fn use_of(&self, value: ValueId) -> Result<(), String> {
        match self.visible.get(value.0 as usize) {
            Some(true) => Ok(()),
            Some(false) => {
                Err(format!("`%{}` is used outside the region of its definition", self.name(value)))
            }
            None => Err(format!("value {} has no type", value.0)),
        }
    }

    /// Rules 3 and 4.
    fn define(&mut self, value: ValueId) -> Result<(), String> {
        let id = value.0 as usize;
        match self.defined.get(id) {
            None => return Err(format!("value {} has no type", value.0)),
            Some(true) => return Err(format!("`%{}` is defined twice", self.name(value))),
            Some(false) => self.defined[id] = true,
        }
        check_type(self.kernel.ty(value))
    }

    fn set_visible(&mut self, values: &[ValueId], visible: bool) {
        for value in values {
            self.visible[value.0 as usize] = visible;
        }
    }
}

/// A rule broken by the statement itself, or by one in its regions.
enum Broken {
    Here(String),
    Inside(Fault),
}

impl From<String> for Broken {
    fn from(message: String) -> Self {
        Broken::Here(message)
    }
}
