"""Claims: the words of shared memory by which a parent and its worker process decide which of them has a job.

A job sent ahead may be taken back as long as the worker has not begun it: both sides change its word by one
compare-exchange, so exactly one of them wins. Another word says how much of a job's large buffers is there already,
so that the worker copies them out while the parent still copies them in. Beside it what else runs once per job: the
test for large bytes that a pickler makes for each object, and a receive that looks a while before it sleeps.

Ownership: a claim table holds the buffer of its memory from construction to `release`.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_CheckExact, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.string cimport memcpy

from penstock._core._sys.python cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from penstock._core._sys.socket cimport recv
from penstock._core.events.clock cimport now_ns

cdef extern from *:
    """
    #define penstock_load(word) __atomic_load_n(word, __ATOMIC_ACQUIRE)
    #define penstock_store(word, value) __atomic_store_n(word, value, __ATOMIC_RELEASE)
    #define penstock_swap(word, expected, value) \
        __atomic_compare_exchange_n(word, expected, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)
    """
    uint64_t load "penstock_load"(uint64_t *word) noexcept nogil
    void store "penstock_store"(uint64_t *word, uint64_t value) noexcept nogil
    bint swap "penstock_swap"(uint64_t *word, uint64_t *expected, uint64_t value) noexcept nogil

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef enum:
    # A job's word: its number, times four, and one of these.
    OFFERED = 1
    TAKEN = 2
    REVOKED = 3
    SLOT_COUNT = 64
    INTERRUPT_WORD = SLOT_COUNT
    READ_WORD = SLOT_COUNT + 1
    FILLED_WORD = SLOT_COUNT + 2
    WORD_COUNT = SLOT_COUNT + 3
    RECEIVE_BYTES = 65536
    # The bytes that one side copies before it notifies the other.
    CHUNK_BYTES = 256 * 1024
    # A look at the word takes nanoseconds: so many of them, and the other side has been put aside by the scheduler.
    LOOKS = 2000

# How many jobs may be with a worker at once.
SLOTS = SLOT_COUNT


cdef class ClaimTable:
    """The claims of one worker, over a writable buffer of at least `BYTES`, shared by the two processes."""

    BYTES = WORD_COUNT * 8

    cdef Py_buffer memory
    cdef uint64_t *words

    def __cinit__(self, memory):
        PyObject_GetBuffer(memory, &self.memory, PyBUF_WRITABLE)
        if self.memory.len < WORD_COUNT * 8:
            PyBuffer_Release(&self.memory)
            raise ValueError(f"a claim table needs {WORD_COUNT * 8} bytes, not {self.memory.len}")
        self.words = <uint64_t *>self.memory.buf

    def __dealloc__(self):
        self.release()

    cpdef release(self):
        """Let the memory go; the table is not used any more."""
        if self.words is not NULL:
            self.words = NULL
            PyBuffer_Release(&self.memory)

    cdef uint64_t *word(self, uint64_t at) except NULL:
        if self.words is NULL:
            raise ValueError("the claim table is released")
        return self.words + at

    def offer(self, uint64_t number):
        """Parent: the job is on its way to the worker."""
        store(self.word(number % SLOT_COUNT), number * 4 + OFFERED)

    def take(self, uint64_t number):
        """Claim the job, in the worker. Return whether the worker is to run it."""
        cdef uint64_t expected = number * 4 + OFFERED
        return bool(swap(self.word(number % SLOT_COUNT), &expected, number * 4 + TAKEN))

    def revoke(self, uint64_t number):
        """Revoke the job, in the parent. Return whether the worker had not begun it."""
        cdef uint64_t expected = number * 4 + OFFERED
        return bool(swap(self.word(number % SLOT_COUNT), &expected, number * 4 + REVOKED))

    @property
    def interrupted(self):
        """The number of the job that is to be interrupted."""
        return load(self.word(INTERRUPT_WORD))

    @interrupted.setter
    def interrupted(self, uint64_t number):
        store(self.word(INTERRUPT_WORD), number)

    @property
    def results_read(self):
        """How many results in shared memory the parent has read."""
        return load(self.word(READ_WORD))

    @results_read.setter
    def results_read(self, uint64_t count):
        store(self.word(READ_WORD), count)

    # Buffers that are copied out while they are copied in. `base_bytes` is what of the job comes before this buffer.

    def empty(self):
        """Parent: nothing of the next job's buffers is there yet."""
        store(self.word(FILLED_WORD), 0)

    def fill(self, Py_ssize_t offset, data, uint64_t base_bytes):
        """Copy a buffer in, in the parent, without the GIL. The worker reads the progress from a word."""
        cdef Py_buffer source
        cdef Py_ssize_t done = 0, count
        cdef uint64_t *filled = self.word(FILLED_WORD)
        PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
        try:
            self.check(offset, source.len)
            with nogil:
                while done < source.len:
                    count = min(<Py_ssize_t>CHUNK_BYTES, source.len - done)
                    memcpy(<char *>self.memory.buf + offset + done, <char *>source.buf + done, count)
                    done += count
                    store(filled, base_bytes + done)
        finally:
            PyBuffer_Release(&source)

    def await_filled(self, uint64_t count):
        """Worker: wait until so many bytes of the job's buffers are there."""
        cdef uint64_t *filled = self.word(FILLED_WORD)
        with nogil:
            await_word(filled, count)

    def drain(self, Py_ssize_t offset, Py_ssize_t size, uint64_t base_bytes):
        """Worker: a buffer as bytes, copied while it is filled."""
        self.check(offset, size)
        target = PyBytes_FromStringAndSize(NULL, size)
        cdef char *out = PyBytes_AS_STRING(target)
        cdef char *source = <char *>self.memory.buf + offset
        cdef uint64_t *filled = self.word(FILLED_WORD)
        cdef Py_ssize_t done = 0, count
        with nogil:
            while done < size:
                count = min(<Py_ssize_t>CHUNK_BYTES, size - done)
                await_word(filled, base_bytes + done + count)
                memcpy(out + done, source + done, count)
                done += count
        return target

    cdef int check(self, Py_ssize_t offset, Py_ssize_t size) except -1:
        if offset < 0 or size < 0 or offset > self.memory.len - size:
            raise ValueError(f"{size} bytes at {offset} are not within the {self.memory.len} bytes of the table's memory")
        return 0


