"""Loads `linc serve` with many clients for some minutes, most of which behave and some of which do not, and checks every answer.

    cargo build --release
    python tools/load_serve.py CHECKPOINT [--minutes 5] [--clients 64] [--slots 8] [--queue 32] [--context 512] [--seed 0]

What each answer must be is asked of the server before there is any load, one request at a time. Clients then ask at once and again and
again, at random: for greedy and for seeded texts, for scores, for streams that are read slowly, by lists of prompts and of token ids; they leave
before their request is whole, or in the middle of an answer; they send what is no JSON, no UTF-8, no request, too large, or a prompt of 10,000
tokens. Each must have the answer, or the refusal, that it would have alone, and 429 where the queue is full. At the end nothing may be in use, the
server must end by SIGTERM with exit code 0, and its memory of the last minute is printed beside that of the first. The exit code is 1 where
something was wrong. Only Python's own library is needed.
"""

import argparse
import asyncio
import collections
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

WORDS = "once upon a time there was a little girl who had a red ball and a big dog named spot they went to the park".split()


def prompts(count, words, draw):
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randint(1, words))) for _ in range(count)]


class Client:
    """Requests over HTTP/1.1, a connection each."""

    def __init__(self, port):
        self.port = port

    async def open(self, path, body, length=None):
        # A small window, so that a slow reader is felt by who writes.
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 16)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        writer.write(head.encode() + f"Content-Length: {len(body) if length is None else length}\r\n\r\n".encode())
        writer.write(body)
        try:
            await writer.drain()
        except ConnectionError:
            pass  # A server that refuses a body need not read it.
        return reader, writer

    async def ask(self, body, path="/v1/completions", pause=0.0):
        """Status and body; `pause` seconds between the pieces that are read."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        reader, writer = await self.open(path, body)
        try:
            return await self.answer(reader, pause)
        finally:
            writer.close()

    async def answer(self, reader, pause=0.0):
        got = bytearray()
        while True:
            try:
                piece = await reader.read(64 if pause else 1 << 16)
            except ConnectionError:
                break  # Behind a refusal the rest of a body that was not read resets the connection.
            if not piece:
                break
            got += piece
            if pause:
                await asyncio.sleep(pause)
        head, _, rest = bytes(got).partition(b"\r\n\r\n")
        if not head:
            raise ConnectionError("no answer")
        status = int(head.split()[1])
        if b"transfer-encoding: chunked" in head.lower():
            whole = b""
            while rest:
                length, _, rest = rest.partition(b"\r\n")
                count = int(length or b"0", 16)
                whole, rest = whole + rest[:count], rest[count + 2 :]
            rest = whole
        return status, rest.decode()

    async def get(self, path):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        try:
            return await self.answer(reader)
        finally:
            writer.close()


def outcome(text):
    """What of an answer must always be the same: texts, ids, scores and how they ended, whether it came as a stream or not."""
    if not text.startswith("data:"):
        return [
            (choice["index"], choice["text"], choice["finish_reason"], json.dumps(choice.get("logprobs")))
            for choice in json.loads(text)["choices"]
        ]
    texts, ends = collections.defaultdict(str), {}
    lines = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
    if lines[-1] != "[DONE]":
        raise ValueError("a stream without an end")
    for line in lines[:-1]:
        for choice in json.loads(line)["choices"]:
            texts[choice["index"]] += choice["text"]
            ends[choice["index"]] = choice["finish_reason"] or ends.get(choice["index"])
    return [(index, texts[index], ends[index], "null") for index in sorted(texts)]


class Load:
    def __init__(self, given, client):
        self.given, self.client = given, client
        draw = random.Random(given.seed)
        texts = prompts(24, 30, draw)
        greedy = [{"prompt": text, "max_tokens": draw.randint(1, 60), "temperature": 0} for text in texts[:10]]
        seeded = [{"prompt": text, "max_tokens": 40, "temperature": 1, "top_p": 0.95, "seed": seed} for seed, text in enumerate(texts[10:16])]
        several = [{"prompt": texts[16:19], "max_tokens": 20, "temperature": 0, "n": 1}, {"prompt": texts[19], "max_tokens": 12, "n": 3, "seed": 5}]
        ids = [{"prompt": [[7, 8, 9], [10, 11, 12, 13, 14, 15]], "max_tokens": 9, "temperature": 0}]
        scores = [{"prompt": text, "max_tokens": 0, "echo": True, "logprobs": 1} for text in texts[20:]]
        self.good = greedy + seeded + several + ids + scores
        self.streams = [{**request, "stream": True} for request in greedy + seeded]
        self.bad = [
            ("no JSON", b'{"prompt": "a", ', {400}),
            ("no UTF-8", b'{"prompt": "\xff\xfe\x80"}', {400}),
            ("no object", b"[]", {400}),
            ("unknown parameter", {"prompt": "a", "max_token": 3}, {400}),
            ("wrong type", {"prompt": "a", "max_tokens": "three"}, {400}),
            ("id beyond the vocabulary", {"prompt": [1 << 30]}, {400}),
            ("negative id", {"prompt": [-1]}, {400}),
            ("too large", b'{"prompt": "' + b"a" * (given.max_body + 10) + b'"}', {413}),
            ("10,000 tokens", {"prompt": [5 + index % 200 for index in range(10_000)], "max_tokens": 4, "temperature": 0}, {400}),
        ]
        if given.context > 10_010:
            self.good.append(self.bad.pop()[1])
        self.expected, self.counts = [], collections.Counter()
        self.times, self.wrong = collections.defaultdict(list), []

    async def prepare(self):
        for request in self.good:
            status, text = await self.client.ask(request)
            if status != 200:
                sys.exit(f"{request} is answered with {status} by a server that has nothing else to do: {text}")
            self.expected.append(outcome(text))

    def fail(self, what):
        self.counts["WRONG"] += 1
        if len(self.wrong) < 20:
            self.wrong.append(what)

    async def one(self, draw):
        kind = draw.choices(["good", "stream", "slow", "leaves", "half", "bad"], [50, 15, 5, 12, 6, 12])[0]
        begun = time.perf_counter()
        if kind == "good":
            number = draw.randrange(len(self.good))
            status, text = await self.client.ask(self.good[number])
            self.judge(kind, status, text, self.expected[number], self.good[number])
        elif kind in ("stream", "slow"):
            number = draw.randrange(len(self.streams))
            status, text = await self.client.ask(self.streams[number], pause=0.02 if kind == "slow" else 0.0)
            self.judge(kind, status, text, self.expected[number], self.streams[number])
        elif kind == "leaves":
            body = json.dumps(draw.choice(self.streams + self.good)).encode()
            reader, writer = await self.client.open("/v1/completions", body)
            if draw.random() < 0.7:
                await reader.read(draw.randint(1, 400))
            writer.transport.abort()
            self.counts["left"] += 1
        elif kind == "half":
            reader, writer = await self.client.open("/v1/completions", b'{"prompt": "once', 400)
            await asyncio.sleep(draw.random())
            writer.transport.abort()
            self.counts["left before the request was whole"] += 1
        else:
            name, body, statuses = draw.choice(self.bad)
            status, text = await self.client.ask(body)
            if status not in statuses and status != 429:
                self.fail(f"{name}: {status} {text[:200]}")
            elif status != 429 and "error" not in json.loads(text):
                self.fail(f"{name}: an answer without an error: {text[:200]}")
            self.counts[f"{status} for {name}"] += 1
        if kind in ("good", "stream") and status == 200:
            self.times[kind].append(time.perf_counter() - begun)

    def judge(self, kind, status, text, expected, request):
        if status == 429:
            self.counts["429"] += 1
        elif status != 200:
            self.fail(f"{request}: {status} {text[:200]}")
        elif (got := outcome(text)) != expected:
            self.fail(f"{request}: {got} instead of {expected}")
        else:
            self.counts[f"right: {kind}"] += 1

    async def run(self, number, until):
        draw = random.Random(self.given.seed * 1000 + number)
        while time.monotonic() < until:
            try:
                await asyncio.wait_for(self.one(draw), 120)
            except Exception as error:  # noqa: BLE001 - whatever a client meets counts
                self.fail(f"{type(error).__name__}: {error}")
            await asyncio.sleep(draw.random() * 0.05)


def resident(pid):
    """MiB of memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024


