"""Golden values for tests/tests/parity.rs: a small Llama 3 written out in PyTorch.

Each case is one safetensors file: the model TOML, parameters (f32 numbers), tokens and targets, and from double
precision the loss and the gradient of every parameter. Two cases also carry a short training run: its batches, and
the losses of PyTorch's own AdamW and clipping in f32.

Nothing here is optimized: attention is the definition, so that it can be read against the equations.

    pip install torch numpy safetensors
    python tests/golden/generate.py --reference PATH   # a module with the causal efficient attention in numpy

The reference module has to offer naive_forward(Q, K, V), naive_backward(Q, K, V, G) and make_K(kind, n, d, rng); the
linear operator is compared with it before anything is written.
"""

import argparse
import importlib.util
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

BATCH, SEQ = 2, 17
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class RopeScaling:
    """Slows down long waves, as Llama 3.1 does."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class Config:
    """The numbers of a model and its layer map: L is linear, S is softmax."""

    flavor: str
    layers: str
    ratio: str
    vocab_size: int
    n_kv_heads: int = 2
    tie_embeddings: bool = False
    rope_scaling: RopeScaling | None = None
    linear_rope: bool = False
    temperature: float = 1.0
    chunk: int = 4
    dim: int = 32
    n_heads: int = 4
    multiple_of: int = 8
    ffn_dim_multiplier: float = 0.5
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0

    @property
    def head_dim(self) -> int:
        return self.dim // self.n_heads

    @property
    def ffn_dim(self) -> int:
        hidden = int(self.ffn_dim_multiplier * (8 * self.dim // 3))
        return -(-hidden // self.multiple_of) * self.multiple_of

    def toml(self) -> str:
        keys = ["dim", "n_heads", "n_kv_heads", "vocab_size", "multiple_of"]
        keys += ["ffn_dim_multiplier", "norm_eps", "rope_theta"]
        lines = ['name = "llama3"', f'flavor = "{self.flavor}"', 'architecture = "llama3.linc"']
        lines += [f"n_layers = {len(self.layers)}"] + [f"{key} = {getattr(self, key)}" for key in keys]
        lines.append(f"tie_embeddings = {str(self.tie_embeddings).lower()}")
        if self.rope_scaling is not None:
            lines += ["", "[rope_scaling]"]
            lines += [f"{key} = {value}" for key, value in vars(self.rope_scaling).items()]
        lines += ["", "[linear_attention]", f"rope = {str(self.linear_rope).lower()}"]
        lines += [f"temperature = {self.temperature}", f"chunk = {self.chunk}", ""]
        return "\n".join(lines)


@dataclass(frozen=True)
class Training:
    """A run: warmup, then linear decay to 0 over all other steps."""

    steps: int = 50
    lr: float = 3e-3
    warmup: int = 5
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    max_norm: float = 1.0

    def lr_at(self, step: int) -> float:
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        progress = (step + 1 - self.warmup) / (self.steps - self.warmup + 1)
        return self.lr * (1 - progress)


@dataclass(frozen=True)
class Case:
    config: Config
    seed: int
    training: Training | None = field(default=None)


CASES = [
    Case(Config("softmax", layers="SS", ratio="0", vocab_size=29), seed=1, training=Training()),
    Case(Config("linear", layers="LL", ratio="1", vocab_size=23, temperature=1.5), seed=2),
    Case(Config("hybrid", layers="LSL", ratio="0.5", vocab_size=29), seed=3, training=Training()),
    Case(
        Config(
            "tied",
            layers="LS",
            ratio="1/2",
            vocab_size=13,
            n_kv_heads=1,
            tie_embeddings=True,
            rope_scaling=RopeScaling(4.0, 1.0, 4.0, 24),
            linear_rope=True,
            chunk=8,
        ),
        seed=4,
    ),
]


# ---- the model ----


def draw_params(config: Config, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Parameters at a scale where no gradient is tiny; f32 numbers, so that every precision starts from the same."""
    dim, heads = config.dim, config.n_heads * config.head_dim
    kv_heads = config.n_kv_heads * config.head_dim
    shapes = {"tok_embeddings.weight": (config.vocab_size, dim)}
    for layer in range(len(config.layers)):
        prefix = f"layers.{layer}"
        shapes |= {
            f"{prefix}.attention_norm.weight": (dim,),
            f"{prefix}.attention.wq.weight": (heads, dim),
            f"{prefix}.attention.wk.weight": (kv_heads, dim),
            f"{prefix}.attention.wv.weight": (kv_heads, dim),
            f"{prefix}.attention.wo.weight": (dim, heads),
            f"{prefix}.ffn_norm.weight": (dim,),
            f"{prefix}.feed_forward.w1.weight": (config.ffn_dim, dim),
            f"{prefix}.feed_forward.w2.weight": (dim, config.ffn_dim),
            f"{prefix}.feed_forward.w3.weight": (config.ffn_dim, dim),
        }
    shapes["norm.weight"] = (dim,)
    if not config.tie_embeddings:
        shapes["output.weight"] = (config.vocab_size, dim)

    params = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        if len(shape) == 1:
            value = 1 + 0.2 * noise
        elif name == "tok_embeddings.weight" and not config.tie_embeddings:
            value = noise
        else:
            value = noise / math.sqrt(shape[1])
        params[name] = value.float()
    return params


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rope_frequencies(config: Config) -> torch.Tensor:
    """Angle per position of each feature pair."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    frequencies = config.rope_theta**-exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clamp(0, 1)
    return kept * frequencies + (1 - kept) * frequencies / scaling.factor


def rotate(x: torch.Tensor, config: Config) -> torch.Tensor:
    """Turns the pair of features 2i, 2i + 1 of x [batch, seq, heads, head_dim] by position * frequency i."""
    positions = torch.arange(x.shape[1], dtype=torch.float64)
    angles = torch.outer(positions, rope_frequencies(config))
    cos, sin = angles.cos().to(x.dtype)[:, None], angles.sin().to(x.dtype)[:, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def softmax_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal; all [batch, heads, seq, head_dim]."""
    seq = q.shape[-2]
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    future = torch.ones(seq, seq, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -math.inf).softmax(-1) @ v


