//! Register allocation in scratch memory: each register of a schedule gets a slot, so that loops carry tiles
//! without copies and the working set stays small.
//!
//! Registers that follow each other (a loop's carried tile before, in, and after the loop; a dot and its accumulator; a
//! group's result and an operand that dies there) share one place if their lives do not overlap. Places of different
//! lives may overlap in memory; at the granularity of nodes, so that no node reads what it overwrites at an offset.
//!
//! Time has four ticks per node: reads that come before any write (0), writes (1), reads that may come after writes and
//! loop exits (2), results of loops (3).

use super::node::{Array, Carry, FusedOp, Node, ReduceTo, RegId, Schedule, Storage};

/// First and last moment of a stretch of life.
type Span = (usize, usize);

/// Where everything is in scratch.
pub(crate) struct Slots {
    /// Byte offset of each register.
    pub(crate) offset: Vec<usize>,
    /// Registers with equal entries share a place.
    pub(crate) class: Vec<usize>,
    /// Byte offset of 64 bytes for scalar operands and results of primitives.
    pub(crate) scalar: usize,
    /// Byte offset of a tile for cyclic copies.
    pub(crate) temporary: usize,
    /// Byte offset of the packing space of dots.
    pub(crate) pack: usize,
    /// Total bytes.
    pub(crate) bytes: usize,
}

#[derive(Clone, Default)]
struct Point {
    tick: usize,
    loops: Vec<usize>,
}

#[derive(Clone, Default)]
struct Life {
    def: Point,
    uses: Vec<Point>,
    extra: Vec<Span>,
}

/// A wish that two registers share a place.
struct Wish(RegId, RegId);

struct Walker {
    position: usize,
    loops: Vec<usize>,
    loop_ends: Vec<usize>,
    lives: Vec<Life>,
    /// Loops, outer before inner: (begin, end, tiles).
    carries: Vec<(usize, usize, Vec<Carry>)>,
    wishes: Vec<Wish>,
    pack: usize,
    temporary: usize,
}

impl Walker {
    fn point(&self, tick: usize) -> Point {
        Point { tick: self.position * 4 + tick, loops: self.loops.clone() }
    }

    fn def(&mut self, reg: RegId, tick: usize) {
        self.lives[reg.0 as usize].def = self.point(tick);
    }

    fn read(&mut self, reg: RegId, tick: usize) {
        let point = self.point(tick);
        self.lives[reg.0 as usize].uses.push(point);
    }

    fn read_place(&mut self, place: Storage, tick: usize) {
        if let Storage::Reg(reg) = place {
            self.read(reg, tick);
        }
    }

    fn nodes(&mut self, nodes: &[Node]) {
        for node in nodes {
            self.position += 1;
            self.node(node);
        }
    }

