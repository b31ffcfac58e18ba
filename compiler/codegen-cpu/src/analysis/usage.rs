//! Facts about the values of a kernel that scheduling needs: how often each is used, and which loads may stay in
//! memory.
//!
//! A load may stay in memory (be read where it is used instead of being copied to scratch) if no store comes between
//! it and its last use, in program order and around loops. This holds for stores through any parameter, because a plan
//! may give two parameters the same buffer when a kernel reads all of a tile before it writes it.

use linc_tile::{Kernel, Op, Region, Stmt, ValueId, View};

/// Uses and load decisions, by value id.
pub(crate) struct Usage {
    /// Number of uses as an operand or a yield.
    pub(crate) count: Vec<u32>,
    /// For the result of a tile load: reading it in place is safe.
    pub(crate) in_place: Vec<bool>,
    /// For the result of a tile load: an operand of a dot in a deeper loop, so that a dense copy pays.
    pub(crate) reused_by_dot: Vec<bool>,
    /// For the result of a tile load: of all uses, only as the transposed right operand of dots, so that the copy should
    /// be transposed.
    pub(crate) only_transposed_right: Vec<bool>,
    /// For the result of a tile load: used in a deeper loop.
    pub(crate) used_deeper: Vec<bool>,
    /// The value is the float constant 0.
    pub(crate) zero: Vec<bool>,
}

/// Where a value is defined or used: position in program order and the enclosing loops, outermost first.
#[derive(Clone)]
struct Point {
    position: usize,
    loops: Vec<usize>,
}

struct Walker<'k> {
    kernel: &'k Kernel,
    usage: Usage,
    position: usize,
    loops: Vec<usize>,
    /// End position of each loop.
    loop_ends: Vec<usize>,
    stores: Vec<usize>,
    uses: Vec<Vec<Point>>,
    /// By load: uses as the transposed right operand of a dot, and as a cast of equal value.
    turned: Vec<usize>,
    /// Tile loads with their definition.
    loads: Vec<(ValueId, Point)>,
    /// The load that a value is a view of.
    root: Vec<Option<usize>>,
}

impl Usage {
    /// Analyses a kernel.
    pub(crate) fn of(kernel: &Kernel) -> Usage {
        let n = kernel.types.len();
        let usage = Usage {
            count: vec![0; n],
            in_place: vec![false; n],
            reused_by_dot: vec![false; n],
            only_transposed_right: vec![false; n],
            used_deeper: vec![false; n],
            zero: vec![false; n],
        };
        let mut walker = Walker {
            kernel,
            usage,
            position: 0,
            loops: vec![],
            loop_ends: vec![],
            stores: vec![],
            uses: vec![],
            turned: vec![],
            loads: vec![],
            root: vec![None; n],
        };
        walker.body(&kernel.body);
        walker.finish()
    }
}

impl Walker<'_> {
    fn finish(mut self) -> Usage {
        for (((value, def), uses), turned) in self.loads.iter().zip(&self.uses).zip(&self.turned) {
            let last = |p: &Point| match p.loops.get(def.loops.len()) {
                Some(outermost) => self.loop_ends[*outermost],
                None => p.position,
            };
            let last = uses.iter().map(last).max().unwrap_or(def.position);
            let stored = self.stores.iter().any(|s| def.position < *s && *s < last);
            self.usage.in_place[value.0 as usize] = !stored;
            self.usage.only_transposed_right[value.0 as usize] = uses.len() == *turned && *turned > 0;
            self.usage.used_deeper[value.0 as usize] = uses.iter().any(|p| p.loops.len() > def.loops.len());
        }
        self.usage
    }

    fn read(&mut self, value: ValueId) {
        self.usage.count[value.0 as usize] += 1;
        if let Some(load) = self.root[value.0 as usize] {
            let point = Point { position: self.position, loops: self.loops.clone() };
            self.uses[load].push(point);
        }
    }

    fn view(&mut self, view: &View) {
        self.read(view.offset);
        for axis in &view.axes {
            if let Some(bound) = axis.bound {
                self.read(bound);
            }
        }
    }

    fn dot_operand(&mut self, value: ValueId, turned: bool) {
        self.read(value);
        if turned && let Some(load) = self.root[value.0 as usize] {
            self.turned[load] += 1;
        }
        if let Some(load) = self.root[value.0 as usize] {
            let (loaded, def) = &self.loads[load];
            if self.loops.len() > def.loops.len() {
                self.usage.reused_by_dot[loaded.0 as usize] = true;
            }
        }
    }

    fn region(&mut self, region: &Region) {
        self.body(&region.body);
        self.position += 1;
        for value in &region.yields {
            self.read(*value);
        }
    }

    fn body(&mut self, body: &[Stmt]) {
        for stmt in body {
            self.position += 1;
            self.stmt(stmt);
        }
    }

    fn stmt(&mut self, stmt: &Stmt) {
        match &stmt.op {
            Op::ConstF(c) => self.usage.zero[stmt.results[0].0 as usize] = *c == 0.0,
            Op::ConstI(_) | Op::ProgramId(_) | Op::Iota { .. } => {}
            Op::Unary(_, a) | Op::Splat(a) => self.read(*a),
            Op::Cast(a) => {
                self.read(*a);
                if self.kernel.ty(*a).elem.is_narrow() {
                    self.root[stmt.results[0].0 as usize] = self.root[a.0 as usize];
                    if let Some(load) = self.root[a.0 as usize] {
                        self.turned[load] += 1;
                    }
                }
            }
            Op::Expand { vector: a, .. } | Op::Transpose(a) => {
                self.read(*a);
                self.root[stmt.results[0].0 as usize] = self.root[a.0 as usize];
            }
            Op::Binary(_, a, b) | Op::Compare(_, a, b) => {
                self.read(*a);
                self.read(*b);
            }
            Op::Fma(a, b, c) | Op::Select(a, b, c) => {
                self.read(*a);
                self.read(*b);
                self.read(*c);
            }
            Op::Load(view) => {
                self.view(view);
                if !view.axes.is_empty() {
                    let result = stmt.results[0];
                    self.root[result.0 as usize] = Some(self.loads.len());
                    let def = Point { position: self.position, loops: self.loops.clone() };
                    self.loads.push((result, def));
                    self.uses.push(vec![]);
                    self.turned.push(0);
                }
            }
            Op::Store(view, value) => {
                self.view(view);
                self.read(*value);
                self.stores.push(self.position);
            }
            Op::Scatter { to, places, value } => {
                self.view(to);
                self.read(*value);
                self.read(*places);
                self.stores.push(self.position);
            }
            Op::Dot { a, b, acc, trans_b, .. } => {
                self.dot_operand(*a, false);
                self.dot_operand(*b, *trans_b);
                if let Some(acc) = acc {
                    self.read(*acc);
                }
            }
            Op::Reduce { value, .. } | Op::Scan { value, .. } => self.read(*value),
            Op::For { lower, upper, step, init, body } => {
                for value in [lower, upper, step].into_iter().chain(init) {
                    self.read(*value);
                }
                let id = self.loop_ends.len();
                self.loop_ends.push(0);
                self.loops.push(id);
                self.region(body);
                self.loops.pop();
                self.loop_ends[id] = self.position;
            }
            Op::If { cond, then, otherwise } => {
                self.read(*cond);
                self.region(then);
                self.region(otherwise);
            }
        }
    }
}
