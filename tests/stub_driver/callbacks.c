// Host callbacks in a stream: the driver's own, which may not call the driver, and the one that an engine's stand-in works through.
#include "driver.h"

static CUresult enqueue(CUstream handle, CUhostFn function, void *argument, bool may_call) {
    CUstream stream;
    TRY(stream_find(handle, &stream));
    struct Work work = {.kind = WORK_HOST, .function = function, .argument = argument, .may_call = may_call};
    return stream_submit(stream, work, NULL, NULL);
}

API cuLaunchHostFunc(CUstream stream, CUhostFn function, void *argument) {
    CALL_IN_CONTEXT();
    return enqueue(stream, function, argument, false);
}

// For tests: work of any kind, as a library would enqueue it.
API stub_enqueue_host(CUstream stream, CUhostFn function, void *argument) {
    CALL_IN_CONTEXT();
    return enqueue(stream, function, argument, true);
}
