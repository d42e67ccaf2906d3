"""Services of AWS other than DynamoDB."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def moto():
    """The URL of moto: CloudWatch, SNS, Application Auto Scaling, S3, AWS Backup and others."""
    # Importing it takes a second.
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
