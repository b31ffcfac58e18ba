//! Random tile programs on integers, where every sum is exact in f32: generated code must give the interpreter's bits,
//! whatever is fused, copied, or kept in place.

use crate::{Case, Random};
use linc_tile::interp::Buffer;
use linc_tile::{Binary, Builder, Compare, Elem, Mode, ParamId, Reduction, Unary, ValueId};

/// Values that a region may use.
#[derive(Clone, Default)]
struct Pool {
    tiles: Vec<ValueId>,
    scalars: Vec<ValueId>,
}

struct Generator {
    random: Random,
    b: Builder,
    /// Rows and columns that occur.
    sizes: Vec<usize>,
    /// The 16-bit type that this program uses.
    narrow: Elem,
    reads: Vec<ParamId>,
    both: Vec<ParamId>,
    /// Elements of a parameter's part that belongs to one program.
    part: usize,
    pid: ValueId,
    stores: usize,
}

impl Generator {
    fn size(&mut self) -> usize {
        let at = self.random.below(self.sizes.len());
        self.sizes[at]
    }

    fn shape(&mut self) -> Vec<usize> {
        let rank = 1 + self.random.below(2);
        (0..rank).map(|_| self.size()).collect()
    }

    /// Keeps numbers small, so that all sums stay exact.
    fn tame(&mut self, value: ValueId) -> ValueId {
        let shape = self.b.ty(value).shape;
        let (low, high) = (self.b.full(-6.0, &shape), self.b.full(6.0, &shape));
        let value = self.b.max(value, low);
        self.b.min(value, high)
    }

    fn pick(&mut self, values: &[ValueId], elem: Elem) -> Option<ValueId> {
        let fit: Vec<ValueId> = values.iter().copied().filter(|v| self.b.ty(*v).elem == elem).collect();
        (!fit.is_empty()).then(|| fit[self.random.below(fit.len())])
    }

    fn same_shape(&mut self, pool: &Pool, like: ValueId) -> ValueId {
        let ty = self.b.ty(like);
        let fit: Vec<ValueId> = pool.tiles.iter().copied().filter(|v| self.b.ty(*v) == ty).collect();
        fit[self.random.below(fit.len())]
    }

    fn offset(&mut self, room: usize) -> ValueId {
        let start = self.b.scale_index(self.pid, self.part);
        let more = self.random.below(3).min(room);
        let more = self.b.index(more);
        self.b.add(start, more)
    }

    fn bound(&mut self, extent: usize) -> Option<ValueId> {
        match self.random.below(4) {
            0 => {
                // Depends on the program, may be negative or too large.
                let limit = self.b.index(self.random.below(extent + 3));
                Some(self.b.sub(limit, self.pid))
            }
            _ => None,
        }
    }

    /// Axes that stay within the part of a program.
    fn axes(&mut self, shape: &[usize], store: bool) -> Vec<(usize, Option<ValueId>)> {
        let kind = self.random.below(5);
        let strides = match (shape, kind) {
            ([_], 0) => vec![2],
            ([_], _) => vec![1],
            ([_, cols], 0) => vec![cols + 3, 1],
            ([rows, _], 1) => vec![1, *rows],
            ([_, cols], 2) => vec![2 * cols, 2],
            ([_, _], 3) if !store => vec![0, 1],
            ([_, cols], _) => vec![*cols, 1],
            _ => vec![],
        };
        shape.iter().zip(strides).map(|(extent, stride)| (stride, self.bound(*extent))).collect()
    }

    fn load(&mut self) -> ValueId {
        let shape = self.shape();
        let params: Vec<ParamId> = self.reads.iter().chain(&self.both).copied().collect();
        let param = params[self.random.below(params.len())];
        let axes = self.axes(&shape, false);
        let offset = self.offset(2);
        self.b.load_f32(param, offset, &shape, &axes)
    }

    fn store(&mut self, value: ValueId) {
        let shape = self.b.ty(value).shape;
        let param = self.both[self.random.below(self.both.len())];
        let offset = self.offset(2);
        let value = self.tame(value);
        self.stores += 1;
        if shape.len() == 1 && self.random.below(3) == 0 {
            let places = self.places(shape[0]);
            return self.b.scatter(param, offset, places, value);
        }
        let axes = self.axes(&shape, true);
        self.b.store(param, offset, value, &axes);
    }

    /// Places from the last to the first, of which some are none.
    fn places(&mut self, n: usize) -> ValueId {
        let last = n as f64 - 1.0 - self.random.below(4) as f64;
        let last = self.b.full(last, &[n]);
        let index = self.b.iota(0, &[n]);
        let index = self.b.cast(index, Elem::F32);
        let places = self.b.sub(last, index);
        self.b.cast(places, Elem::I32)
    }

