"""Compares what `linc eval` says of a text with transformers: loss, perplexity, and each window's log-likelihood.

    pip install torch transformers
    cargo build --release
    python tools/check_eval.py --model DIR --text FILE [--context 256] [--stride 64] [--linc target/release/linc]

`--model` is a folder of Hugging Face with a Llama model and its tokenizer. The windows are cut here once more, as
lm-evaluation-harness cuts them: the first predicts as many tokens as the context has, each further one `stride` tokens
behind as many as there is room for. Prints the numbers beside each other, and exits with 1 if they differ by more than 1e-4.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

LIMIT = 1e-4


def windows(tokens, room, stride):
    """Ranges of at most room + 1 tokens, and how many of each count."""
    done = 0
    while done < len(tokens) - 1:
        new = min(room if done == 0 else stride, len(tokens) - 1 - done)
        end = done + new + 1
        yield tokens[max(0, end - room - 1) : end], new
        done += new


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--stride", type=int)
    parser.add_argument("--linc", default="target/release/linc")
    args = parser.parse_args()
    stride = args.stride or args.context

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "eval"
        command = [args.linc, "eval", args.model, "--text", args.text, "--context", args.context, "--stride", stride]
        done = subprocess.run([*map(str, command), "--out", str(out), "--device", "cpu"], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"linc eval failed:\n{done.stderr}")
        print(done.stdout)
        metrics = json.loads((out / "results.json").read_text())["tasks"]["text"]["metrics"]
        lines = (out / "samples_text.jsonl").read_text().splitlines()
    found = [json.loads(line)["answer"]["log_likelihoods"][0] for line in lines]

    # The file itself: transformers may build another tokenizer of its vocabulary.
    tokenizer = Tokenizer.from_file(str(Path(args.model) / "tokenizer.json"))
    bos = AutoTokenizer.from_pretrained(args.model).bos_token_id
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    text = Path(args.text).read_bytes().decode("utf-8-sig")
    tokens = [bos] + tokenizer.encode(text, add_special_tokens=False).ids
    expected, targets = [], 0
    with torch.no_grad():
        for ids, new in windows(tokens, args.context, stride):
            logits = model(torch.tensor([ids[:-1]])).logits[0, -new:].double()
            chosen = torch.tensor(ids[-new:])
            expected.append(torch.log_softmax(logits, -1)[torch.arange(new), chosen].sum().item())
            targets += new
    loss = -sum(expected) / targets

    def compare(name, ours, theirs):
        difference = abs(ours - theirs)
        fine = difference <= LIMIT * max(1.0, abs(theirs))
        print(f"  {'ok  ' if fine else 'FAIL'} {name}: linc {ours:.6f}, transformers {theirs:.6f}, difference {difference:.2g}")
        return fine

    if len(found) != len(expected):
        sys.exit(f"linc has {len(found)} windows, {len(expected)} are expected")
    worst = max(range(len(found)), key=lambda i: abs(found[i] - expected[i]))
    fine = [
        compare("loss", metrics["loss"]["value"], loss),
        compare("perplexity", metrics["perplexity"]["value"], math.exp(loss)),
        compare("bits per byte", metrics["bits_per_byte"]["value"], -sum(expected) / math.log(2) / len(text.encode())),
        compare(f"log-likelihood of window {worst}, the worst of {len(found)}", found[worst], expected[worst]),
    ]
    sys.exit(0 if all(fine) else 1)


main()
