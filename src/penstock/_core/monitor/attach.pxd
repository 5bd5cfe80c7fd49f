from libc.stdint cimport int64_t, uint64_t

from penstock._core._sys.procfs cimport pthread_mutex_t
from penstock._core.monitor.partial cimport FollowedLoop, StackSignal
from penstock._core.monitor.text cimport Text

cdef enum ClientState:
    FREE
    # it may send a line; its line waits for Python; Python works on it; Python answers later; its answer is sent
    READING
    ASKED
    TAKEN
    HELD
    SENDING

cdef enum:
    MOST_CLIENTS = 32


cdef struct Client:
    int fd
    ClientState state
    # The number of its present request.
    uint64_t number
    Text received, unsent
    # The length of the line that is answered, without its end.
    size_t line_bytes, sent_bytes
    # When the client is dropped, unless it does something before; when its line was complete.
    int64_t until_ns, asked_ns
    # How long Python may take to begin with the answer.
    int64_t patience_ns
    bint is_last


cdef class AttachServer:
    cdef Client[MOST_CLIENTS] clients
    # The socket of the listener belongs to `listener`; the two eventfds are its own.
    cdef object listener
    cdef int listener_fd, wake_fd, ask_fd
    # The number of the listener's inode.
    cdef uint64_t listener_number
    # Held for a moment by either side; never while waiting for anything.
    cdef pthread_mutex_t lock
    cdef bint has_lock, stopping, serving, is_native
    # When Python last had the GIL and worked on an answer.
    cdef int64_t tick_ns, accept_from_ns
    cdef uint64_t last_number
    cdef FollowedLoop *loops
    # Each followed heartbeat, with the address of its entry.
    cdef dict followed
    cdef StackSignal stacks
    cdef int pid
    cdef readonly uint64_t accepted, refused, partial

    cdef bint is_intact(self) noexcept nogil
    cdef void wake(self, int fd) noexcept nogil
    cdef void turn(self) noexcept nogil
    cdef int watch(self, void *polled) noexcept nogil
    cdef bint accept(self, int64_t at_ns) noexcept nogil
    cdef void receive(self, Client *client, int64_t at_ns) noexcept nogil
    cdef void look_for_line(self, Client *client, int64_t at_ns) noexcept nogil
    cdef void send(self, Client *client, int64_t at_ns) noexcept nogil
    cdef void drop(self, Client *client) noexcept nogil
    cdef void drop_late(self, int64_t at_ns) noexcept nogil
    cdef bint is_starved(self) noexcept nogil
    cdef void answer_partially(self) noexcept nogil
    cdef bytes take_line(self, uint64_t *number)
    cdef Client *asked_by(self, uint64_t number) noexcept nogil
    cdef int64_t next_ns(self, Client *client) noexcept nogil
