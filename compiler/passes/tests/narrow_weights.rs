//! Which parameters a program that does not train stores in the narrow type.

use crate::common;

use std::collections::BTreeSet;

use crate::common::{options, tiny_llama};
use linc_ir::{DType, Graph, Op};
use linc_passes::attention::decode::Room;
use linc_passes::memory::PersistentLayout;
use linc_passes::pipeline::{self, Entry, PipelineOptions};
use linc_passes::precision::{Precision, read_narrow};

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| name.to_string()).collect()
}

fn narrow(text: &str) -> BTreeSet<String> {
    let graph = linc_ir::parse(text).unwrap_or_else(|e| panic!("{e}"));
    read_narrow(&graph).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn what_only_products_and_the_embedding_read_is_narrow() {
    let found = narrow(
        r#"graph "g" {
  %0: i32[4] = input() {name = "tokens"}
  %1: f32[6, 8] = param() {name = "tied", init = zeros}
  %2: f32[8] = param() {name = "gain", init = ones}
  %3: f32[8, 8] = param() {name = "both", init = zeros}
  %4: f32[8, 8] = param() {name = "weight", init = zeros}
  %5: f32[3, 5] = param() {name = "odd", init = zeros}
  %6: f32[6, 6] = param() {name = "bigram", init = zeros}
  %7: f32[4, 8] = embedding(%1, %0)
  %8: f32[4, 8] = rms_norm(%7, %2) {eps = 1e-5}
  %9: f32[4, 8] = matmul(%8, %3) {trans_a = false, trans_b = true}
  %10: f32[8, 8] = mul(%3, %3)
  %11: f32[4, 8] = matmul(%9, %10) {trans_a = false, trans_b = true}
  %12: f32[8, 8] = transpose(%4) {perm = [1, 0]}
  %13: f32[4, 8] = matmul(%11, %12) {trans_a = false, trans_b = true}
  %14: f32[4, 6] = matmul(%13, %1) {trans_a = false, trans_b = true}
  %15: f32[4, 6] = embedding(%6, %0)
  %16: f32[4, 6] = add(%14, %15)
  %17: f32[4, 5] = slice(%13) {axis = 1, start = 0, len = 5}
  %18: f32[4, 3] = matmul(%17, %5) {trans_a = false, trans_b = true}
  output "logits" = %16
  output "more" = %18
}
"#,
    );
    // `both` is read as it is, rows of `bigram` are logits, and 15 elements are no whole number of words.
    assert_eq!(found, names(&["tied", "weight"]));
}

#[test]
fn they_take_half_the_memory_and_only_where_nothing_trains() {
    let lowered = |entry: Entry, narrow_weights: bool| {
        let mut graph = tiny_llama(1, 4);
        let mut layout = PersistentLayout::default();
        let options = PipelineOptions { narrow_weights, precision: Precision::Bfloat16, ..options("LS") };
        let result = pipeline::run(&mut graph, &entry, &options, &mut layout, &mut |_, _| {});
        result.map(|_| (graph, layout.bytes))
    };
    let types = |graph: &Graph, wanted: DType| -> usize {
        let typed = |op: &Op| matches!(op, Op::Param { ty, .. } if ty.dtype == wanted);
        graph.nodes().filter(|id| typed(graph.op(*id))).count()
    };
    let decode = || Entry::Decode(Room::of_one(4));
    let (wide, wide_bytes) = lowered(decode(), false).expect("a graph");
    let (half, half_bytes) = lowered(decode(), true).expect("a graph");
    assert_eq!(types(&wide, DType::Bf16), 0);
    // Seven weights a layer, embedding and head; two gains a layer and one at the end.
    assert_eq!((types(&half, DType::Bf16), types(&half, DType::F32)), (16, 5));
    assert!(half_bytes < wide_bytes * 2 / 3, "{half_bytes} of {wide_bytes}");
    let error = lowered(Entry::Accumulate, true).expect_err("it trains");
    assert!(error.to_string().contains("float32"), "{error}");
}

#[test]
fn a_prompt_in_blocks_needs_keys_that_can_be_hidden() {
    let mut graph = tiny_llama(1, 4);
    let mut options = options("LS");
    options.attention.efficient.temperature = 1e-3;
    let entry = Entry::Prefill { room: Room::of_one(8), tokens: 4 };
    let run = |graph: &mut Graph, options: &PipelineOptions| {
        pipeline::run(graph, &entry, options, &mut PersistentLayout::default(), &mut |_, _| {})
    };
    let error = run(&mut graph, &options).expect_err("too small a temperature");
    assert!(error.to_string().contains("0.001"), "{error}");
    options.kinds = common::options("SS").kinds;
    run(&mut tiny_llama(1, 4), &options).expect("no linear layer");
}
