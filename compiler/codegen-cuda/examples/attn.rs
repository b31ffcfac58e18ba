//! scratch
use linc_codegen_cuda::{Arch, Options, compile, tile};
use tile::Elem;
use tile::library::attention::*;
use tile::library::{
    linear_attention::*, linear_attention_backward::*, softmax_attention::*, softmax_attention_backward::*,
};
fn main() {
    let out = std::env::args().nth(1).unwrap();
    for (d, n) in [(64usize, 2048usize), (128, 2048)] {
        for b in [64usize, 128] {
            let shape = HeadShape { batch: 1, seq: n, heads: 32, kv_heads: 8, head_dim: d };
            let q = HeadStrides::contiguous(n, 32, d);
            let k = HeadStrides::contiguous(n, 8, d);
            let f = SoftmaxForwardSpec {
                elem: Elem::Bf16,
                shape,
                causal: true,
                scale: 0.125,
                block_q: b,
                block_k: 64,
                q,
                k,
                v: k,
                out: q,
            };
            let bw = SoftmaxBackwardSpec {
                elem: Elem::Bf16,
                shape,
                causal: true,
                scale: 0.125,
                block_q: b.min(64),
                block_k: 64,
                q,
                k,
                v: k,
                out: q,
                dout: q,
                dq: q,
                dk: k,
                dv: k,
            };
            let lf = LinearForwardSpec {
                elem: Elem::Bf16,
                shape,
                chunk: 64,
                temperature: 3.0,
                q,
                k,
                v: k,
                out: q,
            };
            let lb = LinearBackwardSpec {
                elem: Elem::Bf16,
                shape,
                chunk: 64,
                temperature: 3.0,
                q,
                k,
                v: k,
                dout: q,
                dq: q,
                dk: k,
                dv: k,
            };
            for kernel in [
                softmax_attention_forward(&f),
                softmax_attention_delta(&bw),
                softmax_attention_dq(&bw),
                softmax_attention_dkdv(&bw),
                linear_attention_forward(&lf),
                linear_attention_backward(&lb),
            ] {
                let options = Options { arch: Arch::Sm80, alignment: vec![64; kernel.params.len()] };
                match compile(&kernel, &options) {
                    Ok(k) => {
                        let short: String = k.name.chars().take(100).collect();
                        std::fs::write(format!("{out}/{d}_{b}_{short}.cu"), k.source()).unwrap();
                        println!("{} {} {}", k.threads, k.shared_bytes, k.name)
                    }
                    Err(e) => println!("ERR {e}"),
                }
            }
        }
    }
}
