//! Softmax attention, backward, as one kernel: five products for each pair of blocks, where `dq` and `dkdv` take seven,
//! since both compute the scores and the gradient of the weights.
//!
//! A program owns a key/value head with its group of query heads, and walks over blocks of keys. It adds to dQ in memory,
//! which nobody else does, block by block in the order of the keys. There are few programs, so it is for CPUs.
//!
//! Where a batch has too few heads to keep the cores at work, the keys and the queries of a head are cut into as many
//! ranges, and the kernel is launched in [`Round`]s: in round `r` a program owns the keys of range `i` and the queries of
//! range `i + r`. No two programs of a round add to the same rows, and every row gets its sums in the order of the rounds,
//! for any number of threads and without memory of their own.

use std::ops::Range;

use super::backward::{Inputs, KeyBlock, QueryRange, SoftmaxBackwardSpec, SummedInMemory, key_gradients};
use crate::builder::Builder;
use crate::ir::{Elem, Kernel, Mode, ValueId};
use crate::library::attention::common::{HeadRows, HeadShape, for_group, group_head};
use crate::library::bound;

/// One launch of the backward over ranges of keys and queries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Round {
    /// How many ranges the keys, and the queries, are cut into.
    pub ranges: usize,
    /// How many ranges its queries are behind its keys: `0..ranges`, in this order.
    pub round: usize,
}

impl Round {
    /// All rounds, in the order of their launches.
    pub fn all(ranges: usize) -> impl Iterator<Item = Round> {
        (0..ranges).map(move |round| Round { ranges, round })
    }

    /// Programs of a head.
    fn programs(self, causal: bool) -> usize {
        if causal { self.ranges - self.round } else { self.ranges }
    }

    /// Rows of a range: whole blocks of keys and of queries.
    fn rows(self, spec: &SoftmaxBackwardSpec) -> usize {
        let mut blocks = (1..=spec.block_k).map(|count| count * spec.block_q);
        let both = blocks.find(|rows| rows.is_multiple_of(spec.block_k));
        spec.shape.seq.div_ceil(self.ranges).next_multiple_of(both.expect("their product is one"))
    }

    /// The keys of each of its programs of a head, and its queries.
    fn parts(self, spec: &SoftmaxBackwardSpec) -> impl Iterator<Item = [Range<usize>; 2]> {
        let (seq, rows) = (spec.shape.seq, self.rows(spec));
        let range = move |number: usize| (number * rows).min(seq)..((number + 1) * rows).min(seq);
        let queries = move |keys: usize| (keys + self.round) % self.ranges;
        (0..self.programs(spec.causal)).map(move |keys| [keys, queries(keys)].map(range))
    }

    /// Pairs of a query of one head and a key that it sees. Those of all rounds are all that there are.
    pub fn pairs(self, spec: &SoftmaxBackwardSpec) -> usize {
        let on_diagonal = spec.causal && self.round == 0;
        let of_part = |[keys, queries]: [Range<usize>; 2]| match on_diagonal {
            true => keys.len() * (keys.len() + 1) / 2,
            false => keys.len() * queries.len(),
        };
        self.parts(spec).map(of_part).sum()
    }

    /// Keys of a sequence that it reads, and queries: a causal round leaves out as many ranges as it is behind.
    pub fn rows_read(self, spec: &SoftmaxBackwardSpec) -> [usize; 2] {
        self.parts(spec).fold([0, 0], |sum, [keys, queries]| [sum[0] + keys.len(), sum[1] + queries.len()])
    }

    fn tag(self) -> String {
        if self.ranges == 1 { String::new() } else { format!("_r{}of{}", self.round, self.ranges) }
    }
}

