"""sentence-transformers' own `encode` on chunks of titles, one whenever it is asked for.

Runs in an environment of its own (`make benchmarks-setup`), so it imports nothing of ours. Its only argument is JSON, see
:class:`benchmarks.speed.encoding_worker.Task`; it prints and waits as :mod:`benchmarks.speed.pacing` says.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # what is loaded lies in a directory

import numpy as np
import torch
from sentence_transformers import SentenceTransformer


def pause() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    print(json.dumps({"cpu": time.process_time()}), flush=True)
    if not sys.stdin.readline():
        sys.exit("nobody asks for chunks any more")


def main() -> None:
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[task["precision"]]
    model = SentenceTransformer(task["bundle"], device=task["device"], model_kwargs={"dtype": dtype})
    titles = json.loads(Path(task["titles"]).read_text(encoding="utf-8"))
    at_once = 32 if task["device"] == "cpu" else 512
    for start in range(0, len(titles), task["chunk"]):
        pause()
        texts = titles[start : start + task["chunk"]]
        vectors = model.encode(texts, batch_size=at_once, convert_to_numpy=True, normalize_embeddings=True)
        if not start:
            np.save(task["out"], vectors.astype(np.float32))
    pause()


if __name__ == "__main__":
    main()
