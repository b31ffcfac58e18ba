//! From a scheduled graph with its memory plan to the plain-data plan of the runtime.

mod exchanges;

use std::collections::{BTreeMap, HashMap};

use linc_ir::{DType, Graph, Init, NodeId, Op, ParamState, Scope, StateRole, TableKind, Value};
use linc_kernels::tiles::Tiles;
use linc_kernels::{Call, Context, Exchange, KernelError, StoragePlace, Target, Work, lower};
use linc_passes::memory::{Kind, MemoryPlan, PersistentLayout, StorageAssignment, Wait};
use linc_passes::mesh::Mesh;
use linc_plan as plan;
use linc_tile as tile;

use exchanges::Exchanges;

use crate::work_kind::WorkKinds;

/// The plan, and the kernels behind its texts.
pub(crate) struct Assembled {
    pub(crate) plan: plan::Plan,
    pub(crate) kernels: Vec<tile::Kernel>,
}

/// Lowers every node in order and puts the pieces together. Addresses come last: which step uses what memory is known when
/// nodes have become steps.
pub(crate) fn assemble(
    graph: &Graph,
    assignment: &StorageAssignment,
    target: Target,
    tiles: &Tiles,
    layout: &PersistentLayout,
    mesh: &Mesh,
) -> Result<Assembled, KernelError> {
    let mut context = Context::new(&assignment.storage, target, tiles);
    let mut lowered: Vec<Vec<Call>> = Vec::with_capacity(assignment.order.len());
    for id in &assignment.order {
        let in_place = assignment.is_in_place(*id);
        lowered.push(if in_place { vec![] } else { lower(graph, *id, &mut context)? });
    }
    let mut steps: Vec<usize> = lowered.iter().map(|calls| calls.iter().map(steps_of).sum()).collect();
    for Wait { before, start } in assignment.waits() {
        steps[*start] -= 1;
        steps[(*before).min(lowered.len() - 1)] += 1;
    }
    let memory = assignment.allocate(graph, layout, &steps);
    let mut assembly = Assembly::new(assignment, &memory, WorkKinds::of(graph));
    let mut waits = assignment.waits().iter().peekable();
    for (at, (id, calls)) in assignment.order.iter().zip(lowered).enumerate() {
        while let Some(wait) = waits.next_if(|wait| wait.before == at) {
            assembly.steps.extend(assembly.exchanges.wait(wait.start));
        }
        assembly.node(graph, *id, at, calls);
    }
    for wait in waits {
        assembly.steps.extend(assembly.exchanges.wait(wait.start));
    }
    let bindings = assembly.bindings(graph);
    let buffers = assembly.buffers(graph);
    let plan = plan::Plan {
        name: graph.name.clone(),
        persistent_bytes: layout.bytes,
        scratch_bytes: memory.scratch_bytes,
        buffers,
        kernels: assembly.kernels.iter().map(kernel_entry).collect(),
        steps: assembly.steps,
        bindings,
        world: plan::World { rank: mesh.rank(), size: mesh.world(), groups: assembly.exchanges.groups },
    };
    Ok(Assembled { plan, kernels: assembly.kernels })
}

/// An exchange is begun by a step and waited for by another.
fn steps_of(call: &Call) -> usize {
    match call.work {
        Work::Kernel(..) | Work::Gemm(_) => 1,
        Work::Exchange(_) => 2,
    }
}

fn kernel_entry(kernel: &tile::Kernel) -> plan::Kernel {
    plan::Kernel {
        name: kernel.name.clone(),
        family: tile::library::family(&kernel.name).to_string(),
        text: kernel.to_string(),
        grid: kernel.grid,
        written: kernel.written(),
    }
}

struct Assembly<'a> {
    assignment: &'a StorageAssignment,
    memory: &'a MemoryPlan,
    buffer_of: BTreeMap<Value, usize>,
    kernels: Vec<tile::Kernel>,
    /// Names encode specifications, so equal names are equal kernels. Looked up only, never iterated.
    kernel_of: HashMap<String, usize>,
    steps: Vec<plan::Step>,
    exchanges: Exchanges,
    work_kinds: WorkKinds,
}

impl<'a> Assembly<'a> {
    fn new(assignment: &'a StorageAssignment, memory: &'a MemoryPlan, work_kinds: WorkKinds) -> Self {
        let buffer_of = memory.allocations.keys().enumerate().map(|(i, root)| (*root, i)).collect();
        let (kernels, kernel_of) = (vec![], HashMap::new());
        let steps = vec![];
        Assembly {
            assignment,
            memory,
            buffer_of,
            kernels,
            kernel_of,
            steps,
            exchanges: Exchanges::default(),
            work_kinds,
        }
    }

