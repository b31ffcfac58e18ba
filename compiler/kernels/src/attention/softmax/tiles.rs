//! Rows of the tiles of softmax attention as data: which kernels of a graph have a choice, what linc chooses by itself,
//! and what else could be tried. Tile sizes change the order of sums, and so the last bits of results.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

pub use linc_ir::DType;
use linc_ir::{Graph, IrError, KindOp, NodeId, Op, SoftmaxOp, TensorType};

use linc_tile::library::attention::HeadShape;

use super::joined_ranges;
use crate::Target;
use crate::attention::BLOCK;

/// A kernel with tiles of rows to choose; names are those of the tile library.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TunableKernel {
    /// The output: a program owns queries and walks over keys.
    Forward,
    /// The gradient of the queries: a program owns queries and walks over keys.
    Dq,
    /// The gradients of keys and values: a program owns keys and walks over queries.
    Dkdv,
    /// Both, where they are one kernel: a program owns a key/value head.
    Backward,
}

impl TunableKernel {
    /// Name of the kernels, followed by their sizes.
    pub const fn name(self) -> &'static str {
        match self {
            TunableKernel::Forward => "softmax_attention_forward",
            TunableKernel::Dq => "softmax_attention_dq",
            TunableKernel::Dkdv => "softmax_attention_dkdv",
            TunableKernel::Backward => "softmax_attention_backward",
        }
    }
}

/// A kernel of one shape.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Site {
    /// What it computes, which decides which rows its programs own.
    pub kernel: TunableKernel,
    /// Of q, k, v and their gradients.
    pub dtype: DType,
    /// Sequences.
    pub batch: usize,
    /// Tokens of a sequence.
    pub seq: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Each query sees only keys at or before its own position.
    pub causal: bool,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Site { dtype, batch, seq, heads, kv_heads, head_dim, .. } = self;
        let mask = if self.causal { "causal" } else { "full" };
        let kernel = self.kernel.name();
        write!(f, "{kernel}_{dtype}_b{batch}_n{seq}_h{heads}_g{kv_heads}_d{head_dim}_{mask}")
    }
}

/// Rows of a kernel's tiles.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Tile {
    /// Queries of a program or iteration.
    pub queries: usize,
    /// Keys of a program or iteration.
    pub keys: usize,
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.queries, self.keys)
    }
}

impl FromStr for Tile {
    type Err = String;

    /// Reads [`Tile`]'s `Display`; an error for what is no tile that [`Site::candidates`] could have.
    fn from_str(text: &str) -> Result<Self, String> {
        let side = |text: &str| SIDES.iter().copied().find(|side| side.to_string() == text);
        text.split_once('x')
            .and_then(|(queries, keys)| Some(Tile { queries: side(queries)?, keys: side(keys)? }))
            .ok_or_else(|| {
                format!("\"{text}\" is no size of a tile; expected queries x keys, each of {SIDES:?}")
            })
    }
}

/// Rows that are worth a try: multiples of what a warp owns, and few enough to stay near a processor.
const SIDES: [usize; 3] = [32, 64, 128];

/// Multiprocessors of an H100 or H200.
const HOPPER_PROCESSORS: usize = 132;

/// Choices that replace linc's own.
pub type Tiles = BTreeMap<Site, Tile>;

