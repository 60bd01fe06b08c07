"""Weights drawn by a formula, the same here and in drawn_weights.cpp: models of many shapes need no files in the repository.

A value follows from its tensor's name, its place in it and the tensor's shape: fan-in scaled for matrices and convolutions,
around 1 for the scales of norms, small for biases, so that activations neither vanish nor explode and a parameter left out
or put in the wrong place shows.
"""
import numpy as np


def name_hash(name):
    """FNV-1a of the name, 32 bits."""
    value = 0x811C9DC5
    for byte in name.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def uniform(name, count):
    """`count` values in [-1, 1), multiples of 2^-23: a counter through a 32-bit mixing function."""
    x = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(name_hash(name))
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x ^= x >> np.uint32(shift)
        x *= np.uint32(factor)
    x ^= x >> np.uint32(16)
    return (x >> np.uint32(8)).astype(np.float64) / 2.0**23 - 1.0


def draw(name, shape):
    """The tensor of that name as a float32 array."""
    u = uniform(name, int(np.prod(shape)))
    if len(shape) > 1:
        values = u * np.sqrt(3.0 / np.prod(shape[1:]))
    elif name.endswith("weight"):
        values = 1.0 + 0.3 * u
    else:
        values = 0.1 * u
    return values.astype(np.float32).reshape(shape)
