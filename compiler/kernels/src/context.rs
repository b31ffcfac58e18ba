//! The nodes of a graph as the lowering sees them: types, layouts and places of operands and results, and what is decided for all.

use std::collections::BTreeMap;

use linc_ir::layout::{Layout, Storage};
use linc_ir::{DType, Graph, NodeId, Op, Shape, TensorType, Value};
use linc_tile as tile;
use tile::Elem;
use tile::library::attention::HeadStrides;

use crate::cost::{Cost, cost};
use crate::tiles::{Site, Tile, Tiles, TunableKernel};
use crate::{Call, Exchange, Gemm, KernelError, StoragePlace, Target, Work};

/// What the nodes of a graph are lowered with.
pub struct Context<'a> {
    storage: &'a BTreeMap<Value, Storage>,
    target: Target,
    tiles: &'a Tiles,
    /// Operations of kernels that were counted, by name: layers have the same ones.
    pub(crate) operations: BTreeMap<String, u64>,
}

/// The type of a tile's elements for a tensor's; f64 exists in the interpreter only.
pub(crate) fn elem_of(dtype: DType) -> Option<Elem> {
    match dtype {
        DType::F32 => Some(Elem::F32),
        DType::Bf16 => Some(Elem::Bf16),
        DType::F16 => Some(Elem::F16),
        DType::I32 => Some(Elem::I32),
        DType::F64 => None,
    }
}

impl<'a> Context<'a> {
    /// `storage` says where values live, `tiles` are the sizes that somebody chose.
    pub fn new(storage: &'a BTreeMap<Value, Storage>, target: Target, tiles: &'a Tiles) -> Self {
        Context { storage, target, tiles, operations: BTreeMap::new() }
    }
}

/// A launch, and what is known of its cost.
struct Draft {
    work: Work,
    flops: Option<u64>,
    bytes: Option<u64>,
}

/// A node in its surroundings; collects calls.
pub(crate) struct Lowering<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) id: NodeId,
    pub(crate) operands: Vec<Value>,
    pub(crate) results: Vec<Value>,
    storage: &'a BTreeMap<Value, Storage>,
    pub(crate) target: Target,
    tiles: &'a Tiles,
    drafts: Vec<Draft>,
}

impl<'a> Lowering<'a> {
    pub(crate) fn new(graph: &'a Graph, id: NodeId, context: &Context<'a>) -> Self {
        let (operands, results) = (graph.operands(id), graph.results(id).collect());
        let Context { storage, target, tiles, .. } = *context;
        Lowering { graph, id, operands, results, storage, target, tiles, drafts: vec![] }
    }

