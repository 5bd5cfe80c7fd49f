"""nest_asyncio is refused as it refuses uvloop's loop: its methods poll a selector, which the native loop has not."""

import asyncio
import inspect
from unittest import mock

import pytest

from penstock.loop import NATIVE, EventLoop

pytestmark = pytest.mark.skipif(not NATIVE, reason="the pure loop has a selector, and is patched as asyncio's")


def _patch_loop(loop):
    """Patch a loop as nest_asyncio does, in the same order."""
    if hasattr(loop, "_nest_patched"):
        return
    if not isinstance(loop, asyncio.BaseEventLoop):
        raise ValueError(f"Can't patch loop of type {type(loop)}")
    raise AssertionError("the loop would be patched")


@pytest.fixture
def loop():
    made = EventLoop()
    yield made
    made.close()


def test_nest_asyncio_is_refused_and_the_loop_goes_on(loop):
    async def main():
        with pytest.raises(ValueError, match="Can't patch loop of type"):
            _patch_loop(loop)
        await asyncio.sleep(0)
        return "its own result"

    assert loop.run_until_complete(main()) == "its own result"


def test_others_see_a_loop_that_is_not_patched(loop):
    assert not hasattr(loop, "_nest_patched")
    assert dict(inspect.getmembers(loop))["is_closed"]() is False
    mock.create_autospec(loop).is_closed()


def test_methods_of_the_loop_can_be_mocked(loop):
    with mock.patch.object(loop, "run_forever") as on_instance, mock.patch.object(EventLoop, "call_soon") as on_class:
        loop.run_forever()
        loop.call_soon(int)
    on_instance.assert_called_once_with()
    on_class.assert_called_once_with(int)
    loop.call_soon(loop.stop)
    loop.run_forever()
