"""The sampler of a worker process: a thread that shows the supervisor the loop's progress, without the GIL.

`run` is the body of that thread, which is Python's. It copies the words of the loop's heartbeat to the health page, which
the supervisor reads, and so distinguishes a loop that is blocked from a process that does not run at all. It never asks
for the GIL, so C code that holds it in another thread does not stop the sampler. It also ends the process some time after
the supervisor has ended, whatever the other threads do then.

Ownership: the sampler holds the page's buffer, and all heartbeats that it has followed, until it is freed; the thread
holds the sampler. Its descriptors are its own. A forked child has no such thread: there `run` and `stop` do nothing.
"""

import os
import stat

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_SetFromErrno
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.signal cimport SIGKILL
from libc.stdint cimport uintptr_t
from posix.signal cimport kill
from posix.unistd cimport close, getpid

from penstock._core._sys.epoll cimport EFD_CLOEXEC, EFD_NONBLOCK, eventfd, eventfd_write
from penstock._core._sys.poll cimport POLLIN, poll, pollfd
from penstock._core.events.clock cimport now_ns
from penstock._core.tasks.heartbeat cimport Heartbeat

cdef extern from *:
    """
    #define penstock_load(word) __atomic_load_n(word, __ATOMIC_ACQUIRE)
    #define penstock_store(word, value) __atomic_store_n(word, value, __ATOMIC_RELEASE)
    """
    int64_t load_time "penstock_load"(const int64_t *word) noexcept nogil
    uint64_t load_count "penstock_load"(const uint64_t *word) noexcept nogil
    FollowedWords *load_followed "penstock_load"(FollowedWords **word) noexcept nogil
    void store "penstock_store"(int64_t *word, int64_t value) noexcept nogil
    void store_followed "penstock_store"(FollowedWords **word, FollowedWords *value) noexcept nogil

cdef enum:
    # The words of the page that the sampler writes.
    WRITTEN_WORD = 1
    TURN_SINCE_WORD = 2
    CALLBACK_SINCE_WORD = 3
    TURN_NUMBER_WORD = 4
    # What a page has at least.
    PAGE_BYTES = 64
    PERIOD_MS = 100
    # How often the words are read again while the loop writes them: it is not blocked then.
    READS = 4

# From the end of the supervisor to the end of this process: a drain may use it.
cdef int64_t ORPHAN_NS = 1_200_000_000


cdef class HealthSampler:
    """The sampler of one process, over a writable health page of at least 64 bytes.

    `heartbeat` may be None. `lifeline_fd` hangs up at the supervisor's end: a pidfd, a pipe or a stream socket; -1: none.
    """

    def __cinit__(self, page, Heartbeat heartbeat, int lifeline_fd):
        self.stop_fd = self.lifeline_fd = -1
        self.heartbeats = []
        self.pid = getpid()
        PyObject_GetBuffer(page, &self.page, PyBUF_WRITABLE)
        if self.page.len < PAGE_BYTES or <uintptr_t>self.page.buf % 8:
            raise ValueError(f"a health page needs {PAGE_BYTES} bytes at a multiple of 8, not {self.page.len}")
        self.words = <int64_t *>self.page.buf
        self.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.stop_fd < 0:
            PyErr_SetFromErrno(OSError)
        if lifeline_fd >= 0:
            self.lifeline_fd = os.dup(lifeline_fd)
            self.lifeline_events = hangup_events(lifeline_fd)
        self.follow(heartbeat)

    def __dealloc__(self):
        cdef FollowedWords *earlier
        while self.newest is not NULL:
            earlier = self.newest.earlier
            PyMem_Free(self.newest)
            self.newest = earlier
        if self.stop_fd >= 0:
            close(self.stop_fd)
        if self.lifeline_fd >= 0:
            close(self.lifeline_fd)
        PyBuffer_Release(&self.page)

    def follow(self, Heartbeat heartbeat):
        """Copy the words of this heartbeat from now on; of none for None, as where a loop is not native."""
        cdef FollowedWords *words
        if heartbeat is None:
            store_followed(&self.followed, NULL)
            return
        self.heartbeats.append(heartbeat)
        words = <FollowedWords *>PyMem_Malloc(sizeof(FollowedWords))
        if words is NULL:
            raise MemoryError
        words.turn_since_ns, words.callback_since_ns = &heartbeat.turn_since_ns, &heartbeat.callback_since_ns
        words.turn_number, words.callbacks_done = &heartbeat.turn_number, &heartbeat.callbacks_done
        words.earlier, self.newest = self.newest, words
        store_followed(&self.followed, words)

    def stop(self):
        """Have `run` return, now and later. The caller then joins the thread."""
        if getpid() == self.pid:
            eventfd_write(self.stop_fd, 1)

    def run(self):
        """Sample until `stop`, without the GIL. RuntimeError while another thread does so."""
        cdef object own = self
        if getpid() != self.pid:
            return
        if self.running:
            raise RuntimeError("the sampler runs already in another thread")
        self.running = True
        with nogil:
            self.sample()
        self.running = False

    cdef void sample(self) noexcept nogil:
        """Copy the words at each period, until `stop` or the end of this process."""
        cdef pollfd[2] polled
        cdef const FollowedWords *words = NULL
        cdef const FollowedWords *now
        cdef int64_t orphan_since_ns = 0
        polled[0].fd, polled[0].events = self.stop_fd, POLLIN
        polled[1].fd, polled[1].events = self.lifeline_fd, self.lifeline_events
        while True:
            now = load_followed(&self.followed)
            if now is not NULL:
                copy_words(now, self.words)
            elif words is not NULL:
                clear_words(self.words)
            words = now
            store(self.words + WRITTEN_WORD, now_ns())
            if orphan_since_ns and now_ns() - orphan_since_ns >= ORPHAN_NS:
                kill(getpid(), SIGKILL)
            polled[0].revents = polled[1].revents = 0
            poll(polled, 2, PERIOD_MS)
            if polled[0].revents:
                return
            if polled[1].revents:
                # known for good: poll() ignores it from here on
                polled[1].fd, orphan_since_ns = -1, now_ns()


cdef short hangup_events(int fd) except -1:
    """Return the events of poll() that mean the end of the lifeline, besides its hang-up: a pidfd has POLLIN alone."""
    mode = os.fstat(fd).st_mode
    return 0 if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else POLLIN


cdef void copy_words(const FollowedWords *words, int64_t *page) noexcept nogil:
    """Copy a turn's words to the page. A loop that writes them at each look makes progress: then no turn is shown."""
    cdef int reads
    cdef uint64_t turn_number, callbacks_done
    cdef int64_t turn_since_ns, callback_since_ns
    for reads in range(READS):
        turn_number = load_count(words.turn_number)
        turn_since_ns = load_time(words.turn_since_ns)
        callbacks_done = load_count(words.callbacks_done)
        callback_since_ns = load_time(words.callback_since_ns)
        if (
            turn_number == load_count(words.turn_number)
            and turn_since_ns == load_time(words.turn_since_ns)
            and callbacks_done == load_count(words.callbacks_done)
        ):
            break
    else:
        turn_since_ns = callback_since_ns = 0
    store(page + TURN_NUMBER_WORD, <int64_t>turn_number)
    store(page + TURN_SINCE_WORD, turn_since_ns)
    store(page + CALLBACK_SINCE_WORD, callback_since_ns)


cdef void clear_words(int64_t *page) noexcept nogil:
    """Show that no turn runs: the heartbeat is followed no more."""
    store(page + TURN_SINCE_WORD, 0)
    store(page + CALLBACK_SINCE_WORD, 0)
