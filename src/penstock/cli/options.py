"""Options that the commands share: the parser, `--config`, `--set`, `--log-format` and `--drain`."""

import argparse
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import penstock
from penstock.cli.output import Failure, write_out
from penstock.config import Config, sources
from penstock.config.converters import HOST_AND_PORT, Converter, seconds

__all__ = [
    "Failure",
    "LineParser",
    "accepted",
    "add_log_format",
    "add_monitor_option",
    "check_config",
    "check_log_options",
    "host_and_port",
    "load_config",
    "named_keys",
    "page_beside",
    "seconds_or_0",
    "with_monitor",
    "with_signals",
]


class LineParser(argparse.ArgumentParser):
    """An argparse parser whose help fits 80 columns and whose errors are one line."""

    # the option that an error refers to
    whole_help = "--help"

    def __init__(self, *, prog: str, usage: str, **kwargs: object) -> None:
        kwargs.setdefault("formatter_class", _Narrow)
        super().__init__(prog=prog, usage=usage, allow_abbrev=False, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Raise a Failure; argparse would print the usage, too."""
        raise Failure(f"{message} (see '{self.prog} {self.whole_help}')", code=2)

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse ignores an error of this write, and the interpreter's last flush would report it
        if file is sys.stdout:
            write_out(message)
        else:
            super()._print_message(message, file)

    def add_config_options(self) -> None:
        """Add `--config` and `--set`, which `load_config` reads."""
        self.add_argument("--config", metavar="FILE", help="a TOML file; default: the nearest one upwards")
        self.add_argument(
            "--set", metavar="KEY=VALUE", action="append", default=[], help="set a config key: loop.spin_us=50"
        )


def load_config(options: argparse.Namespace) -> Config:
    """Return the config from the command line, the environment and the nearest file."""
    return Config.load(_config_file(options.config), overrides=_overrides(options))


def named_keys(options: argparse.Namespace) -> frozenset[str]:
    """Return the keys that these sources set; a default of a command applies to the other keys only."""
    return sources.named_keys(_config_file(options.config), os.environ, _overrides(options))


def with_signals(config: Config, drain_s: float | None) -> Config:
    """Return the config with `--drain`, and with the dump on SIGUSR1 unless the config says no."""
    given = config.signals
    signals = replace(
        given,
        drain_s=given.drain_s if drain_s is None else drain_s,
        dump=True if given.dump is None else given.dump,
    )
    return replace(config, signals=signals)


def with_monitor(config: Config, page: str | None) -> Config:
    """Return the config with `--monitor`."""
    return config if page is None else replace(config, monitor=replace(config.monitor, page=page))


def page_beside(config: Config) -> AbstractContextManager[object]:
    """Return the context in which the monitor's page is served, if the config has an address for it."""
    if config.monitor.page is None:
        return nullcontext()
    # imported here: it would slow the start of programs without a page
    from penstock.monitor.page.launch import page_process

    return page_process(config.monitor)


def accepted(converter: Converter, text: str, allowed: str) -> Any:
    """Return the converted text of an option. Raises argparse's error, which describes the `allowed` values."""
    try:
        value = converter.parse(text.strip())
    except ValueError:
        value = None
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}")
    return value


def add_log_format(parser: argparse.ArgumentParser) -> None:
    """Add `--log-format`."""
    parser.add_argument("--log-format", choices=("text", "json"), help="format of log records; default text")


def add_monitor_option(parser: argparse.ArgumentParser) -> None:
    """Add `--monitor`."""
    parser.add_argument(
        "--monitor", type=host_and_port, metavar="HOST:PORT", help="serve the monitor's web page; monitor.page"
    )


def host_and_port(text: str) -> str:
    """Return the text of an option as an address."""
    return str(accepted(HOST_AND_PORT, text, HOST_AND_PORT.allowed))


def check_log_options(options: argparse.Namespace) -> None:
    """Raise Failure for `--log-format` together with `--log-config`, which has its own format."""
    if options.log_format is not None and options.log_config is not None:
        raise Failure("--log-format cannot be combined with --log-config, which has its own format", code=2)


def seconds_or_0(text: str) -> float:
    """Return the text of an option as seconds."""
    return float(accepted(seconds(zero=True), text, "a time: seconds, 0 to 1e9"))


def check_config(config: Config) -> None:
    """Build a loop from the config once, so that the command reports a config that cannot work here."""
    penstock.new_event_loop(config).close()


def _overrides(options: argparse.Namespace) -> dict[str, object]:
    return dict(_pair(text) for text in options.set)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise Failure(f"--set {text!r} is not KEY=VALUE, such as --set loop.spin_us=50", code=2)
    return key.strip(), value


def _config_file(named: str | None) -> Path | None:
    if named is not None:
        return Path(named)
    if os.environ.get("PENSTOCK_CONFIG"):
        return None  # Config.load reads it
    return Config.find(Path.cwd())


class _Narrow(argparse.HelpFormatter):
    def __init__(self, prog: str, **kwargs: object) -> None:
        super().__init__(prog, max_help_position=33, width=79)
