"""sentence-transformers' own trainer on pairs from a file, a step whenever it is asked for.

Runs in an environment of its own (`make benchmarks-setup`), so it imports nothing of ours. Its only argument is JSON, see
:class:`Task`. After every step it prints the CPU seconds that this process has used so far, as JSON, and waits for a line.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

os.environ["HF_HUB_OFFLINE"] = "1"  # what is trained is made here

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer import losses, modules
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, TrainerCallback

DIRECTIONS = ("query_to_doc", "doc_to_query")


@dataclass(frozen=True)
class Task:
    """What to train."""

    directory: str
    """Holds pairs.json, a list of (query, title), and tokenizer.json; for ``static`` encode.json too, two lists of texts."""
    model: Literal["bert", "static"]
    loss: Literal["plain", "cached"]
    bert: dict[str, Any]
    """Arguments of BertConfig."""
    dim: int
    """Width of a static embedding."""
    batch: int
    steps: int
    lr: float
    warmup: float
    tau: float
    threads: int
    bf16: bool
    longest: int
    """Tokens at which a text is cut."""
    mini_batch: int
    """Texts encoded at once by the cached loss."""
    device: Literal["cpu", "cuda"]


class Paced(TrainerCallback):
    """Tells the CPU seconds so far and waits, at the start and after every step."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        pause()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        pause()


def pause() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    print(json.dumps({"cpu": time.process_time()}), flush=True)
    if not sys.stdin.readline():
        sys.exit("nobody asks for steps any more")


def network(task: Task) -> SentenceTransformer:
    """BERT with mean pooling and unit length, or the bag of WordPiece embeddings; from scratch."""
    path = Path(task.directory) / "tokenizer.json"
    if task.model == "static":
        return SentenceTransformer(
            modules=[modules.StaticEmbedding(Tokenizer.from_file(str(path)), embedding_dim=task.dim)], device=task.device
        )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    with tempfile.TemporaryDirectory() as directory:
        BertModel(BertConfig(**task.bert), add_pooling_layer=False).save_pretrained(directory)
        PreTrainedTokenizerFast(tokenizer_file=str(path), **special).save_pretrained(directory)
        bert = modules.Transformer(directory, max_seq_length=task.longest)
    pooling = modules.Pooling(bert.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[bert, pooling, modules.Normalize()], device=task.device)


def objective(task: Task, model: SentenceTransformer) -> torch.nn.Module:
    common: dict[str, Any] = {"scale": 1 / task.tau, "directions": DIRECTIONS, "partition_mode": "per_direction"}
    if task.loss == "cached":
        return losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=task.mini_batch, **common)
    return losses.MultipleNegativesRankingLoss(model, **common)


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    torch.set_num_threads(task.threads)
    torch.manual_seed(1)
    pairs = json.loads((Path(task.directory) / "pairs.json").read_text(encoding="utf-8"))
    data = Dataset.from_dict({"anchor": [query for query, _ in pairs], "positive": [title for _, title in pairs]})
    model = network(task)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SentenceTransformerTrainingArguments(
            scratch,
            max_steps=task.steps,
            per_device_train_batch_size=task.batch,
            learning_rate=task.lr,
            warmup_steps=task.warmup,
            bf16=task.bf16,
            use_cpu=task.device == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = SentenceTransformerTrainer(
            model, arguments, train_dataset=data, loss=objective(task, model), callbacks=[Paced()]
        )
        trainer.train()
    wanted = Path(task.directory) / "encode.json"
    if task.model == "static":
        for name, texts in json.loads(wanted.read_text(encoding="utf-8")).items():
            np.save(wanted.with_name(f"static-{name}.npy"), model.encode(texts, normalize_embeddings=True))


if __name__ == "__main__":
    main()
