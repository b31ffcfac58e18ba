//! One step of several ranks is one step of one process on the batches of all, bit by bit, however they share the optimizer.

use std::collections::{BTreeMap, BTreeSet};

use linc_ir::exchange::middle;
use linc_ir::interp::{Bindings, Results, Tensor, run, run_ranks};
use linc_ir::{AdamSpec, AdamWSpec, Graph, Op, ParamState, Reduction, StateRole, TensorType, UpdateOp};
use linc_ir::{ExchangeOp, Value};
use linc_passes::accumulate::{KEEP, SHARE};
use linc_passes::exchanges::{self, Reduce};
use linc_passes::loss::TARGETS;
use linc_passes::loss_scale::{LOSS_SCALE, SCALE_STATE, SKIPPED_STEPS};
use linc_passes::memory::PersistentLayout;
use linc_passes::mesh::{Mesh, MeshAxis};
use linc_passes::optimizer::{GRAD_NORM, MuonSpec, OptimizerOptions, ParamGroup, Rule};
use linc_passes::pipeline::{self, Entry, PipelineOptions};
use linc_passes::precision::Precision;
use linc_passes::{PassError, parallelize};

use crate::common;

const SEQ: usize = 9;
const ROWS: usize = 2;
const VOCAB: i32 = 13;
/// Batches of a step, over all ranks.
const BATCHES: usize = 4;

/// A way to share a step: copies of the optimizer, and parts of one.
type Degrees = (usize, usize);

fn mesh(rank: usize, (replicate, shard): Degrees) -> Mesh {
    let axes = [(MeshAxis::DataReplicate, replicate), (MeshAxis::DataShard, shard)];
    Mesh::new(rank, &axes).unwrap_or_else(|e| panic!("{e}"))
}

fn lowered(entry: &Entry, options: &PipelineOptions, mesh: Mesh) -> Result<Graph, PassError> {
    let mut graph = common::tiny_llama(ROWS, SEQ);
    let groups: Vec<BTreeSet<String>> = entry
        .optimizer()
        .map(|optimizer| optimizer.groups.iter().map(|group| group.params.clone()).collect())
        .unwrap_or_default();
    let mut layout = PersistentLayout::grouped(&groups);
    let options = PipelineOptions { mesh, ..options.clone() };
    pipeline::run(&mut graph, entry, &options, &mut layout, &mut |pass, graph| {
        linc_ir::verify(graph).unwrap_or_else(|e| panic!("after {pass}: {e}"));
    })?;
    Ok(graph)
}

fn program(entry: &Entry, options: &PipelineOptions, mesh: Mesh) -> Graph {
    lowered(entry, options, mesh).unwrap_or_else(|e| panic!("{e}"))
}

fn narrowed(bindings: &Bindings<f64>) -> Bindings<f32> {
    let tensor = |x: &Tensor<f64>| match x.ints() {
        Some(ids) => Tensor::int(x.shape.clone(), ids.to_vec()),
        None => Tensor::float(x.shape.clone(), x.doubles().iter().map(|x| *x as f32).collect()),
    };
    bindings.iter().map(|(name, x)| (name.clone(), tensor(x))).collect()
}

/// Batches with different numbers of targets, each with its share of all, and what all of them have.
struct Step {
    batches: Vec<Bindings<f32>>,
    common: Bindings<f32>,
}

