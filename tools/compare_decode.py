"""Compares how fast linc and transformers write text on the CPU: tokens per second of greedy decoding, in one interleaved run.

    pip install torch transformers
    cargo build --release
    python tools/compare_decode.py [--checkpoint STEP_DIR ..] [--batch 1,8] [--prompt 64] [--tokens 128] [--rounds 5]
    python tools/compare_decode.py --shape models/llama3_1b.toml [--ratio 0,0.75,1] [--length 128] [--precision float32,bfloat16]

Without a checkpoint it trains one of `--dim` and `--layers` for two steps, at each `--ratio`. Each is exported and loaded by transformers with
as many threads as linc has, both continue the same prompts, and the texts are compared first: they must be the same token by token, up to where
the two best tokens of a step are within rounding of each other. In each round linc and transformers take turns, the one that begins
changing from round to round. linc's speed is what `linc generate` says of its steps; that of transformers is the time of `--tokens` tokens
without that of reading the prompt. A round in which the prompt alone took longer than prompt and tokens was disturbed and is left out.
Medians over the rounds, and the ratio of medians with the least and the largest ratio of a round.

`--shape` measures `linc bench inference` with random weights beside the limit that memory sets: a step at batch 1 has to read all weights
but the embedding's other rows. The bandwidth is that of a sum over an array far larger than caches by all threads, before and after, or of the fastest step.

Measure on an idle machine.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

WORDS = "one day a small fox went to the river and saw that the water was cold so she sat down on a stone to think".split()


def run(linc, *args):
    command = [str(linc), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done


def trained(given, ratio, folder):
    """A checkpoint of a model of the wanted size, trained for two steps."""
    run(
        given.linc, "train", "configs/quickstart.toml", "--job.dump_folder", folder / "run", "--training.steps", 2,
        "--training.batch_size", 1, "--training.seq_len", 128, "--model.linear_attn_ratio", ratio, "--training.device", "cpu",
        "--model.path", given.model, "--model.overrides.dim", given.dim, "--model.overrides.n_layers", given.layers,
        "--model.overrides.n_heads", given.dim // 64, "--model.overrides.n_kv_heads", given.dim // 128,
        "--validation.enable", "false", "--checkpoint.enable", "true",
    )
    return folder / "run" / "checkpoint" / "step-2"


def prompts(count, letters):
    """Texts of so many letters, no two alike."""
    found = []
    for index in range(count):
        words = WORDS[index % len(WORDS) :] + WORDS
        found.append((" ".join(words * (letters // 50 + 1)))[:letters])
    return found


class Linc:
    def __init__(self, given, checkpoint, texts, folder):
        self.given, self.checkpoint, self.count = given, checkpoint, len(texts)
        self.file = folder / f"prompts_{len(texts)}.jsonl"
        self.file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts), encoding="utf-8")

    def generate(self, *more):
        return run(
            self.given.linc, "generate", self.checkpoint, "--prompts", self.file, "--batch", self.count, "--greedy", "--tokens",
            self.given.tokens, "--context", self.given.prompt + self.given.tokens + 1, "--device", "cpu", "--threads", self.given.threads, *more,
        )

    def ids(self):
        """Token ids of each continuation."""
        lines = [json.loads(line) for line in self.generate("--logprobs", 2).stdout.splitlines()]
        return [[token["id"] for token in line["logprobs"]] for line in lines], [
            [token["top"][0]["logprob"] - token["top"][1]["logprob"] for token in line["logprobs"]] for line in lines
        ]

    def speed(self):
        said = self.generate().stderr
        found = re.search(r"wrote ([\d,]+) at ([\d,]+) tokens/s", said)
        if not found:
            sys.exit(f"linc generate said no speed:\n{said}")
        return int(found.group(2).replace(",", ""))


class Transformers:
    def __init__(self, given, folder, texts):
        import torch
        from transformers import AutoModelForCausalLM

        self.torch, self.given = torch, given
        torch.set_num_threads(given.threads)
        self.model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()
        file = folder / "tokenizer.json"
        if file.is_file():
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(file))
            ids = [tokenizer.encode(text).ids for text in texts]
        else:
            # Bytes are tokens, and byte 0 begins a text.
            ids = [[0, *text.encode()] for text in texts]
        shortest = min(map(len, ids))
        self.ids = torch.tensor([row[:shortest] for row in ids])
        if any(len(row) != shortest for row in ids):
            sys.exit("the prompts have different numbers of tokens: use a checkpoint whose tokens are bytes")

    def generate(self, tokens):
        with self.torch.no_grad():
            return self.model.generate(
                self.ids, attention_mask=self.torch.ones_like(self.ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
                eos_token_id=None, pad_token_id=0, use_cache=True,
            )

    def continuations(self):
        return self.generate(self.given.tokens)[:, self.ids.shape[1] :].tolist()

    def speed(self):
        begun = time.perf_counter()
        self.generate(1)
        first = time.perf_counter()
        self.generate(1 + self.given.tokens)
        seconds = (time.perf_counter() - first) - (first - begun)
        # A machine that other work held up while the prompt was read says nothing of the rest.
        return len(self.ids) * self.given.tokens / seconds if seconds > 0 else None


def same(ours, gaps, theirs):
    """Where the first difference is that rounding does not explain, if there is one."""
    for row, (a, gap, b) in enumerate(zip(ours, gaps, theirs, strict=True)):
        for at, (x, y) in enumerate(zip(a, b)):
            if x != y:
                if gap[at] > 1e-3:
                    return row, at
                break
    return None


def compare(given):
    print("| parameters | layers | batch | linc tokens/s | transformers tokens/s | ratio | least .. largest |")
    print("|---|---|---|---|---|---|---|")
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        checkpoints = list(given.checkpoint)
        if not checkpoints:
            for ratio in given.ratio:
                (folder / f"ratio_{ratio}").mkdir()
                checkpoints.append(trained(given, ratio, folder / f"ratio_{ratio}"))
        for number, checkpoint in enumerate(checkpoints):
            exported = folder / f"exported_{number}"
            run(given.linc, "export", checkpoint, "--out", exported)
            about = run(given.linc, "inspect", checkpoint).stdout
            layers = re.search(r"^Layers +([LS ]+)$", about, re.MULTILINE)
            for batch in given.batch:
                texts = prompts(batch, given.prompt)
                ours, theirs = Linc(given, checkpoint, texts, folder), Transformers(given, exported, texts)
                differs = same(*ours.ids(), theirs.continuations())
                if differs:
                    print(f"the texts differ: prompt {differs[0]}, token {differs[1]}", file=sys.stderr)
                    failed = True
                pairs = []
                for turn in range(given.rounds):
                    order = [("linc", ours), ("transformers", theirs)]
                    speeds = {name: who.speed() for name, who in (order if turn % 2 == 0 else order[::-1])}
                    if None in speeds.values():
                        print(f"round {turn + 1} was disturbed and does not count", file=sys.stderr)
                    else:
                        pairs.append((speeds["linc"], speeds["transformers"]))
                if not pairs:
                    sys.exit("no round was undisturbed: measure on an idle machine, with more --tokens")
                a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
                ratios = [x / y for x, y in pairs]
                count = sum(p.numel() for p in theirs.model.parameters())
                kinds = layers.group(1).strip() if layers else "?"
                print(f"| {count:,} | {kinds} | {batch} | {a:,.0f} | {b:,.0f} | {a / b:.2f} | {min(ratios):.2f} .. {max(ratios):.2f} |", flush=True)
    sys.exit(1 if failed else 0)


def bandwidth(threads):
    """Bytes per second that all threads read together."""
    import torch

    torch.set_num_threads(threads)
    array = torch.ones(1 << 28)
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        array.sum()
        best = min(best, time.perf_counter() - begun)
    return array.numel() * 4 / best


def shape(given):
    rows = []
    before = bandwidth(given.threads)
    for precision in given.precision:
        done = run(
            given.linc, "bench", "inference", given.shape, "--ratio", ",".join(map(str, given.ratio)), "--seq", given.length, "--batch-size", 1,
            "--precision", precision, "--device", "cpu", "--threads", given.threads, "--format", "json",
        )
        rows += [(precision, row) for row in json.loads(done.stdout)["rows"]]
    after = bandwidth(given.threads)
    reads = lambda row: row["weight_bytes"] + row["cache_bytes"] + 2 * row["state_bytes"]
    # The host gives more memory at one time than at another: the limit is the most that was ever seen, by a step as well.
    seen = [1e3 * reads(row) / row["decode_ms"]["min"] for _, row in rows if not row.get("error") and reads(row) > 256e6]
    limit = max([before, after, *seen])
    print(f"memory is read at {before / 1e9:.1f} GB/s before and {after / 1e9:.1f} GB/s after, by {given.threads} threads; at most {limit / 1e9:.1f} GB/s\n")
    print("| precision | layers | weights read | limit ms | step ms | share of the limit | tokens/s |")
    print("|---|---|---|---|---|---|---|")
    for precision, row in rows:
        if row.get("error"):
            print(f"| {precision} | {row['layers']} | {row['error']} | | | | |")
            continue
        read = reads(row)
        least, step = 1e3 * read / limit, row["decode_ms"]["median"]
        # What fits in caches is not read from memory in each step.
        share = f"{100 * least / step:.0f} %" if read > 256e6 else "in caches"
        print(
            f"| {precision} | {row['layers']} | {read / 1e9:.3f} GB | {least:.2f} | {step:.2f} | {share} | {row['decode_tokens_per_s']:.1f} |"
        )


def numbers(kind):
    return lambda text: [kind(part) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, nargs="*", default=[])
    parser.add_argument("--model", type=Path, default=Path("models/llama3_nano.toml"), help="of the model that is trained without --checkpoint")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--ratio", type=numbers(float), default=[0.0, 0.75])
    parser.add_argument("--batch", type=numbers(int), default=[1, 8])
    parser.add_argument("--prompt", type=int, default=64, help="letters, which are tokens, of a prompt")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--shape", type=Path)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--precision", type=numbers(str), default=["float32", "bfloat16"])
    parser.add_argument("--linc", default="target/release/linc")
    given = parser.parse_args()
    if given.shape:
        shape(given)
    else:
        compare(given)


if __name__ == "__main__":
    main()
