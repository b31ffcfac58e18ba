"""Compares linc with transformers: logits, greedy text, and the bits of weights that go out and come back.

    pip install torch transformers safetensors
    cargo build --release
    python tools/check_hugging_face.py [--model DIR] [--only WORDS] [--linc target/release/linc]

Trains small models for a moment, exports each, loads it with transformers and compares, with and without a cache, alone and in a
batch with padding. `--model` is a folder with a Llama model and a tokenizer, which is imported and compared
as well. Prints the largest difference of each comparison, and exits with 1 if one is too large.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

LIMIT = 1e-4
STEPS = 40

SCALED = "\n[rope_scaling]\nfactor = 4.0\nlow_freq_factor = {}\nhigh_freq_factor = {}\noriginal_max_position_embeddings = 64\n"

# What is trained: its share of linear layers, and what is added to the file of the smallest model. A large temperature makes keys
# vary more than they do after a moment's training.
CASES = [
    ("ratio 0", 0, ""),
    ("ratio 0, tied, heads of 40, RoPE as in Llama 3.1", 0, "tie_embeddings = true\nhead_dim = 40\n" + SCALED.format(1.0, 4.0)),
    ("ratio 0, RoPE scaled linearly", 0, SCALED.format(64.0, 128.0)),
    ("ratio 0.5, tied", 0.5, "tie_embeddings = true\n\n[linear_attention]\ntemperature = 8.0\n"),
    ("ratio 0.5, heads of 40, RoPE as in Llama 3.1", 0.5, "head_dim = 40\n" + SCALED.format(1.0, 4.0)),
    ("ratio 0.5, RoPE scaled linearly", 0.5, SCALED.format(64.0, 128.0)),
    ("ratio 1", 1, ""),
    ("ratio 1, linear layers without RoPE, far apart keys", 1, "\n[linear_attention]\nrope = false\ntemperature = 60.0\n"),
]

failed = []


def report(name, difference, limit=LIMIT):
    """Prints a difference and remembers whether it is too large; `limit` 0 asks for equality."""
    fine = difference <= limit
    print(f"  {'ok  ' if fine else 'FAIL'} {name}: {difference:.3g}", flush=True)
    if not fine:
        failed.append(name)


def distance(a, b):
    return (a.double() - b.double()).abs().max().item() if a.numel() else 0.0


def linc(program, *args):
    done = subprocess.run([program, *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"linc {' '.join(map(str, args))} failed:\n{done.stderr}")
    return done.stdout


def linc_logits(program, checkpoint, prompt, tokens, folder):
    """Tokens that linc was fed, and its logits after each, greedily continued."""
    file = folder / "logits.safetensors"
    common = ["--device", "cpu", "--greedy", "--logits", file]
    linc(program, "generate", "--checkpoint", checkpoint, "--prompt", prompt, "--tokens", tokens, *common)
    held = load_file(file)
    return held["tokens"].long()[None], held["logits"]


@torch.no_grad()
def cached_logits(model, tokens, sizes, name, **mask):
    """Logits of a text that is fed in parts of those sizes, with the cache under one of its names."""
    rows, cache, at = [], None, 0
    for size in sizes:
        part = {key: value[:, : at + size] for key, value in mask.items()}
        out = model(tokens[:, at : at + size], use_cache=True, **({name: cache} if cache is not None else {}), **part)
        cache = out.cache if hasattr(out, "cache") else out.past_key_values
        rows.append(out.logits)
        at += size
    return torch.cat(rows, dim=1)


@torch.no_grad()
def greedy(model, tokens, count, mask=None, **more):
    # Without a mask, transformers takes tokens that look like padding for such.
    mask = torch.ones_like(tokens) if mask is None else mask
    return model.generate(tokens, attention_mask=mask, max_new_tokens=count, do_sample=False, pad_token_id=0, **more)


def compare(model, program, checkpoint, prompt, count, folder, cache_names):
    """A model of transformers with a checkpoint of linc."""
    tokens, expected = linc_logits(program, checkpoint, prompt, count, folder)
    length = tokens.shape[1]
    with torch.no_grad():
        whole = model(tokens).logits[0]
        report("logits of the whole text", distance(whole, expected))
        report("without a cache", distance(model(tokens, use_cache=False).logits[0], expected))
    for name in cache_names:
        for words, sizes in [("token by token", [1] * length), ("in parts", [5, 1, 40, length - 46])]:
            logits = cached_logits(model, tokens, sizes, name)[0]
            report(f"cached {words} ({name})", distance(logits, expected))
    return tokens


def compare_text(model, program, checkpoint, prompts, count, folder):
    """What both write, until `count` tokens are compared; a text ends where it does for both."""
    compared, differ = 0, 0
    for prompt in prompts:
        start = linc_logits(program, checkpoint, prompt, 0, folder)[0].shape[1]
        tokens, logits = linc_logits(program, checkpoint, prompt, count, folder)
        # The last token that linc chose, perhaps the end of the text, was not fed.
        own = torch.cat([tokens[0, start:], logits[-1].argmax()[None]])
        continued = greedy(model, tokens[:, :start], count)[0, start:]
        both = min(len(continued), len(own))
        differ += (continued[:both] != own[:both]).sum().item() + abs(len(continued) - len(own))
        compared += both
        if compared >= count:
            break
    report(f"greedy tokens that differ, of {compared}", differ, 0)
    report(f"greedy tokens that lack for {count}", max(0, count - compared), 0)


@torch.no_grad()
def compare_batches(model, tokens, cache_names):
    """Texts of several lengths in a batch with padding on the left with each by itself."""
    texts = [tokens[:, :length] for length in (37, 5, 64, 1)]
    longest = max(text.shape[1] for text in texts)
    padded = torch.cat([torch.nn.functional.pad(text, (longest - text.shape[1], 0), value=7) for text in texts])
    mask = torch.cat([torch.nn.functional.pad(torch.ones_like(text), (longest - text.shape[1], 0)) for text in texts])
    whole = model(padded, attention_mask=mask).logits
    cached = [cached_logits(model, padded, [9, 1, longest - 10], name, attention_mask=mask) for name in cache_names]
    for row, text in enumerate(texts):
        alone, size = model(text).logits[0], text.shape[1]
        report(f"padded batch, {size} tokens", distance(whole[row, -size:], alone))
        for name, logits in zip(cache_names, cached):
            report(f"padded batch, {size} tokens, cached ({name})", distance(logits[row, -size:], alone))
    together = greedy(model, padded, 20, mask, eos_token_id=None)[:, longest:]
    alone = torch.cat([greedy(model, text, 20, eos_token_id=None)[:, text.shape[1] :] for text in texts])
    report("padded batch, greedy tokens that differ", (together != alone).sum().item(), 0)
    beams = [greedy(model, tokens[:, :20], 20, num_beams=3, use_cache=use_cache) for use_cache in (True, False)]
    report("beam search, tokens that differ without a cache", (beams[0] != beams[1]).sum().item(), 0)


def compare_bits(program, model, checkpoint, folder):
    """What transformers saves comes back with the same bits."""
    saved, back = folder / "saved", folder / "back"
    model.save_pretrained(saved)
    linc(program, "import", saved, "--out", back)
    before, after = (load_file(Path(path) / "model.safetensors") for path in (checkpoint, back))
    names = set(before) ^ set(after)
    report("save_pretrained and import: tensors with another name", len(names), 0)
    bits = [not torch.equal(before[name].view(torch.int32), after[name].view(torch.int32)) for name in before]
    report("save_pretrained and import: tensors with other bits", sum(bits), 0)


def load(path):
    """In f32, with the model class that was exported."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, trust_remote_code=True).eval()


