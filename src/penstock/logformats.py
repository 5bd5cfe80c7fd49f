"""How penstock's commands write log records: as lines of text, or as one JSON object a line. And logging by a file."""

from __future__ import annotations

import importlib
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FORMATS", "JsonFormatter", "TextFormatter", "configure_by_file", "json_line", "uvicorn_logging"]

STACK_FRAMES = 10
COLORS = {"DEBUG": 36, "INFO": 32, "WARNING": 33, "ERROR": 31, "CRITICAL": 91}
ACCESS = "client", "method", "path", "http_version", "status"
# attributes of every record; the rest are the program's own extras. uvicorn repeats its message in colors
COMMON = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message", "websocket"}


class TextFormatter(logging.Formatter):
    """Time, level, logger and message; below a stall that is a warning, the stack that it was caught with."""

    def __init__(self, *, use_colors: bool | None = None) -> None:
        level = "%(colored)s" if use_colors else "%(levelname)s"
        super().__init__(f"%(asctime)s {level} %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's)
        """Write one line, and the stack of a stall."""
        record.colored = f"\033[{COLORS.get(record.levelname, 0)}m{record.levelname}\033[0m"
        line = super().formatMessage(record)
        stack = getattr(record, "penstock", {}).get("stack") if record.levelno >= logging.WARNING else None
        frames = stack.splitlines()[:STACK_FRAMES] if isinstance(stack, str) else ()
        return "\n    ".join((line, *frames))


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, pid, exception, extras; a finding in `penstock`."""

    def __init__(self, *, use_colors: bool | None = None) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """Write the record."""
        time = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage().rstrip("\n"),
            "pid": record.process,
        }
        if record.name == "uvicorn.access" and isinstance(record.args, tuple) and len(record.args) == len(ACCESS):
            fields |= zip(ACCESS, record.args, strict=True)
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        extras = {key: value for key, value in vars(record).items() if key not in COMMON and key not in fields}
        try:
            return _dumped(fields | extras)
        except (TypeError, ValueError):
            # an extra with a key that JSON does not have, or an extra that contains itself
            return _dumped(fields | {str(key): _encodable(value) for key, value in extras.items()})


def _dumped(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def _encodable(value: Any) -> Any:
    """Return the value if it can be written as JSON, else its text."""
    try:
        _dumped(value)
    except (TypeError, ValueError):
        return str(value)
    return value


def json_line(message: str) -> str:
    """Return a warning of the runtime's as JSON, for lines written past `logging`."""
    return JsonFormatter().format(logging.LogRecord("penstock.runtime", logging.WARNING, "", 0, message, (), None))


FORMATS: Mapping[str, type[TextFormatter | JsonFormatter]] = {"text": TextFormatter, "json": JsonFormatter}


def uvicorn_logging(name: str) -> dict[str, Any]:
    """Return uvicorn's own set-up of logging, written in the format of that name."""
    formatter = {"()": f"{__name__}.{FORMATS[name].__name__}"}
    streams = {"default": "ext://sys.stderr", "access": "ext://sys.stdout"}
    handlers = {
        each: {"class": "logging.StreamHandler", "formatter": each, "stream": stream}
        for each, stream in streams.items()
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        # a dict of its own for each: uvicorn writes --use-colors into them
        "formatters": {"default": dict(formatter), "access": dict(formatter)},
        "handlers": handlers,
        "loggers": {
            "uvicorn": {"handlers": ["default"], "level": "INFO", "propagate": False},
            "uvicorn.error": {"level": "INFO"},
            "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
        },
    }


def configure_by_file(path: str) -> None:
    """Set up logging by a file, as uvicorn does: .json and .yaml for dictConfig, anything else for fileConfig.

    Raises ValueError, naming the file, when it cannot be read or used.
    """
    # here: it brings sockets and queues, which a process that writes records has no need of
    import logging.config

    try:
        if path.endswith((".json", ".yaml", ".yml")):
            logging.config.dictConfig(_loaded(path))
        else:
            # fileConfig takes a file that is not there for an empty one
            Path(path).read_bytes()
            logging.config.fileConfig(path, disable_existing_loggers=False)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except ImportError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:
        # a configurator raises what its parts raise
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise ValueError(f"{path} is no configuration of logging: {error}{cause}") from error


def _loaded(path: str) -> Any:
    text = Path(path).read_text(encoding="utf-8")
    if path.endswith(".json"):
        return json.loads(text)
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError:
        raise ImportError("a YAML file needs PyYAML: pip install pyyaml") from None
    return yaml.safe_load(text)
