//! The syntax tree of a `.linc` file.
//!
//! Every node knows the bytes it came from, and comments and blank lines hang on the statements they stand
//! before, so that the formatter keeps them.

use std::ops::Range;

/// Bytes of the source text.
///
/// Spans never make two trees differ: all compare equal, so that trees compare by what they say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl PartialEq for Span {
    fn eq(&self, _: &Span) -> bool {
        true
    }
}

impl Span {
    /// The smallest span over both.
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

impl From<Span> for Range<usize> {
    fn from(span: Span) -> Self {
        span.start..span.end
    }
}

/// What stands between statements.
#[derive(Clone, PartialEq, Debug)]
pub enum Trivia {
    /// One or more blank lines.
    Blank,
    /// A comment on a line of its own, without its `#`.
    Comment(String),
}

/// An identifier.
#[derive(Clone, PartialEq, Debug)]
pub struct Name {
    /// The letters.
    pub text: String,
    /// Where.
    pub span: Span,
}

/// A whole file: functions and one model.
#[derive(Clone, PartialEq, Debug)]
pub struct File {
    /// In the order of the text.
    pub items: Vec<Item>,
    /// Comments after the last item.
    pub tail: Vec<Trivia>,
}

/// A top-level definition.
#[derive(Clone, PartialEq, Debug)]
pub struct Item {
    /// Comments before it.
    pub lead: Vec<Trivia>,
    /// The definition.
    pub kind: ItemKind,
}

/// The two kinds of definitions.
#[derive(Clone, PartialEq, Debug)]
pub enum ItemKind {
    /// `fn`
    Function(Function),
    /// `model name(..) { .. }`
    Model(Model),
}

/// `fn name(a, b) { ... return value }`
#[derive(Clone, PartialEq, Debug)]
pub struct Function {
    /// What calls name it by; unique in a file.
    pub name: Name,
    /// Local names of the arguments, in the order of a call.
    pub parameters: Vec<Name>,
    /// Body; its last statement is a `return`.
    pub body: Block,
}

/// `model name(tokens: [batch, seq] int) { ... }`
#[derive(Clone, PartialEq, Debug)]
pub struct Model {
    /// Where errors about the whole model point.
    pub name: Name,
    /// The local name of the token ids; always `tokens`.
    pub input: Name,
    /// Names for the input's axes.
    pub axes: Vec<Name>,
    /// Element type.
    pub element: Name,
    /// Ends with the logits bound to their name.
    pub body: Block,
}

/// `{ ... }`
#[derive(Clone, PartialEq, Debug)]
pub struct Block {
    /// In order.
    pub statements: Vec<Statement>,
    /// Comments before the closing brace.
    pub tail: Vec<Trivia>,
}

/// A statement with its comments.
#[derive(Clone, PartialEq, Debug)]
pub struct Statement {
    /// Comments and blank lines before it.
    pub lead: Vec<Trivia>,
    /// What it does.
    pub kind: StatementKind,
    /// Where.
    pub span: Span,
    /// A comment after it on the same line.
    pub comment: Option<String>,
}

/// What a statement does.
#[derive(Clone, PartialEq, Debug)]
pub enum StatementKind {
    /// `let name = value`: a name that keeps its value.
    Let {
        /// Bound once, and visible to the end of its block.
        name: Name,
        /// A number or a tensor.
        value: Expr,
    },
    /// `name = value`: binds or rebinds.
    Assign {
        /// Bound here, or rebound if it exists.
        name: Name,
        /// A number or a tensor; it may read the old one.
        value: Expr,
    },
    /// `param name [shape] init distribution(arguments)`
    Param {
        /// Name; with the enclosing blocks it makes the checkpoint name.
        name: Name,
        /// Sizes of the axes.
        shape: Vec<Expr>,
        /// Name of the initial distribution.
        init: Name,
        /// Of the distribution: its standard deviation, for example.
        arguments: Vec<Argument>,
    },
    /// `for name in layers { ... }`
    For {
        /// The layer's index, from 0.
        variable: Name,
        /// Built once for each layer.
        body: Block,
    },
    /// `block name { ... }`: a scope that prefixes checkpoint names.
    Block {
        /// The prefix.
        name: Name,
        /// Sees and rebinds the names around it.
        body: Block,
    },
    /// `if condition { ... } else { ... }`, decided while building.
    If {
        /// A truth value that is known while building.
        condition: Expr,
        /// When it holds.
        then: Block,
        /// When it does not.
        otherwise: Option<Block>,
    },
    /// `return value`
    Return {
        /// What the call stands for.
        value: Expr,
    },
}

/// An expression.
#[derive(Clone, PartialEq, Debug)]
pub struct Expr {
    /// What it says.
    pub kind: ExprKind,
    /// Where.
    pub span: Span,
}

/// The expressions.
#[derive(Clone, PartialEq, Debug)]
pub enum ExprKind {
    /// `42`
    Int(i64),
    /// `1e-5`
    Float(f64),
    /// `true`, `false`
    Bool(bool),
    /// `x`
    Name(String),
    /// `(x)`
    Paren(Box<Expr>),
    /// `[a, b]`
    List(Vec<Expr>),
    /// `-x`, `not x`
    Unary(UnaryOperator, Box<Expr>),
    /// `a + b`
    Binary(BinaryOperator, Box<Expr>, Box<Expr>),
    /// `w.T`
    Transpose(Box<Expr>),
    /// `f(x, y, key = z)`
    Call {
        /// A builtin, or a `fn` of the file.
        function: Name,
        /// By position first, then by name.
        arguments: Vec<Argument>,
    },
}

/// An argument of a call.
#[derive(Clone, PartialEq, Debug)]
pub struct Argument {
    /// `name =`, if given.
    pub name: Option<Name>,
    /// Evaluated before the call, in the scope of the caller.
    pub value: Expr,
}

/// Operators of one operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnaryOperator {
    /// `-`
    Neg,
    /// `not a`
    Not,
}

/// Operators of two operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BinaryOperator {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`, exact on whole numbers
    Div,
    /// `//`, rounded down
    FloorDiv,
    /// `@`
    MatMul,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `a and b`
    And,
    /// `a or b`
    Or,
}

impl BinaryOperator {
    /// As written.
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOperator::Add => "+",
            BinaryOperator::Sub => "-",
            BinaryOperator::Mul => "*",
            BinaryOperator::Div => "/",
            BinaryOperator::FloorDiv => "//",
            BinaryOperator::MatMul => "@",
            BinaryOperator::Eq => "==",
            BinaryOperator::Ne => "!=",
            BinaryOperator::Lt => "<",
            BinaryOperator::Le => "<=",
            BinaryOperator::Gt => ">",
            BinaryOperator::Ge => ">=",
            BinaryOperator::And => "and",
            BinaryOperator::Or => "or",
        }
    }

    /// Binding strength; all operators group to the left.
    pub fn precedence(self) -> u8 {
        match self {
            BinaryOperator::Or => 1,
            BinaryOperator::And => 2,
            BinaryOperator::Eq
            | BinaryOperator::Ne
            | BinaryOperator::Lt
            | BinaryOperator::Le
            | BinaryOperator::Gt
            | BinaryOperator::Ge => 3,
            BinaryOperator::Add | BinaryOperator::Sub => 4,
            BinaryOperator::Mul | BinaryOperator::Div | BinaryOperator::FloorDiv | BinaryOperator::MatMul => {
                5
            }
        }
    }
}
