"""How much of the machine others take while something is measured: from /proc/stat, less the measured processes themselves.

A ratio of two programs that ran beside a third says little: the one that waits more for its threads loses more. So a
comparison counts only rounds in which others took at most LIMIT of the machine.
"""
import ctypes
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

# Of all processors of the machine.
LIMIT = 0.05
# Seconds of a look at the machine while nothing is measured.
LOOK = 1.0
# A round is tried so often before its case is given up.
TRIES = 3
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Usage:
    """Seconds of all processors together since the machine started: those in use, and all that there were."""

    busy: float
    total: float


def parse(text, ticks):
    """Of /proc/stat, whose numbers are in so many ticks a second. What a hypervisor gave to other machines is in use."""
    line = next(line for line in text.splitlines() if line.startswith("cpu "))
    # user nice system idle iowait irq softirq steal; what follows are parts of user and nice.
    user, nice, system, idle, iowait, irq, softirq, steal = (int(n) / ticks for n in (line.split()[1:] + ["0"] * 8)[:8])
    busy = user + nice + system + irq + softirq + steal
    return Usage(busy, busy + idle + iowait)


def others(before, after, own):
    """The share of the machine that others took between two looks, of which `own` seconds were used by what is measured."""
    total = after.total - before.total
    return max(0.0, after.busy - before.busy - own) / total if total > 0 else 0.0


def quiet(share):
    return share <= LIMIT


def verdict(kept, noisy, wanted, allow):
    """What a case with so many quiet rounds, and rounds beside others with these shares, comes to: 'ratio', 'again',
    'marked' for a ratio that is printed all the same, or 'refused'."""
    if kept >= wanted:
        return "ratio"
    if allow:
        return "marked" if kept + len(noisy) >= wanted else "again"
    return "refused" if len(noisy) > (TRIES - 1) * wanted else "again"


class Watch:
    """Looks at the machine before, between and after measurements. Processes that measured ones leave behind become this
    one's children, so that their time is not taken for that of others."""

    def __init__(self, stat=Path("/proc/stat")):
        self.stat = stat
        try:
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        except (OSError, AttributeError):
            pass
        self.start()

    def usage(self):
        return parse(self.stat.read_text(), os.sysconf("SC_CLK_TCK"))

    @staticmethod
    def own():
        """Seconds of this process and all of its children that have ended."""
        used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in used)

    def start(self):
        self.before = self.usage(), self.own()

    def share(self):
        """Of others since the last start, or the last share."""
        reap()
        usage, own = self.before
        self.start()
        return others(usage, self.before[0], self.before[1] - own)

    def look(self):
        """Of others, while nothing is measured."""
        self.start()
        time.sleep(LOOK)
        return self.share()


def reap(seconds=10.0):
    """Waits for children that are left, which end when their parent is gone."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.05)
        except ChildProcessError:
            return


def instruction_set(cpuinfo):
    """What linc computes with on such a machine."""
    flags = next((line.split(":", 1)[1].split() for line in cpuinfo.splitlines() if line.startswith("flags")), [])
    if not {"avx2", "fma"} <= set(flags):
        return "portable"
    return "AVX-512" if "avx512f" in flags else "AVX2"
