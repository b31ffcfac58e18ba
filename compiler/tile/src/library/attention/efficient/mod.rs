//! Efficient attention (Shen et al.), causal: linear attention whose features are softmaxes.
//!
//! Per head, with P = softmax over the features of q and L_t the logsumexp of k over the prefix,
//! `out_t = Σ_{s≤t} V_s Σ_d P_t[d] exp(K_s[d] − L_t[d])`, exactly and in O(N·D²). A walk over the chunks of a
//! key/value head carries, per feature, a reference `m` (the largest key so far),
//! `z = Σ exp(K_s − m)` and `t = Σ exp(K_s − m) V_sᵀ`. Inside a chunk
//! `k̃ = exp(K − m)`, `Z = z + running sum of k̃`, `q̃ = P / Z`: plain matrix products give
//! `out = q̃ t + tril(q̃ k̃ᵀ) V`. That is exact while Z stays below e^30 (e^6.6 in f16); otherwise, rarely, the chunk is computed row
//! by row with exponents that are never positive. `z` is never turned into a logarithm and back, so the
//! logsumexp does not drift on long sequences. The first chunk takes its first key as the reference: then `Z ≥ 1` everywhere
//! (in f16 a little above it).
//!
//! Saved for the backward pass, before each chunk: `ell = m + ln z` and `state = t / z`, both 0 before the first chunk.
//!
//! Where documents are kept apart ([`documents`]), kernels of causal attention have `positions`, i32 `[B, N]`, of tokens in
//! their documents, behind the other tensors that they read: sums begin anew with each document, and a chunk in which one
//! begins is masked.
//!
//! Letters beside those of [`super`]: `C` chunk, `S` saved states (`ceil(N/C)` if causal, else 1), `F` features of a block.
//! `delta` `[B, H, N]`, `ell`, `rho` `[B, G, S, D]`, `state`, `d` `[B, G, S, D, D]`, `dk_part` `[B, N, G, D]` and the
//! recurrent state `m`, `z` `[B, G, D]`, `t` `[B, G, D, D]` are f32.
//!
//! | kernel | grid | parameters in launch order (`=` written, `~` updated in place) |
//! |---|---|---|
//! | `efficient_attention_forward` | G, B, 1 | q, k, v, \[positions,\] =out, =ell, =state |
//! | `efficient_attention_backward` | G, B, 1 | q, k, v, ell, state, dout, \[positions,\] =dq, =dk, =dv |
//! | `efficient_attention_chunk_states` | S·D/F, G, B | k, v, \[positions,\] =ell, =state |
//! | `efficient_attention_prefix` | D/4, G, B | ~ell, ~state\[, positions\] |
//! | `efficient_attention_out` | S, G, B | q, k, v, ell, state, \[positions,\] =out |
//! | `efficient_attention_delta` | S, G, B | q, k, v, ell, state, dout, \[positions,\] =delta |
//! | `efficient_attention_chunk_grads` | S·D/F, G, B | q, k, v, ell, state, dout, \[positions,\] \[delta,\] =dq, =d, =rho, ~dk_part |
//! | `efficient_attention_suffix` | D/4, G, B | ell, ~d, ~rho\[, positions\] |
//! | `efficient_attention_grads` | S, G, B | q, k, v, ell, dout, d, rho, dk_part, \[positions,\] =dk, =dv |
//! | `efficient_bidirectional_state` | G, B, 1 | k, v, =ell, =state |
//! | `efficient_bidirectional_out` | ceil(N/chunk), H, B | q, state, =out |
//! | `efficient_bidirectional_backward` | G, B, 1 | q, k, v, ell, state, dout, =dq, =dk, =dv |
//! | `efficient_prefill` | G, B, 1 | q, k, v, ~m, ~z, ~t, pos, =out |
//! | `efficient_prefill_prefix` | D/4, G, B | ~ell, ~state, ~m, ~z, ~t, pos |
//! | `efficient_prefill_out` | S, G, B | q, k, v, ell, state, pos, =out |
//! | `efficient_decode` | G, B, 1 | q, k, v, ~m, ~z, ~t, pos, =out |

mod backward;
mod bidirectional;
mod chunked;
mod decode;
mod documents;
mod feature_softmax;
mod forward;
mod key_chunk;
mod prefill;
mod state;

pub use backward::{EfficientBackwardSpec, efficient_attention_backward};
pub use bidirectional::{
    efficient_bidirectional_backward, efficient_bidirectional_out, efficient_bidirectional_state,
};
pub use chunked::{
    efficient_attention_chunk_grads, efficient_attention_chunk_states, efficient_attention_delta,
    efficient_attention_grads, efficient_attention_out, efficient_attention_prefix,
    efficient_attention_suffix, efficient_prefill_out, efficient_prefill_prefix, needs_delta, takes_delta,
};
pub use decode::{EfficientDecodeSpec, efficient_decode};
pub use forward::{EfficientForwardSpec, efficient_attention_forward};
pub use key_chunk::fast_path;
pub use prefill::efficient_prefill;
