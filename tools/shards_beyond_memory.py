#!/usr/bin/env python3
"""Trains from shards that no page of memory keeps, and from the same shards with all of the page cache, by turns.

    python tools/shards_beyond_memory.py --linc target/release/linc --text FILE.. --gib 2

Makes shards of texts that are repeated until they have the size. Then the same run is timed with and without a thread that asks the
system, over and over, to drop the shards from the page cache (posix_fadvise): more than a memory limit would take away, without a
right to set one. With `--memory-limit 170M`, for who has that right (root, mostly), the run is in a control group of that limit
instead, which takes the page cache along, and no thread is at work beside it. Prints tokens per second of each run, the bytes that it read from the disk, and its peak of memory. Settings of
`linc train` are passed on.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path


def make_shards(linc, texts, size, work):
    """Shards of JSON lines, whose documents are pieces of the texts with a number, so that none is another's copy."""
    corpus, out = work / "corpus.jsonl", work / "shards"
    pieces = []
    for path in texts:
        text = path.read_text(errors="replace").replace("\0", "")
        pieces += [text[at : at + 8192] for at in range(0, len(text), 8192)]
    if not pieces:
        sys.exit("no text")
    written, number = 0, 0
    with open(corpus, "w", encoding="utf-8") as file:
        while written < size:
            written += file.write(json.dumps({"text": f"{number}\n{pieces[number % len(pieces)]}"}) + "\n")
            number += 1
    subprocess.run([linc, "tokenize", corpus, "--out", out], check=True)
    corpus.unlink()
    return out


class Dropped:
    """While it lasts, files are dropped from the page cache again and again."""

    def __init__(self, paths, pause):
        self.files = [os.open(path, os.O_RDONLY) for path in paths]
        self.pause, self.ended = pause, threading.Event()
        self.thread = threading.Thread(target=self.drop)

    def drop(self):
        while not self.ended.is_set():
            for file in self.files:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            self.ended.wait(self.pause)

    def __enter__(self):
        for file in self.files:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        self.thread.start()

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        for file in self.files:
            os.close(file)


class Limited:
    """While it lasts, processes that `enter` have so much memory, their page cache among it."""

    def __init__(self, paths, limit):
        self.paths = paths
        first = Path("/sys/fs/cgroup/memory")
        root, name = (first, "memory.limit_in_bytes") if first.is_dir() else (Path("/sys/fs/cgroup"), "memory.max")
        self.group = root / f"shards_beyond_memory_{os.getpid()}"
        self.group.mkdir()
        (self.group / name).write_text(limit)

    def enter(self):
        (self.group / "cgroup.procs").write_text(str(os.getpid()))

    def __enter__(self):
        # Pages that are in memory already would be no part of the group.
        for path in self.paths:
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)

    def __exit__(self, *_):
        self.group.rmdir()


def cache(paths):
    """Has the system read files, which it then keeps as far as there is memory."""
    for path in paths:
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass


def train(args, settings, shards, run, enter=None):
    """Median of the tokens per second of a run's records behind the first, milliseconds of a step that waited for data, bytes read
    from the disk, and peak bytes of memory."""
    shutil.rmtree(run, ignore_errors=True)
    flags = {
        "job.dump_folder": run,
        "training.dataset_path": shards,
        "training.steps": args.steps,
        "metrics.log_freq": 5,
        "validation.enable": "false",
        "checkpoint.enable": "false",
    }
    command = [args.linc, "train", args.config, *(text for key, value in flags.items() for text in (f"--{key}", str(value))), *settings]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=enter)
    read, peak = 0, 0
    output = []
    reader = threading.Thread(target=lambda: output.append(process.stdout.read()))
    reader.start()
    while process.poll() is None:
        try:
            numbers = dict(line.split(": ") for line in Path(f"/proc/{process.pid}/io").read_text().splitlines())
            read = int(numbers["read_bytes"])
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, *(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)
        except (OSError, TypeError):
            pass
        time.sleep(0.02)
    reader.join()
    if process.returncode != 0:
        sys.exit(output[0])
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][1:]
    middle = lambda key: statistics.median(record[key] for record in records)
    return middle("tps"), middle("data_ms"), read, peak


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--linc", default="linc", help="the program")
    parser.add_argument("--config", default="configs/quickstart.toml")
    parser.add_argument("--text", type=Path, nargs="+", help="texts, where --shards names none")
    parser.add_argument("--shards", type=Path, help="shards that are there already")
    parser.add_argument("--gib", type=float, default=2.0, help="size of the text to make")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds from one drop to the next")
    parser.add_argument("--memory-limit", help="of a control group to train in, such as 170M, instead of dropping")
    parser.add_argument("--folder", type=Path, help="a folder to work in, on a disk")
    args, settings = parser.parse_known_args()
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=args.folder)).absolute()
    if not args.shards and not args.text:
        parser.error("name texts with --text, or shards with --shards")
    shards = args.shards or make_shards(args.linc, args.text, int(args.gib * 2**30), work)
    paths = sorted(shards.glob("*.tokens"))
    total = sum(path.stat().st_size for path in paths)
    print(f"{len(paths)} shards, {total / 2**30:.2f} GiB", flush=True)
    other = "limited" if args.memory_limit else "dropped"
    kinds = {"cached": [], other: []}
    for turn in range(args.rounds):
        for kind, measured in list(kinds.items())[:: 1 if turn % 2 == 0 else -1]:
            if kind == "dropped":
                with Dropped(paths, args.pause):
                    measured.append(train(args, settings, shards, work / "run"))
            elif kind == "limited":
                limited = Limited(paths, args.memory_limit)
                with limited:
                    measured.append(train(args, settings, shards, work / "run", limited.enter))
            else:
                cache(paths)
                measured.append(train(args, settings, shards, work / "run"))
            tps, data_ms, read, peak = measured[-1]
            print(f"{kind:8} {tps:9,.0f} tokens/s, {data_ms:.3f} ms of a step for data, {read / 2**20:.1f} MiB read, peak {peak / 2**20:.0f} MiB", flush=True)
    middles = {kind: statistics.median(tps for tps, *_ in measured) for kind, measured in kinds.items()}
    print(f"{other} / cached: {middles[other] / middles['cached']:.3f} (medians of {args.rounds})")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
