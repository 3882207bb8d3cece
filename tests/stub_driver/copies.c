// Copies and fills. Pageable host memory is read while the call runs, pinned memory when the stream comes to it.
#include <stdlib.h>
#include <string.h>

#include "driver.h"

static CUresult check_range(const unsigned char *start, size_t size, bool *pageable) {
    const struct Block *block = block_of(start);
    *pageable = block == NULL;
    if (block == NULL) return CUDA_SUCCESS;
    if (!block->live) return refuse(CUDA_ERROR_INVALID_VALUE, "the memory was freed");
    const size_t room = (size_t)(block->start + block->size - start);
    return start < block->start + block->size && size <= room ? CUDA_SUCCESS : refuse(CUDA_ERROR_INVALID_VALUE, "it leaves its memory");
}

static CUresult copy(void *to, const void *from, size_t size, CUstream handle, bool waits) {
    CUstream stream;
    TRY(stream_find(handle, &stream));
    if (size == 0) return CUDA_SUCCESS;
    struct Work work = {.kind = WORK_COPY, .to = to, .from = from, .size = size};
    bool from_host, to_host;
    TRY(check_range(work.from, size, &from_host));
    TRY(check_range(work.to, size, &to_host));
    if (from_host && stream->capture == NULL) {
        work.staged = true;
        work.from = memcpy(malloc(size), from, size);
    }
    struct Op *op;
    TRY(stream_submit(stream, work, NULL, &op));
    return waits || to_host ? queue_drive(op) : CUDA_SUCCESS;
}

static void *at(CUdeviceptr address) { return (void *)(uintptr_t)address; }

API cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    CALL_IN_CONTEXT();
    return copy(at(to), at(from), size, stream, false);
}

API cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream) {
    CALL_IN_CONTEXT();
    return copy(at(to), from, size, stream, false);
}

API cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream) {
    CALL_IN_CONTEXT();
    return copy(to, at(from), size, stream, false);
}

API cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    CALL_IN_CONTEXT();
    return copy(at(to), at(from), size, stream, false);
}

// Row by row; a side is host memory or device memory.
API cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *what, CUstream stream) {
    CALL_IN_CONTEXT();
    unsigned char *to = what->dstMemoryType == CU_MEMORYTYPE_HOST ? what->dstHost : at(what->dstDevice);
    const unsigned char *from = what->srcMemoryType == CU_MEMORYTYPE_HOST ? what->srcHost : at(what->srcDevice);
    to += what->dstY * what->dstPitch + what->dstXInBytes;
    from += what->srcY * what->srcPitch + what->srcXInBytes;
    for (size_t row = 0; row < what->Height; ++row) {
        TRY(copy(to + row * what->dstPitch, from + row * what->srcPitch, what->WidthInBytes, stream, false));
    }
    return CUDA_SUCCESS;
}

// Copies that wait go through the legacy stream.
static CUresult copy_now(void *to, const void *from, size_t size) {
    TRY(capture_refuses_legacy(context_current()->legacy));
    TRY(capture_refuses_unsafe());
    return copy(to, from, size, NULL, true);
}

API cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t size) {
    CALL_IN_CONTEXT();
    return copy_now(at(to), at(from), size);
}

API cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t size) {
    CALL_IN_CONTEXT();
    return copy_now(at(to), from, size);
}

API cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t size) {
    CALL_IN_CONTEXT();
    return copy_now(to, at(from), size);
}

API cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t size) {
    CALL_IN_CONTEXT();
    return copy_now(at(to), at(from), size);
}

static CUresult fill(CUdeviceptr to, unsigned int value, unsigned int width, size_t count, CUstream handle) {
    CUstream stream;
    TRY(stream_find(handle, &stream));
    if (count == 0) return CUDA_SUCCESS;
    bool pageable;
    TRY(check_range(at(to), count * width, &pageable));
    if (pageable) return refuse(CUDA_ERROR_INVALID_VALUE, "that is no device memory");
    struct Work work = {.kind = WORK_FILL, .to = at(to), .size = count, .value = value, .width = width};
    return stream_submit(stream, work, NULL, NULL);
}

API cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
    CALL_IN_CONTEXT();
    return fill(to, value, 1, count, stream);
}

API cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream stream) {
    CALL_IN_CONTEXT();
    return fill(to, value, 2, count, stream);
}

API cuMemsetD32Async(CUdeviceptr to, unsigned int value, size_t count, CUstream stream) {
    CALL_IN_CONTEXT();
    return fill(to, value, 4, count, stream);
}

API cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
    CALL_IN_CONTEXT();
    TRY(capture_refuses_unsafe());
    return fill(to, value, 1, count, NULL);
}
