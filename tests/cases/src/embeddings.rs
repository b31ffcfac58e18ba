//! Embeddings and their gradients, with and without a sort before them, each step on what the steps before it give.

use linc_tile::interp::Buffer;
use linc_tile::library::embedding::{
    EmbeddingGradSpec, EmbeddingSpec, SortedEmbeddingGradSpec, embedding, embedding_grad,
    embedding_grad_sorted,
};
use linc_tile::library::sort::{SortKeysSpec, SortPassSpec, sort_keys, sort_pass, sorted_ranges};
use linc_tile::{Elem, Kernel};

use crate::library::{ELEMS, tolerance};
use crate::{Case, Random, inputs, reference};

/// Embeddings and their gradients. Many tokens have one id; some ids are out of range.
pub fn embeddings() -> Vec<Case> {
    let mut cases = vec![];
    let sizes =
        [(1, 1, 5, (4, 2048)), (33, 65, 7, (4, 64)), (9, 256, 6, (1, 2048)), (2500, 40, 90, (8, 2048))];
    for (seed, (tokens, d, vocab, block)) in sizes.into_iter().enumerate() {
        let ids = ids(tokens, vocab, seed as u64 + 1);
        for elem in ELEMS {
            let kernel = embedding(&EmbeddingSpec { tokens, d, vocab, table: elem, y: elem });
            let mut buffers = inputs(&kernel, vocab.max(tokens) * d, vocab, 3);
            buffers[1] = ids.clone();
            cases.push(Case::new(&kernel, &buffers, tolerance(elem)));
            let spec = EmbeddingGradSpec { tokens, d, vocab, dy: elem, block, scan: 16 };
            let kernel = embedding_grad(&spec);
            let mut buffers = inputs(&kernel, vocab.max(tokens) * d, vocab, 5);
            buffers[0] = ids.clone();
            cases.push(Case::new(&kernel, &buffers, tolerance(elem)));
        }
        for (radix, scan) in [(3, 64), (10, 1024)] {
            let mut steps = Steps { tokens, cases: vec![] };
            let [keys, numbers] = steps.sort(&ids, vocab, radix, scan);
            let spec = |elem, batch| SortedEmbeddingGradSpec { tokens, d, vocab, dy: elem, block, batch };
            let ranges = spec(Elem::F32, 1).ranges();
            let (kernel, blocks) = (sorted_ranges(&ranges), ranges.blocks());
            let [ranges] = steps.run(&kernel, vec![keys.clone(), Buffer::I32(vec![0; 2 * blocks])], [1]);
            cases.append(&mut steps.cases);
            for (elem, batch) in ELEMS.into_iter().zip([1, 8, 3]) {
                let kernel = embedding_grad_sorted(&spec(elem, batch));
                let mut buffers = inputs(&kernel, vocab.max(tokens) * d, vocab, 4);
                buffers[..3].clone_from_slice(&[keys.clone(), numbers.clone(), ranges.clone()]);
                cases.push(Case::new(&kernel, &buffers, tolerance(elem)));
            }
        }
    }
    cases
}

fn ids(tokens: usize, vocab: usize, seed: u64) -> Buffer {
    let mut random = Random::new(seed);
    let mut id = || match random.below(4) {
        0 => random.below(vocab + 2) as i32 - 1,
        _ => (vocab / 2) as i32 + random.below(2) as i32,
    };
    Buffer::I32((0..tokens).map(|_| id()).collect())
}

/// Kernels that run one after the other.
struct Steps {
    tokens: usize,
    cases: Vec<Case>,
}

impl Steps {
    /// Notes a case and gives some of its buffers as the kernel leaves them.
    fn run<const N: usize>(
        &mut self,
        kernel: &Kernel,
        buffers: Vec<Buffer>,
        wanted: [usize; N],
    ) -> [Buffer; N] {
        self.cases.push(Case::new(kernel, &buffers, (0.0, 0.0)));
        let after = reference(kernel, &buffers);
        wanted.map(|k| after[k].clone())
    }

    fn sort(&mut self, ids: &Buffer, vocab: usize, radix: usize, scan: usize) -> [Buffer; 2] {
        let tokens = self.tokens;
        let blank = Buffer::I32(vec![-9; tokens]);
        let keys = SortKeysSpec { tokens, vocab, radix };
        let buffers = [vec![ids.clone()], vec![blank.clone(); 3]].concat();
        let [sorted, numbers, low] = self.run(&sort_keys(&keys), buffers, [1, 2, 3]);
        let mut pass = |spec: &SortPassSpec, from: [Buffer; 3]| {
            self.run(&sort_pass(spec), [from.to_vec(), vec![blank.clone(); 2]].concat(), [3, 4])
        };
        let [by_low, by_high] = keys.passes(scan);
        let [half, numbers] = pass(&by_low, [low, sorted, numbers]);
        pass(&by_high, [half.clone(), half, numbers])
    }
}
