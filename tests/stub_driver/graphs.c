// Graphs: nodes with the addresses that they were captured with. A launch runs them in the least expected order that their edges allow.
#include <stdlib.h>
#include <string.h>

#include "driver.h"

struct CUuserObject_st {
    struct Handle handle;
    void *value;
    CUhostFn destroy;
    unsigned int refs;
};

CUgraph graph_new(CUcontext context) {
    CUgraph graph = handle_new(GRAPH, sizeof *graph);
    graph->context = context;
    return graph;
}

CUgraphNode graph_add(CUgraph graph, struct Work work, const struct NodeSet *after) {
    CUgraphNode node = calloc(1, sizeof *node);
    node->work = work;
    node->index = graph->nodes.count;
    nodes_copy(&node->after, after);
    nodes_add(&graph->nodes, node);
    return node;
}

void graph_nodes_free(struct NodeSet *nodes) {
    for (size_t i = 0; i < nodes->count; ++i) {
        work_free(&nodes->nodes[i]->work);
        nodes_clear(&nodes->nodes[i]->after);
        free(nodes->nodes[i]);
    }
    nodes_clear(nodes);
}

// ---- what a graph keeps alive ----

static void object_release(CUuserObject object, unsigned int count) {
    object->refs -= count < object->refs ? count : object->refs;
    if (object->refs > 0) return;
    after_call(object->destroy, object->value);
    handle_delete(USER_OBJECT, object);
}

static void keep(CUuserObject **kept, size_t *kept_count, CUuserObject object) {
    *kept = realloc(*kept, (*kept_count + 1) * sizeof(CUuserObject));
    (*kept)[(*kept_count)++] = object;
}

static void release_all(CUuserObject *kept, size_t count) {
    for (size_t i = 0; i < count; ++i) object_release(kept[i], 1);
    free(kept);
}

API cuUserObjectCreate(CUuserObject *object, void *value, CUhostFn destroy, unsigned int refs, unsigned int flags) {
    CALL();
    (void)flags;
    *object = handle_new(USER_OBJECT, sizeof **object);
    (*object)->value = value;
    (*object)->destroy = destroy;
    (*object)->refs = refs;
    return CUDA_SUCCESS;
}

API cuUserObjectRetain(CUuserObject object, unsigned int count) {
    CALL();
    if (!handle_live(USER_OBJECT, object)) return refuse(CUDA_ERROR_INVALID_VALUE, "that is no user object");
    object->refs += count;
    return CUDA_SUCCESS;
}

API cuUserObjectRelease(CUuserObject object, unsigned int count) {
    CALL();
    if (!handle_live(USER_OBJECT, object)) return refuse(CUDA_ERROR_INVALID_VALUE, "that is no user object");
    object_release(object, count);
    return CUDA_SUCCESS;
}

API cuGraphRetainUserObject(CUgraph graph, CUuserObject object, unsigned int count, unsigned int flags) {
    CALL();
    if (!handle_live(GRAPH, graph) || !handle_live(USER_OBJECT, object)) return refuse(CUDA_ERROR_INVALID_VALUE, "a handle is stale");
    if ((flags & 1) == 0) object->refs += count;  // 1: the caller's own references become the graph's
    for (unsigned int i = 0; i < count; ++i) keep(&graph->kept, &graph->kept_count, object);
    return CUDA_SUCCESS;
}

API cuGraphReleaseUserObject(CUgraph graph, CUuserObject object, unsigned int count) {
    CALL();
    if (!handle_live(GRAPH, graph)) return refuse(CUDA_ERROR_INVALID_VALUE, "that is no graph");
    for (size_t i = graph->kept_count; i-- > 0 && count > 0;) {
        if (graph->kept[i] != object) continue;
        graph->kept[i] = graph->kept[--graph->kept_count];
        object_release(object, 1);
        --count;
    }
    return count == 0 ? CUDA_SUCCESS : refuse(CUDA_ERROR_INVALID_VALUE, "the graph does not keep it");
}

// ---- graphs ----

void graph_free(CUgraph graph) {
    graph_nodes_free(&graph->nodes);
    release_all(graph->kept, graph->kept_count);
    handle_delete(GRAPH, graph);
}

static CUresult graph_known(CUgraph graph) {
    return handle_live(GRAPH, graph) ? CUDA_SUCCESS : refuse(CUDA_ERROR_INVALID_VALUE, "%p is no graph, or was destroyed", (void *)graph);
}

API cuGraphDestroy(CUgraph graph) {
    CALL();
    TRY(graph_known(graph));
    graph_free(graph);
    return CUDA_SUCCESS;
}

API cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count) {
    CALL();
    TRY(graph_known(graph));
    if (nodes != NULL) {
        for (size_t i = 0; i < *count; ++i) nodes[i] = i < graph->nodes.count ? graph->nodes.nodes[i] : NULL;
    }
    if (nodes == NULL || *count > graph->nodes.count) *count = graph->nodes.count;
    return CUDA_SUCCESS;
}

API cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType *type) {
    CALL();
    switch (node->work.kind) {
        case WORK_COPY: *type = CU_GRAPH_NODE_TYPE_MEMCPY; break;
        case WORK_FILL: *type = CU_GRAPH_NODE_TYPE_MEMSET; break;
        case WORK_KERNEL: *type = CU_GRAPH_NODE_TYPE_KERNEL; break;
        case WORK_HOST: *type = CU_GRAPH_NODE_TYPE_HOST; break;
        case WORK_GRAPH: *type = CU_GRAPH_NODE_TYPE_GRAPH; break;
        case WORK_ALLOC: *type = CU_GRAPH_NODE_TYPE_MEM_ALLOC; break;
        case WORK_FREE: *type = CU_GRAPH_NODE_TYPE_MEM_FREE; break;
        case WORK_MARK: *type = CU_GRAPH_NODE_TYPE_EMPTY; break;
    }
    return CUDA_SUCCESS;
}

// ---- executable graphs ----

static struct NodeSet copied(const struct NodeSet *from) {
    struct NodeSet to = {calloc(from->count + 1, sizeof(CUgraphNode)), from->count};
    for (size_t i = 0; i < from->count; ++i) {
        to.nodes[i] = calloc(1, sizeof(struct CUgraphNode_st));
        to.nodes[i]->index = i;
        to.nodes[i]->work = work_copy(&from->nodes[i]->work);
        const struct NodeSet *after = &from->nodes[i]->after;
        for (size_t k = 0; k < after->count; ++k) nodes_add(&to.nodes[i]->after, to.nodes[after->nodes[k]->index]);
    }
    return to;
}

static CUresult instantiate(CUgraphExec *exec, CUgraph graph) {
    TRY(graph_known(graph));
    *exec = handle_new(EXEC, sizeof **exec);
    (*exec)->refs = 1;
    (*exec)->context = graph->context;
    (*exec)->nodes = copied(&graph->nodes);
    for (size_t i = 0; i < graph->kept_count; ++i) {
        ++graph->kept[i]->refs;
        keep(&(*exec)->kept, &(*exec)->kept_count, graph->kept[i]);
    }
    note("instantiated a graph of %zu nodes", graph->nodes.count);
    return CUDA_SUCCESS;
}

API cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    CALL_IN_CONTEXT();
    (void)flags;
    return instantiate(exec, graph);
}

API cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params) {
    CALL_IN_CONTEXT();
    params->result_out = 0;
    params->hErrNode_out = NULL;
    return instantiate(exec, graph);
}

void exec_release(CUgraphExec exec) {
    if (--exec->refs > 0) return;
    graph_nodes_free(&exec->nodes);
    release_all(exec->kept, exec->kept_count);
    op_release(exec->last);
    free(exec);
}

static CUresult exec_known(CUgraphExec exec) {
    return handle_live(EXEC, exec) ? CUDA_SUCCESS : refuse(CUDA_ERROR_INVALID_VALUE, "%p is no graph, or was destroyed", (void *)exec);
}

API cuGraphExecDestroy(CUgraphExec exec) {
    CALL();
    TRY(exec_known(exec));
    const CUresult broken = exec->context->broken;
    note("destroyed a graph");
    handle_forget(EXEC, exec);
    op_release(exec->last);  // a queued launch holds the graph, so the graph must not hold it
    exec->last = NULL;
    exec_release(exec);
    return broken;
}

static bool same_shape(const struct NodeSet *first, const struct NodeSet *second) {
    if (first->count != second->count) return false;
    for (size_t i = 0; i < first->count; ++i) {
        const CUgraphNode one = first->nodes[i], other = second->nodes[i];
        if (one->work.kind != other->work.kind || one->after.count != other->after.count) return false;
        for (size_t k = 0; k < one->after.count; ++k) {
            if (one->after.nodes[k]->index != other->after.nodes[k]->index) return false;
        }
    }
    return true;
}

API cuGraphExecUpdate_v2(CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo *found) {
    CALL_IN_CONTEXT();
    TRY(exec_known(exec));
    TRY(graph_known(graph));
    memset(found, 0, sizeof *found);
    if (!same_shape(&exec->nodes, &graph->nodes)) {
        found->result = 2;  // CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED
        return refuse(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE, "the graph has another shape");
    }
    TRY(queue_drive(exec->last));  // what was launched before runs as it was
    struct NodeSet before = exec->nodes;
    exec->nodes = copied(&graph->nodes);
    graph_nodes_free(&before);
    return CUDA_SUCCESS;
}

// ---- one copy of a graph ----

// The graph that a node is of; NULL: it was destroyed, and the node with it.
static CUgraph graph_of(CUgraphNode node) {
    for (struct Handle *handle = handles(GRAPH); handle != NULL; handle = handle->next) {
        CUgraph graph = (CUgraph)handle;
        for (size_t i = 0; i < graph->nodes.count; ++i) {
            if (graph->nodes.nodes[i] == node) return graph;
        }
    }
    return NULL;
}

static CUresult copy_known(CUgraphNode node) {
    if (graph_of(node) == NULL) return refuse(CUDA_ERROR_INVALID_VALUE, "%p is no node, or its graph was destroyed", (void *)node);
    return node->work.kind == WORK_COPY ? CUDA_SUCCESS : refuse(CUDA_ERROR_INVALID_VALUE, "the node is no copy");
}

