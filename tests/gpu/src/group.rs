//! What is checked, in groups: small enough that one process can do each, since a GPU is lost to the process in which a
//! kernel has failed.

use linc_cases::attention::{Measured, linear, linear_apart, softmax, softmax_apart};
use linc_cases::operands::Keys;
use linc_cases::{Case, decoding, elu, embeddings, library, random_kernel};
use linc_tile::interp::Buffer;
use linc_tile::library::attention::HeadShape;
use linc_tile::{Elem, Kernel};

/// How much of each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Of the library's cases and attentions, every n-th.
    pub every: usize,
    /// Random programs.
    pub random: u64,
}

impl Extent {
    /// All there is.
    pub const FULL: Extent = Extent { every: 1, random: 400 };
    /// Some of everything.
    pub const QUICK: Extent = Extent { every: 7, random: 40 };
}

/// How results are judged.
enum Criterion {
    /// By a tolerance of each element.
    Close { case: Case, expected: Vec<Buffer> },
    /// By the errors of the same computation, rounded where the kernel rounds.
    Precise(Measured),
}

/// A kernel with operands, and what its results must be.
pub struct Check(Criterion);

impl Check {
    /// What is launched, whichever criterion its results have to meet.
    pub fn kernel(&self) -> &Kernel {
        match &self.0 {
            Criterion::Close { case, .. } => &case.kernel,
            Criterion::Precise(measured) => &measured.kernel,
        }
    }

    /// Operands, and what results hold before.
    pub fn buffers(&self) -> &[Buffer] {
        match &self.0 {
            Criterion::Close { case, .. } => &case.buffers,
            Criterion::Precise(measured) => &measured.buffers,
        }
    }

    /// What is wrong with results, in words.
    pub fn judge(&self, actual: &[Buffer]) -> Vec<String> {
        match &self.0 {
            Criterion::Close { case, expected } => case.difference(actual, expected).into_iter().collect(),
            Criterion::Precise(measured) => measured.worse(actual),
        }
    }
}

/// Some cases of the library.
type Cases = fn() -> Vec<Case>;
const LIBRARY: [(&str, Cases); 12] = [
    ("norms", library::norms),
    ("pointwise", library::pointwise_programs),
    ("copies", library::copies_and_fills),
    ("reductions", library::reductions),
    ("rope", library::ropes),
    ("embeddings", embeddings::embeddings),
    ("losses-optimizer", library::losses_and_optimizer),
    ("softmax-attention", library::softmax_attention),
    ("efficient-attention", library::efficient_attention),
    ("elu-attention", elu::elu_attention),
    ("decoding", decoding::tokens),
    ("prompts", decoding::prompts),
];
/// Groups beside those of the library.
const OTHERS: [&str; 6] =
    ["softmax-tiles", "softmax-precision", "linear-precision", "linear-extremes", "documents", "random"];

/// Names of all groups of kernels, in the order in which they should run.
pub fn names() -> Vec<&'static str> {
    LIBRARY.iter().map(|(name, _)| *name).chain(OTHERS).collect()
}

/// The checks of a group; nothing if there is no such group.
pub fn checks(name: &str, extent: Extent) -> Option<Vec<Check>> {
    if let Some((_, cases)) = LIBRARY.iter().find(|(known, _)| *known == name) {
        let cases: Vec<Case> = cases().into_iter().step_by(extent.every).collect();
        return Some(parallel(cases, close));
    }
    let every = |n: usize, chains: Vec<Chain>| {
        let chains = chains.into_iter().step_by(n).collect();
        let measured: Vec<Vec<Measured>> = parallel(chains, |chain: Chain| chain.run());
        Some(measured.into_iter().flatten().map(|m| Check(Criterion::Precise(m))).collect())
    };
    let precise = |chains| every(extent.every, chains);
    match name {
        // All of them: few, and what models run.
        "softmax-tiles" => every(1, tiles()),
        "softmax-precision" => precise(chains(false)),
        "linear-precision" => precise(chains(true)),
        "linear-extremes" => precise(extremes()),
        "documents" => precise(documents()),
        "random" => Some(parallel((1..=extent.random).collect(), |seed| close(random_kernel(seed)))),
        _ => None,
    }
}

fn close(case: Case) -> Check {
    let expected = case.expected();
    Check(Criterion::Close { case, expected })
}

/// Queries and keys of a tile where they do not matter.
const TILE: (usize, usize) = (64, 64);

/// An attention, forward and backward: each kernel works on what the interpreter says of those before it.
struct Chain {
    shape: HeadShape,
    elem: Elem,
    /// Nothing for softmax attention.
    linear: Option<(Keys, f64)>,
    causal: bool,
    /// Documents are kept apart.
    documents: bool,
    /// Queries and keys of a tile of softmax attention.
    tile: (usize, usize),
    seed: u64,
}

