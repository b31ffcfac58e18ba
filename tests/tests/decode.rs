//! Decoding with caches and recurrent states gives, token by token, the logits of the whole sequence, also behind a prompt
//! that came in blocks: the compiled programs side by side in one arena, as training and `linc generate` run them.

use linc_device::cpu::{Cpu, CpuOptions};
use linc_driver::plan::{DType, Role};
use linc_driver::{Arch, Entry, Layout, Model, Options, Precision, Target, compile, names};
use linc_exec::Executor;
use linc_tests::models;

/// More than one chunk of the linear layers, and more than one part of the cached positions; whole numbers of neither.
const SEQ: usize = 270;

/// Tokens of a block of a prompt: two chunks. The prompt ends within the third block, which has one chunk without a token.
const BLOCK: usize = 128;
const PROMPT: usize = 262;

/// Programs with their numbers of tokens.
fn executor(model: &Model, options: &Options, entries: &[(Entry, usize)]) -> Executor {
    let mut layout = Layout::default();
    let mut plan = |(entry, seq): &(Entry, usize)| {
        let options = Options { seq: *seq, ..options.clone() };
        compile(model, entry, &options, &mut layout).unwrap_or_else(|e| panic!("{e}")).plan
    };
    let plans = entries.iter().map(&mut plan).collect();
    let cpu = Cpu::new(CpuOptions { threads: Some(1), level: None }).unwrap_or_else(|e| panic!("{e}"));
    let mut executor = Executor::new(Box::new(cpu), plans).unwrap_or_else(|e| panic!("{e}"));
    executor.initialize(3).unwrap_or_else(|e| panic!("{e}"));
    executor
}

/// Logits `[SEQ, vocab]` of the program for whole sequences.
fn forward(executor: &mut Executor, tokens: &[i32]) -> Vec<f32> {
    let bytes: Vec<u8> = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
    executor.write_input(0, names::TOKENS, &bytes).unwrap_or_else(|e| panic!("{e}"));
    executor.run(0).unwrap_or_else(|e| panic!("{e}"));
    executor.output(0, names::LOGITS).unwrap_or_else(|e| panic!("{e}"))
}

