"""
A server for measurements that answers requests of the data plane from a dict.

It is no DynamoDB: every condition holds, filters and projections are ignored, and nothing is ever
throttled. So it takes little time for an answer, and a measurement shows what the client costs.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

from ..engine import HOST, EngineError

_START = "from dynamo_stores.testing.canned.server import main; main()"
# Seconds that the process may take to end.
_END = 10.0


class CannedServer:
    """
    The server in a process of its own, on 127.0.0.1, with ``tls`` over HTTPS.

    ``certificate`` is the file with its certificate, for ``AWS_CA_BUNDLE``; None without TLS.
    Creating one raises EngineError if the package that makes certificates is not installed.
    """

    def __init__(self, *, tls: bool = False) -> None:
        self.url = ""
        self.certificate: Path | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="dynamo-canned-")
        self._key = Path(self._folder.name) / "server.pem"
        self._process: subprocess.Popen[str] | None = None
        if tls:
            self.certificate = Path(self._folder.name) / "certificate.pem"
            try:
                write_certificate(self.certificate, self._key)
            except BaseException:
                self._folder.cleanup()
                raise

    def start(self) -> Self:
        """Start the server; return when it listens. Raises EngineError if it does not start."""
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and delete its certificate."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _start(self) -> Self:
        arguments = [str(self._key)] if self.certificate else []
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", _START, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C in a terminal reaches only the parent, which stops the server.
            start_new_session=True,
        )
        port = "" if self._process.stdout is None else self._process.stdout.readline().strip()
        if not port.isdecimal():
            raise EngineError("The canned server did not start; its error is above.")
        self.url = f"{'https' if self.certificate else 'http'}://{HOST}:{port}"
        return self


def write_certificate(certificate: Path, with_key: Path, host: str = HOST) -> None:
    """
    Write a certificate for an address that is valid for a day, alone and with its key.

    Raises EngineError if the package ``cryptography`` is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as exc:
        raise EngineError(
            "TLS needs a certificate, and the package that makes it is not installed: "
            "pip install cryptography."
        ) from exc
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dynamo-stores")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address(host))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    certificate.write_bytes(public)
    with_key.touch(mode=0o600)
    with_key.write_bytes(public + private)
