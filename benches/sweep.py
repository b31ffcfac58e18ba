#!/usr/bin/env python3
"""Trains the same small model under several settings and prints a Markdown table.

    python3 benches/sweep.py --linc target/release/linc --config configs/quickstart.toml --out outputs/sweep \
        --vary model.linear_attn_ratio=0,0.25,0.5,0.75,1 -- --training.steps 400

Every combination of the varied settings is one run with the same seed; what follows `--` goes to all runs. Each run
keeps its folder under --out; a finished run is not repeated.
"""
import argparse
import itertools
import json
import os
import subprocess
import sys


def run(args, names, values, common):
    label = "_".join(f"{n.split('.')[-1]}-{os.path.basename(v)}" for n, v in zip(names, values))
    folder = os.path.join(args.out, label)
    metrics = os.path.join(folder, "metrics.jsonl")
    if not os.path.exists(os.path.join(folder, "done")):
        command = [args.linc, "train", args.config, "--job.dump_folder", folder, "--checkpoint.enable", "false"]
        for name, value in zip(names, values):
            command += [f"--{name}", value]
        result = subprocess.run(command + common, capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"{' '.join(command + common)}\n{result.stderr}")
        open(os.path.join(folder, "done"), "w").close()
    with open(metrics) as lines:
        return [json.loads(line) for line in lines]


def summary(records):
    last = lambda key: next((r[key] for r in reversed(records) if key in r), float("nan"))
    speeds = sorted(r["tps"] for r in records[1:] if "tps" in r)
    memory, kept = next((r["memory"], r["kept_memory"]) for r in records if "memory" in r)
    return {
        "train loss": f"{last('loss'):.4f}",
        "val loss": f"{last('validation_loss'):.4f}",
        "bits/byte": f"{last('validation_bits_per_byte'):.4f}",
        "recall": f"{100 * last('validation_accuracy'):.2f}%",
        "tok/s": f"{speeds[len(speeds) // 2]:,.0f}" if speeds else "",
        "memory MiB": f"{sum(memory.values()) / 2**20:.1f}",
        "attention MiB": f"{kept.get('attention', 0) / 2**20:.1f}",
    }


def main():
    own, common = sys.argv[1:], []
    if "--" in own:
        own, common = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linc", default="target/release/linc")
    parser.add_argument("--config", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--vary", action="append", default=[], help="setting=value,value,..")
    args = parser.parse_args(own)
    names = [v.split("=", 1)[0] for v in args.vary]
    choices = [v.split("=", 1)[1].split(",") for v in args.vary]
    rows, columns = [], []
    for values in itertools.product(*choices):
        row = summary(run(args, names, values, common))
        columns = [c for c in row if not row[c].startswith("nan")]
        rows.append((values, row))
    header = [n.split(".")[-1] for n in names] + columns
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for values, row in rows:
        print("| " + " | ".join(list(values) + [row[c] for c in columns]) + " |")


if __name__ == "__main__":
    main()
