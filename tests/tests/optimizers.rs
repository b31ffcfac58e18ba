//! Groups of parameters and Muon against their formulas in float64, written out here, on the graph as it was compiled and on the
//! CPU.

use std::collections::{BTreeMap, BTreeSet};

use linc_driver::names::{GRAD_NORM, LEARNING_RATE, LOSS, STEP, TARGETS};
use linc_driver::{
    AdamSpec, AdamWSpec, AdjustLr, Entry, Model, MuonSpec, OptimizerOptions, Options, ParamGroup, ParamRole,
    PersistentLayout, Precision, UpdateOp, UpdateRule, compile,
};
use linc_ir::interp::{Bindings, Tensor, run};
use linc_ir::{Graph, Op};
use linc_plan::Plan;
use linc_tests::{compiled, models};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const BATCH: usize = 2;
const SEQ: usize = 16;
const LR: f64 = 0.02;
const MAX_NORM: f64 = 0.5;

/// The plan of a training step and the graph that it was made from.
fn program(model: &Model, optimizer: &OptimizerOptions, precision: Precision) -> (Plan, Graph, usize) {
    let options = Options { dumps: true, precision, ..Options::new(BATCH, SEQ) };
    let mut layout = PersistentLayout::grouped(optimizer.groups.iter().map(|group| &group.params));
    let done = compile(model, &Entry::Train(optimizer.clone()), &options, &mut layout);
    let done = done.unwrap_or_else(|e| panic!("{e}"));
    let last = done.dumps.iter().rfind(|d| d.path.ends_with(".ir")).expect("the graph after the last pass");
    let updates = last.text.matches("= adamw(").count() + last.text.matches("= adam(").count();
    (done.plan, linc_ir::parse(&last.text).unwrap_or_else(|e| panic!("{e}")), updates)
}

fn bindings(graph: &Graph) -> Bindings<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut bindings = Bindings::new();
    for id in graph.nodes() {
        match graph.op(id) {
            Op::Param { name, ty, .. } => {
                let near = if ty.shape.rank() == 1 { 1.0 } else { 0.0 };
                // Numbers that f32 holds.
                let mut draw = || f64::from((near + 0.3 * rng.random_range(-1.0..1.0f64)) as f32);
                let values = (0..ty.shape.numel()).map(|_| draw()).collect();
                bindings.insert(name.clone(), Tensor::float(ty.shape.clone(), values));
            }
            Op::Input { name, ty } if name == "tokens" || name == TARGETS => {
                let ids = (0..ty.shape.numel()).map(|_| rng.random_range(0..16)).collect();
                bindings.insert(name.clone(), Tensor::int(ty.shape.clone(), ids));
            }
            _ => {}
        }
    }
    bindings.insert(LEARNING_RATE.into(), Tensor::scalar(f64::from(LR as f32)));
    bindings.insert(STEP.into(), Tensor::scalar(1.0));
    bindings
}

fn with_role(model: &Model, role: ParamRole) -> BTreeSet<String> {
    let params = model.parameters.iter().filter(|param| param.roles.contains(&role));
    params.map(|param| param.name.clone()).collect()
}

/// Muon for the matrices, Adam for the output, AdamW for the norms without decay, and TorchTitan's for the embedding.
fn grouped(model: &Model, adjust: AdjustLr, nesterov: bool) -> OptimizerOptions {
    let plain = AdamWSpec { weight_decay: 0.0, ..AdamWSpec::default() };
    let muon = MuonSpec { adjust, nesterov, ..MuonSpec::default() };
    let group = |role, rule, lr| ParamGroup { params: with_role(model, role), rule, lr };
    let groups = vec![
        group(ParamRole::Matrix, UpdateRule::Muon(muon), 1.0),
        group(ParamRole::Output, UpdateRule::Joined(UpdateOp::Adam(AdamSpec(AdamWSpec::default()))), 0.5),
        group(ParamRole::Norm, UpdateRule::Joined(UpdateOp::AdamW(plain)), 1.0),
    ];
    OptimizerOptions { groups, max_norm: MAX_NORM, ..OptimizerOptions::default() }
}

/// A matrix in float64, by rows.
#[derive(Clone)]
struct Matrix {
    rows: usize,
    cols: usize,
    x: Vec<f64>,
}

