/* Load: N connections, each sends a message, waits for the whole reply, sends the next. One thread, one epoll.
 *
 *   client PORT PID WARMUP_MS WINDOW_MS [key=value ...]
 *
 *   connections=N   bytes=N       of the message; the reply is as long, but for HTTP
 *   burst=N                       messages that are sent before their replies are awaited
 *   mode=echo                     one connection sends all of its messages
 *   mode=connect, mode=resume     each message has a connection of its own; resume: with the TLS session of the first
 *   mode=udp                      connected datagram sockets; all are started again after 100 ms without a reply
 *   mode=http path=/              the message is a GET; the first reply shows how long each reply is
 *   idle=N idle_first=M           N further connections that have exchanged one byte: a line "idle" on stdout after
 *                                 the first M and after all of them, each time waiting for a line on stdin
 *
 * Built with -DTLS, it speaks TLS; connections that stay have shaken hands before the load begins. PID's CPU clock is
 * read at the ends of the window, so that start-up, accept and teardown are not in it. The result is a line:
 * requests wall_ns server_cpu_ns p50_ns p99_ns
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

enum { BUFFER_BYTES = 256 * 1024, SAMPLES_MAX = 1 << 22, SILENCE_S = 10 };
enum mode { ECHO, CONNECT, RESUME, UDP, HTTP };
static const char *const MODES[] = {"echo", "connect", "resume", "udp", "http"};

struct connection {
    int fd;
    size_t sent, got;
    uint64_t started_ns;
#ifdef TLS
    SSL *tls;
    int offered; /* the session of the first connection */
#endif
};

static int port, poller, connections = 1, burst = 1, idle, idle_first;
static enum mode mode = ECHO;
static const char *path = "/", *request;
static size_t message_bytes = 1024, request_bytes, reply_bytes;
static uint32_t *latencies_ns; /* of the window being measured; what does not fit is left out */
static uint64_t requests;
static char scratch[BUFFER_BYTES];

static void die(const char *what) {
    fprintf(stderr, "client: %s: %s\n", what, errno ? strerror(errno) : "no further reason");
#ifdef TLS
    ERR_print_errors_fp(stderr);
#endif
    exit(1);
}

static uint64_t read_ns(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now)) die("clock_gettime");
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- one connection: put and get return -1 with EAGAIN where they would block -------------------------------------- */

#ifdef TLS
static SSL_CTX *context;
static SSL_SESSION *session;

static void wrap(struct connection *c) {
    if (!context) {
        context = SSL_CTX_new(TLS_client_method());
        if (!context) die("SSL_CTX_new");
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    }
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    if (!(c->tls = SSL_new(context)) || !SSL_set_fd(c->tls, c->fd)) die("SSL_new");
    if (mode == RESUME && session) c->offered = SSL_set_session(c->tls, session);
    SSL_set_connect_state(c->tls);
}

static ssize_t told(struct connection *c, int n) {
    if (n > 0) return n;
    int why = SSL_get_error(c->tls, n);
    if (why == SSL_ERROR_ZERO_RETURN) return 0;
    errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
    return -1;
}

static ssize_t put(struct connection *c, const char *data, size_t size) { return told(c, SSL_write(c->tls, data, size)); }
static ssize_t get(struct connection *c, char *data, size_t size) { return told(c, SSL_read(c->tls, data, size)); }

static void shut(struct connection *c) {
    if (mode == RESUME && !session) session = SSL_get1_session(c->tls);
    if (c->offered && !SSL_session_reused(c->tls)) die("the server did not resume a session");
    SSL_shutdown(c->tls);
    SSL_free(c->tls);
    close(c->fd);
}
#else
static void wrap(struct connection *c) { (void)c; }
static void shut(struct connection *c) { close(c->fd); }
static ssize_t put(struct connection *c, const char *data, size_t size) { return send(c->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT); }
static ssize_t get(struct connection *c, char *data, size_t size) { return recv(c->fd, data, size, MSG_DONTWAIT); }
#endif

static void open_one(struct connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(c, 0, sizeof *c);
    c->fd = socket(AF_INET, mode == UDP ? SOCK_DGRAM : SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) die("connect");
    if (mode != UDP) {
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        wrap(c);
    }
}

