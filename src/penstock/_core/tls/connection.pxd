from penstock._core._sys.python cimport flag
from penstock._core.net.buffers cimport ReadPool, WriteQueue
from penstock._core.net.layer cimport Layer
from penstock._core.net.stream cimport Stream
from penstock._core.tls.engine cimport Engine

cdef enum State:
    # As asyncio.sslproto.SSLProtocolState.
    UNWRAPPED
    DO_HANDSHAKE
    WRAPPED
    FLUSHING
    SHUTDOWN

cdef enum AppState:
    # What the program's protocol knows of the connection.
    INIT
    MADE
    ENDED
    LOST


cdef class TLSConnection(Layer):
    cdef object __weakref__
    cdef object loop, sslcontext, waiter
    # The program's protocol and its transport; None once the connection is lost.
    cdef object app_protocol, app_transport
    # The transport below, None before connection_made and once it is lost; the same if it is a Stream, otherwise None.
    cdef object lower
    cdef Stream stream
    cdef Engine engine
    cdef ReadPool reads
    # Plaintext that is not encrypted yet; None until there is some.
    cdef WriteQueue backlog
    cdef State state
    cdef AppState app_state
    # buffered, feeds: as a Stream's. is_busy: within a call of the engine, which may call the program. is_sending: within
    # a write of the Stream below.
    cdef flag server_side, buffered, feeds, is_busy, is_closed, is_established, eof_read, is_gathering, is_sending, forgets
    cdef flag app_reading_paused, app_writing_paused, lower_reading_paused, lower_writing_paused
    cdef object handshake_timeout_s, shutdown_timeout_s, handshake_timer, shutdown_timer
    cdef double handshake_began_s
    # Fed bytes that have not been decrypted.
    cdef Py_ssize_t waiting_bytes
    # The watermarks (high, low) of the program's writes and of what waits to be read; the former while the budget
    # pauses the program, otherwise None.
    cdef Py_ssize_t high_bytes, low_bytes, read_high_bytes, read_low_bytes
    cdef tuple kept_limits
    cdef dict known
    cdef int conn_lost

    cdef int take_app_protocol(self, object protocol) except -1
    cdef int act(self) except -1
    cdef int start_handshake(self) except -1
    cdef int do_handshake(self) except -1
    cdef int handshake_done(self) except -1
    cdef int handshake_failed(self, object exc) except -1
    cdef int wake_waiter(self, object exc) except -1
    cdef int cancel_timers(self) except -1
    cdef int forget(self) except -1
    cdef int do_read(self) except -1
    cdef bint can_deliver(self) noexcept
    cdef int read_plain(self) except -1
    cdef bint read_copied(self) except -1
    cdef int read_lent(self) except -1
    cdef Py_ssize_t decrypt(self, char *into, Py_ssize_t most_bytes, bint *ended) except -1
    cdef int deliver(self, object data) except -1
    cdef int peer_closed(self) except -1
    cdef int call_eof_received(self) except -1
    cdef int control_lower_reading(self) except -1
    cdef int write_plain(self, object data, const char *start, Py_ssize_t size_bytes) except -1
    cdef int take_write(self, object data, const char *start, Py_ssize_t size_bytes) except -1
    cdef int queue_plain(self, object data, const char *start, Py_ssize_t size_bytes, Py_ssize_t done_bytes) except -1
    cdef Py_ssize_t write_large(self, const char *start, Py_ssize_t size_bytes) except -1
    cdef bint is_writable(self) except -1
    cdef bint can_gather(self) noexcept
    cdef Py_ssize_t backlog_bytes(self) noexcept
    cdef int flush_backlog(self) except -1
    cdef int do_write(self, bint whole) except -1
    cdef Py_ssize_t write_piece(self) except -2
    cdef Py_ssize_t encrypt(self, const char *start, Py_ssize_t size_bytes) except -2
    cdef int send_output(self) except -1
    cdef int pass_down(self, const char *start, Py_ssize_t size_bytes) except -1
    cdef int pass_object_down(self, const char *start, Py_ssize_t size_bytes) except -1
    cdef int count_move(self, Py_ssize_t size_bytes) except -1
    cdef int control_app_writing(self) except -1
    cdef int count_backlog(self) except -1
    cdef int call_app(self, str method) except -1
    cdef int set_write_limits(self, object high, object low) except -1
    cdef int set_read_limits(self, object high, object low) except -1
    cdef int start_shutdown(self) except -1
    cdef int do_flush(self) except -1
    cdef int do_shutdown(self) except -1
    cdef int abort(self, object exc) except -1
    cdef int fatal_error(self, object exc, str message) except -1
    cdef int pause_app_reading(self) except -1
    cdef int resume_app_reading(self) except -1
    cdef object extra_info(self, object name, object default)