impl Step {
    fn new(options: &PipelineOptions, optimizer: &OptimizerOptions) -> Step {
        let batch = program(&Entry::Accumulate, options, Mesh::default());
        let update = program(&Entry::Update(optimizer.clone()), options, Mesh::default());
        let mut batches: Vec<Bindings<f32>> = vec![narrowed(&common::bindings(&batch, VOCAB)); BATCHES];
        let mut counts = vec![];
        for (number, batch) in batches.iter_mut().enumerate() {
            let mut targets: Vec<i32> = batch[TARGETS].ints().expect("targets").to_vec();
            targets.iter_mut().for_each(|target| *target = ((*target).max(0) + number as i32) % VOCAB);
            targets[..3 * number].fill(-1);
            counts.push((targets.len() - 3 * number) as f64);
            batch.insert(TARGETS.into(), Tensor::int([targets.len()], targets));
            let tokens = batch["tokens"].ints().expect("tokens").iter();
            let tokens = tokens.map(|token| token * (number as i32 + 1) % VOCAB).collect();
            batch.insert("tokens".into(), Tensor::int([ROWS, SEQ], tokens));
            batch.insert(KEEP.into(), Tensor::scalar(0.0));
        }
        let all: f64 = counts.iter().sum();
        for (batch, count) in batches.iter_mut().zip(counts) {
            batch.insert(SHARE.into(), Tensor::scalar((count / all) as f32));
        }
        let mut shared = narrowed(&common::bindings(&update, VOCAB));
        for id in update.nodes() {
            let Op::State { name, ty, role } = update.op(id) else { continue };
            let moment = |i: usize| match role {
                StateRole::OfParam { state: ParamState::SecondMoment, .. } => 1e-3 + (i % 7) as f32 * 1e-4,
                StateRole::LossScale => 128.0,
                _ => ((i * 37 % 101) as f32 - 50.0) * 1e-3,
            };
            let values = (0..ty.shape.numel()).map(moment).collect();
            shared.insert(name.clone(), Tensor::float(ty.shape.clone(), values));
        }
        // Parameters are the same in all programs.
        let params = |id| matches!(batch.op(id), Op::Param { .. });
        for id in batch.nodes().filter(|id| params(*id)) {
            let name = batch.op(id).leaf_name().expect("a name");
            for batch in &mut batches {
                batch.insert(name.into(), shared[name].clone());
            }
        }
        for batch in &mut batches {
            batch.extend(
                shared
                    .iter()
                    .filter(|(name, _)| name.starts_with("loss_scale"))
                    .map(|(n, x)| (n.clone(), x.clone())),
            );
        }
        Step { batches, common: shared }
    }

    /// What a batch leaves in the states of gradients, on top of what is there.
    fn accumulated(&self, graph: &Graph, number: usize, before: Option<&Bindings<f32>>) -> Bindings<f32> {
        let mut bindings = self.batches[number].clone();
        if let Some(before) = before {
            bindings.extend(before.clone());
            bindings.insert(KEEP.into(), Tensor::scalar(1.0));
        }
        run(graph, &bindings).unwrap_or_else(|e| panic!("{e}")).updates.into_iter().collect()
    }

    /// One process, which adds the gradients of all batches in the order of sums over ranks.
    fn alone(
        &self,
        options: &PipelineOptions,
        optimizer: &OptimizerOptions,
        change: &Change,
    ) -> Results<f32> {
        let batch = program(&Entry::Accumulate, options, Mesh::default());
        let mut gradients: Vec<Bindings<f32>> =
            (0..BATCHES).map(|number| self.accumulated(&batch, number, None)).collect();
        change(&mut gradients[BATCHES - 1]);
        let mut bindings = self.common.clone();
        bindings.extend(tree(&gradients));
        let update = program(&Entry::Update(optimizer.clone()), options, Mesh::default());
        run(&update, &bindings).unwrap_or_else(|e| panic!("{e}"))
    }

    /// All ranks of a mesh, each with as many batches; with one each, in one program for the whole step.
    fn shared(
        &self,
        options: &PipelineOptions,
        optimizer: &OptimizerOptions,
        degrees: Degrees,
        change: Option<&Change>,
    ) -> (Vec<Graph>, Vec<Results<f32>>) {
        let ranks = degrees.0 * degrees.1;
        let each = BATCHES / ranks;
        let entry = match (each, change) {
            (1, None) => Entry::Train(optimizer.clone()),
            _ => Entry::Update(optimizer.clone()),
        };
        let graphs: Vec<Graph> =
            (0..ranks).map(|rank| program(&entry, options, mesh(rank, degrees))).collect();
        let batch = program(&Entry::Accumulate, options, mesh(0, degrees));
        let bindings: Vec<Bindings<f32>> = graphs
            .iter()
            .enumerate()
            .map(|(rank, graph)| {
                let mut bindings = self.common.clone();
                if matches!(entry, Entry::Train(_)) {
                    bindings.extend(self.batches[rank].clone());
                } else {
                    let mut gradients = None;
                    for number in rank * each..(rank + 1) * each {
                        gradients = Some(self.accumulated(&batch, number, gradients.as_ref()));
                    }
                    let mut gradients = gradients.expect("a batch at least");
                    if let Some(change) = change.filter(|_| rank == ranks - 1) {
                        change(&mut gradients);
                    }
                    bindings.extend(gradients);
                }
                take_shards(graph, &mut bindings);
                bindings
            })
            .collect();
        let results = run_ranks(&graphs, &bindings).unwrap_or_else(|e| panic!("{e}"));
        (graphs, results)
    }
}

