// What was enqueued and has not run. An operation comes after others (its stream's last one, an event's, the legacy stream's), all of them
// enqueued before it, so the order of the list is an order in which everything may run. Nothing runs until somebody waits for it, and then
// only what that needs: whoever forgets to wait sees the memory as it was.
#include <stdlib.h>
#include <time.h>

#include "driver.h"

static struct Op *first, *last;
static size_t length;
static unsigned long generation;
static bool worker_started;

static double now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e3 * (double)time.tv_sec + 1e-6 * (double)time.tv_nsec;
}

struct Op *op_new(CUcontext context, struct Work work) {
    struct Op *op = calloc(1, sizeof *op);
    op->context = context;
    op->work = work;
    op->refs = 1;
    return op;
}

void op_after(struct Op *op, struct Op *earlier) {
    if (earlier == NULL || earlier->done || earlier == op) return;
    op->after = realloc(op->after, (op->count + 1) * sizeof *op->after);
    op->after[op->count++] = earlier;
    ++earlier->refs;
}

static void forget_earlier(struct Op *op) {
    for (size_t i = 0; i < op->count; ++i) op_release(op->after[i]);
    free(op->after);
    op->after = NULL;
    op->count = 0;
}

void op_release(struct Op *op) {
    if (op == NULL || --op->refs > 0) return;
    forget_earlier(op);
    work_free(&op->work);
    free(op);
}

// Takes over the caller's reference.
void queue_add(struct Op *op) {
    op->before = last;
    if (last != NULL) last->next = op;
    if (first == NULL) first = op;
    last = op;
    ++length;
    tell_change();
}

static void finish(struct Op *op) {
    op->done = true;
    op->running = false;
    op->time_ms = now_ms();
    if (op->before != NULL) op->before->next = op->next;
    if (op->next != NULL) op->next->before = op->before;
    if (first == op) first = op->next;
    if (last == op) last = op->before;
    op->before = op->next = NULL;
    --length;
    forget_earlier(op);
    tell_change();
    op_release(op);
}

static void run(struct Op *op) {
    op->running = true;
    op->runner = pthread_self();
    CUcontext context = op->context;
    if (context->broken == CUDA_SUCCESS && context->alive) {
        const CUresult result = work_run(&op->work);
        if (result != CUDA_SUCCESS && context->broken == CUDA_SUCCESS) {
            context->broken = result;
            note("context %llu broke: %d", context->id, (int)result);
        }
    }
    finish(op);
}

// Some of what is queued, in order, each with a reference.
struct Batch {
    struct Op **ops;
    size_t count;
};

// What `target` needs, itself included.
static struct Batch needed_for(struct Op *target) {
    struct Batch batch = {NULL, 0};
    target->needed = ++generation;
    for (struct Op *op = target; op != NULL; op = op->before) {
        if (op->needed != generation) continue;
        ++batch.count;
        for (size_t i = 0; i < op->count; ++i) op->after[i]->needed = generation;
    }
    batch.ops = malloc(batch.count * sizeof(struct Op *));
    size_t place = batch.count;
    for (struct Op *op = target; op != NULL; op = op->before) {
        if (op->needed != generation) continue;
        batch.ops[--place] = op;
        ++op->refs;
    }
    return batch;
}

// What there is now of a context (NULL: of all).
static struct Batch all_of(CUcontext context) {
    struct Batch batch = {malloc((length + 1) * sizeof(struct Op *)), 0};
    for (struct Op *op = first; op != NULL; op = op->next) {
        if (context != NULL && op->context != context) continue;
        batch.ops[batch.count++] = op;
        ++op->refs;
    }
    return batch;
}

static void batch_end(struct Batch *batch) {
    for (size_t i = 0; i < batch->count; ++i) op_release(batch->ops[i]);
    free(batch->ops);
}

// Runs the operation, or waits for the thread that does.
static CUresult complete(struct Op *op) {
    while (!op->done && op->context->broken == CUDA_SUCCESS) {
        if (op->running && pthread_equal(op->runner, pthread_self())) {
            return refuse(CUDA_ERROR_NOT_PERMITTED, "a callback waits for its own stream");
        }
        if (op->running || settings.hung) {
            wait_for_change();
        } else {
            run(op);
        }
    }
    return op->context->broken;
}

static CUresult complete_all(struct Batch batch) {
    CUresult result = CUDA_SUCCESS;
    for (size_t i = 0; i < batch.count && result == CUDA_SUCCESS; ++i) result = complete(batch.ops[i]);
    batch_end(&batch);
    return result;
}

CUresult queue_drive(struct Op *target) {
    if (target == NULL) return CUDA_SUCCESS;
    CUcontext context = target->context;
    if (!target->done) TRY(complete_all(needed_for(target)));
    return context->broken;
}

// Lets the oldest operation run that `target` still needs.
void queue_step(struct Op *target) {
    if (target == NULL || target->done || settings.hung) return;
    struct Batch batch = needed_for(target);
    if (!batch.ops[0]->running) run(batch.ops[0]);
    batch_end(&batch);
}

// Runs all that is there now; what other threads add meanwhile is not waited for.
CUresult queue_drain(CUcontext context) {
    TRY(complete_all(all_of(context)));
    return context != NULL ? context->broken : CUDA_SUCCESS;
}

// Forgets what was enqueued in a context that broke; what is running meanwhile is left.
void queue_drop(CUcontext context) {
    for (struct Op *op = first; op != NULL;) {
        struct Op *next = op->next;
        if (op->context == context && !op->running) finish(op);
        op = next;
    }
}

size_t queue_length(void) { return length; }

static struct Op *runnable(void) {
    for (struct Op *op = first; op != NULL; op = op->next) {
        if (op->running || op->context->broken != CUDA_SUCCESS) continue;
        size_t waits = 0;
        for (size_t i = 0; i < op->count; ++i) waits += !op->after[i]->done;
        if (waits == 0) return op;
    }
    return NULL;
}

static void *work_for_ever(void *unused) {
    lock();
    for (;;) {
        struct Op *op = settings.mode == MODE_WORKER && !settings.hung ? runnable() : NULL;
        if (op == NULL) {
            wait_for_change();
        } else {
            run(op);
        }
    }
    return unused;
}

void queue_start_worker(void) {
    pthread_t thread;
    if (worker_started) return;
    worker_started = pthread_create(&thread, NULL, work_for_ever, NULL) == 0;
    if (worker_started) pthread_detach(thread);
}
