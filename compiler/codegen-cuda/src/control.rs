//! Loops and branches: carried values in variables of their own, and hazards that go around. Waiting for other threads.

use std::collections::BTreeSet;

use linc_tile::{Region, Stmt, ValueId};

use crate::CodegenError;
use crate::assign::Place;
use crate::emit::{Def, Emitter};
use crate::rounds::Loop;
use crate::shared::{Before, Range};

impl<'k> Emitter<'k> {
    /// Variables for carried values, with their first values.
    fn carried(&mut self, names: &[ValueId], init: &[ValueId]) {
        for (arg, init) in names.iter().zip(init) {
            let name = self.name(*arg);
            let declaration = self.declare(*arg, &name);
            self.state.out.line(format!("{declaration};"));
            self.copy_into(*init, &name);
        }
    }

    fn define_carried(&mut self, values: &[ValueId], named_after: &[ValueId]) {
        for (value, named) in values.iter().zip(named_after) {
            let name = self.name(*named);
            let def =
                if self.kernel.ty(*value).shape.is_empty() { Def::Scalar(name) } else { Def::Array(name) };
            self.define(*value, def);
        }
    }

    /// Assigns the yielded values to the variables, as if all at once.
    fn assign(&mut self, to: &[ValueId], yields: &[ValueId]) {
        let targets: BTreeSet<String> = to.iter().map(|v| self.name(*v)).collect();
        let held = |def: &Def| match def {
            Def::Scalar(name) | Def::Array(name) | Def::Splat(name) | Def::Expand(name, _) => {
                Some(name.clone())
            }
            Def::Iota(_) | Def::SharedOnly => None,
        };
        // A value that lives in another target is saved before that target is overwritten.
        let mut saved = vec![];
        for (target, value) in to.iter().zip(yields) {
            let source = held(self.def(*value));
            let other = source.filter(|s| targets.contains(s) && *s != self.name(*target));
            saved.push(other.map(|_| {
                let copy = self.temporary("next");
                let declaration = self.declare(*target, &copy);
                self.state.out.line(format!("{declaration};"));
                self.copy_into(*value, &copy);
                copy
            }));
        }
        for ((target, value), saved) in to.iter().zip(yields).zip(saved) {
            let name = self.name(*target);
            match saved {
                None => self.copy_into(*value, &name),
                Some(copy) => {
                    let place = self.assignment.place(*target);
                    let index = match place {
                        Place::Scalar => "",
                        Place::Vector(_) => "[r]",
                        Place::Matrix(_) => "[r][c]",
                    };
                    self.open_slots(place, 1);
                    self.state.out.line(format!("{name}{index} = {copy}{index};"));
                    self.close_slots(place);
                }
            }
        }
    }

    /// Lets the compiler forget what it has computed from the number of the lane, where it should not keep it.
    pub(crate) fn renew_addresses(&mut self) {
        if self.assignment.renews_addresses() {
            self.state.out.line("lane = again(lane);");
        }
    }

    fn stage_all(&mut self, values: &[ValueId]) -> Result<(), CodegenError> {
        values.iter().try_for_each(|v| self.stage_if_needed(*v))
    }

