#!/usr/bin/env python3
"""Markdown tables of `linc bench --format json` and of torch_gpu.py, side by side.

    python3 benches/gpu_table.py OUT/*.json > benches/h200.md

Files of one bench and tool are turns of the same measurement: of a row that occurs in several, medians count, and the
range is that of all of them. Ratios above 1 are linc's advantage. TFLOP/s of both sides are of the operations that
linc's plan counts, without the masked half; so are shares of the peak.
"""
import json
import math
import statistics
import sys
from pathlib import Path

GIB = 2**30


def read(paths):
    """Reports by bench and tool: (what ran, rows by what identifies them)."""
    reports = {}
    for path in paths:
        text = Path(path).read_text()
        if not text.strip():
            print(f"{path} is empty: that turn was not finished", file=sys.stderr)
            continue
        report = json.loads(text)
        head, rows = reports.setdefault((report["bench"], report["tool"]), (report, {}))
        for name, several in (("copy", "copies"), ("small", "smalls")):
            head.setdefault(several, []).extend([report[name]] if name in report else [])
        for row in report["rows"]:
            names = ("kind", "pass", "head_dim", "heads", "kv_heads", "batch", "seq", "model", "ratio", "step", "kernel")
            rows.setdefault(tuple(row.get(name) for name in names), []).append(row)
    return reports


def merged(turns):
    """One row of several turns."""
    measured = [turn for turn in turns if turn.get("ms")]
    if not measured:
        return turns[0]
    row = dict(measured[0])
    row["ms"] = {
        "median": statistics.median(turn["ms"]["median"] for turn in measured),
        "min": min(turn["ms"]["min"] for turn in measured),
        "max": max(turn["ms"]["max"] for turn in measured),
    }
    for name in ("tokens_per_s", "mfu", "titan_mfu", "gbytes", "share", "share_of_size", "first_step_s"):
        values = [turn[name] for turn in measured if turn.get(name) is not None]
        if values:
            row[name] = statistics.median(values)
    return row


def rows_of(reports, bench, tool):
    return [merged(turns) for turns in reports.get((bench, tool), ({}, {}))[1].values()]


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "--:|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def number(value, digits=1):
    return "" if value is None else f"{value:,.{digits}f}"


def percent(share, digits=1):
    return "" if share is None else f"{100 * share:.{digits}f}%"


def times(factor):
    return "" if factor is None else f"**{factor:.2f}x**"


def over(a, b):
    return a / b if a is not None and b else None


def median(row):
    return row["ms"]["median"] if row and row.get("ms") else None


def attention(reports):
    find = {}
    for tool in ("linc", "torch"):
        for row in rows_of(reports, "attention", tool):
            find[tool, row["kind"], row["pass"], row["head_dim"], row["seq"]] = row
    # That one has a table of its own.
    sizes = sorted({key[3:] for key in find if key[1] != "plain_linear"})
    shape = next(iter(find.values()))
    said = f"{shape['heads']} query heads, {shape['kv_heads']} key/value heads, batch {shape['batch']}, causal"
    for kind, other in (("softmax", "SDPA"), ("linear", "PyTorch")):
        if not any(key[1] == kind for key in find):
            continue
        rows = []
        for head_dim, seq in sizes:
            cells = [head_dim, seq]
            for pass_name in ("forward", "backward"):
                linc, torch = (find.get((tool, kind, pass_name, head_dim, seq)) for tool in ("linc", "torch"))
                flops = linc and linc["flops"]
                speed = [over(flops and flops / 1e9, median(row)) for row in (linc, torch)]
                backend = torch.get("backend", "") if torch else ""
                cells += [number(median(linc), 3), number(speed[0]), number(median(torch), 3), number(speed[1]),
                          backend, times(over(median(torch), median(linc)))]
            rows.append(cells)
        print(f"\n## {kind.capitalize()} attention\n\n{said}.\n")
        columns = ["linc ms", "TFLOP/s", f"{other} ms", "TFLOP/s", "which", "linc's speed"]
        print(table(["head dim", "tokens", *(f"{p} {c}" for p in ("fwd", "bwd") for c in columns)], rows))
        if kind == "linear":
            plain_linear(find)
    crossover(find, sizes)


def total(find, tool, kind, size):
    """Forward and backward together."""
    parts = [median(find.get((tool, kind, p, *size))) for p in ("forward", "backward")]
    return None if None in parts else sum(parts)


def plain_linear(find):
    """linc's linear attention beside a cheaper function, which fla's users run."""
    sizes = sorted({key[3:] for key in find if key[1] == "plain_linear"})
    if not sizes:
        return
    rows, pair = [], (("linc", "linear"), ("torch", "plain_linear"))
    for size in sizes:
        cells = list(size)
        for pass_name in ("forward", "backward"):
            linc, fla = (median(find.get((*key, pass_name, *size))) for key in pair)
            cells += [number(linc, 3), number(fla, 3), times(over(fla, linc))]
        linc, fla = (total(find, *key, size) for key in pair)
        rows.append([*cells, number(linc, 3), number(fla, 3), times(over(fla, linc))])
    print("\n### Beside flash-linear-attention's plain linear attention\n\nfla computes less: no softmax of queries, "
          "no running normaliser of keys, and one key head per query head, for which keys are repeated.\n")
    columns = [f"{p} {c}" for p in ("fwd", "bwd", "both") for c in ("linc ms", "fla ms", "linc's speed")]
    print(table(["head dim", "tokens", *columns], rows))


