#!/usr/bin/env python3
"""Ours and the peers in turns: ours, peer, ours, peer; every round beside what the processor could do just then.

    compare.py --model FOLDER --torch VENV/bin/python [--inkstone PATH] [--cases block/256,..] [--rounds 7]
               [--sdcpp SD_CLI] [--log ROUNDS.jsonl]
    compare.py --summary ROUNDS.jsonl [--json ROWS.jsonl]

FOLDER is a slice of Qwen-Image in the diffusers layout; sd.cpp also needs FOLDER/sdcpp/vae_wan.safetensors, the VAE
under the names that it reads. Its weights in other types are made in that folder when they are first needed.
A round counts if the register-only rate before and after it was 90 % of the quiet value (the best seen, unless --quiet
gives it). Peers run in each type they have; their own best setting is what a ratio should be read against.

Rounds may be gathered in several short runs: --log appends each to a file, and the table is made of all rounds of its
case in that file. With --pause a case waits, when everything is loaded and warm, for a line on standard input.
"""

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
CASES = "block/256,block/512,block/1024,attention/4136x24x128,decode/256,decode/512,layer/128,linear/1088x3072x12288,first-step"
QUIET = 0.9
PROMPT = (
    "A coffee shop entrance features a chalkboard sign reading Qwen Coffee two dollars per cup, with a neon light "
    "beside it, a happy cat sleeps on the wooden chair near the window"
)  # 40 tokens behind the template
FIRST_STEP = """
import sys, torch
torch.set_num_threads({threads}); torch.set_grad_enabled(False)
from diffusers import QwenImagePipeline
pipe = QwenImagePipeline.from_pretrained({model!r}, dtype=torch.{dtype})
pipe.set_progress_bar_config(disable=True)
class Done(Exception): pass
def stop(pipe, step, t, kw): raise Done
try: pipe({prompt!r}, width=256, height=256, num_inference_steps=2, output_type="latent", callback_on_step_end=stop)
except Done: pass
"""
STEP_DONE = ('"done":1,', '"stage":"denoise"')  # in one of our events
TORCH_NAMES = {"bf16": "bfloat16", "f32": "float32"}