impl Matrix {
    fn times(&self, other: &Matrix) -> Matrix {
        let mut x = vec![0.0; self.rows * other.cols];
        for i in 0..self.rows {
            for j in 0..other.cols {
                x[i * other.cols + j] =
                    (0..self.cols).map(|k| self.x[i * self.cols + k] * other.x[k * other.cols + j]).sum();
            }
        }
        Matrix { rows: self.rows, cols: other.cols, x }
    }

    fn transposed(&self) -> Matrix {
        let mut x = vec![];
        for j in 0..self.cols {
            x.extend((0..self.rows).map(|i| self.x[i * self.cols + j]));
        }
        Matrix { rows: self.cols, cols: self.rows, x }
    }

    /// The quintic iteration in the words of its author: of a wide matrix, so that a tall one is transposed.
    fn orthogonal(&self) -> Matrix {
        if self.rows > self.cols {
            return self.transposed().orthogonal().transposed();
        }
        let norm = self.x.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-7);
        let mut m = Matrix { x: self.x.iter().map(|x| x / norm).collect(), ..self.clone() };
        for _ in 0..5 {
            let a = m.times(&m.transposed());
            let aa = a.times(&a);
            let b = a.x.iter().zip(&aa.x).map(|(a, aa)| -4.7750 * a + 2.0315 * aa).collect();
            let bm = Matrix { x: b, ..a }.times(&m);
            m.x = m.x.iter().zip(&bm.x).map(|(m, bm)| 3.4445 * m + bm).collect();
        }
        m
    }
}

/// What a step makes of one parameter and its states, by the formulas, from its clipped gradient.
fn by_definition(
    model: &Model,
    optimizer: &OptimizerOptions,
    name: &str,
    values: &Tensor<f64>,
    states: &BTreeMap<String, Tensor<f64>>,
    g: &[f64],
    step: f64,
) -> Vec<(String, Vec<f64>)> {
    let (p, lr) = (values.doubles(), f64::from(LR as f32));
    let roles = &model.parameters.iter().find(|param| param.name == name).expect("a parameter").roles;
    let state = |word: &str| {
        let state = states.get(&format!("{name}.{word}"));
        state.map_or_else(|| vec![0.0; p.len()], |state| state.doubles().to_vec())
    };
    if roles.contains(&ParamRole::Matrix) {
        let UpdateRule::Muon(spec) = &optimizer.groups[0].rule else { panic!("Muon first") };
        let m: Vec<f64> = state("momentum_buffer").iter().zip(g).map(|(m, g)| 0.95 * m + 0.05 * g).collect();
        let u = match spec.nesterov {
            true => m.iter().zip(g).map(|(m, g)| 0.05 * g + 0.95 * m).collect(),
            false => m.clone(),
        };
        let (rows, cols) = (values.shape.0[0], values.shape.0[1]);
        let o = Matrix { rows, cols, x: u }.orthogonal();
        let (r, c) = (rows as f64, cols as f64);
        let factor = match spec.adjust {
            AdjustLr::Original => f64::max(1.0, r / c).sqrt(),
            AdjustLr::MatchRmsAdamW => 0.2 * r.max(c).sqrt(),
        };
        let p = p.iter().zip(&o.x).map(|(p, o)| p * (1.0 - lr * 0.1) - lr * factor * o).collect();
        return vec![(name.into(), p), (format!("{name}.momentum_buffer"), m)];
    }
    let (lr, decay, in_gradient) = if roles.contains(&ParamRole::Output) {
        (0.5 * lr, 0.1, true)
    } else if roles.contains(&ParamRole::Norm) {
        (lr, 0.0, false)
    } else {
        (lr, 0.1, false)
    };
    let (mut m, mut v, mut new) = (state("exp_avg"), state("exp_avg_sq"), p.to_vec());
    for i in 0..p.len() {
        let g = if in_gradient { g[i] + decay * p[i] } else { g[i] };
        m[i] = 0.9 * m[i] + 0.1 * g;
        v[i] = 0.95 * v[i] + 0.05 * g * g;
        let kept = if in_gradient { p[i] } else { p[i] * (1.0 - lr * decay) };
        let root = (v[i] / (1.0 - 0.95f64.powf(step))).sqrt() + 1e-8;
        new[i] = kept - lr * (m[i] / (1.0 - 0.9f64.powf(step))) / root;
    }
    vec![(name.into(), new), (format!("{name}.exp_avg"), m), (format!("{name}.exp_avg_sq"), v)]
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
}

