"""The TLS files of a server, checked before it starts: each error names its file."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Tls"]

CERTIFICATE, KEY, ENCRYPTED = b"-----BEGIN CERTIFICATE-----", b"PRIVATE KEY-----", b"ENCRYPTED"


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a certificate and its private key; without `keyfile` the key is in `certfile`."""

    certfile: str
    keyfile: str | None = None
    password: str | None = None

    def check(self, more: Mapping[str, object] | None = None) -> None:
        """Check that the files are a certificate chain with its key. `more` has uvicorn's other TLS arguments.

        Raises OSError for a file that cannot be read, and ValueError for files that do not fit.
        """
        key_path = self.keyfile or self.certfile
        if CERTIFICATE not in _read(self.certfile):
            raise ValueError(f"{self.certfile} has no certificate in PEM form")
        key = _read(key_path)
        if KEY not in key:
            hint = "" if self.keyfile else "; name its file with --ssl-keyfile"
            raise ValueError(f"{key_path} has no private key in PEM form{hint}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # a callable: without one OpenSSL asks the terminal for the password
            context.load_cert_chain(self.certfile, self.keyfile, lambda: self.password or "")
        except ssl.SSLError as error:
            raise ValueError(self._reason(error, is_encrypted=ENCRYPTED in key)) from error
        _check_more(context, more or {})

    def choices(self) -> dict[str, str | None]:
        """Return the arguments of uvicorn's config."""
        return {"ssl_certfile": self.certfile, "ssl_keyfile": self.keyfile, "ssl_keyfile_password": self.password}

    def _reason(self, error: ssl.SSLError, *, is_encrypted: bool) -> str:
        key_path = self.keyfile or self.certfile
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"the key in {key_path} does not belong to the certificate in {self.certfile}"
        if is_encrypted and self.password is None:
            return f"the key in {key_path} is encrypted: give its --ssl-keyfile-password"
        if is_encrypted:
            return f"--ssl-keyfile-password does not open the key in {key_path}"
        files = " and ".join(dict.fromkeys((self.certfile, key_path)))
        return f"{files} cannot be used as certificate and key: {error.reason or error}"


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise OSError(error.errno, f"cannot read {path}: {error.strerror}") from error


def _check_more(context: ssl.SSLContext, more: Mapping[str, object]) -> None:
    authorities, ciphers, version = (more.get(f"ssl_{name}") for name in ("ca_certs", "ciphers", "version"))
    if authorities is not None:
        _read(str(authorities))
        try:
            context.load_verify_locations(str(authorities))
        except ssl.SSLError as error:
            raise ValueError(f"{authorities} has no CA certificates in PEM form") from error
    if ciphers is not None:
        try:
            context.set_ciphers(str(ciphers))
        except ssl.SSLError as error:
            raise ValueError(f"--ssl-ciphers {ciphers!r}: OpenSSL knows none of them") from error
    if version is not None:
        try:
            ssl.SSLContext(int(str(version)))
        except ValueError as error:
            raise ValueError(f"--ssl-version {version} is no protocol of Python's ssl module") from error
