"""The BIO of an engine: OpenSSL reads where the bytes already are, and writes where they are sent from.

OpenSSL may call it from a program's own call of an `SSLObject`, on any thread and without the GIL. Such a call takes
nothing from the input, and its output is kept apart until the engine is asked for it. Once the engine is gone the BIO
has no input any more and drops its output, as nothing reads a `MemoryBIO` after the end of a connection.

Ownership: a `BioState` belongs to its BIO. Fed bytes are the caller's. The memory of an `Output` belongs to that object,
which outlives the engines that write into it.
"""

from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove

from penstock._core.tls.libssl cimport (
    BIO,
    BIO_CTRL_EOF,
    BIO_CTRL_FLUSH,
    BIO_CTRL_PENDING,
    BIO_FLAGS_READ,
    BIO_FLAGS_RWS,
    BIO_FLAGS_SHOULD_RETRY,
    BIO_TYPE_SOURCE_SINK,
    BioMethod,
    libssl,
)

cdef enum:
    # What an engine writes in one call fits, with its records' headers; more is given back when it has been sent.
    OUTPUT_BYTES = 80 * 1024
    APART_BYTES = 512

# Made once, and never freed: BIOs refer to it as long as the process lives.
cdef BioMethod *method


cdef class Output:
    """The memory into which the engines of one loop write."""

    def __dealloc__(self):
        release(&self.gathered.written)


cdef bint append(Bytes *bytes, const char *data, size_t size_bytes) noexcept nogil:
    """Add to owned bytes. Return False without memory, and then nothing is added."""
    cdef size_t wanted = bytes.size_bytes + size_bytes
    if wanted > bytes.capacity_bytes and not make_room(bytes, max(wanted, 2 * bytes.capacity_bytes)):
        return False
    memcpy(bytes.data + bytes.size_bytes, data, size_bytes)
    bytes.size_bytes = wanted
    return True


cdef bint make_room(Bytes *bytes, size_t capacity_bytes) noexcept nogil:
    cdef char *moved = <char *>realloc(bytes.data, capacity_bytes)
    if moved is NULL:
        return False
    bytes.data, bytes.capacity_bytes = moved, capacity_bytes
    return True


cdef void release(Bytes *bytes) noexcept nogil:
    free(bytes.data)
    bytes.data, bytes.size_bytes, bytes.capacity_bytes = NULL, 0, 0


# --- input ---


cdef int bio_read(BIO *bio, char *into, size_t most_bytes, size_t *got) noexcept nogil:
    """Give OpenSSL what there is; 0 at the end, and -1 with the flags of a retry before more came."""
    cdef BioState *state = <BioState *>libssl.BIO_get_data(bio)
    libssl.BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY)
    got[0] = 0
    if state.is_active:
        got[0] = take(state, into, most_bytes)
        state.short_bytes = most_bytes - got[0]
    if got[0]:
        return 1
    if state.is_at_end and not input_bytes(state):
        return 0
    libssl.BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
    return -1


cdef size_t take(BioState *state, char *into, size_t most_bytes) noexcept nogil:
    cdef size_t from_kept = min(most_bytes, state.kept.size_bytes - state.kept_at), from_fed
    if from_kept:
        memcpy(into, state.kept.data + state.kept_at, from_kept)
        state.kept_at += from_kept
        if state.kept_at == state.kept.size_bytes:
            release(&state.kept)
            state.kept_at = 0
    from_fed = min(most_bytes - from_kept, state.fed_bytes)
    if from_fed:
        memcpy(into + from_kept, state.fed, from_fed)
        state.fed += from_fed
        state.fed_bytes -= from_fed
    return from_kept + from_fed


cdef int keep_fed(BioState *state) except -1:
    """Copy what is left of the fed bytes."""
    if not state.fed_bytes:
        return 0
    if state.kept_at:
        state.kept.size_bytes -= state.kept_at
        memmove(state.kept.data, state.kept.data + state.kept_at, state.kept.size_bytes)
        state.kept_at = 0
    if not append(&state.kept, state.fed, state.fed_bytes):
        raise MemoryError
    state.fed, state.fed_bytes = NULL, 0
    return 0


cdef void peek(const BioState *state, char *into, size_t size_bytes) noexcept:
    """Copy the first bytes of the input, of which there are as many."""
    cdef size_t from_kept = min(size_bytes, state.kept.size_bytes - state.kept_at)
    if from_kept:
        memcpy(into, state.kept.data + state.kept_at, from_kept)
    if size_bytes > from_kept:
        memcpy(into + from_kept, state.fed, size_bytes - from_kept)


# --- output ---


cdef int bio_write(BIO *bio, const char *data, size_t size_bytes, size_t *count) noexcept nogil:
    """Take all that OpenSSL writes; 0 only without memory."""
    cdef BioState *state = <BioState *>libssl.BIO_get_data(bio)
    libssl.BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY)
    count[0] = 0
    if not state.is_detached and not put(state, data, size_bytes):
        return 0
    count[0] = size_bytes
    return 1


cdef bint put(BioState *state, const char *data, size_t size_bytes) noexcept nogil:
    if not state.is_active or state.apart.size_bytes:
        return append_apart(state, data, size_bytes)
    return claim(state.gathered, state) and append(&state.gathered.written, data, size_bytes)


