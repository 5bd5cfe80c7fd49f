"""The pure loop on request: any word for yes asks for it, any word for no does not, and another one is an error."""

import subprocess
import sys

import pytest

from penstock.errors import ConfigError
from penstock.loop import NATIVE
from penstock.purity import is_pure_requested


@pytest.mark.parametrize(
    ("word", "asked"),
    [
        ("1", True),
        ("yes", True),
        ("True", True),
        (" on ", True),
        ("0", False),
        ("no", False),
        ("OFF", False),
        ("", False),
    ],
)
def test_any_word_for_yes_or_no_counts(monkeypatch: pytest.MonkeyPatch, word: str, asked: bool) -> None:
    monkeypatch.setenv("PENSTOCK_PURE", word)
    assert is_pure_requested() is asked


def test_another_word_is_an_error_that_says_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PURE", "maybe")
    with pytest.raises(ConfigError, match=r"PENSTOCK_PURE = 'maybe' \(variable PENSTOCK_PURE\): allowed is true or"):
        is_pure_requested()


@pytest.mark.parametrize(("word", "native"), [("yes", False), ("no", NATIVE)])
def test_a_process_that_is_asked_loads_no_native_code(word: str, native: bool) -> None:
    program = f"import os; os.environ['PENSTOCK_PURE'] = {word!r}; import penstock.loop as loop; print(loop.NATIVE)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(native)]
