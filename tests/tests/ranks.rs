//! What the ranks of a run share.

use std::collections::{BTreeMap, BTreeSet};

use linc_driver::{
    AdamWSpec, Entry, Mesh, MeshAxis, Model, OptimizerOptions, Options, ParamGroup, PersistentLayout, Reduce,
    UpdateOp, UpdateRule, compile, names,
};
use linc_ir::interp::{Tensor, eval};
use linc_ir::{ExchangeOp, Op, Reduction};
use linc_plan::validate::validate_ranks;
use linc_plan::{Action, Binding, Category, Movement, Plan, Role, Space, StateRole, memory};
use linc_tests::lockstep::{self, Rank};
use linc_tests::models::{flavor, small_hybrid};
use linc_tile::interp::{Buffer, RunOptions};
use linc_tile::library::parts::{PartsReduction, ReducePartsSpec, reduce_parts};

/// Sums over ranks have one order: the interpreter's is the kernels' (and the devices', which take it from there).
#[test]
fn parts_are_added_in_the_order_of_the_interpreter() {
    const NUMEL: usize = 3;
    let number = |i: usize| ((i * 2_654_435_761 % 1013) as f32 - 500.0) * 1.1f32.powi((i % 60) as i32 - 30);
    for parts in 1..=33 {
        let x: Vec<f32> = (0..parts * NUMEL).map(number).collect();
        let op = Op::from(ExchangeOp::ReduceParts { parts, reduction: Reduction::Sum });
        let expected = eval(&op, &[&Tensor::float([x.len()], x.clone())]).unwrap_or_else(|e| panic!("{e}"));
        let kernel = reduce_parts(&ReducePartsSpec { parts, numel: NUMEL, by: PartsReduction::Sum });
        let mut buffers = [Buffer::F32(x), Buffer::F32(vec![0.0; NUMEL])];
        linc_tile::interp::run(&kernel, &mut buffers, &RunOptions::default())
            .unwrap_or_else(|e| panic!("{e}"));
        let Buffer::F32(found) = &buffers[1] else { panic!("floats") };
        assert_eq!(expected[0].floats(), Some(&found[..]), "{parts} parts");
    }
}

/// Copies of the optimizer, and parts of one.
type Degrees = (usize, usize);

const MESHES: [Degrees; 7] = [(1, 1), (2, 1), (4, 1), (1, 2), (1, 4), (2, 2), (3, 1)];

const SEQ: usize = 16;

/// The plans of all ranks; those of an entry with groups of parameters have them side by side.
fn plans(model: &Model, entries: &[Entry], degrees: Degrees, batch: usize) -> Vec<Vec<Plan>> {
    plans_by(|options| options, model, entries, degrees, batch)
}

/// As [`plans`], by other options.
fn plans_by(
    change: fn(Options) -> Options,
    model: &Model,
    entries: &[Entry],
    degrees: Degrees,
    batch: usize,
) -> Vec<Vec<Plan>> {
    let plans = |rank: usize| {
        let axes = [(MeshAxis::DataReplicate, degrees.0), (MeshAxis::DataShard, degrees.1)];
        let mesh = Mesh::new(rank, &axes).unwrap_or_else(|e| panic!("{e}"));
        let options = change(Options { mesh, ..Options::new(batch, SEQ) });
        let optimizer = entries.iter().find_map(Entry::optimizer);
        let groups: Vec<BTreeSet<String>> =
            optimizer.iter().flat_map(|o| &o.groups).map(|group| group.params.clone()).collect();
        let mut layout = PersistentLayout::grouped(&groups);
        let compile =
            |entry| compile(model, entry, &options, &mut layout).unwrap_or_else(|e| panic!("{e}")).plan;
        entries.iter().map(compile).collect::<Vec<Plan>>()
    };
    (0..degrees.0 * degrees.1).map(plans).collect()
}

/// The training program of all ranks.
fn training_plans(model: &Model, degrees: Degrees, optimizer: &OptimizerOptions) -> Vec<Plan> {
    training_plans_by(|options| options, model, degrees, optimizer)
}

