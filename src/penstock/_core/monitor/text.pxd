# Text that grows, and JSON in it, without the GIL. A text that finds no memory is marked, and keeps what it has.
from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset, strlen


cdef struct Text:
    # `size_bytes` of `room_bytes` are used. Its owner calls `release`.
    char *at
    size_t size_bytes, room_bytes
    bint is_cut


cdef inline bint reserve(Text *text, size_t more_bytes) noexcept nogil:
    """Make room for so many bytes and a zero at the end. Return False without memory."""
    cdef size_t room_bytes = text.room_bytes if text.room_bytes else 1024
    cdef char *wider
    while room_bytes < text.size_bytes + more_bytes + 1:
        room_bytes *= 2
    if room_bytes == text.room_bytes:
        return True
    wider = <char *>realloc(text.at, room_bytes)
    if wider is NULL:
        text.is_cut = True
        return False
    text.at, text.room_bytes = wider, room_bytes
    return True


cdef inline void release(Text *text) noexcept nogil:
    """Free the memory. The text is empty afterwards."""
    free(text.at)
    memset(text, 0, sizeof(Text))


cdef inline void put_bytes(Text *text, const char *piece, size_t size_bytes) noexcept nogil:
    """Append bytes."""
    if text.is_cut or not reserve(text, size_bytes):
        return
    memcpy(text.at + text.size_bytes, piece, size_bytes)
    text.size_bytes += size_bytes
    text.at[text.size_bytes] = 0


cdef inline void put(Text *text, const char *piece) noexcept nogil:
    """Append a text that ends with a zero."""
    put_bytes(text, piece, strlen(piece))


cdef inline void put_count(Text *text, int64_t number) noexcept nogil:
    """Append a whole number."""
    cdef char[32] piece
    snprintf(piece, sizeof(piece), b"%lld", <long long>number)
    put(text, piece)


cdef inline void put_seconds(Text *text, int64_t ns) noexcept nogil:
    """Append nanoseconds as seconds; `null` for a time that is not known, -1."""
    cdef char[48] piece
    if ns < 0:
        put(text, b"null")
        return
    snprintf(piece, sizeof(piece), b"%lld.%09lld", <long long>(ns // 1_000_000_000), <long long>(ns % 1_000_000_000))
    put(text, piece)


cdef inline void put_quoted(Text *text, const char *piece, size_t size_bytes) noexcept nogil:
    """Append a JSON string. Bytes beyond ASCII become question marks."""
    cdef char[8] escaped
    cdef size_t at
    cdef unsigned char byte
    put(text, b'"')
    for at in range(size_bytes):
        byte = <unsigned char>piece[at]
        if byte == b'"' or byte == b"\\":
            escaped[0], escaped[1] = b"\\", byte
            put_bytes(text, escaped, 2)
        elif byte < 32 or byte == 127:
            snprintf(escaped, sizeof(escaped), b"\\u%04x", <int>byte)
            put_bytes(text, escaped, 6)
        elif byte < 128:
            put_bytes(text, <const char *>&byte, 1)
        else:
            put(text, b"?")
    put(text, b'"')
