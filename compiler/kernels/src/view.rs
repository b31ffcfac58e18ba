//! A node as the lowering sees it: types, layouts and places of its operands and results.

use std::collections::BTreeMap;

use linc_ir::layout::{Layout, Storage};
use linc_ir::{DType, Graph, NodeId, Op, Shape, TensorType, Value};
use linc_tile as tile;
use tile::Elem;
use tile::library::attention::HeadStrides;

use crate::cost::{Cost, cost};
use crate::tiles::{Family, Site, Tile, Tiles};
use crate::{Call, Gemm, KernelError, Place, Target, Work};

/// A node in its surroundings; collects calls.
pub(crate) struct Lowering<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) id: NodeId,
    pub(crate) operands: Vec<Value>,
    pub(crate) results: Vec<Value>,
    storage: &'a BTreeMap<Value, Storage>,
    target: Target,
    tiles: &'a Tiles,
    pub(crate) calls: Vec<Call>,
}

impl<'a> Lowering<'a> {
    pub(crate) fn new(
        graph: &'a Graph,
        id: NodeId,
        storage: &'a BTreeMap<Value, Storage>,
        target: Target,
        tiles: &'a Tiles,
    ) -> Self {
        let (operands, results) = (graph.operands(id), graph.results(id).collect());
        Lowering { graph, id, operands, results, storage, target, tiles, calls: vec![] }
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

    pub(crate) fn place(&self, value: Value) -> Place {
        let storage = &self.storage[&value];
        Place { root: storage.root, offset: storage.layout.offset, dtype: self.ty(value).dtype }
    }

    pub(crate) fn places(&self, values: &[Value]) -> Vec<Place> {
        values.iter().map(|v| self.place(*v)).collect()
    }

    pub(crate) fn elem(&self, value: Value) -> Result<Elem, KernelError> {
        match self.ty(value).dtype {
            DType::F32 => Ok(Elem::F32),
            DType::Bf16 => Ok(Elem::Bf16),
            DType::F16 => Ok(Elem::F16),
            DType::I32 => Ok(Elem::I32),
            DType::F64 => self.fail("f64 exists in the interpreter only"),
        }
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
    pub(crate) fn tile(&self, family: Family) -> Result<Tile, KernelError> {
        let sites = Site::of_node(self.graph, self.id);
        let Some(site) = sites.iter().find(|site| site.family == family) else {
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

    /// Adds a kernel launch with an even share of the node's cost.
    pub(crate) fn launch(&mut self, kernel: tile::Kernel, args: Vec<Place>) {
        self.calls.push(Call { work: Work::Kernel(Box::new(kernel), args), cost: Cost::default() });
    }

    /// Adds a kernel launch that knows its own cost.
    pub(crate) fn launch_costing(&mut self, cost: Cost, kernel: tile::Kernel, args: Vec<Place>) {
        self.calls.push(Call { work: Work::Kernel(Box::new(kernel), args), cost });
    }

    /// Adds a matmul, which knows its own cost.
    pub(crate) fn gemm(&mut self, gemm: Gemm) {
        let (m, n, k) = gemm.size;
        let width = |p: Place| p.dtype.bytes() as u64;
        // What is added to is read as well.
        let visits = if gemm.accumulate { 2 } else { 1 };
        let bytes = (m * k) as u64 * width(gemm.a.0)
            + (k * n) as u64 * width(gemm.b.0)
            + visits * (m * n) as u64 * width(gemm.c.0);
        let cost = Cost { flops: 2 * (m * n * k) as u64, bytes };
        self.calls.push(Call { work: Work::Gemm(gemm), cost });
    }

    /// The calls; what the node costs beyond those that know their own is spread evenly over the others.
    pub(crate) fn finish(mut self) -> Vec<Call> {
        let total = cost(self.graph, self.id);
        let known: Cost = self.calls.iter().map(|c| c.cost).fold(Cost::default(), |a, b| a + b);
        let open = self.calls.iter().filter(|c| c.cost == Cost::default()).count() as u64;
        let share = |total: u64, known: u64| total.saturating_sub(known).checked_div(open).unwrap_or(0);
        let rest = Cost { flops: share(total.flops, known.flops), bytes: share(total.bytes, known.bytes) };
        for call in self.calls.iter_mut().filter(|c| c.cost == Cost::default()) {
            call.cost = rest;
        }
        self.calls
    }
}
