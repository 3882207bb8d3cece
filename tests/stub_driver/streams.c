// Streams, and the order between them: a stream's own, and that of the legacy stream with all blocking ones.
#include <stdlib.h>

#include "driver.h"

static CUstream stream_new(CUcontext context, unsigned int flags, int priority) {
    CUstream stream = handle_new(STREAM, sizeof *stream);
    stream->context = context;
    stream->flags = flags;
    stream->priority = priority;
    return stream;
}

static CUstream per_thread(CUcontext context) {
    for (struct Handle *handle = handles(STREAM); handle != NULL; handle = handle->next) {
        CUstream stream = (CUstream)handle;
        if (stream->per_thread && stream->context == context && pthread_equal(stream->thread, pthread_self())) return stream;
    }
    CUstream stream = stream_new(context, 0, 0);
    stream->per_thread = true;
    stream->thread = pthread_self();
    return stream;
}

CUresult stream_find(CUstream handle, CUstream *stream) {
    const uintptr_t number = (uintptr_t)handle;
    if (number <= 2) {
        *stream = number == 2 ? per_thread(context_current()) : context_current()->legacy;
        return CUDA_SUCCESS;
    }
    if (!handle_live(STREAM, handle)) return refuse(CUDA_ERROR_INVALID_HANDLE, "%p is no stream, or was destroyed", (void *)handle);
    if (!handle->context->alive) return refuse(CUDA_ERROR_CONTEXT_IS_DESTROYED, "the stream's context was destroyed");
    if (handle->context->broken != CUDA_SUCCESS) return refuse(handle->context->broken, "the stream's context broke earlier");
    *stream = handle;
    return CUDA_SUCCESS;
}

static bool blocking(CUstream stream) { return !stream->legacy && (stream->flags & CU_STREAM_NON_BLOCKING) == 0; }

// The legacy stream waits for every blocking stream, and each of them for it.
static void order(struct Op *op, CUstream stream) {
    op_after(op, stream->last);
    if (blocking(stream)) op_after(op, stream->context->legacy->last);
    if (!stream->legacy) return;
    for (struct Handle *handle = handles(STREAM); handle != NULL; handle = handle->next) {
        CUstream other = (CUstream)handle;
        if (other->context == stream->context && blocking(other)) op_after(op, other->last);
    }
}

CUresult stream_submit(CUstream stream, struct Work work, struct Op *extra, struct Op **queued) {
    if (queued != NULL) *queued = NULL;
    CUresult refused = capture_refuses_legacy(stream);
    if (refused == CUDA_SUCCESS && stream->capture != NULL) {
        work_note(&work, stream, true);
        return capture_add(stream, work);
    }
    if (refused != CUDA_SUCCESS || settings.mode == MODE_NO_WORK) {
        work_free(&work);
        return refused;
    }
    work_note(&work, stream, false);
    struct Op *op = op_new(stream->context, work);
    order(op, stream);
    op_after(op, extra);
    op_release(stream->last);
    stream->last = op;
    ++op->refs;
    queue_add(op);
    if (queued != NULL) *queued = op;
    return CUDA_SUCCESS;
}

static CUresult create(CUstream *stream, unsigned int flags, int priority) {
    if ((flags & ~(unsigned int)CU_STREAM_NON_BLOCKING) != 0) return refuse(CUDA_ERROR_INVALID_VALUE, "flags %u", flags);
    *stream = stream_new(context_current(), flags, priority);
    return CUDA_SUCCESS;
}

API cuStreamCreate(CUstream *stream, unsigned int flags) {
    CALL_IN_CONTEXT();
    return create(stream, flags, 0);
}

API cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int priority) {
    CALL_IN_CONTEXT();
    return create(stream, flags, priority);
}

// What is queued in it still runs. It needs no current context, since destructors call it in any thread.
API cuStreamDestroy_v2(CUstream handle) {
    CALL();
    if ((uintptr_t)handle <= 2) return refuse(CUDA_ERROR_INVALID_HANDLE, "a default stream is not destroyed");
    CUstream stream;
    TRY(stream_find(handle, &stream));
    if (stream->capture != NULL) capture_invalidate(stream->capture, "a stream of it was destroyed");
    op_release(stream->last);
    nodes_clear(&stream->tail);
    handle_delete(STREAM, stream);
    note("destroyed a stream");
    return CUDA_SUCCESS;
}

// Waiting for a stream that is captured, or for the legacy stream while a blocking one is, breaks that capture.
static CUresult may_wait(CUstream stream) {
    TRY(capture_refuses_legacy(stream));
    if (stream->capture != NULL) {
        if (stream->capture->invalid) return refuse(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture is invalid");
        capture_invalidate(stream->capture, "its stream was waited for");
        return refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the stream is capturing");
    }
    return capture_refuses_unsafe();
}

API cuStreamSynchronize(CUstream handle) {
    CALL_IN_CONTEXT();
    CUstream stream;
    TRY(stream_find(handle, &stream));
    TRY(may_wait(stream));
    struct Op *mark;
    TRY(stream_submit(stream, (struct Work){.kind = WORK_MARK}, NULL, &mark));
    return queue_drive(mark);
}

API cuStreamQuery(CUstream handle) {
    CALL_IN_CONTEXT();
    CUstream stream;
    TRY(stream_find(handle, &stream));
    TRY(may_wait(stream));
    struct Op *op = stream->last;
    if (op == NULL) return CUDA_SUCCESS;
    ++op->refs;
    if (settings.mode == MODE_STEPPING) queue_step(op);
    const bool done = op->done;
    op_release(op);
    if (context_current()->broken != CUDA_SUCCESS) return context_current()->broken;
    return done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

API cuStreamGetCtx(CUstream handle, CUcontext *context) {
    CALL_IN_CONTEXT();
    CUstream stream;
    TRY(stream_find(handle, &stream));
    *context = stream->context;
    return CUDA_SUCCESS;
}

API cuStreamGetCtx_v2(CUstream handle, CUcontext *context, CUgreenCtx *green) {
    CALL_IN_CONTEXT();
    CUstream stream;
    TRY(stream_find(handle, &stream));
    *context = stream->context;
    if (green != NULL) *green = NULL;
    return CUDA_SUCCESS;
}

API cuStreamGetDevice(CUstream handle, CUdevice *device) {
    CALL_IN_CONTEXT();
    CUstream stream;
    TRY(stream_find(handle, &stream));
    *device = stream->context->device;
    return CUDA_SUCCESS;
}

API cuStreamGetFlags(CUstream handle, unsigned int *flags) {
    CALL_IN_CONTEXT();
    CUstream stream;
    TRY(stream_find(handle, &stream));
    *flags = stream->flags;
    return CUDA_SUCCESS;
}

API cuStreamGetPriority(CUstream handle, int *priority) {
    CALL_IN_CONTEXT();
    CUstream stream;
    TRY(stream_find(handle, &stream));
    *priority = stream->priority;
    return CUDA_SUCCESS;
}
