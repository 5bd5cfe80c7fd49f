"""The four methods that schedule callbacks, in C's fastest calling convention.

They are called once per callback, mostly by C code (a task's step, a future's wakeup), and parsing arguments the
general way would cost as much as all the rest they do: here positional arguments go from the caller's array straight
into the handle. Calls that name `callback` by keyword, or err, take the general way, for its very messages.
"""

from cpython.object cimport PyObject, PyTypeObject
from libc.math cimport isnan

from penstock._core._sys.python cimport METH_FASTCALL, METH_KEYWORDS, PyDescr_NewMethod, PyMethodDef, PyType_Modified
from penstock._core.events.handle cimport Handle, TimerHandle, new_handle, new_posted_handle, new_timer
from penstock._core.events.inbox cimport has_post
from penstock._core.events.ready cimport push
from penstock._core.events.waker cimport wake
from penstock._core.reactor cimport Reactor

cdef extern from "Python.h":
    Py_ssize_t PyTuple_GET_SIZE(PyObject *items)
    PyObject *PyTuple_GET_ITEM(PyObject *items, Py_ssize_t at)

cdef str CONTEXT = "context"


cdef inline bint is_plain(Py_ssize_t arg_count, Py_ssize_t required, PyObject *keywords) noexcept:
    """Return whether all that is required came by position and at most `context` by keyword."""
    if arg_count < required:
        return False
    # asyncio's C tasks bring a string of their own: equal, not the same.
    return keywords is NULL or (
        PyTuple_GET_SIZE(keywords) == 1 and <str>PyTuple_GET_ITEM(keywords, 0) == CONTEXT
    )


cdef inline object context_of(PyObject *const *args, Py_ssize_t arg_count, PyObject *keywords):
    return None if keywords is NULL else <object>args[arg_count]


cdef object call_soon(Reactor self, PyObject *const *args, Py_ssize_t arg_count, PyObject *keywords):
    cdef Handle handle
    if not is_plain(arg_count, 1, keywords):
        return by_name(self, "call_soon", args, arg_count, keywords)
    if self._closed:
        self.check_open()
    handle = new_handle(self, <object>args[0], args + 1, arg_count - 1, context_of(args, arg_count, keywords))
    if has_post(self.inbox):
        self.drain_inbox()
    push(self.io.ready, handle)
    if self._debug:
        # Not before: the checks are Python, and a Ctrl-C in them would lose the wakeup of a task.
        inspect_queued(self, handle)
    return handle


cdef int inspect_queued(Reactor self, Handle handle) except -1:
    try:
        return self.inspect(handle, "call_soon", True)
    except Exception:
        handle.cancel()
        raise


cdef object call_soon_threadsafe(Reactor self, PyObject *const *args, Py_ssize_t arg_count, PyObject *keywords):
    cdef Handle handle
    if not is_plain(arg_count, 1, keywords):
        return by_name(self, "call_soon_threadsafe", args, arg_count, keywords)
    if self._closed:
        self.check_open()
    handle = new_posted_handle(
        self, <object>args[0], args + 1, arg_count - 1, context_of(args, arg_count, keywords)
    )
    if self._debug:
        self.inspect(handle, "call_soon_threadsafe", False)
    self.inbox.post(handle)
    wake(self.waker)
    return handle


cdef object call_later(Reactor self, PyObject *const *args, Py_ssize_t arg_count, PyObject *keywords):
    if not is_plain(arg_count, 2, keywords):
        return by_name(self, "call_later", args, arg_count, keywords)
    if <object>args[0] is None:
        raise TypeError("delay must not be None")
    return add_timer(self, self.now() + <object>args[0], args, arg_count, keywords)


cdef object call_at(Reactor self, PyObject *const *args, Py_ssize_t arg_count, PyObject *keywords):
    if not is_plain(arg_count, 2, keywords):
        return by_name(self, "call_at", args, arg_count, keywords)
    if <object>args[0] is None:
        raise TypeError("when cannot be None")
    return add_timer(self, <object>args[0], args, arg_count, keywords)


