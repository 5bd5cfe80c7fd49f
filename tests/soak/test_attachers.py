"""The fuzz of attach sockets, at full length. Its short form is tests/e2e/test_attach.py's."""

import os

from tests.soak.attachers import fuzz


def test_a_hundred_thousand_messages_leave_a_service_as_it_was() -> None:
    fuzz(int(os.environ.get("SOAK_MESSAGES", "100000")))
