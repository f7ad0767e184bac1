"""One flow for every setting: ``warehouse.toml`` -> command line -> one frozen, validated model.

A job declares its settings as a subclass of :class:`JobConfig`; the docstring under a field is its
``--help``. Each default stands there and nowhere else.
"""

from __future__ import annotations

import argparse
import datetime as dt
import tomllib
import types
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from etl import storage
from etl.contracts import INPUTS
from etl.errors import InputError, did_you_mean
from etl.redaction import HIDDEN, SECRET
from etl.sources import Sources

SETTINGS_FILE = "warehouse.toml"

SECTIONS = (
    "warehouse",
    "spark",
    "text",
    "sample",
    "pairs",
    "dataset",
    "mine",
    "train_due",
    "train",
    "calibrate",
    "promote",
    "embed",
    "predict",
    "audit",
    "publish",
    "relate",
    "report",
    "maintain",
)


class WarehouseConfig(BaseModel):
    """What everything takes: where the warehouse is, and what that warehouse lacks."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, arbitrary_types_allowed=True)
    sections: ClassVar[tuple[str, ...]] = ("warehouse",)

    root: str
    """Directory of the warehouse: input tables, output tables, bundles, reports; or, of its tables, a URI on a store (s3a://,
    abfs://, hdfs://), with local_dir for all else."""

    local_dir: str = ""
    """Mounted directory of what is no table (bundles, datasets, checkpoints, reports, locks), the same for all machines that
    work on this warehouse; empty: ROOT."""

    absent: tuple[Literal["taxonomy", "vocabulary"], ...] = ()
    """Input tables that this warehouse declares it does not have; that half is skipped, and said."""

    inputs: Sources = {}
    """Where the input tables are and what their columns are called, where the default does not hold."""

    pins: dict[str, Annotated[int, Field(ge=0)]] = {}
    """Delta versions of input tables to read instead of the newest; on the command line as --pins table=version,
    repeatable."""

    lock_dir: str = ""
    """Directory for leases of days and locks of tables, the same for all that write this warehouse and only for it; empty:
    locks/ beside the bundles."""

    @field_validator("root")
    @classmethod
    def _is_path_or_known(cls, value: str) -> str:
        if storage.is_uri(value):
            storage.require_known(value)
        return value

    @field_validator("local_dir", "lock_dir")
    @classmethod
    def _is_path(cls, value: str) -> str:
        if storage.is_uri(value):
            raise ValueError(f"{value} is on a store, which has no locks and no renames (expected a mounted directory)")
        return value

    @model_validator(mode="after")
    def _has_local_dir(self) -> Self:
        if storage.is_uri(self.root) and not self.local_dir:
            raise ValueError(
                f"root {self.root} is on a store, which holds tables only: name a mounted directory for bundles, datasets, "
                f"checkpoints, reports and locks, the same for all machines that work on this warehouse, as local_dir under "
                f"[warehouse] in {_settings_file(self.root)}"
            )
        return self

    @field_validator("pins")
    @classmethod
    def _are_inputs(cls, value: dict[str, int]) -> dict[str, int]:
        known = [table.name for table in INPUTS]
        if unknown := sorted(set(value) - set(known)):
            raise ValueError(f"{', '.join(unknown)} is no input table (expected some of {', '.join(known)})")
        return value


class JobConfig(WarehouseConfig):
    """What every job takes beside that: for which day."""

    ds: dt.date
    """Day to work for, YYYY-MM-DD (UTC)."""

    @property
    def writes(self) -> bool:
        """Whether the job writes for its day, so that no other may at the same time."""
        return True


class SparkConfig(WarehouseConfig):
    """What everything that starts Spark takes."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark")

    master: str = "local[*,4]"
    """Spark master URL: local[*,4], spark://..., yarn, k8s://...; the second number of a local one is how many attempts a
    task has, should its Python worker be killed for lack of memory: of local[*] it has one."""

    driver_memory: str = "4g"
    """Heap of the driver; in local mode the executors live in it too."""

    checkpoint_dir: str = ""
    """Directory that all executors share, for intermediate rows that must outlive a lost executor; emptied as they go."""

    spark_conf: dict[str, str] = {}
    """Further Spark settings; on the command line as --spark-conf key=value, repeatable."""


class SparkJobConfig(JobConfig, SparkConfig):
    """What every Spark job takes."""

    sections: ClassVar[tuple[str, ...]] = ("warehouse", "spark")


_DAYS = ("ds", "from_", "to")

ConfigT = TypeVar("ConfigT", bound=WarehouseConfig)


def add_arguments(parser: argparse.ArgumentParser, config: type[WarehouseConfig]) -> None:
    """Give ``parser`` one flag for each field of ``config``, and ``--config``."""
    parser.add_argument(
        "--config", metavar="FILE", help="TOML file of settings (default: ROOT/warehouse.toml, if it is there)"
    )
    for name, field in config.model_fields.items():
        if name == "inputs":  # tables of tables: they stand in the file
            continue
        default = "required" if field.is_required() else f"default: {_shown(field.default)}"
        options: dict[str, Any] = {
            "dest": name,
            "default": argparse.SUPPRESS,
            "help": f"{field.description} ({default})".replace("%", "%%"),
        }
        kind = field.annotation
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif get_origin(kind) is dict:
            options |= {"action": "append", "metavar": "KEY=VALUE"}
        elif get_origin(kind) is tuple:
            options |= {"nargs": "*", "metavar": _metavar(get_args(kind)[0], name)}
        else:
            options["metavar"] = _metavar(kind, name)
        parser.add_argument(flag(name), **options)


def flag(name: str) -> str:
    """The flag of a field; ``from_`` is one whose name Python keeps for itself."""
    return f"--{name.rstrip('_').replace('_', '-')}"


def arg_parser(config: type[WarehouseConfig], prog: str, description: str) -> argparse.ArgumentParser:
    """Parser of the job that ``config`` belongs to."""
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    add_arguments(parser, config)
    return parser


def from_args(config: type[ConfigT], args: argparse.Namespace) -> ConfigT:
    """Settings from the file, overridden by the flags that were given.

    Raises:
        InputError: unknown section or key, or a value that a field refuses; all of them at once.
    """
    given = {k: v for k, v in vars(args).items() if k in config.model_fields}
    for name, field in config.model_fields.items():
        if name in given and get_origin(field.annotation) is dict:
            given[name] = dict(_key_value(name, entry) for entry in given[name])
    path = args.config or _default_file(given.get("root"))
    values = _file_values(path, config) if path else {}
    try:
        return config(**{**values, **given})
    except ValidationError as error:
        problems = [_sentence(e) for e in error.errors()]
        source = f"command line{f' and {path}' if path else ''}"
        raise InputError.of(problems, heading=f"settings refused ({source}):") from None


def _default_file(root: str | None) -> str | None:
    if not root:
        return None
    if storage.is_uri(root):
        try:
            storage.require_known(root)
        except ValueError:  # the field says so, with all else that is wrong
            return None
    path = _settings_file(root)
    return path if storage.is_file(path) else None


def _settings_file(root: str) -> str:
    return f"{root.rstrip('/')}/{SETTINGS_FILE}"


def _file_values(path: str, config: type[WarehouseConfig]) -> dict[str, Any]:
    try:
        sections = tomllib.loads(storage.read_text(path))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from None
    unknown = [name for name in sections if name not in SECTIONS]
    problems = [f"[{name}] is no section{did_you_mean(name, SECTIONS)} (known: {', '.join(SECTIONS)})" for name in unknown]
    values: dict[str, Any] = {}
    for section in config.sections:
        for key, value in sections.get(section, {}).items():
            if key not in config.model_fields:
                problems.append(f"[{section}] {key} is no setting{did_you_mean(key, config.model_fields)}")
            values[key] = value
    if problems:
        raise InputError.of(problems, heading=f"{path} refused:")
    return values


def _sentence(error: Any) -> str:
    """One problem as pydantic found it, in our words where its own are for programmers."""
    name = ".".join(map(str, error["loc"])) or "settings"
    if error["type"] == "missing":
        return f"{name.rstrip('_')} is not given: say {flag(name)}" + (" YYYY-MM-DD" if name in _DAYS else "")
    if error["type"].startswith("date"):
        return f"{name}: {error['input']!r} is no day (expected YYYY-MM-DD)"
    if error["type"] == "value_error":  # a sentence of our own, which says what was found
        return f"{name}: {error['ctx']['error']}"
    found = HIDDEN if SECRET.search(name) else repr(error.get("input"))
    return f"{name}: {error['msg']} (found {found})"


def _key_value(name: str, entry: str) -> tuple[str, str]:
    key, found, value = entry.partition("=")
    if not found:
        shown = HIDDEN if SECRET.search(entry) else repr(entry)
        raise InputError(f"{flag(name)} {shown}: expected KEY=VALUE")
    return key, value


def _metavar(kind: Any, name: str) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    if get_origin(kind) in (types.UnionType,):
        return _metavar(next(a for a in get_args(kind) if a is not type(None)), name)
    return {int: "N", float: "X", dt.date: "YYYY-MM-DD", str: name.upper()}.get(kind, name.upper())


def _shown(value: Any) -> str:
    return "none" if value in ((), None, {}) else str(value)
