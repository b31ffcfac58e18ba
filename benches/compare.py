#!/usr/bin/env python3
"""linc beside PyTorch on the CPU, in rounds: linc, eager, torch.compile, linc, eager, ..., each a whole process that
trains for a few steps.

    cargo build --release
    python3 benches/compare.py --python VENV/bin/python                      # all cases; takes hours
    python3 benches/compare.py --python VENV/bin/python --only 'ratio0 4x512' # cases by regular expression
    python3 benches/compare.py --list

Prints Markdown: median tokens per second and peak memory of the process, and what linc reaches relative to PyTorch
(median of the ratios within rounds). Memory without the library is PyTorch's peak less what `import torch` takes. One
thread is pinned to a core. OMP_WAIT_POLICY is PASSIVE because OpenMP's waiting threads collapse beside other work.

The machine must be idle: what others take of it is measured before the first round, between rounds and after the last
(noise.py). A round in which that is more than 5 % is done again, and a case without enough quiet rounds has no ratio, and
the exit code is 1; --allow-noise prints such ratios with a mark.
"""
import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import noise

HERE = Path(__file__).resolve().parent
GIB = 2**30


@dataclass(frozen=True)
class Case:
    ratio: int
    batch: int
    seq: int
    threads: int

    @property
    def label(self):
        return f"ratio{self.ratio} {self.batch}x{self.seq} {self.threads}t"


SHAPES = [(0, 4, 512), (0, 1, 2048), (1, 4, 512), (1, 1, 2048), (0, 1, 8192), (1, 1, 8192)]
CASES = [Case(*shape, threads) for shape, threads in product(SHAPES, (2, 1))]


@dataclass(frozen=True)
class Result:
    tps: float
    peak: int
    library: int = 0


def measure(command, threads, **kwargs):
    """Runs a process to its end; its standard output and the peak of its resident memory in bytes."""
    if threads == 1:
        command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, **kwargs)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        # What it left behind must not run beside the next.
        noise.reap()
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            sys.exit(f"{shlex.join(command)}\nended with {process.returncode}:\n{err.read().decode()[-4000:]}")
        return out.read().decode(), usage.ru_maxrss * 1024


def run_linc(args, case):
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "job.dump_folder": folder,
            "model.linear_attn_ratio": case.ratio,
            "training.batch_size": case.batch,
            "training.seq_len": case.seq,
            "training.threads": case.threads,
            "training.steps": args.steps,
        }
        command = [*shlex.split(args.linc), "train", args.config]
        for name, value in settings.items():
            command += [f"--{name}", str(value)]
        _, peak = measure(command + shlex.split(args.linc_args), case.threads)
        records = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    rates = [record["tps"] for record in records if "tps" in record]
    return Result(statistics.median(rates[args.warmup:]), peak)


def run_torch(args, case, compiled):
    options = {"ratio": case.ratio, "batch": case.batch, "seq": case.seq, "threads": case.threads}
    options |= {"steps": args.steps, "warmup": args.warmup}
    command = [args.python, str(HERE / "torch_llama.py")]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    if compiled:
        command.append("--compile")
    text, peak = measure(command, case.threads, env=dict(os.environ, OMP_WAIT_POLICY="PASSIVE"))
    result = json.loads(text.splitlines()[-1])
    # The peak of torch.compile's workers is not the training process's: take its own word.
    return Result(result["tps"], min(peak, result["peak_bytes"]), result["library_bytes"])


def rounds(watch, run, wanted, allow):
    """Runs rounds until enough were quiet; results, shares that others took of the noisy ones, and what that comes to."""
    kept, beside, noisy = [], [], []
    while (said := noise.verdict(len(kept), noisy, wanted, allow)) == "again":
        watch.start()
        result = run()
        share = watch.share()
        if noise.quiet(share):
            kept.append(result)
        else:
            noisy.append(share)
            beside.append(result)
            print(f"others took {share:.0%} of the machine in this round", file=sys.stderr, flush=True)
    if said == "marked":
        kept += beside[: wanted - len(kept)]
    return kept, noisy, said


