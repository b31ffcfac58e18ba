#!/usr/bin/env python3
"""PyTorch's side of `linc bench`: the same sizes, the same JSON, on a GPU (or, to try it out, on the CPU).

    python3 benches/torch_gpu.py attention --head-dim 64,128 --seq 1024,8192
    python3 benches/torch_gpu.py train models/llama3_1b.toml --seq 2048 --ratio 0,0.75

Softmax attention is scaled_dot_product_attention with whichever of its implementations is fastest at that size and
pass; linear attention is torch_llama.py's chunked operator under torch.compile or, where flash-linear-attention (the
package fla, 0.6) can be imported, the same function by its gated linear attention, if that is faster. Rows of the kind
plain_linear are what fla's users run: linear attention without softmax of queries and without normaliser of keys.
A training step is torch.compile of each block and of the loss, as TorchTitan does it, or of the whole model at once
(--compile), which takes 40 seconds at 16 layers; f32 parameters with bf16 activations (autocast), clipping and fused
AdamW. Times are CUDA events, of attention with the GPU's cache emptied before each run, since linc's are taken amid a
training step. What runs out of memory is a row with `error`. Stopped before its end, it still prints the rows it has.
"""
import argparse
import contextlib
import functools
import gc
import importlib.util
import json
import os
import signal
import statistics
import sys
import time
import tomllib
import traceback
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from torch_llama import CHUNK, Llama, linear_attention

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
# More than the second-level cache of any GPU, and often enough that what is timed is queued before the GPU comes to it:
# Python takes a millisecond or two to launch fla's dozen kernels.
FLUSH_BYTES, FLUSHES = 1 << 30, 8
# Relative error at which an implementation of the same function counts as wrong; bf16 is within 0.01.
TOLERANCE = 0.05


class Timer:
    """Milliseconds of one call: by events on a GPU, by the clock elsewhere."""

    def __init__(self, device, flush):
        self.cuda = device.startswith("cuda")
        self.flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device) if flush and self.cuda else None

    def __call__(self, function):
        if not self.cuda:
            begun = time.perf_counter()
            function()
            return 1e3 * (time.perf_counter() - begun)
        if self.flush is not None:
            for _ in range(FLUSHES):
                self.flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end)


