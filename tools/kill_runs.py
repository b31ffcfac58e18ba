#!/usr/bin/env python3
"""Kills a training run at random moments, goes on, and compares the end with that of a run that nobody disturbed.

    python tools/kill_runs.py --linc target/release/linc --kills 500

Checkpoints are written beside the training, often. After every kill each step-N that is there must be whole, and the weights
of the last step must have the bits of the undisturbed run. Exits with 1 if they do not.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linc", default="linc", help="the program")
    parser.add_argument("--config", default="configs/quickstart.toml")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="an empty folder to work in, such as a small tmpfs")
    args = parser.parse_args()
    random.seed(args.seed)
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=args.folder))

    def command(run):
        settings = {
            "job.dump_folder": work / run,
            "training.steps": args.steps,
            "training.batch_size": 1,
            "training.seq_len": 64,
            "checkpoint.enable": "true",
            "checkpoint.interval": 3,
            "checkpoint.keep_latest_k": 3,
            "checkpoint.async_mode": "async",
            "validation.enable": "false",
        }
        flags = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
        return [args.linc, "train", args.config, *flags]

    def train(run):
        return subprocess.Popen(command(run), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    begun = time.monotonic()
    whole = train("whole")
    output = whole.communicate()[0]
    if whole.returncode != 0:
        sys.exit(output)
    length = time.monotonic() - begun
    weights = f"checkpoint/step-{args.steps}/model.safetensors"
    expected = (work / "whole" / weights).read_bytes()

    kills, ends = 0, 0
    while kills < args.kills:
        shutil.rmtree(work / "killed", ignore_errors=True)
        while True:
            process = train("killed")
            try:
                output = process.communicate(timeout=random.uniform(0.0, 0.8 * length))[0]
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills += 1
                for step in sorted((work / "killed" / "checkpoint").glob("step-*")):
                    check = subprocess.run([args.linc, "inspect", step], capture_output=True, text=True)
                    if check.returncode != 0:
                        sys.exit(f"after {kills} kills {step} is damaged:\n{check.stderr}")
                continue
            if process.returncode != 0:
                sys.exit(f"after {kills} kills a run does not go on:\n{output}")
            break
        ends += 1
        if (work / "killed" / weights).read_bytes() != expected:
            sys.exit(f"after {kills} kills the weights are others than those of an undisturbed run: {work}")
    print(f"{kills} kills, {ends} runs to their end: every checkpoint was whole, and the bits are the same")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
