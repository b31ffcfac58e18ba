"""Writes efficient_attention.txt from the numpy reference of causal efficient attention.

Usage: python generate.py path/to/ref_causal_efficient_attention.py > efficient_attention.txt
The reference is the definition with an explicit O(n^2) loop; the interpreter it checks works per token.
"""

import importlib.util
import sys

import numpy as np

spec = importlib.util.spec_from_file_location("ref", sys.argv[1])
ref = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ref)


def full_forward_backward(q, k, v, g):
    """Non-causal: out = P S with S = softmax over the sequence of k, transposed, times v."""
    p = ref.softmax_row(q)
    w = ref.softmax_row(k.T).T
    s = w.T @ v
    ds, dp = p.T @ g, g @ s.T
    dw = v @ ds.T
    dq = p * (dp - (p * dp).sum(-1, keepdims=True))
    dk = w * (dw - (w * dw).sum(0))
    return p @ s, dq, dk, w @ ds


def case(name, rng, n, d, heads, groups, chunk, causal, temperature, keys):
    """One case with batch 2; arrays are [batch, sequence, heads, features]."""
    b = 2
    q, g = rng.standard_normal((2, b, n, heads, d))
    v = rng.standard_normal((b, n, groups, d))
    k = keys(rng, (b, n, groups, d))
    saved = -(-n // chunk) if causal else 1
    out, dq, dk, dv = np.zeros_like(q), np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    ell, state = np.zeros((b, groups, saved, d)), np.zeros((b, groups, saved, d, d))
    for i in range(b):
        for h in range(heads):
            j = h // (heads // groups)
            x = q[i, :, h] * temperature, k[i, :, j] * temperature, v[i, :, j]
            if causal:
                o, grads = ref.naive_forward(*x), ref.naive_backward(*x, g[i, :, h])
            else:
                o, *grads = full_forward_backward(*x, g[i, :, h])
            out[i, :, h] = o
            dq[i, :, h] = grads[0] * temperature
            dk[i, :, j] += grads[1] * temperature
            dv[i, :, j] += grads[2]
        for j in range(groups):
            x = k[i, :, j] * temperature
            lse = ref.prefix_lse(x)
            for s in range(saved):
                end = s * chunk if causal else n
                if end > 0:
                    ell[i, j, s] = lse[end - 1]
                    state[i, j, s] = np.exp(x[:end] - lse[end - 1]).T @ v[i, :end, j]
    print(f"case {name} {b} {n} {heads} {groups} {d} {chunk} {int(causal)} {temperature}")
    for label, x in dict(q=q, k=k, v=v, dout=g, out=out, ell=ell, state=state, dq=dq, dk=dk, dv=dv).items():
        print(label, " ".join(repr(float(y)) for y in x.ravel()))


def normal(rng, shape):
    return rng.standard_normal(shape)


def uniform(bound):
    return lambda rng, shape: rng.uniform(-bound, bound, shape)


def ramp(step):
    return lambda rng, shape: step * np.arange(shape[1])[None, :, None, None] + rng.standard_normal(shape)


def spikes(rng, shape):
    return rng.standard_normal(shape) + 100.0 * rng.integers(-1, 2, shape)


rng = np.random.default_rng(1812)
case("normal", rng, 7, 3, 2, 2, 3, True, 1.0, normal)
case("grouped", rng, 6, 4, 4, 2, 4, True, 1.0, normal)
case("temperature", rng, 5, 3, 2, 1, 2, True, 2.5, normal)
case("uniform_100", rng, 8, 2, 1, 1, 3, True, 1.0, uniform(100.0))
case("ramp_up", rng, 8, 2, 1, 1, 4, True, 1.0, ramp(25.0))
case("ramp_down", rng, 8, 2, 1, 1, 4, True, 1.0, ramp(-25.0))
case("spikes", rng, 9, 3, 2, 1, 4, True, 1.0, spikes)
case("one_token", rng, 1, 3, 2, 1, 4, True, 1.0, normal)
case("full", rng, 6, 3, 4, 2, 4, False, 1.0, normal)
case("full_uniform_100", rng, 6, 3, 2, 2, 4, False, 1.5, uniform(100.0))
