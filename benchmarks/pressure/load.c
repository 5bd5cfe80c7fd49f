/* Open-loop load: each request arrives when it is due, whatever has become of those before it. One thread, one epoll.
 *
 *   load PORT SEED DEADLINE_MS CONNECTIONS_MOST PHASE...
 *
 * A phase is NAME,ARRIVALS,SECONDS[,PATH[,PID]], one after the other. ARRIVALS is a rate by second, `400` for Poisson
 * arrivals, `=400` for even ones; `@8` keeps 8 requests in flight instead, which is how a capacity is found. PID gets a
 * SIGUSR2 when the phase begins.
 *
 * A latency counts from when the request was due, not from when it was sent, so that a stall delays all that was due
 * meanwhile. At DEADLINE_MS the client gives up and closes the connection, as people do. Each request ends in one way:
 *   good     2xx within the deadline         late     no whole answer by then
 *   refused  503 or 429 within the deadline  failed   any other answer, a reset, or no connection to be had
 * A kept-alive connection that the server closed before a byte of its answer is replaced by a fresh one, once.
 *
 * Written to stdout as JSON: every phase, and every 250 ms of the whole, by the time the requests were due in.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER_BYTES = 2048, REQUEST_BYTES = 256, EVENTS = 512, PHASES_MOST = 32, BUCKET_MS = 250 };
enum { SPLIT_BITS = 5, SPLIT = 1 << SPLIT_BITS, SLOTS = 24 * SPLIT }; /* 3 % fine, up to 134 s */
enum outcome { GOOD, REFUSED, LATE, FAILED, OUTCOMES };
enum state { UNUSED, IDLE, CONNECTING, BUSY };

static const char *const outcome_names[] = {"good", "refused", "late", "failed"};

struct histogram { uint32_t slots[SLOTS]; uint64_t count, most_us; };
struct tally { uint64_t counts[OUTCOMES]; struct histogram good, refused, behind; };

struct phase {
    const char *name;
    double rate_per_s; /* of an open loop */
    int is_even, kept; /* kept: requests in flight in a closed loop, 0 in an open one */
    uint64_t start_ns, end_ns;
    pid_t pid;
    char request[REQUEST_BYTES];
    size_t request_bytes;
    struct tally tally;
};

/* Either in the list of the idle, or, with a request, in that of the busy, which is in the order of their dues. */
struct connection {
    struct connection *before, *after;
    int fd;
    enum state state;
    int is_reused;
    size_t got;
    struct phase *phase;
    uint64_t due_ns;
    char answer[ANSWER_BYTES];
};

static struct connection idle = {.before = &idle, .after = &idle}, busy = {.before = &busy, .after = &busy};
static struct connection *connections;
static int poller, most_connections, used_connections, busy_count, most_busy;
static uint64_t retried;
static struct connection **unused;
static int unused_count;

static struct phase phases[PHASES_MOST];
static int phase_count, current; /* current: the phase that arrivals come from */
static uint64_t next_due_ns, run_start_ns, deadline_ns, seed;
static struct tally *buckets;
static size_t bucket_count;
static struct sockaddr_in address = {.sin_family = AF_INET};

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, errno ? strerror(errno) : "no further reason");
    exit(1);
}

static uint64_t clock_ns(void) {
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now)) die("clock_gettime");
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- counting ----------------------------------------------------------------------------------------------------- */

static void record(struct histogram *h, uint64_t ns) {
    uint64_t us = ns / 1000;
    int shift = us < SPLIT ? 0 : 63 - __builtin_clzll(us) - SPLIT_BITS;
    uint64_t slot = us < SPLIT ? us : (uint64_t)shift * SPLIT + (us >> shift);
    h->slots[slot < SLOTS ? slot : SLOTS - 1]++;
    h->count++;
    if (us > h->most_us) h->most_us = us;
}

/* The middle of the slot that the quantile is in. */
static double quantile_us(const struct histogram *h, double share) {
    uint64_t wanted = (uint64_t)ceil(share * h->count), seen = 0;
    for (int slot = 0; slot < SLOTS; slot++) {
        if ((seen += h->slots[slot]) < wanted || !h->slots[slot]) continue;
        int shift = slot < 2 * SPLIT ? 0 : slot / SPLIT - 1;
        double low = (double)((uint64_t)(slot - shift * SPLIT) << shift), most = (double)h->most_us;
        double middle = shift ? low + (double)(1u << shift) / 2 : low;
        return middle < most ? middle : most;
    }
    return 0;
}

