//! Embedding and its gradient, and the sort of tokens that it rests on.

use linc_tile::Elem;
use linc_tile::library::embedding::{
    EmbeddingGradSpec, EmbeddingSpec, SortedEmbeddingGradSpec, embedding, embedding_grad,
    embedding_grad_sorted,
};
use linc_tile::library::sort::{
    SortKeysSpec, SortPassSpec, SortedRangesSpec, sort_keys, sort_pass, sorted_ranges,
};

use super::harness::{
    Data, SENTINEL, assert_close, assert_equal, floats, ints, random, random_ids, round, run,
};

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
        let mut expected = vec![0.0; vocab * d];
        expected[4 * d..5 * d].copy_from_slice(&dy[..d]);
        expected[..d].copy_from_slice(&dy[3 * d..4 * d]);
        expected[2 * d..3 * d].copy_from_slice(&dy[6 * d..7 * d]);
        for block in [(2, 512, 3), (2, 512, 1)] {
            assert_equal(&sorted_gradient(&ids, &dy, (vocab, d), Elem::F32, block), &expected, "sorted");
        }
        assert_equal(&gradient(&ids, &dy, (vocab, d), Elem::F32, ((2, 512), 4)), &expected, "not sorted");
    }
}

/// The gradient in one kernel, for a block of rows and columns and a scan.
fn gradient(
    ids: &[i32],
    dy: &[f32],
    (vocab, d): (usize, usize),
    elem: Elem,
    (block, scan): ((usize, usize), usize),
) -> Vec<f32> {
    let spec = EmbeddingGradSpec { tokens: ids.len(), d, vocab, dy: elem, block, scan };
    let args = vec![Data::i32(ids), Data::of(elem, dy), Data::f32(&vec![SENTINEL; vocab * d])];
    floats(&run(&embedding_grad(&spec), args)[2])
}

/// The gradient by a sort, for blocks of rows and columns and a batch.
fn sorted_gradient(
    ids: &[i32],
    dy: &[f32],
    (vocab, d): (usize, usize),
    elem: Elem,
    (rows, cols, batch): (usize, usize, usize),
) -> Vec<f32> {
    let tokens = ids.len();
    let spec = SortedEmbeddingGradSpec { tokens, d, vocab, dy: elem, block: (rows, cols), batch };
    // Digits and blocks have nothing to do with each other.
    let (keys, numbers) = sorted(ids, vocab, 7, 16);
    let ranges = ranges(&keys, vocab, rows);
    let blank = vec![SENTINEL; vocab * d];
    let args = vec![Data::i32(&keys), Data::i32(&numbers), Data::i32(&ranges), Data::of(elem, dy)];
    let out = run(&embedding_grad_sorted(&spec), [args, vec![Data::f32(&blank)]].concat());
    floats(&out[4])
}

/// Ids in order, and the tokens that have them.
fn sorted(ids: &[i32], vocab: usize, radix: usize, scan: usize) -> (Vec<i32>, Vec<i32>) {
    let tokens = ids.len();
    let blank = || Data::i32(&vec![-9; tokens]);
    let keys = SortKeysSpec { tokens, vocab, radix };
    let out = run(&sort_keys(&keys), vec![Data::i32(ids), blank(), blank(), blank()]);
    let [keys_in, numbers, low] = [1, 2, 3].map(|k| out[k].clone());
    let pass = |spec: &SortPassSpec, by: &Data, keys: &Data, numbers: &Data| {
        let out = run(&sort_pass(spec), vec![by.clone(), keys.clone(), numbers.clone(), blank(), blank()]);
        (out[3].clone(), out[4].clone())
    };
    let [by_low, by_high] = keys.passes(scan);
    let (half, numbers) = pass(&by_low, &low, &keys_in, &numbers);
    let (sorted, numbers) = pass(&by_high, &half, &half, &numbers);
    (ints(&sorted), ints(&numbers))
}

fn ranges(keys: &[i32], vocab: usize, block: usize) -> Vec<i32> {
    let spec = SortedRangesSpec { tokens: keys.len(), vocab, block };
    let blocks = spec.blocks();
    ints(&run(&sorted_ranges(&spec), vec![Data::i32(keys), Data::i32(&vec![0; 2 * blocks])])[1])
}

#[test]
fn tokens_are_sorted_by_their_ids() {
    for (tokens, _, vocab) in SHAPES {
        for (radix, scan) in [(3, 16), (8, 4096), (40, 7)] {
            // Some are out of range.
            let ids: Vec<i32> = random_ids(tokens, vocab + 2, 5).into_iter().map(|id| id - 1).collect();
            let key = |id: i32| match usize::try_from(id) {
                Ok(id) if id < vocab => id as i32,
                _ => vocab.next_multiple_of(radix) as i32,
            };
            let mut expected: Vec<(i32, i32)> =
                ids.iter().enumerate().map(|(token, id)| (key(*id), token as i32)).collect();
            expected.sort_unstable();
            let (keys, numbers) = sorted(&ids, vocab, radix, scan);
            let found: Vec<(i32, i32)> = keys.iter().copied().zip(numbers).collect();
            assert_eq!(found, expected, "{tokens} tokens of {vocab}, radix {radix}");

            for block in [1, 8, radix] {
                let blocks = vocab.div_ceil(block);
                let found = ranges(&keys, vocab, block);
                for b in 0..blocks {
                    let own = |key: &i32| (b * block..(b + 1) * block).contains(&(*key as usize));
                    let own = |key: &i32| own(key) && (*key as usize) < vocab;
                    let first = keys.iter().position(own).unwrap_or(0);
                    let count = keys.iter().filter(|key| own(key)).count();
                    let end = if count == 0 { 0 } else { first + count };
                    assert_eq!((found[b], found[blocks + b]), (first as i32, end as i32), "block {b}");
                }
            }
        }
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
            let about = |how: &str| format!("{how}: {tokens}x{d} of {vocab}, {elem:?}");
            for block in [((8, 2048), 1024), ((33, 512), 16)] {
                let out = gradient(&ids, &dy, (vocab, d), elem, block);
                assert_close(&out, &expected, 1e-4, 1e-5, &about("not sorted"));
            }
            for block in [(8, 2048, 4), (33, 512, 1), (1, 64, 9)] {
                let out = sorted_gradient(&ids, &dy, (vocab, d), elem, block);
                assert_close(&out, &expected, 1e-4, 1e-5, &about("sorted"));
            }
        }
    }
}