    pub(crate) fn op(&self) -> &'a Op {
        self.graph.op(self.id)
    }

    pub(crate) fn ty(&self, value: Value) -> &'a TensorType {
        self.graph.ty(value)
    }

    pub(crate) fn shape(&self, value: Value) -> &'a Shape {
        &self.graph.ty(value).shape
    }

    pub(crate) fn layout(&self, value: Value) -> &'a Layout {
        &self.storage[&value].layout
    }

    pub(crate) fn root(&self, value: Value) -> Value {
        self.storage[&value].root
    }

    pub(crate) fn place(&self, value: Value) -> StoragePlace {
        let storage = &self.storage[&value];
        StoragePlace { root: storage.root, offset: storage.layout.offset, dtype: self.ty(value).dtype }
    }

    pub(crate) fn places(&self, values: &[Value]) -> Vec<StoragePlace> {
        values.iter().map(|v| self.place(*v)).collect()
    }

    pub(crate) fn elem(&self, value: Value) -> Result<Elem, KernelError> {
        let elem = elem_of(self.ty(value).dtype);
        elem.map_or_else(|| self.fail("f64 exists in the interpreter only"), Ok)
    }

    /// The element type of all float operands and results of an operation that wants one.
    pub(crate) fn uniform_elem(&self, values: &[Value]) -> Result<Elem, KernelError> {
        let first = self.elem(values[0])?;
        for value in values {
            if self.elem(*value)? != first {
                return self.fail("operands of different element types");
            }
        }
        Ok(first)
    }

    /// The tile size of one of the node's kernels: the one that was chosen, else linc's own.
    pub(crate) fn tile(&self, kernel: TunableKernel) -> Result<Tile, KernelError> {
        let sites = Site::of_node(self.graph, self.id, self.target);
        let Some(site) = sites.iter().find(|site| site.kernel == kernel) else {
            return self.fail("its tiles cannot be chosen");
        };
        Ok(self.tiles.get(site).copied().unwrap_or_else(|| site.default_tile(self.target)))
    }

    pub(crate) fn fail<T>(&self, message: impl Into<String>) -> Result<T, KernelError> {
        let node = self.graph.node(self.id);
        Err(KernelError { scope: node.scope.clone(), op: node.op.name(), message: message.into() })
    }

    /// Batch, sequence and head strides of a `[B, N, heads, D]` value.
    pub(crate) fn head_strides(&self, value: Value) -> HeadStrides {
        let s = &self.layout(value).strides;
        HeadStrides { batch: s[0], seq: s[1], head: s[2] }
    }

    /// Adds a kernel launch that bears what the node costs beyond launches that know their own cost.
    pub(crate) fn launch(&mut self, kernel: tile::Kernel, args: Vec<StoragePlace>) {
        let work = Work::Kernel(Box::new(kernel), args);
        self.drafts.push(Draft { work, flops: None, bytes: None });
    }

    /// Adds one of several kernel launches of a node: it moves each of its arguments once each way, and bears a share of
    /// the node's operations by what its tile program computes.
    pub(crate) fn launch_on(&mut self, kernel: tile::Kernel, args: &[Value]) {
        self.launch_in_slots(kernel, args, &[]);
    }

    /// As [`Lowering::launch_on`]; of `states` `[slots, ..]` it moves those of as many slots as operand 0 has sequences.
    pub(crate) fn launch_in_slots(&mut self, kernel: tile::Kernel, args: &[Value], states: &[Value]) {
        let batch = self.shape(self.operands[0]).0[0];
        let bytes = self.moved(&kernel, args, |value, bytes| match states.contains(&value) {
            true => bytes / self.shape(value).0[0] as u64 * batch as u64,
            false => bytes,
        });
        let work = Work::Kernel(Box::new(kernel), self.places(args));
        self.drafts.push(Draft { work, flops: None, bytes: Some(bytes) });
    }

    /// Bytes that a launch moves: of each argument what `part` says of its bytes, once each way.
    pub(crate) fn moved(
        &self,
        kernel: &tile::Kernel,
        args: &[Value],
        part: impl Fn(Value, u64) -> u64,
    ) -> u64 {
        let ways = |mode: tile::Mode| if mode == tile::Mode::ReadWrite { 2 } else { 1 };
        let of = |(value, param): (&Value, &tile::Param)| {
            ways(param.mode) * part(*value, self.ty(*value).bytes() as u64)
        };
        args.iter().zip(&kernel.params).map(of).sum()
    }

    /// Adds a kernel launch that knows its own cost.
    pub(crate) fn launch_costing(&mut self, cost: Cost, kernel: tile::Kernel, args: Vec<StoragePlace>) {
        let work = Work::Kernel(Box::new(kernel), args);
        self.drafts.push(Draft { work, flops: Some(cost.flops), bytes: Some(cost.bytes) });
    }

    /// Adds a matmul, which knows its own cost.
    pub(crate) fn gemm(&mut self, gemm: Gemm) {
        let (m, n, k) = gemm.size;
        let width = |p: StoragePlace| p.dtype.bytes() as u64;
        // What is added to is read as well.
        let visits = if gemm.accumulate { 2 } else { 1 };
        let bytes = (m * k) as u64 * width(gemm.a.0)
            + (k * n) as u64 * width(gemm.b.0)
            + visits * (m * n) as u64 * width(gemm.c.0);
        let flops = 2 * (m * n * k) as u64;
        self.drafts.push(Draft { work: Work::Gemm(gemm), flops: Some(flops), bytes: Some(bytes) });
    }

    /// Adds an exchange, which moves elements and computes nothing.
    pub(crate) fn exchange(&mut self, exchange: Exchange) {
        let (reads, writes) = exchange.elements();
        let bytes = ((reads + writes) * exchange.to.dtype.bytes()) as u64;
        self.drafts.push(Draft { work: Work::Exchange(exchange), flops: Some(0), bytes: Some(bytes) });
    }

    /// The calls, with all that the node costs.
    pub(crate) fn finish(self, operations: &mut BTreeMap<String, u64>) -> Vec<Call> {
        let total = cost(self.graph, self.id);
        let flops = shares(total.flops, &self.drafts, operations, |draft| draft.flops);
        let bytes = shares(total.bytes, &self.drafts, operations, |draft| draft.bytes);
        let costs = flops.into_iter().zip(bytes).map(|(flops, bytes)| Cost { flops, bytes });
        self.drafts.into_iter().zip(costs).map(|(Draft { work, .. }, cost)| Call { work, cost }).collect()
    }
}