fn training_plans_by(
    change: fn(Options) -> Options,
    model: &Model,
    degrees: Degrees,
    optimizer: &OptimizerOptions,
) -> Vec<Plan> {
    let entry = Entry::Train(optimizer.clone());
    plans_by(change, model, &[entry], degrees, 1).into_iter().flatten().collect()
}

/// AdamW without decay for vectors, which are a range of their own.
fn grouped(model: &Model) -> OptimizerOptions {
    let vectors = model.parameters.iter().filter(|param| param.numel < 100);
    let params = vectors.map(|param| param.name.clone()).collect();
    let rule = UpdateRule::Joined(UpdateOp::AdamW(AdamWSpec { weight_decay: 0.0, ..AdamWSpec::default() }));
    let groups = vec![ParamGroup { params, rule, lr: 0.5 }];
    OptimizerOptions { groups, ..OptimizerOptions::default() }
}

/// A number of a tensor at a place of the whole of it.
fn number(binding: &Binding, i: usize) -> f32 {
    let name = binding.name.bytes().fold(7usize, |sum, byte| (sum * 31 + usize::from(byte)) % 1009);
    let x = ((i * 7919 + name * 131) % 997) as f32 / 997.0 - 0.5;
    match binding.role {
        Role::State(StateRole::OfParam { state: linc_plan::ParamState::SecondMoment, .. }) => 1e-3 + x * x,
        Role::State(_) => 1e-2 * x,
        Role::Param if binding.shape.len() == 1 => 1.0 + 0.1 * x,
        Role::Param | Role::Input | Role::Table | Role::Output => 0.3 * x,
    }
}

/// Fills everything of a rank that runs batch `batch` of `batches` of equal sizes.
fn fill(rank: &mut Rank, plan: &Plan, batch: usize, batches: usize) {
    for binding in &plan.bindings {
        let start = binding.shard.map_or(0, |shard| shard.start);
        let floats = |value: f32| vec![value; binding.numel()];
        let values: Vec<f32> = match (&binding.role, binding.name.as_str()) {
            (Role::Output, _) => continue,
            (Role::Input, names::TOKENS | names::TARGETS) => {
                let offset = usize::from(binding.name == names::TARGETS);
                let ids = (0..binding.numel()).map(|i| ((i + offset + 3 * batch) * (batch + 5) % 16) as i32);
                let bytes: Vec<u8> = ids.flat_map(i32::to_le_bytes).collect();
                rank.write(binding.at, &bytes);
                continue;
            }
            (Role::Input, names::SHARE) => floats(1.0 / batches as f32),
            (Role::Input, names::LEARNING_RATE) => floats(0.01),
            (Role::Input, names::STEP) => floats(3.0),
            (Role::Input, names::KEEP) => floats(if batch == 0 { 0.0 } else { 1.0 }),
            (Role::Input, other) => panic!("the input {other}"),
            (Role::Table, _) => floats(0.6),
            (Role::Param | Role::State(_), _) => {
                (start..start + binding.numel()).map(|i| number(binding, i)).collect()
            }
        };
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        rank.write(binding.at, &bytes);
    }
}

/// Bits of parameters, states and the norm by name, those of shards put together; all ranks have the same where they have the same.
fn results(ranks: &[(Rank, Plan)]) -> BTreeMap<String, Vec<u32>> {
    let mut found: BTreeMap<String, Vec<Option<u32>>> = BTreeMap::new();
    for (rank, plan) in ranks {
        for binding in &plan.bindings {
            let is_gradient = matches!(
                binding.role,
                Role::State(StateRole::OfParam { state: linc_plan::ParamState::Gradient, .. })
            );
            let kept = matches!(binding.role, Role::Param | Role::State(_)) && !is_gradient;
            if !kept && binding.name != names::GRAD_NORM {
                continue;
            }
            let bytes = rank.read(binding.at, binding.bytes());
            let bits = bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
            let (start, of) = binding.shard.map_or((0, binding.numel()), |shard| (shard.start, shard.of));
            let whole = found.entry(binding.name.clone()).or_insert_with(|| vec![None; of]);
            for (slot, bits) in whole[start..].iter_mut().zip(bits) {
                let known = slot.replace(bits).unwrap_or(bits);
                assert_eq!(known, bits, "{} of rank {}", binding.name, plan.world.rank);
            }
        }
    }
    let whole = |(name, bits): (String, Vec<Option<u32>>)| {
        let all: Option<Vec<u32>> = bits.into_iter().collect();
        (name.clone(), all.unwrap_or_else(|| panic!("nobody has all of {name}")))
    };
    found.into_iter().map(whole).collect()
}