    fn step(&mut self, pool: &mut Pool, depth: usize) {
        let Some(a) = self.pick(&pool.tiles, Elem::F32) else { return };
        let shape = self.b.ty(a).shape;
        let result = match self.random.below(20) {
            0..=4 => {
                let c = self.same_shape(pool, a);
                let op =
                    [Binary::Add, Binary::Sub, Binary::Mul, Binary::Min, Binary::Max][self.random.below(5)];
                let value = self.b.binary(op, a, c);
                self.tame(value)
            }
            5 => {
                let op = [Unary::Neg, Unary::Abs][self.random.below(2)];
                self.b.unary(op, a)
            }
            6 => {
                let (c, d) = (self.same_shape(pool, a), self.same_shape(pool, a));
                let value = self.b.fma(a, c, d);
                self.tame(value)
            }
            7 => {
                let (c, d) = (self.same_shape(pool, a), self.same_shape(pool, a));
                let op = [Compare::Eq, Compare::Ne, Compare::Lt, Compare::Le, Compare::Gt, Compare::Ge];
                let mask = self.b.compare(op[self.random.below(6)], a, c);
                let mask = if self.random.below(2) == 0 { self.b.unary(Unary::Not, mask) } else { mask };
                self.b.select(mask, d, c)
            }
            8 => {
                let axis = self.random.below(shape.len());
                let index = self.b.iota(axis, &shape);
                let three = self.b.int(3);
                let three = self.b.splat(three, &shape);
                let op = [Binary::Rem, Binary::Div][self.random.below(2)];
                let index = self.b.binary(op, index, three);
                let index = self.b.cast(index, Elem::F32);
                let value = self.b.add(a, index);
                self.tame(value)
            }
            9 => {
                let rounded = self.b.cast(a, self.narrow);
                self.b.cast(rounded, Elem::F32)
            }
            10 | 11 => {
                let axis = self.random.below(shape.len());
                let op = [Reduction::Sum, Reduction::Max][self.random.below(2)];
                let value = self.b.reduce(op, axis, a);
                let value = self.tame(value);
                if shape.len() == 1 {
                    pool.scalars.push(value);
                    let shape = self.shape();
                    self.b.splat(value, &shape)
                } else {
                    value
                }
            }
            12 => {
                let axis = self.random.below(shape.len());
                let reverse = self.random.below(2) == 0;
                let value = self.b.scan(axis, reverse, a);
                self.tame(value)
            }
            13 if shape.len() == 2 => self.b.transpose(a),
            13 => {
                let size = self.size();
                if self.random.below(2) == 0 {
                    self.b.expand_rows(a, size)
                } else {
                    self.b.expand_cols(a, size)
                }
            }
            14 | 15 if shape.len() == 2 => self.dot(pool, a),
            14 | 15 => self.load(),
            16 => self.load(),
            17 => {
                self.store(a);
                return;
            }
            _ if depth < 3 => {
                self.nest(pool, depth);
                return;
            }
            _ => self.load(),
        };
        pool.tiles.push(result);
    }

    fn dot(&mut self, pool: &Pool, a: ValueId) -> ValueId {
        let shape = self.b.ty(a).shape;
        let (trans_a, trans_b) = (self.random.below(2) == 0, self.random.below(2) == 0);
        let (m, k) = if trans_a { (shape[1], shape[0]) } else { (shape[0], shape[1]) };
        let fits = |s: &[usize]| s.len() == 2 && (if trans_b { s[1] } else { s[0] }) == k;
        let right: Vec<ValueId> = pool
            .tiles
            .iter()
            .copied()
            .filter(|v| fits(&self.b.ty(*v).shape) && self.b.ty(*v).elem == Elem::F32)
            .collect();
        if right.is_empty() {
            return a;
        }
        let b = right[self.random.below(right.len())];
        let n = self.b.ty(b).shape[usize::from(!trans_b)];
        let accs: Vec<ValueId> =
            pool.tiles.iter().copied().filter(|v| self.b.ty(*v).shape == [m, n]).collect();
        let acc =
            (!accs.is_empty() && self.random.below(2) == 0).then(|| accs[self.random.below(accs.len())]);
        let value = self.b.dot(a, trans_a, b, trans_b, acc);
        self.tame(value)
    }

