// Contexts: the primary one of each GPU, others, and which is current in a thread.
#include <stdlib.h>

#include "driver.h"

enum { DEEPEST = 32 };

static CUcontext primaries[GPUS];
static unsigned long long contexts_made;
static __thread CUcontext stack[DEEPEST];
static __thread int depth;
static __thread bool inside_callback;

bool in_callback(void) { return inside_callback; }

void set_in_callback(bool inside) { inside_callback = inside; }

CUcontext context_current(void) { return depth > 0 ? stack[depth - 1] : NULL; }

CUcontext context_primary(CUdevice device) { return primaries[device]; }

static CUcontext context_new(CUdevice device, bool is_primary) {
    CUcontext context = handle_new(CONTEXT, sizeof *context);
    context->device = device;
    context->id = ++contexts_made;
    context->primary = is_primary;
    context->alive = true;
    context->legacy = handle_new(STREAM, sizeof *context->legacy);
    context->legacy->context = context;
    context->legacy->legacy = true;
    return context;
}

// The handle stays known, so that using it later is told apart from using nonsense.
static void context_end(CUcontext context) {
    queue_drain(context);
    context->alive = false;
    context->broken = CUDA_SUCCESS;
    for (struct Handle *handle = handles(STREAM); handle != NULL; handle = handle->next) {
        CUstream stream = (CUstream)handle;
        if (stream->context != context || stream->capture == NULL) continue;
        capture_invalidate(stream->capture, "its context was destroyed");
    }
    note("context %llu destroyed", context->id);
}

CUresult context_refusal(void) {
    if (!settings.initialised) return refuse(CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called");
    if (inside_callback) return refuse(CUDA_ERROR_NOT_PERMITTED, "a host callback may not call the driver");
    CUcontext context = context_current();
    if (context == NULL) return refuse(CUDA_ERROR_INVALID_CONTEXT, "no context is current in this thread");
    if (!context->alive) return refuse(CUDA_ERROR_CONTEXT_IS_DESTROYED, "the current context was destroyed");
    if (context->broken != CUDA_SUCCESS) return refuse(context->broken, "the context broke earlier");
    return CUDA_SUCCESS;
}

static CUresult context_known(CUcontext context) {
    return handle_live(CONTEXT, context) ? CUDA_SUCCESS : refuse(CUDA_ERROR_INVALID_CONTEXT, "%p is no context", (void *)context);
}

API cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    CALL();
    if (!settings.initialised) return refuse(CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called");
    TRY(device_known(device));
    if (primaries[device] == NULL) primaries[device] = context_new(device, true);
    CUcontext primary = primaries[device];
    primary->alive = true;
    ++primary->retained;
    *context = primary;
    return primary->broken;
}

API cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    CALL();
    TRY(device_known(device));
    CUcontext primary = primaries[device];
    if (primary == NULL || primary->retained == 0) return refuse(CUDA_ERROR_INVALID_CONTEXT, "it was not retained");
    if (--primary->retained == 0) context_end(primary);
    return CUDA_SUCCESS;
}

API cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active) {
    CALL();
    TRY(device_known(device));
    CUcontext primary = primaries[device];
    *flags = 0;
    *active = primary != NULL && primary->alive;
    return CUDA_SUCCESS;
}

static CUresult create(CUcontext *context, CUdevice device) {
    TRY(device_known(device));
    if (depth == DEEPEST) return refuse(CUDA_ERROR_INVALID_VALUE, "too many contexts were pushed");
    *context = stack[depth++] = context_new(device, false);
    return CUDA_SUCCESS;
}

API cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device) {
    CALL();
    (void)flags;
    return create(context, device);
}

API cuCtxCreate_v4(CUcontext *context, CUctxCreateParams *params, unsigned int flags, CUdevice device) {
    CALL();
    (void)flags;
    return params == NULL ? create(context, device) : refuse(CUDA_ERROR_NOT_SUPPORTED, "parameters of a context");
}

API cuCtxDestroy_v2(CUcontext context) {
    CALL();
    TRY(context_known(context));
    if (context->primary || !context->alive) return refuse(CUDA_ERROR_INVALID_CONTEXT, "it cannot be destroyed");
    context_end(context);
    if (context_current() == context) --depth;
    return CUDA_SUCCESS;
}

API cuCtxGetCurrent(CUcontext *context) {
    CALL();
    if (!settings.initialised) return refuse(CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called");
    *context = context_current();
    return CUDA_SUCCESS;
}

API cuCtxSetCurrent(CUcontext context) {
    CALL();
    if (context == NULL) {
        if (depth > 0) --depth;
        return CUDA_SUCCESS;
    }
    TRY(context_known(context));
    if (!context->alive) return refuse(CUDA_ERROR_CONTEXT_IS_DESTROYED, "it was destroyed");
    if (depth == 0) depth = 1;
    stack[depth - 1] = context;
    return CUDA_SUCCESS;
}

API cuCtxPushCurrent_v2(CUcontext context) {
    CALL();
    TRY(context_known(context));
    if (depth == DEEPEST) return refuse(CUDA_ERROR_INVALID_VALUE, "too many contexts were pushed");
    stack[depth++] = context;
    return CUDA_SUCCESS;
}

API cuCtxPopCurrent_v2(CUcontext *context) {
    CALL();
    if (depth == 0) return refuse(CUDA_ERROR_INVALID_CONTEXT, "no context is current");
    CUcontext top = stack[--depth];
    if (context != NULL) *context = top;
    return CUDA_SUCCESS;
}

API cuCtxGetDevice(CUdevice *device) {
    CALL();
    if (context_current() == NULL) return refuse(CUDA_ERROR_INVALID_CONTEXT, "no context is current in this thread");
    *device = context_current()->device;
    return CUDA_SUCCESS;
}

API cuCtxGetDevice_v2(CUdevice *device, CUcontext context) {
    CALL();
    if (context == NULL) context = context_current();
    TRY(context_known(context));
    *device = context->device;
    return CUDA_SUCCESS;
}

API cuCtxGetId(CUcontext context, unsigned long long *id) {
    CALL();
    if (context == NULL) context = context_current();
    TRY(context_known(context));
    *id = context->id;
    return CUDA_SUCCESS;
}

API cuCtxGetFlags(unsigned int *flags) {
    CALL_IN_CONTEXT();
    *flags = 0;
    return CUDA_SUCCESS;
}

API cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    CALL_IN_CONTEXT();
    if (least != NULL) *least = 0;
    if (greatest != NULL) *greatest = -5;
    return CUDA_SUCCESS;
}

static CUresult synchronize(CUcontext context) {
    TRY(capture_refuses_context(context));
    return queue_drain(context);
}

API cuCtxSynchronize(void) {
    CALL_IN_CONTEXT();
    return synchronize(context_current());
}

API cuCtxSynchronize_v2(CUcontext context) {
    CALL();
    if (context == NULL) {
        TRY(context_refusal());
        context = context_current();
    }
    TRY(context_known(context));
    if (context->broken != CUDA_SUCCESS) return refuse(context->broken, "the context broke earlier");
    return synchronize(context);
}
