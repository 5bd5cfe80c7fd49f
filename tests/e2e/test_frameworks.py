"""Each recipe of docs/frameworks.md, served by `penstock serve`: requests, streams, WebSockets, and a stop."""

import http.client
import importlib.util
import json
import subprocess
from contextlib import closing

import pytest

from tests.e2e.conftest import PATIENCE_S, ROOT, Command, answers, wait_for
from tests.e2e.test_documents import Block, blocks_of

pytest.importorskip("uvicorn")

RECIPES = [each for each in blocks_of(ROOT / "docs" / "frameworks.md") if each.said.startswith("recipe ")]
STREAMS, WEBSOCKETS = {"starlette", "quart", "django"}, {"starlette", "fastapi"}


def name_of(recipe: Block) -> str:
    return recipe.said.removeprefix("recipe ")


class Served:
    """A recipe under `penstock serve`, as shop.py."""

    def __init__(self, penstock: Command, port: int, recipe: Block) -> None:
        self.name, self.address = name_of(recipe), ("127.0.0.1", port)
        if importlib.util.find_spec(self.name) is None:
            pytest.skip(f"needs {self.name}")
        penstock.write("shop.py", recipe.text)
        self.process: subprocess.Popen[str] = penstock.start("serve", "shop:app", "--port", str(port))
        wait_for(lambda: answers(self.address), self.process)

    def ask(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body of an answer, whichever way it is framed."""
        with closing(http.client.HTTPConnection(*self.address, timeout=PATIENCE_S)) as client:
            client.request("GET", path)
            answer = client.getresponse()
            return answer.status, answer.read()

    def stop(self) -> tuple[int, str]:
        self.process.terminate()
        log, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, log


@pytest.fixture(params=RECIPES, ids=name_of)
def served(request: pytest.FixtureRequest, penstock: Command, free_port: int) -> Served:
    return Served(penstock, free_port, request.param)


def test_there_is_a_recipe_for_each_framework() -> None:
    assert {*map(name_of, RECIPES)} == {"starlette", "fastapi", "litestar", "quart", "django"}


def test_a_recipe_offloads_streams_talks_and_stops_in_order(served: Served) -> None:
    status, body = served.ask("/primes")
    assert (status, json.loads(body)["primes"]) == (200, 303)
    if served.name in STREAMS:
        assert served.ask("/lines") == (200, b"0\n1\n2\n")
    if served.name in WEBSOCKETS:
        client = pytest.importorskip("websockets.sync.client")
        with client.connect("ws://{}:{}/echo".format(*served.address)) as websocket:
            websocket.send("hello")
            assert websocket.recv(PATIENCE_S) == "HELLO"
    code, log = served.stop()
    assert code == 128 + 15
    assert "Traceback" not in log
