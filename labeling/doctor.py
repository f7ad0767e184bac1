"""Checks whether this machine can run the pipeline: Python, Java, jars, packages, compiler, ssh, GPU, memory, disk.

Every line is ok, warn or fail; what is not ok says how to cure it. Exits with 2 if anything failed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from rich.table import Table

from etl import storage
from etl.config import JobConfig, SparkConfig, from_args
from etl.contracts import INPUTS
from etl.errors import EXIT_BAD_INPUT, EXIT_OK, InputError
from etl.session import delta_jars
from etl.spark_stores import schemes_of, store_jars
from etl.warehouse import Warehouse
from labeling.machine import GIB, Finding, amount, check_cpu, check_gpu, check_memory, check_scratch
from labeling.terminal import add_root_argument, console

PYTHON = (3, 11)
JAVA = 17
JAVA_CURE = (
    "install Java 17 (Debian: apt-get install openjdk-17-jre-headless; macOS: brew install openjdk@17) or set JAVA_HOME"
)
DISK_GB = (2, 10)  # fail below, warn below: a sample night writes about 1 GB, checkpoints of `published` 500 MB each


def check_python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] == PYTHON:
        return Finding("Python", "ok", found)
    return Finding("Python", "fail", found, "make the environment with Python 3.11 (petastorm 0.12.1 wants pyarrow 14)")


def check_java() -> Finding:
    """The ``java`` that Spark would start: that of JAVA_HOME, else the first on the path."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None or not Path(java).is_file():
        return Finding("Java", "fail", f"no java{f' in JAVA_HOME={home}' if home else ' on the path'}", JAVA_CURE)
    done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    match = re.search(r'version "(\d+)', done.stderr + done.stdout)
    if done.returncode or match is None:
        return Finding("Java", "fail", f"{java} does not tell its version (exit {done.returncode})", JAVA_CURE)
    major = int(match[1])
    if major == JAVA:
        return Finding("Java", "ok", f"{major} at {java}")
    # Spark 4.0 documents 17 and 21; only 17 is tested here.
    return Finding("Java", "warn" if major == 21 else "fail", f"{major} at {java} (expected {JAVA})", JAVA_CURE)


def check_jars() -> Finding:
    try:
        jars = delta_jars()
    except InputError as error:
        return Finding("Delta jars", "fail", "not set up", str(error))
    return Finding("Delta jars", "ok", f"{len(jars)} under {jars[0].parent}")


def requirements_file(start: Path) -> Path | None:
    """``requirements/jobs.txt`` in ``start`` or above it, else beside the package; None for an installed copy."""
    candidates = [start.resolve(), *start.resolve().parents, Path(__file__).resolve().parents[1]]
    return next((file for parent in candidates if (file := parent / "requirements" / "jobs.txt").is_file()), None)


def check_packages(file: Path | None) -> Iterator[Finding]:
    """Installed versions against the pins of a requirements file."""
    if file is None:
        yield Finding("packages", "warn", "not compared: no requirements/jobs.txt", "run it from a checkout to compare them")
        return
    pinned = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", file.read_text(encoding="utf-8"), flags=re.MULTILINE))
    wrong = []
    for name, version in pinned.items():
        installed = _installed(name)
        if installed is None or installed.split("+")[0] != version:  # torch's CPU build is 2.13.0+cpu
            wrong.append(f"{name} {installed or 'missing'} (expected {version})")
    if wrong:
        yield Finding("packages", "fail", ", ".join(wrong), f"run `make setup`, or pip install -r {file}")
    else:
        yield Finding("packages", "ok", f"all {len(pinned)} as pinned in {file}")
    if _installed("faiss-gpu") and _installed("faiss-cpu"):
        yield Finding(
            "faiss", "fail", "faiss-gpu and faiss-cpu own the same module", "pip uninstall faiss-cpu, reinstall faiss-gpu"
        )


def check_compiler(path: str) -> Finding:
    """DeepSpeed builds its shared-memory communication on the first start with several CPU ranks."""
    missing = [tool for tool in ("g++", "ninja") if shutil.which(tool, path=path) is None]
    if missing:
        cure = "install g++ (Debian: apt-get install g++) and ninja (in requirements/jobs.txt)"
        return Finding("compiler", "fail", f"no {' and no '.join(missing)}", cure)
    return Finding("compiler", "ok", "g++ and ninja")


