//! Parameters, moments and gradients each lie in one range, whatever their sizes, and one update covers them all.

use crate::common;

use linc_ir::{Graph, NodeId, Op, Value};
use linc_passes::memory::{Kind, MemoryPlan, PersistentLayout, StorageAssignment};
use linc_passes::optimizer::OptimizerOptions;
use linc_passes::pipeline::{self, Entry, OPTIONAL, PipelineOptions};
use linc_passes::precision::Precision;
use linc_passes::setting::PassSetting;

fn lowered(
    mut graph: Graph,
    entry: &Entry,
    options: &PipelineOptions,
    layout: &mut PersistentLayout,
) -> (Graph, Planned) {
    let assignment =
        pipeline::run(&mut graph, entry, options, layout, &mut |_, _| {}).expect("an assignment");
    let memory = common::allocated(&graph, &assignment, layout);
    (graph, Planned { assignment, memory })
}

struct Planned {
    assignment: StorageAssignment,
    memory: MemoryPlan,
}

fn training() -> Entry {
    Entry::Train(OptimizerOptions::default())
}

/// Odd sizes; `a` and `b` have one and the same gradient, `w` and `v` read the same values.
fn odd() -> Graph {
    linc_ir::parse(
        r#"graph "odd" {
  %0: i32[1, 5] = input() {name = "tokens"}
  %1: f32[3] = param() {name = "a", init = zeros}
  %2: f32[7, 3] = param() {name = "w", init = zeros}
  %3: f32[7, 3] = param() {name = "table", init = zeros}
  %4: f32[3] = param() {name = "b", init = zeros}
  %5: f32[7, 3] = param() {name = "v", init = zeros}
  %6: f32[1, 5, 3] = embedding(%3, %0)
  %7: f32[5, 3] = reshape(%6)
  %8: f32[5, 3] = broadcast(%1)
  %9: f32[5, 3] = broadcast(%4)
  %10: f32[5, 3] = add(%7, %8)
  %11: f32[5, 3] = add(%10, %9)
  %12: f32[5, 7] = matmul(%11, %2) {trans_a = false, trans_b = true}
  %13: f32[5, 7] = matmul(%11, %5) {trans_a = false, trans_b = true}
  %14: f32[5, 7] = silu(%12)
  %15: f32[5, 7] = mul(%14, %13)
  output "logits" = %15
}
"#,
    )
    .unwrap_or_else(|e| panic!("{e}"))
}

fn the_update(graph: &Graph) -> NodeId {
    let updates: Vec<NodeId> = graph.nodes().filter(|id| matches!(graph.op(*id), Op::Update(_))).collect();
    assert_eq!(updates.len(), 1, "updates");
    updates[0]
}

/// Where a value begins in its part of the arena.
fn address(graph: &Graph, plan: &Planned, value: Value) -> (bool, u64) {
    let place = &plan.assignment.storage[&value];
    let allocation = &plan.memory.allocations[&place.root];
    let within = place.layout.offset * graph.ty(value).dtype.bytes();
    (allocation.persistent, allocation.offset + within as u64)
}

/// Checks that no operand of the update is copied together, and that parts lie where the whole has them.
fn check_flat(graph: &Graph, plan: &Planned, layout: &PersistentLayout) {
    let update = the_update(graph);
    for whole in &graph.operands(update)[..4] {
        assert!(matches!(graph.op(whole.node), Op::Concat { axis: 0 }));
        let (persistent, mut at) = address(graph, plan, *whole);
        for part in graph.operands(whole.node) {
            assert_eq!(address(graph, plan, part), (persistent, at), "{part} of {whole}");
            at += graph.ty(part).bytes() as u64;
        }
        let root = plan.assignment.storage[whole].root;
        assert!(
            graph.op(root.node).leaf_name().is_some() || plan.assignment.is_in_place(whole.node),
            "{whole}"
        );
    }
    for (leaf, value) in &graph.updates {
        assert_eq!(plan.assignment.storage[value], plan.assignment.storage[&Value { node: *leaf, port: 0 }]);
        let name = graph.op(*leaf).leaf_name().expect("a name");
        let at = address(graph, plan, *value);
        assert_eq!(at, (true, layout.offset(name).expect("an offset")), "{name}");
    }
}

