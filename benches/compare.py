#!/usr/bin/env python3
"""linc beside PyTorch on the CPU, interleaved: A B A B .., each a whole training run of a few steps.

    python3 benches/compare.py --python VENV/bin/python --linc target/release/linc [--rounds 3] [--quick]

Prints a Markdown table: median tokens per second and peak memory of both, and the ratio of linc to PyTorch (the median
of the ratios of neighbouring runs). One thread is pinned to a core; OMP_WAIT_POLICY is PASSIVE.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
# ratio, batch, sequence, threads, torch.compile
CASES = [
    (0, 4, 512, 2, False),
    (0, 4, 512, 2, True),
    (0, 4, 512, 1, False),
    (0, 1, 2048, 2, False),
    (1, 1, 2048, 2, False),
    (0, 1, 8192, 2, False),
    (1, 1, 8192, 2, False),
]


def pinned(command, threads):
    return ["taskset", "-c", "0"] + command if threads == 1 else command


def run_linc(args, ratio, batch, seq, threads):
    with tempfile.TemporaryDirectory() as folder:
        command = [
            args.linc, "train", os.path.join(HERE, "cpu.toml"), "--job.dump_folder", folder,
            "--model.linear_attn_ratio", str(ratio), "--training.batch_size", str(batch),
            "--training.seq_len", str(seq), "--training.threads", str(threads), "--training.steps", str(args.steps),
        ]
        text = subprocess.run(pinned(["/usr/bin/env", "time", "-f", "%M"] + command, threads), capture_output=True, text=True, check=True)
        with open(os.path.join(folder, "metrics.jsonl")) as lines:
            rates = [json.loads(line)["tps"] for line in lines]
    return statistics.median(rates[2:]), int(text.stderr.split()[-1]) * 1024


def run_torch(args, ratio, batch, seq, threads, compiled):
    command = [args.python, os.path.join(HERE, "torch_llama.py"), "--ratio", str(ratio), "--batch", str(batch),
               "--seq", str(seq), "--threads", str(threads), "--steps", str(args.steps)]
    if compiled:
        command.append("--compile")
    env = dict(os.environ, OMP_WAIT_POLICY="PASSIVE")
    text = subprocess.run(pinned(command, threads), capture_output=True, text=True, check=True, env=env)
    result = json.loads(text.stdout.splitlines()[-1])
    return result["tps"], result["peak_bytes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="a Python with torch")
    parser.add_argument("--linc", default="target/release/linc")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--cases", default="", help="numbers of the cases to run, from 0; all if not given")
    args = parser.parse_args()
    chosen = [int(c) for c in args.cases.split(",") if c] or range(len(CASES))
    print("| ratio | batch x seq | threads | PyTorch | linc tok/s | PyTorch tok/s | ratio | linc GiB | PyTorch GiB | ratio |")
    print("|---|---|---|---|--:|--:|--:|--:|--:|--:|")
    for number in chosen:
        ratio, batch, seq, threads, compiled = CASES[number]
        linc, torch = [], []
        for _ in range(args.rounds):
            linc.append(run_linc(args, ratio, batch, seq, threads))
            torch.append(run_torch(args, ratio, batch, seq, threads, compiled))
        median = lambda runs, i: statistics.median(r[i] for r in runs)
        speed = statistics.median(a[0] / b[0] for a, b in zip(linc, torch))
        memory = median(linc, 1) / median(torch, 1)
        kind = "torch.compile" if compiled else "eager"
        gib = 2**30
        print(f"| {ratio} | {batch} x {seq} | {threads} | {kind} | {median(linc, 0):.0f} | {median(torch, 0):.0f} | "
              f"{speed:.2f}x | {median(linc, 1) / gib:.2f} | {median(torch, 1) / gib:.2f} | {memory:.2f}x |", flush=True)


if __name__ == "__main__":
    main()
