"""The line of the program in a sampled stack, and the name of the function that it calls."""

from pathlib import Path

import pytest

from penstock.monitor.rules.stacks import culprit
from penstock.tasks.place import Place

LIBRARY = "/usr/lib/python3.13/json/__init__.py"


def frame(file: str, line: int, function: str, source: str = "") -> str:
    return f'File "{file}", line {line}, in {function}' + (f": {source}" if source else "")


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("time.sleep(0.3)", "time.sleep"),
        ("data = await load(hashlib.pbkdf2_hmac('sha256', b'', b'', 10))", "load"),
        ("for item in sorted(range(10)):", "sorted"),
        ("if re.match('call(', text) and len(text):", "re.match"),
        ("total += number", None),
        ("async def handler(request):", None),
        ("self.client.get(url)", "self.client.get"),
    ],
)
def test_the_call_is_read_from_the_source_line(source: str, call: str | None) -> None:
    assert culprit([frame("/srv/app.py", 41, "handler", source)], None) == (Place("/srv/app.py", 41, "handler"), call)


def test_the_next_inner_frame_chooses_among_the_calls_of_a_line() -> None:
    stack = [
        frame("/usr/lib/python3.13/json/decoder.py", 9, "JSONDecoder.raw_decode"),
        frame(LIBRARY, 346, "loads", "return _default_decoder.decode(s)"),
        frame("/srv/app.py", 41, "handler", "return store(json.loads(body))"),
    ]
    assert culprit(stack, Place("/srv/app.py", 41, "handler")).text == "json.loads in app.py:41"


def test_an_installed_package_is_not_the_programs_code() -> None:
    package = Place("/venv/lib/python3.13/site-packages/requests/api.py", 7, "get")
    stack = [frame(package.file, 7, "get"), frame("/srv/app.py", 3, "main", "answer = requests.get(url)")]
    assert culprit(stack, package).text == "requests.get in app.py:3"
    assert culprit(stack[:1], package) == (package, None)


def test_without_a_call_the_function_is_named() -> None:
    assert culprit([frame("/srv/app.py", 9, "spin", "total += 1")], None).text == "spin in app.py:9"


def test_the_source_is_read_from_the_file_if_the_stack_has_places_only(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text("import time\ntime.sleep(9)\n")
    assert culprit([f"{file}:2 in main"], None).text == "time.sleep in program.py:2"


def test_without_a_stack_the_site_is_named() -> None:
    assert culprit([], Place("/nowhere/app.py", 5, "main")).text == "main in app.py:5"
    assert culprit([], None).text == "code that was not sampled"


def test_a_line_that_is_no_frame_is_skipped() -> None:
    assert culprit(["...", "nonsense"], None) == (None, None)
