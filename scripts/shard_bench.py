#!/usr/bin/env python3
"""What sharding and streaming cost: Flux.1 dev at 1024x1024 by several placements, each beside one resident GPU in the same run.

usage: shard_bench.py RENDER FLUX OUT [NAME...]
RENDER: the binary. FLUX: a folder with a full-size set (flux1, clip_l, t5xxl, ae .safetensors). OUT: where reports, logs and table.md go.
NAME: cases to run beside the first; all that the machine's GPUs allow without. The table goes to stdout as well.

OUT should lie in memory (/dev/shm): writing to a disk that is still busy with FLUX took the resident GPU a second of 27. Of each run one
picture stays.

latency: sampling of one picture, the second job of the process (kernels loaded, weights in the page cache).
same bytes: of the one picture, and of all eight.
pictures: eight of one prompt, from the first's sampling to the last's file; beside them what the GPUs of the row give each alone, resident,
together: GPUs of one name differ by some hundredths. Peaks: every device's highest, measured and predicted.
"""
import json
import os
import re
import subprocess
import sys

JOB = """checkpoint: {flux}/flux1.safetensors
encoders: {{clip_l: {flux}/clip_l.safetensors, t5xxl: {flux}/t5xxl.safetensors}}
vae: {flux}/ae.safetensors
sampler: {{name: euler, scheduler: simple, steps: 28, cfg: 1.0, guidance: 3.5}}
images: [{{prompt: "a red fox in the snow", width: 1024, height: 1024, seed: 0}}]
"""
# name: GPUs, and what the job says of placement
CASES = {
    "resident": (1, {"gpu_ids": [0], "mode": "single"}),
    "half from main memory": (1, {"gpu_ids": [0], "allocation.unet": "cuda:0,50%;cpu,50%"}),
    "half from a peer": (2, {"gpu_ids": [0], "allocation.unet": "cuda:0,50%;cuda:1,50%"}),
    "one of 12 GB": (1, {"gpu_ids": [0], "vram_limit": "12GB"}),
    "two shards": (2, {"gpu_ids": [0, 1], "mode": "shard"}),
    "two of 24 GB": (2, {"gpu_ids": [0, 1], "mode": "shard", "vram_limit": "24GB"}),
    "8 GB and 24 GB": (2, {"gpu_ids": [0, 1], "vram_limit": {"cuda:0": "8GB", "cuda:1": "24GB"}}),
    "two of 8 GB": (2, {"gpu_ids": [0, 1], "vram_limit": "8GB"}),
    "four of 8 GB": (4, {"gpu_ids": [0, 1, 2, 3], "vram_limit": "8GB"}),
}


def gpus(render):
    listed = json.loads(subprocess.run([render, "devices", "--json"], capture_output=True, text=True, check=True).stdout)
    return len(listed["gpus"] if "gpus" in listed else [d for d in listed["devices"] if d["id"].startswith("cuda")])


