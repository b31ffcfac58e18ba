#!/usr/bin/env python3
"""Kills a training run at random moments, or fills its disk at random bytes, and compares its end with that of a run that nobody
disturbed.

    python tools/kill_runs.py --linc target/release/linc --kills 500
    python tools/kill_runs.py --linc target/release/linc --kills 0 --full-disks 500

Checkpoints are written beside the training, often. After every kill, and every disk that was full, each step-N that is there must
be whole and the newest no older than before; a copy of the run must go on to its end, and so must, later, the run itself: with the
weights, the moments and the measured numbers of the undisturbed run, to the bit. Exits with 1 at the first that does not, and
leaves the folders.

A disk is full in two ways, by turns: a file that may grow no further (RLIMIT_FSIZE, to the byte), and a small tmpfs, which the
script mounts in a namespace of its own. Where it may not, it says so and keeps to the first. Settings of `linc train` are passed on.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What a run may end with where its disk is full: the code of an error that was told, never a panic or a signal.
TOLD = 2
# Set where this script runs in a namespace of its own.
NAMESPACE = "LINC_KILL_RUNS"
# Steps from one checkpoint to the next.
INTERVAL = 3


class Runs:
    """One undisturbed run, and others of the same settings that are compared with it."""

    def __init__(self, args, settings, work):
        self.args, self.settings, self.work = args, settings, work
        self.whole = work / "whole"
        self.seconds = 0.0
        self.go_on(self.whole, "undisturbed")
        self.expected = self.result(self.whole)

    def command(self, run, stop):
        settings = {
            "job.dump_folder": run,
            "training.steps": self.args.steps,
            "training.stop_at_step": stop or self.args.steps,
            "training.batch_size": 1,
            "training.seq_len": 64,
            "training.threads": self.args.threads,
            "checkpoint.enable": "true",
            "checkpoint.interval": INTERVAL,
            "checkpoint.keep_latest_k": 3,
            "checkpoint.async_mode": "async",
            "metrics.log_freq": 1,
            "validation.enable": "false",
        }
        flags = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
        return [self.args.linc, "train", self.args.config, *flags, *self.settings]

    def start(self, run, stop=None, most_bytes=None):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(self.command(run, stop), preexec_fn=limit if most_bytes is not None else None, **output)

    def go_on(self, run, what, stop=None):
        """Lets a run go on to a step, or to its end, which must come."""
        begun = time.monotonic()
        process = self.start(run, stop)
        output = process.communicate()[0]
        if process.returncode != 0:
            sys.exit(f"{what}: {run} does not go on:\n{output}")
        if stop is None:
            self.seconds = time.monotonic() - begun

    def result(self, run):
        """The files of the last checkpoint, and what was measured at each step."""
        step = run / "checkpoint" / f"step-{self.args.steps}"
        files = {path.name: path.read_bytes() for path in sorted(step.iterdir())}
        lines = (run / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return files, [(record["step"], record["loss"], record["grad_norm"], record["lr"]) for record in records]

    def compare(self, run, what):
        files, measured = self.result(run)
        expected_files, expected_measured = self.expected
        differ = sorted(name for name in files.keys() | expected_files if files.get(name) != expected_files.get(name))
        if differ:
            sys.exit(f"{what}: {run} ends with other bits than an undisturbed run, in {', '.join(differ)}")
        if measured != expected_measured:
            sys.exit(f"{what}: metrics.jsonl of {run} is not that of an undisturbed run")
        names = {path.name for path in (run / "checkpoint").iterdir()}
        kept = {path.name for path in (self.whole / "checkpoint").iterdir()}
        if names != kept:
            sys.exit(f"{what}: {run} has {sorted(names)}, an undisturbed run {sorted(kept)}")

    def newest(self, run, what):
        """The newest checkpoint, 0 if there is none, after a look at whether each is whole."""
        steps = sorted(int(path.name[5:]) for path in (run / "checkpoint").glob("step-*"))
        for step in steps:
            path = run / "checkpoint" / f"step-{step}"
            check = subprocess.run([self.args.linc, "inspect", path], capture_output=True, text=True)
            if check.returncode != 0:
                sys.exit(f"{what}: {path} is damaged:\n{check.stderr}")
        return steps[-1] if steps else 0

    def check(self, run, before, what):
        """Looks at what a disturbed run has left, and goes on with a copy of it."""
        newest = self.newest(run, what)
        if newest < before:
            sys.exit(f"{what}: {run} had step {before}, and its newest is {newest}")
        copy = self.work / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        if run.exists():
            shutil.copytree(run, copy)
        self.go_on(copy, what)
        self.compare(copy, what)
        return newest


def tell(what, total, number):
    if number % 50 == 0:
        print(f"{what} of {total}", flush=True)


def kill(runs, kills):
    """Kills a run again and again until it is through, then begins anew; gives how many came to their end."""
    run, ends, newest = runs.work / "killed", 0, 0
    for number in range(1, kills + 1):
        what = f"kill {number}"
        tell(what, kills, number)
        process = runs.start(run)
        try:
            output = process.communicate(timeout=random.uniform(0.0, 0.8 * runs.seconds))[0]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            newest = runs.check(run, newest, what)
            continue
        if process.returncode != 0:
            sys.exit(f"before {what}: {run} does not go on:\n{output}")
        runs.compare(run, what)
        shutil.rmtree(run)
        ends, newest = ends + 1, 0
    if run.exists():
        runs.go_on(run, "after the last kill")
        runs.compare(run, "after the last kill")
        ends += 1
    return ends


def fill(runs, disks, mounted):
    """Lets a run meet full disks until it is through, then begins anew; gives how many were told, and how many came to their end."""
    told, ends = 0, 0
    largest = max(path.stat().st_size for path in (runs.whole / "checkpoint" / f"step-{runs.args.steps}").iterdir())
    total = sum(path.stat().st_size for path in runs.whole.rglob("*") if path.is_file())
    (runs.work / "limited").mkdir()
    places = [runs.work / "limited"] + ([mounted] if mounted else [])
    newest = {place: 0 for place in places}
    for number in range(1, disks + 1):
        what, place = f"full disk {number}", places[number % len(places)]
        tell(what, disks, number)
        run = place / "run"
        # Mostly less than a run needs, sometimes next to nothing.
        share = random.choice([0.02, 0.3, 1.6])
        if place == mounted:
            filler = place / "filler"
            filler.unlink(missing_ok=True)
            room = os.statvfs(place)
            free = random.randint(0, int(share * total))
            with open(filler, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(room.f_bavail * room.f_frsize - free, 1))
            process = runs.start(run)
        else:
            # Below the size of its largest file no checkpoint is ever written: there have to be some from before.
            stop = newest[place] + INTERVAL * random.randint(0, 3)
            if newest[place] < stop < runs.args.steps:
                runs.go_on(run, f"before {what}", stop)
                newest[place] = stop
            process = runs.start(run, most_bytes=random.randint(0, int(share * largest)))
        output = process.communicate()[0]
        is_told = process.returncode == TOLD and "error: " in output
        if not (is_told or process.returncode == 0) or "panicked" in output:
            sys.exit(f"{what}: linc ends with {process.returncode}:\n{output}")
        if is_told:
            told += 1
            newest[place] = runs.check(run, newest[place], what)
            continue
        runs.compare(run, what)
        shutil.rmtree(run)
        ends, newest[place] = ends + 1, 0
    return told, ends


def mount(work):
    """A small disk, if this process may have one: not outside of its namespace, where it would outlive a script that is killed."""
    if NAMESPACE not in os.environ:
        print("no small tmpfs: unshare gives no namespace; files are limited instead", flush=True)
        return None
    place = work / "small"
    place.mkdir()
    size = 8 * sum(path.stat().st_size for path in (work / "whole").rglob("*") if path.is_file())
    mounting = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, text=True)
    if mounting.returncode != 0:
        print(f"no small tmpfs: {mounting.stderr.strip()}; files are limited instead", flush=True)
        return None
    return place


def enter_namespace():
    """Begins again where mounts are this process's own, and go with it."""
    if NAMESPACE in os.environ or not shutil.which("unshare"):
        return
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
        os.environ[NAMESPACE] = "1"
        os.execvp(command[0], [*command, sys.executable, *sys.argv])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linc", default="linc", help="the program")
    parser.add_argument("--config", default="configs/quickstart.toml")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--full-disks", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=0, help="of a run; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="a folder to work in")
    args, settings = parser.parse_known_args()
    if args.full_disks:
        enter_namespace()
    random.seed(args.seed)
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=args.folder)).absolute()
    runs = Runs(args, settings, work)
    if args.kills:
        ends = kill(runs, args.kills)
        print(f"{args.kills} kills, {ends} runs to their end: every checkpoint was whole, and the bits are the same", flush=True)
    if args.full_disks:
        mounted = mount(work)
        try:
            told, ends = fill(runs, args.full_disks, mounted)
        except SystemExit:
            if mounted and (mounted / "run").exists():
                # The small disk goes with the namespace.
                shutil.copytree(mounted / "run", work / "run-on-small-disk")
            raise
        print(f"{args.full_disks} full disks, {told} that ended a run, {ends} runs to their end: every checkpoint was whole, and the bits are the same")
        if mounted:
            subprocess.run(["umount", mounted], check=True)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