static struct tally *bucket_of(uint64_t due_ns) {
    size_t at = (due_ns - run_start_ns) / (BUCKET_MS * 1000000ull);
    return &buckets[at < bucket_count ? at : bucket_count - 1];
}

static void count(struct phase *phase, uint64_t due_ns, enum outcome outcome, uint64_t now_ns) {
    struct tally *both[] = {&phase->tally, bucket_of(due_ns)};
    for (int i = 0; i < 2; i++) {
        both[i]->counts[outcome]++;
        if (outcome == GOOD) record(&both[i]->good, now_ns - due_ns);
        if (outcome == REFUSED) record(&both[i]->refused, now_ns - due_ns);
    }
}

/* --- connections -------------------------------------------------------------------------------------------------- */

static void unlink_connection(struct connection *c) {
    c->before->after = c->after;
    c->after->before = c->before;
}

static void link_last(struct connection *list, struct connection *c) {
    c->before = list->before;
    c->after = list;
    list->before->after = c;
    list->before = c;
}

static void discard(struct connection *c) {
    unlink_connection(c);
    close(c->fd);
    c->state = UNUSED;
    unused[unused_count++] = c;
}

/* Whether there is a connection, which may still be on its way. */
static int open_connection(struct connection *c) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) return 0;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        close(c->fd);
        return 0;
    }
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
    c->state = CONNECTING;
    c->is_reused = 0;
    c->got = 0;
    return 1;
}

/* The most recently used idle one, else a fresh one, else none. */
static struct connection *take_connection(void) {
    struct connection *c = idle.before;
    if (c != &idle) {
        unlink_connection(c);
        c->state = BUSY;
        c->is_reused = 1;
        c->got = 0;
        return c;
    }
    c = unused_count ? unused[--unused_count] : used_connections < most_connections ? &connections[used_connections++] : NULL;
    if (!c || open_connection(c)) return c;
    unused[unused_count++] = c;
    return NULL;
}

static void end_request(struct connection *c, enum outcome outcome, int is_kept, uint64_t now_ns) {
    count(c->phase, c->due_ns, now_ns - c->due_ns < deadline_ns ? outcome : LATE, now_ns);
    busy_count--;
    if (!is_kept) {
        discard(c);
        return;
    }
    unlink_connection(c);
    c->state = IDLE;
    link_last(&idle, c);
}

/* The request goes out in one piece: it is small, and the connection's buffer empty. */
static int send_request(struct connection *c) {
    ssize_t sent = send(c->fd, c->phase->request, c->phase->request_bytes, MSG_NOSIGNAL);
    c->state = BUSY;
    return sent == (ssize_t)c->phase->request_bytes;
}

/* The connection is gone before the whole answer: tried once more where it may have been closed before the request. */
static void lose(struct connection *c, uint64_t now_ns) {
    if (c->is_reused && !c->got) {
        retried++;
        close(c->fd);
        if (open_connection(c)) return;
        c->fd = -1;
    }
    end_request(c, FAILED, 0, now_ns);
}

static int launch(struct phase *phase, uint64_t due_ns, uint64_t now_ns) {
    struct connection *c = take_connection();
    record(&phase->tally.behind, now_ns - due_ns);
    if (!c) {
        count(phase, due_ns, FAILED, now_ns);
        return 0;
    }
    c->phase = phase;
    c->due_ns = due_ns;
    link_last(&busy, c);
    if (++busy_count > most_busy) most_busy = busy_count;
    if (c->state == BUSY && !send_request(c)) lose(c, now_ns);
    return 1;
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

/* Whether the answer is whole; then what it is, and whether the connection stays. */
static int is_whole(struct connection *c, enum outcome *outcome, int *is_kept) {
    c->answer[c->got] = 0;
    char *body = strstr(c->answer, "\r\n\r\n");
    if (!body) return 0;
    char *length = strcasestr(c->answer, "\r\ncontent-length:"), *kept = strcasestr(c->answer, "\r\nconnection: close");
    size_t head = (size_t)(body + 4 - c->answer), rest = length && length < body ? strtoul(length + 17, NULL, 10) : 0;
    if (c->got < head + rest) return 0;
    int status = atoi(c->answer + 9);
    *outcome = status / 100 == 2 ? GOOD : status == 503 || status == 429 ? REFUSED : FAILED;
    *is_kept = !(kept && kept < body) && length;
    return 1;
}

static void read_answer(struct connection *c) {
    enum outcome outcome = FAILED;
    int is_kept = 0;
    for (;;) {
        size_t room = sizeof c->answer - 1 - c->got;
        ssize_t n = room ? recv(c->fd, c->answer + c->got, room, 0) : 0;
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            lose(c, clock_ns());
            return;
        }
        c->got += (size_t)n;
        if (is_whole(c, &outcome, &is_kept)) {
            end_request(c, outcome, is_kept, clock_ns());
            return;
        }
    }
}

