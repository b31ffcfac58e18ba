//! Softmax attention: `out = softmax(q kᵀ·scale) v`, causal or not.
//!
//! `lse` and `delta` `[B, H, N]` are f32, and so is what the `P` parts of a cache give: `top`, `sum` `[B, G, P, R]`, `acc`
//! `[B, G, P, R, D]` of `R` query heads.
//!
//! | kernel | grid | parameters in launch order (`=` written, `~` updated in place) |
//! |---|---|---|
//! | `softmax_attention_forward` | ceil(N/block_q), H, B | q, k, v, \[positions,\] =out, =lse |
//! | `softmax_attention_delta` | ceil(N/block_q), H, B | out, dout, =delta |
//! | `softmax_attention_dq` | ceil(N/block_q), H, B | q, k, v, dout, lse, delta, \[positions,\] =dq |
//! | `softmax_attention_dkdv` | ceil(N/block_k), G, B | q, k, v, dout, lse, delta, \[positions,\] =dk, =dv |
//! | `softmax_attention_backward` | G, B, ranges that meet | q, k, v, dout, lse, delta, \[positions,\] ~dq, =dk, =dv (first round) or ~dk, ~dv |
//! | `append_to_cache` | ceil(N/block_k), G, B | k, v, =kcache, =vcache, pos |
//! | `softmax_prefill` | ceil(N/block_q), H, B | q, kcache, vcache, pos, =out |
//! | `softmax_decode` | G, B, 1 | q, k, v, ~kcache, ~vcache, pos, =out |
//! | `softmax_decode_parts` | P, G, B | q, kcache, vcache, pos, =top, =sum, =acc |
//! | `softmax_decode_merge` | H, B, 1 | q, k, v, top, sum, acc, pos, =kcache, =vcache, =out |

mod backward;
mod backward_joined;
mod decode;
mod forward;
mod online;
mod prefill;
mod scores;

pub use backward::{
    SoftmaxBackwardSpec, softmax_attention_delta, softmax_attention_dkdv, softmax_attention_dq,
};
pub use backward_joined::{Round, softmax_attention_backward};
pub use decode::{SoftmaxDecodeSpec, softmax_decode, softmax_decode_merge, softmax_decode_parts};
pub use forward::{SoftmaxForwardSpec, softmax_attention_forward};
pub use prefill::{SoftmaxPrefillSpec, append_to_cache, softmax_prefill};
pub use scores::Kept;