type Change = dyn Fn(&mut Bindings<f32>);

/// Of states that a rank has a part of, that part.
fn take_shards(graph: &Graph, bindings: &mut Bindings<f32>) {
    for id in graph.nodes() {
        if let Op::State { name, ty, role } = graph.op(id)
            && let Some(start) = role.start()
        {
            let len = ty.shape.numel();
            let whole = bindings[name].floats().expect("floats")[start..start + len].to_vec();
            bindings.insert(name.clone(), Tensor::float([len], whole));
        }
    }
}

fn tree(gradients: &[Bindings<f32>]) -> Bindings<f32> {
    let [one] = gradients else {
        let (left, right) = gradients.split_at(middle(gradients.len()));
        let (left, right) = (tree(left), tree(right));
        let sum = |(name, x): (&String, &Tensor<f32>)| {
            let (x, y) = (x.floats().expect("floats"), right[name].floats().expect("floats"));
            let sum = x.iter().zip(y).map(|(x, y)| x + y).collect();
            (name.clone(), Tensor::float(left[name].shape.clone(), sum))
        };
        return left.iter().map(sum).collect();
    };
    one.clone()
}

fn bits(x: &[f32]) -> Vec<u32> {
    // Of zeros only the sign may differ: kept gradients are added to one.
    x.iter().map(|x| (x + 0.0).to_bits()).collect()
}

/// Every rank has the parameters and the outputs of one process, and the shards of its states together are those states.
fn check(what: &str, graphs: &[Graph], found: &[Results<f32>], expected: &Results<f32>) {
    let mut covered: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for (rank, (graph, found)) in graphs.iter().zip(found).enumerate() {
        for name in [GRAD_NORM, LOSS_SCALE, SKIPPED_STEPS] {
            let (found, expected) = (found.outputs.get(name), expected.outputs.get(name));
            let bits = |x: Option<&Tensor<f32>>| x.map(|x| bits(x.floats().expect("floats")));
            assert_eq!(bits(found), bits(expected), "{what}, rank {rank}: {name}");
        }
        for (leaf, _) in &graph.updates {
            let name = graph.op(*leaf).leaf_name().expect("a name");
            let (part, whole) = (found.updates[name].floats(), expected.updates[name].floats());
            let (part, whole) = (part.expect("floats"), whole.expect("floats"));
            let start = match graph.op(*leaf) {
                Op::State { role, .. } => role.start().unwrap_or(0),
                _ => 0,
            };
            assert_eq!(bits(part), bits(&whole[start..start + part.len()]), "{what}, rank {rank}: {name}");
            covered.entry(name).or_default().extend(start..start + part.len());
        }
    }
    assert_eq!(covered.len(), expected.updates.len(), "{what}");
    for (name, elements) in covered {
        assert_eq!(elements.len(), expected.updates[name].len(), "{what}: all of {name}");
    }
}

const MESHES: [Degrees; 5] = [(2, 1), (4, 1), (1, 2), (1, 4), (2, 2)];

fn all_meshes_agree(options: &PipelineOptions, optimizer: &OptimizerOptions, what: &str) {
    let step = Step::new(options, optimizer);
    let expected = step.alone(options, optimizer, &|_| {});
    for degrees in MESHES {
        let (graphs, found) = step.shared(options, optimizer, degrees, None);
        check(&format!("{what} {degrees:?}"), &graphs, &found, &expected);
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| name.to_string()).collect()
}

