//! The words of the text form: one name per element type, mode and function, and the way back.

use std::fmt;

use crate::ir::{Binary, Compare, Elem, Mode, Reduction, TileType, Unary};

/// Adds `ALL`, `name` and `from_name` to an enum without fields; a new variant does not compile until it has a word.
macro_rules! words {
    ($ty:ident { $($variant:ident => $word:literal),* $(,)? }) => {
        impl $ty {
            /// Every variant, in the order of the declaration.
            pub const ALL: &'static [$ty] = &[$($ty::$variant),*];

            /// Its word in the text form.
            pub fn name(self) -> &'static str {
                match self {
                    $($ty::$variant => $word,)*
                }
            }

            /// The variant that a word names.
            pub fn from_name(word: &str) -> Option<$ty> {
                $ty::ALL.iter().copied().find(|v| v.name() == word)
            }
        }

        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

words!(Elem { F32 => "f32", Bf16 => "bf16", F16 => "f16", I32 => "i32", Index => "index", Bool => "bool" });

words!(Mode { Read => "read", Write => "write", ReadWrite => "readwrite" });

words!(Unary {
    Neg => "neg",
    Abs => "abs",
    Exp => "exp",
    Exp2 => "exp2",
    Log => "log",
    Sqrt => "sqrt",
    Rsqrt => "rsqrt",
    Recip => "recip",
    Sigmoid => "sigmoid",
    Tanh => "tanh",
    Not => "not",
});

words!(Binary {
    Add => "add",
    Sub => "sub",
    Mul => "mul",
    Div => "div",
    Rem => "rem",
    Min => "min",
    Max => "max",
    And => "and",
    Or => "or",
});

words!(Compare { Eq => "eq", Ne => "ne", Lt => "lt", Le => "le", Gt => "gt", Ge => "ge" });

// `max` is the pointwise function, so the reduction has the longer word.
words!(Reduction { Sum => "sum", Max => "reduce_max" });

impl fmt::Display for TileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.elem)?;
        if !self.shape.is_empty() {
            write!(f, "{:?}", self.shape)?;
        }
        Ok(())
    }
}
