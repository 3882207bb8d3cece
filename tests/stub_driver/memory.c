// Memory: the device's and pinned host memory, all of it the process's own. What is freed is poisoned and handed out again at once.
#include <stdlib.h>
#include <string.h>

#include "driver.h"

enum { ALIGNMENT = 512, GUARD = 64, POOL_ATTRIBUTES = 8 };

struct CUmemPoolHandle_st {
    struct Handle handle;
    CUdevice device;
    cuuint64_t attributes[POOL_ATTRIBUTES + 1];
};

static struct Block *blocks, *free_blocks;
static CUmemoryPool default_pools[GPUS];

// Freed memory keeps its block, so its address is still known.
struct Block *block_of(const void *address) {
    const unsigned char *wanted = address;
    for (struct Block *block = blocks; block != NULL; block = block->next) {
        if (wanted >= block->start && wanted < block->start + block->capacity) return block;
    }
    return NULL;
}

static bool all_poison(const unsigned char *bytes, size_t size) {
    return size == 0 || (bytes[0] == POISON && memcmp(bytes, bytes + 1, size - 1) == 0);
}

// The memory begins another life.
void block_check(struct Block *block) {
    if (block->poisoned && !all_poison(block->start, block->capacity)) fault("memory was written after it was freed");
    memset(block->start, POISON, block->capacity + GUARD);
    block->poisoned = false;
}

// The memory's life ends, in the order of its stream. It had `size` bytes; the block may have been promised again, with another size.
void block_poison(struct Block *block, size_t size) {
    const size_t rest = block->capacity + GUARD - size;
    if (!all_poison(block->start + size, rest)) fault("something was written behind the end of %zu bytes", size);
    memset(block->start, POISON, block->capacity + GUARD);
    block->poisoned = true;
}

static struct Block *reused(size_t size, CUdevice device, bool pinned, bool pooled) {
    for (struct Block **link = &free_blocks; *link != NULL; link = &(*link)->next_free) {
        struct Block *block = *link;
        const bool fits = block->capacity >= size && block->capacity <= 4 * size + ALIGNMENT;
        if (!fits || block->device != device || block->pinned != pinned || block->pooled != pooled) continue;
        *link = block->next_free;
        return block;
    }
    return NULL;
}

