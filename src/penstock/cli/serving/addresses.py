"""The addresses of `penstock serve`: `--bind`, or `--host` with `--port`, `--uds` or `--fd`, or systemd's sockets."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from penstock.cli.options import Failure
from penstock.runtime.listening import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    Binding,
    check_distinct,
    inherited_bindings,
    parse_binding,
)
from penstock.runtime.socketfile import parse_owner

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["add_address_options", "check_addresses", "chosen_bindings", "port_number"]

# each means one address alone
SINGLE = ("host", "port", "uds", "fd")
LARGEST_MODE = 0o777


def add_address_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where to listen; `--fd` is uvicorn's."""
    add = parser.add_argument
    add(
        "--bind",
        type=_binding,
        action="append",
        metavar="ADDRESS",
        help="HOST:PORT, :PORT, unix:PATH, fd:N; repeatable",
    )
    add("--host", help="address to listen on; default 127.0.0.1")
    add("--port", type=port_number, help="port; default 8000, 0 picks a free one")
    add("--uds", metavar="PATH", help="listen on a Unix socket instead")
    add("--uds-mode", type=_mode, metavar="MODE", help="mode of Unix socket files; default 666")
    add("--uds-owner", type=_owner, metavar="USER[:GROUP]", help="owner of Unix socket files, names or numbers")


def check_addresses(options: argparse.Namespace) -> None:
    """Raise Failure for `--bind` beside an option that means one address. Only the command line has been read."""
    if options.bind is None:
        return
    for name in SINGLE:
        if getattr(options, name, None) is not None:
            raise Failure(f"--bind cannot be combined with --{name}: give each address by a --bind", code=2)


def chosen_bindings(options: argparse.Namespace, environ: MutableMapping[str, str]) -> list[Binding]:
    """Return the addresses of the command line, then of UVICORN_* variables, then systemd's, then the default.

    Raises Failure for sockets of systemd that cannot be taken, for an address that is given twice, and for a mode or an
    owner without a Unix socket.
    """
    bindings = options.bind or _single(options) or _activated(environ) or [Binding()]
    try:
        check_distinct(bindings)
    except ValueError as error:
        raise Failure(str(error), code=2) from error
    if all(binding.uds is None for binding in bindings):
        for name in ("uds_mode", "uds_owner"):
            if getattr(options, name) is not None:
                raise Failure(f"--{name.replace('_', '-')} needs --uds PATH or --bind unix:PATH", code=2)
    return [_with_file_options(binding, options) for binding in bindings]


def _single(options: argparse.Namespace) -> list[Binding]:
    given = {name: getattr(options, name, None) for name in SINGLE}
    if all(value is None for value in given.values()):
        return []
    if given["fd"] is not None and given["fd"] < 0:
        raise Failure(f"--fd {given['fd']}: a descriptor's number is 0 or more", code=2)
    host = DEFAULT_HOST if given["host"] is None else given["host"]
    port = DEFAULT_PORT if given["port"] is None else given["port"]
    return [Binding(host, port, given["uds"], given["fd"])]


def _activated(environ: MutableMapping[str, str]) -> list[Binding]:
    try:
        return inherited_bindings(environ)
    except ValueError as error:
        raise Failure(str(error), code=2) from error
    except OSError as error:
        raise Failure(error.strerror or str(error), code=1) from error


def _with_file_options(binding: Binding, options: argparse.Namespace) -> Binding:
    if binding.uds is None:
        return binding
    return replace(binding, mode=options.uds_mode, owner=options.uds_owner)


def port_number(text: str) -> int:
    """Return the text of an option as a port. Raises argparse's error."""
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return int(text)


def _binding(text: str) -> Binding:
    try:
        return parse_binding(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _mode(text: str) -> int:
    digits = text.removeprefix("0o")
    if not digits or len(digits) > 4 or not set(digits) <= set("01234567") or int(digits, 8) > LARGEST_MODE:
        raise argparse.ArgumentTypeError(f"{text!r} is not a mode: octal digits such as 660, at most 777")
    return int(digits, 8)


def _owner(text: str) -> str:
    try:
        parse_owner(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text