def check_launcher() -> Finding:
    """What starts a training on other machines; one machine needs none of it."""
    missing = [program for program in ("pdsh", "ssh") if shutil.which(program) is None]
    if missing:
        found = f"no {' and no '.join(missing)}: training on this machine only (Debian: pdsh, openssh-client)"
        return Finding("hosts", "ok", found)
    return Finding("hosts", "ok", "pdsh and ssh: training on several machines can be started here")


def check_root(root: str) -> Iterator[Finding]:
    """The warehouse: there, writable, with room, and which input tables it has."""
    if storage.is_uri(root):
        yield from check_store(root)
        return
    path = Path(root).expanduser().resolve()
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(there).free / GIB
    yield amount("disk", free, DISK_GB, f"{free:.0f} GB free at {there}", "free some space, or give --root another disk")
    if not os.access(there, os.W_OK):
        yield Finding("warehouse", "fail", f"{there} is not writable", "give --root a directory that you may write")
    elif not path.is_dir():
        cure = f"`labeller sample --root {root} --ds YYYY-MM-DD` generates one, or put your input tables there"
        yield Finding("warehouse", "warn", f"{path} does not exist yet", cure)
    else:
        try:
            # Any day will do: the settings of a job want one.
            settings = from_args(JobConfig, argparse.Namespace(config=None, root=root, ds=dt.date.min))
        except InputError as error:
            yield Finding("warehouse", "fail", f"the settings of {path} are refused", str(error))
            return
        tables = [table.name for table in INPUTS if Warehouse.of(settings).has(table)]
        cure = "" if tables else "put click_log, catalogue, vocabulary and taxonomy there"
        yield Finding("warehouse", "ok" if tables else "warn", f"{path}: {', '.join(tables) or 'no input table'}", cure)


def check_store(root: str) -> Iterator[Finding]:
    """A warehouse whose tables lie on a store: settings, jars, the local directory, and which input tables it has."""
    try:
        settings = from_args(SparkConfig, argparse.Namespace(config=None, root=root))
        store_jars(schemes_of(settings))
        warehouse = Warehouse.of(settings)
        tables = [table.name for table in INPUTS if warehouse.has(table)]
    except InputError as error:
        yield Finding("warehouse", "fail", f"{root} cannot be used", str(error))
        return
    free = shutil.disk_usage(warehouse.files).free / GIB
    yield amount(
        "disk", free, DISK_GB, f"{free:.0f} GB free at {warehouse.files}", "free some space, or name another local_dir"
    )
    if not os.access(warehouse.files, os.W_OK):
        yield Finding("warehouse", "fail", f"{warehouse.files} is not writable", "name a local_dir that you may write")
    cure = "" if tables else "put click_log, catalogue, vocabulary and taxonomy there"
    yield Finding("warehouse", "ok" if tables else "warn", f"{root}: {', '.join(tables) or 'no input table'}", cure)


def diagnose(root: str) -> Iterator[Finding]:
    """All findings, cheap ones first."""
    yield check_python()
    yield check_java()
    yield check_jars()
    yield from check_packages(requirements_file(Path.cwd()))
    yield check_compiler(_search_path())
    yield check_launcher()
    yield check_cpu()
    yield check_gpu()
    yield check_memory()
    yield check_scratch()
    yield from check_root(root)


def arg_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="labeller doctor", description=__doc__, allow_abbrev=False)
    add_root_argument(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = arg_parser().parse_args(argv)
    shown = Table("", "check", "found", "cure", box=None, pad_edge=False)
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    findings = list(diagnose(args.root))
    for finding in findings:
        colour = colours[finding.status]
        shown.add_row(f"[{colour}]{finding.status}[/]", finding.what, finding.found, finding.cure)
    console().print(shown)
    return EXIT_BAD_INPUT if any(finding.status == "fail" for finding in findings) else EXIT_OK


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _search_path() -> str:
    # ninja comes as a package: beside the interpreter, which need not be on the path.
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))


if __name__ == "__main__":
    sys.exit(main())
