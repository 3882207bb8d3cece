// Capture of streams into graphs, with the driver's rules: what may not be done meanwhile fails, names itself and spoils the capture, and a
// spoiled capture stays open until it is ended.
#include <stdlib.h>
#include <string.h>

#include "driver.h"

static struct Capture *captures;
static unsigned long long captures_made;
static __thread CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

void nodes_copy(struct NodeSet *to, const struct NodeSet *from) {
    if (to == from) return;
    nodes_clear(to);
    for (size_t i = 0; i < from->count; ++i) nodes_add(to, from->nodes[i]);
}

void nodes_add(struct NodeSet *set, CUgraphNode node) {
    for (size_t i = 0; i < set->count; ++i) {
        if (set->nodes[i] == node) return;
    }
    set->nodes = realloc(set->nodes, (set->count + 1) * sizeof(CUgraphNode));
    set->nodes[set->count++] = node;
}

void nodes_clear(struct NodeSet *set) {
    free(set->nodes);
    *set = (struct NodeSet){NULL, 0};
}

struct Capture *capture_by_id(unsigned long long id) {
    for (struct Capture *capture = captures; capture != NULL; capture = capture->next) {
        if (capture->id == id) return capture;
    }
    return NULL;
}

void capture_invalidate(struct Capture *capture, const char *why) {
    if (!capture->invalid) note("capture %llu is invalid: %s", capture->id, why);
    capture->invalid = true;
}

// ---- what may not be done while something is captured ----

static bool forbids_unsafe(const struct Capture *capture) {
    if (thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED) return false;
    if (pthread_equal(capture->thread, pthread_self())) return capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED;
    return capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL && thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
}

CUresult capture_refuses_unsafe(void) {
    bool refused = false;
    for (struct Capture *capture = captures; capture != NULL; capture = capture->next) {
        if (!forbids_unsafe(capture)) continue;
        refused = true;
        capture_invalidate(capture, "a call that it forbids was made");
    }
    return refused ? refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a capture forbids it") : CUDA_SUCCESS;
}

CUresult capture_refuses_context(CUcontext context) {
    bool refused = false;
    for (struct Capture *capture = captures; capture != NULL; capture = capture->next) {
        if (capture->origin->context != context) continue;
        refused = true;
        capture_invalidate(capture, "its context was waited for");
    }
    return refused ? refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a stream of the context is capturing") : CUDA_SUCCESS;
}

CUresult capture_refuses_legacy(CUstream stream) {
    bool refused = false;
    if (!stream->legacy) return CUDA_SUCCESS;
    for (struct Handle *handle = handles(STREAM); handle != NULL; handle = handle->next) {
        CUstream other = (CUstream)handle;
        if (other->capture == NULL || other->context != stream->context || (other->flags & CU_STREAM_NON_BLOCKING) != 0) continue;
        refused = true;
        capture_invalidate(other->capture, "the legacy stream was used");
    }
    return refused ? refuse(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "a blocking stream is capturing") : CUDA_SUCCESS;
}

// ---- nodes ----

