# The BIO that an engine gives to OpenSSL: input from where the bytes are, output into memory that a loop's engines share.
from libc.stddef cimport size_t

from penstock._core.tls.libssl cimport BIO


cdef struct Bytes:
    # Owned; NULL while there are none.
    char *data
    size_t size_bytes, capacity_bytes


cdef struct Gathered:
    # What the engines of one loop write into, one at a time, and the BIO whose bytes are in it; NULL: nothing is.
    Bytes written
    BioState *owner


cdef struct BioState:
    # The caller's memory, until it is settled.
    const char *fed
    size_t fed_bytes
    # Owned, and read before what is fed.
    Bytes kept
    size_t kept_at
    # What OpenSSL asked for beyond what there was, when it last ran dry.
    size_t short_bytes
    # Written outside of an engine's call, or not fetched before another engine wrote. It follows what is in `gathered`.
    Bytes apart
    Gathered *gathered
    # Whether the peer's bytes have ended, whether an engine's call is running, whether the engine is gone.
    bint is_at_end, is_active, is_detached


cdef class Output:
    cdef Gathered gathered

cdef bint make_method() except -1
cdef BIO *new_bio(Gathered *gathered) except NULL
cdef BioState *state_of(BIO *bio) noexcept nogil
cdef int drain(BIO *memory, Bytes *into) except -1
cdef bint is_closed(BIO *memory) noexcept
cdef int keep_fed(BioState *state) except -1
cdef void peek(const BioState *state, char *into, size_t size_bytes) noexcept
cdef void detach(BioState *state) noexcept
cdef Py_ssize_t written(BioState *state, const char **start) except -1
cdef void forget_written(BioState *state) noexcept


cdef inline size_t input_bytes(const BioState *state) noexcept nogil:
    return state.kept.size_bytes - state.kept_at + state.fed_bytes
