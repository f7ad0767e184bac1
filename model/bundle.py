"""A trained encoder as a directory of safetensors and JSON that checks itself: what training hands to labelling.

``model.safetensors``, ``encoder.json``, ``tokenizer_spec.json`` (and ``tokenizer.json``), ``metrics.json``, what
sentence-transformers reads (:mod:`model.bundle_layout`), and ``manifest.json`` with the SHA-256 of each and a digest of its
own; ``metrics.json``, which a training that makes the same bundle again replaces, has one too, of itself and of the id;
``calibration.json`` is added later, carries its own identity, and names the files beside it that belong to it;
``gate.json`` and ``MODEL_CARD.md`` (:mod:`model.model_card`) are for people, no job reads them.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from etl.durable import SEAL, is_sealed, read_json, sync_directory, sync_tree, write, write_json, write_sealed
from etl.errors import InputError, OtherContract
from etl.tokenizer import Tokenizer, load_tokenizer
from etl.tokenizer_spec import SPEC_FILE, read_spec, require_installed_normaliser
from etl.warehouse import Warehouse
from model.bundle_files import CONFIG_FILE, WEIGHTS_FILE
from model.presets import EncoderConfig

if TYPE_CHECKING:  # torch takes three seconds to import, and most jobs only ask which bundle there is
    from model.encoder import Encoder

FORMAT = 2
METRICS_FILE, MANIFEST_FILE, CALIBRATION_FILE = "metrics.json", "manifest.json", "calibration.json"
REQUIRED = (WEIGHTS_FILE, CONFIG_FILE, SPEC_FILE)
"""Files that no bundle goes without."""

_BEFORE_SEALS = {"format", "id", "ds", "sentence_transformers", "files", "lineage"}
"""Fields of the manifest of a bundle that was made before manifests had a digest; each is in one that has."""

_CURE = "copy the bundle again, or train again"
_ALIAS_CURE = 'put a copy of it back, or write {"bundle": ID, "ds": DAY} of a directory beside it into it'

_ADDED = re.compile(r"[a-z_]+-[0-9a-f]{12}\.safetensors")

CHAMPION, CANDIDATE = "champion", "candidate"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded, verified bundle."""

    id: str
    path: Path
    encoder: Encoder
    tokenizer: Tokenizer
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    calibration: dict[str, Any] | None
    calibration_id: str
    """Identity of the calibration; empty if there is none."""
    device: str

    @property
    def dim(self) -> int:
        return self.encoder.config.dim

    def encode(
        self,
        texts: Sequence[str],
        side: Literal["query", "title"],
        dim: int | None = None,
        halved: Callable[[], None] | None = None,
    ) -> np.ndarray:
        """Raw texts -> float32 [N, D] unit vectors, see :func:`model.inference.embed`; [N, dim] if that is given.

        Raises:
            InputError: ``dim`` is none that the bundle was trained for.
        """
        from model.inference import embed
        from model.matryoshka import shortened
        from model.packing import tokenised

        vectors = embed(self.encoder, *tokenised(self.tokenizer, texts, side), self.device, halved=halved)
        return vectors if dim is None else shortened(vectors, dim, self.encoder.config.matryoshka)


def write_bundle(
    bundles: Path,
    encoder: Encoder,
    tokenizer: Tokenizer,
    *,
    ds: dt.date,
    metrics: Mapping[str, Any],
    lineage: Mapping[str, Any],
) -> Path:
    """Lay a bundle down beside its final place, then rename it to ``bundles/<id>``; returns that path.

    The id is that of all files but ``metrics.json``: the same weights, config and tokenizer make the same id. A bundle that
    is there already keeps its calibration, and gets the figures and the lineage of the training that made it again, and
    anew what of it was damaged. Killed in between, it is whole all the same, with some of either.
    """
    from model.bundle_layout import opens_plainly, save_encoder

    bundles.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=bundles))
    try:
        save_encoder(aside, encoder, tokenizer.spec)
        tokenizer.save(aside)
        files = {path.relative_to(aside).as_posix(): _sha256(path) for path in sorted(aside.rglob("*")) if path.is_file()}
        bundle_id = _bundle_id(files)
        write_sealed(aside / METRICS_FILE, metrics, of=bundle_id)
        files[METRICS_FILE] = _sha256(aside / METRICS_FILE)
        plainly = opens_plainly(encoder.config, tokenizer.spec)
        manifest = {
            "format": FORMAT,
            "id": bundle_id,
            "ds": ds.isoformat(),
            "sentence_transformers": "opens it" if plainly else "through model.sentence_transformer",
            "files": files,
            "lineage": dict(lineage),
        }
        write_sealed(aside / MANIFEST_FILE, manifest)
        sync_tree(aside)
        final = bundles / bundle_id
        if final.exists():
            # All but the figures are the same again; these count by their own digest until the manifest has their hash.
            for name in (*files, MANIFEST_FILE):
                (final / name).parent.mkdir(exist_ok=True)
                (aside / name).replace(final / name)
            sync_tree(final)
            verify(final)
        else:
            aside.chmod(0o755)
            aside.rename(final)
            sync_directory(bundles)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return final


