"""The `SSL *` of an `_ssl._SSLSocket`: where it lies, found once per process by looking.

The struct is private to `_ssl`, so nothing is assumed. OpenSSL itself reports the address of each `SSL` that it makes,
to a function that is registered for it. The offset counts only if it is the one place in two objects of ours at which
that address lies, and if `SSL` and functions belong to one and the same libssl. No pointer is followed before.
"""

import os

try:
    import _ssl
except ImportError:
    _ssl = None

from cpython.object cimport PyObject
from libc.string cimport memcpy

from penstock._core.tls.bio cimport make_method
from penstock._core.tls.libssl cimport BIO_TYPE_MEM, CRYPTO_EX_INDEX_SSL, SSL, libssl, load


cdef extern from "Python.h":
    unsigned long current_thread "PyThread_get_thread_ident"() noexcept nogil


cdef enum:
    # The reason within a code of OpenSSL's queue, in each of its versions; and the reason of a write after a shutdown.
    REASON_MASK = 0xFFF
    PROTOCOL_IS_SHUTDOWN = 207


cdef struct Made:
    # The `SSL` that this thread made last.
    unsigned long thread
    SSL *ssl

# Static, since another thread may be on its way into `note_made` when the search is over.
cdef Made made
cdef Py_ssize_t offset
cdef object kind, failing
cdef str reason = None

VARIABLE = "PENSTOCK_TLS_ENGINE"
# In the variable's place, if it is not empty.
cdef str chosen = ""


cdef void note_made(void *parent, void *value, void *data, int index, long number, void *argument) noexcept nogil:
    if made.thread == current_thread():
        made.ssl = <SSL *>parent


def engine():
    """Return the engine of connections made from now on: "openssl" or "memory"."""
    if reason is None:
        look()
    return "memory" if reason else "openssl"


def why_memory():
    """Return why MemoryBIOs are used; an empty string if they are not."""
    engine()
    return reason


def choose(name):
    """Choose the engine of new connections, as the variable does; an empty name leaves the choice to the variable."""
    global reason, chosen
    reason, chosen = None, name


cdef int look() except -1:
    """Find all that is needed, and keep the reason if anything is missing."""
    global reason
    if (chosen or os.environ.get(VARIABLE, "").strip().lower()) == "memory":
        reason = f"{VARIABLE} is memory"
    elif offset:
        reason = ""
    elif _ssl is None or not load(getattr(_ssl, "__file__", None)):
        reason = "OpenSSL's functions are not found in this process"
    elif not make_method():
        reason = "OpenSSL makes no BIO method"
    else:
        reason = "" if find() else "the struct of _ssl._SSLSocket is not known"
    return 0


cdef bint find() except -1:
    """Find the offset on two connections that never start. Return False if it is not certain."""
    global offset, kind, failing
    cdef int index = libssl.CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL, 0, NULL, note_made, NULL, NULL)
    if index < 0:
        return False
    try:
        context = _ssl._SSLContext(_ssl.PROTOCOL_TLS_CLIENT)
        first, first_offset = sample(context)
        second, second_offset = sample(context)
    finally:
        libssl.CRYPTO_free_ex_index(CRYPTO_EX_INDEX_SSL, index)
    if first_offset == 0 or first_offset != second_offset:
        return False
    failing = failed_handshake(context)
    offset, kind = first_offset, type(first)
    return True


cdef tuple sample(object context):
    """Make a connection. Return it, and the offset of its `SSL *`; 0 if there is not exactly one."""
    made.thread, made.ssl = current_thread(), NULL
    sslobj = context._wrap_bio(_ssl.MemoryBIO(), _ssl.MemoryBIO(), False, "localhost")
    made.thread = 0
    if made.ssl is NULL or libssl.SSL_get_ssl_method(made.ssl) is not libssl.TLS_client_method():
        return sslobj, 0
    if libssl.SSL_get_ex_data(made.ssl, 0) is not <void *><PyObject *>sslobj:
        return sslobj, 0
    return sslobj, offset_of(sslobj, made.ssl)