fn group(params: &[&str], rule: Rule) -> ParamGroup {
    ParamGroup { params: names(params), rule, lr: 0.5 }
}

fn adam() -> UpdateOp {
    UpdateOp::Adam(AdamSpec(AdamWSpec::default()))
}

#[test]
fn a_step_of_ranks_is_a_step_of_one() {
    for kinds in ["SS", "LS", "LL"] {
        all_meshes_agree(&common::options(kinds), &OptimizerOptions::default(), kinds);
    }
}

#[test]
fn every_optimizer_can_be_shared() {
    let options = common::options("LS");
    let plain = OptimizerOptions { update: adam(), ..OptimizerOptions::default() };
    all_meshes_agree(&options, &plain, "adam");
    // Groups at both ends of the parameters, and a rule for each.
    let vectors = ["norm.weight", "layers.0.attention_norm.weight", "layers.1.ffn_norm.weight"];
    let groups = vec![
        group(&vectors, Rule::Joined(adam())),
        group(
            &["tok_embeddings.weight"],
            Rule::Joined(UpdateOp::AdamW(AdamWSpec { weight_decay: 0.0, ..AdamWSpec::default() })),
        ),
    ];
    all_meshes_agree(&options, &OptimizerOptions { groups, ..OptimizerOptions::default() }, "groups");
}

/// With and without a part of the clipping: the factor is the same on all ranks.
#[test]
fn all_ranks_clip_alike() {
    let options = common::options("LS");
    for max_norm in [1e-3, 1e3] {
        let optimizer = OptimizerOptions { max_norm, ..OptimizerOptions::default() };
        let step = Step::new(&options, &optimizer);
        let expected = step.alone(&options, &optimizer, &|_| {});
        let norm = expected.outputs[GRAD_NORM].floats().expect("floats")[0];
        assert_eq!(f64::from(norm) > max_norm, max_norm < 1.0, "{norm}");
        let (graphs, found) = step.shared(&options, &optimizer, (2, 2), None);
        check("clip", &graphs, &found, &expected);
    }
}

