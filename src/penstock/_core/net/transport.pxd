from penstock._core._sys.python cimport flag
from penstock._core.net.address cimport ShortName
from penstock._core.net.clients cimport Clients, ServedSource
from penstock._core.net.io_context cimport IOContext


cdef class Transport(ServedSource):
    cdef IOContext io
    cdef object loop, protocol, server
    # The context to call the protocol in (3.15), None: a copy of the caller's for each callback, as before.
    cdef object given_context
    # The Python socket: given, or made when first asked for. From then on it, not we, closes the descriptor.
    cdef object sock
    # What the program may ask for; None: nothing yet but the names. Names of a short form are not in it until then.
    cdef dict extra
    cdef ShortName local, peer
    # is_unnamed: the local name has not been asked for. is_shared: a program may have the socket, and duplicates of it.
    cdef flag is_unnamed, is_shared
    cdef object __weakref__
    # lingers: what its peer still sends is taken when it is closed, so that it reads what it was sent.
    cdef flag is_open, closing, protocol_connected, lingers
    # The forks of this process that it has seen: a later one has duplicated the descriptor.
    cdef unsigned int forks_seen
    # Counts from the moment that connection_lost is scheduled, as asyncio's: later writes add to it.
    cdef int conn_lost

    cdef int open(self, object loop, IOContext io, object sock, int fd, object extra, object context, bint is_shared) except -1
    cdef int serve(self, object server, Clients clients) except -1
    cdef int end_service(self) except -1
    cdef int stop_io(self) except -1
    cdef int soon(self, object callback, object argument) except -1
    cdef int lose(self, object exc) except -1
    cdef int lost(self, object exc) except -1
    cdef int fatal_error(self, object exc, str message) except -1
    cdef int release(self) except -1
    cdef int give_back(self) except -1
    cdef int note_names(self, extra) except -1
    cdef int ask_name(self) except -1
    cdef int spell_names(self) except -1
    cdef dict details(self)
    cdef object python_socket(self)