def times(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def tell(text):
    print(text, file=sys.stderr, flush=True)


def first_line(error):
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def softmax_attention(backend):
    """SDPA by one implementation, or by the one that PyTorch chooses."""
    def run(q, k, v):
        with sdpa_kernel(BACKENDS[backend]) if backend in BACKENDS else contextlib.nullcontext():
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    return run


def tune_at_each_length():
    """Has Triton choose among the configurations of fla's kernels, some 450, at each length, and not take long.

    By itself it compiles one after another, times each for 125 ms, and keeps what is best at the first length for all.
    """
    from triton import AsyncCompileMode, testing
    from triton.runtime import autotuner

    pool = ThreadPoolExecutor(os.cpu_count())

    class Tuner(autotuner.Autotuner):
        def __init__(self, fn, arg_names, configs, key, *args, **kwargs):
            super().__init__(fn, arg_names, configs, [*key, "T"], *args, **kwargs)
            self._do_bench = functools.partial(testing.do_bench, warmup=2, rep=10)

        def prune_configs(self, kwargs):
            configs = super().prune_configs(kwargs)
            with AsyncCompileMode(pool, ignore_errors=True):
                for config in configs:
                    self.fn.run(**{**kwargs, **config.all_kwargs(), "warmup": True})
            return configs

    autotuner.Autotuner = Tuner


@functools.cache
def flash_linear_attention():
    """What is used of fla, if it can be imported."""
    if importlib.util.find_spec("fla") is None:
        tell("flash-linear-attention (fla) was not found: linear attention is PyTorch's alone")
        return None
    try:
        if torch.cuda.is_available():
            tune_at_each_length()
        import fla
        from fla.ops.gla import chunk_gla
        from fla.ops.gsa.gate import fused_additive_gate
        from fla.ops.linear_attn import chunk_linear_attn, fused_chunk_linear_attn
    except Exception as error:
        tell(f"flash-linear-attention is not compared: {first_line(error)}")
        return None
    return SimpleNamespace(version=fla.__version__, gla=chunk_gla, gate=fused_additive_gate, plain=chunk_linear_attn,
                           fused=fused_chunk_linear_attn)


def repeated(heads, *tensors):
    """Key/value heads [B, N, G, D] once for each query head, since fla's kernels have no groups."""
    return [x.unsqueeze(3).expand(-1, -1, -1, heads // x.shape[2], -1).flatten(2, 3) for x in tensors]


def gated(q, k, v):
    """Inputs [B, N, H, D] with which gated linear attention is linear_attention of q, k and v [B, N, H or G, D].

    With L the logsumexp of keys up to a token, exp(K_s - L_t) is the key exp(K_s - L_s) times exp(L_u-1 - L_u) of all
    u in s+1..t, whose logarithms are the gates. L is taken chunk by chunk, as in linear_attention.
    """
    b, n, groups, d = k.shape
    chunked = k.float().reshape(b, n // CHUNK, CHUNK, groups, d)
    ell = torch.logcumsumexp(torch.logsumexp(chunked, 2), 1)
    reference = torch.cat([chunked[:, :1, 0], ell[:, :-1]], 1)
    kt = torch.exp(chunked - reference[:, :, None])
    before = torch.ones(n // CHUNK, 1, 1, 1, device=k.device)
    before[0] = 0
    z = kt.cumsum(2) + before
    log_z = z.log()
    gate = F.pad(log_z[:, :, :-1], (0, 0, 0, 0, 1, 0)) - log_z
    k = (kt / z).type_as(k)
    return q.softmax(-1), *repeated(q.shape[2], k.reshape(b, n, groups, d), v, gate.reshape(b, n, groups, d))


def fla_candidates(kind):
    fla = flash_linear_attention()
    if fla is None:
        return {}
    inputs, spread = (torch.compile(function, dynamic=False) for function in (gated, repeated))

    def gla(q, k, v):
        return fla.gla(*inputs(q, k, v), scale=1.0)[0]

    def gla_and_gate(q, k, v):
        """With keys and gates by fla's kernel, which goes through all tokens in turn."""
        k, gate, _ = fla.gate(k, gate_dtype=torch.float32)
        return fla.gla(q.softmax(-1), *spread(q.shape[2], k, v, gate), scale=1.0)[0]

    def plain(operator, q, k, v):
        return operator(q, *spread(q.shape[2], k, v), scale=1.0, normalize=False)[0]

    def heads_first(attend, *args):
        """fla has tokens before heads, as projections leave them."""
        return lambda q, k, v: attend(*args, *(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

    if kind == "linear":
        return {"fla gla": heads_first(gla), "fla gla, gate": heads_first(gla_and_gate)}
    return {"fla": heads_first(plain, fla.plain), "fla fused": heads_first(plain, fla.fused)}


def candidates(a, kind):
    """Implementations to choose from, by name."""
    if kind == "linear":
        return {"compiled": torch.compile(linear_attention, dynamic=False), **fla_candidates(kind)}
    if kind == "plain_linear":
        return fla_candidates(kind)
    names = ["default", *BACKENDS] if a.device.startswith("cuda") else ["default"]
    return {name: softmax_attention(name) for name in names}


def first_run(forward, inputs, gradient):
    """The gradient in the layout of forward's output, since cuDNN and fla copy others; and output and gradients."""
    out = forward()
    given = torch.empty_like(out).copy_(gradient)
    return given, [out.detach(), *torch.autograd.grad(out, inputs, given)]


def relative_errors(found, expected):
    norm = torch.linalg.vector_norm
    return [(norm((a - b).float()) / norm(b.float())).item() for a, b in zip(found, expected)]


def attention_size(a, head_dim, seq, rows):
    def draw(heads):
        # As a projection leaves it: heads beside each other in a token.
        x = torch.randn(a.batch_size, seq, heads, head_dim, dtype=a.dtype, device=a.device)
        return x.transpose(1, 2).detach().requires_grad_()

    q, k, v = draw(a.heads), draw(a.kv_heads), draw(a.kv_heads)
    gradient = torch.randn(a.batch_size, a.heads, seq, head_dim, dtype=a.dtype, device=a.device)
    timer = Timer(a.device, flush=True)
    runs = {}
    for kind in a.kind:
        if kind == "linear" and seq % CHUNK != 0:
            tell(f"linear attention needs a multiple of {CHUNK} tokens, not {seq}")
            continue
        expected = None
        for name, attend in candidates(a, kind).items():
            def forward(attend=attend):
                return attend(q, k, v)

            try:
                given, results = first_run(forward, (q, k, v), gradient)

                def backward(state, given=given):
                    torch.autograd.grad(state["out"], (q, k, v), given)

                expected = expected or results
                errors = relative_errors(results, expected)
                if not all(error <= TOLERANCE for error in errors):
                    raise ArithmeticError(f"output and gradients are off by {errors}")
                for _ in range(1, a.warmup):
                    backward({"out": forward()})
            # Triton has errors of its own.
            except Exception as error:
                tell(f"{kind} {name}, {head_dim} features, {seq} tokens: {first_line(error)}")
                continue
            runs[kind, name] = (forward, backward, {"forward": [], "backward": []})
    for _ in range(a.rounds):
        for forward, backward, found in runs.values():
            state = {}
            found["forward"].append(timer(lambda: state.update(out=forward())))
            if "backward" in a.passes:
                found["backward"].append(timer(lambda: backward(state)))
    for kind in a.kind:
        for pass_name in a.passes:
            measured = [(times(found[pass_name]), name) for (k_, name), (_, _, found) in runs.items() if k_ == kind]
            if measured:
                ms, name = min(measured, key=lambda entry: entry[0]["median"])
                rows.append({"kind": kind, "pass": pass_name, "backend": name, "head_dim": head_dim, "heads": a.heads,
                             "kv_heads": a.kv_heads, "batch": a.batch_size, "seq": seq, "ms": ms})


def attention(a, rows):
    if "linear" in a.kind and "plain_linear" not in a.kind:
        a.kind = [*a.kind, "plain_linear"]
    for head_dim in a.head_dim:
        for seq in a.seq:
            tell(f"attention: {head_dim} features, {a.batch_size} x {seq} tokens")
            attention_size(a, head_dim, seq, rows)
            free(a)


def free(a):
    torch._dynamo.reset()
    gc.collect()
    if a.device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def sizes(path, seq, ratio):
    """The numbers of a model file, as llama3.linc reads them."""
    toml = tomllib.loads(Path(path).read_text())
    dim, multiple = toml["dim"], toml.get("multiple_of", 256)
    hidden = int(toml.get("ffn_dim_multiplier", 1.0) * (8 * dim // 3))
    return toml, SimpleNamespace(
        dim=dim, layers=toml["n_layers"], heads=toml["n_heads"], kv_heads=toml.get("n_kv_heads", toml["n_heads"]),
        ffn=-(-hidden // multiple) * multiple, vocab=toml["vocab_size"], seq=seq, ratio=ratio, compile=True,
    )


def compiled(model, what):
    if what == "model":
        return torch.compile(model, dynamic=False)
    for block in model.blocks:
        block.compile(dynamic=False)
    model.loss = torch.compile(model.loss, dynamic=False)
    return model


def train_size(a, seq, ratio, what):
    toml, numbers = sizes(a.model, seq, ratio)
    row = {"model": f"{toml['name']} {toml['flavor']}", "ratio": float(ratio), "batch": a.batch_size, "seq": seq,
           "compile": what}
    cuda = a.device.startswith("cuda")
    torch.manual_seed(0)
    begun = time.perf_counter()
    try:
        with torch.device(a.device):
            model = Llama(numbers, toml.get("tie_embeddings", False), a.dtype)
        loss_of = compiled(model, what)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        batch = torch.randint(numbers.vocab, (2, a.batch_size, seq))
        if cuda:
            batch = batch.pin_memory()
        loss = None

        def step():
            nonlocal loss
            tokens, targets = batch.to(a.device, non_blocking=True)
            with torch.autocast(a.device.split(":")[0], dtype=torch.bfloat16, enabled=a.dtype == torch.bfloat16):
                loss = loss_of(tokens, targets)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            # linc's step ends on the host as well.
            if cuda:
                torch.cuda.synchronize()

        step()
        row["first_step_s"] = time.perf_counter() - begun
        for _ in range(1, a.warmup):
            step()
        found = []
        for _ in range(a.rounds):
            start = time.perf_counter()
            step()
            found.append(1e3 * (time.perf_counter() - start))
        row["ms"] = times(found)
        row["tokens_per_s"] = 1e3 * a.batch_size * seq / row["ms"]["median"]
        row["loss"] = loss.item()
        if cuda:
            row["bytes"] = torch.cuda.max_memory_allocated()
    except torch.OutOfMemoryError as error:
        row["error"] = str(error).splitlines()[0]
    return row


def train(a, rows):
    for seq in a.seq:
        for ratio in a.ratio:
            if ratio > 0 and seq % CHUNK != 0:
                tell(f"linear attention needs a multiple of {CHUNK} tokens, not {seq}")
                continue
            measured = []
            for what in a.compile:
                tell(f"train: ratio {ratio}, {a.batch_size} x {seq} tokens, torch.compile of {what}")
                measured.append(train_size(a, seq, ratio, what))
                free(a)
            # The fastest; one that did not fit only if none did.
            rows.append(max(measured, key=lambda row: row.get("tokens_per_s", 0)))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="bench", required=True)
    numbers = lambda text: [int(part) for part in text.split(",")]
    words = lambda text: text.split(",")
    one = commands.add_parser("attention")
    one.add_argument("--head-dim", type=numbers, default=[64, 128])
    one.add_argument("--heads", type=int, default=32)
    one.add_argument("--kv-heads", type=int, default=8)
    one.add_argument("--kind", type=words, default=["softmax", "linear"])
    one.add_argument("--pass", dest="passes", type=words, default=["forward", "backward"])
    two = commands.add_parser("train")
    two.add_argument("model")
    two.add_argument("--ratio", type=lambda text: [Fraction(part) for part in text.split(",")], default=[Fraction(0)])
    two.add_argument("--compile", type=words, default=["blocks"], help="blocks, model, or the faster of blocks,model")
    for command, seq in ((one, [1024]), (two, [2048])):
        command.add_argument("--seq", type=numbers, default=seq)
        command.add_argument("--batch-size", type=int, default=1)
        command.add_argument("--rounds", type=int, default=10)
        command.add_argument("--warmup", type=int, default=3)
        command.add_argument("--device", default="cuda")
        command.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    a = parser.parse_args()
    unknown = set(getattr(a, "compile", [])) - {"blocks", "model"}
    if unknown:
        parser.error(f"--compile: there is no {', '.join(sorted(unknown))}; there are blocks and model")
    return a


def main():
    a = arguments()
    a.dtype = getattr(torch, a.precision)
    rows = []

    def end(code):
        device = f"{name}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}"
        if flash_linear_attention.cache_info().currsize and (fla := flash_linear_attention()):
            device += f", fla {fla.version}"
        report = {"tool": "torch", "bench": a.bench, "precision": a.precision, "device": device, "rows": rows}
        print(json.dumps(report, indent=2), flush=True)
        # The processes and threads that compile can keep Python from ending by itself.
        os._exit(code)

    name = torch.cuda.get_device_name(a.device) if a.device.startswith("cuda") else "CPU"
    signal.signal(signal.SIGTERM, lambda *_: end(1))
    try:
        {"attention": attention, "train": train}[a.bench](a, rows)
    except Exception:
        traceback.print_exc()
        end(1)
    end(0)


if __name__ == "__main__":
    main()
