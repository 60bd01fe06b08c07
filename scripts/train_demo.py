#!/usr/bin/env python3
"""Train the demo checkpoint from scratch: autoencoder, then text encoders and transformer together.

    scripts/train_demo.py --work build/demo_train --minutes 19      # one GPU, everything
    scripts/train_demo.py --resume build/demo_train --minutes 10    # another piece of the same training
    scripts/train_demo.py --work w --init presets/demo --minutes 15 # better than the committed files
    scripts/train_demo.py --work /tmp/smoke --smoke                 # tiny, on a CPU, a minute or two

Writes the checkpoint files, the held-out prompts, their measured result and a contact sheet into
WORK/export. `--minutes` is the whole time; a quarter goes to the autoencoder if it is not trained yet.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

import demo_data
import demo_eval
from demo_flow import train_flow, warm
from demo_train import Settings, train_codec


def settings(smoke: bool) -> Settings:
    if smoke:
        return Settings(pool=64, store=64, codec_batch=2, flow_batch=(4, 2), compiled=False, workers=1, slots=4,
                        heldout=2, steps=2, codec_log=5, flow_log=5, text_batch=8, text_steps=20, text_log=5)
    return Settings()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for everything that the training makes")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on in this folder of an earlier piece")
    parser.add_argument("--init", type=Path, metavar="DIR",
                        help="start from the exported files of this folder; of the autoencoder only the decoder is trained on")
    parser.add_argument("--minutes", type=float, default=19.0, help="wall-clock time for training")
    parser.add_argument("--codec-minutes", type=float, help="of these for the autoencoder (default: a quarter)")
    parser.add_argument("--low-share", type=float, default=0.6, help="share of the flow training spent at 256 x 256")
    parser.add_argument("--pictures", type=int, help="training scenes drawn (default 48000)")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, no compilation")
    parser.add_argument("--warm", choices=("codec", "flow"), help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    a = parser.parse_args()
    work = a.resume or a.work
    if work is None:
        parser.error("name a folder with --work or --resume")
    begun = time.time()
    s = settings(a.smoke)
    if a.pictures:
        s.pool = s.store = a.pictures
    minutes = min(a.minutes, 0.6) if a.smoke else a.minutes
    (work / "export").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(a.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True

    if a.init:
        for name in ("clip_merges.txt", "t5xxl_spiece.model"):
            shutil.copy(a.init / name, work / "export" / name)
    demo_data.learn_tokenizers(work / "export")
    tokenizers = demo_data.Tokenizers.load(work / "export")
    if a.warm:
        warm(a.warm, work, a.init, tokenizers, s, torch.device(a.device))
        return
    (work / "warm_codec").unlink(missing_ok=True)
    if s.compiled:
        for kind in ("codec", "flow"):
            subprocess.Popen([sys.executable, __file__, "--work", str(work), "--warm", kind, "--device", a.device]
                             + (["--init", str(a.init)] if a.init else []))
    ring = demo_data.Ring(tokenizers, s.workers, s.slots)
    device = torch.device(a.device)
    pool = demo_data.Pool(ring, s.pool, device)
    print(f"tokenizers: {tokenizers.clip.vocabulary} CLIP, {tokenizers.t5.rows} T5 rows; drawing with {s.workers} workers", flush=True)

    codec_minutes = a.codec_minutes if a.codec_minutes is not None else minutes * 0.25
    codec = train_codec(work, pool, s, codec_minutes, a.init, device)
    models = train_flow(work, pool, codec, tokenizers, s, begun + 60 * minutes, a.low_share, a.init, device)
    demo_eval.export(work / "export", *models)
    result = demo_eval.evaluate(work / "export", tokenizers, s.heldout, s.steps, device)
    (work / "export" / "result.json").write_text(json.dumps(result, indent=1))
    print(f"done in {(time.time() - begun) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
