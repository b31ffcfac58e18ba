//! Facts about the values of a kernel: which are the same register, how long each is needed, what divides an index.

use linc_tile::{Binary, Elem, Kernel, Op, Region, Stmt, ValueId};

/// Facts by value id.
pub(crate) struct Usage {
    /// The value whose registers hold this one: a cast to 16 bits is rounded where it is used, not where it is made.
    pub root: Vec<ValueId>,
    /// The registers of the root hold the value exactly: rounding them again would change nothing.
    pub exact: Vec<bool>,
    /// Number of uses of a root, by whichever name.
    pub uses: Vec<usize>,
    /// A number that divides an Index; 0 divides by all (the value is 0).
    pub divisor: Vec<u64>,
}

impl Usage {
    pub(crate) fn of(kernel: &Kernel) -> Usage {
        let n = kernel.types.len();
        let mut usage = Usage {
            root: (0..n as u32).map(ValueId).collect(),
            exact: vec![false; n],
            uses: vec![0; n],
            divisor: vec![1; n],
        };
        usage.body(kernel, &kernel.body);
        usage
    }

    pub(crate) fn root(&self, value: ValueId) -> ValueId {
        self.root[value.0 as usize]
    }

    pub(crate) fn divisor(&self, value: ValueId) -> u64 {
        self.divisor[value.0 as usize]
    }

    fn body(&mut self, kernel: &Kernel, body: &[Stmt]) {
        for stmt in body {
            self.stmt(kernel, stmt);
        }
    }

    fn region(&mut self, kernel: &Kernel, region: &Region) {
        self.body(kernel, &region.body);
        for value in &region.yields {
            self.read(*value);
        }
    }

    fn read(&mut self, value: ValueId) {
        let root = self.root(value);
        self.uses[root.0 as usize] += 1;
    }

    fn stmt(&mut self, kernel: &Kernel, stmt: &Stmt) {
        let alias = self.alias(kernel, stmt);
        if !alias {
            stmt.op.operands().into_iter().for_each(|v| self.read(v));
        }
        if let [result] = stmt.results[..] {
            let at = result.0 as usize;
            self.exact[at] |= matches!(stmt.op, Op::Load(_)) && kernel.ty(result).elem.is_narrow();
            let divisor = self.divisor_of(&stmt.op);
            // Of i32, which wraps, powers of two remain; a float need not be whole.
            self.divisor[at] = match kernel.ty(result).elem {
                Elem::Index => divisor,
                Elem::I32 => divisor & divisor.wrapping_neg(),
                Elem::F32 | Elem::Bf16 | Elem::F16 | Elem::Bool => 1,
            };
        }
        if let Op::For { lower, step, body, .. } = &stmt.op {
            // Every value of the counter is the lower bound plus some steps.
            self.divisor[body.args[0].0 as usize] = gcd(self.divisor(*lower), self.divisor(*step));
        }
        for region in stmt.op.regions() {
            self.region(kernel, region);
        }
    }

    /// Notes a cast that needs no registers of its own.
    fn alias(&mut self, kernel: &Kernel, stmt: &Stmt) -> bool {
        let (Op::Cast(operand), [result]) = (&stmt.op, &stmt.results[..]) else { return false };
        let (from, to) = (kernel.ty(*operand).elem, kernel.ty(*result).elem);
        let same = match (from, to) {
            (Elem::F32, Elem::Bf16 | Elem::F16) => true,
            (Elem::Bf16 | Elem::F16, Elem::F32) => self.exact[operand.0 as usize],
            _ => false,
        };
        if same {
            self.root[result.0 as usize] = self.root(*operand);
            self.exact[result.0 as usize] = self.exact[operand.0 as usize];
        }
        same
    }

    fn divisor_of(&self, op: &Op) -> u64 {
        match op {
            Op::ConstI(value) => value.unsigned_abs(),
            Op::Binary(Binary::Mul, a, b) => {
                let (a, b) = (self.divisor(*a), self.divisor(*b));
                // Where the product is too large, the powers of two in it: accesses ask for no other divisor.
                let twos = (a.trailing_zeros() + b.trailing_zeros()).min(63);
                if a == 0 || b == 0 { 0 } else { a.checked_mul(b).unwrap_or(1 << twos) }
            }
            Op::Binary(Binary::Add | Binary::Sub | Binary::Min | Binary::Max, a, b) | Op::Select(_, a, b) => {
                gcd(self.divisor(*a), self.divisor(*b))
            }
            Op::Cast(a) => self.divisor(*a),
            _ => 1,
        }
    }
}

/// Greatest common divisor; 0 and x give x.
pub(crate) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Whether a statement, or one in its regions, reads one of the names of a root.
pub(crate) fn reads(usage: &Usage, stmt: &Stmt, root: ValueId) -> bool {
    let is = |v: &ValueId| usage.root(*v) == root;
    stmt.op.operands().iter().any(is)
        || stmt
            .op
            .regions()
            .iter()
            .any(|r| r.yields.iter().any(is) || r.body.iter().any(|s| reads(usage, s, root)))
}
