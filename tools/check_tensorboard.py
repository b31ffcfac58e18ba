#!/usr/bin/env python3
"""Reads the TensorBoard events of a run with TensorBoard's own reader and compares them with metrics.jsonl.

    pip install tensorboard
    python tools/check_tensorboard.py outputs/quickstart

Exits with 1 and says what differs if a value of a record is missing, or is another as a 32-bit float.
"""

import json
import struct
import sys
from pathlib import Path

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ModuleNotFoundError:
    sys.exit("TensorBoard is not there: pip install tensorboard")

# Tag, key of a record, and what its value is divided by.
TAGS = [
    ("loss_metrics/global_avg_loss", "loss", 1),
    ("grad_norm", "grad_norm", 1),
    ("lr", "lr", 1),
    ("throughput(tps)", "tps", 1),
    ("tflops", "tflops", 1),
    ("mfu(%)", "mfu", 1),
    ("time_metrics/end_to_end(s)", "step_ms", 1e3),
    ("time_metrics/data_loading(s)", "data_ms", 1e3),
    ("validation_metrics/loss", "validation_loss", 1),
    ("validation_metrics/bits_per_byte", "validation_bits_per_byte", 1),
]


def as_float32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    run = Path(sys.argv[1])
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    if not list((run / "tb").glob("events.out.tfevents.*")):
        sys.exit(f"{run}/tb has no events: train with --metrics.enable_tensorboard true")
    events = EventAccumulator(str(run / "tb"), size_guidance={"scalars": 0})
    events.Reload()
    compared, wrong = 0, []
    for tag, key, scale in TAGS:
        expected = {r["step"]: as_float32(r[key] / scale) for r in records if key in r}
        found = {e.step: e.value for e in events.Scalars(tag)} if tag in events.Tags()["scalars"] else {}
        compared += len(expected)
        wrong += [
            f"{tag} at step {step}: {found.get(step)} instead of {expected.get(step)}"
            for step in sorted(expected.keys() | found.keys())
            if found.get(step) != expected.get(step)
        ]
    print("\n".join(wrong) or f"{compared} values of {len(records)} records are the same")
    sys.exit(1 if wrong or not compared else 0)


if __name__ == "__main__":
    main()
