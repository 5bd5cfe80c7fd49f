# OpenSSL's functions, by pointers into the library that `_ssl` itself calls. Its headers are needed nowhere.
from libc.stddef cimport size_t

ctypedef void SSL
ctypedef void BIO
ctypedef void BioMethod

ctypedef int (*BioWrite)(BIO *bio, const char *data, size_t size_bytes, size_t *written) noexcept nogil
ctypedef int (*BioRead)(BIO *bio, char *into, size_t most_bytes, size_t *got) noexcept nogil
ctypedef long (*BioCtrl)(BIO *bio, int command, long number, void *argument) noexcept nogil
ctypedef int (*BioDestroy)(BIO *bio) noexcept nogil
ctypedef void (*NewExData)(void *parent, void *value, void *data, int index, long number, void *argument) noexcept nogil

cdef enum:
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_ZERO_RETURN = 6
    SSL_RECEIVED_SHUTDOWN = 2

    BIO_FLAGS_READ = 0x01
    BIO_FLAGS_RWS = 0x07
    BIO_FLAGS_SHOULD_RETRY = 0x08
    BIO_TYPE_MEM = 0x401
    BIO_TYPE_SOURCE_SINK = 0x400
    BIO_CTRL_EOF = 2
    BIO_CTRL_PENDING = 10
    BIO_CTRL_FLUSH = 11

    CRYPTO_EX_INDEX_SSL = 0


cdef struct LibSsl:
    int (*SSL_read_ex)(SSL *ssl, void *into, size_t most_bytes, size_t *got) noexcept nogil
    int (*SSL_write_ex)(SSL *ssl, const void *data, size_t size_bytes, size_t *written) noexcept nogil
    int (*SSL_do_handshake)(SSL *ssl) noexcept nogil
    int (*SSL_shutdown)(SSL *ssl) noexcept nogil
    int (*SSL_get_shutdown)(const SSL *ssl) noexcept nogil
    int (*SSL_get_error)(const SSL *ssl, int result) noexcept nogil
    int (*SSL_pending)(const SSL *ssl) noexcept nogil
    int (*SSL_in_init)(const SSL *ssl) noexcept nogil
    int (*SSL_key_update)(SSL *ssl, int kind) noexcept nogil
    BIO *(*SSL_get_rbio)(const SSL *ssl) noexcept nogil
    BIO *(*SSL_get_wbio)(const SSL *ssl) noexcept nogil
    void (*SSL_set0_rbio)(SSL *ssl, BIO *bio) noexcept nogil
    void (*SSL_set0_wbio)(SSL *ssl, BIO *bio) noexcept nogil
    void *(*SSL_get_ex_data)(const SSL *ssl, int index) noexcept nogil
    const char *(*SSL_get_version)(const SSL *ssl) noexcept nogil
    const void *(*SSL_get_current_cipher)(const SSL *ssl) noexcept nogil
    const char *(*SSL_CIPHER_get_name)(const void *cipher) noexcept nogil
    const void *(*SSL_get_ssl_method)(const SSL *ssl) noexcept nogil
    const void *(*TLS_client_method)() noexcept nogil
    void (*SSL_set_msg_callback)(SSL *ssl, void *callback) noexcept nogil

    BIO *(*BIO_new)(const BioMethod *method) noexcept nogil
    int (*BIO_up_ref)(BIO *bio) noexcept nogil
    int (*BIO_free)(BIO *bio) noexcept nogil
    int (*BIO_read)(BIO *bio, void *into, int most_bytes) noexcept nogil
    long (*BIO_ctrl)(BIO *bio, int command, long number, void *argument) noexcept nogil
    int (*BIO_method_type)(const BIO *bio) noexcept nogil
    void *(*BIO_get_data)(BIO *bio) noexcept nogil
    void (*BIO_set_data)(BIO *bio, void *data) noexcept nogil
    void (*BIO_set_init)(BIO *bio, int is_ready) noexcept nogil
    void (*BIO_set_flags)(BIO *bio, int flags) noexcept nogil
    void (*BIO_clear_flags)(BIO *bio, int flags) noexcept nogil
    int (*BIO_get_new_index)() noexcept nogil
    BioMethod *(*BIO_meth_new)(int kind, const char *name) noexcept nogil
    int (*BIO_meth_set_write_ex)(BioMethod *method, BioWrite write) noexcept nogil
    int (*BIO_meth_set_read_ex)(BioMethod *method, BioRead read) noexcept nogil
    int (*BIO_meth_set_ctrl)(BioMethod *method, BioCtrl ctrl) noexcept nogil
    int (*BIO_meth_set_destroy)(BioMethod *method, BioDestroy destroy) noexcept nogil

    void (*ERR_clear_error)() noexcept nogil
    unsigned long (*ERR_peek_error)() noexcept nogil
    int (*CRYPTO_get_ex_new_index)(
        int kind, long number, void *argument, NewExData new, void *duplicate, void *free
    ) noexcept nogil
    int (*CRYPTO_free_ex_index)(int kind, int index) noexcept nogil

cdef LibSsl libssl

cdef bint load(object path) except -1
