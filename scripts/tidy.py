#!/usr/bin/env python3
"""Runs clang-tidy (.clang-tidy: a short list) over every C++ file of the program, two at a time.

usage: tidy.py BUILD_DIR [FILE...]

The build's precompiled header is g++'s. Files that use LibTorch get one of clang's, made here once. A file whose text, headers
and checks have not changed since it last passed is not looked at again.
"""
import concurrent.futures
import glob
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


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
    for room in ("cli", "core", "samplers", "shard", "vae"):
        names += glob.glob(f"{room}/**/*.h", root_dir=ROOT, recursive=True)
    digest = hashlib.sha256()
    for name in sorted(names):
        with open(os.path.join(ROOT, name), "rb") as f:
            digest.update(f.read())
    return digest.hexdigest()


def uses_libtorch(file, seen):
    """Whether a file includes LibTorch's headers, itself or through ours."""
    if file in seen:
        return False
    seen.add(file)
    with open(file) as f:
        text = f.read()
    if re.search(r"#include <(ATen|c10)/", text):
        return True
    ours = (os.path.join(ROOT, name) for name in re.findall(r'#include "([^"]+)"', text))
    return any(os.path.exists(name) and uses_libtorch(name, seen) for name in ours)


def main():
    build = os.path.abspath(sys.argv[1])
    with open(os.path.join(build, "compile_commands.json")) as f:
        commands = [c for c in json.load(f) if c["file"].endswith(".cpp") and "/tests/" not in c["file"][len(ROOT):]]
    wanted = {os.path.abspath(name) for name in sys.argv[2:]}
    work = os.path.join(build, "tidy")
    os.makedirs(work, exist_ok=True)

    common = headers_hash()
    flags = {c["file"]: clang_flags(c["command"]) for c in commands}
    pch = os.path.join(work, "pch.pch")
    any_flags = flags[os.path.join(ROOT, "core", "error.cpp")]
    stamp = os.path.join(work, "pch.stamp")
    key = hashlib.sha256((common + " ".join(any_flags)).encode()).hexdigest()
    if not os.path.exists(pch) or not os.path.exists(stamp) or open(stamp).read() != key:
        subprocess.run(["clang++", *any_flags, "-x", "c++-header", os.path.join(ROOT, "core", "pch.h"), "-o", pch], check=True)
        with open(stamp, "w") as f:
            f.write(key)

    def check(file):
        with open(file, "rb") as f:
            digest = hashlib.sha256(f.read() + (common + " ".join(flags[file])).encode()).hexdigest()
        passed = os.path.join(work, re.sub(r"\W", "_", os.path.relpath(file, ROOT)) + ".passed")
        if os.path.exists(passed) and open(passed).read() == digest:
            return 0, ""
        header = ["-include-pch", pch] if uses_libtorch(file, set()) else []
        result = subprocess.run(["clang-tidy", "--quiet", file, "--", *flags[file], *header], cwd=ROOT, text=True, capture_output=True)
        if result.returncode == 0:
            with open(passed, "w") as f:
                f.write(digest)
        return result.returncode, result.stdout + (result.stderr if result.returncode else "")

    files = sorted({f for f in flags if not wanted or f in wanted})
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for file, (code, text) in zip(files, pool.map(check, files)):
            if code:
                failed += 1
                print(f"{os.path.relpath(file, ROOT)}:\n{text}", flush=True)
    print(f"clang-tidy: {len(files) - failed} of {len(files)} files clean")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