CUresult capture_add(CUstream stream, struct Work work) {
    struct Capture *capture = stream->capture;
    if (capture->invalid) {
        work_free(&work);
        return refuse(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture is invalid");
    }
    CUgraphNode node = graph_add(capture->graph, work, &stream->tail);
    nodes_clear(&stream->tail);
    nodes_add(&stream->tail, node);
    return CUDA_SUCCESS;
}

CUresult capture_join(CUstream stream, CUevent event) {
    struct Capture *capture = capture_by_id(event->capture);
    if (capture == NULL) return refuse(CUDA_ERROR_CAPTURED_EVENT, "the event's capture has ended");
    if (capture->invalid) return refuse(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture is invalid");
    if (stream->legacy) {
        capture_invalidate(capture, "the legacy stream was to join it");
        return refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the legacy stream cannot be captured");
    }
    if (stream->capture != NULL && stream->capture != capture) {
        capture_invalidate(capture, "it was to be merged with another one");
        capture_invalidate(stream->capture, "it was to be merged with another one");
        return refuse(CUDA_ERROR_STREAM_CAPTURE_MERGE, "two captures would become one");
    }
    if (stream->capture == NULL) nodes_clear(&stream->tail);
    stream->capture = capture;
    for (size_t i = 0; i < event->tail.count; ++i) nodes_add(&stream->tail, event->tail.nodes[i]);
    return CUDA_SUCCESS;
}

// ---- beginning and ending ----

API cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
    CALL_IN_CONTEXT();
    CUstream stream;
    TRY(stream_find(handle, &stream));
    if (stream->legacy) return refuse(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the legacy stream cannot be captured");
    if (stream->capture != NULL) return refuse(CUDA_ERROR_ILLEGAL_STATE, "the stream is capturing already");
    struct Capture *capture = calloc(1, sizeof *capture);
    *capture = (struct Capture){
        .id = ++captures_made, .mode = mode, .thread = pthread_self(), .origin = stream, .graph = graph_new(stream->context), .next = captures};
    captures = capture;
    stream->capture = capture;
    nodes_clear(&stream->tail);
    note("capture %llu begins, mode %d", capture->id, (int)mode);
    return CUDA_SUCCESS;
}

static void mark_before(CUgraphNode node) {
    if (node->done) return;
    node->done = true;
    for (size_t i = 0; i < node->after.count; ++i) mark_before(node->after.nodes[i]);
}

// Whether a stream that joined holds work that the first stream does not come after.
static bool unjoined(const struct Capture *capture) {
    const struct NodeSet *all = &capture->graph->nodes;
    for (size_t i = 0; i < all->count; ++i) all->nodes[i]->done = false;
    for (size_t i = 0; i < capture->origin->tail.count; ++i) mark_before(capture->origin->tail.nodes[i]);
    for (size_t i = 0; i < all->count; ++i) {
        if (!all->nodes[i]->done) return true;
    }
    return false;
}

static void capture_end(struct Capture *capture) {
    for (struct Handle *handle = handles(STREAM); handle != NULL; handle = handle->next) {
        CUstream stream = (CUstream)handle;
        if (stream->capture != capture) continue;
        stream->capture = NULL;
        nodes_clear(&stream->tail);
    }
    for (struct Capture **link = &captures; *link != NULL; link = &(*link)->next) {
        if (*link != capture) continue;
        *link = capture->next;
        break;
    }
    free(capture);
}

void capture_forget_all(void) {
    while (captures != NULL) {
        graph_free(captures->graph);
        capture_end(captures);
    }
}

static CUresult end_refused(struct Capture *capture, CUstream stream) {
    if (capture->origin != stream) return refuse(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "the capture began in another stream");
    const bool mine = pthread_equal(capture->thread, pthread_self());
    if (!mine && capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED) {
        return refuse(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "the capture began in another thread");
    }
    return CUDA_SUCCESS;
}

API cuStreamEndCapture(CUstream handle, CUgraph *graph) {
    CALL_IN_CONTEXT();
    CUstream stream;
    TRY(stream_find(handle, &stream));
    struct Capture *capture = stream->capture;
    *graph = NULL;
    if (capture == NULL) return refuse(CUDA_ERROR_ILLEGAL_STATE, "the stream is not capturing");
    TRY(end_refused(capture, stream));
    CUresult result = CUDA_SUCCESS;
    if (capture->invalid) {
        result = refuse(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the capture is invalid");
    } else if (unjoined(capture)) {
        result = refuse(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "a stream that joined the capture did not come back");
    }
    if (result == CUDA_SUCCESS) {
        *graph = capture->graph;
    } else {
        graph_free(capture->graph);
    }
    note("capture %llu ends", capture->id);
    capture_end(capture);
    return result;
}

// ---- asking ----

static CUstreamCaptureStatus status_of(CUstream stream) {
    if (stream->capture == NULL) return CU_STREAM_CAPTURE_STATUS_NONE;
    return stream->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED : CU_STREAM_CAPTURE_STATUS_ACTIVE;
}

// Asking about the legacy stream spoils no capture, but is refused.
static CUresult may_be_asked(CUstream stream) {
    for (struct Handle *handle = handles(STREAM); stream->legacy && handle != NULL; handle = handle->next) {
        CUstream other = (CUstream)handle;
        if (other->capture == NULL || other->context != stream->context || (other->flags & CU_STREAM_NON_BLOCKING) != 0) continue;
        return refuse(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "a blocking stream is capturing");
    }
    return CUDA_SUCCESS;
}

API cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status) {
    CALL_IN_CONTEXT();
    CUstream stream;
    TRY(stream_find(handle, &stream));
    TRY(may_be_asked(stream));
    *status = status_of(stream);
    return CUDA_SUCCESS;
}

static CUresult info(CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *graph, const CUgraphNode **after, size_t *count) {
    CUstream stream;
    TRY(stream_find(handle, &stream));
    TRY(may_be_asked(stream));
    *status = status_of(stream);
    if (*status != CU_STREAM_CAPTURE_STATUS_ACTIVE) return CUDA_SUCCESS;
    if (id != NULL) *id = stream->capture->id;
    if (graph != NULL) *graph = stream->capture->graph;
    if (after != NULL) *after = stream->tail.nodes;
    if (count != NULL) *count = stream->tail.count;
    return CUDA_SUCCESS;
}

API cuStreamGetCaptureInfo_v2(
    CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *graph, const CUgraphNode **after, size_t *count) {
    CALL_IN_CONTEXT();
    return info(stream, status, id, graph, after, count);
}

API cuStreamGetCaptureInfo_v3(
    CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *graph, const CUgraphNode **after, const CUgraphEdgeData **edges,
    size_t *count) {
    CALL_IN_CONTEXT();
    static const CUgraphEdgeData plain[1024];  // zeros: each edge waits for all of its node
    if (edges != NULL) *edges = plain;
    return info(stream, status, id, graph, after, count);
}

API cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode) {
    CALL();
    const CUstreamCaptureMode before = thread_mode;
    thread_mode = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}
