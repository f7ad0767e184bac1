"""Writes the query side of a bundle for an online service: an ONNX graph, the tokenizer, an example. Starts no Spark."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from etl.durable import write_json
from etl.errors import EXIT_OK, InputError
from etl.job import configure_logging
from etl.warehouse import Warehouse
from labeling.encoding import labelling_bundle
from labeling.terminal import add_root_argument
from model import online_example
from model.bundle import Bundle, load_bundle
from model.online import FORMAT, GRAPH_FILE, MANIFEST_FILE, OUTPUT, hashes
from model.onnx_graph import OPSET, write_graph

_README = """\
# Query encoder of bundle {bundle}

`example.py` prints the vectors of queries by ONNX Runtime:

    python example.py "winter gloves" 运动鞋

In a service:

    from model.online import load_online_encoder

    encoder = load_online_encoder("{name}")  # verified by hash
    vectors = encoder.encode(["winter gloves"])  # float32 [1, {dim}], unit length; zero of a query without a word

They equal those of the bundle to 1e-4, so an item index of bundle {bundle} is searched with them:
`live_item_index(root, encoder.bundle).nearest(vectors, k=10)`.

`{graph}` (opset {opset}, weights beside it) takes one padded batch, int64, from `model.online.batch_of`:

| input | shape | it is |
|---|---|---|
| features | features | rows of the embedding table, those of all tokens end to end |
| feature_tokens | features | token of each: (number of the text) x (tokens of the longest) + (place in the text) |
| mask | texts, tokens | 1 where a text has a token, 0 where it is filled up |

and gives `{output}`, float32 [texts, {dim}]. Queries are cut after {limit} tokens.
`{manifest}` has the SHA-256 of each file.
"""


def export(bundle: Bundle, out: Path) -> Path:
    """Write the export aside, then rename it to ``out``; one that lies there is replaced.

    Raises:
        InputError: ``out`` holds something else, or onnxscript is not installed.
    """
    if out.exists() and not (out / MANIFEST_FILE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and holds no export: name a directory that is empty or not there yet")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=out.parent))
    try:
        write_graph(bundle.encoder, aside / GRAPH_FILE)
        bundle.tokenizer.save(aside)
        shutil.copyfile(online_example.__file__, aside / "example.py")
        about = {"bundle": bundle.id, "dim": bundle.dim, "limit": bundle.tokenizer.spec.max_query_tokens}
        names = {"name": out.name, "graph": GRAPH_FILE, "manifest": MANIFEST_FILE, "output": OUTPUT, "opset": OPSET}
        (aside / "README.md").write_text(_README.format(**about, **names), encoding="utf-8")
        content = {"onnx_export": FORMAT, "bundle": bundle.id, "ds": bundle.manifest["ds"], "dim": bundle.dim}
        write_json(aside / MANIFEST_FILE, {**content, "opset": OPSET, "files": hashes(aside)})
        aside.chmod(0o755)
        shutil.rmtree(out, ignore_errors=True)
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return out


def arg_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="labeller export-onnx", description=__doc__, allow_abbrev=False)
    add_root_argument(parser)
    parser.add_argument("--bundle", default="", help="a directory under bundles/ (default: the champion)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where it goes; an export there is replaced")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arg_parser().parse_args(argv)
    configure_logging()
    try:
        bundle = load_bundle(labelling_bundle(Warehouse.at(args.root), args.bundle))
        print(json.dumps({"bundle": bundle.id, "path": str(export(bundle, args.out))}))
    except InputError as error:
        print(f"labeller export-onnx: error: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
