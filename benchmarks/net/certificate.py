"""A self-signed certificate for the servers that speak TLS, made by the openssl command."""

from __future__ import annotations

import shutil
import ssl
import subprocess

from benchmarks.net.build import BUILD

__all__ = ["CERTIFICATE", "KEY", "make_certificate", "server_context"]

CERTIFICATE, KEY = BUILD / "certificate.pem", BUILD / "key.pem"
COMMAND = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=localhost"


def make_certificate() -> bool:
    """Make the certificate if need be. Return False where the openssl command is missing."""
    if CERTIFICATE.exists() and KEY.exists():
        return True
    if shutil.which("openssl") is None:
        return False
    BUILD.mkdir(exist_ok=True)
    command = ["openssl", *COMMAND.split(), "-keyout", str(KEY), "-out", str(CERTIFICATE)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def server_context() -> ssl.SSLContext:
    """Return the context of a server with the certificate, which `make_certificate` has made."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context
