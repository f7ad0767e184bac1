"""The loss of sentence-transformers on vectors from files: MultipleNegativesRankingLoss, symmetric.

Runs in an environment of its own (`make benchmarks-setup`), so it imports nothing of ours. Its arguments are a directory
with query.npy and title.npy, unit vectors [N, D], and the temperature; it prints the loss.
"""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses


def main() -> None:
    directory, tau = Path(sys.argv[1]), float(sys.argv[2])
    vectors = [torch.from_numpy(np.load(directory / f"{side}.npy")) for side in ("query", "title")]
    loss = losses.MultipleNegativesRankingLoss(
        SentenceTransformer(modules=[torch.nn.Identity()], device="cpu"),
        scale=1 / tau,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    print(float(loss.compute_loss_from_embeddings(vectors, torch.empty(0))))


if __name__ == "__main__":
    main()