    fn nest(&mut self, pool: &mut Pool, depth: usize) {
        let carried: Vec<ValueId> = (0..1 + self.random.below(3))
            .map(|_| {
                let from = if self.random.below(4) == 0 && !pool.scalars.is_empty() {
                    &pool.scalars
                } else {
                    &pool.tiles
                };
                from[self.random.below(from.len())]
            })
            .collect();
        let results = if self.random.below(3) == 0 {
            let two = self.b.index(2);
            let rest = self.b.rem(self.pid, two);
            let cond = self.b.compare(Compare::Eq, rest, self.pid);
            // Both sides need the generator, so the branches are built by hand.
            let (mut left, mut right) = (pool.clone(), pool.clone());
            let this = std::cell::RefCell::new(&mut *self);
            let branch = |b: &mut Builder, pool: &mut Pool| {
                let this = &mut **this.borrow_mut();
                std::mem::swap(&mut this.b, b);
                let yields = this.fill(pool, &carried, depth);
                std::mem::swap(&mut this.b, b);
                yields
            };
            let mut b = std::mem::replace(&mut this.borrow_mut().b, Builder::new("hole", [1, 1, 1]));
            let results = b.if_else(cond, |b| branch(b, &mut left), |b| branch(b, &mut right));
            this.borrow_mut().b = b;
            results
        } else {
            let (lower, upper) = (self.b.index(0), self.b.index(self.random.below(4)));
            let upper = self.b.add(upper, self.pid);
            let mut inner = pool.clone();
            let mut b = std::mem::replace(&mut self.b, Builder::new("hole", [1, 1, 1]));
            let results = b.for_loop(lower, upper, 1, &carried, |b, _, args| {
                std::mem::swap(&mut self.b, b);
                for arg in args {
                    let scalar = self.b.ty(*arg).shape.is_empty();
                    if scalar { inner.scalars.push(*arg) } else { inner.tiles.push(*arg) }
                }
                let yields = self.fill(&mut inner, &carried, depth);
                std::mem::swap(&mut self.b, b);
                yields
            });
            self.b = b;
            results
        };
        for value in results {
            let scalar = self.b.ty(value).shape.is_empty();
            if scalar { pool.scalars.push(value) } else { pool.tiles.push(value) }
        }
    }

    /// A few steps, then a value like each of `like`, often a fresh one.
    fn fill(&mut self, pool: &mut Pool, like: &[ValueId], depth: usize) -> Vec<ValueId> {
        for _ in 0..1 + self.random.below(6) {
            self.step(pool, depth + 1);
        }
        like.iter()
            .map(|v| {
                let ty = self.b.ty(*v);
                let from = if ty.shape.is_empty() { &pool.scalars } else { &pool.tiles };
                let fit: Vec<ValueId> = from.iter().copied().filter(|w| self.b.ty(*w) == ty).collect();
                let last = fit[fit.len() - 1];
                if self.random.below(3) == 0 { fit[self.random.below(fit.len())] } else { last }
            })
            .collect()
    }
}

const PROGRAMS: usize = 3;

/// The program of that seed; its results are exact.
pub fn random_kernel(seed: u64) -> Case {
    let mut random = Random::new(seed);
    let sizes: Vec<usize> =
        (0..2).map(|_| [1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 24, 33][random.below(12)]).collect();
    let largest = sizes.iter().copied().max().unwrap_or(1);
    let part = 2 * largest * largest + 3 * largest + 8;
    let mut b = Builder::new(format!("random_{seed}"), [PROGRAMS, 1, 1]);
    let narrow = if seed.is_multiple_of(3) { Elem::F16 } else { Elem::Bf16 };
    let mut reads = vec![b.param("r0", Elem::F32, Mode::Read), b.param("r1", narrow, Mode::Read)];
    reads.truncate(1 + random.below(2));
    let both = vec![b.param("w0", Elem::F32, Mode::ReadWrite), b.param("w1", narrow, Mode::ReadWrite)];
    let pid = b.program_id(0);
    let mut g = Generator { random, b, sizes, narrow, reads, both, part, pid, stores: 0 };
    let mut pool = Pool::default();
    for _ in 0..3 {
        let tile = g.load();
        pool.tiles.push(tile);
    }
    for _ in 0..8 + g.random.below(20) {
        g.step(&mut pool, 0);
    }
    let last = pool.tiles[pool.tiles.len() - 1];
    g.store(last);
    let other = pool.tiles[g.random.below(pool.tiles.len())];
    g.store(other);
    let kernel = g.b.finish();
    let mut random = Random::new(seed + 1000);
    let len = PROGRAMS * part + 2 * largest * largest;
    let buffers: Vec<Buffer> = kernel
        .params
        .iter()
        .map(|p| {
            let values: Vec<f64> = (0..len).map(|_| random.below(7) as f64 - 3.0).collect();
            Buffer::from_f64(p.elem, &values).expect("a float")
        })
        .collect();
    Case::new(&kernel, &buffers, (0.0, 0.0))
}
