"""The audit hook: it records which blocking call a loop's thread began last, by the interpreter's audit events.

A hook cannot be removed, so there is one, native, from its first use on. In a thread that runs no loop that wants names
it reads one thread-local word. It never reads the arguments of an event.
"""

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include <string.h>
    #include <time.h>

    static __thread struct penstock_audited *penstock_followed = NULL;

    static const char *const penstock_events[] = {
        "open", "time.sleep", "socket.connect",
        "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo",
        "subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "os.forkpty",
        "os.listdir", "os.scandir", "fcntl.flock", "fcntl.lockf",
        "shutil.copyfile", "shutil.copytree", "shutil.rmtree", "shutil.move", "shutil.make_archive",
        "sqlite3.connect", "urllib.Request", "http.client.connect", "ftplib.connect", "smtplib.connect",
        "imaplib.open", "poplib.connect", "telnetlib.Telnet.open", "nntplib.connect",
    };
    #define PENSTOCK_EVENTS ((int)(sizeof penstock_events / sizeof penstock_events[0]))

    static int64_t penstock_now(void)
    {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }

    static int penstock_event(const char *name)
    {
        int i;
        for (i = 0; i < PENSTOCK_EVENTS; i++)
            if (name[0] == penstock_events[i][0] && strcmp(name, penstock_events[i]) == 0)
                return i;
        return -1;
    }

    static int penstock_hook(const char *name, PyObject *arguments, void *unused)
    {
        struct penstock_audited *audited = penstock_followed;
        int64_t since_ns, at_ns;
        int event;
        if (audited == NULL || (since_ns = *audited->callback_since_ns) == 0 || (event = penstock_event(name)) < 0)
            return 0;
        at_ns = penstock_now();
        if (event != audited->event || audited->newest_ns < since_ns) {
            audited->count = 0;
            audited->first_ns = at_ns;
        }
        audited->event = event;
        audited->count += 1;
        audited->newest_ns = at_ns;
        return 0;
    }

    static void penstock_follow(struct penstock_audited *audited)
    {
        penstock_followed = audited;
    }
    """
    const char *const *events "penstock_events"
    int EVENT_COUNT "PENSTOCK_EVENTS"
    void follow "penstock_follow"(Audited *audited) noexcept
    int add_hook "PySys_AddAuditHook"(void *hook, void *data) except -1
    void *HOOK "(void *)penstock_hook"

cdef bint is_installed = False

EVENTS = tuple([(<bytes>events[index]).decode() for index in range(EVENT_COUNT)])


cdef void follow_calls(Audited *audited) noexcept:
    follow(audited)


cdef int install_hook() except -1:
    global is_installed
    if not is_installed:
        add_hook(HOOK, NULL)
        is_installed = True
    return 0


cdef object event_name(int event):
    return EVENTS[event] if event >= 0 else None
