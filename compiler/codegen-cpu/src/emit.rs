//! Nodes to CLIF: control flow and calls of primitives. Pointwise loops are in `fused`, arithmetic in `arith`.

use std::collections::{BTreeMap, BTreeSet};

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Block, BlockArg, Endianness, ExtFuncData, ExternalName, FuncRef, Function, InstBuilder,
    MemFlagsData, Signature, UserExternalName, UserFuncName, Value, types,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use linc_tile::{Elem, Kernel, Reduction, ValueId};

use crate::arith::clif_scalar;
use crate::half::Half;
use crate::node::{Array, Carry, Node, Place, ReduceTo, RegId, Schedule};
use crate::primitive::Primitive;
use crate::slots::Slots;
use crate::{CodegenError, Compiled, Options};

/// Memory is accessible, with any alignment.
pub(crate) const MEM: MemFlagsData = MemFlagsData::new().with_notrap();

/// Reinterpretation between vectors needs a byte order.
pub(crate) const CAST: MemFlagsData = MemFlagsData::new().with_endianness(Endianness::Little);

/// The state of one translation.
pub(crate) struct Emitter<'a> {
    pub(crate) b: FunctionBuilder<'a>,
    pub(crate) kernel: &'a Kernel,
    pub(crate) slots: &'a Slots,
    pub(crate) options: Options,
    /// Scalars by value id.
    values: BTreeMap<ValueId, Value>,
    params: Vec<Value>,
    pub(crate) pids: [Value; 3],
    pub(crate) scratch: Value,
    calls: BTreeMap<Primitive, FuncRef>,
}

/// A copy of whole registers at an edge of the control flow.
type Move = (RegId, RegId, usize);

/// Translates a scheduled kernel.
pub(crate) fn emit(
    kernel: &Kernel,
    schedule: &Schedule,
    slots: &Slots,
    options: Options,
) -> Result<Compiled, CodegenError> {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params = vec![AbiParam::new(types::I64); 5];
    let mut function = Function::with_name_signature(UserFuncName::user(1, 0), signature);
    let mut context = FunctionBuilderContext::new();
    let mut b = FunctionBuilder::new(&mut function, &mut context);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    let given = b.block_params(entry).to_vec();
    let params = (0..kernel.params.len())
        .map(|k| b.ins().load(types::I64, MEM.with_aligned().with_readonly(), given[0], 8 * k as i32))
        .collect();
    let mut emitter = Emitter {
        b,
        kernel,
        slots,
        options,
        values: BTreeMap::new(),
        params,
        pids: [given[1], given[2], given[3]],
        scratch: given[4],
        calls: BTreeMap::new(),
    };
    emitter
        .nodes(&schedule.nodes)
        .map_err(|message| CodegenError { kernel: kernel.name.clone(), message })?;
    emitter.b.ins().return_(&[]);
    emitter.b.seal_all_blocks();
    let externals: BTreeSet<Primitive> = emitter.calls.keys().copied().collect();
    emitter.b.finalize(TargetFrontendConfig {
        default_call_conv: CallConv::SystemV,
        pointer_width: target_lexicon::PointerWidth::U64,
        page_size_align_log2: 12,
    });
    Ok(Compiled { function, scratch_bytes: slots.bytes, externals: externals.into_iter().collect() })
}