/// One step of all ranks, each with one batch.
fn step(model: &Model, degrees: Degrees, optimizer: &OptimizerOptions) -> BTreeMap<String, Vec<u32>> {
    step_of(training_plans(model, degrees, optimizer), degrees)
}

fn step_of(plans: Vec<Plan>, degrees: Degrees) -> BTreeMap<String, Vec<u32>> {
    validate_ranks(&plans).unwrap_or_else(|e| panic!("{degrees:?}: {e}"));
    let mut ranks: Vec<Rank> = plans.iter().map(Rank::new).collect();
    for (number, (rank, plan)) in ranks.iter_mut().zip(&plans).enumerate() {
        fill(rank, plan, number, plans.len());
    }
    lockstep::run(&mut ranks);
    results(&ranks.into_iter().zip(plans).collect::<Vec<_>>())
}

/// A library that added in linc's order would leave linc's bits: what it adds up and where is the same. Few numbers are still summed
/// by kernels, such as those of the norm.
#[test]
fn sums_of_a_library_are_those_of_the_kernels_but_for_their_order() {
    let model = linc_tests::models::sized("nano", &[("n_layers", 2.0), ("vocab_size", 16.0)], "0.5");
    let optimizer = OptimizerOptions::default();
    for (degrees, adding) in [
        ((2, 1), &[Movement::AllReduce][..]),
        ((1, 2), &[Movement::ReduceScatter]),
        ((2, 2), &[Movement::ReduceScatter, Movement::AllReduce]),
        ((3, 1), &[Movement::AllReduce]),
    ] {
        let library = |options| Options { reduce: Reduce::Library, ..options };
        let plans = training_plans_by(library, &model, degrees, &optimizer);
        let exact = training_plans(&model, degrees, &optimizer);
        for (plan, exact) in plans.iter().zip(&exact) {
            let found: BTreeSet<Movement> = plan.exchanges().map(|(_, exchange)| exchange.movement).collect();
            assert!(adding.iter().all(|movement| found.contains(movement)), "{degrees:?}: {found:?}");
            assert!(!found.contains(&Movement::AllToAll), "{degrees:?}: {found:?}");
            assert!(exact.exchanges().all(|(_, exchange)| !exchange.movement.adds()));
            // Of parts that are not padded, a ring moves as many bytes.
            if degrees != (3, 1) {
                assert_eq!(plan.bytes_sent(), exact.bytes_sent(), "{degrees:?}");
            }
            let [library, kernels] = [plan, exact].map(|plan| memory::peak(&[plan]).bytes);
            assert!(library <= kernels, "{degrees:?}: {library} bytes, and {kernels} with kernels");
        }
        assert_eq!(step_of(plans, degrees), step_of(exact, degrees), "{degrees:?}");
    }
}

/// Floating-point operations of the steps between the begin of each exchange and the wait for it.
fn beside_exchanges(plan: &Plan) -> Vec<u64> {
    let mut beside = vec![];
    let mut under_way: BTreeMap<usize, u64> = BTreeMap::new();
    for step in &plan.steps {
        match &step.action {
            Action::Start { id, .. } => {
                under_way.insert(*id, 0);
            }
            Action::Wait { id } => beside.extend(under_way.remove(id)),
            Action::Launch { .. } | Action::Gemm(_) | Action::Copy { .. } => {
                under_way.values_mut().for_each(|flops| *flops += step.flops);
            }
        }
    }
    assert!(under_way.is_empty());
    beside
}

