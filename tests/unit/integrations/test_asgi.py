"""Loading an application: accepted objects, and the error of each mistake."""

import functools
import sys
from pathlib import Path

import pytest

from penstock.integrations.asgi import check_app, check_factory, load_app


async def plain(scope: object, receive: object, send: object) -> None: ...


class Old:
    def __init__(self, scope: object) -> None: ...


class Called:
    async def __call__(self, scope: object, receive: object, send: object) -> None: ...


@pytest.mark.parametrize("app", [plain, Old, Called(), functools.partial(plain), functools.partial(plain, {}, None)])
def test_what_a_server_can_call_is_an_app(app: object) -> None:
    assert check_app(app, "x:app") is app


@pytest.mark.parametrize("app", ["text", 3, None, sys, lambda: None, lambda environ, start_response: None])
def test_what_it_cannot_call_is_none(app: object) -> None:
    with pytest.raises(TypeError, match="x:app"):
        check_app(app, "x:app")


def test_a_builtin_without_a_signature_is_left_to_the_call() -> None:
    assert check_app(type, "x:app") is type


def test_a_factory_takes_nothing() -> None:
    assert check_factory(dict, "x:make") is dict
    with pytest.raises(TypeError, match="x:make is not a factory"):
        check_factory(plain, "x:make")


def test_a_module_that_the_app_misses_is_not_taken_for_the_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_more.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught:
        load_app("needs_more:app")
    assert caught.value.name == "not_there_at_all"


def test_an_attribute_of_an_attribute_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "has_nested.py").write_text(
        "class box:\n    @staticmethod\n    async def app(scope, receive, send): ..."
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_app("has_nested:box.app").__name__ == "app"
    with pytest.raises(AttributeError, match=r"'has_nested' has no attribute 'box\.none'"):
        load_app("has_nested:box.none")