#[test]
fn each_group_follows_its_formula() {
    let model = models::small_hybrid();
    // The gradients themselves: first moments that remember nothing.
    let bare = AdamWSpec { beta1: 0.0, ..AdamWSpec::default() };
    let bare =
        OptimizerOptions { update: UpdateOp::AdamW(bare), groups: vec![], max_norm: 1e30, norms: vec![] };
    let (_, gradients, _) = program(&model, &bare, Precision::Float32);
    for (adjust, nesterov) in [(AdjustLr::MatchRmsAdamW, true), (AdjustLr::Original, false)] {
        let optimizer = grouped(&model, adjust, nesterov);
        let (plan, graph, updates) = program(&model, &optimizer, Precision::Float32);
        assert_eq!(updates, 3, "the groups that are updated by element are one update each");
        let mut own = bindings(&graph);
        for step in 1..=3 {
            own.insert(STEP.into(), Tensor::scalar(f64::from(step)));
            let g = run::<f64>(&gradients, &own).unwrap_or_else(|e| panic!("{e}"));
            let norm = g.outputs[GRAD_NORM].doubles()[0];
            assert!(norm > 2.0 * MAX_NORM, "nothing is clipped at {norm}");
            let clip = MAX_NORM / (norm + 1e-6);

            let found = run::<f64>(&graph, &own).unwrap_or_else(|e| panic!("{e}"));
            let on_cpu = compiled::run(&plan, &own, 2);
            assert!((found.outputs[GRAD_NORM].doubles()[0] - norm).abs() < 1e-9 * norm);
            let mut seen = 0;
            for param in &model.parameters {
                let g: Vec<f64> = g.updates[&format!("{}.exp_avg", param.name)]
                    .doubles()
                    .iter()
                    .map(|g| clip * g)
                    .collect();
                let states: BTreeMap<String, Tensor<f64>> = own.clone().into_iter().collect();
                let at = &own[&param.name];
                let step = f64::from(step);
                for (name, expected) in by_definition(&model, &optimizer, &param.name, at, &states, &g, step)
                {
                    let scale = distance(&expected, &vec![0.0; expected.len()]);
                    let (exact, real) = (found.updates[&name].doubles(), &on_cpu[&name]);
                    let off = distance(&exact, &expected);
                    assert!(off <= 1e-9 * scale, "step {step}, {name}: {off:e} of {scale:e}");
                    let off = distance(real, &expected);
                    assert!(off <= 2e-4 * scale, "step {step}, {name} on the CPU: {off:e} of {scale:e}");
                    seen += 1;
                }
            }
            assert_eq!(seen, found.updates.len(), "a state that no formula has");
            own.extend(found.updates);
        }
    }
}

/// Without a layout that knows the groups they are cut into more pieces, and nothing else changes.
#[test]
fn groups_do_not_depend_on_where_parameters_lie() {
    let model = models::small_hybrid();
    let optimizer = grouped(&model, AdjustLr::MatchRmsAdamW, true);
    let (_, graph, _) = program(&model, &optimizer, Precision::Float32);
    let options = Options { dumps: true, ..Options::new(BATCH, SEQ) };
    let entry = Entry::Train(optimizer);
    let done =
        compile(&model, &entry, &options, &mut PersistentLayout::default()).unwrap_or_else(|e| panic!("{e}"));
    let own = bindings(&graph);
    let expected = run::<f64>(&graph, &own).unwrap_or_else(|e| panic!("{e}"));
    let found = compiled::run(&done.plan, &own, 1);
    for (name, expected) in &expected.updates {
        let expected = expected.doubles();
        let off = distance(&found[name], &expected);
        assert!(off <= 2e-4 * distance(&expected, &vec![0.0; expected.len()]), "{name}: {off:e}");
    }
}

