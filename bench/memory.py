"""Compares the memory plan with what drawing takes, over a matrix of settings.

    cargo build --release && python3 bench/memory.py [MODEL...] [--json FILE]

Every setting is planned by `inkstone --dry-run --json` and drawn by a process of its own, which tells its peak
(VmHWM) in the `picture` event. A plan must be 0 to 15 % above it. MODEL is `tiny` or a folder; for full width make one with
bench/random_model.py.
"""

import argparse
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
INKSTONE = ROOT / "target/release/inkstone"


def events(args):
    run = subprocess.run([INKSTONE, "--json", "--no-config", *args], capture_output=True, text=True)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    if run.returncode:
        sys.exit(f"{args}: {run.stderr}")
    return lines


def measure(model, size, dtype, offload, scale, image, folder):
    args = ["a red apple on a table", "-m", model, "--size", size, "--dtype", dtype, "--offload", offload]
    args += ["--steps", "2", "--seed", "1", "--true-cfg-scale", scale, "--overwrite", "-o", f"{folder}/out.png"]
    if image:
        args += ["-i", f"{image}=0.9"]
    plan = next(e for e in events([*args, "--dry-run"]) if e["event"] == "dry-run")["memory"]
    drawn = next(e for e in events(args) if e["event"] == "picture")
    return plan["resident_bytes"], drawn["peak_bytes"], drawn["seconds"]


def matrix(models):
    for model in models:
        wide = model != "tiny"
        sizes = ["256x256", "512x512"] if wide else ["64x64", "256x256", "512x384"]
        for size, dtype, offload in itertools.product(sizes, ["bf16", "f32"], ["none", "encoder", "stream"]):
            yield model, size, dtype, offload, "4", False
        yield model, sizes[0], "bf16", "none", "1", False
        yield model, sizes[0], "bf16", "stream", "4", True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["tiny"])
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    rows, wrong = [], 0
    print("| model | size | type | offload | cfg | from a picture | planned MiB | measured MiB | plan above |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        start = f"{folder}/start.png"
        events(["a red apple", "--seed", "1", "-o", start])
        for model, size, dtype, offload, scale, image in matrix(args.models or ["tiny"]):
            plan, peak, seconds = measure(model, size, dtype, offload, scale, image and start, folder)
            above = 100 * (plan / peak - 1)
            wrong += not 0 <= above <= 15
            name = pathlib.Path(model).name
            print(f"| {name} | {size} | {dtype} | {offload} | {scale} | {'yes' if image else 'no'} "
                  f"| {plan / 2**20:.0f} | {peak / 2**20:.0f} | {above:+.1f} % |", flush=True)
            rows.append({"model": name, "size": size, "dtype": dtype, "offload": offload, "cfg": scale,
                         "image": image, "planned": plan, "measured": peak, "seconds": seconds})
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    print(f"\n{len(rows)} settings, {wrong} outside of 0 to 15 %")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
