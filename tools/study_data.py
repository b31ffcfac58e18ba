#!/usr/bin/env python3
"""Makes the data of the study in docs/study: shards of English novels for training, and of authors that are held out.

    pip install tokenizers
    cargo build --release
    python tools/study_data.py NOVELS --out outputs/study/data [--linc target/release/linc]

`NOVELS` is a folder of texts named AUTHOR_TITLE_YEAR.txt, as in github.com/computationalstylistics/100_english_novels. A byte order
mark, carriage returns and form feeds are taken out; the texts of `--held-out` authors are trained on by no model. The tokenizer is a byte-level
BPE of 4,096 tokens, learned from the texts of the others: a model of some million parameters spends few of them on its vocabulary.
OUT gets `train_tokens` and `held_tokens` (shards of `linc tokenize`) and `held_part`, the first 100,000 bytes of each text that is held
out, for `linc eval --text`. The same texts give the same bytes.
"""

import argparse
import subprocess
import sys
from pathlib import Path

try:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
except ModuleNotFoundError:
    sys.exit("tokenizers is not there: pip install tokenizers")

VOCABULARY = 4096
PART = 100_000


def cleaned(path):
    """The text without what a scan or an editor left in it."""
    text = path.read_bytes().decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "")


def learn(texts, path):
    """A tokenizer whose first id ends a document; all bytes have a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train(sorted(map(str, texts)), trainer)
    tokenizer.save(str(path))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("novels", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held-out", default="Conrad,Hardy,Schreiner,Woolf", help="authors, separated by commas")
    parser.add_argument("--linc", type=Path, default=Path("target/release/linc"))
    given = parser.parse_args()
    novels = sorted(given.novels.glob("*.txt"))
    authors = given.held_out.split(",")
    held_out = [path for path in novels if path.name.split("_")[0] in authors]
    if not held_out or len(held_out) == len(novels):
        sys.exit(f"{given.novels} has {len(novels)} texts, {len(held_out)} of them of {', '.join(authors)}")
    for path in novels:
        folders = ["held", "held_part"] if path in held_out else ["train"]
        for name in folders:
            text = cleaned(path).encode()
            if name == "held_part":
                # Not in the middle of a character.
                text = text[:PART].decode(errors="ignore").encode()
            (given.out / name).mkdir(parents=True, exist_ok=True)
            (given.out / name / path.name).write_bytes(text)
    tokenizer = given.out / "tokenizer.json"
    learn((given.out / "train").glob("*.txt"), tokenizer)
    for name in ["train", "held"]:
        shards = given.out / f"{name}_tokens"
        tokenize = [given.linc, "tokenize", given.out / name, "--tokenizer", tokenizer, "--out", shards]
        done = subprocess.run(list(map(str, tokenize)))
        if done.returncode != 0:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