def verify(path: Path) -> dict[str, Any]:
    """Check every file of a bundle against its manifest, and return the manifest.

    Raises:
        InputError: no bundle there, another format, another bundle than its directory is named after, or files missing,
            changed or outside of it: all of them, by name.
    """
    manifest = _require_format(path)
    if not is_sealed(path / MANIFEST_FILE) and manifest.keys() != _BEFORE_SEALS:
        raise InputError(f"{path / MANIFEST_FILE} is not as it was written (its digest is another): {_CURE}")
    bundle_id, files = manifest["id"], manifest["files"]
    problems = [problem for name, expected in files.items() if (problem := _damage(path, name, expected, bundle_id))]
    problems += [f"{name} is not in the manifest" for name in REQUIRED if name not in files]
    if not problems and _bundle_id(files) != bundle_id:
        problems.append(f"id {bundle_id} is not that of its files ({_bundle_id(files)})")
    if problems:
        raise InputError.of(problems, heading=f"bundle {path} is damaged ({_CURE}):")
    if bundle_id != (name := path.absolute().name):
        raise InputError(
            f"{path} holds bundle {bundle_id} (expected {name}, as the directory is called): call it {bundle_id}, or copy "
            f"bundle {name} there again"
        )
    return manifest


def _damage(path: Path, name: str, expected: str, bundle_id: str) -> str | None:
    """What is wrong with a file of a bundle; None if nothing is."""
    file = path / name
    if not file.resolve().is_relative_to(path.resolve()):
        return f"{name} leads out of the bundle"
    if not file.is_file():
        return f"{name} is missing"
    found = _sha256(file)
    if found == expected or (name == METRICS_FILE and is_sealed(file, of=bundle_id)):
        return None
    return f"{name} has SHA-256 {found[:12]}…, expected {expected[:12]}…"


def _require_format(path: Path) -> dict[str, Any]:
    manifest = read_json(path / MANIFEST_FILE, "is no bundle: train one with `labeller train`", _CURE)
    if manifest.get("format") != FORMAT:
        raise OtherContract(
            f"{path / MANIFEST_FILE}: bundle format {manifest.get('format')!r}, this version reads {FORMAT}: train again "
            "(`labeller train`, `labeller promote`), or install the version of this package that made it"
        )
    return manifest


def foreign(path: Path) -> str | None:
    """Why this version cannot label with the bundle at ``path``, by a look at its small files; None if it can.

    That is another format, another text normaliser, or an encoder of a newer version; damage is another matter.

    Raises:
        InputError: one of those files is missing or cannot be read.
    """
    try:
        _require_format(path)
        require_installed_normaliser(read_spec(path), path)
        EncoderConfig.from_json(read_json(path / CONFIG_FILE, cure=_CURE))
    except OtherContract as error:
        return str(error)
    return None


def load_bundle(path: Path | str, device: str = "cpu") -> Bundle:
    """A verified bundle, ready to encode.

    Raises:
        InputError: a file is missing, changed or truncated, or belongs to another text normaliser or bundle.
    """
    from model.bundle_layout import load_encoder

    path = Path(path)
    manifest = verify(path)
    calibration = read_calibration(path)
    return Bundle(
        id=manifest["id"],
        path=path,
        encoder=load_encoder(path).to(device).eval(),
        tokenizer=load_tokenizer(path),
        manifest=manifest,
        metrics={name: value for name, value in read_json(path / METRICS_FILE).items() if name != SEAL},
        calibration=calibration["calibration"] if calibration else None,
        calibration_id=calibration["id"] if calibration else "",
        device=device,
    )


