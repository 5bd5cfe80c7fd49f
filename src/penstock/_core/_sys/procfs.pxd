# What the kernel tells of this process's threads and signals, for a thread that has no GIL.
from libc.stdint cimport int64_t, uint64_t

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <dirent.h>
    #include <fcntl.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/socket.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    typedef struct {
        int number;
        char name[20], state;
        int64_t cpu_ns;
    } penstock_thread;

    /* The first bytes of a file as text; -1 if it cannot be read. */
    static ssize_t penstock_read_text(const char *path, char *text, size_t room)
    {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t count = fd < 0 ? -1 : read(fd, text, room - 1);
        if (fd >= 0)
            close(fd);
        text[count > 0 ? count : 0] = 0;
        return count;
    }

    /* Name, state and CPU time of a thread, by its number. 0: it has ended. */
    static int penstock_read_thread(int number, penstock_thread *found)
    {
        char path[64], text[512], *name, *end;
        unsigned long user = 0, system = 0;
        snprintf(path, sizeof path, "/proc/self/task/%d/stat", number);
        if (penstock_read_text(path, text, sizeof text) <= 0)
            return 0;
        name = strchr(text, '(');
        end = strrchr(text, ')');
        if (name == NULL || end == NULL || end[1] == 0 || end[2] == 0)
            return 0;
        *end = 0;
        found->number = number;
        snprintf(found->name, sizeof found->name, "%s", name + 1);
        found->state = end[2];
        sscanf(end + 3, "%*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
        found->cpu_ns = (int64_t)(user + system) * (1000000000 / sysconf(_SC_CLK_TCK));
        return 1;
    }

    /* At most `most` threads of this process, in the order of the kernel. */
    static int penstock_threads(penstock_thread *found, int most)
    {
        DIR *folder = opendir("/proc/self/task");
        struct dirent *entry;
        int count = 0;
        while (folder != NULL && count < most && (entry = readdir(folder)) != NULL)
            if (entry->d_name[0] != '.')
                count += penstock_read_thread(atoi(entry->d_name), &found[count]);
        if (folder != NULL)
            closedir(folder);
        return count;
    }

    static int64_t penstock_wall_ns(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }

    /* The user number of the program at the other end; -1 if it is not known. */
    static long penstock_peer_user(int fd)
    {
        struct ucred peer;
        socklen_t length = sizeof peer;
        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0 ? -1 : (long)peer.uid;
    }

    /* The address of a signal's handler; NULL for none. */
    static void *penstock_handler_of(int number)
    {
        struct sigaction set;
        return sigaction(number, NULL, &set) < 0 ? NULL : (void *)set.sa_handler;
    }

    static int penstock_signal_thread(int thread, int number)
    {
        return (int)syscall(SYS_tgkill, getpid(), thread, number);
    }

    static void penstock_block_signals(void)
    {
        sigset_t every;
        sigfillset(&every);
        pthread_sigmask(SIG_BLOCK, &every, NULL);
    }

    static int64_t penstock_file_bytes(int fd)
    {
        struct stat found;
        return fstat(fd, &found) < 0 ? -1 : (int64_t)found.st_size;
    }

    /* Whether a descriptor is an eventfd. */
    static int penstock_is_eventfd(int fd)
    {
        char path[64], text[64];
        ssize_t count;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        count = fd < 0 ? -1 : readlink(path, text, sizeof text - 1);
        text[count > 0 ? count : 0] = 0;
        return strcmp(text, "anon_inode:[eventfd]") == 0;
    }

    /* The number of a socket's inode; 0 for any other descriptor. */
    static uint64_t penstock_socket_number(int fd)
    {
        struct stat found;
        return fstat(fd, &found) < 0 || !S_ISSOCK(found.st_mode) ? 0 : (uint64_t)found.st_ino;
    }

    static void penstock_sleep_ns(int64_t ns)
    {
        struct timespec asked = {ns / 1000000000, ns % 1000000000};
        nanosleep(&asked, NULL);
    }
    """
    ctypedef struct ThreadState "penstock_thread":
        int number
        char[20] name
        char state
        int64_t cpu_ns

    int read_threads "penstock_threads"(ThreadState *found, int most) noexcept nogil
    bint read_thread "penstock_read_thread"(int number, ThreadState *found) noexcept nogil
    int64_t wall_ns "penstock_wall_ns"() noexcept nogil
    long peer_user "penstock_peer_user"(int fd) noexcept nogil
    void *handler_of "penstock_handler_of"(int number) noexcept nogil
    int signal_thread "penstock_signal_thread"(int thread, int number) noexcept nogil
    void block_signals "penstock_block_signals"() noexcept nogil
    int64_t file_bytes "penstock_file_bytes"(int fd) noexcept nogil
    bint is_eventfd "penstock_is_eventfd"(int fd) noexcept nogil
    uint64_t socket_number "penstock_socket_number"(int fd) noexcept nogil
    void sleep_ns "penstock_sleep_ns"(int64_t ns) noexcept nogil

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *lock, void *attributes) noexcept
    int pthread_mutex_lock(pthread_mutex_t *lock) noexcept
    int pthread_mutex_unlock(pthread_mutex_t *lock) noexcept
    int pthread_mutex_destroy(pthread_mutex_t *lock) noexcept
