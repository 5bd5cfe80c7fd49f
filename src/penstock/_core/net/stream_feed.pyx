"""The feed of asyncio's StreamReader: received bytes go straight into its buffer.

`StreamReaderProtocol.data_received` calls `StreamReader.feed_data`: four Python frames and a bytes object for each
read. A transport does the same natively, on the same attributes, where the methods are asyncio's own. A method that is
replaced, in the class, a subclass or the object, is called as ever, with a bytes object; so are all of them where
asyncio's code reads other names than this module knows.

Ownership: none; every reference is a caller's.
"""

import weakref
from asyncio import streams

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_XDECREF
from libc.string cimport memcpy

from penstock._core._sys.socket cimport receive
from penstock._core.net.io_context cimport RECEIVE_BYTES

cdef enum:
    # After a read of this size the next goes straight into the reader's buffer: from here on a copy costs more.
    IN_PLACE_FROM_BYTES = 16 * 1024

cdef extern from *:
    """
    /* CPython has it in 3.11 to 3.15, and declares it in some of them. Weak: a build without it is no error. */
    #if PY_VERSION_HEX < 0x03100000
    PyAPI_FUNC(int) _PyObject_GetMethod(PyObject *object, PyObject *name, PyObject **method) __attribute__((weak));
    #else
    static int (*_PyObject_GetMethod)(PyObject *, PyObject *, PyObject **) = NULL;
    #endif

    /* Whether attributes are found as in a plain object, by no code of the class. */
    #define penstock_is_plain(object) (Py_TYPE(object)->tp_getattro == PyObject_GenericGetAttr \
        && Py_TYPE(object)->tp_setattro == PyObject_GenericSetAttr)
    #define penstock_has_views(bytes) (((PyByteArrayObject *)(bytes))->ob_exports != 0)
    #define penstock_finds_methods() (_PyObject_GetMethod != NULL)
    """
    bint finds_methods "penstock_finds_methods"() noexcept
    bint has_views "penstock_has_views"(object buffer) noexcept
    bint is_plain "penstock_is_plain"(object object_) noexcept
    # 1: `method` is the class's function; 0: it is another attribute, or NULL with an exception.
    int get_method "_PyObject_GetMethod"(object object_, object name, PyObject **method)

cdef extern from "Python.h":
    # Borrowed; NULL without an exception.
    PyObject *_PyType_Lookup(PyTypeObject *type_, object name) noexcept
    PyTypeObject *Py_TYPE(object object_) noexcept
    # The limit is above 0: -1 is an overflow.
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) noexcept

cdef object reference_type = weakref.ref
cdef str DATA_RECEIVED = "data_received"
cdef str STREAM_READER = "_stream_reader"
cdef str FEED_DATA = "feed_data"
cdef str WAKEUP_WAITER = "_wakeup_waiter"

# asyncio's own, in 3.11 to 3.15, and the names that its code reads; `_eof` in an assertion, which -O leaves out.
cdef dict KNOWN = {
    DATA_RECEIVED: {"_stream_reader", "feed_data"},
    STREAM_READER: {"_stream_reader_wr"},
    WAKEUP_WAITER: {"_waiter", "cancelled", "set_result"},
    FEED_DATA: {
        "_eof", "_buffer", "extend", "_wakeup_waiter", "_transport", "_paused", "len", "_limit", "pause_reading",
        "NotImplementedError",
    },
}
cdef object data_received = vars(streams.StreamReaderProtocol).get(DATA_RECEIVED)
cdef object stream_reader = vars(streams.StreamReaderProtocol).get(STREAM_READER)
cdef object feed_data = vars(streams.StreamReader).get(FEED_DATA)
cdef object wakeup_waiter = vars(streams.StreamReader).get(WAKEUP_WAITER)


cdef bint is_known(object function, str name):
    """Return whether a function is the one that asyncio defines, with the code that this module stands for."""
    try:
        names = set(function.__code__.co_names) | ({"_eof"} if name == FEED_DATA else set())
        return function.__globals__ is vars(streams) and function.__name__ == name and names == KNOWN[name]
    except AttributeError:
        return False


cdef bint KNOWS_ASYNCIO = (
    finds_methods()
    and is_known(data_received, DATA_RECEIVED)
    and isinstance(stream_reader, property)
    and is_known(stream_reader.fget, STREAM_READER)
    and is_known(feed_data, FEED_DATA)
    and is_known(wakeup_waiter, WAKEUP_WAITER)
)


