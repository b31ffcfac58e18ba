#!/usr/bin/env python3
"""Replays a run's metrics.jsonl into Weights & Biases, offline: `wandb sync` uploads it later.

    pip install wandb
    python tools/wandb_replay.py outputs/quickstart --project linc

The config of the run goes with it. Records of a folder that a run was resumed in have growing steps, as W&B wants them.
"""

import argparse
import json
import sys
import tomllib
from pathlib import Path

try:
    import wandb
except ModuleNotFoundError:
    sys.exit("W&B is not there: pip install wandb")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("--project", default="linc")
    parser.add_argument("--name", help="the folder's name, if not given")
    parser.add_argument("--online", action="store_true", help="upload while replaying")
    args = parser.parse_args()
    try:
        config = tomllib.loads((args.run / "config.toml").read_text(encoding="utf-8"))
        lines = (args.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror.lower()}; name the folder of a run, with config.toml and metrics.jsonl")
    # A run that goes on, or was killed, may have written a part of its last line.
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    run = wandb.init(
        project=args.project,
        name=args.name or args.run.resolve().name,
        config=config,
        mode="online" if args.online else "offline",
    )
    # Training and validation of a step are two records; W&B takes one entry for a step.
    steps = {}
    for line in lines:
        record = json.loads(line)
        entry = steps.setdefault(record.pop("step"), {})
        for key, value in record.items():
            if isinstance(value, dict):
                entry.update({f"{key}/{name}": number for name, number in value.items()})
            else:
                entry[key] = value
    for step, entry in sorted(steps.items()):
        run.log(entry, step=step)
    run.finish()


if __name__ == "__main__":
    main()
