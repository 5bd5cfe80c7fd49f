"""`python -m asyncio ps` (3.14) reads another process's tasks from outside: whatever loop runs them."""

import asyncio
import os
import sys
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio ps came with 3.14")


async def _listing() -> tuple[int | None, str, str]:
    command = [sys.executable, "-m", "asyncio", "ps", str(os.getpid())]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def test_asyncio_ps_lists_the_tasks_of_the_loop(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def waits() -> None:
        await asyncio.Event().wait()

    async def main() -> tuple[int | None, str, str]:
        task = asyncio.create_task(waits(), name="waits-for-ever")
        await asyncio.sleep(0)
        try:
            return await _listing()
        finally:
            task.cancel()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        code, out, err = runner.run(main())
    if code != 0 and "ermission" in err:
        pytest.skip("this machine does not let a process read another's memory")
    assert (code, "waits-for-ever" in out) == (0, True), err
