"""Clients of databases over TLS: asyncpg with PostgreSQL, redis-py with Redis, each with a server of the test's own."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.waiting import wait_until

ROWS = 20_000


def find(name):
    """Return the path of a server's program, or skip the test."""
    folders = [os.environ.get("PATH", ""), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]
    return shutil.which(name, path=os.pathsep.join(folders)) or pytest.skip(f"no {name}")


@pytest.fixture
def start(tmp_path):
    """`start(*command)`: run a server until the test ends, its output in a file."""
    processes = []

    def started(*command, **options):
        with (tmp_path / "log").open("wb") as log:
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, **options))
        return processes[-1]

    yield started
    for process in processes:
        process.terminate()
        process.wait()


def log_of(folder):
    return (folder / "log").read_text(errors="replace")


@pytest.fixture
def postgres(certificates, start, tmp_path):
    """The port of a PostgreSQL that takes TLS connections only."""
    pytest.importorskip("asyncpg")
    initdb, postgres = find("initdb"), find("postgres")
    user = {}
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    for name, source in zip(("c.pem", "c.key"), certificates.files("localhost"), strict=True):
        shutil.copy(source, tmp_path / name)
        os.chmod(tmp_path / name, 0o600)
    if os.geteuid() == 0:  # which PostgreSQL refuses
        user = {"user": "postgres"}
        for path in (tmp_path, *tmp_path.iterdir()):
            shutil.chown(path, "postgres")
        for folder in tmp_path.parents[:2]:
            os.chmod(folder, 0o755)
    command = [initdb, "-D", str(data), "-U", "postgres", "--auth=trust", "--no-sync"]
    subprocess.run(command, check=True, capture_output=True, cwd="/", **user)
    (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust\n")
    port = free_port()
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "ssl": "on",
        "ssl_cert_file": tmp_path / "c.pem",
        "ssl_key_file": tmp_path / "c.key",
        "fsync": "off",
    }
    arguments = [each for name, value in settings.items() for each in ("-c", f"{name}={value}")]
    process = start(postgres, "-D", str(data), *arguments, cwd="/", **user)
    wait_until(
        lambda: "ready to accept" in log_of(tmp_path) or process.poll() is not None, told=lambda: log_of(tmp_path)
    )
    return port


async def test_asyncpg_upgrades_to_tls(certificates, postgres):
    import asyncpg

    connection = await asyncpg.connect(
        host="127.0.0.1", port=postgres, user="postgres", database="postgres", ssl=tls_of(certificates)
    )
    assert await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()") is True
    rows = await connection.fetch("select i, repeat('x', 100) from generate_series(1, $1) as i", ROWS)
    assert [row[0] for row in rows] == list(range(1, ROWS + 1))
    await connection.execute("create table numbers (i int, t text)")
    await connection.copy_records_to_table("numbers", records=((i, "y" * 100) for i in range(ROWS)))
    assert await connection.fetchval("select sum(i) from numbers") == sum(range(ROWS))
    with pytest.raises(asyncio.TimeoutError):
        await connection.execute("select pg_sleep(10)", timeout=0.1)
    assert await connection.fetchval("select 1") == 1
    await connection.close()


async def test_asyncpg_checks_the_host(certificates, postgres):
    import asyncpg

    context = certificates.client()
    with pytest.raises(Exception, match="certificate verify failed"):
        await asyncpg.connect(host="127.0.0.1", port=postgres, user="postgres", database="postgres", ssl=context)


def tls_of(certificates):
    context = certificates.client()
    context.check_hostname = False  # the certificate has no address
    return context


@pytest.fixture
def redis_port(certificates, start, tmp_path):
    """The port of a Redis that takes TLS connections only."""
    pytest.importorskip("redis")
    certificate, key = certificates.files("localhost")
    port = free_port()
    options = {
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": certificate,
        "tls-key-file": key,
        "tls-ca-cert-file": certificates.authority,
        "tls-auth-clients": "no",
        "bind": "127.0.0.1",
        "save": "",
        "dir": str(tmp_path),
    }
    arguments = [each for name, value in options.items() for each in (f"--{name}", value)]
    process = start(find("redis-server"), *arguments)
    wait_until(
        lambda: "Ready to accept" in log_of(tmp_path) or process.poll() is not None, told=lambda: log_of(tmp_path)
    )
    return port


async def test_redis_over_tls(certificates, redis_port):
    import redis.asyncio as redis

    client = redis.Redis(
        host="127.0.0.1",
        port=redis_port,
        ssl=True,
        ssl_ca_certs=certificates.authority,
        ssl_check_hostname=False,
    )
    assert await client.ping() is True
    await client.set("large", b"v" * 5_000_000)
    assert await client.get("large") == b"v" * 5_000_000
    async with client.pipeline(transaction=False) as pipeline:
        for number in range(2000):
            pipeline.set(f"key{number}", number)
        assert await pipeline.execute() == [True] * 2000
    assert [int(value) for value in await client.mget([f"key{number}" for number in range(2000)])] == list(range(2000))
    assert await asyncio.gather(*(client.get(f"key{number}") for number in range(20))) == [b"%d" % n for n in range(20)]
    await client.aclose()
