"""penstock's loop under granian: `Granian(..., loop=LOOP)`, and granian's command line with `--loop penstock`.

granian makes the loop in each worker, by a name that must be known there. `LOOP` is such a name: it is pickled to the
workers, and so this module is imported there, which makes the name known.

    python -m penstock.integrations.granian --interface asgi --workers 2 shop:app
"""

from __future__ import annotations

import asyncio
from typing import Any

from granian._loops import loops

import penstock

__all__ = ["LOOP", "LoopName", "main"]


class LoopName(str):
    """The name of a loop for granian's `loop=`. A process that unpickles it imports this module."""

    __slots__ = ()

    @property
    def value(self) -> str:
        """The name itself, as granian's own names have it."""
        return str(self)


LOOP = LoopName("penstock")


@loops.register(LOOP)  # type: ignore[untyped-decorator, unused-ignore]
def _build() -> asyncio.AbstractEventLoop:
    loop = penstock.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


def main() -> None:
    """Run granian's command line; `--loop` takes `penstock` too, and has it as its default."""
    from granian.cli import cli, entrypoint

    (option,) = (each for each in cli.params if each.name == "loop")
    option.type, option.default, option.show_default = _with_penstock(option.type), str(LOOP), str(LOOP)
    entrypoint()


def _with_penstock(known: Any) -> Any:
    import click

    class LoopType(click.Choice):  # type: ignore[misc, type-arg, unused-ignore]
        """granian's names of loops, and penstock's."""

        def convert(self, value: Any, param: Any, ctx: Any) -> Any:
            """Return the name as granian takes it."""
            return LOOP if value == LOOP else known.convert(value, param, ctx)

    return LoopType([*known.choices, str(LOOP)])


if __name__ == "__main__":
    # the module that workers import by its own name
    from penstock.integrations.granian import main as run

    run()
