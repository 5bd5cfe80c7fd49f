"""Certificates of an authority made for this run, contexts around them, and the side of a connection under test."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

AUTHORITY = "-addext keyUsage=critical,keyCertSign,cRLSign -days 2"


class Certificates:
    """Certificates by name, signed by one authority: `localhost`, `other`, `expired`, `client`; `stranger` is not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._run(f"req -x509 {self._new('authority')} -subj /CN=authority {AUTHORITY} -out {folder}/authority.pem")
        self._sign("localhost", "localhost", 2)
        self._sign("other", "other.example", 2)
        self._sign("expired", "localhost", -1)
        self._sign("client", "client", 2)
        self._run(f"req -x509 {self._new('stranger')} -subj /CN=stranger -days 2 -out {folder}/stranger.pem")
        self.authority = str(folder / "authority.pem")

    def _run(self, arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True)

    def _new(self, name: str) -> str:
        return f"-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {self.folder}/{name}.key"

    def _sign(self, name: str, host: str, days: int) -> None:
        base, extensions = self.folder / name, self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{host}\nauthorityKeyIdentifier=keyid\n")
        self._run(f"req {self._new(name)} -subj /CN={host} -out {base}.csr")
        signer = f"-CA {self.folder}/authority.pem -CAkey {self.folder}/authority.key -CAcreateserial"
        self._run(f"x509 -req -in {base}.csr {signer} -days {days} -extfile {extensions} -out {base}.pem")

    def files(self, name: str) -> tuple[str, str]:
        """Return the paths of a certificate and of its key."""
        return f"{self.folder}/{name}.pem", f"{self.folder}/{name}.key"

    def server(self, name: str = "localhost", verify: ssl.VerifyMode = ssl.CERT_NONE) -> ssl.SSLContext:
        """Return a new context of a server with the named certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.files(name))
        context.load_verify_locations(self.authority)
        context.verify_mode = verify
        return context

    def client(self, name: str | None = None) -> ssl.SSLContext:
        """Return a new context of a client that trusts the authority, with a certificate of its own if one is named."""
        context = ssl.create_default_context(cafile=self.authority)
        if name is not None:
            context.load_cert_chain(*self.files(name))
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["client", "server"])
def side(request: pytest.FixtureRequest) -> str:
    """The side of a connection that the loop under test has."""
    return str(request.param)


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return ssl.TLSVersion[request.param]


@pytest.fixture
def pair(certificates: Certificates) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """New contexts of a server and of a client that trusts it, for a test to change."""
    return certificates.server(), certificates.client()


@pytest.fixture
def old_pair(pair: tuple[ssl.SSLContext, ssl.SSLContext]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The same, for TLS 1.2 only."""
    pair[0].maximum_version = ssl.TLSVersion.TLSv1_2
    return pair