impl Emitter<'_> {
    pub(crate) fn scalar(&self, value: ValueId) -> Value {
        self.values[&value]
    }

    pub(crate) fn iconst(&mut self, value: i64) -> Value {
        self.b.ins().iconst(types::I64, value)
    }

    /// Address of an array's first element, and a constant to add to it.
    pub(crate) fn address(&mut self, place: Place) -> (Value, i32) {
        match place {
            Place::Reg(reg) => (self.scratch, self.slots.offset[reg.0 as usize] as i32),
            Place::Memory { param, offset } => {
                let shift = if self.kernel.param(param).elem.is_narrow() { 1 } else { 2 };
                let offset = self.scalar(offset);
                let offset = self.b.ins().ishl_imm_u(offset, shift);
                (self.b.ins().iadd(self.params[param.0 as usize], offset), 0)
            }
        }
    }

    /// Address of an array's first element.
    pub(crate) fn pointer(&mut self, place: Place) -> Value {
        let (base, offset) = self.address(place);
        self.plus(base, i64::from(offset))
    }

    pub(crate) fn plus(&mut self, base: Value, bytes: i64) -> Value {
        if bytes == 0 {
            return base;
        }
        let bytes = self.iconst(bytes);
        self.b.ins().iadd(base, bytes)
    }

    pub(crate) fn call(&mut self, primitive: Primitive, args: &[Value]) {
        let function = match self.calls.get(&primitive) {
            Some(function) => *function,
            None => {
                let signature = self.b.import_signature(primitive.signature());
                let name = UserExternalName { namespace: 0, index: primitive.index() };
                let name = self.b.func.declare_imported_user_function(name);
                let data = ExtFuncData {
                    name: ExternalName::user(name),
                    signature,
                    colocated: false,
                    patchable: false,
                };
                let function = self.b.import_function(data);
                self.calls.insert(primitive, function);
                function
            }
        };
        self.b.ins().call(function, args);
    }

    // ---- nodes ----

    fn nodes(&mut self, nodes: &[Node]) -> Result<(), String> {
        nodes.iter().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &Node) -> Result<(), String> {
        match node {
            Node::Scalar { result, op } => {
                let value = self.scalar_op(*result, op)?;
                self.values.insert(*result, value);
            }
            Node::StoreScalar { to, value } => self.store_scalar(*to, *value),
            Node::Group(group) => self.group(group),
            Node::Math { function, dst, src, numel } => {
                let dst = self.pointer(Place::Reg(*dst));
                let src = self.pointer(*src);
                let numel = self.iconst(*numel as i64);
                self.call(*function, &[dst, src, numel]);
            }
            Node::Load { dst, src, shape, bounds } => {
                let dst = self.pointer(Place::Reg(*dst));
                let primitive = match src.half {
                    None => Primitive::Load32,
                    Some(Half::Bf16) => Primitive::LoadBf16,
                    Some(Half::F16) => Primitive::LoadF16,
                };
                self.transfer(primitive, dst, *src, *shape, *bounds);
            }
            Node::Store { dst, src, shape, bounds } => {
                let src = self.pointer(Place::Reg(*src));
                let primitive = match dst.half {
                    None => Primitive::Store32,
                    Some(Half::Bf16) => Primitive::StoreBf16,
                    Some(Half::F16) => Primitive::StoreF16,
                };
                self.transfer(primitive, src, *dst, *shape, *bounds);
            }
            Node::Scatter { to, elem, places, src, numel } => {
                let [places, src] = [places, src].map(|reg| self.pointer(Place::Reg(*reg)));
                self.scatter(*to, *elem, places, src, *numel);
            }
            Node::Dot { dst, acc, a, b, sizes } => self.dot(*dst, *acc, a, b, *sizes),
            Node::Reduce { op, to, src, shape, axis } => {
                let primitive = match (op, axis) {
                    (Reduction::Sum, 0) => Primitive::ColSum,
                    (Reduction::Sum, _) => Primitive::RowSum,
                    (Reduction::Max, 0) => Primitive::ColMax,
                    (Reduction::Max, _) => Primitive::RowMax,
                };
                let dst = match to {
                    ReduceTo::Reg(reg) => self.pointer(Place::Reg(*reg)),
                    ReduceTo::Scalar(_) => self.plus(self.scratch, self.slots.scalar as i64),
                };
                let src_pointer = self.pointer(src.place);
                let args = [shape[0] as i64, shape[1] as i64, src.strides[0]].map(|n| self.iconst(n));
                self.call(primitive, &[dst, src_pointer, args[0], args[1], args[2]]);
                if let ReduceTo::Scalar(value) = to {
                    let result = self.b.ins().load(types::F32, MEM, dst, 0);
                    self.values.insert(*value, result);
                }
            }
            Node::Scan { dst, src, shape, axis, reverse } => {
                let primitive = if *axis == 0 { Primitive::ScanCols } else { Primitive::ScanRows };
                let dst = self.pointer(Place::Reg(*dst));
                let src = self.pointer(Place::Reg(*src));
                let args = [shape[0] as i64, shape[1] as i64, i64::from(*reverse)].map(|n| self.iconst(n));
                self.call(primitive, &[dst, src, args[0], args[1], args[2]]);
            }
            Node::For { range, counter, scalars, tiles, body } => {
                self.for_loop(*range, *counter, scalars, tiles, body)?;
            }
            Node::If { cond, scalars, tiles, then, otherwise } => {
                let cond = self.scalar(*cond);
                let [then_block, else_block, end] = [(); 3].map(|()| self.b.create_block());
                self.b.ins().brif(cond, then_block, &[], else_block, &[]);
                for [_, _, result] in scalars {
                    let ty = clif_scalar(self.kernel.ty(*result).elem);
                    self.b.append_block_param(end, ty);
                }
                for (block, nodes, side) in [(then_block, then, 0), (else_block, otherwise, 1)] {
                    self.b.switch_to_block(block);
                    self.nodes(nodes)?;
                    let moves = tiles.iter().map(|(regs, numel)| (regs[side], regs[2], *numel)).collect();
                    self.moves(moves);
                    let args: Vec<BlockArg> = scalars.iter().map(|s| self.scalar(s[side]).into()).collect();
                    self.b.ins().jump(end, &args);
                }
                self.b.switch_to_block(end);
                for (k, [_, _, result]) in scalars.iter().enumerate() {
                    let value = self.b.block_params(end)[k];
                    self.values.insert(*result, value);
                }
            }
        }
        Ok(())
    }

    fn transfer(
        &mut self,
        primitive: Primitive,
        dense: Value,
        array: Array,
        shape: [usize; 2],
        bounds: [Option<ValueId>; 2],
    ) {
        let pointer = self.pointer(array.place);
        let [rows, cols] = shape.map(|n| self.iconst(n as i64));
        let [rs, cs] = array.strides.map(|n| self.iconst(n));
        let row_bound = bounds[0].map_or(rows, |v| self.scalar(v));
        let col_bound = bounds[1].map_or(cols, |v| self.scalar(v));
        let (dst, src) = match primitive {
            Primitive::Store32 | Primitive::StoreBf16 | Primitive::StoreF16 => (pointer, dense),
            _ => (dense, pointer),
        };
        self.call(primitive, &[dst, src, rows, cols, rs, cs, row_bound, col_bound]);
    }

    fn scatter(&mut self, to: Place, elem: Elem, places: Value, src: Value, numel: usize) {
        let to = self.pointer(to);
        let [start, end] = [0, numel as i64].map(|n| self.iconst(n));
        self.counted(start, end, 1, true, |e, i| {
            let distance = e.b.ins().ishl_imm_u(i, 2);
            let from = e.b.ins().iadd(places, distance);
            let place = e.b.ins().load(types::I32, MEM, from, 0);
            let zero = e.b.ins().iconst(types::I32, 0);
            let exists = e.b.ins().icmp(IntCC::SignedGreaterThanOrEqual, place, zero);
            let [store, next] = [(); 2].map(|()| e.b.create_block());
            e.b.ins().brif(exists, store, &[], next, &[]);
            e.b.switch_to_block(store);
            let place = e.b.ins().uextend(types::I64, place);
            let place = e.b.ins().ishl_imm_u(place, if elem.is_narrow() { 1 } else { 2 });
            let address = e.b.ins().iadd(to, place);
            let from = e.b.ins().iadd(src, distance);
            let bits = e.b.ins().load(types::F32, MEM, from, 0);
            e.store_bits(elem, bits, address);
            e.b.ins().jump(next, &[]);
            e.b.switch_to_block(next);
        });
    }

    fn dot(&mut self, dst: RegId, acc: Option<RegId>, a: &Array, b: &Array, sizes: [usize; 3]) {
        if let Some(acc) = acc {
            self.moves(vec![(acc, dst, sizes[0] * sizes[1])]);
        }
        let [m, n, k] = sizes.map(|s| self.iconst(s as i64));
        let left = self.pointer(a.place);
        let right = self.pointer(b.place);
        let [a_rs, a_cs] = a.strides.map(|s| self.iconst(s));
        let [b_rs, b_cs] = b.strides.map(|s| self.iconst(s));
        let c = self.pointer(Place::Reg(dst));
        let accumulate = self.iconst(i64::from(acc.is_some()));
        let pack = self.plus(self.scratch, self.slots.pack as i64);
        self.call(Primitive::Dot, &[m, n, k, left, a_rs, a_cs, right, b_rs, b_cs, c, accumulate, pack]);
    }

    // ---- control ----

    /// Copies registers whose places differ, as if all at once.
    fn moves(&mut self, moves: Vec<Move>) {
        let class = |reg: RegId| self.slots.class[reg.0 as usize];
        let offset = |reg: RegId| self.slots.offset[reg.0 as usize];
        let mut left: Vec<(usize, usize, usize)> = moves
            .into_iter()
            .filter(|(from, to, _)| class(*from) != class(*to))
            .map(|(from, to, numel)| (offset(from), offset(to), numel))
            .collect();
        while !left.is_empty() {
            let free = left.iter().position(|(_, to, _)| left.iter().all(|(from, ..)| from != to));
            match free {
                Some(at) => {
                    let (from, to, numel) = left.remove(at);
                    self.copy(from, to, numel);
                }
                None => {
                    // Every target is still to be read: set one source aside.
                    let (from, _, numel) = left[0];
                    self.copy(from, self.slots.temporary, numel);
                    left[0].0 = self.slots.temporary;
                }
            }
        }
    }

    fn copy(&mut self, from: usize, to: usize, numel: usize) {
        let to = self.plus(self.scratch, to as i64);
        let from = self.plus(self.scratch, from as i64);
        let [one, numel] = [1, numel as i64].map(|n| self.iconst(n));
        self.call(Primitive::Load32, &[to, from, one, numel, numel, one, one, numel]);
    }

    fn for_loop(
        &mut self,
        range: [ValueId; 3],
        counter: ValueId,
        scalars: &[[ValueId; 4]],
        tiles: &[Carry],
        body: &[Node],
    ) -> Result<(), String> {
        let [lower, upper, step] = range.map(|v| self.scalar(v));
        let [header, inside, end] = [(); 3].map(|()| self.b.create_block());
        self.moves(tiles.iter().map(|t| (t.init, t.arg, t.numel)).collect());
        let mut args: Vec<BlockArg> = vec![lower.into()];
        args.extend(scalars.iter().map(|s| BlockArg::from(self.scalar(s[0]))));
        self.b.ins().jump(header, &args);

        self.b.switch_to_block(header);
        let index = self.b.append_block_param(header, types::I64);
        self.values.insert(counter, index);
        for [_, arg, _, result] in scalars {
            let value = self.b.append_block_param(header, clif_scalar(self.kernel.ty(*arg).elem));
            self.values.insert(*arg, value);
            self.values.insert(*result, value);
        }
        let more = self.b.ins().icmp(IntCC::SignedLessThan, index, upper);
        self.b.ins().brif(more, inside, &[], end, &[]);

        self.b.switch_to_block(inside);
        self.nodes(body)?;
        self.moves(tiles.iter().map(|t| (t.yielded, t.arg, t.numel)).collect());
        let next = self.b.ins().iadd(index, step);
        let mut args: Vec<BlockArg> = vec![next.into()];
        args.extend(scalars.iter().map(|s| BlockArg::from(self.scalar(s[2]))));
        self.b.ins().jump(header, &args);

        self.b.switch_to_block(end);
        self.moves(tiles.iter().map(|t| (t.arg, t.result, t.numel)).collect());
        Ok(())
    }

    /// Runs `body` for `index` from `start` below `end` in steps; `known` says that there is a first round.
    pub(crate) fn counted(
        &mut self,
        start: Value,
        end: Value,
        step: i64,
        known: bool,
        body: impl FnOnce(&mut Self, Value),
    ) {
        let [inside, after]: [Block; 2] = [(); 2].map(|()| self.b.create_block());
        let index = self.b.append_block_param(inside, types::I64);
        if known {
            self.b.ins().jump(inside, &[start.into()]);
        } else {
            let any = self.b.ins().icmp(IntCC::SignedLessThan, start, end);
            self.b.ins().brif(any, inside, &[start.into()], after, &[]);
        }
        self.b.switch_to_block(inside);
        body(self, index);
        let step = self.iconst(step);
        let next = self.b.ins().iadd(index, step);
        let more = self.b.ins().icmp(IntCC::SignedLessThan, next, end);
        self.b.ins().brif(more, inside, &[next.into()], after, &[]);
        self.b.switch_to_block(after);
    }
}
