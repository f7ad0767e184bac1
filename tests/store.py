"""A real object store on loopback for tests: SeaweedFS, whose program comes as a wheel; it checks keys as S3 does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow.fs
from deltalake.fs import DeltaStorageHandler

CHECKOUT = Path(__file__).resolve().parents[1]
BUCKET = "shop"
KEY, SECRET = "shop-key", "shop-secret-hush"
PARTS = ("master.port", "volume.port", "filer.port", "s3.port")
START_SECONDS = 60


@contextmanager
def object_store(directory: Path) -> Iterator[dict[str, str]]:
    """Variables by which clients reach a store with the empty bucket BUCKET, which lasts as long as the context."""
    identity = {"name": "shop", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    (directory / "identities.json").write_text(json.dumps({"identities": [identity]}))
    names = [*PARTS, *(f"{part}.grpc" for part in PARTS)]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [
        str(Path(sys.executable).with_name("weed")), "server", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-filer", "-s3", f"-s3.config={directory / 'identities.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=20",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    with (directory / "weed.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=directory)
    try:
        _make_bucket(f"http://127.0.0.1:{ports['filer.port']}/buckets/{BUCKET}/", server, directory / "weed.log")
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3.port']}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }
    finally:
        server.kill()  # nobody wants its data, and a soft end takes it half a minute
        server.wait()


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _make_bucket(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Once a file can be written to it too: volumes come up after the gateway."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            for method, place, more in (("POST", "", {}), ("PUT", "ready", {"data": b"yes"}), ("DELETE", "ready", {})):
                asked = urllib.request.Request(url + place, method=method, **more)
                if more:
                    asked.add_header("Content-Type", "text/plain")  # urllib's own is that of a form, which is refused
                urllib.request.urlopen(asked, timeout=5).close()
            return
        except OSError:  # of which urllib's are
            time.sleep(0.2)
    raise AssertionError(f"the store did not start:\n{log.read_text()[-2000:]}")


def upload(directory: Path, uri: str) -> None:
    """Copy a directory with all that is in it to the store that the variables of this process name."""
    pyarrow.fs.copy_files(str(directory), "", source_filesystem=pyarrow.fs.LocalFileSystem(),
                          destination_filesystem=pyarrow.fs.PyFileSystem(DeltaStorageHandler(uri)))  # fmt: skip


def environment(store: dict[str, str]) -> dict[str, str]:
    """That of a command which works with the store, with this checkout's code."""
    return os.environ | store | {"PYTHONPATH": str(CHECKOUT)}
