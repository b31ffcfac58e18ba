#!/usr/bin/env python3
"""Kills a random rank of a training run at random moments, goes on with another number of ranks, and compares the end with that
of one process that nobody disturbed.

    python tools/kill_ranks.py --linc target/release/linc --kills 200 --ranks 1,2,4

Each start has one of these numbers of ranks, which share the optimizer out or have copies of it, as it falls, over the MPI that
`linc launch` finds; all have to end when one of them is killed. Checkpoints are written beside the training, often. After every
kill each step-N that is there must be whole, and the weights of the last step must have the bits of the undisturbed run. Exits
with 1 if they do not.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


# Seconds within which all ranks end when one is killed.
ENDS_WITHIN = 60


def rank_processes(folder):
    """The processes of the ranks that train into a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        is_rank = b"\0PMI_RANK=" in b"\0" + environment or b"\0OMPI_COMM_WORLD_RANK=" in b"\0" + environment
        if is_rank and str(folder).encode() in words:
            found.append(int(entry.name))
    return found


def kill(process, folder, ranks):
    """Kills a run, or one of its ranks, by which the others have to end. Whether there was one still."""
    victims = rank_processes(folder) if ranks > 1 else [process.pid]
    while not victims and process.poll() is None:
        # The launcher has not started them yet.
        time.sleep(0.01)
        victims = rank_processes(folder)
    if victims:
        try:
            os.kill(random.choice(victims), signal.SIGKILL)
        except ProcessLookupError:
            pass
    try:
        process.communicate(timeout=ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        sys.exit(f"{ranks} ranks go on without one that was killed: {rank_processes(folder)}")
    deadline = time.monotonic() + ENDS_WITHIN
    while rank_processes(folder):
        if time.monotonic() > deadline:
            sys.exit(f"of {ranks} ranks these are left: {rank_processes(folder)}")
        time.sleep(0.05)
    return bool(victims)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linc", default="linc", help="the program")
    parser.add_argument("--config", default="configs/quickstart.toml")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", default="1,2,4", help="numbers of ranks, each a power of two")
    parser.add_argument("--folder", type=Path, help="an empty folder to work in, such as a small tmpfs")
    args = parser.parse_args()
    random.seed(args.seed)
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=args.folder))

    numbers = [int(number) for number in args.ranks.split(",")]

    def command(run, ranks):
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
            "training.global_batch_size": max(numbers),
            "parallelism.accumulate": "tree",
        }
        if ranks > 1:
            copies = [copies for copies in numbers + [1] if ranks % copies == 0]
            settings["parallelism.data_parallel_replicate_degree"] = random.choice(copies)
        flags = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
        launch = ["launch", "-n", str(ranks)] if ranks > 1 else []
        return [args.linc, *launch, "train", args.config, *flags]

    def train(run, ranks):
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command(run, ranks), stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )

    begun = time.monotonic()
    whole = train("whole", 1)
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
            ranks = random.choice(numbers)
            process = train("killed", ranks)
            try:
                output = process.communicate(timeout=random.uniform(0.0, 0.8 * length))[0]
            except subprocess.TimeoutExpired:
                kills += kill(process, work / "killed", ranks)
                print(f"{kills} kills, the last of {ranks} ranks", end="\r", flush=True)
                for step in sorted((work / "killed" / "checkpoint").glob("step-*")):
                    check = subprocess.run([args.linc, "inspect", step], capture_output=True, text=True)
                    if check.returncode != 0:
                        sys.exit(f"after {kills} kills {step} is damaged:\n{check.stderr}")
                continue
            if process.returncode != 0:
                sys.exit(f"after {kills} kills a run of {ranks} ranks does not go on:\n{output}")
            break
        ends += 1
        if (work / "killed" / weights).read_bytes() != expected:
            sys.exit(f"after {kills} kills the weights are others than those of an undisturbed run: {work}")
    print(f"{kills} kills, {ends} runs to their end: every checkpoint was whole, and the bits are the same")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