cdef object add_timer(
    Reactor self, object when, PyObject *const *args, Py_ssize_t arg_count, PyObject *keywords
):
    cdef TimerHandle handle
    cdef double when_s = when
    if self._closed:
        self.check_open()
    if isnan(when_s):
        # It compares with nothing, so asyncio's heap loses its order, and other timers never fire.
        raise ValueError("Invalid time: NaN (not a number)")
    handle = new_timer(
        when_s, self, <object>args[1], args + 2, arg_count - 2, context_of(args, arg_count, keywords)
    )
    if type(when) is not float:
        handle.given = when
    if self._debug:
        self.inspect(handle, "call_at", True)
    if self.timers.count == 0 and self.owns_clock:
        self.timers.settle(<double>self.turn_ns / 1e9)
    self.timers.add(handle)
    return handle


def bind_callback(method):
    """Return a function that binds arguments as `method` does: (all positional ones, context)."""
    # Named as the methods are: a TypeError names the function.
    def call_soon(callback, *args, context=None):
        return (callback, *args), context

    def call_soon_threadsafe(callback, *args, context=None):
        return (callback, *args), context

    def call_later(delay, callback, *args, context=None):
        return (delay, callback, *args), context

    def call_at(when, callback, *args, context=None):
        return (when, callback, *args), context

    return {f.__name__: f for f in (call_soon, call_soon_threadsafe, call_later, call_at)}[method]


cdef object by_name(
    Reactor self, str method, PyObject *const *args, Py_ssize_t arg_count, PyObject *keywords
):
    """Bind the arguments as Python does, or fail as it does; then call again by position."""
    cdef Py_ssize_t named = 0 if keywords is NULL else PyTuple_GET_SIZE(keywords)
    positional = [<object>args[i] for i in range(arg_count)]
    given = {<object>PyTuple_GET_ITEM(keywords, i): <object>args[arg_count + i] for i in range(named)}
    bound, context = bind_callback(method)(*positional, **given)
    return getattr(self, method)(*bound, context=context)


cdef PyMethodDef methods[4]
methods[0] = PyMethodDef(
    "call_soon",
    <void *>call_soon,
    METH_FASTCALL | METH_KEYWORDS,
    "call_soon($self, callback, *args, context=None)\n--\n\n"
    "Run `callback(*args)` in the next turn, in order. Give its handle.",
)
methods[1] = PyMethodDef(
    "call_soon_threadsafe",
    <void *>call_soon_threadsafe,
    METH_FASTCALL | METH_KEYWORDS,
    "call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
    "`call_soon` from any thread; wakes the loop if it is blocked.",
)
methods[2] = PyMethodDef(
    "call_later",
    <void *>call_later,
    METH_FASTCALL | METH_KEYWORDS,
    "call_later($self, delay, callback, *args, context=None)\n--\n\n"
    "Run `callback(*args)` in `delay` seconds. Give its handle.\n\n"
    "TypeError when `delay` is None, ValueError when it is NaN.",
)
methods[3] = PyMethodDef(
    "call_at",
    <void *>call_at,
    METH_FASTCALL | METH_KEYWORDS,
    "call_at($self, when, callback, *args, context=None)\n--\n\n"
    "Run `callback(*args)` at `when` on the clock of `time()`. Give its handle.\n\n"
    "TypeError when `when` is None, ValueError when it is NaN.",
)


cdef extern from *:
    """
    static PyObject *penstock_type_dict(PyObject *type) { return ((PyTypeObject *)type)->tp_dict; }
    """
    PyObject *type_dict_of "penstock_type_dict"(object type_)


cdef int install() except -1:
    """Give the Reactor its four methods."""
    for i in range(4):
        (<dict>type_dict_of(Reactor))[methods[i].ml_name.decode()] = PyDescr_NewMethod(<PyTypeObject *>Reactor, &methods[i])
    PyType_Modified(<PyTypeObject *>Reactor)
    return 0


install()
