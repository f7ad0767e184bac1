"""Set-up step: fetch Delta's jars once, so that every later start finds them with no network.

Run as ``python -m etl.jars``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyspark

from etl.errors import EXIT_BAD_INPUT, EXIT_OK
from etl.session import jars_directory

# The jars that delta-spark 4.0.1 (the Python package) belongs to; 4.3 drags in a second Hadoop.
DELTA = "io.delta:delta-spark_2.13:4.0.1"


def fetch(package: str, target: Path) -> list[Path]:
    """Resolve ``package`` and what it needs from Maven Central into ``target``.

    Raises:
        RuntimeError: Maven Central was not reached, with the tail of the resolver's own words.
    """
    with tempfile.TemporaryDirectory() as ivy:
        settings = ["--conf", f"spark.jars.ivy={ivy}", "--packages", package]
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
        target.mkdir(parents=True, exist_ok=True)
        return [Path(shutil.copy2(jar, target / jar.name)) for jar in found]


def main() -> int:
    """Fetch the jars unless they are there."""
    target = jars_directory()
    if any(target.glob("io.delta_delta-spark*.jar")):
        return EXIT_OK
    try:
        jars = fetch(DELTA, target)
    except RuntimeError as error:
        print(
            f"set-up: Delta's jars ({DELTA}) could not be fetched from Maven Central. Check the network, or name a mirror "
            f"with `export SPARK_SUBMIT_OPTS=-Dhttps.proxyHost=…` or an ivysettings file (spark.jars.ivySettings), or copy "
            f"the jars into {target} by hand.\n{error}",
            file=sys.stderr,
        )
        return EXIT_BAD_INPUT
    print("Delta jars:", ", ".join(jar.name for jar in jars))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