def row(case, mode, linc, torch, said, noisy):
    worst = f"others {max(noisy, default=0):.0%}"
    if said == "refused":
        cells = [case.ratio, f"{case.batch} x {case.seq}", case.threads, mode, *["-"] * 2, f"refused: {worst}"]
        return "| " + " | ".join(str(cell) for cell in cells + ["-"] * (len(HEADER) - len(cells))) + " |"

    def median(values):
        return statistics.median(list(values))

    speed = median(a.tps / b.tps for a, b in zip(linc, torch, strict=True))
    peaks = median(r.peak for r in linc), median(r.peak for r in torch)
    bare = median(r.peak - r.library for r in torch)
    cells = [
        case.ratio, f"{case.batch} x {case.seq}", case.threads, mode,
        f"{median(r.tps for r in linc):.0f}", f"{median(r.tps for r in torch):.0f}", f"**{speed:.2f}x**" if said == "ratio" else f"~{speed:.2f}x ({worst})",
        f"{peaks[0] / GIB:.2f}", f"{peaks[1] / GIB:.2f}", f"**{peaks[0] / peaks[1]:.2f}x**",
        f"{bare / GIB:.2f}", f"{peaks[0] / bare:.2f}x",
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


HEADER = [
    "ratio", "batch x seq", "threads", "PyTorch", "linc tok/s", "PyTorch tok/s", "linc / PyTorch",
    "linc GiB", "PyTorch GiB", "linc / PyTorch", "PyTorch GiB without library", "linc / that",
]


def describe(args, share):
    version = subprocess.run(
        [args.python, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True, check=True
    )
    cpuinfo = Path("/proc/cpuinfo").read_text()
    names = (line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name"))
    cpu, cores = next(names, "unknown CPU"), len(os.sched_getaffinity(0))
    return (f"{cpu}, {noise.instruction_set(cpuinfo)}, {cores} cores, load {os.getloadavg()[0]:.2f} at the start, "
            f"of which others took {share:.0%}; PyTorch {version.stdout.strip()}; "
            f"{args.rounds} rounds of {args.steps} steps, the first {args.warmup} not counted.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="a Python with torch")
    parser.add_argument("--linc", default="target/release/linc", help="command of linc")
    parser.add_argument("--linc-args", default="", help="more arguments of `linc train`")
    parser.add_argument("--config", default=str(HERE / "cpu.toml"), help="config of `linc train`")
    parser.add_argument("--modes", default="eager,compile", help="PyTorch's modes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2, help="steps that are not counted")
    parser.add_argument("--only", default="", help="regular expression on the labels of cases")
    parser.add_argument("--allow-noise", action="store_true", help="print ratios beside other processes, with a mark")
    parser.add_argument("--list", action="store_true", help="print the labels of cases and end")
    args = parser.parse_args()
    cases = [case for case in CASES if re.search(args.only, case.label)]
    modes = args.modes.split(",")
    if unknown := set(modes) - {"eager", "compile"}:
        parser.error(f"there is no mode {', '.join(sorted(unknown))}; there are eager and compile")
    if not cases:
        parser.error("no case has such a label; --list shows them")
    if args.steps <= args.warmup:
        parser.error("there is no step after the warmup")
    if args.list:
        print("\n".join(case.label for case in cases))
        return
    watch = noise.Watch()
    share = watch.look()
    if not noise.quiet(share) and not args.allow_noise:
        sys.exit(f"others take {share:.0%} of the machine, and more than {noise.LIMIT:.0%} make ratios worthless: "
                 "end them, or give --allow-noise")
    print(describe(args, share) + "\n")
    print("| " + " | ".join(HEADER) + " |\n|" + "--:|" * len(HEADER), flush=True)
    refused = False
    for case in cases:
        def run(case=case):
            return run_linc(args, case), {mode: run_torch(args, case, mode == "compile") for mode in modes}

        kept, noisy, said = rounds(watch, run, args.rounds, args.allow_noise)
        print(f"{case.label}: {len(kept)} rounds, {len(noisy)} beside others", file=sys.stderr, flush=True)
        refused |= said == "refused"
        for mode in modes:
            linc, torch = [linc for linc, _ in kept], [torch[mode] for _, torch in kept]
            name = {"compile": "torch.compile"}.get(mode, mode)
            print(row(case, name, linc, torch, said, noisy), flush=True)
    if watch.look() > noise.LIMIT:
        print("others take more than before: look at the last rows with care", file=sys.stderr)
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()
