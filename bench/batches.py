"""Compares pictures that are drawn together with the same drawn one by one, in turns.

    cargo build --release && python3 bench/batches.py [--rounds 7] [--count 8] [--size 128x128] [--steps 4] [-- FLAGS]

Three ways: all seeds of a prompt in one batch; the prompt as often, one picture after the other, in one process (the
interactive one, on a terminal of its own); and a process for each seed. Seconds on the wall and of processor time are
medians with their range, a picture. The same seed must be the same bytes in every way.
"""

import argparse
import os
import pathlib
import pty
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
INKSTONE = ROOT / "target/release/inkstone"


def drawn(args):
    subprocess.run([INKSTONE, "--no-config", "-Q", *args], check=True, stdout=subprocess.DEVNULL)


def one_at_a_time(args, prompts):
    """Types prompts into a process that keeps the model."""
    ours, theirs = pty.openpty()
    command = [INKSTONE, "--no-config", "--no-progress", *args]
    process = subprocess.Popen(command, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE)
    os.close(theirs)
    for prompt in prompts:
        os.write(ours, prompt.encode() + b"\n")
        process.stdout.readline()
        os.read(ours, 1 << 16)
    os.write(ours, b"!quit\n")
    process.stdout.read()
    if process.wait():
        sys.exit(f"{args}: exit code {process.returncode}")
    os.close(ours)


def timed(way):
    """Wall and processor seconds."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    way()
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - begun
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--size", default="128x128")
    parser.add_argument("--steps", default="4")
    parser.add_argument("flags", nargs="*")
    args = parser.parse_args()
    prompt, count = "a red apple", str(args.count)
    common = ["--size", args.size, "--steps", args.steps, "--overwrite", *args.flags]
    with tempfile.TemporaryDirectory() as folder:
        def to(name):
            return [*common, "-o", f"{folder}/{name}.png"]

        def processes():
            for seed in range(1, args.count + 1):
                drawn([prompt, *to("alone-{seed}"), "--seed", str(seed)])

        ways = {
            "together": lambda: drawn([prompt, *to("together-{seed}"), "--seed", "1", "--count", count]),
            "one after the other": lambda: one_at_a_time([*to("turns-{seed}"), "--seed", "1"], [prompt] * args.count),
            "a process each": processes,
        }
        runs = {way: [] for way in ways}
        for _ in range(args.rounds):
            for way, draw in ways.items():
                runs[way].append(timed(draw))
        for seed in range(1, args.count + 1):
            names = ["together", "alone"] + ["turns"] * (seed == 1)
            files = {pathlib.Path(f"{folder}/{name}-{seed}.png").read_bytes() for name in names}
            assert len(files) == 1, f"seed {seed} differs"
    print(f"{count} pictures of {args.size}, {args.steps} steps, {args.rounds} rounds in turns; ms a picture\n")
    print("| way | wall | processor |\n|---|---|---|")
    for way, measured in runs.items():
        cells = []
        for kind in (0, 1):
            ms = sorted(1000 * run[kind] / args.count for run in measured)
            cells.append(f"{statistics.median(ms):.1f} ({ms[0]:.1f}..{ms[-1]:.1f})")
        print(f"| {way} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