/// Of gradients in several buckets, all but the last are exchanged while the backward goes on. Without the pass, each exchange is
/// waited for at once.
#[test]
fn gradients_are_exchanged_beside_the_backward() {
    let without: fn(Options) -> Options =
        |options| Options { disabled: ["overlap".to_owned()].into(), ..options };
    let optimizer = OptimizerOptions::default();
    let model = flavor("1b", "0.5");
    let plans = training_plans(&model, (2, 1), &optimizer);
    validate_ranks(&plans).unwrap_or_else(|e| panic!("{e}"));
    let beside = beside_exchanges(&plans[0]);
    let backward = plans[0].flops() / 3 * 2;
    // Of each bucket of a layer the half that comes first is under way while the next layer's is made.
    let hidden = beside.iter().filter(|flops| **flops > backward / 100).count();
    assert!(hidden >= model.sizes.n_layers - 2, "{hidden} of {beside:?}, {backward}");
    let plan = training_plans_by(without, &model, (2, 1), &optimizer).remove(0);
    assert!(beside_exchanges(&plan).iter().all(|flops| *flops == 0));
    assert_eq!(plan.bytes_sent(), plans[0].bytes_sent());

    let small = linc_tests::models::sized("nano", &[("n_layers", 2.0), ("vocab_size", 16.0)], "0.5");
    for degrees in [(2, 1), (1, 2), (2, 2)] {
        let plain = training_plans_by(without, &small, degrees, &optimizer);
        assert_eq!(step_of(plain, degrees), step(&small, degrees, &optimizer), "{degrees:?}");
    }
}

/// What plans compute on processors: parameters, moments and the norm are the same bits, however the optimizer is shared, and those
/// of one process that adds up the gradients of two batches.
#[test]
fn plans_of_ranks_leave_the_same_bits_however_they_share() {
    for (ratio, all) in [("0", false), ("0.5", true), ("1", false)] {
        let model = linc_tests::models::sized("nano", &[("n_layers", 2.0), ("vocab_size", 16.0)], ratio);
        for optimizer in [OptimizerOptions::default(), grouped(&model)] {
            let two = step(&model, (2, 1), &optimizer);
            assert_eq!(step(&model, (1, 2), &optimizer), two, "{ratio}");
            if !all {
                break;
            }
            let four = step(&model, (4, 1), &optimizer);
            for degrees in [(1, 4), (2, 2)] {
                assert_eq!(step(&model, degrees, &optimizer), four, "{ratio} {degrees:?}");
            }
            assert_ne!(two, four);

            let [accumulate, update] =
                &plans(&model, &[Entry::Accumulate, Entry::Update(optimizer)], (1, 1), 1)[0][..]
            else {
                panic!("two programs")
            };
            let mut batches = Rank::new(accumulate);
            let mut last = Rank::new(update);
            fill(&mut last, update, 1, 2);
            for number in 0..2 {
                let gradients = gradients(&batches, accumulate);
                fill(&mut batches, accumulate, number, 2);
                if number > 0 {
                    gradients.iter().for_each(|(binding, bytes)| batches.write(binding.at, bytes));
                }
                lockstep::run(std::slice::from_mut(&mut batches));
            }
            for (binding, bytes) in gradients(&batches, accumulate) {
                let state =
                    update.bindings.iter().find(|b| b.name == binding.name).expect("a state of gradients");
                last.write(state.at, &bytes);
            }
            lockstep::run(std::slice::from_mut(&mut last));
            assert_eq!(results(&[(last, update.clone())]), two, "{ratio}: one process");
        }
    }
}

fn gradients(rank: &Rank, plan: &Plan) -> Vec<(Binding, Vec<u8>)> {
    let is_gradient = |binding: &&Binding| {
        matches!(binding.role, Role::State(StateRole::OfParam { state: linc_plan::ParamState::Gradient, .. }))
    };
    let found = plan.bindings.iter().filter(is_gradient);
    found.map(|binding| (binding.clone(), rank.read(binding.at, binding.bytes()))).collect()
}

/// All programs of a step fit, for all ranks, and their parameters lie at the same places.
#[test]
fn programs_of_all_ranks_fit() {
    let model = small_hybrid();
    let optimizer = OptimizerOptions::default();
    let entries = [
        Entry::Train(optimizer.clone()),
        Entry::Accumulate,
        Entry::Update(optimizer),
        Entry::Eval,
        Entry::Forward,
    ];
    for degrees in MESHES {
        let of_ranks = plans(&model, &entries, degrees, 2);
        for program in 0..entries.len() {
            let plans: Vec<Plan> = of_ranks.iter().map(|plans| plans[program].clone()).collect();
            validate_ranks(&plans).unwrap_or_else(|e| panic!("{degrees:?} {}: {e}", plans[0].name));
            assert!(plans.iter().all(|plan| plan.world.size == degrees.0 * degrees.1));
            let exchanges =
                matches!(entries[program], Entry::Train(_) | Entry::Update(_)) && degrees != (1, 1);
            assert_eq!(plans[0].exchanges().next().is_some(), exchanges, "{}", plans[0].name);
        }
    }
}