    fn node(&mut self, graph: &Graph, id: NodeId, at: usize, calls: Vec<Call>) {
        let node = graph.node(id);
        let Scope { layer, path } = node.scope.clone();
        for call in calls {
            let work = self.work_kinds.kind(graph, id, &call.work);
            let label = plan::Label { layer, scope: path.clone(), op: node.op.name().into(), work };
            let action = match call.work {
                Work::Kernel(kernel, args) => plan::Action::Launch {
                    kernel: self.kernel(*kernel),
                    args: args.into_iter().map(|p| self.at(p)).collect(),
                },
                Work::Gemm(g) => plan::Action::Gemm(plan::Gemm {
                    m: g.size.0,
                    n: g.size.1,
                    k: g.size.2,
                    a: self.at(g.a.0),
                    a_strides: g.a.1,
                    b: self.at(g.b.0),
                    b_strides: g.b.1,
                    c: self.at(g.c.0),
                    c_strides: g.c.1,
                    accumulate: g.accumulate,
                    dtype: dtype(g.a.0.dtype),
                    c_dtype: dtype(g.c.0.dtype),
                }),
                Work::Exchange(exchange) => self.start(&exchange),
            };
            self.exchanges.put_off(at, &action, &label);
            let (flops, bytes) = (call.cost.flops, call.cost.bytes);
            self.steps.push(plan::Step { action, label, flops, bytes });
        }
        if self.assignment.waits().iter().all(|wait| wait.start != at) {
            self.steps.extend(self.exchanges.wait(at));
        }
    }

    fn start(&mut self, exchange: &Exchange) -> plan::Action {
        let (from, to) = (self.at(exchange.from), self.at(exchange.to));
        self.exchanges.start(exchange, from, to)
    }

    fn kernel(&mut self, kernel: tile::Kernel) -> usize {
        if let Some(index) = self.kernel_of.get(&kernel.name) {
            return *index;
        }
        self.kernel_of.insert(kernel.name.clone(), self.kernels.len());
        self.kernels.push(kernel);
        self.kernels.len() - 1
    }

    fn at(&self, place: StoragePlace) -> plan::Ref {
        plan::Ref { buffer: self.buffer_of[&place.root], offset: (place.offset * place.dtype.bytes()) as u64 }
    }

    fn buffers(&self, graph: &Graph) -> Vec<plan::Buffer> {
        let entry = |(root, a): (&Value, &linc_passes::memory::Allocation)| {
            let node = graph.node(root.node);
            let name = match node.op.leaf_name() {
                Some(name) if a.bytes > graph.ty(*root).bytes() as u64 => {
                    format!("{name} .. {}", self.last_leaf(graph, *root))
                }
                Some(name) => name.to_string(),
                None if root.port == 0 => format!("{} {}", node.scope, node.op.name()),
                None => format!("{} {}.{}", node.scope, node.op.name(), root.port),
            };
            plan::Buffer {
                name,
                space: if a.persistent { plan::Space::Persistent } else { plan::Space::Scratch },
                offset: a.offset,
                bytes: a.bytes,
                category: category(a.kind, &node.op),
                live: a.live,
            }
        };
        self.memory.allocations.iter().map(entry).collect()
    }

    /// The leaf at the end of a storage that many share.
    fn last_leaf<'g>(&self, graph: &'g Graph, root: Value) -> &'g str {
        let shared = self.assignment.storage.iter().filter(|(_, place)| place.root == root);
        let leaves =
            shared.filter_map(|(v, place)| Some((place.layout.offset, graph.op(v.node).leaf_name()?)));
        leaves.max().map_or("", |(_, name)| name)
    }

    fn bindings(&self, graph: &Graph) -> Vec<plan::Binding> {
        let mut bindings = vec![];
        for id in &self.assignment.order {
            let value = Value { node: *id, port: 0 };
            let (role, init) = match graph.op(*id) {
                Op::Input { .. } => (plan::Role::Input, plan::Init::Zeros),
                Op::Param { init, .. } => (plan::Role::Param, initial(init)),
                Op::State { role, .. } => (plan::Role::State(state_role(role)), plan::Init::Zeros),
                Op::Table { kind, ty, .. } => (plan::Role::Table, table(kind, ty.shape.0[1])),
                _ => continue,
            };
            let name = graph.op(*id).leaf_name().unwrap_or_default();
            bindings.push(self.binding(graph, value, name, role, init));
        }
        for (name, value) in &graph.outputs {
            bindings.push(self.binding(graph, *value, name, plan::Role::Output, plan::Init::Zeros));
        }
        bindings
    }

    fn binding(
        &self,
        graph: &Graph,
        value: Value,
        name: &str,
        role: plan::Role,
        init: plan::Init,
    ) -> plan::Binding {
        let storage = &self.assignment.storage[&value];
        let ty = graph.ty(value);
        let (shape, shard) = of_whole(graph, value);
        let at = self.at(StoragePlace { root: storage.root, offset: storage.layout.offset, dtype: ty.dtype });
        plan::Binding { name: name.to_string(), role, dtype: dtype(ty.dtype), shape, at, init, shard }
    }
}