    pub(crate) fn for_loop(
        &mut self,
        stmt: &'k Stmt,
        [lower, upper, step]: [ValueId; 3],
        init: &[ValueId],
        body: &'k Region,
    ) -> Result<(), CodegenError> {
        let (counter, carried) = (body.args[0], &body.args[1..]);
        self.start_fetch();
        self.wait_before_pipelines(body);
        self.carried(carried, init);
        self.define_carried(carried, carried);
        let name = self.name(counter);
        self.define(counter, Def::Scalar(name.clone()));
        self.loops.push(Loop { body, step });
        let [lower, upper, step] = [lower, upper, step].map(|v| self.scalar(v));
        let fetched = self.begin_fetches(body, &name, &lower, &upper)?;
        let streams = self.begin_streams(body, &name, [&lower, &upper, &step])?;

        // What is under way at the end of a round is so at the start of the next: written again until that is covered.
        let mut start = self.state.clone();
        loop {
            self.state = start.clone();
            // Rounds are large: unrolled, they would only compete for registers.
            self.state.out.line("#pragma unroll 1");
            self.state.out.open(format!("for (index {name} = {lower}; {name} < {upper}; {name} += {step})"));
            self.renew_addresses();
            self.next_fetches(&fetched, &name, &upper, &step);
            self.next_streams(&streams, &name, &upper, &step);
            self.body(carried, &body.body, &body.yields)?;
            self.assign(carried, &body.yields);
            self.end_round(&fetched);
            self.end_stream_round(&streams);
            self.state.out.close();
            self.state.hazards.next_round(&start.hazards, &name);
            let mut joined = start.hazards.clone();
            joined.join(&self.state.hazards);
            if joined == start.hazards {
                break;
            }
            start.hazards = joined;
        }
        // A loop may run no round at all.
        self.state.hazards.join(&start.hazards);
        self.end_fetches(fetched);
        self.end_streams(streams);
        self.loops.pop();
        self.define_carried(&stmt.results, carried);
        self.stage_all(&stmt.results)
    }

    pub(crate) fn branch(
        &mut self,
        stmt: &'k Stmt,
        cond: ValueId,
        then: &'k Region,
        otherwise: &'k Region,
    ) -> Result<(), CodegenError> {
        for result in &stmt.results {
            let name = self.name(*result);
            let declaration = self.declare(*result, &name);
            self.state.out.line(format!("{declaration};"));
        }
        self.start_fetch();
        let before = self.state.hazards.clone();
        let cond = self.scalar(cond);
        // Where only the other side does anything, it is the one that is printed.
        let (cond, then, otherwise) = match then.body.is_empty() && stmt.results.is_empty() {
            true => (format!("!{cond}"), otherwise, then),
            false => (cond, then, otherwise),
        };
        self.state.out.open(format!("if ({cond})"));
        self.body(&[], &then.body, &then.yields)?;
        self.assign(&stmt.results, &then.yields);
        let after = std::mem::replace(&mut self.state.hazards, before);
        if !otherwise.body.is_empty() || !stmt.results.is_empty() {
            self.state.out.close_with("} else {");
            self.body(&[], &otherwise.body, &otherwise.yields)?;
            self.assign(&stmt.results, &otherwise.yields);
        }
        self.state.out.close();
        self.state.hazards.join(&after);
        self.define_carried(&stmt.results, &stmt.results);
        self.stage_all(&stmt.results)
    }

    // ---- waiting ----

    pub(crate) fn barrier(&mut self) {
        if self.state.hazards.fence() {
            // Warpgroups read operands by another way than threads write them.
            self.state.out.line("fence_async();");
        }
        self.state.out.line("barrier();");
        self.renew_addresses();
        self.state.hazards.barrier();
    }

    pub(crate) fn wait(&mut self, before: Before) {
        match before {
            Before::Nothing => {}
            Before::Barrier => self.barrier(),
            Before::Arrival => {
                self.state.out.line("copy_async_wait<0>();");
                self.state.hazards.arrival();
                self.barrier();
            }
        }
    }

    /// Announces a read of shared memory.
    pub(crate) fn reads(&mut self, range: Range) {
        self.reads_all(&[range], false);
    }

    /// Announces reads that come together, by threads or by a product of warpgroups. All waiting is before all of them: a
    /// barrier ends what was noted before it.
    pub(crate) fn reads_all(&mut self, ranges: &[Range], by_warpgroups: bool) {
        for range in ranges {
            self.wait(self.state.hazards.before_read(*range));
        }
        for range in ranges {
            match by_warpgroups {
                true => self.state.hazards.note_product_read(*range),
                false => self.state.hazards.note_read(*range),
            }
        }
    }

    /// Announces a write of shared memory.
    pub(crate) fn writes(&mut self, range: Range) {
        self.wait(self.state.hazards.before_write(range));
        self.state.hazards.note_write(range);
    }
}
