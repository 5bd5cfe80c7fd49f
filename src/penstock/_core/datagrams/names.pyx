"""The names of peers: packed as the kernel has them, and as the `socket` module gives them.

A program answers the peers that it hears from, so both forms of the last ones are kept. Names that are kept are of
immutable types: tuples of text and numbers, text, bytes.

Ownership: the cache owns a reference to both forms of each name; so no other object has the address in memory of one.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy, memset

from penstock._core._sys.python cimport (
    PyBytes_AS_STRING,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
    PyUnicode_EncodeFSDefault,
)
from penstock._core._sys.socket cimport (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    htonl,
    htons,
    inet_pton,
    sockaddr_in,
    sockaddr_in6,
    sockaddr_storage,
    sockaddr_un,
)
from penstock._core.net.address cimport decode

cdef enum:
    FAMILY_BYTES = 2


cdef class NameCache:
    """The names of the peers that were last heard from or sent to."""

    def __dealloc__(self):
        cdef int i
        for i in range(KNOWN):
            Py_XDECREF(self.by_bytes[i][0])
            Py_XDECREF(self.by_bytes[i][1])
            Py_XDECREF(self.by_object[i][0])
            Py_XDECREF(self.by_object[i][1])

    cdef object name_of(self, const char *packed, Py_ssize_t size_bytes):
        """Return the name in the form of the `socket` module; None for a peer without one."""
        cdef PyObject **known = self.by_bytes[hash_of(packed, size_bytes)]
        if known[0] is not NULL and has_bytes(<object>known[0], packed, size_bytes):
            return <object>known[1]
        if size_bytes < FAMILY_BYTES:
            return None
        name = decode(<sockaddr_storage *>packed, size_bytes)
        if name is not None:
            form = PyBytes_FromStringAndSize(packed, size_bytes)
            keep(known, form, name)
            keep(self.by_object[place_of(name)], name, form)
        return name

    cdef bytes packed_of(self, object name, int family):
        """Return a name in packed form; None if only the `socket` module knows what to do with it."""
        cdef PyObject **known = self.by_object[place_of(name)]
        if known[0] is <PyObject *>name and family_of(<object>known[1]) == family:
            return <bytes>known[1]
        form = pack(name, family)
        if form is not None:
            keep(known, name, form)
        return form


cdef inline int keep(PyObject **known, object key, object value) except -1:
    cdef PyObject *former_key = known[0]
    cdef PyObject *former_value = known[1]
    Py_INCREF(key)
    Py_INCREF(value)
    known[0], known[1] = <PyObject *>key, <PyObject *>value
    Py_XDECREF(former_key)
    Py_XDECREF(former_value)
    return 0


cdef inline bint has_bytes(object form, const char *packed, Py_ssize_t size_bytes) noexcept:
    return PyBytes_GET_SIZE(form) == size_bytes and memcmp(PyBytes_AS_STRING(form), packed, size_bytes) == 0


cdef inline int family_of(object form) noexcept:
    return (<sockaddr_storage *>PyBytes_AS_STRING(form)).ss_family


cdef inline size_t place_of(object name) noexcept:
    return ((<uintptr_t><PyObject *>name) >> 4) % KNOWN


cdef inline size_t hash_of(const char *packed, Py_ssize_t size_bytes) noexcept:
    """Hash the first bytes, which have an internet name's family, port and IPv4 address, and the last ones."""
    cdef uint64_t first = 0, last = 0
    memcpy(&first, packed, min(size_bytes, <Py_ssize_t>8))
    if size_bytes >= 16:
        memcpy(&last, packed + size_bytes - 12, 8)
    return ((first ^ (last * 31)) * <uint64_t>0x9E3779B97F4A7C15) >> 58


cdef bytes pack(object name, int family):
    """Return a name in packed form; None unless it is one that needs no look-up."""
    if family == AF_UNIX:
        return pack_path(name)
    if type(name) is not tuple or len(name) < 2 or type(name[0]) is not str or not is_number(name[1], 0xFFFF):
        return None
    if family == AF_INET:
        return pack_inet(name) if len(name) == 2 else None
    if family != AF_INET6 or len(name) > 4:
        return None
    if not is_number(name[2] if len(name) > 2 else 0, 0xFFFFF) or not is_number(name[3] if len(name) > 3 else 0, 0xFFFFFFFF):
        return None
    return pack_inet6(name)


cdef inline bint is_number(object number, unsigned long long most) except -1:
    return type(number) is int and 0 <= number <= most


cdef bint parse(int family, str host, void *target) except -1:
    """Read a numeric host. Return False for one that has to be looked up."""
    if not host.isascii():
        return False
    text = host.encode("ascii")
    return 0 not in text and inet_pton(family, PyBytes_AS_STRING(text), target) == 1


cdef bytes pack_inet(tuple name):
    cdef sockaddr_in address
    memset(&address, 0, sizeof(address))
    (<sockaddr_storage *>&address).ss_family = AF_INET
    address.sin_port = htons(name[1])
    if not parse(AF_INET, name[0], &address.sin_addr):
        return None
    return PyBytes_FromStringAndSize(<char *>&address, sizeof(address))


cdef bytes pack_inet6(tuple name):
    cdef sockaddr_in6 address
    memset(&address, 0, sizeof(address))
    (<sockaddr_storage *>&address).ss_family = AF_INET6
    address.sin6_port = htons(name[1])
    address.sin6_flowinfo = htonl(name[2] if len(name) > 2 else 0)
    address.sin6_scope_id = name[3] if len(name) > 3 else 0
    if not parse(AF_INET6, name[0], &address.sin6_addr):
        return None
    return PyBytes_FromStringAndSize(<char *>&address, sizeof(address))


cdef bytes pack_path(object name):
    """Pack a path, or an abstract name, which begins with a zero byte."""
    cdef sockaddr_un address
    cdef Py_ssize_t size_bytes
    if type(name) is not str and type(name) is not bytes:
        return None
    path = PyUnicode_EncodeFSDefault(name) if type(name) is str else name
    size_bytes = PyBytes_GET_SIZE(path)
    # of an abstract name all bytes count; a path is ended by a zero byte
    if size_bytes == 0 or size_bytes >= <Py_ssize_t>sizeof(address.sun_path):
        return None
    memset(&address, 0, sizeof(address))
    address.sun_family = AF_UNIX
    memcpy(address.sun_path, PyBytes_AS_STRING(path), size_bytes)
    size_bytes += FAMILY_BYTES + (address.sun_path[0] != 0)
    return PyBytes_FromStringAndSize(<char *>&address, size_bytes)