/// Feeds tokens in blocks to the caches and states; what follows the last one must not matter.
fn prefill(executor: &mut Executor, tokens: &[i32]) {
    for (i, part) in tokens.chunks(BLOCK).enumerate() {
        let mut block = part.to_vec();
        block.resize(BLOCK, 5);
        let bytes: Vec<u8> = block.iter().flat_map(|token| token.to_le_bytes()).collect();
        executor.write_input(0, names::TOKENS, &bytes).unwrap_or_else(|e| panic!("{e}"));
        let position = i32::try_from(i * BLOCK).expect("a short sequence");
        executor.write_input(0, names::POSITION, &position.to_le_bytes()).unwrap_or_else(|e| panic!("{e}"));
        if executor.plan(0).binding(Role::Input, names::KEY_LIMIT).is_some() {
            let mut limit = vec![f32::INFINITY; part.len()];
            limit.resize(BLOCK, names::NO_KEY);
            let bytes: Vec<u8> = limit.iter().flat_map(|x| x.to_le_bytes()).collect();
            executor.write_input(0, names::KEY_LIMIT, &bytes).unwrap_or_else(|e| panic!("{e}"));
        }
        executor.run(0).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Logits one token at a time, the first at position `from`.
fn decode(executor: &mut Executor, tokens: &[i32], from: usize) -> Vec<f32> {
    let mut logits = vec![];
    for (position, token) in tokens.iter().enumerate().skip(from) {
        let position = i32::try_from(position).expect("a short sequence");
        executor.write_input(1, names::TOKENS, &token.to_le_bytes()).unwrap_or_else(|e| panic!("{e}"));
        executor.write_input(1, names::POSITION, &position.to_le_bytes()).unwrap_or_else(|e| panic!("{e}"));
        executor.run(1).unwrap_or_else(|e| panic!("{e}"));
        logits.extend(executor.output(1, names::LOGITS).unwrap_or_else(|e| panic!("{e}")));
    }
    logits
}

#[test]
fn decoding_gives_the_logits_of_the_whole_sequence_at_every_position() {
    same_logits(Precision::Float32, 1e-4);
}

#[test]
fn decoding_in_bf16_does_so_within_its_roundings() {
    same_logits(Precision::Bfloat16, 3e-2);
}

#[test]
fn decoding_in_f16_does_so_within_its_roundings() {
    same_logits(Precision::Float16, 4e-3);
}

fn same_logits(precision: Precision, tolerance: f32) {
    for ratio in ["0", "0.5", "1"] {
        let model = models::flavor("nano", ratio);
        let whole = (Entry::Forward, SEQ);
        let options = Options { precision, ..Options::new(1, 1) };
        let mut one = executor(&model, &options, &[whole, (Entry::Decode { context: SEQ }, 1)]);
        let context = SEQ.next_multiple_of(BLOCK);
        let programs = [(Entry::Prefill { context, tokens: BLOCK }, 1), (Entry::Decode { context }, 1)];
        // Chunk by chunk, and all chunks in parallel.
        let mut blocks = [Target::Cpu, Target::Cuda(Arch::Sm80)].map(|target| {
            executor(&model, &Options { target, narrow_weights: true, ..options.clone() }, &programs)
        });
        let vocab = model.sizes.vocab_size;
        let tokens: Vec<i32> = (0..SEQ).map(|i| ((i * i * 31 + 7 * i + 3) % vocab) as i32).collect();
        let whole = forward(&mut one, &tokens);
        let scale = whole.iter().fold(0f32, |m, x| m.max(x.abs()));
        assert!(scale > 0.1, "logits of size {scale} say nothing");
        // A second text starts afresh where the first one was: position 0 forgets.
        let mut single = vec![];
        for round in 0..2 {
            let close = |found: &[f32], from: usize, what: &str| {
                assert_eq!(whole.len(), found.len() + from * vocab);
                for (i, (a, b)) in whole[from * vocab..].iter().zip(found).enumerate() {
                    assert!(
                        (a - b).abs() <= tolerance * scale.max(1.0),
                        "{what}, ratio {ratio}, round {round}, position {}, token {}: {a} and {b}",
                        from + i / vocab,
                        i % vocab
                    );
                }
            };
            single = decode(&mut one, &tokens, 0);
            close(&single, 0, "token by token");
            for blocks in &mut blocks {
                prefill(blocks, &tokens[..PROMPT]);
                close(&decode(blocks, &tokens, PROMPT), PROMPT, "after a prompt");
            }
        }
        let greedy = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
        let same =
            whole.chunks(vocab).zip(single.chunks(vocab)).filter(|(a, b)| greedy(a) == greedy(b)).count();
        // Rounding may turn a close choice.
        let wanted = if precision == Precision::Float32 { SEQ } else { SEQ * 9 / 10 };
        assert!(same >= wanted, "ratio {ratio}: the most likely token is the same at {same} of {SEQ}");
    }
}

#[test]
fn weights_in_the_narrow_type_give_the_same_bits_in_less_memory() {
    let model = models::flavor("nano", "0.5");
    let context = SEQ.next_multiple_of(BLOCK);
    let programs = [(Entry::Prefill { context, tokens: BLOCK }, 1), (Entry::Decode { context }, 1)];
    let tokens: Vec<i32> = (0..SEQ).map(|i| ((i * i * 17 + 3) % model.sizes.vocab_size) as i32).collect();
    for precision in [Precision::Bfloat16, Precision::Float16] {
        let [masters, narrow] = [false, true].map(|narrow_weights| {
            let options = Options { precision, narrow_weights, ..Options::new(1, 1) };
            let mut executor = executor(&model, &options, &programs);
            // As a checkpoint has them.
            let weights: Vec<_> = executor.tensors(Role::Param);
            for (seed, param) in weights.iter().enumerate() {
                let count: usize = param.shape.iter().product();
                let value = |i: usize| ((i * 7919 + seed * 31) % 1009) as f32 / 5045.0 - 0.1;
                let bytes: Vec<u8> = (0..count).flat_map(|i| value(i).to_le_bytes()).collect();
                executor.write_tensor(&param.name, &bytes).unwrap_or_else(|e| panic!("{e}"));
            }
            prefill(&mut executor, &tokens[..PROMPT]);
            let logits = decode(&mut executor, &tokens, PROMPT);
            (executor.arena_bytes(), weights, logits)
        });
        assert!(masters.2.iter().any(|x| x.abs() > 0.1));
        assert_eq!(masters.2, narrow.2, "{precision:?}");
        let params = model.sizes.params as u64;
        assert!(
            masters.0 - narrow.0 > params * 3,
            "{} and {} bytes of {params} parameters",
            masters.0,
            narrow.0
        );
        // Gains are read in f32.
        let wide = |name: &str| narrow.1.iter().any(|t| t.name == name && t.dtype == DType::F32);
        assert!(wide("norm.weight") && !wide("output.weight") && !wide("tok_embeddings.weight"));
    }
}