    fn node(&mut self, node: &Node) {
        match node {
            Node::Scalar { .. } | Node::StoreScalar { .. } => {}
            Node::Group(group) => {
                for (op, _) in &group.ops {
                    if let FusedOp::Read(Array { place: Storage::Reg(reg), strides, .. }) = op {
                        let same = *strides == [group.shape[1] as i64, 1];
                        self.read(*reg, if same { 0 } else { 2 });
                        if same {
                            self.wishes.extend(group.outputs.iter().map(|(_, out)| Wish(*out, *reg)));
                        }
                    }
                }
                for (_, reg) in &group.outputs {
                    self.def(*reg, 1);
                }
            }
            Node::Math { dst, src, .. } => {
                self.read_place(*src, 0);
                if let Storage::Reg(reg) = src {
                    self.wishes.push(Wish(*dst, *reg));
                }
                self.def(*dst, 1);
            }
            Node::AffineExp2 { dst, src, shift: vector, .. } | Node::Scale { dst, src, vector, .. } => {
                self.read_place(*src, 0);
                self.read_place(vector.place, 2);
                if let Storage::Reg(reg) = src {
                    self.wishes.push(Wish(*dst, *reg));
                }
                self.def(*dst, 1);
            }
            Node::ScaledDifference { dst, src, factor, vector, .. } => {
                self.read_place(vector.place, 2);
                for place in [src, factor] {
                    self.read_place(*place, 0);
                    if let Storage::Reg(reg) = place {
                        self.wishes.push(Wish(*dst, *reg));
                    }
                }
                self.def(*dst, 1);
            }
            Node::Load { dst, src, .. } => {
                self.read_place(src.place, 2);
                self.def(*dst, 1);
            }
            Node::Store { src, .. } => self.read(*src, 2),
            Node::Scatter { places, src, .. } => {
                self.read(*places, 2);
                self.read(*src, 2);
            }
            Node::Dot { dst, acc, a, b, sizes: [m, n, k] } => {
                self.read_place(a.place, 2);
                self.read_place(b.place, 2);
                if let Some(acc) = acc {
                    self.read(*acc, 0);
                    self.wishes.push(Wish(*dst, *acc));
                }
                self.def(*dst, 1);
                self.pack = self.pack.max(crate::Primitive::dot_pack_bytes(*m, *n, *k));
            }
            Node::Reduce { to, src, .. } => {
                self.read_place(src.place, 2);
                if let ReduceTo::Reg(dst) = to {
                    self.def(*dst, 1);
                }
            }
            Node::Scan { dst, src, .. } => {
                self.read(*src, 0);
                self.wishes.push(Wish(*dst, *src));
                self.def(*dst, 1);
            }
            Node::For { tiles, body, .. } => {
                let begin = self.position;
                for carry in tiles {
                    self.read(carry.init, 0);
                    self.temporary = self.temporary.max(carry.numel);
                }
                let id = self.loop_ends.len();
                self.loop_ends.push(0);
                self.loops.push(id);
                for carry in tiles {
                    self.def(carry.arg, 1);
                }
                let at = self.carries.len();
                self.carries.push((begin, 0, tiles.clone()));
                self.nodes(body);
                self.position += 1;
                for carry in tiles {
                    self.read(carry.yielded, 0);
                    self.lives[carry.arg.0 as usize]
                        .extra
                        .push((self.position * 4 + 1, self.position * 4 + 2));
                }
                self.loops.pop();
                self.loop_ends[id] = self.position;
                self.carries[at].1 = self.position;
                for carry in tiles {
                    self.def(carry.result, 3);
                }
            }
            Node::If { tiles, then, otherwise, .. } => {
                self.nodes(then);
                self.position += 1;
                for ([a, _, result], numel) in tiles {
                    self.read(*a, 0);
                    let copied = (self.position * 4 + 1, self.position * 4 + 2);
                    self.lives[result.0 as usize].extra.push(copied);
                    self.temporary = self.temporary.max(*numel);
                    self.wishes.push(Wish(*result, *a));
                }
                self.nodes(otherwise);
                self.position += 1;
                for ([_, b, result], _) in tiles {
                    self.read(*b, 0);
                    self.def(*result, 1);
                    self.wishes.push(Wish(*result, *b));
                }
            }
        }
    }
}

/// Registers that share a place, with the times at which one of them lives.
struct Classes {
    of: Vec<usize>,
    ranges: Vec<Vec<Span>>,
}

fn overlap(a: &[Span], b: &[Span]) -> bool {
    a.iter().any(|x| b.iter().any(|y| x.0 <= y.1 && y.0 <= x.1))
}

impl Classes {
    /// Joins the classes of two registers if they never live at the same time.
    fn join(&mut self, a: RegId, b: RegId) -> bool {
        let (a, b) = (self.of[a.0 as usize], self.of[b.0 as usize]);
        if a == b {
            return true;
        }
        if overlap(&self.ranges[a], &self.ranges[b]) {
            return false;
        }
        let moved = std::mem::take(&mut self.ranges[b]);
        self.ranges[a].extend(moved);
        for class in &mut self.of {
            if *class == b {
                *class = a;
            }
        }
        true
    }
}

