from penstock._core.tls.engine cimport Engine


cdef class MemoryEngine(Engine):
    cdef object incoming, outgoing
    # The class of the SSLObject has methods of its own, which are called in place of `_ssl`'s.
    cdef bint is_foreign
    # The last call wanted more input, and none has come: there is no plaintext.
    cdef bint is_dry
    # Fed bytes that are not in `incoming` yet. Borrowed until `settle`.
    cdef const char *fed
    cdef Py_ssize_t fed_bytes
    # The record whose end is not in `incoming` yet: its header, its size with the header, how much of it is known.
    cdef unsigned char header[5]
    cdef Py_ssize_t record_bytes, known_bytes
    # Encrypted pieces before what is in `outgoing`; None: none. The output that was taken; None: none.
    cdef list pieces
    cdef bytes taken

    cdef int pass_on(self, Py_ssize_t most_bytes) except -1
    cdef int follow_records(self, const char *data, Py_ssize_t size_bytes) noexcept
    cdef bint is_known_record(self) noexcept
    cdef bint has_record(self) except -1
    cdef Py_ssize_t read_some(self, char *into, Py_ssize_t most_bytes) except -2
    cdef Py_ssize_t read_foreign(self, char *into, Py_ssize_t most_bytes) except -2
    cdef Py_ssize_t write_some(self, const char *data, Py_ssize_t size_bytes) except -2


cdef MemoryEngine memory_engine(object context, bint server_side, object server_hostname)