impl Chain {
    fn run(self) -> Vec<Measured> {
        let Chain { shape, elem, causal, tile, seed, .. } = self;
        match (self.linear, self.documents) {
            (None, false) => softmax(shape, elem, causal, tile, seed),
            (None, true) => softmax_apart(shape, elem, tile, seed),
            (Some((keys, temperature)), false) => linear(shape, elem, keys, temperature, seed),
            (Some((keys, temperature)), true) => linear_apart(shape, elem, keys, temperature, seed),
        }
    }
}

/// Sizes of tiles that kernels have by default, in sequences of several whole ones.
fn tiles() -> Vec<Chain> {
    let chain = |(i, (head_dim, elem)): (usize, (usize, Elem))| {
        let shape = HeadShape { batch: 2, seq: 384, heads: 4, kv_heads: 2, head_dim };
        [(128, 64), (64, 128), (64, 64)].map(|tile| Chain {
            shape,
            elem,
            linear: None,
            causal: true,
            documents: false,
            tile,
            seed: 10 + i as u64,
        })
    };
    let heads = [(64, Elem::Bf16), (128, Elem::Bf16), (64, Elem::F16), (128, Elem::F16)];
    heads.into_iter().enumerate().flat_map(chain).collect()
}

/// Lengths around the tiles' sizes, and of several whole tiles, with every head size; group sizes in turn.
fn chains(linear: bool) -> Vec<Chain> {
    let lengths = [1, 63, 64, 65, 200, 256, 257].into_iter().enumerate();
    let sizes = lengths.flat_map(|(i, seq)| {
        [32, 64, 128].into_iter().enumerate().map(move |(j, head_dim)| (i + j, seq, head_dim))
    });
    let chain = |(turn, seq, head_dim): (usize, usize, usize)| {
        let group = [1, 2, 4][turn % 3];
        let kv_heads = if group == 4 { 1 } else { 2 };
        let shape = HeadShape { batch: 1, seq, heads: group * kv_heads, kv_heads, head_dim };
        let kind = linear.then_some((Keys::Normal, 3.0));
        let seed = (seq * head_dim) as u64;
        [Elem::Bf16, Elem::F16, Elem::F32].map(|elem| Chain {
            shape,
            elem,
            linear: kind,
            // Of softmax attention, some without a mask.
            causal: turn % 4 != 3,
            documents: false,
            tile: TILE,
            seed,
        })
    };
    sizes.flat_map(chain).collect()
}

/// Linear attention with keys that no plain exponential survives.
fn extremes() -> Vec<Chain> {
    let mut chains = vec![];
    for (seed, keys) in Keys::ALL.into_iter().enumerate() {
        for (head_dim, heads) in [(64, 2), (128, 1)] {
            let shape = HeadShape { batch: 1, seq: 150, heads, kv_heads: 1, head_dim };
            for elem in [Elem::F32, Elem::Bf16, Elem::F16] {
                let linear = Some((keys, 1.0));
                let seed = seed as u64 + 1;
                let (causal, documents) = (true, false);
                chains.push(Chain { shape, elem, linear, causal, documents, tile: TILE, seed });
            }
        }
    }
    chains
}

/// Both families with documents that are kept apart: those of lengths, and of keys that no plain exponential survives.
fn documents() -> Vec<Chain> {
    let all = chains(false).into_iter().chain(chains(true)).chain(extremes());
    let longer = all.filter(|chain| chain.shape.seq > 1);
    longer.map(|chain| Chain { causal: true, documents: true, ..chain }).collect()
}

/// Maps in order, on all threads: the interpreter is slow.
fn parallel<T: Send, R: Send>(items: Vec<T>, f: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // Neighbours are alike in size: a thread takes every n-th.
    let mut lanes: Vec<Vec<(usize, T)>> = (0..threads).map(|_| vec![]).collect();
    for (index, item) in items.into_iter().enumerate() {
        lanes[index % threads].push((index, item));
    }
    let f = &f;
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        let work = |lane: Vec<(usize, T)>| move || lane.into_iter().map(|(i, item)| (i, f(item))).collect();
        let running: Vec<_> = lanes.into_iter().map(|lane| scope.spawn(work(lane))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<(usize, R)>>| match thread.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        running.into_iter().flat_map(join).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallel_keeps_the_order() {
        assert_eq!(
            parallel((0..100).collect(), |i: usize| 2 * i),
            (0..100).map(|i| 2 * i).collect::<Vec<_>>()
        );
    }

    #[test]
    fn names_are_distinct_and_known() {
        let names = names();
        for (i, name) in names.iter().enumerate() {
            assert!(!names[..i].contains(name), "{name}");
        }
        assert!(checks("nonsense", Extent::QUICK).is_none());
    }
}
