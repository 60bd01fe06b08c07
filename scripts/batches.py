#!/usr/bin/env python3
"""Puts C++ files into batches that compile as one translation unit each: LibTorch's headers are then read once a batch.

usage: batches.py SIZE FILE...    prints a batch a line, its files separated by semicolons

Two files whose unnamed namespaces define the same name go to different batches.
"""
import re
import sys


def local_names(text):
    """What a file's unnamed namespaces define."""
    names = set()
    for body in re.findall(r"^namespace \{\n(.*?)^\}  // namespace$", text, re.S | re.M):
        for line in body.split("\n"):
            if line and line[0] not in " /}#*":
                words = re.findall(r"[A-Za-z_]\w*", re.split(r"[(={\[;]", line)[0])
                names.update(words[-1:])
    return names


def batches_of(files, size):
    """Files in batches of `size` at most, in their order."""
    batches = []
    for file in files:
        with open(file) as f:
            names = local_names(f.read())
        for batch, taken in batches:
            if len(batch) < size and not names & taken:
                break
        else:
            batch, taken = [], set()
            batches.append((batch, taken))
        batch.append(file)
        taken |= names
    return [batch for batch, _ in batches]


if __name__ == "__main__":
    for files in batches_of(sys.argv[2:], int(sys.argv[1])):
        print(";".join(files))
