"""Compares the seconds a step that `inkstone plan` foretells with those of real steps.

    cargo build --release && python3 bench/plan.py [MODEL...] [--sizes 256,512,1024] [--rounds 3] [--clock cpu] [--json FILE]

A round plans all sizes, draws one picture of each and plans again, so that both see the same machine; what is foretold is the
mean of both plans. MODEL is `tiny` or a folder. On the wall the median step counts, without the first, which touches the weights:
for a machine with nothing else to do. With --clock cpu both are processor time of one thread, which other work changes little: a
step is what a drawing of several takes more than one of a single step, over the number more.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
INKSTONE = ROOT / "target/release/inkstone"


def events(args):
    run = subprocess.run([INKSTONE, *args, "--json", "--no-config"], capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{args}: {run.stderr}")
    return [json.loads(line) for line in run.stdout.splitlines()]


def planned(model, sides, dtype, clock):
    """Seconds of arithmetic a step, by side, and the part of the processor that the plan had."""
    sizes = ",".join(f"{side}x{side}" for side in sides)
    rows = [row for row in events(["plan", "-m", model, "--size", sizes, *clock]) if row["event"] == "plan"]
    rows = [r for r in rows if r["dtype"] == dtype and not r["quantize"] and r["offload"] == "none"]
    return {row["width"]: row["seconds_of_arithmetic_a_step"] for row in rows}, rows[0].get("processor_share")


def drawn(model, side, dtype, steps, path):
    """Seconds of each step but the first."""
    args = ["a red apple", "-m", model, "--size", f"{side}x{side}", "--steps", str(steps), "--seed", "1"]
    args += ["--dtype", dtype, "--overwrite", "-o", path, "--json", "--no-config"]
    ends = []
    with subprocess.Popen([INKSTONE, *args], stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout:
            event = json.loads(line)
            if event["event"] == "progress" and event["stage"] == "denoise":
                ends.append(time.perf_counter())
    return [after - before for before, after in zip(ends, ends[1:])]


def processor_seconds(model, side, dtype, steps, path):
    """Of a drawing on one thread."""
    args = ["a red apple", "-m", model, "--size", f"{side}x{side}", "--steps", str(steps), "--seed", "1", "--threads", "1"]
    args += ["--dtype", dtype, "--overwrite", "-o", path, "--no-config", "-Q"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([INKSTONE, *args], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def step_seconds(model, side, args, path):
    if args.clock == "wall":
        return statistics.median(drawn(model, side, args.dtype, args.steps, path))
    first, all_of_them = (processor_seconds(model, side, args.dtype, steps, path) for steps in [1, args.steps])
    return (all_of_them - first) / (args.steps - 1)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("models", nargs="*", default=["tiny"])
    arguments.add_argument("--sizes", default="256,512,1024")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=3)
    arguments.add_argument("--dtype", default="bf16")
    arguments.add_argument("--clock", default="wall", choices=["wall", "cpu"])
    arguments.add_argument("--json", type=pathlib.Path)
    args = arguments.parse_args()
    clock = [] if args.clock == "wall" else ["--clock", "cpu", "--threads", "1"]
    sides, rows = [int(side) for side in args.sizes.split(",")], []
    print("| model | size | planned | a step | planned of it | processor |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for model in args.models:
            for _ in range(args.rounds):
                before, share = planned(model, sides, args.dtype, clock)
                steps = {side: step_seconds(model, side, args, f"{folder}/x.png") for side in sides}
                after, _ = planned(model, sides, args.dtype, clock)
                for side in sides:
                    plan, step = (before[side] + after[side]) / 2, steps[side]
                    rows.append({"model": pathlib.Path(model).name, "side": side, "planned": plan, "step": step, "share": share})
            for side in sides:
                of = [row for row in rows if row["model"] == pathlib.Path(model).name and row["side"] == side]
                plan, step = (statistics.median(row[key] for row in of) for key in ["planned", "step"])
                ratio = statistics.median(row["planned"] / row["step"] for row in of)
                shares = ", ".join(f"{100 * row['share']:.0f} %" for row in of if row["share"] is not None)
                print(f"| {of[0]['model']} | {side}x{side} | {plan:.3f} s | {step:.3f} s | {100 * ratio:.0f} % | {shares} |", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
