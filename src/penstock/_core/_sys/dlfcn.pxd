# The libraries of the process, and the symbols in them.
cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <dlfcn.h>
    """
    enum:
        RTLD_LAZY
        RTLD_NOLOAD

    void *dlopen(const char *path, int flags) noexcept
    void *dlsym(void *handle, const char *name) noexcept
    int dlclose(void *handle) noexcept
