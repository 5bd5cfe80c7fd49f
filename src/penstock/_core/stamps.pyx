"""Stamps: what a loop's thread writes down as it goes. The reactor writes them, the watchdog reads them.

Words of plain memory, written by one thread and read by another without a lock: a reader may see one a moment late.
"""


cdef class Stamps:
    """The stamps of one loop. From Python: to be looked at, and to be written by tests."""

    def look(self):
        """(turn_since_ns, callback_since_ns, turn_number, callbacks_done, thread_id) as they are now."""
        return self.turn_since_ns, self.callback_since_ns, self.turn_number, self.callbacks_done, self.thread_id

    def running_now(self):
        """The handle, transport or listener that runs now, or None."""
        return None if self.running is NULL else <object>self.running

    def write(self, turn_since_ns, callback_since_ns, turn_number, callbacks_done, thread_id):
        """Set all of them; for tests."""
        self.turn_since_ns, self.callback_since_ns = turn_since_ns, callback_since_ns
        self.turn_number, self.callbacks_done, self.thread_id = turn_number, callbacks_done, thread_id
