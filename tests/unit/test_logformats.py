"""Records as lines and as JSON."""

import json
import logging
import sys

from penstock.logformats import JsonFormatter, TextFormatter, uvicorn_logging


def record(message="held up %s", args=("now",), level=logging.WARNING, name="penstock.tasks.stall", **more):
    made = logging.LogRecord(name, level, __file__, 1, message, args, more.pop("exc_info", None))
    vars(made).update(more)
    return made


def test_the_stack_of_a_stall_is_below_a_warning_and_not_below_what_is_less():
    stall = {"stack": "\n".join(f"frame {number}" for number in range(20))}
    first, *frames = TextFormatter().format(record(penstock=stall)).splitlines()
    assert first.endswith(" WARNING penstock.tasks.stall: held up now")
    assert frames == [f"    frame {number}" for number in range(10)]
    assert len(TextFormatter().format(record(penstock=stall, level=logging.INFO)).splitlines()) == 1


def test_a_level_has_a_color_where_colors_are_asked_for():
    assert "\033[33mWARNING\033[0m" in TextFormatter(use_colors=True).format(record())
    assert "\033" not in TextFormatter(use_colors=False).format(record())


def test_json_has_exceptions_extras_and_what_json_has_no_word_for():
    try:
        raise ValueError("a\nb")
    except ValueError:
        line = JsonFormatter().format(record(exc_info=sys.exc_info(), order=7, thing=object, time="mine"))
    assert "\n" not in line
    found = json.loads(line)
    assert found["exception"].endswith("ValueError: a\nb")
    assert (found["message"], found["order"], found["thing"]) == ("held up now", 7, "<class 'object'>")
    # an extra does not take a field's place
    assert found["time"].endswith("Z")


def test_json_has_extras_whose_keys_are_no_text():
    made = record(table={("a", 1): 2}, order=7)
    vars(made)["a", 2] = "by a tuple"
    found = json.loads(JsonFormatter().format(made))
    assert (found["table"], found["order"], found["('a', 2)"]) == ("{('a', 1): 2}", 7, "by a tuple")


def test_json_has_extras_that_contain_themselves():
    ring = []
    ring.append(ring)
    assert json.loads(JsonFormatter().format(record(ring=ring)))["ring"] == "[[...]]"


def test_json_of_an_access_has_its_parts():
    access = record('%s - "%s %s HTTP/%s" %d', ("1.2.3.4:5", "GET", "/x", "1.1", 200), name="uvicorn.access")
    found = json.loads(JsonFormatter().format(access))
    assert (found["client"], found["path"], found["status"]) == ("1.2.3.4:5", "/x", 200)


def test_uvicorns_formatters_are_two_that_it_may_write_into():
    formatters = uvicorn_logging("json")["formatters"]
    formatters["default"]["use_colors"] = True
    assert formatters["access"] == {"()": "penstock.logformats.JsonFormatter"}