cdef Py_ssize_t offset_of(object sslobj, SSL *ssl) except -1:
    """Return the one offset at which the object holds the pointer, 0 if there is none or more than one."""
    cdef Py_ssize_t at, found = 0
    for at in range(sizeof(PyObject), type(sslobj).__basicsize__ - <Py_ssize_t>sizeof(void *) + 1, sizeof(void *)):
        if word_at(sslobj, at) is ssl:
            if found:
                return 0
            found = at
    return found


cdef void *word_at(object sslobj, Py_ssize_t at) noexcept:
    cdef void *word
    memcpy(&word, <char *><PyObject *>sslobj + at, sizeof(word))
    return word


cdef SSL *ssl_of(object sslobj) except? NULL:
    """Return the `SSL *` of a connection in memory whose handshake is done; NULL if it does not verify."""
    cdef SSL *ssl
    if engine() != "openssl" or type(sslobj) is not kind:
        return NULL
    ssl = <SSL *>word_at(sslobj, offset)
    if ssl is NULL or libssl.SSL_get_ex_data(ssl, 0) is not <void *><PyObject *>sslobj:
        return NULL
    if not is_agreed(ssl, sslobj.version(), sslobj.cipher()):
        return NULL
    return ssl if is_in_memory(ssl) else NULL


cdef bint is_agreed(SSL *ssl, object version, object cipher) except -1:
    """Return whether OpenSSL gives the same version and cipher as the object; False before the handshake."""
    cdef const void *current = libssl.SSL_get_current_cipher(ssl)
    if version is None or cipher is None or current is NULL or libssl.SSL_in_init(ssl):
        return False
    return libssl.SSL_get_version(ssl) == version.encode() and libssl.SSL_CIPHER_get_name(current) == cipher[0].encode()


cdef bint is_in_memory(SSL *ssl) noexcept:
    return (
        libssl.SSL_get_rbio(ssl) is not NULL
        and libssl.SSL_get_wbio(ssl) is not NULL
        and libssl.BIO_method_type(libssl.SSL_get_rbio(ssl)) == BIO_TYPE_MEM
        and libssl.BIO_method_type(libssl.SSL_get_wbio(ssl)) == BIO_TYPE_MEM
    )


cdef bint is_quiet(object context) except -1:
    """Return whether OpenSSL calls no Python code of the context's while it reads and writes."""
    return _ssl._SSLContext._msg_callback.__get__(context) is None and context.keylog_filename is None


# --- exceptions ---


cdef object failed_handshake(object context):
    """Make a connection that has failed: each call of its `do_handshake` raises what is in OpenSSL's queue."""
    incoming = _ssl.MemoryBIO()
    sslobj = context._wrap_bio(incoming, _ssl.MemoryBIO(), False, "localhost")
    incoming.write(b"no record of TLS\r\n" * 2)
    # Twice: OpenSSL 3.6 queues one more error in the first call after the failure.
    for _ in range(2):
        try:
            sslobj.do_handshake()
        except _ssl.SSLError:
            continue
        raise RuntimeError("a handshake with no peer succeeded")
    return sslobj


cdef object raised_by_ssl(object sslobj, str method, bint is_in_error):
    """Return the exception that `_ssl` makes of the error in OpenSSL's queue, which is the current thread's.

    A connection in OpenSSL's state of error fails at once, before the queue is cleared, and takes and writes nothing.
    The method is that of the failed call: results differ, and so does the exception where the queue is empty. A second
    shutdown would queue another error. A write that came too late puts the connection in no such state.
    """
    cdef unsigned long queued = libssl.ERR_peek_error()
    cdef bint is_told = queued != 0 and (method == "shutdown" or queued & REASON_MASK == PROTOCOL_IS_SHUTDOWN)
    try:
        if is_in_error and not is_told:
            call(sslobj, method)
        failing.do_handshake()
    except BaseException as error:
        return error
    return _ssl.SSLError("unknown error")


cdef int call(object sslobj, str method) except -1:
    if method == "read":
        sslobj.read(1)
    elif method == "shutdown":
        sslobj.shutdown()
    else:
        sslobj.do_handshake()
    return 0