/// Gradients of one rank that are not finite keep all ranks from updating; in f16 all change their scale.
#[test]
fn one_rank_that_is_not_finite_stops_all() {
    let name = "layers.1.feed_forward.w2.weight.grad";
    for precision in [Precision::Float32, Precision::Float16] {
        let options = PipelineOptions { precision, ..common::options("LS") };
        let optimizer = OptimizerOptions::default();
        let step = Step::new(&options, &optimizer);
        for bad in [f32::INFINITY, f32::NAN] {
            let change = move |gradients: &mut Bindings<f32>| {
                let mut values = gradients[name].floats().expect("floats").to_vec();
                values[3] = bad;
                let shape = gradients[name].shape.clone();
                gradients.insert(name.into(), Tensor::float(shape, values));
            };
            for degrees in MESHES {
                let (_, found) = step.shared(&options, &optimizer, degrees, Some(&change));
                for (rank, results) in found.iter().enumerate() {
                    let what = format!("{precision:?} {bad} {degrees:?} rank {rank}");
                    assert!(!results.outputs[GRAD_NORM].doubles()[0].is_finite(), "{what}");
                    let param = "layers.0.attention.wq.weight";
                    assert_eq!(results.updates[param], step.common[param], "{what}");
                    if precision == Precision::Float16 {
                        assert_eq!(results.updates[SCALE_STATE].doubles(), [64.0], "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_scaled_loss_is_shared_too() {
    for precision in [Precision::Bfloat16, Precision::Float16] {
        let options = PipelineOptions { precision, ..common::options("LS") };
        all_meshes_agree(&options, &OptimizerOptions::default(), precision_name(precision));
    }
}

fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::Float32 => "float32",
        Precision::Bfloat16 => "bfloat16",
        Precision::Float16 => "float16",
    }
}

#[test]
fn muon_is_for_ranks_that_have_whole_matrices() {
    let options = common::options("LS");
    let matrices = ["wq", "wk", "wv"].map(|matrix| format!("layers.0.attention.{matrix}.weight"));
    let matrices: Vec<&str> = matrices.iter().map(String::as_str).collect();
    let groups = vec![group(&matrices, Rule::Muon(MuonSpec::default()))];
    let optimizer = OptimizerOptions { groups, ..OptimizerOptions::default() };
    let step = Step::new(&options, &optimizer);
    let expected = step.alone(&options, &optimizer, &|_| {});
    let (graphs, found) = step.shared(&options, &optimizer, (2, 1), None);
    check("muon", &graphs, &found, &expected);
    let refused = lowered(&Entry::Train(optimizer), &options, mesh(0, (1, 2))).expect_err("cut matrices");
    assert!(refused.to_string().contains("Muon updates whole matrices"), "{refused}");
    // As are norms of parts of the gradients.
    let norms = vec![[matrices[0].to_owned()].into()];
    let optimizer = OptimizerOptions { norms, ..OptimizerOptions::default() };
    lowered(&Entry::Train(optimizer.clone()), &options, mesh(0, (2, 1))).expect("whole gradients");
    let refused = lowered(&Entry::Train(optimizer), &options, mesh(0, (1, 2))).expect_err("cut gradients");
    assert!(refused.to_string().contains("norms of parts of the gradients"), "{refused}");
}

/// The parameters of a group that lie among others have no room behind them.
#[test]
fn groups_that_do_not_lie_together_are_refused() {
    let groups = vec![group(&["layers.0.attention.wq.weight"], Rule::Joined(adam()))];
    let entry = Entry::Train(OptimizerOptions { groups, ..OptimizerOptions::default() });
    let mut graph = common::tiny_llama(ROWS, SEQ);
    let options = PipelineOptions { mesh: mesh(0, (1, 2)), ..common::options("LS") };
    let mut layout = PersistentLayout::default();
    let refused =
        pipeline::run(&mut graph, &entry, &options, &mut layout, &mut |_, _| {}).expect_err("no room");
    assert!(refused.to_string().contains("must lie together"), "{refused}");
    // And programs of one arena are shared out alike.
    let mut layout = PersistentLayout::default();
    let mut graph = common::tiny_llama(ROWS, SEQ);
    pipeline::run(&mut graph, &Entry::Eval, &common::options("LS"), &mut layout, &mut |_, _| {})
        .expect("a program");
    let mut graph = common::tiny_llama(ROWS, SEQ);
    let entry = Entry::Train(OptimizerOptions::default());
    let refused =
        pipeline::run(&mut graph, &entry, &options, &mut layout, &mut |_, _| {}).expect_err("no room");
    assert!(refused.to_string().contains("different numbers of ranks"), "{refused}");
}

/// The exchanges of a graph, in its order: the operation, and the elements of its result.
fn exchanged(graph: &Graph) -> Vec<(&'static str, usize)> {
    let order = linc_passes::schedule::run(graph, true).unwrap_or_else(|e| panic!("{e}"));
    let exchanges = order.into_iter().filter_map(|id| match graph.op(id) {
        Op::Exchange(op) => Some((op.name(), graph.ty(Value { node: id, port: 0 }).shape.numel())),
        _ => None,
    });
    exchanges.collect()
}

#[test]
fn what_is_exchanged_is_the_same_on_all_ranks() {
    let entry = Entry::Train(OptimizerOptions::default());
    let of = |degrees: Degrees| -> Vec<Vec<(&'static str, usize)>> {
        let graph = |rank| program(&entry, &common::options("LS"), mesh(rank, degrees));
        (0..degrees.0 * degrees.1).map(|rank| exchanged(&graph(rank))).collect()
    };
    for degrees in MESHES {
        let found = of(degrees);
        assert!(found.iter().all(|other| *other == found[0]), "{degrees:?}: {found:?}");
    }
    const PART: usize = 16384;
    let zero1 =
        [("all_to_all", 2 * PART), ("reduce_parts", PART), ("all_gather", 2), ("all_gather", 2 * PART)];
    assert_eq!(of((1, 2))[0], zero1);
    let ddp = &of((2, 1))[0];
    assert_eq!(
        ddp.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["all_to_all", "reduce_parts", "all_gather"]
    );
}

/// Buckets are whole layers, and the bucket of the last layer goes first.
#[test]
fn gradients_go_in_buckets_of_layers() {
    let mut graph = Graph::new("buckets");
    let mut range = vec![];
    for (number, (layer, len)) in [(0, 8), (0, 8), (1, 8), (1, 8), (2, 8), (2, 24)].into_iter().enumerate() {
        graph.set_scope(linc_ir::Scope { layer: Some(layer), path: String::new() });
        let ty = TensorType::f32([len / 4, 4]);
        let init = linc_ir::Init::Ones;
        let param =
            graph.add(Op::Param { name: format!("p{number}"), ty: ty.clone(), init }, &[]).expect("a param");
        let gradient = graph.push(Op::Input { name: format!("g{number}"), ty }, &[]).expect("an input");
        range.push((param, gradient));
    }
    let mut ranges = [range];
    parallelize::reduce(&mut graph, &mut ranges, &mesh(1, (2, 1)).group(MeshAxis::DataReplicate), 128)
        .unwrap_or_else(|e| panic!("{e}"));
    let sums: Vec<usize> = graph
        .nodes()
        .filter(|id| matches!(graph.op(*id), Op::Exchange(ExchangeOp::AllReduce { .. })))
        .map(|id| graph.ty(Value { node: id, port: 0 }).shape.numel())
        .collect();
    assert_eq!(sums, [32, 32], "two layers fit in 128 bytes, the third is as large alone");
    let shapes = ranges[0].iter().map(|(_, gradient)| graph.ty(*gradient).shape.0.clone());
    assert_eq!(shapes.collect::<Vec<_>>(), [[2, 4], [2, 4], [2, 4], [2, 4], [2, 4], [6, 4]]);
}

/// Reductions as moved parts and sums have the bits of the reductions, of sizes that have equal parts and others.
#[test]
fn reductions_are_moved_and_added() {
    for (ranks, numel) in [(2, 1), (3, 5), (2, 4096), (3, 4097), (4, 2050), (1, 7)] {
        let graph = |place: usize, lower: bool| {
            let group =
                linc_ir::Group { name: "all".into(), first: 0, stride: 1, size: ranks, place, turn: 0 };
            let mut graph = Graph::new("reduce");
            let x = graph.push(Op::Input { name: "x".into(), ty: TensorType::f32([numel]) }, &[]).expect("x");
            for (turn, reduction) in Reduction::ALL.into_iter().enumerate() {
                let all = ExchangeOp::AllReduce { group: group.in_turn(turn), reduction };
                let all = graph.push(all.into(), &[x]).expect("a reduction");
                graph.outputs.push((reduction.name().into(), all));
            }
            if lower {
                exchanges::run(&mut graph, Reduce::Exact).unwrap_or_else(|e| panic!("{e}"));
                linc_ir::verify(&graph).unwrap_or_else(|e| panic!("{e}"));
                let left = graph.nodes().any(|id| {
                    matches!(
                        graph.op(id),
                        Op::Exchange(ExchangeOp::AllReduce { .. } | ExchangeOp::ReduceScatter { .. })
                    )
                });
                assert!(!left);
            }
            graph
        };
        let bindings: Vec<Bindings<f32>> = (0..ranks)
            .map(|rank| {
                let number = |i: usize| ((i * 7919 + rank * 104_729) % 1009) as f32 * 0.37 - 180.0;
                [("x".to_string(), Tensor::float([numel], (0..numel).map(number).collect()))].into()
            })
            .collect();
        let of = |lower| -> Vec<Results<f32>> {
            let graphs: Vec<Graph> = (0..ranks).map(|rank| graph(rank, lower)).collect();
            run_ranks(&graphs, &bindings).unwrap_or_else(|e| panic!("{e}"))
        };
        assert_eq!(of(true), of(false), "{ranks} ranks, {numel} elements");
    }
}
