//! Decoding with caches and recurrent states gives, token by token, the logits of the whole sequence, also behind a prompt
//! that came in blocks: the compiled programs side by side in one arena, as training and `linc generate` run them. What
//! cannot be decoded is refused with its place.

use linc_device::cpu::{Cpu, CpuOptions};
use linc_driver::{
    Arch, AttentionKind, BatchShape, Entry, Model, Options, PersistentLayout, Placement, Precision, Room,
    Source, Target, compile, decode_support, names,
};
use linc_exec::Executor;
use linc_plan::{DType, Role};
use linc_tests::models;
use linc_tests::random::{Architecture, Switches, architecture};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// More than one chunk of the linear layers, and more than one part of the cached positions; whole numbers of neither.
const SEQ: usize = 270;

/// Tokens of a block of a prompt: two chunks. The prompt ends within the third block, which has one chunk without a token.
const BLOCK: usize = 128;
const PROMPT: usize = 262;

/// Programs with their numbers of tokens.
fn executor(model: &Model, options: &Options, entries: &[(Entry, usize)]) -> Executor {
    let mut layout = PersistentLayout::default();
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

/// Feeds tokens in blocks of that length to the caches and states; what follows the last one must not matter.
fn prefill(executor: &mut Executor, tokens: &[i32], length: usize) {
    prefill_into(executor, tokens, length, 0);
}

/// The same, to those of a slot.
fn prefill_into(executor: &mut Executor, tokens: &[i32], length: usize, slot: i32) {
    for (i, part) in tokens.chunks(length).enumerate() {
        let mut block = part.to_vec();
        block.resize(length, 1);
        let bytes: Vec<u8> = block.iter().flat_map(|token| token.to_le_bytes()).collect();
        executor.write_input(0, names::TOKENS, &bytes).unwrap_or_else(|e| panic!("{e}"));
        let position = i32::try_from(i * length).expect("a short sequence");
        executor.write_input(0, names::POSITION, &position.to_le_bytes()).unwrap_or_else(|e| panic!("{e}"));
        executor.write_input(0, names::SLOT, &slot.to_le_bytes()).unwrap_or_else(|e| panic!("{e}"));
        if executor.plan(0).binding(Role::Input, names::POSITIONS).is_some() {
            let mut positions: Vec<i32> = (position..).take(part.len()).collect();
            positions.resize(length, 0);
            let bytes: Vec<u8> = positions.iter().flat_map(|x| x.to_le_bytes()).collect();
            executor.write_input(0, names::POSITIONS, &bytes).unwrap_or_else(|e| panic!("{e}"));
        }
        if executor.plan(0).binding(Role::Input, names::TOKEN_MASK).is_some() {
            let mut mask = vec![1.0_f32; part.len()];
            mask.resize(length, 0.0);
            let bytes: Vec<u8> = mask.iter().flat_map(|x| x.to_le_bytes()).collect();
            executor.write_input(0, names::TOKEN_MASK, &bytes).unwrap_or_else(|e| panic!("{e}"));
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
        executor.write_input(1, names::SLOT, &[0; 4]).unwrap_or_else(|e| panic!("{e}"));
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

/// The kind that takes a prompt token by token, beside one that takes blocks: such a model has no program for them.
#[test]
fn attention_with_elu_features_decodes() {
    let kinds =
        vec![AttentionKind::Elu, AttentionKind::Softmax, AttentionKind::Elu, AttentionKind::Efficient];
    let (config, text) = (models::source("llama3_nano.toml"), models::source("llama3.linc"));
    let (layers, shape) = (kinds.len() as f64, BatchShape { batch: 1, seq: 16 });
    let model = Model::with_kinds(&config, &text, &[("n_layers".into(), layers)], kinds, shape)
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((model.layer_map(), model.share_text()), ("LSLL".into(), "0.75".into()));
    assert_eq!(linc_driver::prompt_blocks(&model, Target::Cpu, SEQ), None);
    for (precision, tolerance) in [(Precision::Float32, 1e-4), (Precision::Bfloat16, 3e-2)] {
        let options = Options { precision, ..Options::new(1, 1) };
        let programs = [(Entry::Forward, SEQ), (Entry::Decode(Room::of_one(SEQ)), 1)];
        let mut executor = executor(&model, &options, &programs);
        let vocab = model.sizes.vocab_size;
        let tokens: Vec<i32> = (0..SEQ).map(|i| ((i * i * 31 + 7 * i + 3) % vocab) as i32).collect();
        let whole = forward(&mut executor, &tokens);
        let scale = whole.iter().fold(1f32, |m, x| m.max(x.abs()));
        for round in 0..2 {
            let single = decode(&mut executor, &tokens, 0);
            assert_eq!(whole.len(), single.len());
            let worst = whole.iter().zip(&single).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= tolerance * scale, "{precision:?}, round {round}: {worst:e} of {scale}");
        }
    }
}

fn same_logits(precision: Precision, tolerance: f32) {
    for ratio in ["0", "0.5", "1"] {
        let model = models::flavor("nano", ratio);
        let whole = (Entry::Forward, SEQ);
        let options = Options { precision, ..Options::new(1, 1) };
        let mut one = executor(&model, &options, &[whole, (Entry::Decode(Room::of_one(SEQ)), 1)]);
        let context = SEQ.next_multiple_of(BLOCK);
        let programs = [
            (Entry::Prefill { room: Room::of_one(context), tokens: BLOCK }, 1),
            (Entry::Decode(Room::of_one(context)), 1),
        ];
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
                prefill(blocks, &tokens[..PROMPT], BLOCK);
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

/// Three sequences at places of their own, each in the slot of its number from the end, beside their whole sequences.
#[test]
fn sequences_at_different_positions_share_a_step() {
    for (ratio, precision, tolerance) in [
        ("0", Precision::Float32, 1e-4),
        ("0.5", Precision::Float32, 1e-4),
        ("0.5", Precision::Bfloat16, 3e-2),
        ("1", Precision::Float16, 4e-3),
    ] {
        let (model, context) = (models::flavor("nano", ratio), SEQ.next_multiple_of(BLOCK));
        let (lengths, steps, slots) = ([PROMPT, 1, 140], 6, 5);
        let options = Options { precision, ..Options::new(1, 1) };
        let mut whole = executor(&model, &options, &[(Entry::Forward, SEQ)]);
        let vocab = model.sizes.vocab_size;
        let text = |row: usize| -> Vec<i32> {
            (0..SEQ).map(|i| ((i * i * (31 + row) + 7 * i + 3) % vocab) as i32).collect()
        };
        let texts = [text(0), text(1), text(2)];
        let expected = [0, 1, 2].map(|row| forward(&mut whole, &texts[row]));
        for target in [Target::Cpu, Target::Cuda(Arch::Sm80)] {
            let options = Options { target, ..options.clone() };
            let room = Room { slots, context };
            let mut layout = PersistentLayout::default();
            let mut plan = |entry: Entry, batch: usize| {
                let options = Options { batch, ..options.clone() };
                compile(&model, &entry, &options, &mut layout).unwrap_or_else(|e| panic!("{e}")).plan
            };
            let plans = vec![plan(Entry::Prefill { room, tokens: BLOCK }, 1), plan(Entry::Decode(room), 3)];
            let cpu =
                Cpu::new(CpuOptions { threads: Some(2), level: None }).unwrap_or_else(|e| panic!("{e}"));
            let mut x = Executor::new(Box::new(cpu), plans).unwrap_or_else(|e| panic!("{e}"));
            x.initialize(3).unwrap_or_else(|e| panic!("{e}"));
            let slot = |row: usize| (slots - 1 - row) as i32;
            for (row, length) in lengths.into_iter().enumerate() {
                prefill_into(&mut x, &texts[row][..length], BLOCK, slot(row));
            }
            let numbers = |of: &dyn Fn(usize) -> i32| -> Vec<u8> {
                (0..3).flat_map(|row| of(row).to_le_bytes()).collect()
            };
            for step in 0..steps {
                let position = |row: usize| lengths[row] + step;
                for (name, bytes) in [
                    (names::TOKENS, numbers(&|row| texts[row][position(row)])),
                    (names::POSITION, numbers(&|row| position(row) as i32)),
                    (names::SLOT, numbers(&slot)),
                ] {
                    x.write_input(1, name, &bytes).unwrap_or_else(|e| panic!("{e}"));
                }
                x.run(1).unwrap_or_else(|e| panic!("{e}"));
                let logits = x.output(1, names::LOGITS).unwrap_or_else(|e| panic!("{e}"));
                for (row, found) in logits.chunks(vocab).enumerate() {
                    let whole = &expected[row];
                    let scale = whole.iter().fold(1f32, |m, x| m.max(x.abs()));
                    let wanted = &whole[position(row) * vocab..][..vocab];
                    let worst = wanted.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(
                        worst <= tolerance * scale,
                        "ratio {ratio}, {precision:?}, {target:?}, sequence {row}, step {step}: {worst:e} of {scale}"
                    );
                }
            }
        }
    }
}

#[test]
fn weights_in_the_narrow_type_give_the_same_bits_in_less_memory() {
    let model = models::flavor("nano", "0.5");
    let context = SEQ.next_multiple_of(BLOCK);
    let programs = [
        (Entry::Prefill { room: Room::of_one(context), tokens: BLOCK }, 1),
        (Entry::Decode(Room::of_one(context)), 1),
    ];
    let tokens: Vec<i32> = (0..SEQ).map(|i| ((i * i * 17 + 3) % model.sizes.vocab_size) as i32).collect();
    for precision in [Precision::Bfloat16, Precision::Float16] {
        let [masters, narrow] = [false, true].map(|narrow_weights| {
            let options = Options { precision, narrow_weights, ..Options::new(1, 1) };
            let mut executor = executor(&model, &options, &programs);
            // As a checkpoint has them.
            let weights: Vec<_> = executor.tensors(|role| *role == Role::Param);
            for (seed, param) in weights.iter().enumerate() {
                let count: usize = param.shape.iter().product();
                let value = |i: usize| ((i * 7919 + seed * 31) % 1009) as f32 / 5045.0 - 0.1;
                let bytes: Vec<u8> = (0..count).flat_map(|i| value(i).to_le_bytes()).collect();
                executor.write_tensor(&param.name, &bytes).unwrap_or_else(|e| panic!("{e}"));
            }
            prefill(&mut executor, &tokens[..PROMPT], BLOCK);
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

/// Head sizes that the attention kernels take.
const KERNELS: &[usize] = &[8, 16];

/// Weights of a size at which no layer vanishes beside another, the same in every executor.
fn draw_weights(executor: &mut Executor) {
    let weights: Vec<_> = executor.tensors(|role| *role == Role::Param);
    for (seed, param) in weights.iter().enumerate() {
        let count: usize = param.shape.iter().product();
        let value = |i: usize| ((i * 7919 + seed * 631) % 1009) as f32 / 1009.0 - 0.45;
        let bytes: Vec<u8> = (0..count).flat_map(|i| value(i).to_le_bytes()).collect();
        executor.write_tensor(&param.name, &bytes).unwrap_or_else(|e| panic!("{e}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        rng_seed: RngSeed::Fixed(20_261_130),
        failure_persistence: None,
        max_shrink_iters: 50,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_models_decode_as_they_are_trained(case in architecture(KERNELS), narrow_weights in any::<bool>()) {
        let case = Architecture {
            with: Switches { causal: true, ..case.with },
            shape: (case.shape.0, case.shape.1.max(2)),
            ..case
        };
        let (model, seq) = (case.model(), case.shape.1);
        let options = Options { disabled: case.disabled.clone(), ..Options::new(1, seq) };
        let context = seq.next_multiple_of(2);
        // Rotary tables are shared, so the caches are as long as the sequences.
        let programs = [(Entry::Forward, seq), (Entry::Decode(Room::of_one(seq)), seq)];
        let mut one = executor(&model, &options, &programs);
        let programs = [(Entry::Prefill { room: Room::of_one(context), tokens: 2 }, seq), (Entry::Decode(Room::of_one(context)), seq)];
        let mut blocks = executor(&model, &Options { narrow_weights, ..options }, &programs);
        draw_weights(&mut one);
        draw_weights(&mut blocks);
        let tokens: Vec<i32> = (0..seq).map(|i| ((i * i + 3 * i + 1) % case.vocab) as i32).collect();
        let whole = forward(&mut one, &tokens);
        let scale = whole.iter().fold(0f32, |m, x| m.max(x.abs()));
        let close = |found: &[f32], from: usize, what: &str| {
            for (i, (a, b)) in whole[from * case.vocab..].iter().zip(found).enumerate() {
                let position = from + i / case.vocab;
                prop_assert!((a - b).abs() <= 2e-4 * scale, "{what}, position {position}: {a} and {b}\n{}", case.linc());
            }
            prop_assert_eq!(found.len(), (seq - from) * case.vocab);
            Ok(())
        };
        close(&decode(&mut one, &tokens, 0), 0, "token by token")?;
        // A full last block, and one that is not.
        for length in [seq - 1, seq / 2] {
            prefill(&mut blocks, &tokens[..length], 2);
            close(&decode(&mut blocks, &tokens, length), length, "after a prompt")?;
        }
    }
}

/// A model of two layers whose embeddings are `x`, `[2, 8, 16]`, until `body` makes something else of them.
fn with_body(body: &str) -> Model {
    let text = format!(
        "model m(tokens: [batch, seq] int) {{\n  param e [vocab_size, dim] init normal(1.0)\n  x = embedding(tokens, e)\n{body}\n  logits = x @ e.T\n}}\n"
    );
    let toml = "name = \"m\"\nflavor = \"s\"\narchitecture = \"a.linc\"\ndim = 16\nn_layers = 2\nn_heads = 2\nvocab_size = 11\n";
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let ratio = Some("0.5".parse().unwrap_or_else(|e| panic!("{e}")));
    let shape = BatchShape { batch: 2, seq: 8 };
    Model::new(&source("m.toml", toml), &source("a.linc", &text), &[], ratio, Placement::Uniform, shape)
        .unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn what_mixes_positions_outside_of_attention_trains_and_cannot_generate() {
    let attention = "for _l in layers {\n    h = split_heads(x, n_heads)\n    x = x + merge_heads(attention(h, h, h, causal = false))\n  }";
    for (body, place, what) in [
        ("  x = x + slice(x, 0, 1, 1)", "4:11", "picks positions"),
        ("  x = x + concat(slice(x, 0, 1, 1) * 0, slice(x, 0, seq - 1, 1), 1)", "4:18", "picks positions"),
        ("  x = x + transpose(sum(transpose(x, 1, 2)), 1, 2)", "4:21", "adds up positions"),
        (
            "  param w [seq, seq] init normal(1.0)\n  x = x + transpose(transpose(x, 1, 2) @ w, 1, 2)",
            "5:21",
            "products over positions",
        ),
        (
            "  y = reshape(x, [batch, seq // 2, 2 * dim])\n  x = x + reshape(silu(y), [batch, seq, dim])",
            "4:7",
            "tears apart the positions",
        ),
        (
            "  param w [seq] init ones\n  x = x + transpose(rms_norm(transpose(x, 1, 2), w, 0.1), 1, 2)",
            "5:21",
            "norm over positions",
        ),
        ("  x = x + embedding(tokens, reshape(x, [batch * seq, dim]))", "4:11", "looks up rows"),
        ("  x = x + slice(x, 0, 1, 0)", "4:11", "picks sequences of the batch"),
        ("  param w [batch, 1, dim] init ones\n  x = x + w", "4:", "numbers for each of the sequences"),
        (attention, "6:25", "not causal"),
    ] {
        let model = with_body(body);
        let error = decode_support(&model).expect_err(body).to_string();
        assert!(error.contains(&format!("a.linc:{place}")) && error.contains(what), "{body}\n{error}");
        assert!(error.contains("help: "), "{error}");
        for entry in [Entry::Decode(Room::of_one(8)), Entry::Prefill { room: Room::of_one(8), tokens: 4 }] {
            let refused = compile(&model, &entry, &Options::new(1, 8), &mut PersistentLayout::default());
            assert_eq!(refused.expect_err(body).to_string(), error);
        }
        models::compiled(&model, &models::training(), &Options::new(2, 8));
    }
}

#[test]
fn what_does_not_generates_and_is_as_long_as_its_positions() {
    let attention = "for _l in layers {\n    h = split_heads(x, n_heads)\n    x = x + merge_heads(attention(h, h, h))\n  }";
    let positions = "param p [seq, dim] init ones\n  x = x + p";
    for (body, longest) in [
        (attention.to_string(), None),
        (format!("{positions}\n  {attention}"), Some(8)),
        // Each token by itself, in whatever shape.
        ("x = reshape(silu(reshape(x, [batch * seq * 4, dim // 4])), [batch, seq, dim])".to_string(), None),
        ("x = transpose(transpose(x, 0, 1) * 2, 0, 1) / (batch * seq)".to_string(), None),
        ("param w [dim, dim] init ones\n  x = x + mean(x @ w) * 3".to_string(), None),
        ("param p [2 * seq, dim] init ones\n  x = x * tanh(slice(p, seq, seq, 0))".to_string(), Some(8)),
    ] {
        let found = decode_support(&with_body(&body)).unwrap_or_else(|e| panic!("{body}\n{e}"));
        assert_eq!(found.longest, longest, "{body}");
    }
}