/// In every precision all of Muon is f32, and a step whose gradients are not finite leaves every bit.
#[test]
fn a_step_that_is_skipped_leaves_matrices_and_momentum() {
    let model = models::small_hybrid();
    let optimizer = grouped(&model, AdjustLr::MatchRmsAdamW, true);
    for precision in [Precision::Float32, Precision::Bfloat16, Precision::Float16] {
        let (plan, graph, _) = program(&model, &optimizer, precision);
        let behind = graph.behind_gradients();
        let products = behind.iter().filter(|id| matches!(graph.op(**id), Op::MatMul { .. }));
        let matrices = with_role(&model, ParamRole::Matrix).len();
        assert_eq!(products.count(), matrices * 15);
        for id in &behind {
            for value in graph.operands(*id).into_iter().chain(graph.results(*id)) {
                assert!(!graph.ty(value).dtype.is_narrow(), "{precision:?}: {}", graph.op(*id).name());
            }
        }
        let mut own = bindings(&graph);
        let first = compiled::run(&plan, &own, 2);
        assert!(first[LOSS][0].is_finite());
        let leaves: BTreeSet<String> = own.keys().cloned().collect();
        for (name, values) in &first {
            let shape = match leaves.contains(name) {
                true => own[name].shape.clone(),
                false => [values.len()].into(),
            };
            own.insert(name.clone(), Tensor::float(shape, values.clone()));
        }
        let gain = own.get_mut("norm.weight").expect("the last norm");
        let mut broken = gain.doubles().to_vec();
        broken[0] = f64::INFINITY;
        *gain = Tensor::float(gain.shape.clone(), broken);
        let after = compiled::run(&plan, &own, 2);
        assert!(!after[GRAD_NORM][0].is_finite(), "{precision:?}");
        let mut momenta = 0;
        for (name, values) in after.iter().filter(|(name, _)| graph.leaf(name).is_some()) {
            if name.starts_with("loss_scale") {
                continue;
            }
            momenta += usize::from(name.ends_with("momentum_buffer") && values.iter().any(|x| *x != 0.0));
            assert!(*values == own[name].doubles(), "{precision:?}: {name} changed");
        }
        assert_eq!(momenta, matrices);
    }
}

/// Who reads a parameter decides what it is, whatever its name; see the small hybrid: a linear layer, then a softmax layer.
#[test]
fn parameters_have_the_roles_of_their_readers() {
    let model = models::small_hybrid();
    let names = |role| with_role(&model, role).into_iter().collect::<Vec<_>>();
    let of_layer = |layer: usize, words: &[&str]| -> Vec<String> {
        words.iter().map(|word| format!("layers.{layer}.{word}.weight")).collect()
    };
    let attention = ["attention.wk", "attention.wo", "attention.wq", "attention.wv"];
    assert_eq!(names(ParamRole::LinearAttention), of_layer(0, &attention));
    assert_eq!(names(ParamRole::SoftmaxAttention), of_layer(1, &attention));
    assert_eq!(names(ParamRole::Embedding), ["tok_embeddings.weight"]);
    assert_eq!(names(ParamRole::Output), ["output.weight"]);
    assert_eq!(names(ParamRole::Norm).len(), 5);
    assert_eq!(names(ParamRole::Norm), names(ParamRole::Vector));
    assert_eq!(names(ParamRole::Matrix).len(), 14);
    let tied = models::sized("1b", &[("n_layers", 2.0)], "0.5");
    assert_eq!(with_role(&tied, ParamRole::Embedding), with_role(&tied, ParamRole::Output));
    assert!(with_role(&tied, ParamRole::Output).is_disjoint(&with_role(&tied, ParamRole::Matrix)));
}

#[test]
fn muon_keeps_one_moment() {
    let model = models::small_hybrid();
    let states = |plan: &Plan| -> u64 {
        let bindings = plan.bindings.iter();
        bindings.filter(|b| matches!(b.role, linc_plan::Role::State(_))).map(|b| b.bytes()).sum()
    };
    let (adamw, _, _) = program(&model, &OptimizerOptions::default(), Precision::Float32);
    let (muon, _, _) = program(&model, &grouped(&model, AdjustLr::Original, true), Precision::Float32);
    let matrices: u64 = model
        .parameters
        .iter()
        .filter(|param| param.roles.contains(&ParamRole::Matrix))
        .map(|param| 4 * param.numel)
        .sum();
    assert_eq!(states(&muon), states(&adamw) - matrices);
}
