"""The logs of `penstock run` and `penstock serve`: a stall of half a second by default; lines, JSON, a logging file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from penstock.loop import NATIVE
from tests.e2e.conftest import PATIENCE_S, Command, get, wait_for

sees_stalls = pytest.mark.skipif(not NATIVE, reason="the pure loop sees no stalls")

# a busy machine's stall is one for DEBUG, or over before it is looked at: once more, until it is the program's own
STALLS = """
def is_own(evidence):
    return evidence["cause"] == "python" and any("in stall:" in line for line in evidence["stack"] or ())
async def stall():
    while not any(is_own(each.evidence) for each in findings()):
        time.sleep(0.5)
        await asyncio.sleep(0)
"""
PROGRAM = f"""
import asyncio, time
from penstock.tasks import findings
{STALLS}
async def fails():
    raise ValueError("of the task")
async def main():
    await stall()
    task = asyncio.ensure_future(fails())
    await asyncio.sleep(0)
    del task
asyncio.run(main())
"""
APP = f"""
import asyncio, time
from penstock.tasks import findings
{STALLS}
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/stall":
        await stall()
    if scope["path"] == "/fail":
        raise ValueError("of the app")
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}})
    await send({{"type": "http.response.body", "body": b""}})
"""
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
LINE = re.compile(rf"{TIME} (DEBUG|INFO|WARNING|ERROR) [\w.]+: ")
# on a busy machine the turn around the callback may be what is seen
STALLED = r"(a callback|a turn of \d+ or more callbacks)"
STALL = re.compile(
    rf"^{TIME} WARNING penstock\.tasks\.stall: {STALLED} lasted (0\.[5-9]\d*|[1-9]\d*\.\d+) s in \S+ in stall "
    r"\(python.*\)\n"
    r'    File ".*", line \d+, in stall: time\.sleep\(0\.5\)$',
    re.MULTILINE,
)


def served(penstock: Command, port: int, *options: str, paths: tuple[str, ...] = ("/stall", "/fail")) -> str:
    """Return the output of a server after the requests."""
    penstock.write("app.py", APP)
    server = penstock.start("serve", "app:app", "--port", str(port), *options)

    def is_there() -> bool:
        try:
            return bool(get(("127.0.0.1", port)))
        except OSError:
            return False

    wait_for(is_there, server)
    for path in paths:
        get(("127.0.0.1", port), path)
    server.terminate()
    output, _ = server.communicate(timeout=PATIENCE_S)
    return output


def objects(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@sees_stalls
def test_run_warns_of_half_a_second_by_default_with_its_length_and_stack(penstock: Command) -> None:
    penstock.write("program.py", PROGRAM)
    stderr = penstock("run", "program.py").stderr
    assert STALL.search(stderr), stderr
    # asyncio's records have a time as well
    assert re.search(rf"^{TIME} ERROR asyncio: Task exception was never retrieved$", stderr, re.MULTILINE)


@sees_stalls
@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "workers"])
def test_serve_warns_of_half_a_second_beside_lines_of_uvicorns_in_the_same_form(
    penstock: Command, free_port: int, options: tuple[str, ...]
) -> None:
    output = served(penstock, free_port, *options, paths=("/stall",))
    assert STALL.search(output), output
    assert re.search(rf'^{TIME} INFO uvicorn\.access: .* "GET /stall HTTP/1\.1" 200$', output, re.MULTILINE)
    assert all(LINE.match(line) or line.startswith("    ") for line in output.splitlines()), output


@sees_stalls
@pytest.mark.parametrize(("level", "is_logged"), [("debug", True), ("error", False)])
def test_serve_logs_findings_from_its_log_level_on(
    penstock: Command, free_port: int, level: str, is_logged: bool
) -> None:
    output = served(penstock, free_port, "--log-level", level, paths=("/stall",))
    assert ("DEBUG penstock.tasks.stall" in output, "penstock.tasks.stall" in output) == (is_logged, is_logged), output


@sees_stalls
def test_run_logs_json_one_object_a_line_exceptions_included(penstock: Command) -> None:
    penstock.write("program.py", PROGRAM)
    found = objects(penstock("run", "--log-format", "json", "program.py").stderr)
    stall = [each for each in found if each["logger"] == "penstock.tasks.stall" and each["level"] == "WARNING"][-1]
    assert stall["penstock"]["lasted_s"] >= 0.5
    assert "time.sleep(0.5)" in stall["penstock"]["stack"]
    [failed] = [each for each in found if each["logger"] == "asyncio"]
    assert failed["exception"].splitlines()[-1] == "ValueError: of the task"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", failed["time"])


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "workers"])
def test_serve_logs_json_one_object_a_line_exceptions_included(
    penstock: Command, free_port: int, options: tuple[str, ...]
) -> None:
    paths = ("/stall", "/fail") if NATIVE else ("/fail",)
    found = objects(served(penstock, free_port, "--log-format", "json", *options, paths=paths))
    [failed] = [each for each in found if "exception" in each]
    assert (failed["logger"], failed["level"]) == ("uvicorn.error", "ERROR")
    assert failed["exception"].splitlines()[-1] == "ValueError: of the app"
    [access] = [each for each in found if each.get("path") == "/fail"]
    assert (access["logger"], access["method"], access["status"]) == ("uvicorn.access", "GET", 500)
    assert bool([each for each in found if each["logger"] == "penstock.tasks.stall"]) == NATIVE


FILES = {
    "logs.json": json.dumps(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"ours": {"format": "OURS %(levelname)s %(name)s %(message)s"}},
            "handlers": {"file": {"class": "logging.FileHandler", "filename": "log.txt", "formatter": "ours"}},
            "root": {"handlers": ["file"], "level": "INFO"},
        }
    ),
    "logs.yaml": """