/// What each launch costs: what it says, or else a share, by the operations of its tile program, of what the others
/// leave of the total.
fn shares(
    total: u64,
    drafts: &[Draft],
    operations: &mut BTreeMap<String, u64>,
    known: impl Fn(&Draft) -> Option<u64>,
) -> Vec<u64> {
    let rest = total.saturating_sub(drafts.iter().filter_map(&known).sum());
    let open = drafts.iter().filter(|draft| known(draft).is_none()).count();
    let mut weight = |draft: &Draft| match (known(draft), &draft.work) {
        (None, Work::Kernel(kernel, _)) if open > 1 => {
            *operations.entry(kernel.name.clone()).or_insert_with(|| tile::cost::cost(kernel).flops().max(1))
        }
        (None, _) => 1,
        (Some(_), _) => 0,
    };
    let weights: Vec<u64> = drafts.iter().map(&mut weight).collect();
    let all = weights.iter().map(|w| u128::from(*w)).sum::<u128>().max(1);
    let share = |weight: &u64| (u128::from(rest) * u128::from(*weight) / all) as u64;
    drafts.iter().zip(&weights).map(|(draft, weight)| known(draft).unwrap_or_else(|| share(weight))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_launches_do_not_know_of_their_cost_is_shared_by_what_they_compute() {
        let kernel = |rows: usize| {
            let text = format!(
                "kernel double{rows}(x: read f32, y: write f32) grid(1, 1, 1) {{\n\
                 %c: index = const 0\n\
                 %v: f32[{rows}, 8] = load x[%c; 8, 1]\n\
                 %w: f32[{rows}, 8] = add %v, %v\n\
                 store y[%c; 8, 1], %w\n}}\n"
            );
            tile::parse(&text).unwrap_or_else(|e| panic!("{e}"))
        };
        let draft =
            |rows, flops| Draft { work: Work::Kernel(Box::new(kernel(rows)), vec![]), flops, bytes: None };
        let drafts = [draft(1, None), draft(3, None), draft(64, Some(100))];
        let mut operations = BTreeMap::new();
        let mut flops = |total, drafts: &[Draft]| shares(total, drafts, &mut operations, |d| d.flops);
        assert_eq!(flops(500, &drafts), [100, 300, 100]);
        // More is known than the node costs.
        assert_eq!(flops(50, &drafts), [0, 0, 100]);
        assert_eq!(flops(500, &drafts[..1]), [500]);
        assert_eq!(operations, BTreeMap::from([("double1".into(), 8), ("double3".into(), 24)]));
    }
}