static void await(struct connection *c) {
    struct pollfd waited = {.fd = c->fd, .events = POLLIN};
    if (poll(&waited, 1, SILENCE_S * 1000) <= 0) die("no reply for 10 seconds");
}

/* Shake hands before the load begins: a hundred handshakes take longer than its warm-up. */
static void settle(struct connection *c) {
#ifdef TLS
    int n;
    if (mode != ECHO && mode != HTTP) return;
    while ((n = SSL_do_handshake(c->tls)) <= 0) {
        if (told(c, n) == 0 || errno != EAGAIN) die("handshake");
        await(c);
    }
#else
    (void)c;
#endif
}

/* Send and receive in turns until `size` bytes are there or `ended` says that the reply is whole. */
static size_t exchange(struct connection *c, const char *data, size_t size, size_t wanted, size_t (*whole)(size_t)) {
    size_t sent = 0, got = 0;
    for (;;) {
        ssize_t n;
        while (sent < size && (n = put(c, data + sent, size - sent)) > 0) sent += n;
        if (sent < size && errno != EAGAIN) die("send");
        while ((n = get(c, scratch + got, sizeof scratch - 1 - got)) > 0) {
            got += n;
            if (whole && (wanted = whole(got)) && got >= wanted) return wanted;
            if (!whole && got >= wanted) return wanted;
        }
        if (n == 0 || errno != EAGAIN) die("the server sent no whole reply");
        await(c);
    }
}

/* The length of the HTTP reply in `scratch`, 0 while its head is not whole. */
static size_t http_bytes(size_t got) {
    scratch[got] = 0;
    char *body = strstr(scratch, "\r\n\r\n"), *length = strcasestr(scratch, "content-length:");
    if (!body) return 0;
    if (!length || length > body || strncmp(scratch, "HTTP/1.1 200", 12)) die("not a 200 reply with a length");
    return (size_t)(body + 4 - scratch) + strtoul(length + 15, NULL, 10);
}

/* --- the load ------------------------------------------------------------------------------------------------------ */

static void watch(struct connection *c) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
}

static void finish(struct connection *c) {
    uint64_t now_ns = read_ns(CLOCK_MONOTONIC), taken_ns = now_ns - c->started_ns;
    uint64_t at = requests / burst;
    if (at < SAMPLES_MAX) latencies_ns[at] = taken_ns > UINT32_MAX ? UINT32_MAX : (uint32_t)taken_ns;
    requests += burst;
    if (mode == CONNECT || mode == RESUME) {
        shut(c);
        open_one(c);
        watch(c);
    }
    c->sent = c->got = 0;
    c->started_ns = now_ns;
}

static void send_more(struct connection *c) {
    while (c->sent < request_bytes) {
        size_t left = request_bytes - c->sent;
        ssize_t n = put(c, request + c->sent, mode == UDP ? message_bytes : left);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) die("send");
        c->sent += n;
    }
}

/* Edge-triggered, so both ways are driven until they would block. A reply that is complete starts the next request;
 * nothing can be left to read then, and the next reply is a new edge. */
static void drive(struct connection *c) {
    send_more(c);
    for (;;) {
        size_t left = reply_bytes - c->got, wanted = left < sizeof scratch ? left : sizeof scratch;
        ssize_t n = get(c, scratch, wanted);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) die(n ? "recv" : "the server closed a connection");
        c->got += n;
        if (c->got == reply_bytes) { finish(c); send_more(c); return; }
#ifndef TLS
        if (mode != UDP && (size_t)n < wanted) return;
#endif
    }
}

static void start_again(struct connection *all) {
    for (int i = 0; i < connections; i++) {
        while (get(&all[i], scratch, sizeof scratch) > 0) ;
        all[i].sent = all[i].got = 0;
        send_more(&all[i]);
    }
}

