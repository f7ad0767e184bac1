"""Set-up step: fetch Spark's jars once, so that every later start finds them with no network.

Delta's come with the set-up; those of a store only when asked for, since S3's SDK is a download of 558 MB.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyspark

from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from etl.spark_stores import MARKS, jars_directory

HADOOP = "3.4.1"
"""Version of the Hadoop in pyspark 4.0.5."""


@dataclass(frozen=True, slots=True)
class Packages:
    """What is fetched for one name."""

    names: tuple[str, ...]
    mark: str
    """Pattern of the jar that tells whether they are there."""
    without: tuple[str, ...] = ()
    """What they ask for and need not have."""
    needless: str = ""
    """Pattern of what is in them and never called, see :func:`leave_out`."""


# A faster TLS that Hadoop takes if it is there; its parents do not resolve everywhere.
_OPENSSL = ("org.wildfly.openssl:wildfly-openssl",)

PACKAGES = {
    # The jars that delta-spark 4.0.1 (the Python package) belongs to; 4.3 drags in a second Hadoop.
    "delta": Packages(("io.delta:delta-spark_2.13:4.0.1",), "io.delta_delta-spark*.jar"),
    # The version of the SDK that this Hadoop was built with.
    "s3a": Packages(
        (f"org.apache.hadoop:hadoop-aws:{HADOOP}", "software.amazon.awssdk:bundle:2.24.6"),
        MARKS["s3a"],
        _OPENSSL,
        # Of the services hadoop-aws names s3 and sts, and the other two log in for them. Spark has a newer slf4j.
        r"software/amazon/awssdk/services/(?!(s3|sts|sso|ssooidc)/)|org/slf4j/",
    ),
    "abfs": Packages((f"org.apache.hadoop:hadoop-azure:{HADOOP}",), MARKS["abfs"], _OPENSSL),
}


def fetch(packages: Packages, target: Path) -> list[Path]:
    """Resolve packages and what they need from Maven Central into ``target``.

    Raises:
        RuntimeError: Maven Central was not reached, with the tail of the resolver's own words.
    """
    with tempfile.TemporaryDirectory() as ivy:
        settings = ["--conf", f"spark.jars.ivy={ivy}", "--packages", ",".join(packages.names)]
        if packages.without:
            settings += ["--exclude-packages", ",".join(packages.without)]
        program = Path(ivy) / "nothing.py"
        program.write_text("")
        home = Path(pyspark.__file__).parent
        done = subprocess.run(
            [str(home / "bin" / "spark-submit"), "--master", "local[1]", *settings, str(program)],
            env=os.environ | {"SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=False,
        )
        found = sorted(Path(ivy).glob("jars/*.jar"))
        if done.returncode or not found:
            raise RuntimeError("\n".join((done.stdout + done.stderr).strip().splitlines()[-8:]))
        for jar in found:
            if packages.needless:
                leave_out(packages.needless, jar)
        target.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy2(jar, target / jar.name)) for jar in found]


def leave_out(needless: str, jar: Path) -> None:
    """Write a jar again without what the pattern matches: of the bundle of AWS's SDK 22 MB of 558 are left.

    Spark copies the jars of a session to every executor, also to the one in a local driver.
    """
    aside = jar.with_suffix(".aside")
    with zipfile.ZipFile(jar) as whole, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as slim:
        for entry in whole.infolist():
            if not entry.is_dir() and not re.match(needless, entry.filename):
                slim.writestr(entry, whole.read(entry))
    aside.rename(jar)


def arg_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m etl.jars", description=__doc__, allow_abbrev=False)
    parser.add_argument("what", nargs="?", choices=PACKAGES, default="delta", help="whose jars (default: %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch the jars unless they are there."""
    what = arg_parser().parse_args(argv).what
    target, packages = jars_directory() / ("" if what == "delta" else what), PACKAGES[what]
    if any(target.glob(packages.mark)):
        return EXIT_OK
    try:
        jars = fetch(packages, target)
    except RuntimeError as error:
        print(
            f"set-up: the jars of {what} ({', '.join(packages.names)}) could not be fetched from Maven Central. Check the "
            "network, or name a mirror with `export SPARK_SUBMIT_OPTS=-Dhttps.proxyHost=…` or an ivysettings file "
            f"(spark.jars.ivySettings), or copy the jars into {target} by hand.\n{error}",
            file=sys.stderr,
        )
        return EXIT_BAD_INPUT
    print(f"jars of {what}:", ", ".join(jar.name for jar in jars))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
