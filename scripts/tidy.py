#!/usr/bin/env python3
"""Runs clang-tidy (.clang-tidy: a short list) over every C++ file of the program, two at a time.

usage: tidy.py BUILD_DIR [FILE...]

Every check walks through all of LibTorch's headers, which takes ten times as long as our own text: files are looked at in batches,
as one translation unit each (batches.py). A batch that does not compile is looked at file by file. A batch whose text, headers and
checks have not changed since it last passed is not looked at again.
"""
import concurrent.futures
import glob
import hashlib
import json
import os
import shlex
import subprocess
import sys

from batches import batches_of

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOMS = ("cli", "core", "samplers", "shard", "vae")
BATCH = 12  # files; twice as many took half as long again


def clang_flags(command):
    """The compiler's arguments that say how to read the file: no output, no dependencies, no g++ header."""
    words, out, skip = shlex.split(command), [], 0
    start = next(i for i, w in enumerate(words) if w.endswith("c++")) + 1
    for i, word in enumerate(words[start:], start):
        if skip:
            skip -= 1
        elif word in ("-o", "-MT", "-MF", "-include", "-c"):
            skip = 1
        elif word not in ("-MD", "-Winvalid-pch") and not word.startswith(("-O", "-W", "-fsanitize")):
            out.append(word)
    return out


def headers_hash():
    """Of everything that may change what a file means, its own text apart."""
    names = [".clang-tidy"]  # by folder, not by git: a downloaded archive has no .git, and git refuses another user's clone
    for room in ROOMS:
        names += glob.glob(f"{room}/**/*.h", root_dir=ROOT, recursive=True)
    digest = hashlib.sha256()
    for name in sorted(names):
        with open(os.path.join(ROOT, name), "rb") as f:
            digest.update(f.read())
    return digest.hexdigest()


def main():
    build = os.path.abspath(sys.argv[1])
    with open(os.path.join(build, "compile_commands.json")) as f:
        commands = json.load(f)
    wanted = {os.path.abspath(name) for name in sys.argv[2:]}
    work = os.path.join(build, "tidy")
    os.makedirs(work, exist_ok=True)

    flags = clang_flags(next(c["command"] for c in commands if c["file"].endswith("cli/main.cpp")))
    common = headers_hash() + " ".join(flags)

    def check(batch):
        text = "".join(f'#include "{os.path.relpath(file, ROOT)}"\n' for file in batch)
        digest = hashlib.sha256((common + text).encode())
        for file in batch:
            with open(file, "rb") as f:
                digest.update(f.read())
        unit = os.path.join(work, digest.hexdigest() + ".cpp")
        passed = unit + ".passed"
        if os.path.exists(passed):
            return 0, ""
        with open(unit, "w") as f:
            f.write(text)
        result = subprocess.run(["clang-tidy", "--quiet", unit, "--", *flags], cwd=ROOT, text=True, capture_output=True)
        if result.returncode and len(batch) > 1 and "[clang-diagnostic-error]" in result.stdout:
            alone = [check([file]) for file in batch]
            return max(code for code, _ in alone), "".join(text for _, text in alone)
        if result.returncode == 0:
            open(passed, "w").close()
        return result.returncode, result.stdout + (result.stderr if result.returncode else "")

    files = [os.path.join(ROOT, name) for room in ROOMS for name in glob.glob(f"{room}/**/*.cpp", root_dir=ROOT, recursive=True)]
    files = sorted(file for file in files if not wanted or file in wanted)
    batches = batches_of(files, BATCH)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for code, text in pool.map(check, batches):
            if code:
                failed += 1
                print(text, flush=True)
    print(f"clang-tidy: {len(files)} files in {len(batches)} batches, {failed} of them with findings")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
