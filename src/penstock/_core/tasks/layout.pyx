"""Layout: where asyncio's C futures and tasks keep their state, found at import by looking at some in known states.

Asking a task `done()` at each of its steps would cost as much as all the rest a probe does. The structs are private
to `_asyncio`, so nothing is assumed: an offset counts only if it is the one place, in objects of ours, that holds the
right value in every state. Where none is found, attributes are asked, with the same answers.
"""

from asyncio import futures, tasks

from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int32_t

from penstock._core.tasks.stack cimport is_verified


cdef extern from *:
    """
    static Py_ssize_t penstock_basicsize(PyObject *type) { return ((PyTypeObject *)type)->tp_basicsize; }
    """
    Py_ssize_t basic_size "penstock_basicsize"(object type_) noexcept


class Quiet:
    """A loop with the few methods that a future needs to be made."""

    def __init__(self):
        self.called = []

    def get_debug(self):
        return False

    def call_soon(self, callback, *args, context=None):
        self.called.append(callback)

    def call_exception_handler(self, context):
        pass


async def never_run():
    pass


cdef Py_ssize_t state_offset(list samples, Py_ssize_t size) except -1:
    """The one offset at which each (future, state) holds the state."""
    cdef Py_ssize_t offset, found = 0
    for offset in range(sizeof(PyObject), size - 3, 4):
        if all([(<int32_t *>(<char *><PyObject *>future + offset))[0] == state for future, state in samples]):
            if found:
                return 0
            found = offset
    return found


cdef Py_ssize_t pointer_offset(list samples, Py_ssize_t size) except -1:
    """The one offset at which each (object, target) has a pointer to its target; None stands for NULL."""
    cdef Py_ssize_t offset, found = 0
    cdef PyObject *held
    for offset in range(sizeof(PyObject), size - <Py_ssize_t>sizeof(void *) + 1, sizeof(void *)):
        for owner, target in samples:
            held = (<PyObject **>(<char *><PyObject *>owner + offset))[0]
            if held is not (NULL if target is None else <PyObject *>target):
                break
        else:
            if found:
                return 0
            found = offset
    return found


def find():
    """Find the layout of asyncio's C types, and keep it in `layout`."""
    loop, error = Quiet(), ValueError()
    pending, cancelled, returned, raised = (futures.Future(loop=loop) for _ in range(4))
    cancelled.cancel()
    returned.set_result(loop)
    raised.set_exception(error)
    coro = never_run()
    # with a name: the program's first task is Task-1, as on asyncio
    task = tasks.Task(coro, loop=loop, name="penstock-layout")
    step = loop.called.pop()
    step_type = type(step)
    try:
        size = min(basic_size(futures.Future), basic_size(tasks.Task))
        layout.state = state_offset(
            [(pending, PENDING), (cancelled, CANCELLED), (returned, FINISHED), (raised, FINISHED), (task, PENDING)], size
        )
        layout.exception = pointer_offset([(pending, None), (returned, None), (raised, error), (task, None)], size)
        layout.task_type = <PyTypeObject *>tasks.Task
        if step_type.__name__ == "TaskStepMethWrapper":
            layout.step_task = pointer_offset([(step, task)], basic_size(step_type))
            layout.step_type = <PyTypeObject *>step_type
            kept.append(step_type)
    finally:
        raised.exception()
        task._log_destroy_pending = False
        tasks._unregister_task(task)
        coro.close()


cdef int asked_state(object future) except -1:
    if not future.done():
        return PENDING
    return CANCELLED if future.cancelled() else FINISHED


cdef int asked_failed(object future) except -1:
    # `exception()` would count as having looked at it
    return getattr(future, "_exception", None) is not None


def unknown():
    """Return the names of what has no known layout in this interpreter; empty if all of it was found."""
    found = {
        "the state of a future": layout.state != 0,
        "the exception of a future": layout.exception != 0,
        "the task of a step": layout.step_task != 0,
        "frames": is_verified,
    }
    return tuple([name for name, is_known in found.items() if not is_known])


def offsets():
    """(state, exception, task of a step), in bytes; 0 where none was found."""
    return layout.state, layout.exception, layout.step_task


# types whose addresses are in `layout`
kept = [tasks.Task]
find()