async def watch(pid, until):
    found = []
    while time.monotonic() < until:
        found.append(resident(pid))
        await asyncio.sleep(1)
    return found


async def load(given, server, port):
    client = Client(port)
    work = Load(given, client)
    await work.prepare()
    until = time.monotonic() + 60 * given.minutes
    results = await asyncio.gather(watch(server.pid, until), *(work.run(number, until) for number in range(given.clients)))
    memory = results[0]
    for _ in range(600):
        _, metrics = await client.get("/metrics")
        in_use = {name: float(value) for name, value in re.findall(r"^linc_(requests_waiting|sequences_running) ([\d.]+)$", metrics, re.MULTILINE)}
        if not any(in_use.values()):
            break
        await asyncio.sleep(0.1)
    else:
        work.fail(f"still in use when all have left: {in_use}")
    for request, expected in zip(work.good, work.expected, strict=True):
        status, text = await client.ask(request)
        if status != 200 or outcome(text) != expected:
            work.fail(f"after the load {request} is answered with {status} {text[:200]}")
    return work, memory, in_use


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--queue", type=int, default=32)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--max-body", type=int, default=1 << 20, help="bytes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--linc", default="target/release/linc")
    given = parser.parse_args()
    server = subprocess.Popen(
        [
            given.linc, "serve", given.checkpoint, "--port", "0", "--name", "loaded", "--slots", str(given.slots), "--queue", str(given.queue),
            "--context", str(given.context), "--max-body", f"{given.max_body}B", "--device", "cpu",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = server.stdout.readline()
        found = re.search(r"http://[^:/]+:(\d+)", line)
        if not found:
            server.wait()
            sys.exit(f"the server does not start: {line}{server.stderr.read()}")
        work, memory, in_use = asyncio.run(load(given, server, int(found.group(1))))
        server.send_signal(signal.SIGTERM)
        _, said = server.communicate(timeout=60)
    finally:
        server.kill()
    if server.returncode != 0 or "panicked" in said:
        work.fail(f"the server ended with {server.returncode}: {said[-2000:]}")
    for name, count in sorted(work.counts.items()):
        print(f"{count:8,} {name}")
    for kind, times in sorted(work.times.items()):
        p50, p99 = statistics.median(times), sorted(times)[int(0.99 * (len(times) - 1))]
        print(f"{kind}: {len(times):,} answers, p50 {1e3 * p50:,.0f} ms, p99 {1e3 * p99:,.0f} ms")
    minute = min(60, max(1, len(memory) // 3))
    early, late = memory[:minute], memory[-minute:]
    print(f"memory: {max(early):.1f} MiB at most in the first {minute} s, {max(late):.1f} MiB in the last; in use at the end: {in_use}")
    for what in work.wrong:
        print(f"WRONG: {what}", file=sys.stderr)
    sys.exit(1 if work.wrong else 0)


if __name__ == "__main__":
    main()