cdef void await_word(uint64_t *word, uint64_t least) noexcept nogil:
    cdef int looks = 0
    while load(word) < least:
        looks += 1
        if looks > LOOKS:
            sched_yield()


cdef class LargeBytes:
    """Collects the bytes and bytearrays of at least `least_bytes` that a pickler meets: its `persistent_id`.

    Ownership: `found` keeps the items, and so their addresses, which `indices` has for keys.
    """

    cdef readonly list found
    cdef dict indices
    cdef Py_ssize_t least_bytes

    def __cinit__(self, Py_ssize_t least_bytes):
        self.found = []
        self.indices = {}
        self.least_bytes = least_bytes

    def persistent_id(self, item):
        """The index of a large item in `found`; None for all else, which is pickled where it is."""
        cdef Py_ssize_t size
        if PyBytes_CheckExact(item):
            size = PyBytes_GET_SIZE(item)
        elif PyByteArray_CheckExact(item):
            size = PyByteArray_GET_SIZE(item)
        else:
            return None
        if size < self.least_bytes:
            return None
        address = <uintptr_t><void *>item
        index = self.indices.get(address)
        if index is None:
            self.found.append(item)
            index = self.indices[address] = len(self.found) - 1
        return index


def receive(int fd, int64_t spin_ns):
    """Receive from a socket, spinning for `spin_ns` nanoseconds without sleep. Return the bytes, None if there were none.

    b"" is the end of the stream, as everywhere. Errors are left to the sleeping receive that follows a None.
    """
    cdef char buffer[RECEIVE_BYTES]
    cdef ssize_t count
    cdef int64_t end_ns
    with nogil:
        count = recv(fd, buffer, RECEIVE_BYTES, MSG_DONTWAIT)
        if count < 0 and spin_ns > 0:
            end_ns = now_ns() + spin_ns
            while count < 0 and now_ns() < end_ns:
                count = recv(fd, buffer, RECEIVE_BYTES, MSG_DONTWAIT)
    return None if count < 0 else PyBytes_FromStringAndSize(buffer, count)