impl Site {
    /// What linc takes by itself. On a GPU a program's tiles share its registers: small heads leave room for more rows,
    /// and gradients of wide heads for fewer.
    ///
    /// Hopper multiplies faster than its second-level cache feeds it. A program that keeps `r` rows asks for 4096/r bytes
    /// a cycle at full speed in the forward, 2730/r for dq, 2048/r for dkdv, of some 28 that a multiprocessor gets
    /// (4096 operations a cycle; two, three and four products for each pair of tiles that is loaded). So it keeps 128, but
    /// in dkdv of small heads, where 64 do and three programs are at work at once, and where there would be fewer programs
    /// than multiprocessors.
    pub fn default_tile(&self, target: Target) -> Tile {
        let square = Tile { queries: BLOCK, keys: BLOCK };
        let (more_queries, more_keys) =
            (Tile { queries: 2 * BLOCK, ..square }, Tile { keys: 2 * BLOCK, ..square });
        // Products of f32 are those of any GPU.
        let target = if self.dtype == DType::F32 && target == Target::Hopper { Target::Cuda } else { target };
        match (target, self.kernel) {
            (Target::Hopper, TunableKernel::Forward | TunableKernel::Dq)
                if self.head_dim <= 128 && self.fills(self.heads, more_queries.queries) =>
            {
                more_queries
            }
            // Of other wide heads, half of the products are not those of warpgroups and need the registers.
            (Target::Hopper, TunableKernel::Dkdv)
                if self.head_dim == 128 && self.fills(self.kv_heads, more_keys.keys) =>
            {
                more_keys
            }
            (Target::Cuda, TunableKernel::Forward) if self.head_dim <= 64 => more_queries,
            (Target::Cuda | Target::Hopper, TunableKernel::Dq) if self.head_dim > 64 => {
                Tile { keys: BLOCK / 2, ..square }
            }
            (
                Target::Cpu | Target::Cuda | Target::Hopper,
                TunableKernel::Forward | TunableKernel::Dq | TunableKernel::Dkdv | TunableKernel::Backward,
            ) => square,
        }
    }

    /// Whether programs of so many rows are enough for all multiprocessors of a Hopper.
    fn fills(&self, heads: usize, rows: usize) -> bool {
        self.batch * heads * self.seq.div_ceil(rows) >= HOPPER_PROCESSORS
    }

    /// All sizes to try, the default first. A device may refuse some.
    pub fn candidates(&self, target: Target) -> Vec<Tile> {
        let default = self.default_tile(target);
        let all = SIDES.iter().flat_map(|queries| SIDES.map(|keys| Tile { queries: *queries, keys }));
        // Tiles that reach far beyond the sequence compute nothing but padding.
        let fits = |rows: usize| rows <= self.seq.next_power_of_two().max(SIDES[0]);
        let others = all.filter(|tile| *tile != default && fits(tile.queries) && fits(tile.keys));
        std::iter::once(default).chain(others).collect()
    }

    /// A graph of the one node that the kernel belongs to, to try tiles on it. All operands are inputs; gradients or results
    /// that a model has are outputs.
    ///
    /// # Errors
    /// The sizes do not fit each other.
    pub fn graph(&self) -> Result<Graph, IrError> {
        let Site { dtype, batch, seq, heads, kv_heads, head_dim, causal, .. } = *self;
        let wide = || TensorType::new(dtype, [batch, seq, heads, head_dim]);
        let narrow = || TensorType::new(dtype, [batch, seq, kv_heads, head_dim]);
        let mut operands = vec![("q", wide()), ("k", narrow()), ("v", narrow())];
        let scale = (head_dim as f64).powf(-0.5);
        let op = match self.kernel {
            TunableKernel::Forward => SoftmaxOp::Forward { causal, scale },
            TunableKernel::Dq | TunableKernel::Dkdv | TunableKernel::Backward => {
                let lse = TensorType::f32([batch, heads, seq]);
                operands.extend([("out", wide()), ("lse", lse), ("dout", wide())]);
                SoftmaxOp::Backward { causal, scale }
            }
        };
        let mut graph = Graph::new(self.to_string());
        let mut inputs = vec![];
        for (name, ty) in operands {
            inputs.push(graph.push(Op::Input { name: name.into(), ty }, &[])?);
        }
        let node = graph.add(op.into(), &inputs)?;
        // dq, dk and dv, or out and lse.
        for value in graph.results(node).take(3) {
            graph.outputs.push((format!("result{}", value.port), value));
        }
        Ok(graph)
    }

