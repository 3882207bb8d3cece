// Events: a place in a stream that others wait for, or in a capture that other streams join through.
#include <stdlib.h>

#include "driver.h"

static CUresult event_find(CUevent event) {
    if (!handle_live(EVENT, event)) return refuse(CUDA_ERROR_INVALID_HANDLE, "%p is no event, or was destroyed", (void *)event);
    return event->context->alive ? CUDA_SUCCESS : refuse(CUDA_ERROR_CONTEXT_IS_DESTROYED, "the event's context was destroyed");
}

API cuEventCreate(CUevent *event, unsigned int flags) {
    CALL_IN_CONTEXT();
    *event = handle_new(EVENT, sizeof **event);
    (*event)->context = context_current();
    (*event)->flags = flags;
    return CUDA_SUCCESS;
}

API cuEventDestroy_v2(CUevent event) {
    CALL();
    TRY(event_find(event));
    const CUresult broken = event->context->broken;
    op_release(event->op);
    nodes_clear(&event->tail);
    handle_delete(EVENT, event);
    return broken;
}

static CUresult record(CUevent event, CUstream handle) {
    CUstream stream;
    TRY(stream_find(handle, &stream));
    TRY(event_find(event));
    if (event->context != stream->context) return refuse(CUDA_ERROR_INVALID_HANDLE, "the event belongs to another context");
    struct Capture *capture = stream->capture;
    if (capture != NULL) {
        if (capture->invalid) return refuse(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture is invalid");
        event->capture = capture->id;
        nodes_copy(&event->tail, &stream->tail);
        return CUDA_SUCCESS;
    }
    struct Op *mark;
    TRY(stream_submit(stream, (struct Work){.kind = WORK_MARK}, NULL, &mark));
    event->capture = 0;
    op_release(event->op);
    event->op = mark;
    if (mark != NULL) ++mark->refs;
    return CUDA_SUCCESS;
}

API cuEventRecord(CUevent event, CUstream stream) {
    CALL_IN_CONTEXT();
    return record(event, stream);
}

API cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned int flags) {
    CALL_IN_CONTEXT();
    return flags == 0 ? record(event, stream) : refuse(CUDA_ERROR_NOT_SUPPORTED, "flags %u", flags);
}

// An event of a capture can be neither asked nor waited for, and another one only where the thread's captures allow it.
static CUresult may_ask(CUevent event) {
    TRY(event_find(event));
    if (event->capture != 0) {
        struct Capture *capture = capture_by_id(event->capture);
        if (capture != NULL) capture_invalidate(capture, "an event of it was asked for");
        return refuse(CUDA_ERROR_CAPTURED_EVENT, "the event was recorded in a capture");
    }
    return capture_refuses_unsafe();
}

API cuEventQuery(CUevent event) {
    CALL_IN_CONTEXT();
    TRY(may_ask(event));
    struct Op *op = event->op;
    CUcontext context = event->context;  // another thread may destroy the event while a step runs
    if (op == NULL) return context->broken;
    ++op->refs;
    if (settings.mode == MODE_STEPPING) queue_step(op);
    const bool done = op->done;
    op_release(op);
    if (context->broken != CUDA_SUCCESS) return context->broken;
    return done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

API cuEventSynchronize(CUevent event) {
    CALL_IN_CONTEXT();
    TRY(may_ask(event));
    struct Op *op = event->op;
    if (op == NULL) return event->context->broken;
    ++op->refs;
    const CUresult result = queue_drive(op);
    op_release(op);
    return result;
}

static CUresult elapsed(float *ms, CUevent begin, CUevent end) {
    TRY(may_ask(begin));
    TRY(may_ask(end));
    if (((begin->flags | end->flags) & CU_EVENT_DISABLE_TIMING) != 0) return refuse(CUDA_ERROR_INVALID_HANDLE, "an event without a clock");
    *ms = 0;
    if (settings.mode == MODE_NO_WORK) return CUDA_SUCCESS;
    if (begin->op == NULL || end->op == NULL) return refuse(CUDA_ERROR_INVALID_HANDLE, "an event was never recorded");
    if (!begin->op->done || !end->op->done) return CUDA_ERROR_NOT_READY;
    *ms = (float)(end->op->time_ms - begin->op->time_ms);
    return CUDA_SUCCESS;
}

API cuEventElapsedTime(float *ms, CUevent begin, CUevent end) {
    CALL_IN_CONTEXT();
    return elapsed(ms, begin, end);
}

API cuEventElapsedTime_v2(float *ms, CUevent begin, CUevent end) {
    CALL_IN_CONTEXT();
    return elapsed(ms, begin, end);
}

// An event of a capture brings the stream into that capture.
API cuStreamWaitEvent(CUstream handle, CUevent event, unsigned int flags) {
    CALL_IN_CONTEXT();
    if (flags != 0) return refuse(CUDA_ERROR_NOT_SUPPORTED, "flags %u", flags);
    CUstream stream;
    TRY(stream_find(handle, &stream));
    TRY(event_find(event));
    TRY(capture_refuses_legacy(stream));
    if (event->capture != 0) return capture_join(stream, event);
    if (stream->capture != NULL) {
        if (stream->capture->invalid) return refuse(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture is invalid");
        capture_invalidate(stream->capture, "it waits for an event from outside");
        return refuse(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "the event was not recorded in the capture");
    }
    return stream_submit(stream, (struct Work){.kind = WORK_MARK}, event->op, NULL);
}
