"""A table of what models recall: trained on MQAR and on induction (a needle of one token) at several shares of linear layers.

    cargo build --release
    python tools/recall_table.py [--ratio 0,0.5,0.75,1] [--pairs 4,8,16,32,64] [--steps 1500] [--length 256] [--out outputs/recall_table]

Each model is trained once on all numbers of pairs in turn (`configs/recall.toml`), then asked by `linc eval` for each of them: accuracy by
number of pairs with its 95 % interval, beside the bytes of state and cache that a sequence of this length has. A model of linear layers alone has to
keep all pairs in its state. What was trained and evaluated before is not done again: the same command goes on.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}{done.stderr}")
    return done.stdout


def trained(given, task, ratio, pairs):
    folder = given.out / f"{task}_{ratio}"
    settings = ["--training.mqar.num_kv_pairs", ",".join(map(str, pairs))] if task == "mqar" else ["--training.dataset", task]
    run(
        given.linc, "train", given.config, "--job.dump_folder", folder, "--model.linear_attn_ratio", ratio, "--training.steps", given.steps,
        "--training.seq_len", given.length, "--training.batch_size", given.batch, "--optimizer.lr", given.lr, "--training.seed", given.seed,
        "--validation.freq", given.steps, "--checkpoint.enable", "true", "--checkpoint.interval", max(1, given.steps // 4), *settings,
    )
    return folder


def asked(given, task, folder):
    out = folder / "eval"
    run(given.linc, "eval", folder, "--tasks", task, "--lengths", given.length, "--context", given.length, "--limit", given.samples, "--out", out)
    return json.loads((out / "results.json").read_text())["tasks"][task]


def memory(given, ratio):
    """Bytes of cache and of states of a sequence, by the plan."""
    rows = json.loads(
        run(
            given.linc, "bench", "inference", given.model, "--ratio", ratio, "--seq", given.length, "--batch-size", 1, "--rounds", 1, "--warmup", 0,
            "--format", "json",
        )
    )["rows"]
    return rows[0]["cache_bytes"], rows[0]["state_bytes"]


def cell(estimate):
    low, high = estimate["ci95"]
    return f"{100 * estimate['value']:.1f} ({100 * low:.1f} .. {100 * high:.1f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratio", default="0,0.5,0.75,1", type=lambda text: text.split(","))
    parser.add_argument("--pairs", default="4,8,16,32,64", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", default="2e-3")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--config", type=Path, default=Path("configs/recall.toml"))
    parser.add_argument("--model", type=Path, default=Path("models/recall_small.toml"), help="the config's model, for the bytes of a sequence")
    parser.add_argument("--out", type=Path, default=Path("outputs/recall_table"))
    parser.add_argument("--linc", default="target/release/linc")
    given = parser.parse_args()
    unasked = [pairs for pairs in given.pairs if pairs not in (4, 8, 16, 32, 64, 128, 256)]
    if unasked:
        parser.error(f"--pairs has {unasked[0]}; linc eval asks for powers of two from 4 to 256")
    if 4 * max(given.pairs) > given.length:
        parser.error(f"{max(given.pairs)} pairs, shown and asked, take {4 * max(given.pairs)} tokens: give a larger --length")
    given.out.mkdir(parents=True, exist_ok=True)
    print(f"| ratio | bytes of a sequence: cache, states | {' | '.join(f'{pairs} pairs' for pairs in given.pairs)} | induction |")
    print("|" + "---|" * (3 + len(given.pairs)))
    for ratio in given.ratio:
        groups = asked(given, "mqar", trained(given, "mqar", ratio, given.pairs))["groups"]
        needle = asked(given, "induction", trained(given, "induction", ratio, given.pairs))["metrics"]["acc"]
        cells = [cell(groups[f"{given.length} tokens, {pairs} pairs"]["acc"]) for pairs in given.pairs]
        cache, state = memory(given, ratio)
        print(f"| {ratio} | {cache:,}, {state:,} | {' | '.join(cells)} | {cell(needle)} |", flush=True)


if __name__ == "__main__":
    main()