cdef bint append_apart(BioState *state, const char *data, size_t size_bytes) noexcept nogil:
    if state.apart.data is NULL and not make_room(&state.apart, max(size_bytes, <size_t>APART_BYTES)):
        return False
    return append(&state.apart, data, size_bytes)


cdef bint claim(Gathered *gathered, BioState *state) noexcept nogil:
    """Make the shared memory this BIO's. What another one has left in it goes to that one."""
    if gathered.owner is state:
        return True
    if gathered.owner is not NULL and not move_apart(gathered):
        return False
    if gathered.written.capacity_bytes < OUTPUT_BYTES and not make_room(&gathered.written, OUTPUT_BYTES):
        return False
    gathered.owner = state
    return True


cdef bint move_apart(Gathered *gathered) noexcept nogil:
    """Give the shared memory to its owner, with what that one has apart behind it."""
    cdef BioState *owner = gathered.owner
    if owner.apart.size_bytes and not append(&gathered.written, owner.apart.data, owner.apart.size_bytes):
        return False
    release(&owner.apart)
    owner.apart = gathered.written
    gathered.written.data = NULL
    gathered.written.size_bytes = gathered.written.capacity_bytes = 0
    gathered.owner = NULL
    return True


cdef Py_ssize_t written(BioState *state, const char **start) except -1:
    """Return the number of bytes that OpenSSL has written, and point `start` at them."""
    cdef Gathered *gathered = state.gathered
    cdef Bytes *found = &gathered.written
    if gathered.owner is state and state.apart.size_bytes and not move_apart(gathered):
        raise MemoryError
    if gathered.owner is not state:
        found = &state.apart
    start[0] = found.data
    return <Py_ssize_t>found.size_bytes


cdef void forget_written(BioState *state) noexcept:
    """Drop what `written` has returned."""
    cdef Gathered *gathered = state.gathered
    if gathered.owner is not state:
        release(&state.apart)
        return
    gathered.owner = NULL
    gathered.written.size_bytes = 0
    if gathered.written.capacity_bytes > OUTPUT_BYTES:
        release(&gathered.written)


# --- the MemoryBIOs before ---


cdef int drain(BIO *memory, Bytes *into) except -1:
    """Move what is in a memory BIO."""
    cdef long left_bytes = libssl.BIO_ctrl(memory, BIO_CTRL_PENDING, 0, NULL)
    if left_bytes <= 0:
        return 0
    if not make_room(into, <size_t>left_bytes):
        raise MemoryError
    into.size_bytes = <size_t>max(libssl.BIO_read(memory, into.data, <int>left_bytes), 0)
    return 0


cdef bint is_closed(BIO *memory) noexcept:
    """Return whether an empty memory BIO reports the end, as it does after `MemoryBIO.write_eof`."""
    cdef char byte
    return libssl.BIO_read(memory, &byte, 1) == 0


# --- life ---


cdef long bio_ctrl(BIO *bio, int command, long number, void *argument) noexcept nogil:
    cdef BioState *state = <BioState *>libssl.BIO_get_data(bio)
    if command == BIO_CTRL_FLUSH:
        return 1
    if command == BIO_CTRL_EOF:
        return state.is_at_end and not input_bytes(state)
    if command == BIO_CTRL_PENDING:
        return <long>input_bytes(state)
    return 0


cdef int bio_destroy(BIO *bio) noexcept nogil:
    cdef BioState *state = <BioState *>libssl.BIO_get_data(bio)
    if state is not NULL:
        release(&state.kept)
        release(&state.apart)
        free(state)
    return 1


cdef bint make_method() except -1:
    """Make the method of all BIOs here. Return False if OpenSSL does not."""
    global method
    if method is NULL:
        method = libssl.BIO_meth_new(libssl.BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "penstock")
    return (
        method is not NULL
        and libssl.BIO_meth_set_write_ex(method, bio_write)
        and libssl.BIO_meth_set_read_ex(method, bio_read)
        and libssl.BIO_meth_set_ctrl(method, bio_ctrl)
        and libssl.BIO_meth_set_destroy(method, bio_destroy)
    )


cdef BIO *new_bio(Gathered *gathered) except NULL:
    """Make a BIO that writes into `gathered`; the caller owns the only reference."""
    cdef BioState *state = <BioState *>calloc(1, sizeof(BioState))
    cdef BIO *bio = NULL if state is NULL else libssl.BIO_new(method)
    if bio is NULL:
        free(state)
        raise MemoryError
    state.gathered = gathered
    libssl.BIO_set_data(bio, state)
    libssl.BIO_set_init(bio, 1)
    return bio


cdef BioState *state_of(BIO *bio) noexcept nogil:
    return <BioState *>libssl.BIO_get_data(bio)


cdef void detach(BioState *state) noexcept:
    """Cut the BIO off from its engine: its input is forgotten, and what is written from now on is dropped."""
    state.is_detached = True
    state.is_active = False
    state.fed, state.fed_bytes = NULL, 0
    release(&state.kept)
    state.kept_at = 0
    if state.gathered.owner is state:
        forget_written(state)
    release(&state.apart)
    state.gathered = NULL
