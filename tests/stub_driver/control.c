// What tests set: how work runs, errors, a GPU that does not answer, limits. stub.py calls these.
#include "driver.h"

struct Settings settings = {.mode = MODE_LAZY, .break_after = -1, .limit = (size_t)80 << 30};

// Drains what is queued, so that nothing is left that the new mode would treat otherwise.
EXPORTED void stub_set_mode(int mode) {
    lock();
    queue_drain(NULL);
    settings.mode = (enum Mode)mode;
    if (mode == MODE_WORKER) queue_start_worker();
    tell_change();
    unlock();
}

// The first GPU's primary context breaks now.
EXPORTED void stub_break(int code) {
    lock();
    CUcontext context = context_primary(0);
    if (context != NULL) {
        context->broken = (CUresult)code;
        note("context %llu broke: %d", context->id, code);
    }
    tell_change();
    unlock();
}

// The context breaks when `count` more pieces of work have run.
EXPORTED void stub_break_after(long count, int code) {
    lock();
    settings.break_after = count;
    settings.break_code = (CUresult)code;
    unlock();
}

// What no driver can do: everything works again, and what was queued or captured is forgotten.
EXPORTED void stub_heal(void) {
    lock();
    settings.break_after = -1;
    settings.hung = false;
    settings.graphs_do_nothing = false;
    capture_forget_all();
    for (struct Handle *handle = handles(CONTEXT); handle != NULL; handle = handle->next) {
        CUcontext context = (CUcontext)handle;
        queue_drop(context);
        context->broken = CUDA_SUCCESS;
    }
    tell_change();
    unlock();
}

EXPORTED void stub_hang(int hung) {
    lock();
    settings.hung = hung != 0;
    tell_change();
    unlock();
}

// Graphs are launched without an error and without doing anything, as one that was captured while another GPU was current.
EXPORTED void stub_graphs_do_nothing(void) {
    lock();
    settings.graphs_do_nothing = true;
    unlock();
}

// A line of the log, so that what a library does is in order with what the driver does.
EXPORTED void stub_note(const char *line) {
    lock();
    note("%s", line);
    unlock();
}

// How many bytes may be allocated altogether, pinned memory included.
EXPORTED void stub_limit(size_t bytes) {
    lock();
    settings.limit = bytes;
    unlock();
}

EXPORTED size_t stub_used(void) {
    lock();
    const size_t used = settings.used;
    unlock();
    return used;
}

EXPORTED size_t stub_pending(void) {
    lock();
    const size_t pending = queue_length();
    unlock();
    return pending;
}

EXPORTED unsigned long stub_faults(void) {
    lock();
    const unsigned long faults = settings.faults;
    settings.faults = 0;
    unlock();
    return faults;
}
