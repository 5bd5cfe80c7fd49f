"""OpenSSL's functions, found in the process.

They are looked up in what `_ssl` was linked with, never in another libssl that some package has brought along. Where
`_ssl` has OpenSSL inside itself, without symbols, there is none to find. The build needs no header of OpenSSL, and no
extension is linked with it.
"""

import os

from penstock._core._sys.dlfcn cimport RTLD_LAZY, RTLD_NOLOAD, dlopen, dlsym


cdef bint find(void *handle, const char *name, void **slot) noexcept:
    slot[0] = dlsym(handle, name)
    return slot[0] is not NULL


cdef bint find_ssl(void *handle) noexcept:
    return (
        find(handle, "SSL_read_ex", <void **>&libssl.SSL_read_ex)
        and find(handle, "SSL_write_ex", <void **>&libssl.SSL_write_ex)
        and find(handle, "SSL_do_handshake", <void **>&libssl.SSL_do_handshake)
        and find(handle, "SSL_shutdown", <void **>&libssl.SSL_shutdown)
        and find(handle, "SSL_get_shutdown", <void **>&libssl.SSL_get_shutdown)
        and find(handle, "SSL_get_error", <void **>&libssl.SSL_get_error)
        and find(handle, "SSL_pending", <void **>&libssl.SSL_pending)
        and find(handle, "SSL_in_init", <void **>&libssl.SSL_in_init)
        and find(handle, "SSL_key_update", <void **>&libssl.SSL_key_update)
        and find(handle, "SSL_get_rbio", <void **>&libssl.SSL_get_rbio)
        and find(handle, "SSL_get_wbio", <void **>&libssl.SSL_get_wbio)
        and find(handle, "SSL_set0_rbio", <void **>&libssl.SSL_set0_rbio)
        and find(handle, "SSL_set0_wbio", <void **>&libssl.SSL_set0_wbio)
        and find(handle, "SSL_get_ex_data", <void **>&libssl.SSL_get_ex_data)
        and find(handle, "SSL_get_version", <void **>&libssl.SSL_get_version)
        and find(handle, "SSL_get_current_cipher", <void **>&libssl.SSL_get_current_cipher)
        and find(handle, "SSL_CIPHER_get_name", <void **>&libssl.SSL_CIPHER_get_name)
        and find(handle, "SSL_get_ssl_method", <void **>&libssl.SSL_get_ssl_method)
        and find(handle, "TLS_client_method", <void **>&libssl.TLS_client_method)
        and find(handle, "SSL_set_msg_callback", <void **>&libssl.SSL_set_msg_callback)
    )


cdef bint find_crypto(void *handle) noexcept:
    return (
        find(handle, "BIO_new", <void **>&libssl.BIO_new)
        and find(handle, "BIO_up_ref", <void **>&libssl.BIO_up_ref)
        and find(handle, "BIO_free", <void **>&libssl.BIO_free)
        and find(handle, "BIO_read", <void **>&libssl.BIO_read)
        and find(handle, "BIO_ctrl", <void **>&libssl.BIO_ctrl)
        and find(handle, "BIO_method_type", <void **>&libssl.BIO_method_type)
        and find(handle, "BIO_get_data", <void **>&libssl.BIO_get_data)
        and find(handle, "BIO_set_data", <void **>&libssl.BIO_set_data)
        and find(handle, "BIO_set_init", <void **>&libssl.BIO_set_init)
        and find(handle, "BIO_set_flags", <void **>&libssl.BIO_set_flags)
        and find(handle, "BIO_clear_flags", <void **>&libssl.BIO_clear_flags)
        and find(handle, "BIO_get_new_index", <void **>&libssl.BIO_get_new_index)
        and find(handle, "BIO_meth_new", <void **>&libssl.BIO_meth_new)
        and find(handle, "BIO_meth_set_write_ex", <void **>&libssl.BIO_meth_set_write_ex)
        and find(handle, "BIO_meth_set_read_ex", <void **>&libssl.BIO_meth_set_read_ex)
        and find(handle, "BIO_meth_set_ctrl", <void **>&libssl.BIO_meth_set_ctrl)
        and find(handle, "BIO_meth_set_destroy", <void **>&libssl.BIO_meth_set_destroy)
        and find(handle, "ERR_clear_error", <void **>&libssl.ERR_clear_error)
        and find(handle, "ERR_peek_error", <void **>&libssl.ERR_peek_error)
        and find(handle, "CRYPTO_get_ex_new_index", <void **>&libssl.CRYPTO_get_ex_new_index)
        and find(handle, "CRYPTO_free_ex_index", <void **>&libssl.CRYPTO_free_ex_index)
    )


cdef bint load(object path) except -1:
    """Fill `libssl` from what the module `_ssl` at this path was linked with; None: it is built into the interpreter.

    The search starts at that library and goes on in what it needs. Return False if anything is missing.
    """
    cdef void *handle
    if path is None:
        handle = dlopen(NULL, RTLD_LAZY)
    else:
        handle = dlopen(os.fsencode(path), RTLD_LAZY | RTLD_NOLOAD)
    # never closed: the functions are in use as long as the process lives
    return handle is not NULL and find_ssl(handle) and find_crypto(handle)