    /// The kernels of a node whose tiles can be chosen.
    pub fn of_node(graph: &Graph, id: NodeId, target: Target) -> Vec<Site> {
        let (op, causal) = match graph.op(id) {
            Op::Kind(KindOp::Softmax(
                op @ (SoftmaxOp::Forward { causal, .. } | SoftmaxOp::Backward { causal, .. }),
            )) => (op, *causal),
            _ => return vec![],
        };
        let operands = graph.operands(id);
        let (q, k) = (graph.ty(operands[0]), &graph.ty(operands[1]).shape.0);
        let [batch, seq, heads, head_dim] = q.shape.0[..] else { return vec![] };
        let dtype = q.dtype;
        let kv_heads = k[2];
        let shape = HeadShape { batch, seq, heads, kv_heads, head_dim };
        let kernels: &[TunableKernel] = match op {
            SoftmaxOp::Backward { .. } if joined_ranges(target, dtype, &shape).is_some() => {
                &[TunableKernel::Backward]
            }
            SoftmaxOp::Backward { .. } => &[TunableKernel::Dq, TunableKernel::Dkdv],
            SoftmaxOp::Forward { .. } | SoftmaxOp::Decode { .. } => &[TunableKernel::Forward],
        };
        let site = |kernel: &TunableKernel| Site {
            kernel: *kernel,
            dtype,
            batch,
            seq,
            heads,
            kv_heads,
            head_dim,
            causal,
        };
        kernels.iter().map(site).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(kernel: TunableKernel, seq: usize, head_dim: usize) -> Site {
        Site { kernel, dtype: DType::Bf16, batch: 1, seq, heads: 4, kv_heads: 2, head_dim, causal: true }
    }

    #[test]
    fn candidates_begin_with_the_default_and_have_each_size_once() {
        for target in [Target::Cpu, Target::Cuda, Target::Hopper] {
            for kernel in [TunableKernel::Forward, TunableKernel::Dq, TunableKernel::Dkdv] {
                for (seq, head_dim, count) in [(2048, 64, 9), (2048, 128, 9), (64, 64, 4)] {
                    let site = site(kernel, seq, head_dim);
                    let mut found = site.candidates(target);
                    assert_eq!(found[0], site.default_tile(target));
                    let first = usize::from(found[0].queries.max(found[0].keys) > seq);
                    found.sort_unstable();
                    found.dedup();
                    assert_eq!(found.len(), count + first, "{site}");
                }
            }
        }
    }

    #[test]
    fn a_hopper_keeps_more_rows_where_there_are_programs_for_all_of_it() {
        let tile = |kernel, batch, head_dim| {
            let site = Site { batch, ..site(kernel, 2048, head_dim) };
            site.default_tile(Target::Hopper).to_string()
        };
        // 16 blocks of 128 rows, of four query heads or two of keys.
        assert_eq!(tile(TunableKernel::Forward, 2, 128), "64x64");
        assert_eq!(tile(TunableKernel::Forward, 3, 128), "128x64");
        assert_eq!(tile(TunableKernel::Dq, 3, 64), "128x64");
        assert_eq!(tile(TunableKernel::Dkdv, 4, 128), "64x64");
        assert_eq!(tile(TunableKernel::Dkdv, 5, 128), "64x128");
        for head_dim in [64, 96] {
            assert_eq!(tile(TunableKernel::Dkdv, 5, head_dim), "64x64");
        }
        let float = Site { dtype: DType::F32, batch: 8, ..site(TunableKernel::Forward, 2048, 128) };
        assert_eq!(float.default_tile(Target::Hopper), float.default_tile(Target::Cuda));
    }

    #[test]
    fn tiles_are_read_as_they_are_written() {
        for tile in site(TunableKernel::Dq, 4096, 64).candidates(Target::Cuda) {
            assert_eq!(tile.to_string().parse(), Ok(tile));
        }
        for wrong in ["", "64", "64x", "64x65", "0x64", "64x64x64", " 64x64", "1000000x64"] {
            assert!(wrong.parse::<Tile>().is_err(), "{wrong}");
        }
    }
}
