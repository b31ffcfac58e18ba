//! How types, constants and numbers of threads are spelled.

use linc_tile::Elem;

/// The type of one element in registers.
pub(crate) fn register_type(elem: Elem) -> &'static str {
    match elem {
        Elem::F32 | Elem::Bf16 | Elem::F16 => "float",
        Elem::I32 => "int",
        Elem::Index => "index",
        Elem::Bool => "bool",
    }
}

/// Type of an element in memory.
pub(crate) fn memory_type(elem: Elem) -> &'static str {
    match elem {
        Elem::F32 => "float",
        Elem::Bf16 => "bf16",
        Elem::F16 => "f16",
        Elem::I32 | Elem::Index | Elem::Bool => "int",
    }
}

/// An integer constant.
pub(crate) fn integer(value: i64) -> String {
    // C++ has no negative literals, so that the smallest number has to be computed.
    if value == i64::MIN { format!("(-{}ll - 1)", i64::MAX) } else { value.to_string() }
}

/// An f32 constant.
pub(crate) fn float(value: f64) -> String {
    let value = value as f32;
    if value.is_nan() {
        return "bits_float(0x7fc00000u)".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "LINC_INFINITY".into() } else { "-LINC_INFINITY".into() };
    }
    // Enough digits to read back the same.
    format!("{value:?}f")
}

/// The bits of an element as a float, since shared memory moves floats.
pub(crate) fn to_float(elem: Elem, text: &str) -> String {
    match elem {
        Elem::F32 | Elem::Bf16 | Elem::F16 => text.to_string(),
        Elem::I32 | Elem::Index | Elem::Bool => format!("bits_float((u32){text})"),
    }
}

/// The element of whose bits a float is made.
pub(crate) fn from_float(elem: Elem, text: &str) -> String {
    match elem {
        Elem::F32 | Elem::Bf16 | Elem::F16 => text.to_string(),
        Elem::I32 | Elem::Index | Elem::Bool => format!("({})float_bits({text})", register_type(elem)),
    }
}

/// A digit of the warp or lane number.
pub(crate) fn digit(name: &str, bit: u32, count: usize) -> String {
    match (bit, count) {
        (_, 1) => "0".into(),
        (0, _) => format!("({name} & {})", count - 1),
        (_, _) => format!("({name} >> {bit} & {})", count - 1),
    }
}
