// What the parts of the stub share. One lock guards all of it; work itself (copies, kernels, callbacks) runs without the lock, since a
// Python callback needs the interpreter's lock, which another thread may hold while it waits for ours.
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "cuda_abi.h"

#define EXPORTED __attribute__((visibility("default")))
#define API EXPORTED CUresult

// ---- calls (calls.c) ----

struct Counter {
    const char *name;
    unsigned long count;
    bool known;
    struct Counter *next;
};

struct Call {
    const char *outer;
};

struct Call call_begin(struct Counter *counter);
void call_end(struct Call *call);

// Every driver function begins so: the call is counted, and the lock held until the function returns.
#define CALL()                                    \
    static struct Counter counter_ = {__func__, 0, false, NULL}; \
    struct Call call_ __attribute__((cleanup(call_end), unused)) = call_begin(&counter_)

#define TRY(result)                             \
    do {                                        \
        CUresult tried_ = (result);             \
        if (tried_ != CUDA_SUCCESS) return tried_; \
    } while (0)

// For functions that need a current context that works.
#define CALL_IN_CONTEXT() \
    CALL();               \
    TRY(context_refusal())

void lock(void);
void unlock(void);
void wait_for_change(void);
void tell_change(void);
// Notes the line in the log; `refuse` also names the running call and gives the code back.
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
CUresult refuse(CUresult code, const char *format, ...) __attribute__((format(printf, 2, 3)));
// Something that a real GPU would not report and that is a mistake all the same.
void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
// What has to run after the lock is given up, as destructors of user objects do.
void after_call(CUhostFn function, void *argument);

// ---- the stub's settings (control.c) ----

enum Mode { MODE_LAZY, MODE_STEPPING, MODE_WORKER, MODE_NO_WORK };

struct Settings {
    enum Mode mode;
    bool hung, graphs_do_nothing;
    long break_after;  // so many pieces of work until the context breaks; negative: never
    CUresult break_code;
    size_t limit, used;
    unsigned long faults;
    bool initialised;
};
extern struct Settings settings;

// ---- the GPUs (device.c) ----

enum { GPUS = 2 };

CUresult device_known(CUdevice device);
int driver_version(void);
int capability(int part);

// ---- handles (handles.c): what the caller holds is looked up before it is believed ----

enum Kind { CONTEXT, STREAM, EVENT, GRAPH, EXEC, LIBRARY, KERNEL, MODULE, FUNCTION, POOL, USER_OBJECT, KINDS };

struct Handle {
    struct Handle *next;
};

void *handle_new(enum Kind kind, size_t size);
bool handle_live(enum Kind kind, const void *handle);
void handle_forget(enum Kind kind, void *handle);
void handle_delete(enum Kind kind, void *handle);
struct Handle *handles(enum Kind kind);

// ---- contexts (contexts.c) ----

struct CUctx_st {
    struct Handle handle;
    unsigned long long id;
    CUdevice device;
    bool primary, alive;
    int retained;
    CUresult broken;
    CUstream legacy;
};

CUcontext context_current(void);
CUresult context_refusal(void);
CUcontext context_primary(CUdevice device);
bool in_callback(void);
void set_in_callback(bool inside);

// ---- work and the queue (work.c, queue.c) ----

enum WorkKind { WORK_MARK, WORK_COPY, WORK_FILL, WORK_KERNEL, WORK_HOST, WORK_GRAPH, WORK_ALLOC, WORK_FREE };

struct Work {
    enum WorkKind kind;
    unsigned char *to;
    const unsigned char *from;
    size_t size;
    bool staged;             // `from` is a copy of pageable memory, which is ours
    unsigned int value, width;
    CUkernel kernel;
    int dims[6];
    uint64_t *arguments;     // one slot of 8 bytes a parameter
    CUhostFn function;
    void *argument;
    bool may_call;           // the callback may call the driver
    CUgraphExec exec;
    struct Block *block;
};

struct Op {
    struct Work work;
    CUcontext context;
    int refs;
    bool done, running;
    pthread_t runner;
    double time_ms;
    unsigned long needed;
    struct Op **after;
    size_t count;
    struct Op *before, *next;
};

// With the lock held it gives it up meanwhile. Answers an error that breaks the context.
CUresult work_run(struct Work *work);
struct Work work_copy(const struct Work *work);
void work_free(struct Work *work);
void work_note(const struct Work *work, CUstream stream, bool captured);

