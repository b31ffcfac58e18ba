//! The tile program: what a kernel is before it becomes machine code or CUDA C++.
//!
//! A kernel runs once per point of a grid, in any order, in parallel. Its values are scalars and tiles of static
//! shape (rank 1 or 2) in single assignment; memory is touched by `load` and `store` only, through strided views with
//! bounds. Two programs of one launch never write the same element, and never read what another writes.
//! Inside a program, loads and stores of one parameter happen in program order.

/// Element type of a tile, scalar or parameter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Elem {
    /// IEEE binary32.
    F32,
    /// bfloat16, storage only: cast to f32 before arithmetic.
    Bf16,
    /// IEEE binary16, storage only as well. Beyond 65504 there is infinity, below 6e-8 (2^-24) zero.
    F16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit scalar for addresses, loop counters and grid positions; never a tile.
    Index,
    /// Truth value of a comparison.
    Bool,
}

impl Elem {
    /// Whether it is a float of 16 bits, which is stored and multiplied but not computed in.
    pub const fn is_narrow(self) -> bool {
        match self {
            Elem::Bf16 | Elem::F16 => true,
            Elem::F32 | Elem::I32 | Elem::Index | Elem::Bool => false,
        }
    }
}

/// Type of a value: a scalar (empty shape), a vector `[n]`, or a matrix `[rows, cols]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TileType {
    /// Element type.
    pub elem: Elem,
    /// Static shape, rank 0 to 2.
    pub shape: Vec<usize>,
}

impl TileType {
    /// A type from its parts.
    pub fn new(elem: Elem, shape: &[usize]) -> Self {
        TileType { elem, shape: shape.to_vec() }
    }

    /// A scalar type.
    pub fn scalar(elem: Elem) -> Self {
        Self::new(elem, &[])
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Names a value of one kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// Names a parameter (pointer) of one kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ParamId(pub u32);

/// What a kernel does with a parameter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Only loads.
    Read,
    /// Only stores.
    Write,
    /// Loads and stores (in-place update).
    ReadWrite,
}

/// A pointer parameter.
#[derive(Clone, PartialEq, Debug)]
pub struct Param {
    /// Name in the text forms.
    pub name: String,
    /// Element type in memory.
    pub elem: Elem,
    /// Whether programs load from it, store to it, or both.
    pub mode: Mode,
}

/// Pointwise functions of one float operand (`Not` of a Bool).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unary {
    /// -x
    Neg,
    /// |x|
    Abs,
    /// e^x; 0 for -inf
    Exp,
    /// 2^x; 0 for -inf. What GPUs have an instruction for.
    Exp2,
    /// natural logarithm
    Log,
    /// √x
    Sqrt,
    /// 1/√x
    Rsqrt,
    /// 1/x
    Recip,
    /// 1/(1+e^-x)
    Sigmoid,
    /// hyperbolic tangent
    Tanh,
    /// logical not
    Not,
}

/// Pointwise functions of two operands of equal type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Binary {
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Product.
    Mul,
    /// Quotient; truncating on integers.
    Div,
    /// Remainder of truncating division; integers only.
    Rem,
    /// Smaller operand.
    Min,
    /// Larger operand.
    Max,
    /// Logical and; Bool only.
    And,
    /// Logical or; Bool only.
    Or,
}

/// Comparisons, on equal types; false if an operand is NaN, but for `Ne`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Compare {
    /// a = b
    Eq,
    /// a ≠ b
    Ne,
    /// a < b
    Lt,
    /// a ≤ b
    Le,
    /// a > b
    Gt,
    /// a ≥ b
    Ge,
}

/// What a reduction makes of the elements along its axis.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reduction {
    /// Sum; 0 of nothing.
    Sum,
    /// Maximum; -inf of nothing.
    Max,
}

/// One axis of a memory view.
#[derive(Clone, PartialEq, Debug)]
pub struct Axis {
    /// Distance of neighbours, in elements.
    pub stride: i64,
    /// Index scalar: elements at `i >= bound` are not touched; a load gives 0 for them.
    pub bound: Option<ValueId>,
}

/// A strided view of memory: element `(i, j)` is at `param[offset + i*axes[0].stride + j*axes[1].stride]`.
/// As many axes as the tile has; a scalar access has none.
#[derive(Clone, PartialEq, Debug)]
pub struct View {
    /// The parameter whose memory it is.
    pub param: ParamId,
    /// Index scalar, in elements.
    pub offset: ValueId,
    /// One per tile axis.
    pub axes: Vec<Axis>,
}

/// A nested body with its arguments and the values it hands out.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Region {
    /// Values defined on entry.
    pub args: Vec<ValueId>,
    /// Statements in order; they see the values of the regions around them.
    pub body: Vec<Stmt>,
    /// Values handed out at the end.
    pub yields: Vec<ValueId>,
}

/// One statement: an operation and the values it defines.
#[derive(Clone, PartialEq, Debug)]
pub struct Stmt {
    /// Defined values; their types are in [`Kernel::types`].
    pub results: Vec<ValueId>,
    /// What is computed.
    pub op: Op,
}

