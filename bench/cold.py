#!/usr/bin/env python3
"""Times the first picture of a process when the system's cache has none of the model's files (Linux).

    python3 bench/cold.py MODEL --rounds 5 before=OLD_PROGRAM after=NEW_PROGRAM -- --size 256x256 --steps 1 --true-cfg-scale 1

Programs run in turns with the flags behind `--`. In front of each the files' pages are dropped, and memory is touched and given back, so that a
virtual machine has it: otherwise pages that the host has yet to find count as the program's time. Seconds from the start to the beginning of the
text, to the beginning of the steps, and to the end of the first step; medians and ranges. `--warm` leaves the files in the cache.
"""
import argparse, json, mmap, os, statistics, subprocess, sys, tempfile, time


def files(model):
    for folder, _, names in os.walk(model):
        yield from (os.path.join(folder, name) for name in names)


def drop(model):
    for path in files(model):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def touch(bytes_):
    memory = mmap.mmap(-1, bytes_)
    for at in range(0, bytes_, mmap.PAGESIZE):
        memory[at] = 1
    memory.close()


def draw(program, model, flags, to):
    """Seconds of each stage, and the peak in MiB."""
    command = [program, "-m", model, "-p", "a fox in the snow", "--seed", "1", "-o", to, "--overwrite", "--json", "--no-progress", *flags]
    start, seconds = time.monotonic(), {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        for line in process.stdout:
            event, now = json.loads(line), time.monotonic() - start
            if event["event"] == "stage" and event["stage"] in ("text", "denoise"):
                seconds[event["stage"]] = now
            elif event["event"] == "progress" and event["stage"] == "denoise" and event["done"] == 1:
                seconds["step"] = now
            elif event["event"] == "picture":
                seconds["peak"] = event["peak_bytes"] / 2**20
    if process.returncode:
        sys.exit(f"{program} failed")
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("programs", nargs="+", metavar="NAME=PROGRAM")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--touch-mib", type=int, default=4500)
    parser.add_argument("--warm", action="store_true")
    ours, _, flags = " ".join(sys.argv[1:]).partition(" -- ")
    args = parser.parse_args(ours.split())
    rows = {program: [] for program in args.programs}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for name in args.programs:
                if not args.warm:
                    drop(args.model)
                    touch(args.touch_mib << 20)
                rows[name].append(draw(name.partition("=")[2], args.model, flags.split(), os.path.join(folder, "picture.png")))
    for name, found in rows.items():
        of = {key: [row[key] for row in found] for key in ("text", "denoise", "step", "peak")}
        print(name.partition("=")[0], *(f"{key} {statistics.median(v):.2f} ({min(v):.2f}..{max(v):.2f})" for key, v in of.items()))


if __name__ == "__main__":
    main()
