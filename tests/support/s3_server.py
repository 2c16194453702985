"""A real S3 server, SeaweedFS, on this machine."""

import contextlib
import json
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "tester", "tester-secret"
BUCKET = "hand1000"


@contextlib.contextmanager
def s3_server(folder: Path, volumes: int = 20) -> Iterator[dict[str, str]]:
    """Run SeaweedFS in `folder` until the block ends; provide the environment variables of its clients.

    Args:
        folder: Existing folder of its files.
        volumes: How many files of 64 MB it may fill; removed objects keep their space.
    """
    identity = {
        "name": "tester",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    master, volume, filer, s3 = _free_ports(4)
    command = [
        str(Path(sys.executable).parent / "weed"),
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={master}",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        f"-volume.port={volume}",
        f"-volume.max={volumes}",
        f"-filer.port={filer}",
        "-s3",
        f"-s3.port={s3}",
        f"-s3.config={folder / 's3.json'}",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    log = open(folder / "log", "w")  # noqa: SIM115 (closed with the server)
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    endpoint = f"http://127.0.0.1:{s3}"
    try:
        _wait_until_ready(endpoint, server, folder / "log")
        yield {
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
        }
    finally:
        server.kill()  # Its data is temporary.
        server.wait()
        log.close()


def _free_ports(count: int) -> list[int]:
    """Return free ports whose numbers plus 10,000 are free too, because SeaweedFS uses those for gRPC."""
    ports: set[int] = set()
    while len(ports) < count:
        port = random.SystemRandom().randrange(10_240, 20_000)  # No port plus 10,000 is another port of the range.
        if _is_free(port) and _is_free(port + 10_000):
            ports.add(port)
    return list(ports)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _wait_until_ready(endpoint: str, server: subprocess.Popen, log: Path) -> None:
    """Wait until a bucket can be created and written to; the port answers before the volumes are ready."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "region_name": "us-east-1"}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{endpoint}/healthz", timeout=5):
                pass
            client = boto3.client("s3", endpoint_url=endpoint, config=config, **keys)
            with contextlib.suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
            return
        except (BotoCoreError, ClientError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"SeaweedFS did not start: {log.read_text()[-2000:]}")
