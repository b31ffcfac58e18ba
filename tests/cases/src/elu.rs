//! Linear attention with elu features, with operands and the tolerance of its results.

use linc_tile::Elem;
use linc_tile::interp::Buffer;
use linc_tile::library::attention::elu::{
    EluAttentionSpec, elu_attention_backward, elu_attention_forward, elu_decode,
};
use linc_tile::library::attention::{HeadShape, HeadStrides};

use crate::library::{ELEMS, LEN, shapes, tolerance};
use crate::operands::Operands;
use crate::{Case, Random, inputs, reference};

/// A sequence forward and backward, and a token that is the first or has others before it.
pub fn elu_attention() -> Vec<Case> {
    let mut cases = vec![];
    for (seed, shape) in shapes().into_iter().enumerate() {
        for elem in ELEMS {
            let Operands { query: q, key: k, .. } = Operands::contiguous(elem, shape);
            let spec = |strides: &[HeadStrides]| EluAttentionSpec {
                elem,
                shape,
                chunk: 16,
                strides: strides.to_vec(),
            };
            let kernel = elu_attention_forward(&spec(&[q, k, k, q]));
            let operands = inputs(&kernel, LEN, 5, seed as u64 + 5);
            cases.push(Case::new(&kernel, &operands, tolerance(elem)));
            let saved = reference(&kernel, &operands);
            let kernel = elu_attention_backward(&spec(&[q, k, k, q, q, q, k, k]));
            let mut buffers = inputs(&kernel, LEN, 5, 14);
            buffers[..saved.len()].clone_from_slice(&saved);
            cases.push(Case::new(&kernel, &buffers, tolerance(elem)));

            let one = HeadShape { seq: 1, ..shape };
            let Operands { query: q, key: k, .. } = Operands::contiguous(elem, one);
            let kernel = elu_decode(&EluAttentionSpec { shape: one, chunk: 1, ..spec(&[q, k, k, q]) });
            for pos in [0, 7] {
                let mut buffers = inputs(&kernel, LEN, 5, 15);
                // Sums of features, which are positive.
                let mut random = Random::new(16);
                let sums: Vec<f64> = (0..LEN).map(|_| 1.0 + random.normal().abs()).collect();
                buffers[3] = Buffer::from_f64(Elem::F32, &sums).expect("floats");
                buffers[5] = Buffer::I32(vec![pos; shape.batch]);
                buffers[6] = Buffer::I32((0..shape.batch as i32).rev().collect());
                cases.push(Case::new(&kernel, &buffers, tolerance(elem)));
            }
        }
    }
    cases
}