/// Assigns every register of a schedule a place.
pub(crate) fn assign(schedule: &Schedule) -> Slots {
    let count = schedule.regs.len();
    let mut walker = Walker {
        position: 0,
        loops: vec![],
        loop_ends: vec![],
        lives: vec![Life::default(); count],
        carries: vec![],
        wishes: vec![],
        pack: 0,
        temporary: 0,
    };
    walker.nodes(&schedule.nodes);
    let ranges = walker
        .lives
        .iter()
        .map(|life| {
            let end = |p: &Point| match p.loops.get(life.def.loops.len()) {
                Some(outermost) => walker.loop_ends[*outermost] * 4 + 2,
                None => p.tick,
            };
            let last = life.uses.iter().map(end).max().unwrap_or(0).max(life.def.tick);
            let mut ranges = vec![(life.def.tick, last)];
            ranges.extend(&life.extra);
            ranges
        })
        .collect();
    let mut classes = Classes { of: (0..count).collect(), ranges };
    for (begin, end, tiles) in &walker.carries {
        for carry in tiles {
            if !classes.join(carry.arg, carry.yielded) {
                // The next round's value is copied here, so the place is taken during the whole loop.
                let class = classes.of[carry.arg.0 as usize];
                classes.ranges[class].push((begin * 4 + 1, end * 4 + 2));
            }
        }
        for carry in tiles {
            classes.join(carry.arg, carry.result);
            classes.join(carry.arg, carry.init);
        }
    }
    for Wish(a, b) in &walker.wishes {
        if schedule.regs[a.0 as usize] == schedule.regs[b.0 as usize] {
            classes.join(*a, *b);
        }
    }
    place(schedule, &classes, &walker)
}

/// First fit, large classes first.
fn place(schedule: &Schedule, classes: &Classes, walker: &Walker) -> Slots {
    const LINE: usize = crate::SCRATCH_ALIGN;
    let count = schedule.regs.len();
    let mut size = vec![0; count];
    for (reg, elements) in schedule.regs.iter().enumerate() {
        let bytes = (elements * 4).next_multiple_of(LINE);
        // Tiles a multiple of the page apart would compete for the same cache sets.
        let bytes = if bytes.is_multiple_of(1024) { bytes + LINE } else { bytes };
        let class = classes.of[reg];
        size[class] = bytes.max(size[class]);
    }
    let nodes =
        |class: usize| -> Vec<Span> { classes.ranges[class].iter().map(|(a, b)| (a / 4, b / 4)).collect() };
    let mut order: Vec<usize> = (0..count).filter(|c| size[*c] > 0).collect();
    order.sort_by_key(|c| (std::cmp::Reverse(size[*c]), *c));
    let scalar = 0;
    let mut end = LINE;
    let mut placed: Vec<(usize, usize, Vec<Span>)> = vec![];
    let mut at = vec![0; count];
    for class in order {
        let ranges = nodes(class);
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|(_, _, other)| overlap(other, &ranges))
            .map(|(from, to, _)| (*from, *to))
            .collect();
        taken.sort_unstable();
        let mut offset = LINE;
        for (from, to) in taken {
            if offset + size[class] <= from {
                break;
            }
            offset = offset.max(to);
        }
        at[class] = offset;
        end = end.max(offset + size[class]);
        placed.push((offset, offset + size[class], ranges));
    }
    let temporary = end;
    let pack = temporary + (walker.temporary * 4).next_multiple_of(LINE);
    let bytes = pack + walker.pack.next_multiple_of(LINE);
    Slots {
        offset: classes.of.iter().map(|class| at[*class]).collect(),
        class: classes.of.clone(),
        scalar,
        temporary,
        pack,
        bytes,
    }
}