class Bench:
    def __init__(self, render, flux, out):
        self.render, self.flux, self.out, self.rates = render, flux, out, {}
        os.makedirs(out, exist_ok=True)

    def run(self, name, settings, count, times):
        """The job so many times in one process; its reports, and the seconds from the first sampling to the last file."""
        base = os.path.join(self.out, re.sub(r"\W+", "_", name) + f"_{count}")
        jobs = []
        for i in range(times):
            jobs.append(f"{base}_{i}.yaml")
            with open(jobs[-1], "w") as f:
                f.write(JOB.format(flux=self.flux) + f"output: {{directory: {base}_{i}}}\n")
        words = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()] + [f"--set=images.0.count={count}"]
        log = base + ".log"
        result = subprocess.run([self.render, "run", *jobs, "--overwrite", "--quiet", "--log", log, *words], capture_output=True, text=True)
        if result.returncode != 0:
            raise SystemExit(f"{name}: exit {result.returncode}\n{result.stderr}")
        reports = [json.load(open(f"{base}_{i}/report.json")) for i in range(times)]
        lines = open(log).read().splitlines()
        begins = [float(line.split()[0]) for line in lines if line.endswith(": sample")]
        ends = [float(line.split()[0]) for line in lines if ": ok, " in line]
        for i in range(times):
            for picture in pictures_in(f"{base}_{i}")[1:]:
                os.remove(picture)
        return reports, ends[-1] - begins[0], f"{base}_{times - 1}"

    def same_bytes(self, folder):
        """Whether its first picture is the resident one's."""
        if not hasattr(self, "first"):
            self.first = folder
        own, first = (open(pictures_in(f)[0], "rb").read() for f in (folder, self.first))
        return own == first

    def same_batch(self, report):
        """Whether its pictures are those of the first batch."""
        sums = [image["sha256"] for image in report["images"]]
        if not hasattr(self, "sums"):
            self.sums = sums
        return sums == self.sums

    def row(self, name):
        count, settings = CASES[name]
        reports, _, folder = self.run(name, settings, 1, 2)
        latency = reports[1]["images"][0]["seconds"]["sample"]
        batch, seconds, _ = self.run(name, settings, 8, 1)
        same = self.same_bytes(folder) and self.same_batch(batch[0])
        rate = 8 / seconds
        if name == "resident":
            self.rates[settings["gpu_ids"][0]] = rate
        alone = sum(self.alone(gpu) for gpu in settings["gpu_ids"])
        return {"name": name, "gpus": len(settings["gpu_ids"]), "latency": latency, "rate": rate, "alone": alone, "same": same,
                "peaks": peaks(batch[0]), "streamed": streamed(batch[0])}

    def alone(self, gpu):
        """Pictures a second of a GPU that holds everything."""
        if gpu not in self.rates:
            self.rates[gpu] = 8 / self.run(f"alone {gpu}", {"gpu_ids": [gpu], "mode": "single"}, 8, 1)[1]
        return self.rates[gpu]


def pictures_in(folder):
    return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".png"))


def streamed(report):
    return sum(a["bytes"] for d in report["devices"] for a in d["assignments"] if a["streamed"]) / 2**30


def peaks(report):
    """(measured, predicted, limit) of each device in its worst phase, GiB."""
    out = []
    for device in report["devices"]:
        if device["assignments"]:
            measured, predicted = (max(device[key].values()) / 2**30 for key in ("peak_bytes", "predicted_peak_bytes"))
            out.append((measured, predicted, device["limit_bytes"] / 2**30))
    return out


def table(rows):
    first = rows[0]
    lines = ["| placement | GPUs | streamed | one picture | x resident | pictures/s | x GPUs alone | peak / predicted GiB | same bytes |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |"]
    for r in rows:
        memory = ", ".join(f"{m:.2f} / {p:.2f}" for m, p, _ in r["peaks"])
        lines.append(f"| {r['name']} | {r['gpus']} | {r['streamed']:.1f} GiB | {r['latency']:.2f} s "
                     f"| {r['latency'] / first['latency']:.3f} | {r['rate']:.3f} | {r['rate'] / r['alone']:.3f} | {memory} "
                     f"| {'yes' if r['same'] else 'NO'} |")
    return "\n".join(lines) + "\n"


def main():
    render, flux, out, *names = sys.argv[1:]
    present, bench, rows = gpus(render), Bench(render, flux, out), []
    for name in ["resident", *(names or [n for n in CASES if n != "resident"])]:
        if CASES[name][0] > present:
            print(f"left out, {CASES[name][0]} GPUs needed: {name}", file=sys.stderr)
            continue
        rows.append(bench.row(name))
        print(rows[-1], file=sys.stderr, flush=True)
    text = table(rows) + "\n" + ", ".join(f"cuda:{gpu} alone {rate:.3f}" for gpu, rate in sorted(bench.rates.items())) + " pictures/s\n"
    with open(os.path.join(out, "table.md"), "w") as f:
        f.write(text)
    print(text, end="")
    return 0 if all(r["same"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
