"""The beginning and the end of a run of the loop, which asyncio's own code has in Python.

Ctrl-C is raised by the first Python instruction after it. These steps are C from the first to the
last: each is done whole or not at all, and an interrupted loop can be run again.
"""

import sys
import threading
from asyncio import base_events, constants, events, futures, tasks

from penstock._core.events.handle cimport Handle

# How often a run's scope is left that is interrupted each time.
cdef int MOST_EXITS = 10


cdef class RunLifecycle:
    """The part of the reactor that knows asyncio's running loop, its hooks, and the future that a run waits for."""

    def _run_forever_setup(self):
        """As asyncio's: the first step of a run; RuntimeError when the loop is closed or a loop is running here."""
        self._check_closed()
        self._check_running()
        self._thread_id = threading.get_ident()
        track_origins(self, self._debug)
        self._old_agen_hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._asyncgen_firstiter_hook, self._asyncgen_finalizer_hook)
        events._set_running_loop(self)

    def _run_forever_cleanup(self):
        """As asyncio's: the last step of a run."""
        clean_up(self)

    def run_until_complete(self, future):
        """Run until the future, or a task of the coroutine, is done. Return its result."""
        self._check_closed()
        self._check_running()
        cdef bint is_new = not futures.isfuture(future)
        future = tasks.ensure_future(future, loop=self)
        if is_new:
            # That it did not complete is an exception already.
            future._log_destroy_pending = False
        future.add_done_callback(base_events._run_until_complete_cb)
        try:
            self.run_forever()
        except BaseException:
            if is_new and future.done() and not future.cancelled():
                # Seen: the caller has no task to ask for what its coroutine raised.
                future.exception()
            self.forget_stop(future)
            raise
        finally:
            future.remove_done_callback(base_events._run_until_complete_cb)
        if not future.done():
            raise RuntimeError("Event loop stopped before Future completed.")
        return future.result()

    cdef int forget_stop(self, future) except -1:
        """Cancel the queued stop of a future that is done: it would end the next run."""
        cdef Handle handle
        if isinstance(getattr(future, "_exception", None), (SystemExit, KeyboardInterrupt)):
            # It stops nothing then, and has to run: it marks the exception as retrieved.
            return 0
        for entry in self._ready:
            if isinstance(entry, Handle):
                handle = entry
                if handle.callback is base_events._run_until_complete_cb and handle.arg0 is future:
                    handle.cancel()
        return 0

    def _run_within(self, scope, run):
        """Call `run()` in a context manager, which is left whatever is raised where."""
        try:
            scope.__enter__()
            run()
        except BaseException as error:
            if not leave_scope(scope, type(error), error, error.__traceback__):
                raise
        else:
            leave_scope(scope, None, None, None)


cdef int track_origins(loop, bint enabled) except -1:
    """As asyncio's `_set_coroutine_origin_tracking`."""
    if enabled == bool(loop._coroutine_origin_tracking_enabled):
        return 0
    if enabled:
        loop._coroutine_origin_tracking_saved_depth = sys.get_coroutine_origin_tracking_depth()
        sys.set_coroutine_origin_tracking_depth(constants.DEBUG_STACK_DEPTH)
    else:
        sys.set_coroutine_origin_tracking_depth(loop._coroutine_origin_tracking_saved_depth)
    loop._coroutine_origin_tracking_enabled = enabled
    return 0


cdef int clean_up(RunLifecycle loop) except -1:
    loop._stopping = False
    loop._thread_id = None
    events._set_running_loop(None)
    track_origins(loop, False)
    hooks = getattr(loop, "_old_agen_hooks", None)
    if hooks is not None:
        sys.set_asyncgen_hooks(*hooks)
        loop._old_agen_hooks = None
    return 0


cdef bint leave_scope(scope, kind, error, trace) except -1:
    """Call `__exit__`, again while it is interrupted. Return its result as a bool, or raise its first exception."""
    try:
        return bool(scope.__exit__(kind, error, trace))
    except BaseException:
        for _ in range(MOST_EXITS):
            try:
                scope.__exit__(kind, error, trace)
                break
            except BaseException:
                pass
        raise
