# Several datagrams for each system call, and the kernel's own splitting and joining of them (Linux 4.18 and 5.0).
cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <netinet/in.h>
    #include <netinet/udp.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/socket.h>

    /* glibc 2.28 and older do not name them. */
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103
    #endif
    #ifndef UDP_GRO
    #define UDP_GRO 104
    #endif

    #define penstock_control_bytes CMSG_SPACE(sizeof(int))

    /* The size of the datagrams that the kernel has joined into one; 0: it has joined none. */
    static int penstock_joined_bytes(struct msghdr *message)
    {
        int size = 0;
        for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part))
            if (part->cmsg_level == IPPROTO_UDP && part->cmsg_type == UDP_GRO)
                memcpy(&size, CMSG_DATA(part), sizeof size);
        return size;
    }

    /* Memory that takes up nothing before it is written to; NULL if there is none. */
    static char *penstock_map(size_t size)
    {
        void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return memory == MAP_FAILED ? NULL : memory;
    }

    /* The number of datagrams, or minus the error's number. */
    static int penstock_receive_many(int fd, struct mmsghdr *messages, unsigned int count)
    {
        int got;
        do
            got = recvmmsg(fd, messages, count, MSG_DONTWAIT, NULL);
        while (got < 0 && errno == EINTR);
        return got < 0 ? -errno : got;
    }

    static int penstock_send_many(int fd, struct mmsghdr *messages, unsigned int count)
    {
        int sent;
        do
            sent = sendmmsg(fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (sent < 0 && errno == EINTR);
        return sent < 0 ? -errno : sent;
    }

    /* `name` NULL: to the peer that the socket is connected to. 0, or minus the error's number. */
    static int penstock_send_one(int fd, const void *data, size_t size, const void *name, socklen_t name_size)
    {
        ssize_t sent;
        do
            sent = sendto(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL, name, name_size);
        while (sent < 0 && errno == EINTR);
        return sent < 0 ? -errno : 0;
    }
    """
    enum:
        UDP_SEGMENT
        UDP_GRO
        CONTROL_BYTES "penstock_control_bytes"

    struct datagram_header "msghdr":
        void *msg_name
        unsigned int msg_namelen
        void *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags

    struct mmsghdr:
        datagram_header msg_hdr
        unsigned int msg_len

    int audit_sendto "PySys_Audit"(const char *event, const char *format, ...) except -1
    unsigned long thread_ident "PyThread_get_thread_ident"() noexcept

    int joined_bytes "penstock_joined_bytes"(datagram_header *message) noexcept
    char *map_memory "penstock_map"(size_t size_bytes) noexcept
    int munmap(void *memory, size_t size_bytes) noexcept
    int receive_many "penstock_receive_many"(int fd, mmsghdr *messages, unsigned int count) noexcept
    int send_many "penstock_send_many"(int fd, mmsghdr *messages, unsigned int count) noexcept
    int send_one "penstock_send_one"(int fd, const void *data, size_t size, const void *name, unsigned int name_size) noexcept
