// The lock, the count of calls by name, and the log.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"

enum { LOG_BYTES = 1 << 20 };

struct Later {
    CUhostFn function;
    void *argument;
    struct Later *next;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct Counter *counters;
static char log_text[LOG_BYTES];
static size_t log_used;
static struct Later *later;
static __thread const char *running = "the test";

void lock(void) { pthread_mutex_lock(&mutex); }

void unlock(void) { pthread_mutex_unlock(&mutex); }

void wait_for_change(void) { pthread_cond_wait(&changed, &mutex); }

void tell_change(void) { pthread_cond_broadcast(&changed); }

struct Call call_begin(struct Counter *counter) {
    lock();
    if (!counter->known) {
        counter->known = true;
        counter->next = counters;
        counters = counter;
    }
    ++counter->count;
    struct Call call = {running};
    running = counter->name;
    return call;
}

void call_end(struct Call *call) {
    running = call->outer;
    struct Later *todo = later;
    later = NULL;
    unlock();
    while (todo != NULL) {
        struct Later *next = todo->next;
        todo->function(todo->argument);
        free(todo);
        todo = next;
    }
}

void after_call(CUhostFn function, void *argument) {
    struct Later *item = malloc(sizeof *item);
    *item = (struct Later){function, argument, later};
    later = item;
}

static void add_line(const char *line) {
    const size_t size = strlen(line);
    if (log_used + size + 2 > LOG_BYTES) log_used = 0;  // a test that reads the log empties it before
    memcpy(log_text + log_used, line, size);
    log_used += size;
    log_text[log_used++] = '\n';
    if (getenv("STUB_DRIVER_LOG") != NULL) fprintf(stderr, "stub driver: %s\n", line);
}

void note(const char *format, ...) {
    char line[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    add_line(line);
}

CUresult refuse(CUresult code, const char *format, ...) {
    char why[300];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    note("refused %s: %d: %s", running, (int)code, why);
    return code;
}

void fault(const char *format, ...) {
    char why[300];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    ++settings.faults;
    note("fault: %s", why);
}

// Both give the bytes of the whole text, and as many of them as there is room for.
EXPORTED size_t stub_log(char *out, size_t room) {
    lock();
    const size_t size = log_used < room ? log_used : room;
    memcpy(out, log_text, size);
    const size_t all = log_used;
    unlock();
    return all;
}

EXPORTED size_t stub_calls(char *out, size_t room) {
    size_t used = 0;
    lock();
    for (const struct Counter *counter = counters; counter != NULL; counter = counter->next) {
        char line[128];
        if (counter->count == 0) continue;
        const size_t size = (size_t)snprintf(line, sizeof line, "%s %lu\n", counter->name, counter->count);
        if (used + size <= room) memcpy(out + used, line, size);
        used += size;
    }
    unlock();
    return used;
}

EXPORTED void stub_forget_calls(void) {
    lock();
    for (struct Counter *counter = counters; counter != NULL; counter = counter->next) counter->count = 0;
    log_used = 0;
    unlock();
}