static bool on_host(const void *address) {
    const struct Block *block = block_of(address);
    return block == NULL || block->pinned;
}

API cuGraphMemcpyNodeGetParams(CUgraphNode node, CUDA_MEMCPY3D *what) {
    CALL();
    TRY(copy_known(node));
    const struct Work *work = &node->work;
    *what = (CUDA_MEMCPY3D){.WidthInBytes = work->size, .Height = 1, .Depth = 1};
    what->srcMemoryType = on_host(work->from) ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
    what->dstMemoryType = on_host(work->to) ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
    if (what->srcMemoryType == CU_MEMORYTYPE_HOST) what->srcHost = work->from;
    else what->srcDevice = (CUdeviceptr)(uintptr_t)work->from;
    if (what->dstMemoryType == CU_MEMORYTYPE_HOST) what->dstHost = work->to;
    else what->dstDevice = (CUdeviceptr)(uintptr_t)work->to;
    return CUDA_SUCCESS;
}

// Both sides stay the kind of memory that they were, and pinned memory is read when the graph runs.
API cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_MEMCPY3D *what, CUcontext context) {
    CALL_IN_CONTEXT();
    TRY(exec_known(exec));
    TRY(copy_known(node));
    if (context != exec->context) return refuse(CUDA_ERROR_INVALID_VALUE, "the copy was captured in another context");
    if (node->index >= exec->nodes.count) return refuse(CUDA_ERROR_INVALID_VALUE, "the node is of another graph");
    struct Work *work = &exec->nodes.nodes[node->index]->work;
    const bool flat = what->Height == 1 && what->Depth == 1 && what->WidthInBytes > 0;
    if (work->kind != WORK_COPY || !flat) return refuse(CUDA_ERROR_INVALID_VALUE, "that is no copy in one dimension");
    const void *from = what->srcMemoryType == CU_MEMORYTYPE_HOST ? what->srcHost : (const void *)(uintptr_t)what->srcDevice;
    void *to = what->dstMemoryType == CU_MEMORYTYPE_HOST ? what->dstHost : (void *)(uintptr_t)what->dstDevice;
    if (on_host(from) != on_host(work->from) || on_host(to) != on_host(work->to)) {
        return refuse(CUDA_ERROR_INVALID_VALUE, "a side is another kind of memory than it was");
    }
    TRY(queue_drive(exec->last));  // what was launched before runs as it was
    work->from = from;
    work->to = to;
    work->size = what->WidthInBytes;
    return CUDA_SUCCESS;
}

API cuGraphUpload(CUgraphExec exec, CUstream handle) {
    CALL_IN_CONTEXT();
    CUstream stream;
    TRY(stream_find(handle, &stream));
    return exec_known(exec);
}

static void check_address(const void *address) {
    const struct Block *block = block_of(address);
    if (block != NULL && !block->live) fault("a graph is launched that holds the address of freed memory");
}

static void check_addresses(const struct NodeSet *nodes) {
    for (size_t i = 0; i < nodes->count; ++i) {
        const struct Work *work = &nodes->nodes[i]->work;
        if (work->kind == WORK_COPY || work->kind == WORK_FILL) check_address(work->to);
        if (work->kind == WORK_COPY) check_address(work->from);
        if (work->kind == WORK_KERNEL) kernel_check(work->kernel, work->arguments);
    }
}

API cuGraphLaunch(CUgraphExec exec, CUstream handle) {
    CALL_IN_CONTEXT();
    CUstream stream;
    TRY(stream_find(handle, &stream));
    TRY(exec_known(exec));
    if (!exec->context->alive) return refuse(CUDA_ERROR_CONTEXT_IS_DESTROYED, "the context that it was captured in was destroyed");
    check_addresses(&exec->nodes);
    if (settings.graphs_do_nothing) return CUDA_SUCCESS;
    ++exec->refs;
    struct Op *op;
    TRY(stream_submit(stream, (struct Work){.kind = WORK_GRAPH, .exec = exec}, exec->last, &op));
    if (op == NULL) return CUDA_SUCCESS;
    ++op->refs;
    op_release(exec->last);
    exec->last = op;
    return CUDA_SUCCESS;
}

static bool ready(const CUgraphNode node) {
    if (node->done) return false;
    for (size_t i = 0; i < node->after.count; ++i) {
        if (!node->after.nodes[i]->done) return false;
    }
    return true;
}

// Of the nodes that may run, the one that was captured last runs first: an edge that is missing then shows.
CUresult exec_run(CUgraphExec exec) {
    const struct NodeSet *nodes = &exec->nodes;
    for (size_t i = 0; i < nodes->count; ++i) nodes->nodes[i]->done = false;
    for (size_t left = nodes->count; left > 0; --left) {
        size_t place = nodes->count;
        while (place > 0 && !ready(nodes->nodes[place - 1])) --place;
        CUgraphNode node = nodes->nodes[place - 1];
        TRY(work_run(&node->work));
        node->done = true;
    }
    return CUDA_SUCCESS;
}
