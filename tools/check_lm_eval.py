"""Compares what lm-evaluation-harness gets from `linc serve` with what it gets from transformers.

    pip install torch transformers accelerate lm_eval
    cargo build --release
    python tools/check_lm_eval.py --model HF_DIR --text FILE [--export STEP_DIR] [--linc target/release/linc]

`HF_DIR` is a Llama model in Hugging Face's format, which is imported and served, and loaded by transformers; with `--export` a
checkpoint of linc is exported instead and the two are that. Tasks are made of the text and need no download: whole documents by rolling
log-likelihood (as wikitext), the last words of a passage (as LAMBADA, of one word), the right ending among four (as HellaSwag), and greedy
text up to a stop. Prints, for each, the largest difference of a log-likelihood and both results, and exits with 1 if a log-likelihood
differs by more than 1e-4 (relative to its size, above 1) or a result at all.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import lm_eval  # noqa: E402
import transformers  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

LIMIT = 1e-4

TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: {kind}
doc_to_text: "{text}"
doc_to_target: "{target}"
{more}metadata:
  version: 1
"""


def documents(path, count):
    """Parts of a text that end at the end of a sentence, of a hundred to a few hundred words."""
    words = path.read_text(encoding="utf-8").split()
    found, part = [], []
    for word in words:
        part.append(word)
        if len(part) >= 60 + 40 * (len(found) % 5) and word.endswith("."):
            found.append(" ".join(part))
            part = []
    return found[:count]


def tasks(folder, texts, until):
    """Writes tasks and their data; their names."""
    drawn = random.Random(7)
    rows = {"rolling": [], "last_words": [], "endings": [], "greedy": []}
    for text in texts:
        words = text.split()
        rows["rolling"].append({"text": text})
        # Several words: a token may be three, and a target that begins within one has none of its own.
        rows["last_words"].append({"text": " ".join(words[:-8]), "target": " " + " ".join(words[-8:])})
        cut = 2 * len(words) // 3
        others = [" ".join(drawn.choice(texts).split()[-12:]) for _ in range(3)]
        choices = [" ".join(words[cut : cut + 12])] + others
        order = list(range(4))
        drawn.shuffle(order)
        rows["endings"].append(
            {"text": " ".join(words[:cut]), "choices": [choices[i] for i in order], "label": order.index(0)}
        )
        rows["greedy"].append({"text": " ".join(words[:30]), "target": " ".join(words[30:])})
    metric = "metric_list:\n  - metric: {}\n    aggregation: {}\n    higher_is_better: true\n"
    kinds = {
        "rolling": ("loglikelihood_rolling", "", "{{text}}", metric.format("word_perplexity", "weighted_perplexity")),
        "last_words": ("loglikelihood", "{{text}}", "{{target}}", metric.format("acc", "mean") + "  - metric: perplexity\n    aggregation: perplexity\n    higher_is_better: false\n"),
        "endings": ("multiple_choice", "{{text}}", "{{label}}", 'doc_to_choice: "{{choices}}"\n' + metric.format("acc", "mean") + "  - metric: acc_norm\n    aggregation: mean\n    higher_is_better: true\n"),
        "greedy": ("generate_until", "{{text}}", "{{target}}", f"generation_kwargs:\n  until: {json.dumps(until)}\n  max_gen_toks: 24\n  do_sample: false\n" + metric.format("exact_match", "mean")),
    }
    for name, (kind, text, target, more) in kinds.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows[name]), encoding="utf-8")
        config = TASK.format(name=f"linc_{name}", data=data, kind=kind, text=text, target=target, more=more)
        (folder / f"{name}.yaml").write_text(config, encoding="utf-8")
    return [f"linc_{name}" for name in kinds]