static void drive(struct connection *c, uint32_t events) {
    if (c->state == IDLE && events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) {
        discard(c);
        return;
    }
    if (c->state == CONNECTING && events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error || !send_request(c)) {
            lose(c, clock_ns());
            return;
        }
    }
    if (c->state == BUSY && events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) read_answer(c);
}

static void expire(uint64_t now_ns) {
    while (busy.after != &busy && busy.after->due_ns + deadline_ns <= now_ns)
        end_request(busy.after, LATE, 0, now_ns);
}

/* --- arrivals ----------------------------------------------------------------------------------------------------- */

/* Above 0, at most 1 (xorshift64*). */
static double chance(void) {
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return ((double)((seed * 0x2545F4914F6CDD1Dull) >> 11) + 1) / 9007199254740992.0;
}

static uint64_t gap_ns(const struct phase *phase) {
    return (uint64_t)(1e9 / phase->rate_per_s * (phase->is_even ? 1 : -log(chance())));
}

static void begin_phase(int index) {
    current = index;
    if (index == phase_count) return;
    struct phase *phase = &phases[index];
    if (phase->pid && kill(phase->pid, SIGUSR2)) die("kill");
    if (!phase->kept) next_due_ns = phase->start_ns + gap_ns(phase);
}

/* Sends what is due, and says when it has to be called again; UINT64_MAX when no more will arrive. */
static uint64_t advance(uint64_t now_ns) {
    while (current < phase_count) {
        struct phase *phase = &phases[current];
        if (now_ns < phase->start_ns) return phase->start_ns;
        if (phase->kept) {
            while (now_ns < phase->end_ns && busy_count < phase->kept && launch(phase, now_ns, now_ns)) continue;
            if (now_ns < phase->end_ns) return phase->end_ns;
        } else {
            for (; next_due_ns < phase->end_ns; next_due_ns += gap_ns(phase)) {
                if (next_due_ns > now_ns) return next_due_ns;
                launch(phase, next_due_ns, now_ns);
            }
            if (now_ns < phase->end_ns) return phase->end_ns;
        }
        begin_phase(current + 1);
    }
    return UINT64_MAX;
}

/* epoll_wait() knows milliseconds only. */
static int wait_until(uint64_t wake_ns, struct epoll_event *events) {
    struct pollfd ready = {.fd = poller, .events = POLLIN};
    uint64_t now_ns = clock_ns(), wait_ns = wake_ns > now_ns ? wake_ns - now_ns : 0;
    struct timespec patience = {.tv_sec = (time_t)(wait_ns / 1000000000u), .tv_nsec = (long)(wait_ns % 1000000000u)};
    if (wait_ns && ppoll(&ready, 1, &patience, NULL) < 0 && errno != EINTR) die("ppoll");
    return epoll_wait(poller, events, EVENTS, 0);
}

static void run(void) {
    static struct epoll_event events[EVENTS];
    begin_phase(0);
    for (;;) {
        uint64_t now_ns = clock_ns(), wake_ns = advance(now_ns);
        expire(now_ns);
        if (busy.after != &busy && busy.after->due_ns + deadline_ns < wake_ns) wake_ns = busy.after->due_ns + deadline_ns;
        if (wake_ns == UINT64_MAX) return;
        int n = wait_until(wake_ns, events);
        for (int i = 0; i < n; i++) drive(events[i].data.ptr, events[i].events);
    }
}