static struct Block *made(size_t size, CUdevice device, bool pinned, bool pooled) {
    struct Block *block = calloc(1, sizeof *block);
    block->capacity = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    const size_t all = (block->capacity + GUARD + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    block->start = aligned_alloc(ALIGNMENT, all);
    if (block->start == NULL) {
        free(block);
        return NULL;
    }
    memset(block->start, POISON, block->capacity + GUARD);
    block->device = device;
    block->pinned = pinned;
    block->pooled = pooled;
    block->next = blocks;
    blocks = block;
    return block;
}

static CUresult take(struct Block **taken, size_t size, CUdevice device, bool pinned, bool pooled) {
    if (size == 0) return refuse(CUDA_ERROR_INVALID_VALUE, "no bytes are asked for");
    if (settings.used + size > settings.limit) return refuse(CUDA_ERROR_OUT_OF_MEMORY, "%zu bytes over the limit", size);
    struct Block *block = reused(size, device, pinned, pooled);
    if (block == NULL) block = made(size, device, pinned, pooled);
    if (block == NULL) return refuse(CUDA_ERROR_OUT_OF_MEMORY, "the machine has no %zu bytes", size);
    block->size = size;
    block->live = true;
    block->context = context_current();
    settings.used += size;
    *taken = block;
    return CUDA_SUCCESS;
}

static void give_back(struct Block *block, struct Op *freed) {
    settings.used -= block->size;
    block->live = false;
    op_release(block->freed);
    block->freed = freed;
    if (freed != NULL) ++freed->refs;
    block->next_free = free_blocks;
    free_blocks = block;
}

static CUresult live_block(const void *address, struct Block **block) {
    *block = block_of(address);
    if (*block == NULL || (*block)->start != address) return refuse(CUDA_ERROR_INVALID_VALUE, "%p was not allocated here", address);
    return (*block)->live ? CUDA_SUCCESS : refuse(CUDA_ERROR_INVALID_VALUE, "the memory was freed already");
}

// ---- plain memory: the call waits, and so it does not go together with a capture ----

static CUresult plain(void **start, size_t size, bool pinned) {
    TRY(capture_refuses_unsafe());
    struct Block *block;
    TRY(take(&block, size, context_current()->device, pinned, false));
    block_check(block);
    note("allocated %zu bytes%s", size, pinned ? " pinned" : "");
    *start = block->start;
    return CUDA_SUCCESS;
}

static CUresult plain_free(const void *start, bool pinned) {
    TRY(capture_refuses_unsafe());
    struct Block *block;
    TRY(live_block(start, &block));
    if (block->pinned != pinned) return refuse(CUDA_ERROR_INVALID_VALUE, "that is the other kind of memory");
    TRY(queue_drain(block->context));
    block_poison(block, block->size);
    give_back(block, NULL);
    note("freed %zu bytes%s", block->size, pinned ? " pinned" : "");
    return CUDA_SUCCESS;
}

API cuMemAlloc_v2(CUdeviceptr *address, size_t size) {
    CALL_IN_CONTEXT();
    void *start;
    TRY(plain(&start, size, false));
    *address = (CUdeviceptr)(uintptr_t)start;
    return CUDA_SUCCESS;
}

API cuMemFree_v2(CUdeviceptr address) {
    CALL_IN_CONTEXT();
    return address == 0 ? CUDA_SUCCESS : plain_free((void *)(uintptr_t)address, false);
}

API cuMemAllocHost_v2(void **start, size_t size) {
    CALL_IN_CONTEXT();
    return plain(start, size, true);
}

API cuMemHostAlloc(void **start, size_t size, unsigned int flags) {
    CALL_IN_CONTEXT();
    (void)flags;
    return plain(start, size, true);
}

API cuMemFreeHost(void *start) {
    CALL_IN_CONTEXT();
    return plain_free(start, true);
}

API cuMemGetInfo_v2(size_t *free_bytes, size_t *all) {
    CALL_IN_CONTEXT();
    *all = (size_t)80 << 30;
    *free_bytes = (settings.limit < *all ? settings.limit : *all) - settings.used;
    return CUDA_SUCCESS;
}

// ---- memory in the order of a stream ----

static CUresult allocate(CUdeviceptr *address, size_t size, CUmemoryPool pool, CUstream handle) {
    CUstream stream;
    TRY(stream_find(handle, &stream));
    TRY(capture_refuses_legacy(stream));
    struct Block *block;
    TRY(take(&block, size, pool->device, false, true));
    block->pool = pool;
    block->graphs = stream->capture != NULL;
    const CUresult result = stream_submit(stream, (struct Work){.kind = WORK_ALLOC, .block = block}, block->freed, NULL);
    if (result != CUDA_SUCCESS) {
        give_back(block, NULL);
        return result;
    }
    *address = (CUdeviceptr)(uintptr_t)block->start;
    return CUDA_SUCCESS;
}

static CUmemoryPool pool_new(CUdevice device) {
    CUmemoryPool pool = handle_new(POOL, sizeof *pool);
    pool->device = device;
    return pool;
}

static CUresult pool_of(CUmemoryPool *pool, CUdevice device) {
    TRY(device_known(device));
    if (default_pools[device] == NULL) default_pools[device] = pool_new(device);
    *pool = default_pools[device];
    return CUDA_SUCCESS;
}

API cuMemAllocAsync(CUdeviceptr *address, size_t size, CUstream stream) {
    CALL_IN_CONTEXT();
    CUmemoryPool pool;
    TRY(pool_of(&pool, context_current()->device));
    return allocate(address, size, pool, stream);
}

API cuMemAllocFromPoolAsync(CUdeviceptr *address, size_t size, CUmemoryPool pool, CUstream stream) {
    CALL_IN_CONTEXT();
    if (!handle_live(POOL, pool)) return refuse(CUDA_ERROR_INVALID_VALUE, "%p is no pool", (void *)pool);
    return allocate(address, size, pool, stream);
}

API cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
    CALL_IN_CONTEXT();
    CUstream stream;
    TRY(stream_find(handle, &stream));
    TRY(capture_refuses_legacy(stream));
    struct Block *block;
    TRY(live_block((void *)(uintptr_t)address, &block));
    if (!block->pooled) return refuse(CUDA_ERROR_INVALID_VALUE, "the memory was not allocated in a stream");
    if (stream->capture != NULL && !block->graphs) {
        capture_invalidate(stream->capture, "memory was freed that it did not allocate");
        return refuse(CUDA_ERROR_INVALID_VALUE, "a graph frees only what a graph allocated");
    }
    struct Op *freed;
    TRY(stream_submit(stream, (struct Work){.kind = WORK_FREE, .block = block, .size = block->size}, NULL, &freed));
    if (!block->graphs) give_back(block, freed);  // a graph's memory stays where it is, for the next replay
    return CUDA_SUCCESS;
}

// ---- pools: all draw on the same memory ----

API cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device) {
    CALL();
    return pool_of(pool, device);
}

API cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device) {
    CALL();
    return pool_of(pool, device);
}

API cuMemGetDefaultMemPool(CUmemoryPool *pool, CUmemLocation *location, CUmemAllocationType type) {
    CALL();
    (void)type;
    return pool_of(pool, location->id);
}

API cuMemGetMemPool(CUmemoryPool *pool, CUmemLocation *location, CUmemAllocationType type) {
    CALL();
    (void)type;
    return pool_of(pool, location->id);
}

API cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *props) {
    CALL();
    TRY(device_known(props->location.id));
    *pool = pool_new(props->location.id);
    return CUDA_SUCCESS;
}

