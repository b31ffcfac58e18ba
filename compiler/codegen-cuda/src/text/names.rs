//! Names that C++ accepts.

use std::collections::BTreeSet;

use linc_tile::Kernel;
use linc_tile::text::value_names;

use crate::{COMMON_PRELUDE, DEVICE_PRELUDE};

/// Words of C++ and of the emitted text; those of the prelude come on top.
const RESERVED: &str = "alignas alignof and asm auto bool break case catch char class compl concept const constexpr
    const_cast continue decltype default delete do double dynamic_cast else enum explicit export extern false float for
    friend goto if inline int long mutable namespace new noexcept not nullptr operator or private protected public
    register requires return short signed sizeof static static_assert struct switch template this thread_local throw
    true try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor
    thread lane warp base slot stage piece rows cols both stored packed left right sum upto before part
    wgmma_bf16 wgmma_f16 BLOCKS PIPELINES turns turn arrival threadIdx blockIdx blockDim gridDim warpSize fmaf fabsf sqrtf logf tanhf main";

/// C++ names of a kernel's parameters and values, all different, and different from everything else in the text.
pub(crate) struct Names {
    /// By position.
    pub params: Vec<String>,
    /// By id, after their names in the tile program.
    pub values: Vec<String>,
    /// All names in use.
    pub taken: BTreeSet<String>,
}

impl Names {
    pub(crate) fn of(kernel: &Kernel) -> Names {
        let prelude = [DEVICE_PRELUDE, COMMON_PRELUDE].concat();
        let words = prelude.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let mut taken: BTreeSet<String> =
            RESERVED.split_whitespace().chain(words).map(str::to_string).collect();
        taken.insert(kernel.name.clone());
        let mut unique = |mut word: String| {
            // `at0` is a function of positions, `maps0` an argument.
            let numbered =
                |stem| word.strip_prefix(stem).is_some_and(|n: &str| n.chars().all(|c| c.is_ascii_digit()));
            if numbered("at") || numbered("maps") {
                word.push('_');
            }
            while !taken.insert(word.clone()) {
                word.push('_');
            }
            word
        };
        // A parameter stands only outside of the loops over registers, whose counters are single letters.
        let params: Vec<String> = kernel
            .params
            .iter()
            .map(|p| if p.name.len() == 1 { p.name.clone() } else { unique(p.name.clone()) })
            .collect();
        let value = |name: String| {
            let mut word = name.replace('.', "_");
            if word.starts_with(|c: char| c.is_ascii_digit()) {
                word.insert(0, 't');
            }
            if word.len() == 1 {
                word.push_str("_tile");
            }
            unique(word)
        };
        let values = value_names(kernel).into_iter().map(value).collect();
        taken.extend(params.iter().cloned());
        Names { params, values, taken }
    }
}