cdef bint has_asyncio_feed(object protocol) except -1:
    """Return whether `reader_of` may find a reader: to be asked once for each protocol."""
    return KNOWS_ASYNCIO and isinstance(protocol, streams.StreamReaderProtocol) and is_plain(protocol)


cdef object reader_of(object protocol):
    """Return the StreamReader that `protocol.data_received` would feed as asyncio's does; None if it would differ."""
    if not has_own(protocol, DATA_RECEIVED, <PyObject *>data_received):
        return None
    if _PyType_Lookup(Py_TYPE(protocol), STREAM_READER) is not <PyObject *>stream_reader:
        return None
    reference = protocol._stream_reader_wr
    if type(reference) is not reference_type:
        return None
    reader = reference()
    if reader is None or not is_plain(reader):
        return None
    if not has_own(reader, FEED_DATA, <PyObject *>feed_data):
        return None
    if not has_own(reader, WAKEUP_WAITER, <PyObject *>wakeup_waiter):
        return None
    return reader if reader._eof is False and type(reader._buffer) is bytearray else None


cdef bint has_own(object object_, str name, PyObject *function) except -1:
    """Return whether a method is asyncio's."""
    cdef PyObject *method = NULL
    cdef bint is_function = get_method(object_, name, &method) == 1
    Py_XDECREF(method)
    if method is NULL:
        raise_pending()
    return is_function and method is function


cdef inline int raise_pending() except -1:
    return -1


cdef Py_ssize_t receive_for(
    object reader, int fd, char **received, Py_ssize_t last_bytes, Py_ssize_t *asked
) except? -1:
    """Receive into the buffer at `received`; after a large read into the reader's own, and `received` is NULL then.

    Return as `receive` does. `asked` is set to the room that the kernel was offered, in bytes.
    """
    cdef bytearray buffer = reader._buffer
    asked[0] = RECEIVE_BYTES
    if last_bytes < IN_PLACE_FROM_BYTES or has_views(buffer):
        return receive(fd, received[0], RECEIVE_BYTES)
    received[0] = NULL
    # The buffer keeps its room: a consumer that is slow has little too much.
    asked[0] = min(2 * last_bytes, RECEIVE_BYTES)
    return receive_in_place(buffer, fd, asked[0])


cdef Py_ssize_t receive_in_place(bytearray buffer, int fd, Py_ssize_t room_bytes) except? -1:
    """Receive at the end of a buffer without views."""
    cdef Py_ssize_t size_bytes = PyByteArray_GET_SIZE(buffer)
    cdef Py_ssize_t got
    PyByteArray_Resize(buffer, size_bytes + room_bytes)
    got = receive(fd, PyByteArray_AS_STRING(buffer) + size_bytes, room_bytes)
    PyByteArray_Resize(buffer, size_bytes + max(got, 0))
    return got


cdef int feed(object reader, const char *received, Py_ssize_t size_bytes) except -1:
    """Do as `feed_data` does; with NULL for data that is in the reader's buffer already."""
    cdef bytearray buffer = reader._buffer
    if received is not NULL:
        append(buffer, received, size_bytes)
    wake(reader)
    # asyncio looks at the transport first; neither look has an effect
    if exceeds(buffer, reader._limit):
        pause(reader)
    return 0


cdef int append(bytearray buffer, const char *start, Py_ssize_t size_bytes) except -1:
    """Add bytes at the buffer's end. Raises BufferError while a program has a view of it."""
    cdef Py_ssize_t former_bytes = PyByteArray_GET_SIZE(buffer)
    PyByteArray_Resize(buffer, former_bytes + size_bytes)
    memcpy(PyByteArray_AS_STRING(buffer) + former_bytes, start, size_bytes)
    return 0


cdef int wake(object reader) except -1:
    """Wake the coroutine that waits for data."""
    waiter = reader._waiter
    if waiter is not None:
        reader._waiter = None
        if not waiter.cancelled():
            waiter.set_result(None)
    return 0


cdef bint exceeds(bytearray buffer, object limit_bytes) except -1:
    cdef int overflows = 0
    cdef long long most_bytes
    if type(limit_bytes) is int:
        most_bytes = PyLong_AsLongLongAndOverflow(limit_bytes, &overflows)
        return not overflows and PyByteArray_GET_SIZE(buffer) - most_bytes > most_bytes
    return len(buffer) > 2 * limit_bytes


cdef int pause(object reader) except -1:
    transport = reader._transport
    if transport is None or reader._paused:
        return 0
    try:
        transport.pause_reading()
    except NotImplementedError:
        reader._transport = None
    else:
        reader._paused = True
    return 0
