//! A function under construction: scalars, addresses, calls of primitives, counted loops, moves of tiles.

use std::collections::{BTreeMap, BTreeSet};

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    Block, ExtFuncData, ExternalName, FuncRef, InstBuilder, MemFlagsData, Type, UserExternalName, Value,
    types,
};
use cranelift_frontend::FunctionBuilder;
use linc_tile::{Elem, Kernel, ValueId};

use crate::CpuCodegenOptions;
use crate::primitive::Primitive;
use crate::schedule::node::{RegId, Storage};
use crate::schedule::slots::Slots;

/// Memory is accessible, with any alignment.
pub(crate) const MEM: MemFlagsData = MemFlagsData::new().with_notrap();

/// The state of one translation.
pub(crate) struct Code<'a> {
    pub(crate) f: FunctionBuilder<'a>,
    pub(crate) kernel: &'a Kernel,
    pub(crate) slots: &'a Slots,
    pub(crate) options: CpuCodegenOptions,
    /// Scalars by value id.
    values: BTreeMap<ValueId, Value>,
    params: Vec<Value>,
    pub(crate) pids: [Value; 3],
    pub(crate) scratch: Value,
    calls: BTreeMap<Primitive, FuncRef>,
}

/// A copy of whole registers at an edge of the control flow.
type Move = (RegId, RegId, usize);

impl<'a> Code<'a> {
    /// At the start of a function with these arguments: pointers to all parameters, three program ids, scratch.
    pub(crate) fn new(
        mut f: FunctionBuilder<'a>,
        given: &[Value],
        kernel: &'a Kernel,
        slots: &'a Slots,
        options: CpuCodegenOptions,
    ) -> Code<'a> {
        let flags = MEM.with_aligned().with_readonly();
        let params = (0..kernel.params.len())
            .map(|k| f.ins().load(types::I64, flags, given[0], 8 * k as i32))
            .collect();
        Code {
            f,
            kernel,
            slots,
            options,
            values: BTreeMap::new(),
            params,
            pids: [given[1], given[2], given[3]],
            scratch: given[4],
            calls: BTreeMap::new(),
        }
    }

    /// The primitives that the function calls.
    pub(crate) fn externals(&self) -> BTreeSet<Primitive> {
        self.calls.keys().copied().collect()
    }

    /// Says what a scalar of the kernel is.
    pub(crate) fn define(&mut self, scalar: ValueId, value: Value) {
        self.values.insert(scalar, value);
    }

    pub(crate) fn scalar(&self, value: ValueId) -> Value {
        self.values[&value]
    }

    pub(crate) fn iconst(&mut self, value: i64) -> Value {
        self.f.ins().iconst(types::I64, value)
    }

    /// Address of an array's first element, and a constant to add to it.
    pub(crate) fn address(&mut self, place: Storage) -> (Value, i32) {
        match place {
            Storage::Reg(reg) => (self.scratch, self.slots.offset[reg.0 as usize] as i32),
            Storage::Memory { param, offset } => {
                let shift = if self.kernel.param(param).elem.is_narrow() { 1 } else { 2 };
                let offset = self.scalar(offset);
                let offset = self.f.ins().ishl_imm_u(offset, shift);
                (self.f.ins().iadd(self.params[param.0 as usize], offset), 0)
            }
        }
    }

    /// Address of an array's first element.
    pub(crate) fn pointer(&mut self, place: Storage) -> Value {
        let (base, offset) = self.address(place);
        self.plus(base, i64::from(offset))
    }

    pub(crate) fn plus(&mut self, base: Value, bytes: i64) -> Value {
        if bytes == 0 {
            return base;
        }
        let bytes = self.iconst(bytes);
        self.f.ins().iadd(base, bytes)
    }

    pub(crate) fn call(&mut self, primitive: Primitive, args: &[Value]) {
        let function = match self.calls.get(&primitive) {
            Some(function) => *function,
            None => {
                let signature = self.f.import_signature(primitive.signature());
                let name = UserExternalName { namespace: 0, index: primitive.index() };
                let name = self.f.func.declare_imported_user_function(name);
                let data = ExtFuncData {
                    name: ExternalName::user(name),
                    signature,
                    colocated: false,
                    patchable: false,
                };
                let function = self.f.import_function(data);
                self.calls.insert(primitive, function);
                function
            }
        };
        self.f.ins().call(function, args);
    }

    /// Copies registers whose places differ, as if all at once.
    pub(crate) fn moves(&mut self, moves: Vec<Move>) {
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

    /// Runs `body` for `index` from `start` below `end` in steps; `known` says that there is a first round.
    pub(crate) fn counted(
        &mut self,
        start: Value,
        end: Value,
        step: i64,
        known: bool,
        body: impl FnOnce(&mut Self, Value),
    ) {
        let [inside, after]: [Block; 2] = [(); 2].map(|()| self.f.create_block());
        let index = self.f.append_block_param(inside, types::I64);
        if known {
            self.f.ins().jump(inside, &[start.into()]);
        } else {
            let any = self.f.ins().icmp(IntCC::SignedLessThan, start, end);
            self.f.ins().brif(any, inside, &[start.into()], after, &[]);
        }
        self.f.switch_to_block(inside);
        body(self, index);
        let step = self.iconst(step);
        let next = self.f.ins().iadd(index, step);
        let more = self.f.ins().icmp(IntCC::SignedLessThan, next, end);
        self.f.ins().brif(more, inside, &[next.into()], after, &[]);
        self.f.switch_to_block(after);
    }
}

/// How a scalar is held in a register: short floats as f32, a Bool as a byte.
pub(crate) fn clif_scalar(elem: Elem) -> Type {
    match elem {
        Elem::F32 | Elem::Bf16 | Elem::F16 => types::F32,
        Elem::I32 => types::I32,
        Elem::Index => types::I64,
        Elem::Bool => types::I8,
    }
}
