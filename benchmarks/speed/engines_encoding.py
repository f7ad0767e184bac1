"""The same BERT by other engines, on chunks of titles, one whenever it is asked for: OpenVINO, ONNX Runtime, torch's int8.

Runs in an environment of its own (`make benchmarks-setup`), so it imports nothing of ours. Its only argument is JSON, see
:class:`benchmarks.speed.encoding_worker.Task`, with ``engine``; it prints and waits as :mod:`benchmarks.speed.pacing` says.
Texts are tokenised and sorted by length as sentence-transformers does it, in batches as large as its own.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # what is loaded lies in a directory

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

sys.path.insert(0, str(Path(__file__).parent))
from sentence_transformers_encoding import pause

Forward = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Ids and mask [B, L], int64 -> unit vectors [B, D]."""
Batch = tuple[np.ndarray, np.ndarray]

BATCH = 32
CALIBRATION = 10
"""Batches from which OpenVINO's int8 takes the ranges of activations: 320 titles, nncf's default is 300 samples."""


class Sentence(nn.Module):
    """BERT, mean over the tokens, unit length."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self.bert = AutoModel.from_pretrained(directory, attn_implementation="eager").eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """[B, L] each -> [B, D]."""
        states_BLD = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask_BL1 = attention_mask[:, :, None].to(states_BLD.dtype)
        return F.normalize((states_BLD * mask_BL1).sum(1) / mask_BL1.sum(1), dim=-1)


class Batches:
    """Titles as padded batches, longest first."""

    def __init__(self, directory: str) -> None:
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory)
        longest = json.loads((Path(directory) / "sentence_bert_config.json").read_text(encoding="utf-8"))
        self.longest = int(longest["max_seq_length"])

    def of(self, titles: list[str]) -> list[tuple[np.ndarray, Batch]]:
        """Places of the titles of a batch, and its ids and mask."""
        order = np.argsort([-len(title) for title in titles], kind="stable")
        found = []
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            batch = self.tokenizer(
                [titles[i] for i in places], padding=True, truncation=True, max_length=self.longest, return_tensors="np"
            )
            found.append((places, (batch["input_ids"].astype(np.int64), batch["attention_mask"].astype(np.int64))))
        return found


def torch_int8(model: Sentence, threads: int, some: list[Batch]) -> Forward:
    """Weights per channel; activations per tensor, ranges at run time."""
    with torch.no_grad():
        model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    return _by_torch(model)


def torchao_int8(model: Sentence, threads: int, some: list[Batch]) -> Forward:
    """Weights per channel; activations per token, ranges at run time."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return _by_torch(model)


def _by_torch(model: Sentence) -> Forward:
    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(ids), torch.from_numpy(mask)).float().numpy()

    return forward


def openvino(model: Sentence, threads: int, some: list[Batch], precision: str = "f32", int8: bool = False) -> Forward:
    """Compiled for the latency of one stream, shapes free; ``precision`` of what is not int8."""
    import openvino as ov

    ids, mask = map(torch.from_numpy, some[0])
    with torch.no_grad():
        graph = ov.convert_model(model, example_input={"input_ids": ids, "attention_mask": mask})
    if int8:
        import nncf

        data = nncf.Dataset([{"input_ids": ids, "attention_mask": mask} for ids, mask in some])
        graph = nncf.quantize(graph, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(some))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "ENABLE_CPU_PINNING": False,  # a shared machine's cores are others' too
    }
    compiled = ov.Core().compile_model(graph, "CPU", settings)
    return lambda ids, mask: compiled({"input_ids": ids, "attention_mask": mask})[0]


def openvino_bf16(model: Sentence, threads: int, some: list[Batch]) -> Forward:
    """Weights and products in bf16."""
    return openvino(model, threads, some, precision="bf16")


def openvino_int8(model: Sentence, threads: int, some: list[Batch]) -> Forward:
    """Weights per channel, activations with ranges from ``some``, as nncf does a Transformer (with SmoothQuant)."""
    return openvino(model, threads, some, int8=True)


def onnxruntime(model: Sentence, threads: int, some: list[Batch], int8: bool = False) -> Forward:
    """Blocks fused first; int8: weights per channel, activations per tensor, ranges at run time."""
    from tempfile import TemporaryDirectory

    import onnx
    from onnxruntime import InferenceSession, SessionOptions
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model

    config = model.bert.config
    with TemporaryDirectory() as directory:
        plain, fused, quantised = (f"{directory}/{name}.onnx" for name in ("plain", "fused", "int8"))
        free = {"input_ids": {0: "texts", 1: "tokens"}, "attention_mask": {0: "texts", 1: "tokens"}}
        torch.onnx.export(
            model, tuple(map(torch.from_numpy, some[0])), plain, input_names=list(free), dynamic_axes=free, dynamo=False
        )
        heads, hidden = config.num_attention_heads, config.hidden_size
        optimize_model(plain, "bert", num_heads=heads, hidden_size=hidden).save_model_to_file(fused)
        if int8:
            unknown = {"DefaultTensorType": onnx.TensorProto.FLOAT}  # of what comes out of a fused operator
            quantize_dynamic(fused, quantised, per_channel=True, weight_type=QuantType.QInt8, extra_options=unknown)
        options = SessionOptions()
        options.intra_op_num_threads = threads
        session = InferenceSession(quantised if int8 else fused, options, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


def onnxruntime_int8(model: Sentence, threads: int, some: list[Batch]) -> Forward:
    return onnxruntime(model, threads, some, int8=True)


ENGINES = {
    "openvino-fp32": openvino,
    "openvino-bf16": openvino_bf16,
    "openvino-int8": openvino_int8,
    "onnxruntime-fp32": onnxruntime,
    "onnxruntime-int8": onnxruntime_int8,
    "torch-int8": torch_int8,
    "torchao-int8": torchao_int8,
}


def main() -> None:
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    titles = json.loads(Path(task["titles"]).read_text(encoding="utf-8"))
    batches = Batches(task["bundle"])
    # Of the first chunk, which warms up and is not measured.
    some = [batch for _, batch in batches.of(titles[: min(BATCH * CALIBRATION, task["chunk"])])]
    forward = ENGINES[task["engine"]](Sentence(task["bundle"]), task["threads"], some)
    for start in range(0, len(titles), task["chunk"]):
        pause()
        texts = titles[start : start + task["chunk"]]
        vectors = np.empty((len(texts), 0), dtype=np.float32)
        for places, batch in batches.of(texts):
            found = forward(*batch)
            vectors = np.empty((len(texts), found.shape[1]), dtype=np.float32) if not vectors.size else vectors
            vectors[places] = found
        if not start:
            np.save(task["out"], vectors)
    pause()


if __name__ == "__main__":
    main()