def linear_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal efficient attention by its definition; all [batch, heads, seq, head_dim].

    The weight of token s for feature d of token t is exp(K_s[d] - L_t[d]), L_t the logsumexp over the prefix of t:
    a softmax of K[.., d] over the tokens up to t.
    """
    seq = k.shape[-2]
    future = torch.ones(seq, seq, dtype=torch.bool).triu(1)
    prefixes = k.unsqueeze(-3).expand(*k.shape[:-2], seq, seq, k.shape[-1])
    weights = prefixes.masked_fill(future[..., None], -math.inf).softmax(-2)
    return torch.einsum("...td,...tsd,...sv->...tv", q.softmax(-1), weights, v)


def attention(config: Config, kind: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """q [batch, seq, n_heads, head_dim], k and v [batch, seq, n_kv_heads, head_dim] -> as q."""
    if kind == "S" or config.linear_rope:
        q, k = rotate(q, config), rotate(k, config)
    if kind == "L":
        q, k = config.temperature * q, config.temperature * k
    group = config.n_heads // config.n_kv_heads
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    operator = linear_attention if kind == "L" else softmax_attention
    return operator(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def model_loss(
    config: Config, params: dict[str, torch.Tensor], tokens: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Mean cross-entropy over the targets that are not -1."""
    x = params["tok_embeddings.weight"][tokens]
    for layer, kind in enumerate(config.layers):
        w = {name.split(".", 2)[2]: p for name, p in params.items() if name.startswith(f"layers.{layer}.")}
        h = rms_norm(x, w["attention_norm.weight"], config.norm_eps)
        q, k, v = (h @ w[f"attention.{name}.weight"].T for name in ("wq", "wk", "wv"))
        q, k, v = (y.unflatten(-1, (-1, config.head_dim)) for y in (q, k, v))
        x = x + attention(config, kind, q, k, v).flatten(-2) @ w["attention.wo.weight"].T
        h = rms_norm(x, w["ffn_norm.weight"], config.norm_eps)
        gate = torch.nn.functional.silu(h @ w["feed_forward.w1.weight"].T)
        x = x + (gate * (h @ w["feed_forward.w3.weight"].T)) @ w["feed_forward.w2.weight"].T
    output = params["tok_embeddings.weight" if config.tie_embeddings else "output.weight"]
    logits = rms_norm(x, params["norm.weight"], config.norm_eps) @ output.T
    return torch.nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=-1)


# ---- data ----


def batches(vocab: int, steps: int, seed: int) -> torch.Tensor:
    """Token ids [steps, BATCH, SEQ + 1] that can be learned: each is mostly a fixed function of the one before."""
    state = seed
    ids = []

    def draw(limit: int) -> int:
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % limit

    for _ in range(steps * BATCH):
        token = draw(vocab)
        for _ in range(SEQ + 1):
            ids.append(token)
            token = draw(vocab) if draw(4) == 0 else (3 * token + 5) % vocab
    return torch.tensor(ids).view(steps, BATCH, SEQ + 1)