API cuMemPoolDestroy(CUmemoryPool pool) {
    CALL();
    if (!handle_live(POOL, pool) || pool == default_pools[pool->device]) return refuse(CUDA_ERROR_INVALID_VALUE, "it cannot be destroyed");
    handle_delete(POOL, pool);
    return CUDA_SUCCESS;
}

API cuMemPoolTrimTo(CUmemoryPool pool, size_t keep) {
    CALL();
    (void)keep;
    return handle_live(POOL, pool) ? CUDA_SUCCESS : refuse(CUDA_ERROR_INVALID_VALUE, "%p is no pool", (void *)pool);
}

static CUresult attribute_known(CUmemoryPool pool, int attribute) {
    if (!handle_live(POOL, pool)) return refuse(CUDA_ERROR_INVALID_VALUE, "%p is no pool", (void *)pool);
    return attribute >= 1 && attribute <= POOL_ATTRIBUTES ? CUDA_SUCCESS : refuse(CUDA_ERROR_INVALID_VALUE, "attribute %d", attribute);
}

static bool is_int(int attribute) { return attribute <= 3; }  // the three about reuse; the others are 64 bits wide

API cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value) {
    CALL();
    TRY(attribute_known(pool, (int)attribute));
    const bool current = attribute == CU_MEMPOOL_ATTR_USED_MEM_CURRENT || attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
    if (is_int((int)attribute)) {
        *(int *)value = (int)pool->attributes[attribute];
    } else {
        *(cuuint64_t *)value = current ? settings.used : pool->attributes[attribute];
    }
    return CUDA_SUCCESS;
}

API cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value) {
    CALL();
    TRY(attribute_known(pool, (int)attribute));
    pool->attributes[attribute] = is_int((int)attribute) ? (cuuint64_t) * (int *)value : *(cuuint64_t *)value;
    return CUDA_SUCCESS;
}

// ---- what an address is ----

static CUresult attribute_of(const struct Block *block, void *value, int attribute, CUdeviceptr address) {
    switch (attribute) {
        case CU_POINTER_ATTRIBUTE_CONTEXT: *(CUcontext *)value = block->pooled ? NULL : block->context; break;
        case CU_POINTER_ATTRIBUTE_MEMORY_TYPE: *(unsigned int *)value = block->pinned ? 1 : 2; break;
        case CU_POINTER_ATTRIBUTE_DEVICE_POINTER: *(CUdeviceptr *)value = address; break;
        case CU_POINTER_ATTRIBUTE_HOST_POINTER:
            if (!block->pinned) return CUDA_ERROR_INVALID_VALUE;
            *(void **)value = (void *)(uintptr_t)address;
            break;
        case CU_POINTER_ATTRIBUTE_IS_MANAGED: *(bool *)value = false; break;
        case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *(int *)value = block->device; break;
        case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR: *(CUdeviceptr *)value = (CUdeviceptr)(uintptr_t)block->start; break;
        case CU_POINTER_ATTRIBUTE_RANGE_SIZE: *(size_t *)value = block->size; break;
        case CU_POINTER_ATTRIBUTE_MAPPED: *(bool *)value = true; break;
        case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE: *(CUmemoryPool *)value = block->pooled ? block->pool : NULL; break;
        default: return refuse(CUDA_ERROR_NOT_SUPPORTED, "pointer attribute %d", attribute);
    }
    return CUDA_SUCCESS;
}

static const struct Block *live_part(CUdeviceptr address) {
    const struct Block *block = block_of((void *)(uintptr_t)address);
    return block != NULL && block->live ? block : NULL;
}

API cuPointerGetAttribute(void *value, CUpointer_attribute attribute, CUdeviceptr address) {
    CALL_IN_CONTEXT();
    const struct Block *block = live_part(address);
    if (block == NULL) return CUDA_ERROR_INVALID_VALUE;
    return attribute_of(block, value, (int)attribute, address);
}

static size_t width_of(int attribute) {
    if (attribute == CU_POINTER_ATTRIBUTE_IS_MANAGED || attribute == CU_POINTER_ATTRIBUTE_MAPPED) return sizeof(bool);
    return attribute == CU_POINTER_ATTRIBUTE_MEMORY_TYPE || attribute == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL ? sizeof(int) : sizeof(void *);
}

// An address that CUDA does not know is no error here: every attribute is zero, and the device's number -2.
API cuPointerGetAttributes(unsigned int count, CUpointer_attribute *attributes, void **values, CUdeviceptr address) {
    CALL_IN_CONTEXT();
    const struct Block *block = live_part(address);
    for (unsigned int i = 0; i < count; ++i) {
        memset(values[i], 0, width_of((int)attributes[i]));
        if (block == NULL && attributes[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL) *(int *)values[i] = -2;
        if (block != NULL && attribute_of(block, values[i], (int)attributes[i], address) == CUDA_ERROR_NOT_SUPPORTED) {
            return CUDA_ERROR_NOT_SUPPORTED;
        }
    }
    return CUDA_SUCCESS;
}