/// A few ranks of a large mesh.
#[test]
fn plans_of_a_large_world_fit() {
    let model = flavor("1b", "0.5");
    let plan = |rank: usize| {
        let axes = [(MeshAxis::DataReplicate, 64), (MeshAxis::DataShard, 256)];
        let mesh = Mesh::new(rank, &axes).unwrap_or_else(|e| panic!("{e}"));
        let options = Options { mesh, ..Options::new(1, 64) };
        linc_tests::models::compiled(&model, &linc_tests::models::training(), &options).plan
    };
    let plans: Vec<Plan> = [0, 1, 255, 256, 16383].map(plan).into();
    validate_ranks(&plans).unwrap_or_else(|e| panic!("{e}"));
    let moments = |plan: &Plan| bytes_of(plan, Category::OptimizerState);
    assert!(plans.iter().all(|plan| moments(plan) < 9 * model.sizes.params / 256));
}

fn bytes_of(plan: &Plan, wanted: Category) -> u64 {
    let peak = memory::peak(&[plan]);
    peak.categories.iter().find(|(category, _)| *category == wanted).map_or(0, |(_, bytes)| *bytes)
}

/// What is exchanged and kept follows from the number of parameters, and nothing of them is copied for it.
#[test]
fn bytes_of_each_mode_are_as_its_formula_says() {
    const BLOCK: u64 = 16384;
    let model = flavor("debugmodel", "0.5");
    let params = model.sizes.params;
    let optimizer = OptimizerOptions::default();
    let whole = training_plans(&model, (1, 1), &optimizer).remove(0);
    assert_eq!(whole.bytes_sent(), [0; 0]);
    assert_eq!(bytes_of(&whole, Category::OptimizerState), 8 * params);
    for ranks in [2, 4, 8] {
        let others = ranks as u64 - 1;
        let copies = training_plans(&model, (ranks, 1), &optimizer);
        for plan in &copies {
            // All parts but its own to the others, and its own sum to all of them.
            assert_eq!(plan.bytes_sent(), [2 * others * 4 * params / ranks as u64], "{ranks} copies");
            assert_eq!(bytes_of(plan, Category::OptimizerState), 8 * params);
            no_large_copies(plan);
        }
        let part = params.next_multiple_of(ranks as u64 * BLOCK) / ranks as u64;
        let parts = training_plans(&model, (1, ranks), &optimizer);
        let mut moments = 0;
        for plan in &parts {
            let sums = 4 * part / BLOCK;
            assert_eq!(plan.bytes_sent(), [others * (4 * part + sums + 4 * part)], "{ranks} parts");
            assert!(bytes_of(plan, Category::OptimizerState) <= 8 * part);
            moments += bytes_of(plan, Category::OptimizerState);
            no_large_copies(plan);
            // Parameters are gathered where they lie.
            let (_, last) = plan.exchanges().last().expect("an exchange");
            let place = plan.world.rank as u64 * 4 * part;
            assert_eq!(last.movement, Movement::AllGather);
            assert_eq!((last.from.buffer, last.from.offset), (last.to.buffer, last.to.offset + place));
            assert_eq!(plan.buffers[last.to.buffer].space, Space::Persistent);
        }
        assert_eq!(moments, 8 * params, "every moment is kept once");
    }
}

/// Copies and fills are of what there is no room for in a part, not of all gradients or parameters.
fn no_large_copies(plan: &Plan) {
    for step in &plan.steps {
        let name = plan.work_name(step);
        let moves = name.starts_with("copy") || name.starts_with("fill");
        assert!(!moves || step.bytes < 2 << 20, "{name} ({}) moves {} bytes", step.label, step.bytes);
    }
}