struct Op *op_new(CUcontext context, struct Work work);
void op_after(struct Op *op, struct Op *earlier);
void op_release(struct Op *op);
void queue_add(struct Op *op);
CUresult queue_drive(struct Op *op);
void queue_step(struct Op *op);
CUresult queue_drain(CUcontext context);
void queue_drop(CUcontext context);
size_t queue_length(void);
void queue_start_worker(void);

// ---- streams (streams.c) ----

struct NodeSet {
    CUgraphNode *nodes;
    size_t count;
};

struct CUstream_st {
    struct Handle handle;
    CUcontext context;
    unsigned int flags;
    int priority;
    bool legacy;
    bool per_thread;
    pthread_t thread;
    struct Op *last;
    struct Capture *capture;
    struct NodeSet tail;  // what the next captured node comes after
};

CUresult stream_find(CUstream handle, CUstream *stream);
// Queues the work, or captures it. `op`, where given, gets the queued operation (NULL: captured), not referenced.
CUresult stream_submit(CUstream stream, struct Work work, struct Op *extra, struct Op **op);

// ---- events (events.c) ----

struct CUevent_st {
    struct Handle handle;
    CUcontext context;
    unsigned int flags;
    struct Op *op;
    unsigned long long capture;  // the id of the capture that it was last recorded in; 0: none
    struct NodeSet tail;
};

// ---- capture and graphs (capture.c, graphs.c) ----

struct Capture {
    unsigned long long id;
    CUstreamCaptureMode mode;
    pthread_t thread;
    CUstream origin;
    CUgraph graph;
    bool invalid;
    struct Capture *next;
};

CUresult capture_refuses_unsafe(void);
CUresult capture_refuses_context(CUcontext context);
CUresult capture_refuses_legacy(CUstream stream);
CUresult capture_add(CUstream stream, struct Work work);
CUresult capture_join(CUstream stream, CUevent event);
void capture_invalidate(struct Capture *capture, const char *why);
void capture_forget_all(void);
struct Capture *capture_by_id(unsigned long long id);
void nodes_copy(struct NodeSet *to, const struct NodeSet *from);
void nodes_add(struct NodeSet *set, CUgraphNode node);
void nodes_clear(struct NodeSet *set);

struct CUgraphNode_st {
    struct Work work;
    struct NodeSet after;
    size_t index;
    bool done;
};

struct CUgraph_st {
    struct Handle handle;
    CUcontext context;
    struct NodeSet nodes;
    CUuserObject *kept;
    size_t kept_count;
    bool capturing;
};

struct CUgraphExec_st {
    struct Handle handle;
    int refs;
    CUcontext context;
    struct NodeSet nodes;
    CUuserObject *kept;
    size_t kept_count;
    struct Op *last;
};

CUgraphNode graph_add(CUgraph graph, struct Work work, const struct NodeSet *after);
CUgraph graph_new(CUcontext context);
void graph_free(CUgraph graph);
void exec_release(CUgraphExec exec);
CUresult exec_run(CUgraphExec exec);
void graph_nodes_free(struct NodeSet *nodes);

// ---- memory (memory.c) ----

enum { POISON = 0xDB };

struct Block {
    unsigned char *start;
    size_t size, capacity;
    bool pinned, pooled, graphs, live;
    bool poisoned;
    CUdevice device;
    CUcontext context;
    CUmemoryPool pool;
    struct Op *freed;  // the operation after which it may be used again
    struct Block *next;
    struct Block *next_free;
};

struct Block *block_of(const void *address);
void block_check(struct Block *block);
void block_poison(struct Block *block, size_t size);

// ---- kernels (modules.c) ----

// What a host library holds for each kernel: `stub_kernel_<name>`.
struct HostKernel {
    int (*run)(const int *dims, uint64_t *arguments);
    int count;
    const unsigned char *sizes;     // of each parameter, in bytes
    const unsigned char *pointers;  // whether it is an address
    int max_threads;
};

struct CUkern_st {
    struct Handle handle;
    char name[96];
    CUlibrary library;
    const struct HostKernel *host;
};

CUresult kernel_run(CUkernel kernel, const int *dims, uint64_t *arguments);
void kernel_check(CUkernel kernel, const uint64_t *arguments);
