//! Writes kernels in Rust. Types are inferred; a misuse is a bug in the kernel library and panics with its name.

use crate::ir::{
    Axis, Binary, Compare, Elem, Kernel, Mode, Op, Param, ParamId, Reduction, Region, Stmt, TileType, Unary,
    ValueId, View,
};

/// Builds one [`Kernel`].
pub struct Builder {
    kernel: Kernel,
    /// Statement lists of the open regions, innermost last.
    open: Vec<Vec<Stmt>>,
}

impl Builder {
    /// A kernel with an empty body over a grid.
    pub fn new(name: impl Into<String>, grid: [usize; 3]) -> Self {
        let grid = grid.map(|g| u32::try_from(g).expect("a grid axis fits u32"));
        let kernel =
            Kernel { name: name.into(), params: vec![], grid, types: vec![], names: vec![], body: vec![] };
        Builder { kernel, open: vec![vec![]] }
    }

    /// Ends the kernel.
    pub fn finish(mut self) -> Kernel {
        assert_eq!(self.open.len(), 1, "{}: a region is still open", self.kernel.name);
        self.kernel.body = self.open.pop().expect("the body");
        self.kernel
    }

    /// Declares a pointer parameter.
    pub fn param(&mut self, name: &str, elem: Elem, mode: Mode) -> ParamId {
        self.kernel.params.push(Param { name: name.to_string(), elem, mode });
        ParamId(self.kernel.params.len() as u32 - 1)
    }

    /// Gives a value a name for the text forms and returns it.
    pub fn name(&mut self, value: ValueId, name: &str) -> ValueId {
        self.kernel.names[value.0 as usize] = name.to_string();
        value
    }

    /// Gives a value the name of a parameter with more behind it, and returns it.
    pub fn name_after(&mut self, value: ValueId, param: ParamId, more: &str) -> ValueId {
        let name = format!("{}{more}", self.kernel.param(param).name);
        self.name(value, &name)
    }

    /// Element type and shape of a value of the kernel so far.
    pub fn ty(&self, value: ValueId) -> TileType {
        self.kernel.ty(value).clone()
    }

    fn fresh(&mut self, ty: TileType) -> ValueId {
        self.kernel.types.push(ty);
        self.kernel.names.push(String::new());
        ValueId(self.kernel.types.len() as u32 - 1)
    }

    fn emit(&mut self, op: Op, ty: TileType) -> ValueId {
        let result = self.fresh(ty);
        self.stmt(vec![result], op);
        result
    }

    fn stmt(&mut self, results: Vec<ValueId>, op: Op) {
        self.open.last_mut().expect("an open region").push(Stmt { results, op });
    }

    fn check(&self, ok: bool, what: &str) {
        assert!(ok, "kernel {}: {what}", self.kernel.name);
    }

    // ---- scalars ----

    /// An Index constant.
    pub fn index(&mut self, value: usize) -> ValueId {
        self.emit(Op::ConstI(value as i64), TileType::scalar(Elem::Index))
    }

    /// An I32 constant.
    pub fn int(&mut self, value: i32) -> ValueId {
        self.emit(Op::ConstI(i64::from(value)), TileType::scalar(Elem::I32))
    }

    /// An f32 constant.
    pub fn float(&mut self, value: f64) -> ValueId {
        self.emit(Op::ConstF(value), TileType::scalar(Elem::F32))
    }

    /// Position in the grid.
    pub fn program_id(&mut self, axis: usize) -> ValueId {
        self.emit(Op::ProgramId(axis), TileType::scalar(Elem::Index))
    }

    // ---- pointwise ----

    /// A function of one operand.
    pub fn unary(&mut self, op: Unary, a: ValueId) -> ValueId {
        let ty = self.ty(a);
        self.emit(Op::Unary(op, a), ty)
    }

    /// A function of two operands of equal type.
    pub fn binary(&mut self, op: Binary, a: ValueId, b: ValueId) -> ValueId {
        let ty = self.ty(a);
        self.check(ty == self.ty(b), &format!("{op:?} of {ty:?} and {:?}", self.ty(b)));
        self.emit(Op::Binary(op, a, b), ty)
    }

