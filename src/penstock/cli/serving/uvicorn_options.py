"""The options of the installed uvicorn on penstock's command line, and their UVICORN_* variables.

An option of penstock takes precedence. An option that penstock decides is an error that names the replacement.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock.cli.options import Failure, LineParser

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["add_uvicorn_options", "from_environment", "uvicorn_choices"]

PREFIX = "UVICORN_"
# uvicorn's option -> the option or key that decides it here
DECIDED_HERE = {
    "loop": "penstock serve runs penstock's own loop; its keys are set by --set loop.KEY=VALUE",
    "timeout_worker_healthcheck": "penstock's supervisor judges its workers itself; its bound is --hang-timeout",
}
NOT_FOR_CONFIG = {"app", "version"}
GROUPS = {
    "TLS (uvicorn's)": ("ssl_",),
    "WebSockets (uvicorn's)": ("ws",),
    "headers and proxies (uvicorn's)": ("proxy_", "forwarded_", "root_path", "headers", "server_header", "date_header"),
    "limits and timeouts (uvicorn's)": ("limit_", "timeout_", "h11_"),
    "reloading (uvicorn's)": ("reload_",),
    "logging (uvicorn's)": ("log_", "access_", "use_colors"),
    "application and protocols (uvicorn's)": ("",),
}
METAVARS = {"integer": "N", "float": "SECONDS", "path": "PATH", "boolean": "BOOL"}


def add_uvicorn_options(parser: LineParser, *, in_help: bool) -> None:
    """Add uvicorn's options that the parser does not have, in the help if `in_help`; none without uvicorn."""
    taken = set(parser._option_string_actions)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in _uvicorn_options():
        if not option.opts[0].startswith("--") or taken.intersection(option.opts):
            continue
        if option.name in DECIDED_HERE:
            _add_rejected(parser, option)
        elif option.name not in NOT_FOR_CONFIG:
            title = next(title for title, starts in GROUPS.items() if option.name.startswith(starts))
            if title not in groups:
                groups[title] = parser.add_argument_group(title)
            _add(groups[title], option, in_help=in_help)


def from_environment(parser: LineParser, options: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Set each option that the command line omits from its UVICORN_* variable; workers also from WEB_CONCURRENCY."""
    actions = {action.dest: action for action in parser._actions}
    names = {option.name: f"{PREFIX}{option.name.upper()}" for option in _uvicorn_options()}
    for name, variable in names.items():
        text = environ.get(variable, "")
        if not text:
            continue
        if name in DECIDED_HERE and text != "auto":
            raise Failure(f"{variable}={text}: {DECIDED_HERE[name]}", code=2)
        action = actions.get("drain" if name == "timeout_graceful_shutdown" else name)
        if action is not None and getattr(options, action.dest) is None:
            setattr(options, action.dest, _converted(action, variable, text))
    if options.workers is None and environ.get("WEB_CONCURRENCY"):
        options.workers = _converted(actions["workers"], "WEB_CONCURRENCY", environ["WEB_CONCURRENCY"])


def uvicorn_choices(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that penstock passes on, as arguments of `uvicorn.Config`."""
    accepted = inspect.signature(importlib.import_module("uvicorn").Config.__init__).parameters
    names = {option.name for option in _uvicorn_options()} & set(accepted) - NOT_FOR_CONFIG
    choices = {name: value for name, value in vars(options).items() if name in names and value is not None}
    if "headers" in choices:
        choices["headers"] = [_header(text) for text in choices["headers"]]
    return choices


def _uvicorn_options() -> Iterable[Any]:
    """Return uvicorn's options as click objects."""
    try:
        command = importlib.import_module("uvicorn.main").main
    except ModuleNotFoundError:
        return ()
    params: Iterable[Any] = command.params
    return params


def _add(group: Any, option: Any, *, in_help: bool) -> None:
    text = (option.help or "").replace("%", "%%") if in_help else argparse.SUPPRESS
    if option.is_flag and option.secondary_opts:
        group.add_argument(*option.opts, dest=option.name, action=argparse.BooleanOptionalAction, help=text)
    elif option.is_flag:
        group.add_argument(*option.opts, dest=option.name, action="store_true", default=None, help=text)
    else:
        group.add_argument(
            *option.opts,
            dest=option.name,
            action="append" if option.multiple else "store",
            type=partial(_convert, option),
            metavar=METAVARS.get(option.type.name, "TEXT"),
            help=text,
        )


def _convert(option: Any, text: str) -> Any:
    """Return the text converted by click. Raises argparse's error."""
    click = importlib.import_module("click")
    try:
        return option.type.convert(text, option, None)
    except click.UsageError as error:
        raise argparse.ArgumentTypeError(error.message) from error


def _add_rejected(parser: LineParser, option: Any) -> None:
    class Rejected(argparse.Action):
        """An option that penstock decides."""

        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
            """Raise Failure."""
            raise Failure(f"{option_string}: {DECIDED_HERE[option.name]}", code=2)

    parser.add_argument(*option.opts, dest=f"_{option.name}", nargs="?", action=Rejected, help=argparse.SUPPRESS)


def _converted(action: argparse.Action, variable: str, text: str) -> Any:
    """Return a variable's text converted as the option's value; a list is split as click does."""
    if action.nargs == 0:
        return _boolean(variable, text)
    kind: Any = action.type or str
    is_list = isinstance(action, argparse._AppendAction)
    texts = kind.args[0].type.split_envvar_value(text) if is_list else [text]
    try:
        values = [kind(each) for each in texts]
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise Failure(f"{variable}: {error}", code=2) from error
    if action.choices is not None and values[0] not in action.choices:
        raise Failure(f"{variable}: {text!r} is none of {', '.join(map(str, action.choices))}", code=2)
    return values if is_list else values[0]


def _boolean(variable: str, text: str) -> bool:
    word = text.strip().lower()
    if word in {"1", "true", "t", "yes", "y", "on"}:
        return True
    if word in {"0", "false", "f", "no", "n", "off"}:
        return False
    raise Failure(f"{variable}: {text!r} is neither true nor false", code=2)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise Failure(f"--header {text!r} is not Name:Value", code=2)
    return name.strip(), value.strip()
