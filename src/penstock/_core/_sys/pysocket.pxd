# The fields of Python's socket object that its methods give one by one, read at once.
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

cdef extern from *:
    """
    /* Private to `_socket`, and compared with what a socket's methods answer before it is used. */
    typedef struct {
        PyObject_HEAD
        int fd;
        int family;
        int type;
        int proto;
        void *on_error;
        int64_t timeout_ns;
    } penstock_pysocket;
    static Py_ssize_t penstock_socket_size(PyObject *type) { return ((PyTypeObject *)type)->tp_basicsize; }
    """
    ctypedef struct PySocket "penstock_pysocket":
        int fd
        int family
        int type
        int proto
        # Negative: it blocks; 0: it never blocks.
        int64_t timeout_ns
    Py_ssize_t socket_size "penstock_socket_size"(object type_) noexcept


cdef inline PySocket *fields_of(object sock) noexcept:
    return <PySocket *><PyObject *>sock
