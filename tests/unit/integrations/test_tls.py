"""TLS files that cannot be used: each error names its file."""

import shutil
import subprocess
from pathlib import Path

import pytest

from penstock.integrations.uvicorn.tls import Tls

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one", "other"):
        making = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
        files = ["-keyout", f"{tmp_path}/{name}.key", "-out", f"{tmp_path}/{name}.pem"]
        subprocess.run([*making, *files], check=True, capture_output=True)
    locking = ["openssl", "rsa", "-aes256", "-in", f"{tmp_path}/one.key", "-out", f"{tmp_path}/locked.key"]
    subprocess.run([*locking, "-passout", "pass:secret"], check=True, capture_output=True)
    (tmp_path / "empty.pem").write_text("nothing")
    (tmp_path / "broken.key").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    return tmp_path


def test_files_that_fit_pass(folder: Path) -> None:
    Tls(f"{folder}/one.pem", f"{folder}/one.key").check()
    Tls(f"{folder}/one.pem", f"{folder}/locked.key", "secret").check({"ssl_ca_certs": f"{folder}/other.pem"})


@pytest.mark.parametrize(
    ("certificate", "key", "password", "says"),
    [
        ("one.pem", "other.key", None, "the key in {}/other.key does not belong to the certificate in {}/one.pem"),
        ("one.pem", "locked.key", None, "the key in {}/locked.key is encrypted: give its --ssl-keyfile-password"),
        ("one.pem", "locked.key", "wrong", "--ssl-keyfile-password does not open the key in {}/locked.key"),
        ("empty.pem", "one.key", None, "{}/empty.pem has no certificate in PEM form"),
        ("one.pem", "empty.pem", None, "{}/empty.pem has no private key in PEM form"),
        ("one.pem", None, None, "{}/one.pem has no private key in PEM form; name its file with --ssl-keyfile"),
        ("one.pem", "broken.key", None, "{}/one.pem and {}/broken.key cannot be used as certificate and key"),
        ("none.pem", None, None, "cannot read {}/none.pem: No such file or directory"),
    ],
)
def test_what_is_wrong_is_said_with_its_file(
    folder: Path, certificate: str, key: str | None, password: str | None, says: str
) -> None:
    tls = Tls(f"{folder}/{certificate}", f"{folder}/{key}" if key else None, password)
    with pytest.raises((OSError, ValueError)) as caught:
        tls.check()
    assert says.replace("{}", str(folder)) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ssl_ca_certs", "empty.pem", "empty.pem has no CA certificates"),
        ("ssl_ca_certs", "none.pem", "cannot read"),
        ("ssl_ciphers", "NONSENSE", "--ssl-ciphers 'NONSENSE'"),
        ("ssl_version", 999, "--ssl-version 999"),
    ],
)
def test_uvicorns_other_tls_options_are_checked_too(folder: Path, name: str, value: object, says: str) -> None:
    more = {name: str(folder / value) if isinstance(value, str) and value.endswith(".pem") else value}
    with pytest.raises((OSError, ValueError), match=says):
        Tls(f"{folder}/one.pem", f"{folder}/one.key").check(more)
