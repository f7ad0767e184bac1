"""Labels titles given on the command line with the promoted bundle, in seconds and without a Spark session.

The same texts, vectors, cuts and calibration as in the nightly run. A title that is in the catalogue gets the same labels
there but for what the night knows besides: clicks make a term more probable, with few-shot sellers move categories, and
further columns may stand in the product text, which are empty here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from etl.config import from_args
from etl.errors import EXIT_OK, InputError
from etl.product_template import ProductTemplate
from etl.warehouse import Warehouse
from labeling import local_tables
from labeling.encoding import encode_each, labelling_bundle
from labeling.predict import PredictConfig, scoring_settings
from labeling.product_text import NOT_ENCODABLE, product_text
from labeling.scoring import ItemLabels, Scorer
from labeling.terminal import add_root_argument, console
from model.bundle import Bundle, load_bundle


def label_titles(root: str, titles: Sequence[str]) -> list[dict[str, Any]]:
    """The labels of raw titles, as plain data.

    Raises:
        InputError: there is no promoted bundle, or vocabulary, taxonomy or settings of the warehouse cannot be used.
    """
    bundle = load_bundle(labelling_bundle(Warehouse.at(root), ""))
    # The day decides nothing here; the settings of the nightly job want one.
    settings = from_args(PredictConfig, argparse.Namespace(config=None, root=root, ds=bundle.manifest["ds"]))
    warehouse = Warehouse.of(settings)
    vocabulary = None if "vocabulary" in settings.absent else local_tables.vocabulary(warehouse)
    taxonomy = None if "taxonomy" in settings.absent else local_tables.taxonomy(warehouse)
    scorer = Scorer.build(bundle, vocabulary, taxonomy, scoring_settings(settings))
    labels = _label(bundle, scorer, titles)
    return [_as_data(title, found, bundle) for title, found in zip(titles, labels, strict=True)]


def _label(bundle: Bundle, scorer: Scorer, titles: Sequence[str]) -> list[ItemLabels]:
    spec = bundle.tokenizer.spec
    template = ProductTemplate(spec.product_text)
    texts = [product_text(template.render({"title": title}), spec.normalise) for title in titles]
    usable = [text.text for text in texts if text.text is not None]
    vectors = iter(encode_each(bundle, usable))
    labeller = scorer.labeller()
    labels = []
    for text in texts:
        vector = None if text.text is None else next(vectors)
        if text.text is None or vector is None:
            labels.append(scorer.without_labels(text.reason or NOT_ENCODABLE))
        else:
            labels += scorer.label(labeller, np.frombuffer(vector, dtype="<f2")[None], [text.text])
    return labels


def _as_data(title: str, labels: ItemLabels, bundle: Bundle) -> dict[str, Any]:
    terms, category = labels
    return {
        "title": title,
        "terms": [] if terms is None else [term._asdict() for term in terms.terms],
        "term_reason": terms and terms.reason,
        "runner_up": terms and terms.runner_up and terms.runner_up._asdict(),
        "category": None if category is None else category._asdict() | {"probability": category.probability},
        "bundle": bundle.id,
        "calibration": bundle.calibration_id or None,
    }


def as_table(found: dict[str, Any]) -> Table:
    """One title's labels for a terminal."""
    table = Table(title=escape(found["title"]), title_justify="left", title_style="bold", header_style="dim")
    table.add_column("")
    table.add_column("label", overflow="fold")
    for name in ("probability", "score"):
        table.add_column(name, justify="right")
    table.add_column("in the title")
    for term in found["terms"]:
        hit = "yes" if term["lexical_hit"] else "no"
        table.add_row("term", escape(term["term"]), f"{term['probability']:.2f}", f"{term['score']:.2f}", hit)
    if found["term_reason"]:
        table.add_row("term", f"none: {found['term_reason']}")
    if found["runner_up"]:
        table.add_row("runner-up", escape(found["runner_up"]["term"]))
    category = found["category"]
    if category and category["path"]:
        ended = "" if category["stopped"] == "leaf" else f" ({category['stopped']})"
        table.add_row("category", escape(" > ".join(category["path"])) + ended, f"{category['probability']:.2f}")
    elif category:
        table.add_row("category", f"none: {category['stopped']}")
    return table


def arg_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="label", description=__doc__, allow_abbrev=False)
    parser.add_argument("titles", metavar="TITLE", nargs="+", help="a title, in quotes; several are labelled one by one")
    add_root_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of tables")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arg_parser().parse_args(argv)
    try:
        labelled = label_titles(args.root, args.titles)
    except InputError as error:
        print(f"label: error: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps(labelled, indent=1, ensure_ascii=False))
        return EXIT_OK
    out = console()
    for found in labelled:
        out.print(as_table(found))
    if not labelled[0]["calibration"]:
        out.print("not calibrated: the probabilities rank, they are no frequencies", markup=False)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