#[test]
fn each_family_is_one_range() {
    for precision in Precision::ALL.iter().copied() {
        for graph in [common::tiny_llama(2, 9), odd()] {
            let options = PipelineOptions { precision, ..common::options("LS") };
            let mut layout = PersistentLayout::default();
            let (graph, plan) = lowered(graph, &training(), &options, &mut layout);
            check_flat(&graph, &plan, &layout);
            let numel = |v: Value| graph.ty(v).shape.numel() as u64;
            let update = the_update(&graph);
            let all = numel(graph.operands(update)[1]);
            let bytes = |kind| {
                let last = plan.assignment.order.len() - 1;
                let live = plan.memory.allocations.values().filter(|a| a.kind == kind && a.live.1 == last);
                // But for the numbers that scale an f16 loss.
                let live = live.filter(|a| a.bytes > 4);
                live.map(|a| a.bytes).sum::<u64>()
            };
            let masters =
                plan.memory.allocations.values().filter(|a| a.kind == Kind::Parameter && a.persistent);
            assert_eq!(masters.map(|a| a.bytes).sum::<u64>(), 4 * all);
            assert_eq!(bytes(Kind::State), 8 * all);
        }
    }
}

#[test]
fn accumulated_gradients_are_one_range_too() {
    for graph in [|| common::tiny_llama(2, 9), odd] {
        let options = common::options("LS");
        let mut layout = PersistentLayout::default();
        lowered(graph(), &Entry::Accumulate, &options, &mut layout);
        let update = Entry::Update(OptimizerOptions::default());
        let (graph, plan) = lowered(graph(), &update, &options, &mut layout);
        check_flat(&graph, &plan, &layout);
        assert_eq!(plan.assignment.storage[&graph.operands(the_update(&graph))[1]].layout.offset, 0);
    }
}

#[test]
fn a_gradient_of_two_parameters_is_copied_for_each() {
    let (graph, plan) = lowered(odd(), &training(), &common::options(""), &mut PersistentLayout::default());
    let gradients = graph.operands(graph.operands(the_update(&graph))[1].node);
    let roots: Vec<Value> = gradients.iter().map(|g| plan.assignment.storage[g].root).collect();
    let copies = roots.iter().filter(|root| matches!(graph.op(root.node), Op::Concat { .. })).count();
    assert_eq!(copies, 2, "of the gradient that a and b share");
}

#[test]
fn what_arises_early_leaves_room_for_what_dies_before_the_rest() {
    let (graph, plan) = lowered(
        common::tiny_llama(2, 9),
        &training(),
        &common::options("LS"),
        &mut PersistentLayout::default(),
    );
    let whole = graph.operands(the_update(&graph))[1];
    let range = &plan.memory.allocations[&whole];
    let inside = |a: &&linc_passes::memory::Allocation| {
        !a.persistent && a.kind != Kind::Gradient && a.offset < range.offset + range.bytes
    };
    assert!(
        plan.memory.allocations.values().filter(inside).count() > 10,
        "activations lie where gradients will"
    );
    let begins: Vec<usize> = graph
        .operands(whole.node)
        .iter()
        .map(|part| plan.memory.allocations[&plan.assignment.storage[part].root].live.0)
        .collect();
    assert!(begins.iter().max() > begins.iter().min(), "gradients arise one by one");
}

#[test]
fn places_of_parameters_do_not_depend_on_the_passes_or_the_program() {
    let layout = |entry: &Entry, disabled: &[&str], precision| {
        let mut options = PipelineOptions { precision, ..common::options("LS") };
        options.disabled = disabled.iter().map(|pass| pass.to_string()).collect();
        let mut layout = PersistentLayout::default();
        let (graph, _) = lowered(common::tiny_llama(2, 9), entry, &options, &mut layout);
        let names = graph.nodes().filter(|id| matches!(graph.op(*id), Op::Param { .. }));
        let names = names.filter_map(|id| graph.op(id).leaf_name().map(str::to_string));
        let mut offsets: Vec<(u64, String)> =
            names.map(|name| (layout.offset(&name).expect("an offset"), name)).collect();
        offsets.sort();
        offsets
    };
    let expected = layout(&training(), &[], Precision::Float32);
    let name = |i: usize| expected[i].1.as_str();
    let wq = expected.iter().position(|(_, name)| name.contains("layers.1.attention.wq")).expect("wq");
    assert!(name(wq + 1).contains("layers.1.attention.wk") && name(wq + 2).contains("layers.1.attention.wv"));
    assert_eq!(layout(&training(), &OPTIONAL, Precision::Float32), expected);
    assert_eq!(layout(&training(), &["merge_matmuls"], Precision::Bfloat16), expected);
    assert_eq!(layout(&Entry::Eval, &[], Precision::Float32), expected);
}
