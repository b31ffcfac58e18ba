"""What each mode of activation checkpointing costs and saves: time and memory of a training step, all modes taking turns.

    cargo build --release
    python benches/recompute.py [--model models/llama3_nano.toml] [--set dim=256 ..] [--seq 4096] [--batch 1] [--ratio 0.5] [--rounds 3]

The modes are `none`, `selective`, every second layer, `full` and budgets of 0 to 1 and of the bytes that `selective` takes, which
must cost no more time than it. Each turn is a `linc bench train` of one mode; medians over the turns are printed beside
`none`, and memory as the plan has it. The losses behind the steps must be the same. Measure on an idle machine.
"""

import argparse
import json
import statistics
import subprocess
import sys


def bench(given, mode):
    command = [
        given.linc, "bench", "train", given.model, "--ratio", given.ratio, "--seq", given.seq, "--batch-size", given.batch, "--rounds", 2,
        "--warmup", 1, "--device", given.device, "--format", "json", *mode,
    ]  # fmt: skip
    for number in given.set:
        command += ["--set", number]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return json.loads(done.stdout)["rows"][0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/llama3_nano.toml")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="a number of the model; 12 layers of 256 if there is none")
    parser.add_argument("--seq", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--linc", default="target/release/linc")
    given = parser.parse_args()
    given.set = given.set or ["dim=256", "n_layers=12", "n_heads=4", "n_kv_heads=4"]
    modes = {
        "none": ["--recompute", "none"],
        "selective": ["--recompute", "selective"],
        "selective, every 2nd layer": ["--recompute", "selective", "--selective-layers", 2],
        "full": ["--recompute", "full"],
    }
    for budget in (0, 0.25, 0.5, 0.75, 1):
        modes[f"budget {budget}"] = ["--recompute", "memory_budget", "--memory-budget", budget]
    rows = {name: [bench(given, mode)] for name, mode in modes.items()}
    selective = rows["selective"][0]["bytes"]
    name = "budget of selective's bytes"
    modes[name] = ["--recompute", "memory_budget", "--memory-budget", f"{selective}B"]
    rows[name] = [bench(given, modes[name])]
    for turn in range(1, given.rounds):
        order = list(modes) if turn % 2 == 0 else list(modes)[::-1]
        for name in order:
            rows[name].append(bench(given, modes[name]))
    times = {name: statistics.median(row["ms"]["min"] for row in found) for name, found in rows.items()}
    losses = {row["loss"] for found in rows.values() for row in found}
    if len(losses) > 1:
        sys.exit(f"the losses of the modes differ: {losses}")
    print("| mode | ms | of none | MiB | of none |")
    print("|---|---|---|---|---|")
    for name, found in rows.items():
        size, whole = found[0]["bytes"], rows["none"][0]["bytes"]
        print(f"| {name} | {times[name]:,.0f} | {times[name] / times['none']:.2f} | {size / 2**20:,.1f} | {size / whole:.2f} |")


if __name__ == "__main__":
    main()