def crossover(find, sizes):
    """Where linear attention begins to be faster than softmax, forward and backward together."""
    rows, points = [], {}
    for size in sizes:
        cells = list(size)
        for tool in ("linc", "torch"):
            softmax, linear = total(find, tool, "softmax", size), total(find, tool, "linear", size)
            cells += [number(softmax, 3), number(linear, 3), times(over(softmax, linear))]
            if softmax and linear:
                points.setdefault((tool, size[0]), []).append((size[1], softmax / linear))
        rows.append(cells)
    if not points:
        return
    print("\n## Where linear attention is faster\n\nForward and backward together, ms.\n")
    columns = [f"{t} {c}" for t in ("linc", "PyTorch") for c in ("softmax", "linear", "softmax / linear")]
    print(table(["head dim", "tokens", *columns], rows) + "\n")
    for (tool, head_dim), found in points.items():
        who = {"linc": "linc", "torch": "PyTorch"}[tool]
        print(f"- {who}, {head_dim} features: {where_it_crosses(found)}")


def where_it_crosses(points):
    """Interpolates on the logarithms of length and ratio."""
    if points[0][1] >= 1:
        return f"linear is faster from {points[0][0]} tokens, the shortest measured, on"
    for (n, a), (m, b) in zip(points, points[1:]):
        if b >= 1:
            share = -math.log(a) / (math.log(b) - math.log(a))
            return f"equal at about {round(n * (m / n) ** share, -2):,.0f} tokens"
    return f"softmax is faster up to {points[-1][0]} tokens, the longest measured"


def train(reports):
    linc, torch = ({(row["seq"], row["ratio"]): row for row in rows_of(reports, "train", tool)}
                   for tool in ("linc", "torch"))
    rows = []
    for key in sorted({*linc, *torch}):
        a, b = linc.get(key, {}), torch.get(key, {})
        speed = over(a.get("tokens_per_s"), b.get("tokens_per_s"))
        gib = lambda row: row["error"].split(":")[0] if "error" in row else number(over(row.get("bytes"), GIB), 2)
        torch_mfu = a["mfu"] / speed if speed and a.get("mfu") else None
        rows.append([*key, number(a.get("tokens_per_s"), 0), number(b.get("tokens_per_s"), 0), times(speed),
                     percent(a.get("mfu")), percent(a.get("titan_mfu")), percent(torch_mfu), b.get("compile", ""),
                     gib(a), gib(b),
                     number(a.get("first_step_s")), number(b.get("first_step_s"))])
    shape = next(iter({**torch, **linc}.values()))
    print(f"\n## Training steps of {shape['model']}\n\nBatch {shape['batch']}, AdamW, clipping. linc's memory is its "
          "arena, PyTorch's what it has allocated at most.\n")
    print(table(["tokens", "ratio", "linc tok/s", "PyTorch tok/s", "linc's speed", "linc MFU", "TorchTitan's MFU",
                 "PyTorch MFU", "torch.compile of", "linc GiB", "PyTorch GiB", "linc first step s",
                 "PyTorch first step s"], rows))


def memory(reports):
    head, _ = reports["memory", "linc"]
    copy = statistics.median(c["gbytes"] for c in head["copies"])
    rows = [[row["step"], f"`{row['kernel']}`", number(row["bytes"] / 2**20), number(median(row), 4),
             number(row["gbytes"], 0), percent(row["share"], 0), percent(row.get("share_of_size"), 0)]
            for row in rows_of(reports, "memory", "linc")]
    print(f"\n## Kernels that memory limits\n\nA copy on the device moves {copy:,.0f} GB/s, read and written; one of few "
          "megabytes is slower, so that the last column compares with a copy that moves as many bytes as the kernel.\n")
    print(table(["step", "kernel", "MiB", "ms", "GB/s", "of the copy", "of one of its size"], rows))
    for small in head["smalls"]:
        print(f"\n{small['launches']} launches that move less than {small['below_bytes'] / 2**20:.1f} MiB take "
              f"{median(small):.4f} ms a step together.")


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    reports = read(sys.argv[1:])
    print("# linc beside PyTorch on a GPU\n")
    for tool, who in (("linc", "linc"), ("torch", "PyTorch")):
        for device in sorted({head["device"] for (_, t), (head, _) in reports.items() if t == tool}):
            print(f"- {who}: {device}")
    for bench, write in (("attention", attention), ("train", train), ("memory", memory)):
        if any(key[0] == bench and rows for key, (_, rows) in reports.items()):
            write(reports)


if __name__ == "__main__":
    main()