/// What a statement computes; operands are values that are defined before it.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// A float scalar.
    ConstF(f64),
    /// An integer scalar (I32 or Index, by result type).
    ConstI(i64),
    /// Position in the grid along an axis (0..3), an Index.
    ProgramId(usize),
    /// A function of each element.
    Unary(Unary, ValueId),
    /// Pointwise function; operands have equal types.
    Binary(Binary, ValueId, ValueId),
    /// `a*b + c`, rounded once or twice as the target does it.
    Fma(ValueId, ValueId, ValueId),
    /// A comparison of each pair of elements, Bool; operands have equal types.
    Compare(Compare, ValueId, ValueId),
    /// `c ? a : b`, pointwise.
    Select(ValueId, ValueId, ValueId),
    /// Conversion to the result's element type: F32↔Bf16 and F32↔F16 (round to nearest even), I32→F32, I32↔Index; F32→I32 of
    /// whole numbers that i32 has.
    Cast(ValueId),
    /// A scalar repeated to the result's shape.
    Splat(ValueId),
    /// A vector repeated to a matrix along `axis`: axis 0 repeats `[n]` over rows, axis 1 repeats `[m]` over columns.
    Expand {
        /// One dimension, `[m]` or `[n]`.
        vector: ValueId,
        /// The new axis.
        axis: usize,
    },
    /// Index along `axis` of each element, I32.
    Iota {
        /// 0 counts rows, 1 counts columns.
        axis: usize,
    },
    /// A tile from memory; what lies beyond a bound is 0.
    Load(View),
    /// Writes memory; no result.
    Store(View, ValueId),
    /// Writes each element of a vector to a place of its own, `param[offset + places[i]] = value[i]`, or nowhere if the
    /// place is negative; no result. No two elements have one place.
    Scatter {
        /// A view without axes: place 0.
        to: View,
        /// I32 vector, as long as `value`.
        places: ValueId,
        /// The vector.
        value: ValueId,
    },
    /// `op(a)·op(b) + acc` in f32: `[m,k]·[k,n]`, operands stored transposed where flagged.
    Dot {
        /// `[m,k]`, or `[k,m]` if `trans_a`.
        a: ValueId,
        /// `[k,n]`, or `[n,k]` if `trans_b`.
        b: ValueId,
        /// `[m,n]`, or nothing for 0.
        acc: Option<ValueId>,
        /// Read `a` transposed.
        trans_a: bool,
        /// Read `b` transposed.
        trans_b: bool,
    },
    /// Matrix to vector along `axis` (removed), or vector to scalar.
    Reduce {
        /// Sum or maximum.
        op: Reduction,
        /// The axis that disappears.
        axis: usize,
        /// The vector or matrix.
        value: ValueId,
    },
    /// Inclusive running sum along `axis`, from the end if `reverse`.
    Scan {
        /// The axis along which the sum runs; the shape stays.
        axis: usize,
        /// From the last element to the first.
        reverse: bool,
        /// The vector or matrix, f32.
        value: ValueId,
    },
    /// `[m,n]` to `[n,m]`.
    Transpose(ValueId),
    /// `for i in (lower..upper).step_by(step)`: region arguments are `i` and the carried values; it yields the carried
    /// values of the next iteration; results are the last ones. Bounds are Index scalars.
    For {
        /// First counter.
        lower: ValueId,
        /// End, exclusive.
        upper: ValueId,
        /// Step, positive.
        step: ValueId,
        /// Carried values before the first iteration.
        init: Vec<ValueId>,
        /// Takes the counter, then the carried values, and yields those of the next iteration.
        body: Region,
    },
    /// Both regions yield the results; the condition is a Bool scalar (uniform over the program).
    If {
        /// A Bool scalar, the same in the whole program.
        cond: ValueId,
        /// What runs if it holds.
        then: Region,
        /// What runs if it does not; without results it may be empty.
        otherwise: Region,
    },
}

/// A kernel: parameters, grid, body.
#[derive(Clone, PartialEq, Debug)]
pub struct Kernel {
    /// Name, an identifier.
    pub name: String,
    /// Pointer parameters, in launch order.
    pub params: Vec<Param>,
    /// Programs per axis.
    pub grid: [u32; 3],
    /// Type of every value, by id.
    pub types: Vec<TileType>,
    /// Optional name hint of every value, by id; only for people.
    pub names: Vec<String>,
    /// Statements of the outermost level, in order.
    pub body: Vec<Stmt>,
}

impl Kernel {
    /// Element type and shape of a value of this kernel.
    pub fn ty(&self, value: ValueId) -> &TileType {
        &self.types[value.0 as usize]
    }

    /// Name, element type and mode of a parameter.
    pub fn param(&self, param: ParamId) -> &Param {
        &self.params[param.0 as usize]
    }

    /// For each parameter, whether a launch may write it.
    pub fn written(&self) -> Vec<bool> {
        self.params.iter().map(|param| param.mode != Mode::Read).collect()
    }
}