def check_model(args, folder, cache_names):
    print(f"{args.model}: imported", flush=True)
    checkpoint = folder / "imported"
    linc(args.linc, "import", args.model, "--out", checkpoint)
    model = load(args.model)
    tokens = compare(model, args.linc, checkpoint, "Once upon a time", 100, folder, cache_names)
    prompts = ["Once upon a time", "One day, a cat", "Lily and Tom", "The dog was", "Ben had a red ball", "Mom said"]
    compare_text(model, args.linc, checkpoint, prompts, 200, folder)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    ids = tokenizer("Once upon a time", return_tensors="pt").input_ids
    report("tokens of the prompt that differ", (ids != tokens[:, : ids.shape[1]]).sum().item(), 0)
    compare_bits(args.linc, model, checkpoint, folder)


def check_case(args, name, ratio, more, folder, cache_names):
    print(f"{name}: trained, exported", flush=True)
    run, out, root = folder / "run", folder / "out", Path(__file__).parent.parent
    config = root / "configs" / "quickstart.toml"
    (folder / "model.toml").write_text((root / "models" / "llama3_nano.toml").read_text() + more)
    (folder / "llama3.linc").write_text((root / "models" / "llama3.linc").read_text())
    settings = {"model.path": folder / "model.toml", "model.linear_attn_ratio": ratio, "job.dump_folder": run}
    settings |= {"training.steps": STEPS, "training.device": "cpu"}
    linc(args.linc, "train", config, *(word for key, value in settings.items() for word in (f"--{key}", value)))
    checkpoint = run / "checkpoint" / f"step-{STEPS}"
    linc(args.linc, "export", checkpoint, "--out", out, "--max-shard-size", "1MB")
    model = load(out)
    tokens = compare(model, args.linc, checkpoint, "One day, a little girl", 100, folder, cache_names)
    compare_text(model, args.linc, checkpoint, ["One day", "The little girl"], 200, folder)
    compare_batches(model, tokens, cache_names)
    compare_bits(args.linc, model, checkpoint, folder)
    narrow = AutoModelForCausalLM.from_pretrained(out, dtype=torch.bfloat16, trust_remote_code=True).eval()
    with torch.no_grad():
        report("logits in bfloat16", distance(narrow(tokens).logits, model(tokens).logits), 0.5)
    # It learns, padding and all.
    model.train()
    padded, mask = torch.nn.functional.pad(tokens, (3, 0)), torch.nn.functional.pad(torch.ones_like(tokens), (3, 0))
    labels = padded.masked_fill(mask == 0, -100)
    out = model(padded, attention_mask=mask, labels=labels)
    mean = torch.nn.functional.cross_entropy(out.logits[0, :-1], labels[0, 1:])
    report("loss", distance(out.loss, mean))
    out.loss.backward()
    broken = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()]
    report("gradients that are missing or not finite", len(broken), 0)


def main():
    root = Path(__file__).parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--linc", default=root / "target" / "release" / "linc", help="the program")
    parser.add_argument("--model", type=Path, help="a folder with a Llama model of Hugging Face")
    parser.add_argument("--only", default="", help="only what has these words in its name")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    # Newer versions say `cache`; hybrids take both.
    newest = "cache" if int(transformers.__version__.split(".")[0]) > 4 else "past_key_values"
    with tempfile.TemporaryDirectory() as home:
        if args.model:
            (Path(home) / "model").mkdir()
            check_model(args, Path(home) / "model", [newest])
        for number, (name, ratio, more) in enumerate(CASES):
            folder = Path(home) / f"case-{number}"
            folder.mkdir()
            if args.only in name:
                check_case(args, name, ratio, more, folder, [newest] if ratio == 0 else ["cache", "past_key_values"])
    if failed:
        sys.exit(f"{len(failed)} comparisons failed: {', '.join(failed)}")
    print("all as they should be")


if __name__ == "__main__":
    main()