/* --- in and out --------------------------------------------------------------------------------------------------- */

static void parse_phase(char *text, uint64_t *end_ns) {
    if (phase_count == PHASES_MOST) die("too many phases");
    struct phase *phase = &phases[phase_count++];
    char *name = strsep(&text, ","), *arrivals = strsep(&text, ","), *seconds = strsep(&text, ",");
    char *path = strsep(&text, ","), *pid = strsep(&text, ",");
    errno = 0;
    if (!seconds) die("a phase is NAME,ARRIVALS,SECONDS[,PATH[,PID]]");
    phase->name = name;
    phase->kept = *arrivals == '@' ? atoi(arrivals + 1) : 0;
    phase->is_even = *arrivals == '=';
    phase->rate_per_s = phase->kept ? 0 : atof(arrivals + phase->is_even);
    if (!phase->kept && phase->rate_per_s <= 0) die("arrivals are a rate, =rate or @count");
    phase->start_ns = *end_ns;
    *end_ns = phase->end_ns = phase->start_ns + (uint64_t)(atof(seconds) * 1e9);
    phase->pid = pid ? atoi(pid) : 0;
    phase->request_bytes = (size_t)snprintf(phase->request, REQUEST_BYTES,
        "GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: penstock-bench\r\nAccept: */*\r\n\r\n", path && *path ? path : "/");
    if (phase->request_bytes >= REQUEST_BYTES) die("the path is too long");
}

static void print_histogram(const char *name, const struct histogram *h) {
    printf(", \"%s\": {\"p50\": %.1f, \"p99\": %.1f, \"max\": %lu}", name, quantile_us(h, 0.5), quantile_us(h, 0.99), h->most_us);
}

static void print_tally(const struct tally *tally) {
    uint64_t all = 0;
    for (int i = 0; i < OUTCOMES; i++) all += tally->counts[i];
    printf("\"due\": %lu", all);
    for (int i = 0; i < OUTCOMES; i++) printf(", \"%s\": %lu", outcome_names[i], tally->counts[i]);
    if (tally->good.count) print_histogram("good_us", &tally->good);
    if (tally->refused.count) print_histogram("refused_us", &tally->refused);
}

static void print_all(void) {
    printf("{\"phases\": [");
    for (int i = 0; i < phase_count; i++) {
        struct phase *phase = &phases[i];
        printf("%s{\"name\": \"%s\", \"seconds\": %.3f, ", i ? ", " : "", phase->name, (phase->end_ns - phase->start_ns) / 1e9);
        print_tally(&phase->tally);
        print_histogram("behind_us", &phase->tally.behind); /* how much later than due the client sent it */
        printf("}");
    }
    printf("], \"buckets\": [");
    for (size_t i = 0; i < bucket_count; i++) {
        printf("%s{\"at_s\": %.2f, ", i ? ", " : "", i * BUCKET_MS / 1e3);
        print_tally(&buckets[i]);
        printf("}");
    }
    printf("], \"most_busy\": %d, \"retried\": %lu}\n", most_busy, retried);
}

int main(int argc, char **argv) {
    struct rlimit files;
    if (argc < 6) {
        fprintf(stderr, "usage: load PORT SEED DEADLINE_MS CONNECTIONS_MOST NAME,ARRIVALS,SECONDS[,PATH[,PID]]...\n");
        return 2;
    }
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    seed = strtoull(argv[2], NULL, 10) * 0x9E3779B97F4A7C15ull + 1;
    deadline_ns = strtoull(argv[3], NULL, 10) * 1000000u;
    most_connections = atoi(argv[4]);
    if (getrlimit(RLIMIT_NOFILE, &files)) die("getrlimit");
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    uint64_t end_ns = run_start_ns = clock_ns() + 1000000;
    for (int i = 5; i < argc; i++) parse_phase(argv[i], &end_ns);
    bucket_count = (end_ns - run_start_ns + BUCKET_MS * 1000000ull - 1) / (BUCKET_MS * 1000000ull);
    buckets = calloc(bucket_count, sizeof *buckets);
    connections = calloc((size_t)most_connections, sizeof *connections);
    unused = calloc((size_t)most_connections, sizeof *unused);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!buckets || !connections || !unused || poller < 0) die("no memory or no poller");
    run();
    print_all();
    return 0;
}
