// All handles that are out, by kind. What a caller hands in is looked up, so that a stale handle is an error and not a crash.
#include <stdlib.h>

#include "driver.h"

static struct Handle *live[KINDS];

void *handle_new(enum Kind kind, size_t size) {
    struct Handle *handle = calloc(1, size);
    handle->next = live[kind];
    live[kind] = handle;
    return handle;
}

bool handle_live(enum Kind kind, const void *wanted) {
    for (const struct Handle *handle = live[kind]; handle != NULL; handle = handle->next) {
        if (handle == wanted) return true;
    }
    return false;
}

void handle_forget(enum Kind kind, void *unwanted) {
    for (struct Handle **link = &live[kind]; *link != NULL; link = &(*link)->next) {
        if (*link != unwanted) continue;
        *link = (*link)->next;
        return;
    }
}

void handle_delete(enum Kind kind, void *unwanted) {
    handle_forget(kind, unwanted);
    free(unwanted);
}

struct Handle *handles(enum Kind kind) { return live[kind]; }
