"""Prints the query vectors of texts, from the export that this file lies in: ``python example.py "winter gloves"``.

Needed: this project's package, for its tokenizer (`pip install --no-deps` of its wheel; with it numpy, tokenizers and
opencc), and onnxruntime; neither torch nor Spark.
"""

import json
import sys
from pathlib import Path

from model.online import load_online_encoder


def main() -> None:
    encoder = load_online_encoder(Path(__file__).resolve().parent)
    for query, vector in zip(sys.argv[1:], encoder.encode(sys.argv[1:]).tolist(), strict=True):
        sys.stdout.write(json.dumps({"query": query, "bundle": encoder.bundle, "vector": vector}) + "\n")


if __name__ == "__main__":
    main()