def run(linc, *args):
    done = subprocess.run([linc, *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"linc {' '.join(map(str, args))} failed:\n{done.stderr}")


class Server:
    """`linc serve` on a port of its own, until the end of the block."""

    def __init__(self, linc, checkpoint, context):
        command = [linc, "serve", checkpoint, "--port", "0", "--name", "m", "--context", str(context), "--device", "cpu"]
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if "http://" not in line:
            sys.exit(f"linc serve did not start: {line}")
        self.url = "http://" + line.split("http://")[1].split()[0].rstrip(":")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        if self.process.wait() != 0:
            sys.exit("linc serve did not end in order")


def evaluate(model, args, names, folder, batch):
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return lm_eval.simple_evaluate(
        model=model, model_args=args, tasks=names, task_manager=manager, batch_size=batch, log_samples=True,
        bootstrap_iters=0, verbosity="ERROR",
    )


def responses(samples):
    """Texts, and pairs of log-likelihood and whether the text is the greedy one, of each request."""
    found = []
    for sample in samples:
        for answers in sample["resps"]:
            for answer in answers:
                found.append(answer)
    return found


def likelihood(answer):
    if isinstance(answer, str):
        return None
    return float(answer[0] if isinstance(answer, (list, tuple)) else answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--export", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--context", type=int, default=512)
    # The two back ends have different defaults.
    parser.add_argument("--bos", action=argparse.BooleanOptionalAction, default=True, help="begin texts with the tokenizer's BOS")
    parser.add_argument("--linc", default="target/release/linc")
    given = parser.parse_args()
    if (given.model is None) == (given.export is None):
        parser.error("give --model or --export")
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if given.model is not None:
            model, checkpoint = given.model, folder / "checkpoint"
            run(given.linc, "import", model, "--out", checkpoint)
        else:
            model, checkpoint = folder / "hugging_face", given.export
            run(given.linc, "export", checkpoint, "--out", model)
        (folder / "tasks").mkdir()
        # The harness adds the text of EOS itself, but not to requests that it sends beside one another.
        eos = transformers.AutoTokenizer.from_pretrained(model).eos_token
        until = ["."] if eos is None else [".", eos]
        names = tasks(folder / "tasks", documents(given.text, given.count), until)
        theirs = evaluate(
            "hf", f"pretrained={model},dtype=float32,max_length={given.context},trust_remote_code=True,device=cpu,add_bos_token={given.bos}", names, folder / "tasks", 8
        )
        with Server(given.linc, checkpoint, given.context) as server:
            # The harness keeps one token less for a request, and one for the answer.
            args = f"base_url={server.url},model=m,tokenizer_backend=huggingface,tokenizer={model},max_length={given.context + 2},num_concurrent=2,add_bos_token={given.bos}"
            ours = evaluate("local-completions", args, names, folder / "tasks", 16)
        print("| task | requests | largest difference | transformers | linc |")
        print("|---|---|---|---|---|")
        for name in names:
            pairs = list(zip(responses(theirs["samples"][name]), responses(ours["samples"][name]), strict=True))
            worst, unequal = 0.0, 0
            for a, b in pairs:
                x, y = likelihood(a), likelihood(b)
                if x is None:
                    unequal += a.strip() != b.strip()
                else:
                    worst = max(worst, abs(x - y) / max(1.0, abs(x)))
                    is_pair = isinstance(a, (list, tuple))
                    unequal += is_pair and bool(a[1]) != bool(b[1])
            metrics = [key for key in theirs["results"][name] if "," in key and "stderr" not in key]
            results = [[f"{key.split(',')[0]} {r['results'][name][key]:.6g}" for key in metrics] for r in (theirs, ours)]
            wrong = worst > LIMIT or unequal or any(
                abs(theirs["results"][name][key] - ours["results"][name][key]) > LIMIT * max(1.0, abs(theirs["results"][name][key]))
                for key in metrics
            )
            failed |= bool(wrong)
            difference = f"{worst:.1e}" if likelihood(pairs[0][0]) is not None else f"{unequal} texts"
            print(f"| {name} | {len(pairs)} | {difference}{' FAIL' if wrong else ''} | {', '.join(results[0])} | {', '.join(results[1])} |")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
