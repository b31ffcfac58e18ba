#!/usr/bin/env python3
"""The PyTorch side of the CPU comparison: the same Llama, the same training step, tokens per second and peak memory.
torch_gpu.py takes model and operator from here.

Softmax layers use scaled_dot_product_attention. Linear layers are causal efficient attention in the chunked Z form,
batched over heads and chunks, with ordinary tensor operations. Everything is what measured fastest here: the query
heads of a group share the work on their key (1.7x at 8192), the scan over chunks is one matmul, AdamW is the fused
one, rotation is complex in eager mode and real under torch.compile, which cannot compile complex numbers.

Prints one JSON object. `--check` compares the linear operator with its definition instead, in double precision.
"""
import argparse
import json
import math
import os
import resource
import statistics
import time
from fractions import Fraction

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import nn

CHUNK = 64


def rotate(x, angles, use_complex):
    """Turns feature pairs 2i, 2i + 1 of x [B, N, H, D] by angles [N, D/2], given as complex numbers of length 1."""
    if use_complex:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * angles[:, None]).flatten(3)
    cos, sin = angles[:, None, :, 0], angles[:, None, :, 1]
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(3).type_as(x)


def chunk_states(k, v, end, ell):
    """The state before each chunk: weighted means of v per feature of k over all chunks before it.

    k, v [B, H, C, CHUNK, D]; end and ell [B, H, C, D] are the logsumexp of k within each chunk and up to its end.
    """
    chunks = k.shape[2]
    own = torch.exp(k - end[:, :, :, None]).type_as(v).transpose(-1, -2) @ v
    # Share of chunk j in the state after chunk i; never above 1.
    share = end[:, :, None] - ell[:, :, :, None]
    past = torch.ones(chunks, chunks, dtype=torch.bool, device=k.device).tril()
    share = share.masked_fill(~past[..., None], -math.inf).exp().type_as(v)
    share = torch.cat([torch.zeros_like(share[:, :, :1]), share[:, :, :-1]], 2)
    return (share.permute(0, 1, 4, 2, 3) @ own.transpose(2, 3)).transpose(2, 3)


def linear_attention(q, k, v, chunk=CHUNK):
    """Causal efficient attention of q [B, H, N, D] with k, v [B, G, N, D]; N is a multiple of the chunk.

    Exponents and their sums are at least f32; products are in the type of v.
    """
    b, h, n, d = q.shape
    groups, chunks = k.shape[1], n // chunk
    per_group = h // groups
    wide = torch.promote_types(k.dtype, torch.float32)
    q, k = q.to(wide), k.to(wide)
    k, v = (x.reshape(b, groups, chunks, chunk, d) for x in (k, v))
    end = torch.logsumexp(k, 3)
    ell = torch.logcumsumexp(end, 2)
    # With the logsumexp up to the chunk as reference, exp(K_s - L_t) is kt_s / z_t. The first chunk has none.
    reference = torch.cat([k[:, :, :1, 0], ell[:, :, :-1]], 2)
    kt = torch.exp(k - reference[:, :, :, None])
    before = torch.ones(chunks, 1, 1, dtype=wide, device=q.device)
    before[0] = 0
    z = kt.cumsum(3) + before
    qt = q.softmax(-1).reshape(b, groups, per_group, chunks, chunk, d) / z[:, :, None]
    qt = qt.transpose(2, 3).reshape(b, groups, chunks, per_group * chunk, d).type_as(v)
    kt = kt.type_as(v)
    mask = torch.ones(chunk, chunk, dtype=torch.bool, device=q.device).tril().repeat(per_group, 1)
    scores = (qt @ kt.transpose(-1, -2)).masked_fill(~mask, 0)
    out = qt @ chunk_states(k, v, end, ell) + scores @ v
    return out.view(b, groups, chunks, per_group, chunk, d).transpose(2, 3).reshape(b, h, n, d)


class Block(nn.Module):
    def __init__(self, dim, heads, kv_heads, ffn, linear):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim, self.linear = heads, kv_heads, dim // heads, linear
        self.attention_norm, self.ffn_norm = nn.RMSNorm(dim, 1e-5), nn.RMSNorm(dim, 1e-5)
        self.wq = nn.Linear(dim, dim, bias=False)
        self.wk = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.wv = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.wo = nn.Linear(dim, dim, bias=False)
        self.w1, self.w3 = nn.Linear(dim, ffn, bias=False), nn.Linear(dim, ffn, bias=False)
        self.w2 = nn.Linear(ffn, dim, bias=False)

    def attention(self, h, angles, use_complex):
        b, n, _ = h.shape
        q = self.wq(h).view(b, n, self.heads, self.head_dim)
        k = self.wk(h).view(b, n, self.kv_heads, self.head_dim)
        v = self.wv(h).view(b, n, self.kv_heads, self.head_dim)
        q, k = rotate(q, angles, use_complex), rotate(k, angles, use_complex)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        if self.linear:
            out = linear_attention(q, k, v)
        else:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.wo(out.transpose(1, 2).reshape(b, n, -1))

    def forward(self, x, angles, use_complex):
        x = x + self.attention(self.attention_norm(x).type_as(x), angles, use_complex)
        h = self.ffn_norm(x).type_as(x)
        return x + self.w2(F.silu(self.w1(h)) * self.w3(h))


