// One piece of work: what it does, how a graph keeps it, and how the log calls it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"

static bool breaks_here(void) {
    if (settings.break_after < 0) return false;
    return settings.break_after-- == 0;
}

static void fill(const struct Work *work) {
    if (work->width == 1) {
        memset(work->to, (int)work->value, work->size);
        return;
    }
    for (size_t i = 0; i < work->size; ++i) memcpy(work->to + i * work->width, &work->value, work->width);
}

static void call_back(const struct Work *work) {
    const bool before = in_callback();
    set_in_callback(!work->may_call);
    work->function(work->argument);
    set_in_callback(before);
}

static CUresult run_unlocked(struct Work *work) {
    switch (work->kind) {
        case WORK_COPY: memmove(work->to, work->from, work->size); break;
        case WORK_FILL: fill(work); break;
        case WORK_HOST: call_back(work); break;
        case WORK_KERNEL: return kernel_run(work->kernel, work->dims, work->arguments);
        default: break;
    }
    return CUDA_SUCCESS;
}

CUresult work_run(struct Work *work) {
    if (work->kind == WORK_MARK) return CUDA_SUCCESS;
    if (work->kind == WORK_GRAPH) return exec_run(work->exec);
    if (breaks_here()) return settings.break_code;
    if (work->kind == WORK_ALLOC) block_check(work->block);
    if (work->kind == WORK_FREE) block_poison(work->block, work->size);
    unlock();
    const CUresult result = run_unlocked(work);
    lock();
    return result;
}

struct Work work_copy(const struct Work *work) {
    struct Work copy = *work;
    if (work->staged) {
        unsigned char *bytes = malloc(work->size);
        copy.from = memcpy(bytes, work->from, work->size);
    }
    if (work->arguments != NULL) {
        const size_t size = (size_t)(work->kernel->host->count + 1) * sizeof *work->arguments;
        copy.arguments = memcpy(malloc(size), work->arguments, size);
    }
    if (work->exec != NULL) ++work->exec->refs;
    return copy;
}

void work_free(struct Work *work) {
    if (work->staged) free((void *)(uintptr_t)work->from);
    free(work->arguments);
    if (work->exec != NULL) exec_release(work->exec);
    *work = (struct Work){0};
}

static const char *place(const struct Work *work, const void *address) {
    if (address == work->from && work->staged) return "pageable";
    const struct Block *block = block_of(address);
    return block == NULL ? "pageable" : block->pinned ? "pinned" : "device";
}

void work_note(const struct Work *work, CUstream stream, bool captured) {
    char what[160] = "";
    switch (work->kind) {
        case WORK_MARK: return;
        case WORK_COPY:
            snprintf(what, sizeof what, "copy %s to %s, %zu bytes", place(work, work->from), place(work, work->to), work->size);
            break;
        case WORK_FILL: snprintf(what, sizeof what, "fill %zu bytes", work->size * work->width); break;
        case WORK_KERNEL: snprintf(what, sizeof what, "launch %s", work->kernel->name); break;
        case WORK_HOST: snprintf(what, sizeof what, "call back"); break;
        case WORK_GRAPH: snprintf(what, sizeof what, "graph of %zu nodes", work->exec->nodes.count); break;
        case WORK_ALLOC: snprintf(what, sizeof what, "allocate %zu bytes", work->block->size); break;
        case WORK_FREE: snprintf(what, sizeof what, "free %zu bytes", work->size); break;
    }
    note("%s %s in stream %p", captured ? "captured" : "queued", what, (void *)stream);
}