version: 1
disable_existing_loggers: false
formatters: {ours: {format: "OURS %(levelname)s %(name)s %(message)s"}}
handlers: {file: {class: logging.FileHandler, filename: log.txt, formatter: ours}}
root: {handlers: [file], level: INFO}
""",
    "logs.ini": """
[loggers]
keys=root
[handlers]
keys=file
[formatters]
keys=ours
[logger_root]
handlers=file
level=INFO
[handler_file]
class=FileHandler
formatter=ours
args=("log.txt",)
[formatter_ours]
format=OURS %(levelname)s %(name)s %(message)s
""",
}


@sees_stalls
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("command", ["run", "serve"])
def test_a_file_sets_logging_up_and_is_not_written_beside(
    penstock: Command, free_port: int, command: str, name: str
) -> None:
    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    penstock.write(name, FILES[name])
    if command == "run":
        penstock.write("program.py", PROGRAM)
        output = penstock("run", "--log-config", name, "program.py").stderr
    else:
        output = served(penstock, free_port, "--log-config", name)
    written = Path(penstock.folder, "log.txt").read_text()
    assert re.search(rf"^OURS WARNING penstock\.tasks\.stall {STALLED} lasted", written, re.MULTILINE)
    assert output == ""


def test_options_of_logging_that_cannot_be_are_one_line(penstock: Command) -> None:
    penstock.write("program.py", "")
    penstock.write("bad.json", '{"version": 1, "root": {"handlers": ["none"]}}')
    refuses = penstock.refuses
    refuses("run", "--log-config", "none.json", "program.py", code=2, says="cannot read none.json: No such file")
    refuses("run", "--log-config", "none.ini", "program.py", code=2, says="cannot read none.ini: No such file")
    refuses("run", "--log-config", "bad.json", "program.py", code=2, says="bad.json is no configuration of logging")
    refuses("run", "--log-format", "xml", "program.py", code=2, says="--log-format")
    both = ("--log-format", "json", "--log-config", "bad.json")
    refuses("run", *both, "program.py", code=2, says="--log-format cannot be combined with --log-config")
    refuses("serve", *both, "app:app", code=2, says="--log-format cannot be combined with --log-config")


def test_a_program_that_sets_up_logging_itself_has_its_own_lines_alone(penstock: Command) -> None:
    program = PROGRAM if NATIVE else PROGRAM.replace("    await stall()\n", "")
    penstock.write("program.py", "import logging; logging.basicConfig(format='MINE %(message)s')\n" + program)
    stderr = penstock("run", "program.py").stderr
    assert "MINE Task exception was never retrieved" in stderr
    assert not re.search(TIME, stderr)


def test_the_last_line_of_a_process_that_is_ended_is_json_as_well(penstock: Command) -> None:
    penstock.write(
        "program.py",
        "import asyncio, os, signal, time\n"
        "async def main():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
        "asyncio.run(main())\n",
    )
    result = penstock("run", "--drain", "0", "--log-format", "json", "program.py")
    last = objects(result.stderr)[-1]
    assert (last["logger"], last["level"]) == ("penstock.runtime", "WARNING")
    assert last["message"].startswith("penstock: SIGTERM: ")
    assert result.returncode == 128 + 15