/// The shape of a tensor, and the part of it that a value is, if it is not all.
fn of_whole(graph: &Graph, value: Value) -> (Vec<usize>, Option<plan::Shard>) {
    let ty = graph.ty(value);
    if let Op::State { role, .. } = graph.op(value.node)
        && let (Some(start), Some(of)) = (role.start(), role.param())
        && let Some(param) = graph.leaf(of)
    {
        let whole = &graph.ty(Value { node: param, port: 0 }).shape;
        let shard = plan::Shard { start, len: ty.shape.numel(), of: whole.numel() };
        return (whole.0.clone(), Some(shard));
    }
    (ty.shape.0.clone(), None)
}

fn dtype(dtype: DType) -> plan::DType {
    match dtype {
        // f64 exists in the interpreter only; the kernel lowering has refused it before.
        DType::F32 | DType::F64 => plan::DType::F32,
        DType::Bf16 => plan::DType::Bf16,
        DType::F16 => plan::DType::F16,
        DType::I32 => plan::DType::I32,
    }
}

fn state_role(role: &StateRole) -> plan::StateRole {
    match role {
        StateRole::OfParam { state, of } | StateRole::OfShard { state, of, .. } => {
            let state = match state {
                ParamState::FirstMoment => plan::ParamState::FirstMoment,
                ParamState::SecondMoment => plan::ParamState::SecondMoment,
                ParamState::Gradient => plan::ParamState::Gradient,
            };
            plan::StateRole::OfParam { state, of: of.clone() }
        }
        StateRole::LossScale => plan::StateRole::LossScale,
        StateRole::KeyValueCache => plan::StateRole::KeyValueCache,
        StateRole::Recurrent => plan::StateRole::Recurrent,
    }
}

fn initial(init: &Init) -> plan::Init {
    match init {
        Init::Zeros => plan::Init::Zeros,
        Init::Ones => plan::Init::Ones,
        Init::Normal { std } => plan::Init::Normal { std: *std },
        Init::TruncNormal { std, bound } => plan::Init::TruncNormal { std: *std, bound: *bound },
    }
}

fn table(kind: &TableKind, pairs: usize) -> plan::Init {
    match kind {
        TableKind::Rope { .. } => plan::Init::Rope { freqs: linc_ir::interp::rope_frequencies(kind, pairs) },
    }
}

fn category(kind: Kind, op: &Op) -> plan::Category {
    match kind {
        Kind::Parameter => plan::Category::Parameters,
        Kind::State => {
            let Op::State { role, .. } = op else { return plan::Category::Inputs };
            category_of_state(role)
        }
        Kind::Input => plan::Category::Inputs,
        Kind::Gradient => plan::Category::Gradients,
        Kind::Activation => plan::Category::Activations,
        Kind::Attention => plan::Category::Attention,
        Kind::Workspace => plan::Category::Workspace,
    }
}

