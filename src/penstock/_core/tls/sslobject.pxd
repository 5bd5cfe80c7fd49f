# The `SSL *` of an `_ssl._SSLSocket`: where it lies, found once per process by looking.
from penstock._core.tls.libssl cimport SSL

cdef SSL *ssl_of(object sslobj) except? NULL
cdef bint is_quiet(object context) except -1
cdef object raised_by_ssl(object sslobj, str method, bint is_in_error)