def add_calibration(path: Path, calibration: Mapping[str, Any]) -> str:
    """Give the bundle at ``path`` a calibration, replacing another; returns its id, a hash of its content.

    What lies beside it in files, :func:`add_file`, it names under ``files``.
    """
    calibration_id = _calibration_id(calibration)
    write_json(path / CALIBRATION_FILE, {"id": calibration_id, "calibration": calibration})
    return calibration_id


def add_file(path: Path, name: str, content: bytes) -> tuple[str, str]:
    """Lay a file of a calibration to come into the bundle at ``path``; returns its full name and its SHA-256."""
    sha256 = hashlib.sha256(content).hexdigest()
    full = f"{name}-{sha256[:12]}.safetensors"
    write(path / full, content)
    return full, sha256


def champion(warehouse: Warehouse) -> Path | None:
    """The bundle that labels; None before the first promotion.

    Raises:
        InputError: the alias points to a bundle that is not there, or out of the warehouse.
    """
    return _resolve(warehouse, CHAMPION)


def candidate(warehouse: Warehouse) -> Path | None:
    """The bundle that the last training made; None before it.

    Raises:
        InputError: the alias points to a bundle that is not there.
    """
    return _resolve(warehouse, CANDIDATE)


def alias(warehouse: Warehouse, name: str) -> dict[str, Any] | None:
    """What an alias says: ``bundle``, ``ds``, ``metrics``; None if it was never set.

    Raises:
        InputError: the file is cut or otherwise damaged.
    """
    path = warehouse.bundles / f"{name}.json"
    return read_json(path, cure=_ALIAS_CURE) if path.exists() else None


def set_alias(warehouse: Warehouse, name: str, path: Path, **more: Any) -> None:
    """Point ``name`` to a bundle by one atomic rename.

    Raises:
        InputError: the bundle is not in the warehouse.
    """
    if path.parent != warehouse.bundles:
        raise InputError(f"{path} is not under {warehouse.bundles}: an alias points into its own warehouse only")
    manifest = read_json(path / MANIFEST_FILE, "is no bundle")
    metrics = read_json(path / METRICS_FILE).get("heldout", {})
    write_json(warehouse.bundles / f"{name}.json", {"bundle": path.name, "ds": manifest["ds"], "metrics": metrics} | more)


def _resolve(warehouse: Warehouse, name: str) -> Path | None:
    entry = alias(warehouse, name)
    if entry is None:
        return None
    path = warehouse.bundle(str(entry.get("bundle")))
    if not (path / MANIFEST_FILE).is_file():
        raise InputError(
            f"{warehouse.bundles / name}.json points to bundle {entry.get('bundle')!r}, which is not there: "
            "copy the bundle back, or delete the alias and train again"
        )
    return path


def read_calibration(path: Path) -> dict[str, Any] | None:
    """``id`` and ``calibration`` of the bundle at ``path``; None if it has none.

    Raises:
        InputError: the file, or one that it names, is missing or was changed since `labeller calibrate` wrote it.
    """
    file = path / CALIBRATION_FILE
    if not file.exists():
        return None
    found = read_json(file, cure=f"copy it again, or run `labeller calibrate --bundle {path.name}`")
    if found.get("id") != _calibration_id(found.get("calibration", {})):
        raise InputError(f"{file} was changed by hand (its id does not fit): run `labeller calibrate` again")
    for name, expected in found["calibration"].get("files", {}).items():
        beside = path / name
        if not _ADDED.fullmatch(name) or not beside.is_file() or _sha256(beside) != expected:
            raise InputError(
                f"{beside} is missing, or not the one that the calibration was fitted with (SHA-256 {expected[:12]}…): copy "
                f"the whole bundle again, or run `labeller calibrate --bundle {path.name}`"
            )
    return found


def _calibration_id(calibration: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(calibration, sort_keys=True).encode()).hexdigest()[:12]


def _bundle_id(files: Mapping[str, str]) -> str:
    identity = [(name, sha256) for name, sha256 in sorted(files.items()) if name != METRICS_FILE]
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:12]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
