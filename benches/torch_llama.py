#!/usr/bin/env python3
"""The PyTorch side of the CPU comparison: the same Llama, the same training step, tokens per second and peak memory.

Softmax layers use scaled_dot_product_attention; linear layers a chunked version of causal efficient attention
(Z form, chunk 64), batched over heads, written with ordinary tensor operations.
Prints one JSON object.
"""
import argparse
import json
import math
import os
import resource
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from torch import nn


def rotate(x, angles):
    """Interleaved pairs of the last axis of x [B, N, H, D] turned by angles [N, D/2] (complex)."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * angles[None, :, None, :]).flatten(3)


def linear_attention(q, k, v, chunk=64):
    """Causal efficient attention of q, k, v [B, H, N, D]; N is a multiple of the chunk."""
    b, h, n, d = q.shape
    p = q.softmax(-1).view(b, h, n // chunk, chunk, d)
    k = k.view(b, h, n // chunk, chunk, d)
    v = v.view(b, h, n // chunk, chunk, d)
    # State before each chunk, by a scan over chunks in log space.
    end = torch.logsumexp(k, 3)
    ell = torch.logcumsumexp(end, 2)
    before = torch.cat([k[:, :, :1, 0], ell[:, :, :-1]], 2)
    weights = torch.exp(k - end[:, :, :, None])
    local = weights.transpose(-1, -2) @ v
    states, state = [], torch.zeros(b, h, d, d, dtype=q.dtype)
    for c in range(n // chunk):
        states.append(state)
        new = ell[:, :, c]
        share = torch.exp(end[:, :, c] - new)[..., None]
        old = torch.exp(ell[:, :, c - 1] - new)[..., None] if c else torch.zeros_like(share)
        state = old * state + share * local[:, :, c]
    states = torch.stack(states, 2)
    kt = torch.exp(k - before[:, :, :, None])
    one = torch.ones(n // chunk, dtype=q.dtype)
    one[0] = 0
    z = kt.cumsum(3) + one[None, None, :, None, None]
    qt = p / z
    mask = torch.ones(chunk, chunk, dtype=torch.bool).tril()
    scores = (qt @ kt.transpose(-1, -2)).masked_fill(~mask, 0)
    return (qt @ states + scores @ v).view(b, h, n, d)


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

    def forward(self, x, angles):
        b, n, _ = x.shape
        h = self.attention_norm(x)
        q = self.wq(h).view(b, n, self.heads, self.head_dim)
        k = self.wk(h).view(b, n, self.kv_heads, self.head_dim)
        v = self.wv(h).view(b, n, self.kv_heads, self.head_dim)
        if not self.linear:
            q, k = rotate(q, angles), rotate(k, angles)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        out = linear_attention(q, k, v) if self.linear else F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.wo(out.transpose(1, 2).reshape(b, n, -1))
        h = self.ffn_norm(x)
        return x + self.w2(F.silu(self.w1(h)) * self.w3(h))


class Llama(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.embedding = nn.Embedding(a.vocab, a.dim)
        self.blocks = nn.ModuleList(Block(a.dim, a.heads, a.kv_heads, a.ffn, a.ratio == 1) for _ in range(a.layers))
        self.norm = nn.RMSNorm(a.dim, 1e-5)
        self.output = nn.Linear(a.dim, a.vocab, bias=False)
        half = a.dim // a.heads // 2
        steps = torch.outer(torch.arange(a.seq), 10000.0 ** (-torch.arange(half) / half))
        self.register_buffer("angles", torch.polar(torch.ones_like(steps), steps))

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.angles)
        return self.output(self.norm(x))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in [("dim", 512), ("layers", 8), ("heads", 8), ("kv_heads", 4), ("ffn", 1536), ("vocab", 4096),
                        ("batch", 4), ("seq", 512), ("steps", 6), ("threads", 2)]:
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--ratio", type=int, choices=[0, 1], default=0)
    parser.add_argument("--compile", action="store_true")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    model = Llama(a)
    step_model = torch.compile(model) if a.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    times, loss = [], math.nan
    for _ in range(a.steps):
        tokens = torch.randint(a.vocab, (a.batch, a.seq + 1))
        begun = time.perf_counter()
        logits = step_model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        del logits
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss = loss.item()
        times.append(time.perf_counter() - begun)
    # The first steps allocate and compile.
    times = sorted(times[2:])
    rate = a.batch * a.seq / times[len(times) // 2]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"tps": rate, "peak_bytes": peak, "loss": loss}))


if __name__ == "__main__":
    main()
