"""SeaweedFS in a directory of its own, and what leads a program to it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.support.processes import start_server, wait_for
from tests.support.requirements import requires

BUCKET = "snapshots"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "only-for-tests"}
_RIGHTS = ["Admin", "Read", "Write", "List", "Tagging"]
_SERVICES = ("master", "volume", "filer", "s3")


@dataclass(frozen=True)
class Server:
    """A running server, with a client of its own for what snapmig must not be asked."""

    port: int
    client: Any

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of all objects with a prefix."""
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for item in found.get("Contents", ())]

    def uploads(self, prefix: str = "") -> list[tuple[str, str]]:
        """Return key and id of every upload that was neither completed nor aborted."""
        found = self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
        pairs = [(item["Key"], item["UploadId"]) for item in found]
        return [pair for pair in pairs if pair[0].startswith(prefix)]

    def get(self, key: str) -> bytes:
        """Return an object."""
        content: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def put(self, key: str, content: bytes) -> None:
        """Make an object, or replace it."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)


@contextmanager
def serving(address: str = "127.0.0.1", volume_mib: int = 64) -> Iterator[Server]:
    """
    Run a server inside the block.

    :param address: on which it listens
    :param volume_mib: size of each of its 30 volumes; what was replaced stays in them
    """
    if find_spec("botocore") is None:
        requires("botocore")
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("weed", path=beside)
    if program is None:
        requires("weed")
    with tempfile.TemporaryDirectory(prefix="snapmig-s3-") as name:
        folder = Path(name)
        ports = _free_ports(2 * len(_SERVICES))
        with (folder / "log").open("w") as log:
            process = start_server(
                [str(program), *_arguments(folder, ports, address, volume_mib)],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**os.environ, "HOME": name},
            )
        try:
            yield _ready(process, ports["s3"], folder / "log")
        finally:
            process.kill()
            process.wait()


def settings(url: str, folder: Path) -> dict[str, str]:
    """
    Return the environment that leads to a server, and to no other.

    :param folder: for the program's own state
    """
    return {
        **KEYS,
        "AWS_ENDPOINT_URL": url,
        "AWS_CONFIG_FILE": str(folder / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "XDG_STATE_HOME": str(folder / "state"),
    }


def _free_ports(count: int) -> dict[str, int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    numbers = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    names = [f"{service}{kind}" for service in _SERVICES for kind in ("", ".grpc")]
    return dict(zip(names, numbers, strict=True))


def _arguments(folder: Path, ports: dict[str, int], address: str, volume_mib: int) -> list[str]:
    identity = {
        "name": "test",
        "credentials": [dict(zip(("accessKey", "secretKey"), KEYS.values(), strict=True))],
        "actions": _RIGHTS,
    }
    (folder / "identities").write_text(json.dumps({"identities": [identity]}))
    listening = [
        f"-{name.replace('.grpc', '')}.port{'.grpc' if name.endswith('.grpc') else ''}={port}"
        for name, port in ports.items()
    ]
    return [
        "server",
        "-ip=127.0.0.1",
        f"-ip.bind={address}",
        f"-dir={folder}",
        "-filer",
        "-s3",
        f"-s3.config={folder / 'identities'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={folder / 's3.sock'}",
        f"-filer.localSocket={folder / 'filer.sock'}",
        "-s3.autoCreateBucket=false",
        "-master.telemetry=false",  # it would tell its makers
        f"-master.volumeSizeLimitMB={volume_mib}",
        "-volume.max=30",
        "-volume.preStopSeconds=0",
        *listening,
    ]


def _ready(process: subprocess.Popen[bytes], port: int, log: Path) -> Server:
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = botocore.session.get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )

    def started() -> bool:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="first", Body=b"volumes are made for it")
            client.delete_object(Bucket=BUCKET, Key="first")
        except (BotoCoreError, ClientError) as error:
            exists = isinstance(error, ClientError) and "BucketAlready" in str(error)
            if exists:
                client.delete_bucket(Bucket=BUCKET)
            return False
        return True

    wait_for(started)
    return Server(port, client)
