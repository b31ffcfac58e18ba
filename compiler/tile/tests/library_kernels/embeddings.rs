//! Embedding and its gradient.

use linc_tile::Elem;
use linc_tile::library::embedding::{EmbeddingGradSpec, EmbeddingSpec, embedding, embedding_grad};

use crate::harness::{Data, SENTINEL, assert_close, assert_equal, floats, random, random_ids, round, run};

const SHAPES: [(usize, usize, usize); 10] = [
    (1, 1, 1),
    (3, 63, 5),
    (65, 65, 257),
    (257, 3, 63),
    (63, 5001, 3),
    (300, 16, 1030),
    (1500, 70, 40),
    (2049, 33, 1),
    (600, 520, 40),
    (1000, 7, 2),
];

#[test]
fn rows_are_gathered() {
    for (tokens, d, vocab) in SHAPES {
        for elem in [Elem::F32, Elem::Bf16, Elem::F16] {
            let table: Vec<f32> = random(vocab * d, 1).into_iter().map(|x| round(x, elem)).collect();
            let ids = random_ids(tokens, vocab, 2);
            let expected: Vec<f32> =
                ids.iter().flat_map(|id| table[*id as usize * d..][..d].to_vec()).collect();
            let spec = EmbeddingSpec { tokens, d, vocab, table: elem, y: elem };
            let blank = vec![SENTINEL; tokens * d];
            let args = vec![Data::of(elem, &table), Data::i32(&ids), Data::of(elem, &blank)];
            let out = run(&embedding(&spec), args);
            assert_equal(&floats(&out[2]), &expected, &format!("{spec:?}"));
        }
    }
}

#[test]
fn ids_out_of_range_touch_nothing() {
    for d in [65, 5001] {
        let (vocab, ids) = (5, [4, 5, -1, 0, i32::MAX, i32::MIN, 2]);
        let table = random(vocab * d, 1);
        let row = |id: i32| match usize::try_from(id) {
            Ok(id) if id < vocab => table[id * d..][..d].to_vec(),
            _ => vec![0.0; d],
        };
        let expected: Vec<f32> = ids.iter().flat_map(|id| row(*id)).collect();
        let spec = EmbeddingSpec { tokens: ids.len(), d, vocab, table: Elem::F32, y: Elem::F32 };
        let blank = vec![SENTINEL; ids.len() * d];
        let out = run(&embedding(&spec), vec![Data::f32(&table), Data::i32(&ids), Data::f32(&blank)]);
        assert_equal(&floats(&out[2]), &expected, "forward");

        let dy = random(ids.len() * d, 3);
        let spec = EmbeddingGradSpec { tokens: ids.len(), d, vocab, dy: Elem::F32, block: (2, 512), scan: 4 };
        let blank = vec![SENTINEL; vocab * d];
        let out = run(&embedding_grad(&spec), vec![Data::i32(&ids), Data::f32(&dy), Data::f32(&blank)]);
        let mut expected = vec![0.0; vocab * d];
        expected[4 * d..5 * d].copy_from_slice(&dy[..d]);
        expected[..d].copy_from_slice(&dy[3 * d..4 * d]);
        expected[2 * d..3 * d].copy_from_slice(&dy[6 * d..7 * d]);
        assert_equal(&floats(&out[2]), &expected, "gradient");
    }
}

#[test]
fn gradient_sums_every_token() {
    for (tokens, d, vocab) in SHAPES {
        for elem in [Elem::F32, Elem::Bf16, Elem::F16] {
            let ids = random_ids(tokens, vocab, 2);
            let dy: Vec<f32> = random(tokens * d, 3).into_iter().map(|x| round(x, elem)).collect();
            let mut expected = vec![0.0; vocab * d];
            for (token, id) in ids.iter().enumerate() {
                for j in 0..d {
                    expected[*id as usize * d + j] += f64::from(dy[token * d + j]);
                }
            }
            for (block, scan) in [((8, 2048), 1024), ((33, 512), 16)] {
                let spec = EmbeddingGradSpec { tokens, d, vocab, dy: elem, block, scan };
                let blank = vec![SENTINEL; vocab * d];
                let args = vec![Data::i32(&ids), Data::of(elem, &dy), Data::f32(&blank)];
                let out = run(&embedding_grad(&spec), args);
                assert_close(&floats(&out[2]), &expected, 1e-4, 1e-5, &format!("{spec:?}"));
            }
        }
    }
}
