//! Register pressure: how many registers of a thread the tiles of a kernel occupy at the worst point. The layout is chosen
//! by this model. Addresses, fragments of operands and what the compiler needs besides come on top.

use std::collections::BTreeMap;

use linc_tile::{Kernel, Op, Region, Stmt, ValueId};

use super::layout::ValueLayout;
use super::layouts::Layouts;
use super::operands::Operands;
use crate::analysis::usage::Usage;

/// Registers of tiles that are alive at once, at most.
pub(crate) fn registers(kernel: &Kernel, usage: &Usage, layouts: &Layouts, operands: &Operands) -> usize {
    let mut walk =
        Walk { usage, layouts, operands, position: 0, run: 0, made: BTreeMap::new(), loops: vec![] };
    walk.body(&kernel.body);
    let mut changes: BTreeMap<usize, isize> = BTreeMap::new();
    for life in walk.made.values().filter(|life| !life.within_run) {
        *changes.entry(life.first).or_default() += life.slots as isize;
        *changes.entry(life.last + 1).or_default() -= life.slots as isize;
    }
    let (mut now, mut most) = (0, 0);
    for change in changes.values() {
        now += change;
        most = most.max(now);
    }
    most as usize
}

/// A value in registers.
struct Life {
    slots: usize,
    first: usize,
    last: usize,
    /// Loops around the definition.
    depth: usize,
    /// The run of pointwise statements that makes it, if one does.
    run: Option<usize>,
    /// Made and used in one run: an element at a time.
    within_run: bool,
}

struct Walk<'a> {
    usage: &'a Usage,
    layouts: &'a Layouts,
    operands: &'a Operands,
    position: usize,
    /// Counts runs of pointwise statements over one layout.
    run: usize,
    made: BTreeMap<ValueId, Life>,
    /// The values alive at the start of each open loop stay so to its end: positions are set when it closes.
    loops: Vec<Vec<ValueId>>,
}

impl Walk<'_> {
    fn slots(&self, value: ValueId) -> usize {
        self.layouts.place(value).slots()
    }

    fn make(&mut self, value: ValueId, run: Option<usize>) {
        let slots = self.slots(value);
        // Just behind the operands: a result may take the place of one that is not needed any more.
        let at = self.position + 1;
        let life =
            Life { slots, first: at, last: at, depth: self.loops.len(), run, within_run: run.is_some() };
        self.made.insert(value, life);
    }

    fn read(&mut self, value: ValueId, run: Option<usize>) {
        let root = self.usage.root(value);
        let Some(life) = self.made.get_mut(&root) else { return };
        life.last = life.last.max(self.position);
        life.within_run &= life.run == run;
        if life.depth < self.loops.len() {
            self.loops[life.depth].push(root);
        }
    }

    fn body(&mut self, body: &[Stmt]) {
        let mut place = None;
        for stmt in body {
            self.position += 2;
            let result = stmt.results.first().copied();
            let scalar = result.is_none_or(|r| self.layouts.place(r) == ValueLayout::Scalar);
            match &stmt.op {
                Op::Unary(..)
                | Op::Binary(..)
                | Op::Fma(..)
                | Op::Compare(..)
                | Op::Select(..)
                | Op::Cast(_) => {
                    let Some(result) = result.filter(|r| self.usage.root(*r) == *r) else { continue };
                    let here = self.layouts.place(result);
                    if !scalar && place != Some(here) {
                        place = Some(here);
                        self.run += 1;
                    }
                    let run = (!scalar).then_some(self.run);
                    stmt.op.operands().into_iter().for_each(|v| self.read(v, run));
                    self.make(result, run);
                    continue;
                }
                Op::ConstF(_) | Op::ConstI(_) | Op::ProgramId(_) | Op::Splat(_) | Op::Iota { .. } => continue,
                Op::Expand { vector, .. } => {
                    // The vector is read where the matrix is.
                    self.read(*vector, None);
                    continue;
                }
                Op::Load(_) if scalar => continue,
                Op::Load(_)
                | Op::Store(..)
                | Op::Scatter { .. }
                | Op::Dot { .. }
                | Op::Reduce { .. }
                | Op::Scan { .. }
                | Op::Transpose(_)
                | Op::For { .. }
                | Op::If { .. } => {}
            }
            place = None;
            self.run += 1;
            stmt.op.operands().into_iter().for_each(|v| self.read(v, None));
            self.other(stmt);
        }
    }

    /// A statement that is not pointwise.
    fn other(&mut self, stmt: &Stmt) {
        if let Op::For { body, .. } = &stmt.op {
            self.loops.push(vec![]);
            for value in &body.args {
                self.make(*value, None);
            }
            self.region(body);
            let kept = self.loops.pop().unwrap_or_default();
            self.position += 2;
            for value in kept {
                if let Some(life) = self.made.get_mut(&value) {
                    life.last = self.position;
                }
            }
        } else {
            stmt.op.regions().into_iter().for_each(|region| self.region(region));
        }
        for value in &stmt.results {
            if !self.operands.is_copied(*value) || self.operands.is_unpacked(*value) {
                self.make(*value, None);
            }
        }
    }

    fn region(&mut self, region: &Region) {
        self.body(&region.body);
        self.position += 2;
        for value in &region.yields {
            self.read(*value, None);
        }
    }
}