fn category_of_state(role: &StateRole) -> plan::Category {
    match role {
        StateRole::OfParam { state, .. } | StateRole::OfShard { state, .. } => match state {
            ParamState::FirstMoment | ParamState::SecondMoment => plan::Category::OptimizerState,
            ParamState::Gradient => plan::Category::Gradients,
        },
        // What one call leaves for the next: the scale of the loss, caches, recurrent states.
        StateRole::LossScale | StateRole::KeyValueCache | StateRole::Recurrent => plan::Category::Inputs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assembled(text: &str) -> plan::Plan {
        assembled_at(text, &Mesh::default())
    }

    fn assembled_at(text: &str, mesh: &Mesh) -> plan::Plan {
        let mut graph = linc_ir::parse(text).unwrap_or_else(|e| panic!("{e}"));
        let layout = PersistentLayout::default();
        let assignment =
            linc_passes::memory::run(&mut graph, &layout, false).unwrap_or_else(|e| panic!("{e}"));
        let assembled = assemble(&graph, &assignment, Target::Cpu, &Tiles::default(), &layout, mesh);
        let plan = assembled.unwrap_or_else(|e| panic!("{e}")).plan;
        plan::validate::validate(&plan).unwrap_or_else(|e| panic!("{e}\n{text}"));
        plan
    }

    /// Where each step writes, in bytes of the arena: the last argument of each kernel here.
    fn written(plan: &plan::Plan) -> Vec<u64> {
        let of = |step: &plan::Step| match &step.action {
            plan::Action::Launch { args, .. } => {
                args.last().map(|at| plan.buffers[at.buffer].offset + at.offset)
            }
            plan::Action::Gemm(_)
            | plan::Action::Copy { .. }
            | plan::Action::Start { .. }
            | plan::Action::Wait { .. } => None,
        };
        plan.steps.iter().filter_map(of).collect()
    }

    #[test]
    fn vectors_that_are_joined_last_are_made_where_the_whole_is() {
        let vectors = "
  %0: f32[24] = input() {name = \"x\"}
  %1: f32[16] = input() {name = \"y\"}
  %2: f32[24] = silu(%0)
  %3: f32[16] = silu(%1)
";
        let plan = assembled(&format!(
            "graph \"last\" {{{vectors}  %4: f32[40] = concat(%2, %3) {{axis = 0}}\n  output \"z\" = %4\n}}\n"
        ));
        let output = plan.bindings.iter().find(|b| b.role == plan::Role::Output).expect("an output");
        let at = plan.buffers[output.at.buffer].offset + output.at.offset;
        assert_eq!(written(&plan), [at, at + 4 * 24], "no copies");

        // A join of a join, and one whose view is all that follows.
        let plan = assembled(&format!(
            "graph \"nested\" {{{vectors}  %4: f32[24] = exp(%2)\n  %5: f32[40] = concat(%4, %3) {{axis = 0}}\n  \
             %6: f32[16] = exp(%1)\n  %7: f32[56] = concat(%6, %5) {{axis = 0}}\n  %8: f32[7, 8] = reshape(%7)\n  output \"z\" = %8\n}}\n"
        ));
        let output = plan.bindings.iter().find(|b| b.role == plan::Role::Output).expect("an output");
        let at = plan.buffers[output.at.buffer].offset + output.at.offset;
        let places = written(&plan);
        for part in [at, at + 4 * 16, at + 4 * 40] {
            assert!(places.contains(&part), "{part} in {places:?}");
        }

        // With something behind it nothing changes: a whole has memory of its own from then on.
        let plan = assembled(&format!(
            "graph \"inner\" {{{vectors}  %4: f32[40] = concat(%2, %3) {{axis = 0}}\n  %5: f32[40] = exp(%4)\n  output \"z\" = %5\n}}\n"
        ));
        assert_eq!(plan.steps.len(), 3);
    }

    #[test]
    fn exchanges_are_begun_and_waited_for() {
        let plan = |rank: usize| {
            let group = format!(
                "group = ranks(name = \"dp\", first = 0, stride = 1, size = 2, place = {rank}, turn = 0)"
            );
            let mesh = Mesh::new(rank, &[(linc_passes::mesh::MeshAxis::DataReplicate, 2)]);
            assembled_at(
                &format!(
                    "graph \"two\" {{
  %0: f32[8] = input() {{name = \"x\"}}
  %1: f32[8] = all_to_all(%0) {{{group}}}
  %2: f32[4] = reduce_parts(%1) {{parts = 2, reduce = sum}}
  %3: f32[8] = all_gather(%2) {{{group}}}
  %4: f32[4] = exp(%2)
  %5: f32[16] = all_gather(%2, %4) {{{group}}}
  output \"sum\" = %3
  output \"both\" = %5
}}\n"
                ),
                &mesh.unwrap_or_else(|e| panic!("{e}")),
            )
        };
        let plans = [plan(0), plan(1)];
        plan::validate::validate_ranks(&plans).unwrap_or_else(|e| panic!("{e}"));
        let [_, second] = plans;
        let work: Vec<String> = second.steps.iter().map(|step| second.work_name(step)).collect();
        let place = |at: &plan::Ref| second.buffers[at.buffer].offset + at.offset;
        assert_eq!(work[..3], ["all_to_all_4_f32x2", "wait", "reduce_parts_sum_2x4"]);
        assert_eq!(second.world.groups, [plan::Group { name: "dp".into(), members: vec![0, 1] }]);
        let found: Vec<(u64, u64)> =
            second.exchanges().map(|(_, e)| (place(&e.from), place(&e.to))).collect();
        let sum = second.binding(plan::Role::Output, "sum").map(|b| place(&b.at));
        let both = second.binding(plan::Role::Output, "both").map(|b| place(&b.at));
        assert!(
            found.iter().any(|(from, to)| Some(*to) == sum && *from != to + 16),
            "one part goes from where it is"
        );
        // Two parts are brought to their place first.
        assert!(found.iter().any(|(from, to)| Some(*to) == both && *from == to + 32), "{found:?}");
        assert_eq!(second.bytes_sent(), [16 + 16 + 32]);
    }
}
