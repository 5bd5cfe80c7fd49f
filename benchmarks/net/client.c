/* Load: N connections, each sends a message, waits for the whole reply, sends the next. One thread, one epoll.
 *
 *   client PORT PID CONNECTIONS BYTES FRESH_MS WARMUP_MS WARM_MS [http]
 *
 * Two windows are measured, "fresh" from the server's first request on and "warm" after the warm-up between them.
 * PID's CPU clock is read at each window's ends, so start-up, accept and teardown are in neither. A window is a line:
 *   name requests wall_ns server_cpu_ns p50_ns p99_ns
 * With "http" the message is a GET and BYTES is ignored: the first reply tells how long each reply is.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 256 * 1024, SAMPLES_MAX = 1 << 22, SILENCE_S = 10 };

static const char GET[] = "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: penstock-bench\r\nAccept: */*\r\n\r\n";

struct connection { int fd; size_t sent, got; uint64_t started_ns; };

static const char *request;
static size_t request_bytes, reply_bytes;
static uint32_t *latencies_ns; /* of the window being measured; what does not fit is left out */
static uint64_t requests;
static char scratch[BUFFER_BYTES];

static void die(const char *what) {
    fprintf(stderr, "client: %s: %s\n", what, errno ? strerror(errno) : "no further reason");
    exit(1);
}

static uint64_t read_ns(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now)) die("clock_gettime");
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int connect_to(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {.tv_sec = SILENCE_S};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience); /* for the blocking probe only */
    return fd;
}

/* One blocking exchange, to learn the length of a reply. */
static size_t probe_http(int port) {
    int fd = connect_to(port);
    size_t got = 0;
    if (write(fd, GET, sizeof GET - 1) != sizeof GET - 1) die("write");
    for (;;) {
        ssize_t n = read(fd, scratch + got, sizeof scratch - 1 - got);
        if (n <= 0) die("the server sent no whole HTTP reply");
        got += n;
        scratch[got] = 0;
        char *body = strstr(scratch, "\r\n\r\n"), *length = strcasestr(scratch, "content-length:");
        if (!body) continue;
        if (!length || length > body || strncmp(scratch, "HTTP/1.1 200", 12)) die("not a 200 reply with a length");
        size_t total = (size_t)(body + 4 - scratch) + strtoul(length + 15, NULL, 10);
        if (got >= total) { close(fd); return total; }
    }
}

static void finish(struct connection *c) {
    uint64_t now_ns = read_ns(CLOCK_MONOTONIC), taken_ns = now_ns - c->started_ns;
    if (requests < SAMPLES_MAX) latencies_ns[requests] = taken_ns > UINT32_MAX ? UINT32_MAX : (uint32_t)taken_ns;
    requests++;
    c->sent = c->got = 0;
    c->started_ns = now_ns;
}

static void send_more(struct connection *c) {
    while (c->sent < request_bytes) {
        ssize_t n = send(c->fd, request + c->sent, request_bytes - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) die("send");
        c->sent += n;
    }
}

/* Edge-triggered, so both ways are driven until they would block. A reply that is complete starts the next request;
 * nothing can be left to read then, and the next reply is a new edge. */
static void drive(struct connection *c) {
    send_more(c);
    for (;;) {
        size_t left = reply_bytes - c->got, wanted = left < sizeof scratch ? left : sizeof scratch;
        ssize_t n = recv(c->fd, scratch, wanted, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) die(n ? "recv" : "the server closed a connection");
        c->got += n;
        if (c->got == reply_bytes) { finish(c); send_more(c); return; }
        if ((size_t)n < wanted) return;
    }
}

static void run_for(int poller, uint64_t window_ms) {
    struct epoll_event events[256];
    uint64_t end_ns = read_ns(CLOCK_MONOTONIC) + window_ms * 1000000, silent_ns = SILENCE_S * 1000000000ull, seen = requests;
    uint64_t last_ns = read_ns(CLOCK_MONOTONIC), now_ns;
    while ((now_ns = read_ns(CLOCK_MONOTONIC)) < end_ns || requests == 0) {
        int n = epoll_wait(poller, events, 256, 100);
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

static void measure(const char *name, int poller, uint64_t window_ms, clockid_t server) {
    requests = 0;
    uint64_t wall_ns = read_ns(CLOCK_MONOTONIC), cpu_ns = read_ns(server);
    run_for(poller, window_ms);
    cpu_ns = read_ns(server) - cpu_ns;
    wall_ns = read_ns(CLOCK_MONOTONIC) - wall_ns;
    size_t kept = requests < SAMPLES_MAX ? requests : SAMPLES_MAX;
    qsort(latencies_ns, kept, sizeof *latencies_ns, by_value);
    printf("%s %lu %lu %lu %u %u\n", name, requests, wall_ns, cpu_ns, latencies_ns[kept / 2], latencies_ns[kept * 99 / 100]);
    fflush(stdout);
}

static void open_all(int poller, int port, struct connection *all, int count) {
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = &all[i]};
        all[i].fd = connect_to(port);
        if (epoll_ctl(poller, EPOLL_CTL_ADD, all[i].fd, &event)) die("epoll_ctl");
    }
    usleep(30000); /* let the server accept them, so that the first window holds requests only */
    for (int i = 0; i < count; i++) all[i].started_ns = read_ns(CLOCK_MONOTONIC);
}

int main(int argc, char **argv) {
    if (argc < 8) { fprintf(stderr, "usage: client PORT PID CONNECTIONS BYTES FRESH_MS WARMUP_MS WARM_MS [http]\n"); return 2; }
    int port = atoi(argv[1]), count = atoi(argv[3]), poller = epoll_create1(0);
    clockid_t server;
    if (clock_getcpuclockid(atoi(argv[2]), &server)) die("no such server process");
    if (argc > 8) {
        request = GET;
        request_bytes = sizeof GET - 1;
        reply_bytes = probe_http(port);
    } else {
        request_bytes = reply_bytes = strtoul(argv[4], NULL, 10);
        request = memset(malloc(request_bytes), 'x', request_bytes);
    }
    latencies_ns = malloc(SAMPLES_MAX * sizeof *latencies_ns);
    struct connection *all = calloc(count, sizeof *all);
    if (!all || !latencies_ns) die("malloc");
    open_all(poller, port, all, count);
    measure("fresh", poller, strtoul(argv[5], NULL, 10), server);
    run_for(poller, strtoul(argv[6], NULL, 10));
    measure("warm", poller, strtoul(argv[7], NULL, 10), server);
    return 0;
}