# ---- golden values ----


def gradients(case: Case, params: dict[str, torch.Tensor], tensors: dict[str, np.ndarray]) -> None:
    """Adds a batch, its loss and all gradients in double precision."""
    ids = batches(case.config.vocab_size, 1, seed=100 + case.seed)[0]
    tokens, targets = ids[:, :-1], ids[:, 1:].clone()
    targets[0, 3] = targets[1, -1] = -1
    leaves = {name: p.double().requires_grad_() for name, p in params.items()}
    loss = model_loss(case.config, leaves, tokens, targets)
    loss.backward()
    tensors["tokens"] = tokens.numpy().astype(np.int32)
    tensors["targets"] = targets.numpy().astype(np.int32)
    tensors["loss"] = loss.detach().numpy()
    tensors |= {f"grad.{name}": p.grad.numpy() for name, p in leaves.items()}


def train(case: Case, run: Training, params: dict[str, torch.Tensor], tensors: dict[str, np.ndarray]) -> None:
    """Adds the batches, learning rates and losses of a run in f32."""
    ids = batches(case.config.vocab_size, run.steps, seed=200 + case.seed)
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    optimizer = torch.optim.AdamW(
        leaves.values(), lr=run.lr, betas=run.betas, eps=run.eps, weight_decay=run.weight_decay
    )
    losses, norms = [], []
    for step, batch in enumerate(ids):
        for group in optimizer.param_groups:
            group["lr"] = run.lr_at(step)
        optimizer.zero_grad()
        loss = model_loss(case.config, leaves, batch[:, :-1], batch[:, 1:])
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(leaves.values(), run.max_norm).item())
        optimizer.step()
        losses.append(loss.item())
    tensors["train.ids"] = ids.numpy().astype(np.int32)
    tensors["train.lr"] = np.array([run.lr_at(step) for step in range(run.steps)])
    tensors["train.losses"] = np.array(losses)
    tensors["train.grad_norms"] = np.array(norms)
    clipped = sum(norm > run.max_norm for norm in norms)
    print(f"  {run.steps} steps: loss {losses[0]:.4f} -> {losses[-1]:.4f}, {clipped} of them clipped")


# ---- the linear operator against an independent one ----


def check_linear_operator(path: Path) -> None:
    """Forward and backward against the reference module, for easy and for extreme keys."""
    spec = importlib.util.spec_from_file_location("reference", path)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    rng = np.random.default_rng(0)
    worst = 0.0
    for kind in ("normal", "u10", "u100", "ramp_up", "ramp_down", "steps", "spike"):
        for n, d in ((1, 4), (SEQ, 8), (40, 6)):
            q, v, g = 2 * rng.standard_normal((n, d)), rng.standard_normal((n, d)), rng.standard_normal((n, d))
            k = reference.make_K(kind, n, d, rng)
            leaves = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
            out = efficient_attention(*leaves)
            out.backward(torch.tensor(g))
            expected = (reference.naive_forward(q, k, v), *reference.naive_backward(q, k, v, g))
            # Gradients of q and k are differences of terms of this size.
            terms = np.abs(v @ g.T).max()
            for found, wanted in zip((out.detach(), *(x.grad for x in leaves)), expected, strict=True):
                error = np.abs(found.numpy() - wanted).max() / max(np.abs(wanted).max(), terms)
                worst = max(worst, error)
                assert error < 1e-13, (kind, n, d, error)
    print(f"linear operator: at most {worst:.1e} from the reference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True, help="module with the operator in numpy")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the golden files")
    args = parser.parse_args()
    torch.set_num_threads(1)
    check_linear_operator(args.reference)
    for case in CASES:
        params = draw_params(case.config, torch.Generator().manual_seed(case.seed))
        tensors = {f"param.{name}": p.numpy() for name, p in params.items()}
        gradients(case, params, tensors)
        about = {"toml": case.config.toml(), "ratio": case.config.ratio, "layers": case.config.layers}
        print(f"{case.config.flavor}: loss {tensors['loss']:.6f}")
        if case.training is not None:
            train(case, case.training, params, tensors)
            about["training"] = vars(case.training)
        path = args.out / f"{case.config.flavor}.safetensors"
        save_file(tensors, path, {"case": json.dumps(about)})
        print(f"  {path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