class Warm:
    """A program that answers each line with a line of JSON."""

    def __init__(self, name, command, env=None):
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
        )

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"{self.name} ended at '{line}'")
        return json.loads(answer)

    def prepare(self, case):
        self.ask("prepare " + case)

    def seconds(self, case):
        answer = self.ask(case)
        return answer["round"]["seconds"] if "round" in answer else answer["seconds"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class FirstStep:
    """A program from its start to the end of the first step, on the slice."""

    def __init__(self, name, command, clock, stop=()):
        self.name, self.command, self.clock, self.stop = name, command, clock, stop

    def prepare(self, _case):
        self.seconds(_case)

    def seconds(self, _case):
        begun = self.now()
        process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        stopped = any(self.stop and all(part in line for part in self.stop) for line in process.stdout)
        taken = time.perf_counter() - begun
        if stopped:
            process.terminate()
        if process.wait() != 0 and not stopped:
            sys.exit(f"{self.name} failed: {self.command}")
        return taken if self.clock == "wall" else self.now() - begun

    def now(self):
        used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of those that have ended
        return time.perf_counter() if self.clock == "wall" else used.ru_utime + used.ru_stime

    def close(self):
        pass


class SdCpp:
    """stable-diffusion.cpp, a process a round: its own progress tells the seconds of a step."""

    STEPS = 2

    def __init__(self, args, wtype):
        self.name, self.args, self.wtype = f"sd.cpp {wtype}", args, wtype

    def prepare(self, case):
        stored = f"{self.args.model}/transformer/diffusion_pytorch_model.safetensors"
        self.weights = stored
        if self.wtype != "bf16":
            self.weights = f"{self.args.model}/sdcpp/transformer.{self.wtype}.gguf"
            if not Path(self.weights).exists():
                convert = [self.args.sdcpp, "-M", "convert", "-m", stored, "-o", self.weights, "--type", self.wtype]
                subprocess.run(convert, check=True, capture_output=True)
        self.seconds(case)

    def seconds(self, case):
        size = case.split("/")[1]
        text = self.until("sampling completed", size)
        rates = re.findall(rf"\| {self.STEPS}/{self.STEPS} - ([\d.]+)(s/it|it/s)", text)
        if not rates:
            sys.exit(f"{self.name} told no step: {text[-2000:]}")
        value, unit = rates[-1]
        step = float(value) if unit == "s/it" else 1 / float(value)
        blocks = json.loads(Path(self.args.model, "transformer/config.json").read_text())["num_layers"]
        return step / blocks  # what is not in blocks is below 3 %

    def until(self, done, size):
        """What it prints until `done`; then it is ended."""
        model = self.args.model
        command = [self.args.sdcpp, "--diffusion-model", self.weights, "--vae", f"{model}/sdcpp/vae_wan.safetensors"]
        command += ["--llm", f"{model}/text_encoder/model.safetensors", "--mmap", "--diffusion-fa", "-v"]
        command += ["-W", size, "-H", size, "-t", str(self.args.threads), "--steps", str(self.STEPS)]
        command += ["--cfg-scale", "1", "--sampling-method", "euler", "-p", PROMPT, "-o", os.devnull]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        text = ""
        for line in process.stdout:  # the bar of progress is a single line
            text += line.decode(errors="replace")
            if done in text:
                process.terminate()
                break
        process.communicate()
        return text

    def close(self):
        pass


def type_flags(dtype):
    """Ours takes 8 bits as a format of weights, with activations in the best type."""
    return ["-q", dtype] if dtype == "int8" else ["--dtype", dtype]


def contestants(args, case):
    """Those that run a case, ours first."""
    kind = case.split("/")[0]
    if kind == "first-step":
        ours = [args.inkstone, "generate", "-m", args.model, "-p", PROMPT, "--size", "256x256", "--steps", "2"]
        ours += ["--true-cfg-scale", "1", "--threads", str(args.threads), "--json", "-o", f"{tempfile.gettempdir()}/first.png"]
        found = [FirstStep(f"ours {dtype}", ours + type_flags(dtype), args.clock, stop=STEP_DONE) for dtype in args.ours]
        for dtype in args.dtypes if args.torch else []:
            fields = dict(model=args.model, dtype=TORCH_NAMES[dtype], prompt=PROMPT, threads=args.threads)
            found.append(FirstStep(f"torch {dtype}", [args.torch, "-c", FIRST_STEP.format(**fields)], args.clock))
        return found
    found = []
    for dtype in args.ours:
        command = [args.inkstone, "bench", "-", "--json", *type_flags(dtype), "--threads", str(args.threads)]
        command += ["--clock", args.clock]
        found.append(Warm(f"ours {dtype}", command))
    for dtype in args.dtypes if args.torch else []:
        command = [args.torch, str(HERE / "torch_cases.py"), "--model", args.model, "--dtype", dtype]
        found.append(Warm(f"torch {dtype}", command + ["--threads", str(args.threads), "--clock", args.clock]))
    if args.sdcpp and kind == "block":
        found += [SdCpp(args, wtype) for wtype in args.wtypes]
    return found


def calibrate(meter):
    time.sleep(0.3)  # the threads of what just ran still spin
    return max(meter.ask("peaks")["peak_gflops"]["f32"] for _ in range(2))  # 20 ms each: a hiccup says nothing


def measure(args, case, meter):
    """Rounds of all contestants, in turns."""
    players = contestants(args, case)
    for player in players:
        player.prepare(case)
    if args.pause:
        print(f"ready: {case}", flush=True)
        sys.stdin.readline()
    rounds = []
    for _ in range(args.rounds):
        for player in players:
            before = calibrate(meter)
            seconds = player.seconds(case)
            rate = min(before, calibrate(meter))
            rounds.append({"case": case, "who": player.name, "seconds": seconds, "calibration": rate})
    if args.pause:
        print(f"done: {case}", flush=True)
    for player in players:
        player.close()
    return [{**round, "threads": args.threads, "clock": args.clock} for round in rounds]


def summarise(rounds, quiet):
    """Rows of a case: median, spread and ratio of each contestant, over its quiet rounds."""
    rows = []
    for name in dict.fromkeys(round["who"] for round in rounds):
        runs = [round for round in rounds if round["who"] == name]
        good = [round["seconds"] for round in runs if round["calibration"] >= QUIET * quiet]
        row = {"case": runs[0]["case"], "who": name, "rounds": len(runs), "quiet_rounds": len(good)}
        row["quiet"] = len(good) >= 3
        used = sorted(good or [round["seconds"] for round in runs])
        row |= {"seconds": statistics.median(used), "min": used[0], "max": used[-1]}
        row["calibration"] = statistics.median(round["calibration"] for round in runs)
        rows.append({**row, "quiet_gflops": quiet, "threads": runs[0]["threads"], "clock": runs[0]["clock"]})
    ours = min((row for row in rows if row["who"].startswith("ours")), key=lambda row: row["seconds"])
    for row in rows:
        row["ratio"] = row["seconds"] / ours["seconds"]
    return rows


def tables(args, rounds, cases):
    """Prints the rows of some cases, and appends them to the file of rows."""
    for case in cases:
        alike = [round for round in rounds if round["case"] == case]
        quiet = args.quiet or max(round["calibration"] for round in rounds)
        rows = summarise(alike, quiet)
        show(rows)
        if args.json:
            with open(args.json, "a") as out:
                out.writelines(json.dumps(row) + "\n" for row in rows)


def read_rounds(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()] if Path(path).exists() else []


def show(rows):
    for row in rows:
        time_range = f"{row['min'] * 1e3:.1f}..{row['max'] * 1e3:.1f}"
        note = "" if row["quiet"] else "  BUSY MACHINE"
        print(
            f"{row['case']:24} {row['who']:12} {row['seconds'] * 1e3:10.1f} ms {time_range:>20}  "
            f"{row['ratio']:5.2f}x  {row['quiet_rounds']}/{row['rounds']} rounds, calibration {row['calibration']:.0f}{note}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a slice of Qwen-Image in the diffusers layout")
    parser.add_argument("--inkstone", default=str(HERE / "../../target/release/inkstone"))
    parser.add_argument("--torch", help="a python with torch, diffusers and transformers")
    parser.add_argument("--sdcpp", help="sd-cli, built with GGML_LLAMAFILE=ON")
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--clock", default="wall", choices=["wall", "cpu"],
        help="cpu counts processor time: with --threads 1 it hardly depends on what else runs; not for sd.cpp",
    )
    parser.add_argument("--ours", default="bf16,f32", type=lambda text: text.split(","), help="bf16, f32, int8")
    parser.add_argument("--dtypes", default="bf16,f32", type=lambda text: text.split(","), help="of torch")
    parser.add_argument("--wtypes", default="q8_0", type=lambda text: text.split(","), help="of sd.cpp")
    parser.add_argument("--quiet", type=float, help="f32 G/s of the quiet machine [the best seen]")
    parser.add_argument("--json", help="append rows to this file")
    parser.add_argument("--log", help="append rounds to this file, and count those that it has")
    parser.add_argument("--pause", action="store_true", help="before each case's rounds, wait for a line on standard input")
    parser.add_argument("--summary", metavar="LOG", help="measure nothing, print the rows of such a file")
    args = parser.parse_args()
    if args.summary:
        rounds = read_rounds(args.summary)
        return tables(args, rounds, dict.fromkeys(round["case"] for round in rounds))
    if not args.model:
        parser.error("--model is missing")

    meter = Warm("meter", [args.inkstone, "bench", "-", "--json", "--threads", str(args.threads), "--clock", args.clock])
    print(f"{platform.machine()}, {args.threads} threads, {calibrate(meter):.0f} G/s, load {os.getloadavg()[0]:.1f}")
    earlier = read_rounds(args.log) if args.log else []
    for case in args.cases.split(","):
        rounds = measure(args, case, meter)
        if args.log:
            with open(args.log, "a") as out:
                out.writelines(json.dumps(round) + "\n" for round in rounds)
        tables(args, [round for round in earlier if round["case"] == case] + rounds, [case])
    meter.close()


main()
