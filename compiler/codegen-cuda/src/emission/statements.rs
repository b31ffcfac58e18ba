//! The statements of a kernel in program order, with the loops and branches around them.
//!
//! Scalars become variables that every thread computes. Tiles become arrays of registers, one element a slot of the
//! tile's layout; splats, iotas and expanded vectors are written where they are used and occupy nothing. Pointwise
//! statements wait for their neighbours and are written as one loop.

use linc_tile::{Op, Region, Stmt, ValueId};

use super::code::Code;
use super::double_buffer::Fetches;
use super::hazards::Before;
use super::multistage::Multistage;
use super::pointwise::Run;
use super::values::Def;
use super::{carried, memory, pairs, pointwise, product, reduce, scan, tiles, transpose, vectors};
use crate::analysis::loops::Loop;
use crate::analysis::usage::reads;
use crate::decisions::layout::ValueLayout;
use crate::decisions::pairs::Pair;
use crate::decisions::tensor_maps::has_pipelines;

/// Writes statements.
pub(crate) struct Statements<'a> {
    pub code: Code<'a>,
    /// Pointwise statements that wait to be written together.
    run: Option<Run<'a>>,
}

impl<'a> Statements<'a> {
    pub(crate) fn new(code: Code<'a>) -> Statements<'a> {
        Statements { code, run: None }
    }

    /// Writes a body that starts with the values `args`, and gives back the shared memory of what it defines after its
    /// last use.
    pub(crate) fn body(&mut self, args: &[ValueId], body: &'a [Stmt], yields: &[ValueId]) {
        let around = self.code.values.begin_body();
        for arg in args {
            self.code.values.adopt(*arg);
            self.stage_if_needed(*arg);
        }
        let mut paired = None;
        for (i, stmt) in body.iter().enumerate() {
            if paired == Some(i) {
                // Written with its other half.
            } else if let Some(pair) = Pair::of(self.code.decisions, &body[i..]) {
                paired = Some(i + pair.second);
                self.pair(stmt, &pair);
            } else {
                self.statement(stmt);
            }
            self.release_unused(&body[i + 1..], yields);
        }
        self.write_run();
        for value in self.code.shared.tiles_of(self.code.values.body()) {
            self.code.shared.release(value);
        }
        self.code.values.end_body(around);
    }

    /// Gives back the shared memory of tiles of this body that nothing of the rest reads.
    fn release_unused(&mut self, rest: &[Stmt], yields: &[ValueId]) {
        let decisions = self.code.decisions;
        for value in self.code.shared.tiles_of(self.code.values.body()) {
            let root = decisions.root(value);
            let yielded = yields.iter().any(|y| decisions.root(*y) == root);
            if !yielded && !rest.iter().any(|s| reads(&decisions.usage, s, root)) {
                self.code.shared.release(value);
            }
        }
    }

    /// Copies a value that a product reads from shared memory there.
    fn stage_if_needed(&mut self, value: ValueId) {
        if self.code.decisions.operands.is_staged(value) && !self.code.shared.tiles.contains_key(&value) {
            self.write_run();
            tiles::stage(&mut self.code, value);
        }
    }

    fn pair(&mut self, first: &Stmt, pair: &Pair<'_>) {
        if let Op::Store(..) = first.op {
            self.write_run();
            return pairs::store(&mut self.code, pair);
        }
        pairs::load(&mut self.code, pair);
        pair.values.into_iter().for_each(|value| self.stage_if_needed(value));
    }

    fn statement(&mut self, stmt: &'a Stmt) {
        let result = stmt.results.first().copied();
        let is_scalar = result.is_some_and(|r| self.code.decisions.place(r) == ValueLayout::Scalar);
        match &stmt.op {
            Op::ConstF(_) | Op::ConstI(_) | Op::ProgramId(_) => pointwise::scalar(&mut self.code, stmt),
            Op::Unary(..) | Op::Binary(..) | Op::Fma(..) | Op::Compare(..) | Op::Select(..) | Op::Cast(_) => {
                match is_scalar {
                    true => pointwise::scalar(&mut self.code, stmt),
                    false => self.collect(stmt),
                }
            }
            Op::Splat(a) => {
                let text = self.code.values.scalar(*a);
                self.code.values.define(stmt.results[0], Def::Splat(text));
            }
            Op::Iota { axis } => self.code.values.define(stmt.results[0], Def::Iota(*axis)),
            Op::Expand { vector, axis } => self.expand(*vector, stmt.results[0], *axis),
            Op::Load(view) => memory::load(&mut self.code, stmt.results[0], view),
            Op::Store(view, value) => {
                self.write_run();
                memory::store(&mut self.code, *value, view);
            }
            Op::Scatter { to, places, value } => {
                self.write_run();
                memory::scatter(&mut self.code, to, *places, *value);
            }
            Op::Dot { a, b, acc, trans_a, trans_b } => {
                self.write_run();
                product::product(&mut self.code, stmt.results[0], (*a, *trans_a), (*b, *trans_b), *acc);
            }
            Op::Reduce { op, axis, value } => {
                self.write_run();
                reduce::reduce(&mut self.code, *op, *axis, *value, stmt.results[0]);
            }
            Op::Scan { axis, reverse, value } => {
                self.write_run();
                scan::scan(&mut self.code, *axis, *reverse, *value, stmt.results[0]);
            }
            Op::Transpose(a) => {
                self.write_run();
                transpose::transpose(&mut self.code, *a, stmt.results[0]);
            }
            Op::For { lower, upper, step, init, body } => {
                self.write_run();
                self.for_loop(stmt, [*lower, *upper, *step], init, body);
            }
            Op::If { cond, then, otherwise } => {
                self.write_run();
                self.branch(stmt, *cond, then, otherwise);
            }
        }
        stmt.results.iter().for_each(|result| self.stage_if_needed(*result));
    }

    // ---- pointwise runs ----

    /// Adds a pointwise statement to the run, or starts a new one.
    fn collect(&mut self, stmt: &'a Stmt) {
        let result = stmt.results[0];
        let place = self.code.decisions.place(result);
        if self.run.as_ref().is_some_and(|run| run.place != place) {
            self.write_run();
        }
        if self.code.decisions.root(result) == result {
            self.run.get_or_insert_with(|| Run { place, stmts: vec![] }).stmts.push(stmt);
            let name = self.code.values.name(result);
            self.code.values.define(result, Def::Array(name));
        }
    }

    fn write_run(&mut self) {
        if let Some(run) = self.run.take() {
            run.write(&mut self.code);
        }
    }

    /// A vector as a matrix whose rows or columns are alike.
    fn expand(&mut self, vector: ValueId, result: ValueId, axis: usize) {
        let ValueLayout::Matrix(layout) = self.code.decisions.place(result) else {
            unreachable!("verified: expand makes a matrix")
        };
        let along = if axis == 0 { layout.cols } else { layout.rows };
        let root = self.code.decisions.root(vector);
        let waits = self.run.as_ref().is_some_and(|run| run.makes(root));
        if !waits && let Def::Splat(text) = self.code.values.def(vector).clone() {
            // All elements alike: nothing to find.
            return self.code.values.define(result, Def::Splat(text));
        }
        if waits || vectors::has_to_move(&self.code, vector, along) {
            self.write_run();
        }
        let name = vectors::spread(&mut self.code, vector, along);
        self.code.values.define(result, Def::Expand(name, axis));
    }

    // ---- loops and branches ----

    fn for_loop(
        &mut self,
        stmt: &'a Stmt,
        [lower, upper, step]: [ValueId; 3],
        init: &[ValueId],
        body: &'a Region,
    ) {
        let code = &mut self.code;
        let (counter, carried) = (body.args[0], &body.args[1..]);
        code.start_fetch();
        if code.decisions.ahead
            && code.shared.hazards.copying()
            && has_pipelines(code.decisions, body, code.maps.known())
        {
            // Once, and so not in each iteration of a loop with pipelines in it.
            code.shared.wait(&mut code.out, Before::Arrival);
        }
        carried::declare(code, carried, init);
        carried::define(code, carried, carried);
        let name = code.values.name(counter);
        code.values.define(counter, Def::Scalar(name.clone()));
        let around = Loop { body, step };
        code.loops.push(around);
        let [lower, upper, step] = [lower, upper, step].map(|v| code.values.scalar(v));
        let fetches = Fetches::begin(code, around, &name, &lower, &upper);
        let multistage = Multistage::begin(code, around, &name, [&lower, &upper, &step]);

        // What is under way at the end of an iteration is so at the start of the next: written again until that is
        // covered.
        let mut start = self.code.clone();
        loop {
            self.code = start.clone();
            let code = &mut self.code;
            // Iterations are large: unrolled, they would only compete for registers.
            code.out.line("#pragma unroll 1");
            code.out.open(format!("for (index {name} = {lower}; {name} < {upper}; {name} += {step})"));
            code.shared.renew_addresses(&mut code.out);
            fetches.iter().for_each(|f| f.begin_iteration(code, &name, &upper, &step));
            multistage.iter().for_each(|s| s.begin_iteration(code, &name, &upper, &step));
            self.body(carried, &body.body, &body.yields);
            let code = &mut self.code;
            carried::assign(code, carried, &body.yields);
            fetches.iter().for_each(|f| f.end_iteration(code));
            multistage.iter().for_each(|s| s.end_iteration(code));
            code.out.close();
            code.shared.hazards.next_round(&start.shared.hazards, &name);
            let mut joined = start.shared.hazards.clone();
            joined.join(&code.shared.hazards);
            if joined == start.shared.hazards {
                break;
            }
            start.shared.hazards = joined;
        }
        let code = &mut self.code;
        // A loop may run no iteration at all.
        code.shared.hazards.join(&start.shared.hazards);
        fetches.into_iter().for_each(|f| f.end(code));
        multistage.into_iter().for_each(|s| s.end(code));
        code.loops.pop();
        carried::define(code, &stmt.results, carried);
    }

    fn branch(&mut self, stmt: &Stmt, cond: ValueId, then: &'a Region, otherwise: &'a Region) {
        for result in &stmt.results {
            self.code.declare(*result);
        }
        self.code.start_fetch();
        let before = self.code.shared.hazards.clone();
        let cond = self.code.values.scalar(cond);
        // Where only the other side does anything, it is the one that is printed.
        let (cond, then, otherwise) = match then.body.is_empty() && stmt.results.is_empty() {
            true => (format!("!{cond}"), otherwise, then),
            false => (cond, then, otherwise),
        };
        self.code.out.open(format!("if ({cond})"));
        self.body(&[], &then.body, &then.yields);
        carried::assign(&mut self.code, &stmt.results, &then.yields);
        let after = std::mem::replace(&mut self.code.shared.hazards, before);
        if !otherwise.body.is_empty() || !stmt.results.is_empty() {
            self.code.out.close_with("} else {");
            self.body(&[], &otherwise.body, &otherwise.yields);
            carried::assign(&mut self.code, &stmt.results, &otherwise.yields);
        }
        self.code.out.close();
        self.code.shared.hazards.join(&after);
        carried::define(&mut self.code, &stmt.results, &stmt.results);
    }
}