def linear_layers(layers, ratio):
    """Which layers are linear: softmax ones evenly spread, last in each block, as linc's uniform placement."""
    keep = 1 - Fraction(ratio)
    return [math.floor((i + 1) * keep) == math.floor(i * keep) for i in range(layers)]


class Llama(nn.Module):
    def __init__(self, a, tied=False, dtype=torch.float32):
        super().__init__()
        self.use_complex = not a.compile
        # Of activations; parameters are f32.
        self.dtype = dtype
        self.embedding = nn.Embedding(a.vocab, a.dim)
        kinds = linear_layers(a.layers, a.ratio)
        self.blocks = nn.ModuleList(Block(a.dim, a.heads, a.kv_heads, a.ffn, linear) for linear in kinds)
        self.norm = nn.RMSNorm(a.dim, 1e-5)
        self.output = nn.Linear(a.dim, a.vocab, bias=False)
        if tied:
            nn.init.normal_(self.embedding.weight, std=a.dim**-0.5)
            self.output.weight = self.embedding.weight
        half = a.dim // a.heads // 2
        turns = torch.outer(torch.arange(a.seq), 10000.0 ** (-torch.arange(half) / half))
        angles = torch.polar(torch.ones_like(turns), turns)
        self.register_buffer("angles", angles if self.use_complex else torch.view_as_real(angles))

    def forward(self, tokens, targets):
        x = self.embedding(tokens).to(self.dtype)
        for block in self.blocks:
            x = block(x, self.angles, self.use_complex)
        return self.loss(x, targets)

    def loss(self, x, targets):
        return F.cross_entropy(self.output(self.norm(x).type_as(x)).flatten(0, 1), targets.flatten())


def check():
    """The chunked operator against its definition: a softmax of each key feature over the tokens so far."""
    torch.manual_seed(0)
    for heads, groups, n in ((4, 2, 128), (2, 2, 64), (6, 1, 192)):
        q, g = torch.randn(2, 2, heads, n, 8, dtype=torch.float64)
        k, v = torch.randn(2, 2, groups, n, 8, dtype=torch.float64)
        results = []
        for definition in (False, True):
            leaves = [x.clone().requires_grad_() for x in (q, k, v)]
            if definition:
                keys, values = (x.repeat_interleave(heads // groups, 1) for x in leaves[1:])
                future = torch.ones(n, n, dtype=torch.bool).triu(1)[..., None]
                weights = keys[:, :, None].masked_fill(future, -math.inf).softmax(3)
                out = torch.einsum("bhtd,bhtsd,bhsv->bhtv", leaves[0].softmax(-1), weights, values)
            else:
                out = linear_attention(*leaves)
            out.backward(g)
            results.append([out, *(x.grad for x in leaves)])
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    print("the chunked operator equals its definition")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in [("dim", 512), ("layers", 8), ("heads", 8), ("kv_heads", 4), ("ffn", 1536), ("vocab", 4096),
                        ("batch", 4), ("seq", 512), ("steps", 6), ("warmup", 2), ("threads", 2)]:
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--ratio", type=int, choices=[0, 1], default=0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--check", action="store_true", help="test the linear operator and end")
    a = parser.parse_args()
    if a.check:
        check()
        return
    if a.ratio == 1 and a.seq % CHUNK != 0:
        parser.error(f"the linear operator needs a sequence of a multiple of {CHUNK}")
    if a.steps <= a.warmup:
        parser.error("there is no step after the warmup")
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    # What the library itself takes, to judge small models by.
    library = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    model = Llama(a)
    loss_of = torch.compile(model) if a.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    times, losses = [], []
    for _ in range(a.steps):
        tokens = torch.randint(a.vocab, (a.batch, a.seq + 1))
        begun = time.perf_counter()
        loss = loss_of(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        times.append(time.perf_counter() - begun)
    # The first steps allocate and compile.
    print(json.dumps({
        "tps": a.batch * a.seq / statistics.median(times[a.warmup:]),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "library_bytes": library,
        "first_step_s": times[0],
        "params": sum(p.numel() for p in model.parameters()),
        "losses": losses,
    }))


if __name__ == "__main__":
    main()