static void run_for(struct connection *all, uint64_t window_ms) {
    struct epoll_event events[256];
    uint64_t end_ns = read_ns(CLOCK_MONOTONIC) + window_ms * 1000000, silent_ns = SILENCE_S * 1000000000ull, seen = requests;
    uint64_t last_ns = read_ns(CLOCK_MONOTONIC), now_ns;
    while ((now_ns = read_ns(CLOCK_MONOTONIC)) < end_ns || requests == 0) {
        int n = epoll_wait(poller, events, 256, 100);
        if (n == 0 && mode == UDP) start_again(all);
        for (int i = 0; i < n; i++) drive(events[i].data.ptr);
        if (requests != seen) { seen = requests; last_ns = now_ns; }
        errno = 0;
        if (now_ns - last_ns > silent_ns) die("no reply for 10 seconds");
    }
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void measure(struct connection *all, uint64_t window_ms, clockid_t server) {
    requests = 0;
    uint64_t wall_ns = read_ns(CLOCK_MONOTONIC), cpu_ns = read_ns(server);
    run_for(all, window_ms);
    cpu_ns = read_ns(server) - cpu_ns;
    wall_ns = read_ns(CLOCK_MONOTONIC) - wall_ns;
    size_t kept = requests / burst < SAMPLES_MAX ? requests / burst : SAMPLES_MAX;
    qsort(latencies_ns, kept, sizeof *latencies_ns, by_value);
    printf("%lu %lu %lu %u %u\n", requests, wall_ns, cpu_ns, latencies_ns[kept / 2], latencies_ns[kept * 99 / 100]);
    fflush(stdout);
}

static void open_idle(void) {
    static struct connection one;
    char line[8];
    for (int i = 1; i <= idle; i++) {
        open_one(&one); /* it stays open: the process ends it */
        exchange(&one, "x", 1, 1, NULL);
        if (i != idle_first && i != idle) continue;
        printf("idle\n");
        fflush(stdout);
        if (!fgets(line, sizeof line, stdin)) errno = 0;
    }
}

static void prepare(void) {
    if (mode == HTTP) {
        struct connection probe;
        char *get_bytes;
        int size = asprintf(&get_bytes, "GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: penstock-bench\r\nAccept: */*\r\n\r\n", path);
        if (size < 0) die("asprintf");
        request = get_bytes;
        request_bytes = size;
        open_one(&probe);
        reply_bytes = exchange(&probe, request, request_bytes, 0, http_bytes);
        shut(&probe);
    } else {
        request_bytes = reply_bytes = message_bytes * burst;
        request = memset(malloc(request_bytes), 'x', request_bytes);
    }
}

static void read_option(char *option) {
    char *value = strchr(option, '=');
    if (!value) die(option);
    *value++ = 0;
    if (!strcmp(option, "connections")) connections = atoi(value);
    else if (!strcmp(option, "bytes")) message_bytes = strtoul(value, NULL, 10);
    else if (!strcmp(option, "burst")) burst = atoi(value);
    else if (!strcmp(option, "idle")) idle = atoi(value);
    else if (!strcmp(option, "idle_first")) idle_first = atoi(value);
    else if (!strcmp(option, "path")) path = value;
    else if (!strcmp(option, "mode")) {
        for (mode = ECHO; mode <= HTTP && strcmp(value, MODES[mode]); mode++) ;
        if (mode > HTTP) die(value);
    } else die(option);
}

int main(int argc, char **argv) {
    clockid_t server;
    if (argc < 5) { fprintf(stderr, "usage: client PORT PID WARMUP_MS WINDOW_MS [key=value ...]\n"); return 2; }
    port = atoi(argv[1]);
    poller = epoll_create1(0);
    if (clock_getcpuclockid(atoi(argv[2]), &server)) die("no such server process");
    for (int i = 5; i < argc; i++) read_option(argv[i]);
    latencies_ns = malloc(SAMPLES_MAX * sizeof *latencies_ns);
    struct connection *all = calloc(connections, sizeof *all);
    if (!all || !latencies_ns) die("malloc");
    open_idle();
    prepare();
    for (int i = 0; i < connections; i++) { open_one(&all[i]); settle(&all[i]); watch(&all[i]); }
    usleep(20000); /* let the server accept them, so that the window holds requests only */
    for (int i = 0; i < connections; i++) all[i].started_ns = read_ns(CLOCK_MONOTONIC);
    run_for(all, strtoul(argv[3], NULL, 10));
    measure(all, strtoul(argv[4], NULL, 10), server);
    return 0;
}
