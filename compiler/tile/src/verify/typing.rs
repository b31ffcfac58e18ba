//! Rules of single operations: which types go in, which come out.

use crate::ir::{Binary, Elem, Kernel, Mode, Op, Stmt, TileType, Unary, ValueId, View};

/// Rules 7 to 12 of [`crate::verify`]. All values are defined and their types are valid.
pub(super) fn check(kernel: &Kernel, names: &[String], stmt: &Stmt) -> Result<(), String> {
    Typing { kernel, names, results: &stmt.results }.op(&stmt.op)
}

struct Typing<'a> {
    kernel: &'a Kernel,
    names: &'a [String],
    results: &'a [ValueId],
}

type Rule = Result<(), String>;

fn rule(holds: bool, message: impl FnOnce() -> String) -> Rule {
    if holds { Ok(()) } else { Err(message()) }
}

impl Typing<'_> {
    fn ty(&self, value: ValueId) -> &TileType {
        self.kernel.ty(value)
    }

    /// `%name: type`
    fn show(&self, value: ValueId) -> String {
        format!("`%{}: {}`", self.names[value.0 as usize], self.ty(value))
    }

    /// The type of the only result.
    fn result(&self) -> Result<&TileType, String> {
        match self.results {
            [result] => Ok(self.ty(*result)),
            results => Err(format!("the operation has one result, {} are defined", results.len())),
        }
    }

    fn result_is(&self, expected: &TileType) -> Rule {
        let found = self.result()?;
        rule(found == expected, || format!("the result is {expected}, not {found}"))
    }

    fn same_type(&self, a: ValueId, b: ValueId) -> Rule {
        rule(self.ty(a) == self.ty(b), || {
            format!("operands must have one type, found {} and {}", self.show(a), self.show(b))
        })
    }

    fn elem_in(&self, value: ValueId, allowed: &[Elem]) -> Rule {
        rule(allowed.contains(&self.ty(value).elem), || {
            let allowed: Vec<&str> = allowed.iter().map(|e| e.name()).collect();
            format!("the operation works on {}, found {}", allowed.join(", "), self.show(value))
        })
    }

    fn scalar(&self, value: ValueId, elem: Elem, what: &str) -> Rule {
        let expected = TileType::scalar(elem);
        rule(*self.ty(value) == expected, || format!("the {what} is {expected}, found {}", self.show(value)))
    }

    /// An axis of a value that has such an axis.
    fn axis_of(&self, value: ValueId, axis: usize) -> Rule {
        rule(axis < self.ty(value).shape.len(), || format!("{} has no axis {axis}", self.show(value)))
    }

    fn op(&self, op: &Op) -> Rule {
        match op {
            Op::ConstF(_) => self.result_is(&TileType::scalar(Elem::F32)),
            Op::ConstI(value) => self.const_int(*value),
            Op::ProgramId(axis) => {
                rule(*axis < 3, || format!("the grid has axes 0, 1 and 2, not {axis}"))?;
                self.result_is(&TileType::scalar(Elem::Index))
            }
            Op::Unary(op, a) => {
                self.elem_in(*a, &[if *op == Unary::Not { Elem::Bool } else { Elem::F32 }])?;
                self.result_is(self.ty(*a))
            }
            Op::Binary(op, a, b) => {
                self.same_type(*a, *b)?;
                self.elem_in(
                    *a,
                    match op {
                        Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Min | Binary::Max => {
                            &[Elem::F32, Elem::I32, Elem::Index]
                        }
                        Binary::Rem => &[Elem::I32, Elem::Index],
                        Binary::And | Binary::Or => &[Elem::Bool],
                    },
                )?;
                self.result_is(self.ty(*a))
            }
            Op::Fma(a, b, c) => {
                self.same_type(*a, *b)?;
                self.same_type(*a, *c)?;
                self.elem_in(*a, &[Elem::F32])?;
                self.result_is(self.ty(*a))
            }
            Op::Compare(_, a, b) => {
                self.same_type(*a, *b)?;
                self.elem_in(*a, &[Elem::F32, Elem::I32, Elem::Index])?;
                self.result_is(&TileType::new(Elem::Bool, &self.ty(*a).shape))
            }
            Op::Select(cond, a, b) => {
                self.same_type(*a, *b)?;
                let expected = TileType::new(Elem::Bool, &self.ty(*a).shape);
                rule(*self.ty(*cond) == expected, || {
                    format!("the condition is {expected}, found {}", self.show(*cond))
                })?;
                self.result_is(self.ty(*a))
            }
            Op::Cast(a) => self.cast(*a),
            Op::Splat(a) => {
                rule(self.ty(*a).shape.is_empty(), || format!("splat of a scalar, found {}", self.show(*a)))?;
                self.result_is(&TileType::new(self.ty(*a).elem, &self.result()?.shape))
            }
            Op::Expand { vector, axis } => self.expand(*vector, *axis),
            Op::Iota { axis } => {
                let result = self.result()?;
                rule(*axis < result.shape.len(), || format!("{result} has no axis {axis}"))?;
                self.result_is(&TileType::new(Elem::I32, &result.shape))
            }
            Op::Load(view) => {
                let result = self.result()?;
                self.view(view, result)?;
                self.mode(view, "loaded from", |mode| match mode {
                    Mode::Read | Mode::ReadWrite => true,
                    Mode::Write => false,
                })
            }
            Op::Store(view, value) => {
                self.no_result()?;
                self.view(view, self.ty(*value))?;
                self.stored_to(view)
            }
            Op::Scatter { to, places, value } => self.scatter(to, *places, *value),
            Op::Dot { a, b, acc, trans_a, trans_b } => self.dot((*a, *trans_a), (*b, *trans_b), *acc),
            Op::Reduce { op: _, axis, value } => {
                self.axis_of(*value, *axis)?;
                self.elem_in(*value, &[Elem::F32])?;
                let mut expected = self.ty(*value).clone();
                expected.shape.remove(*axis);
                self.result_is(&expected)
            }
            Op::Scan { axis, reverse: _, value } => {
                self.axis_of(*value, *axis)?;
                self.elem_in(*value, &[Elem::F32])?;
                self.result_is(self.ty(*value))
            }
            Op::Transpose(a) => match self.ty(*a).shape[..] {
                [m, n] => self.result_is(&TileType::new(self.ty(*a).elem, &[n, m])),
                _ => Err(format!("transpose of a matrix, found {}", self.show(*a))),
            },
            Op::For { lower, upper, step, init, body } => {
                self.scalar(*lower, Elem::Index, "first counter")?;
                self.scalar(*upper, Elem::Index, "end of the loop")?;
                self.scalar(*step, Elem::Index, "step")?;
                let Some((counter, carried)) = body.args.split_first() else {
                    return Err("a loop's region has its counter as first argument".into());
                };
                self.scalar(*counter, Elem::Index, "counter")?;
                self.results_are("initial values", init)?;
                self.results_are("carried values", carried)?;
                self.results_are("yielded values", &body.yields)
            }
            Op::If { cond, then, otherwise } => {
                self.scalar(*cond, Elem::Bool, "condition")?;
                rule(then.args.is_empty() && otherwise.args.is_empty(), || {
                    "the regions of an `if` have no arguments".into()
                })?;
                self.results_are("values yielded if true", &then.yields)?;
                self.results_are("values yielded if false", &otherwise.yields)
            }
        }
    }

    fn no_result(&self) -> Rule {
        rule(self.results.is_empty(), || "the operation has no result".into())
    }

    fn const_int(&self, value: i64) -> Rule {
        let ty = self.result()?;
        rule(ty.shape.is_empty(), || format!("a constant is a scalar, not {ty}; use splat"))?;
        match ty.elem {
            Elem::Index => Ok(()),
            Elem::I32 => rule(i32::try_from(value).is_ok(), || format!("{value} does not fit i32")),
            Elem::F32 | Elem::Bf16 | Elem::F16 | Elem::Bool => {
                Err(format!("an integer constant is i32 or index, not {ty}"))
            }
        }
    }

    fn cast(&self, a: ValueId) -> Rule {
        let (from, to) = (self.ty(a), self.result()?);
        rule(from.shape == to.shape, || format!("a cast keeps the shape, found {} to {to}", self.show(a)))?;
        let known = matches!(
            (from.elem, to.elem),
            (Elem::F32, Elem::Bf16 | Elem::F16)
                | (Elem::Bf16 | Elem::F16, Elem::F32)
                | (Elem::I32, Elem::F32)
                | (Elem::F32, Elem::I32)
                | (Elem::I32, Elem::Index)
                | (Elem::Index, Elem::I32)
        );
        rule(known, || format!("there is no cast from {} to {}", from.elem, to.elem))
    }

    fn expand(&self, vector: ValueId, axis: usize) -> Rule {
        let result = self.result()?;
        let (from, to) = (&self.ty(vector).shape, &result.shape);
        let fits = match (from.as_slice(), to.as_slice(), axis) {
            ([n], [_, cols], 0) => n == cols,
            ([m], [rows, _], 1) => m == rows,
            _ => false,
        };
        rule(fits, || format!("expand of {} along axis {axis} does not give {result}", self.show(vector)))?;
        self.result_is(&TileType::new(self.ty(vector).elem, to))
    }

    /// The rules of an access to memory as a tile of that type: element type, number of axes, offset and bounds.
    fn view(&self, view: &View, tile: &TileType) -> Rule {
        let Some(param) = self.kernel.params.get(view.param.0 as usize) else {
            return Err(format!("there is no parameter {}", view.param.0));
        };
        rule(tile.elem == param.elem, || {
            format!("`{}` holds {}, the tile is {tile}; cast it", param.name, param.elem)
        })?;
        rule(tile.shape.len() == view.axes.len(), || {
            format!("a tile {tile} needs {} strides, found {}", tile.shape.len(), view.axes.len())
        })?;
        self.scalar(view.offset, Elem::Index, "offset")?;
        view.axes.iter().filter_map(|axis| axis.bound).try_for_each(|b| self.scalar(b, Elem::Index, "bound"))
    }

    fn scatter(&self, to: &View, places: ValueId, value: ValueId) -> Rule {
        self.no_result()?;
        let ty = self.ty(value);
        rule(ty.shape.len() == 1, || format!("scatter of a vector, found {}", self.show(value)))?;
        let expected = TileType::new(Elem::I32, &ty.shape);
        rule(*self.ty(places) == expected, || {
            format!("the places are {expected}, found {}", self.show(places))
        })?;
        rule(to.axes.is_empty(), || "scatter to a view without strides".into())?;
        self.view(to, &TileType::scalar(ty.elem))?;
        self.stored_to(to)
    }

    fn stored_to(&self, view: &View) -> Rule {
        self.mode(view, "stored to", |mode| match mode {
            Mode::Write | Mode::ReadWrite => true,
            Mode::Read => false,
        })
    }

    fn mode(&self, view: &View, what: &str, allowed: impl Fn(Mode) -> bool) -> Rule {
        let param = self.kernel.param(view.param);
        rule(allowed(param.mode), || {
            format!("`{}` is declared `{}` and cannot be {what}", param.name, param.mode)
        })
    }

    fn dot(&self, a: (ValueId, bool), b: (ValueId, bool), acc: Option<ValueId>) -> Rule {
        let matrix = |(value, trans): (ValueId, bool)| match self.ty(value).shape[..] {
            [rows, cols] => Ok(if trans { (cols, rows) } else { (rows, cols) }),
            _ => Err(format!("dot of matrices, found {}", self.show(value))),
        };
        let ((m, ka), (kb, n)) = (matrix(a)?, matrix(b)?);
        rule(ka == kb, || format!("dot of [{m}, {ka}] and [{kb}, {n}]: the inner sizes differ"))?;
        self.elem_in(a.0, &[Elem::F32, Elem::Bf16, Elem::F16])?;
        rule(self.ty(a.0).elem == self.ty(b.0).elem, || {
            format!("dot of two element types, {} and {}", self.show(a.0), self.show(b.0))
        })?;
        let expected = TileType::new(Elem::F32, &[m, n]);
        if let Some(acc) = acc {
            rule(*self.ty(acc) == expected, || {
                format!("the accumulator is {expected}, found {}", self.show(acc))
            })?;
        }
        self.result_is(&expected)
    }

    /// Whether values have the types of the results, one by one.
    fn results_are(&self, what: &str, values: &[ValueId]) -> Rule {
        let types = |values: &[ValueId]| {
            values.iter().map(|v| self.ty(*v).to_string()).collect::<Vec<_>>().join(", ")
        };
        let (expected, found) = (types(self.results), types(values));
        rule(expected == found, || format!("the results are ({expected}), the {what} are ({found})"))
    }
}