/// `(q, k, v, dout, lse, delta, [positions]) -> (dq, dk, dv)`, all f32. The first round gives the gradients their first values, the
/// others add to them.
pub fn softmax_attention_backward(spec: &SoftmaxBackwardSpec, round: Round) -> Kernel {
    let HeadShape { batch, seq, kv_heads, head_dim: dim, .. } = spec.shape;
    let (rows, cols) = (spec.block_q, spec.block_k);
    let name = spec.name("backward", &[spec.q, spec.k, spec.v, spec.dout, spec.dq, spec.dk, spec.dv]);
    let name = name + &round.tag();
    assert_eq!(spec.elem, Elem::F32, "{name}: gradients are summed in memory, in their own type");
    let is_first = round.round == 0;
    let mut b = Builder::new(name, [kv_heads, batch, round.programs(spec.causal)]);
    let inputs = Inputs::declare(&mut b, spec);
    let [_, k, v] = inputs.qkv;
    let dq = b.param("dq", spec.elem, Mode::ReadWrite);
    let summed = if is_first { Mode::Write } else { Mode::ReadWrite };
    let dk = b.param("dk", spec.elem, summed);
    let dv = b.param("dv", spec.elem, summed);
    let (kv_head, batch) = (b.program_id(0), b.program_id(1));
    let k = HeadRows::new(&mut b, k, spec.k, dim, batch, kv_head);
    let v = HeadRows::new(&mut b, v, spec.v, dim, batch, kv_head);
    let dk = HeadRows::new(&mut b, dk, spec.dk, dim, batch, kv_head);
    let dv = HeadRows::new(&mut b, dv, spec.dv, dim, batch, kv_head);
    let (keys, queries) = ranges(&mut b, spec, round);

    if is_first {
        let group = spec.shape.group();
        for_group(&mut b, group, &[], |b, member, _| {
            let head = group_head(b, kv_head, group, member);
            let dq = HeadRows::new(b, dq, spec.dq, dim, batch, head);
            b.for_loop(queries.start, queries.end, rows, &[], |b, start, _| {
                let bound = bound(b, seq, start, rows);
                let zeros = b.full(0.0, &[rows, dim]);
                dq.store(b, start, zeros, bound);
                vec![]
            })
        });
    }

    b.for_loop(keys[0], keys[1], cols, &[], |b, start, _| {
        b.name(start, "k_start");
        let key_bound = bound(b, seq, start, cols);
        let k_tile = k.load(b, start, cols, key_bound);
        let v_tile = v.load(b, start, cols, key_bound);
        // Loaded by itself, so that the other copy can be one for products with a transposed operand.
        let scaled = k.load(b, start, cols, key_bound);
        let scaled = b.scale(scaled, spec.scale);
        b.name(scaled, "k_scaled");
        let block = KeyBlock { batch, kv_head, start, bound: key_bound, k: k_tile, v: v_tile, queries };
        let summed = SummedInMemory { dq, scaled_keys: scaled };
        let sums = key_gradients(b, spec, &inputs, &block, Some(&summed));
        for (rows, sum) in [dk, dv].iter().zip(sums) {
            let sum = if is_first {
                sum
            } else {
                let before = rows.load(b, start, cols, key_bound);
                b.add(before, sum)
            };
            rows.store(b, start, sum, key_bound);
        }
        vec![]
    });
    b.finish()
}

/// The keys of a program, first and end, and its queries.
fn ranges(b: &mut Builder, spec: &SoftmaxBackwardSpec, round: Round) -> ([ValueId; 2], QueryRange) {
    let queries = QueryRange::whole(b, spec);
    if round.ranges == 1 {
        return ([queries.start, queries.end], queries);
    }
    let rows = round.rows(spec);
    let whole = queries.end;
    let range = |b: &mut Builder, number: ValueId| {
        let start = b.scale_index(number, rows);
        let width = b.index(rows);
        let end = b.add(start, width);
        [start, b.min(end, whole)]
    };
    let key_range = b.program_id(2);
    let behind = b.index(round.round);
    let query_range = b.add(key_range, behind);
    let query_range = if spec.causal {
        query_range
    } else {
        let count = b.index(round.ranges);
        b.rem(query_range, count)
    };
    let [start, end] = range(b, query_range);
    let sees_all = queries.sees_all || round.round > 0;
    (range(b, key_range), QueryRange { start, end, sees_all })
}