    /// `a + b`
    pub fn add(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(Binary::Add, a, b)
    }

    /// `a - b`
    pub fn sub(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(Binary::Sub, a, b)
    }

    /// `a · b`, element by element.
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(Binary::Mul, a, b)
    }

    /// `a / b`; of integers it truncates, as the interpreter and both code generators do.
    pub fn div(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(Binary::Div, a, b)
    }

    /// a mod b
    pub fn rem(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(Binary::Rem, a, b)
    }

    /// Smaller of a and b.
    pub fn min(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(Binary::Min, a, b)
    }

    /// Larger of a and b.
    pub fn max(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.binary(Binary::Max, a, b)
    }

    /// `a·b + c`, rounded once or twice as the target does it.
    pub fn fma(&mut self, a: ValueId, b: ValueId, c: ValueId) -> ValueId {
        let ty = self.ty(a);
        self.check(ty == self.ty(b) && ty == self.ty(c), "fma of different types");
        self.emit(Op::Fma(a, b, c), ty)
    }

    /// Index scalar `a·constant`.
    pub fn scale_index(&mut self, a: ValueId, factor: usize) -> ValueId {
        let factor = self.index(factor);
        self.mul(a, factor)
    }

    /// Float scalar or tile times a constant.
    pub fn scale(&mut self, a: ValueId, factor: f64) -> ValueId {
        let factor = self.full(factor, &self.ty(a).shape);
        self.mul(a, factor)
    }

    /// e^x
    pub fn exp(&mut self, a: ValueId) -> ValueId {
        self.unary(Unary::Exp, a)
    }

    /// 2^x
    pub fn exp2(&mut self, a: ValueId) -> ValueId {
        self.unary(Unary::Exp2, a)
    }

    /// Element by element; the result is Bool, of the operands' shape.
    pub fn compare(&mut self, op: Compare, a: ValueId, b: ValueId) -> ValueId {
        let ty = self.ty(a);
        self.check(ty == self.ty(b), &format!("{op:?} of {ty:?} and {:?}", self.ty(b)));
        self.emit(Op::Compare(op, a, b), TileType::new(Elem::Bool, &ty.shape))
    }

    /// `cond ? a : b`
    pub fn select(&mut self, cond: ValueId, a: ValueId, b: ValueId) -> ValueId {
        let ty = self.ty(a);
        self.check(ty == self.ty(b), "select of different types");
        self.check(
            self.ty(cond) == TileType::new(Elem::Bool, &ty.shape),
            "select needs a Bool of the same shape",
        );
        self.emit(Op::Select(cond, a, b), ty)
    }

    /// Converts the element type; nothing is emitted if it already fits.
    pub fn cast(&mut self, a: ValueId, elem: Elem) -> ValueId {
        let ty = self.ty(a);
        if ty.elem == elem {
            return a;
        }
        self.emit(Op::Cast(a), TileType::new(elem, &ty.shape))
    }

    // ---- shape ----

    /// Repeats a scalar.
    pub fn splat(&mut self, a: ValueId, shape: &[usize]) -> ValueId {
        let ty = self.ty(a);
        self.check(ty.shape.is_empty(), "splat of a tile");
        if shape.is_empty() {
            return a;
        }
        self.emit(Op::Splat(a), TileType::new(ty.elem, shape))
    }

    /// An f32 tile of one constant.
    pub fn full(&mut self, value: f64, shape: &[usize]) -> ValueId {
        let value = self.float(value);
        self.splat(value, shape)
    }

    /// `[m]` to `[m, cols]`.
    pub fn expand_cols(&mut self, vector: ValueId, cols: usize) -> ValueId {
        let ty = self.ty(vector);
        self.check(ty.shape.len() == 1, "expand of a non-vector");
        self.emit(Op::Expand { vector, axis: 1 }, TileType::new(ty.elem, &[ty.shape[0], cols]))
    }

    /// `[n]` to `[rows, n]`.
    pub fn expand_rows(&mut self, vector: ValueId, rows: usize) -> ValueId {
        let ty = self.ty(vector);
        self.check(ty.shape.len() == 1, "expand of a non-vector");
        self.emit(Op::Expand { vector, axis: 0 }, TileType::new(ty.elem, &[rows, ty.shape[0]]))
    }

    /// Index along an axis, I32.
    pub fn iota(&mut self, axis: usize, shape: &[usize]) -> ValueId {
        self.check(axis < shape.len(), "iota axis");
        self.emit(Op::Iota { axis }, TileType::new(Elem::I32, shape))
    }

    /// Swaps the axes of a matrix.
    pub fn transpose(&mut self, a: ValueId) -> ValueId {
        let ty = self.ty(a);
        self.check(ty.shape.len() == 2, "transpose of a non-matrix");
        self.emit(Op::Transpose(a), TileType::new(ty.elem, &[ty.shape[1], ty.shape[0]]))
    }

    // ---- memory ----

    fn view(&mut self, param: ParamId, offset: ValueId, axes: &[(usize, Option<ValueId>)]) -> View {
        let axes =
            axes.iter().map(|(stride, bound)| Axis { stride: *stride as i64, bound: *bound }).collect();
        View { param, offset, axes }
    }

    /// Loads a tile of the parameter's element type; `axes` gives stride and bound per axis.
    pub fn load(
        &mut self,
        param: ParamId,
        offset: ValueId,
        shape: &[usize],
        axes: &[(usize, Option<ValueId>)],
    ) -> ValueId {
        self.check(shape.len() == axes.len(), "load needs one stride per axis");
        let elem = self.kernel.param(param).elem;
        let view = self.view(param, offset, axes);
        self.emit(Op::Load(view), TileType::new(elem, shape))
    }

    /// [`Builder::load`], cast to f32.
    pub fn load_f32(
        &mut self,
        param: ParamId,
        offset: ValueId,
        shape: &[usize],
        axes: &[(usize, Option<ValueId>)],
    ) -> ValueId {
        let tile = self.load(param, offset, shape, axes);
        self.cast(tile, Elem::F32)
    }

    /// Stores a tile, cast to the parameter's element type.
    pub fn store(
        &mut self,
        param: ParamId,
        offset: ValueId,
        value: ValueId,
        axes: &[(usize, Option<ValueId>)],
    ) {
        let value = self.cast(value, self.kernel.param(param).elem);
        self.check(self.ty(value).shape.len() == axes.len(), "store needs one stride per axis");
        let view = self.view(param, offset, axes);
        self.stmt(vec![], Op::Store(view, value));
    }

    /// Stores the elements of a vector, cast to the parameter's element type, at places of their own behind an offset, those
    /// of negative places nowhere.
    pub fn scatter(&mut self, param: ParamId, offset: ValueId, places: ValueId, value: ValueId) {
        let value = self.cast(value, self.kernel.param(param).elem);
        let ty = self.ty(value);
        self.check(ty.shape.len() == 1, "scatter of a vector");
        self.check(self.ty(places) == TileType::new(Elem::I32, &ty.shape), "a place for each element");
        let to = self.view(param, offset, &[]);
        self.stmt(vec![], Op::Scatter { to, places, value });
    }

    // ---- contraction, reduction ----

    /// `op(a)·op(b) + acc`; flags say which operand is stored transposed.
    pub fn dot(
        &mut self,
        a: ValueId,
        trans_a: bool,
        b: ValueId,
        trans_b: bool,
        acc: Option<ValueId>,
    ) -> ValueId {
        let (ta, tb) = (self.ty(a), self.ty(b));
        self.check(ta.shape.len() == 2 && tb.shape.len() == 2, "dot of non-matrices");
        let (m, ka) = if trans_a { (ta.shape[1], ta.shape[0]) } else { (ta.shape[0], ta.shape[1]) };
        let (kb, n) = if trans_b { (tb.shape[1], tb.shape[0]) } else { (tb.shape[0], tb.shape[1]) };
        self.check(ka == kb, &format!("dot of [{m}, {ka}] and [{kb}, {n}]"));
        let ty = TileType::new(Elem::F32, &[m, n]);
        if let Some(acc) = acc {
            self.check(self.ty(acc) == ty, "dot accumulator");
        }
        self.emit(Op::Dot { a, b, acc, trans_a, trans_b }, ty)
    }

    /// Reduces one axis away.
    pub fn reduce(&mut self, op: Reduction, axis: usize, value: ValueId) -> ValueId {
        let mut ty = self.ty(value);
        self.check(axis < ty.shape.len(), "reduce axis");
        ty.shape.remove(axis);
        self.emit(Op::Reduce { op, axis, value }, ty)
    }

    /// Sum along an axis.
    pub fn sum(&mut self, axis: usize, value: ValueId) -> ValueId {
        self.reduce(Reduction::Sum, axis, value)
    }

    /// Maximum along an axis.
    pub fn reduce_max(&mut self, axis: usize, value: ValueId) -> ValueId {
        self.reduce(Reduction::Max, axis, value)
    }

    /// Running sum along an axis.
    pub fn scan(&mut self, axis: usize, reverse: bool, value: ValueId) -> ValueId {
        let ty = self.ty(value);
        self.check(axis < ty.shape.len(), "scan axis");
        self.emit(Op::Scan { axis, reverse, value }, ty)
    }

    // ---- control ----

    /// A value of the type and the name of another.
    fn like(&mut self, value: ValueId) -> ValueId {
        let name = self.kernel.names[value.0 as usize].clone();
        let fresh = self.fresh(self.ty(value));
        self.name(fresh, &name)
    }

    /// A counted loop; the closure gets the counter and the carried values and returns their next values. These, and the
    /// results, are named like the first ones.
    pub fn for_loop(
        &mut self,
        lower: ValueId,
        upper: ValueId,
        step: usize,
        init: &[ValueId],
        body: impl FnOnce(&mut Builder, ValueId, &[ValueId]) -> Vec<ValueId>,
    ) -> Vec<ValueId> {
        let step = self.index(step);
        let counter = self.fresh(TileType::scalar(Elem::Index));
        let carried: Vec<ValueId> = init.iter().map(|v| self.like(*v)).collect();
        self.open.push(vec![]);
        let yields = body(self, counter, &carried);
        let stmts = self.open.pop().expect("the loop body");
        let types: Vec<TileType> = init.iter().map(|v| self.ty(*v)).collect();
        let yielded: Vec<TileType> = yields.iter().map(|v| self.ty(*v)).collect();
        self.check(types == yielded, "a loop must yield the types it carries");
        let results: Vec<ValueId> = init.iter().map(|v| self.like(*v)).collect();
        let mut args = vec![counter];
        args.extend(carried);
        let body = Region { args, body: stmts, yields };
        self.stmt(results.clone(), Op::For { lower, upper, step, init: init.to_vec(), body });
        results
    }

    /// A uniform branch; both closures return the results.
    pub fn if_else(
        &mut self,
        cond: ValueId,
        then: impl FnOnce(&mut Builder) -> Vec<ValueId>,
        otherwise: impl FnOnce(&mut Builder) -> Vec<ValueId>,
    ) -> Vec<ValueId> {
        self.check(self.ty(cond) == TileType::scalar(Elem::Bool), "the condition is a Bool scalar");
        let then = self.region(then);
        let otherwise = self.region(otherwise);
        let types: Vec<TileType> = then.yields.iter().map(|v| self.ty(*v)).collect();
        let other: Vec<TileType> = otherwise.yields.iter().map(|v| self.ty(*v)).collect();
        self.check(types == other, "both branches must yield the same types");
        let results: Vec<ValueId> = types.into_iter().map(|t| self.fresh(t)).collect();
        self.stmt(results.clone(), Op::If { cond, then, otherwise });
        results
    }

    fn region(&mut self, body: impl FnOnce(&mut Builder) -> Vec<ValueId>) -> Region {
        self.open.push(vec![]);
        let yields = body(self);
        let body = self.open.pop().expect("the branch body");
        Region { args: vec![], body, yields }
    }
}
