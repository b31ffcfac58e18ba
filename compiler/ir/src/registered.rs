//! Operations that are modules of their own, registered in one enum.

/// Declares the enum with a variant for each module's operation, and what has to name them all: the choice of the operation
/// that answers, and the parser of the text form. An operation that has a variant can be forgotten by neither.
macro_rules! registered {
    ($(#[doc = $doc:literal])+ $name:ident, in Op::$outer:ident, each $answers:ident {
        $($(#[doc = $variant_doc:literal])+ $variant:ident($operation:ty)),+ $(,)?
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, PartialEq, Debug)]
        pub enum $name { $($(#[doc = $variant_doc])+ $variant($operation)),+ }

        impl $name {
            fn operation(&self) -> &dyn $answers {
                match self { $($name::$variant(operation) => operation),+ }
            }

            /// The operation of this name, if one of these has it. Takes the attributes it needs.
            pub(crate) fn parse(
                name: &str,
                attributes: &mut $crate::attributes::Attributes,
            ) -> linc_text::Parsed<Option<$name>> {
                $(if let Some(operation) = <$operation>::parse(name, attributes)? {
                    return Ok(Some($name::$variant(operation)));
                })+
                Ok(None)
            }
        }

        impl From<$name> for $crate::op::Op {
            fn from(operation: $name) -> $crate::op::Op {
                $crate::op::Op::$outer(operation)
            }
        }

        $(impl From<$operation> for $crate::op::Op {
            fn from(operation: $operation) -> $crate::op::Op {
                $name::$variant(operation).into()
            }
        })+
    };
}

pub(crate) use registered;
