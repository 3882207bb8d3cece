// Modules and kernels. A "cubin" of the stub names a host library, which holds each kernel as a function; a launch runs that.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"

// "stub cubin\n<compute capability>\n<path of the library>\n", and a zero
static const char TAG[] = "stub cubin\n";

struct CUlib_st {
    struct Handle handle;
    void *library;
};

struct CUmod_st {
    struct Handle handle;
    CUlibrary library;
    CUcontext context;
};

struct CUfunc_st {
    struct Handle handle;
    CUkernel kernel;
    CUcontext context;
};

// The host's kernels share their "device", so one runs at a time.
static pthread_mutex_t one_kernel = PTHREAD_MUTEX_INITIALIZER;

static CUresult load(CUlibrary *library, const char *image) {
    char path[512];
    int built_for;
    if (strncmp(image, TAG, strlen(TAG)) != 0 || sscanf(image + strlen(TAG), "%d\n%511[^\n]", &built_for, path) != 2) {
        return refuse(CUDA_ERROR_INVALID_IMAGE, "that is no cubin of the stub");
    }
    const int here = 10 * capability(0) + capability(1);
    if (built_for / 10 != here / 10 || built_for > here) {
        return refuse(CUDA_ERROR_NO_BINARY_FOR_GPU, "it was built for %d and runs on %d", built_for, here);
    }
    void *opened = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (opened == NULL) return refuse(CUDA_ERROR_INVALID_IMAGE, "%s", dlerror());
    *library = handle_new(LIBRARY, sizeof **library);
    (*library)->library = opened;
    return CUDA_SUCCESS;
}

static CUresult kernel_of(CUkernel *kernel, CUlibrary library, const char *name) {
    char symbol[128];
    for (struct Handle *handle = handles(KERNEL); handle != NULL; handle = handle->next) {
        *kernel = (CUkernel)handle;
        if ((*kernel)->library == library && strcmp((*kernel)->name, name) == 0) return CUDA_SUCCESS;
    }
    snprintf(symbol, sizeof symbol, "stub_kernel_%s", name);
    const struct HostKernel *host = dlsym(library->library, symbol);
    if (host == NULL) return refuse(CUDA_ERROR_NOT_FOUND, "there is no kernel %s", name);
    *kernel = handle_new(KERNEL, sizeof **kernel);
    snprintf((*kernel)->name, sizeof(*kernel)->name, "%s", name);
    (*kernel)->library = library;
    (*kernel)->host = host;
    return CUDA_SUCCESS;
}

// The host library stays open, since a queued launch may still need it.
static void unload(CUlibrary library) {
    for (struct Handle *handle = handles(KERNEL), *next; handle != NULL; handle = next) {
        next = handle->next;
        if (((CUkernel)handle)->library == library) handle_forget(KERNEL, handle);
    }
    handle_delete(LIBRARY, library);
}

API cuLibraryLoadData(
    CUlibrary *library, const void *code, CUjit_option *jit, void **jit_values, unsigned int jit_count, CUlibraryOption *options, void **values,
    unsigned int count) {
    CALL();
    (void)jit, (void)jit_values, (void)jit_count, (void)options, (void)values, (void)count;
    if (!settings.initialised) return refuse(CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called");
    return load(library, code);
}

API cuLibraryUnload(CUlibrary library) {
    CALL();
    if (!handle_live(LIBRARY, library)) return refuse(CUDA_ERROR_INVALID_HANDLE, "that is no library");
    unload(library);
    return CUDA_SUCCESS;
}

API cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name) {
    CALL();
    if (!handle_live(LIBRARY, library)) return refuse(CUDA_ERROR_INVALID_HANDLE, "that is no library");
    return kernel_of(kernel, library, name);
}

static CUresult kernel_known(CUkernel kernel) {
    return handle_live(KERNEL, kernel) ? CUDA_SUCCESS : refuse(CUDA_ERROR_INVALID_HANDLE, "%p is no kernel", (void *)kernel);
}

API cuKernelGetLibrary(CUlibrary *library, CUkernel kernel) {
    CALL();
    TRY(kernel_known(kernel));
    *library = kernel->library;
    return CUDA_SUCCESS;
}

API cuKernelGetName(const char **name, CUkernel kernel) {
    CALL();
    TRY(kernel_known(kernel));
    *name = kernel->name;
    return CUDA_SUCCESS;
}

static CUresult function_of(CUfunction *function, CUkernel kernel) {
    *function = handle_new(FUNCTION, sizeof **function);
    (*function)->kernel = kernel;
    (*function)->context = context_current();
    return CUDA_SUCCESS;
}

API cuKernelGetFunction(CUfunction *function, CUkernel kernel) {
    CALL_IN_CONTEXT();
    TRY(kernel_known(kernel));
    return function_of(function, kernel);
}

static int attribute_of(CUkernel kernel, int attribute) {
    switch (attribute) {
        case 0: return kernel->host->max_threads;
        case 4: return 32;                                         // registers of a thread
        case 6: return 10 * capability(0) + capability(1);         // what it was built for
        default: return 0;
    }
}

API cuKernelGetAttribute(int *value, CUfunction_attribute attribute, CUkernel kernel, CUdevice device) {
    CALL();
    TRY(kernel_known(kernel));
    *value = attribute_of(kernel, (int)attribute);
    return device_known(device);
}

API cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t *offset, size_t *size) {
    CALL();
    TRY(kernel_known(kernel));
    if (index >= (size_t)kernel->host->count) return CUDA_ERROR_INVALID_VALUE;
    size_t at = 0;
    for (size_t i = 0; i <= index; ++i) {
        const size_t width = kernel->host->sizes[i];
        at = (at + width - 1) / width * width + (i < index ? width : 0);
    }
    *offset = at;
    if (size != NULL) *size = kernel->host->sizes[index];
    return CUDA_SUCCESS;
}

static CUresult module_load(CUmodule *module, const void *image) {
    CUlibrary library;
    TRY(capture_refuses_unsafe());
    TRY(load(&library, image));
    *module = handle_new(MODULE, sizeof **module);
    (*module)->library = library;
    (*module)->context = context_current();
    return CUDA_SUCCESS;
}

API cuModuleLoadData(CUmodule *module, const void *image) {
    CALL_IN_CONTEXT();
    return module_load(module, image);
}

API cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count, CUjit_option *options, void **values) {
    CALL_IN_CONTEXT();
    (void)count, (void)options, (void)values;
    return module_load(module, image);
}

API cuModuleUnload(CUmodule module) {
    CALL_IN_CONTEXT();
    if (!handle_live(MODULE, module)) return refuse(CUDA_ERROR_INVALID_HANDLE, "that is no module");
    unload(module->library);
    handle_delete(MODULE, module);
    return CUDA_SUCCESS;
}

API cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    CALL_IN_CONTEXT();
    CUkernel kernel;
    if (!handle_live(MODULE, module)) return refuse(CUDA_ERROR_INVALID_HANDLE, "that is no module");
    if (module->context != context_current()) return refuse(CUDA_ERROR_INVALID_HANDLE, "the module belongs to another context");
    TRY(kernel_of(&kernel, module->library, name));
    return function_of(function, kernel);
}

API cuModuleGetLoadingMode(CUmoduleLoadingMode *mode) {
    CALL();
    *mode = 1;  // eager
    return CUDA_SUCCESS;
}

// ---- launches ----

static CUresult dims_fit(const int *dims, CUkernel kernel) {
    for (int i = 0; i < 6; ++i) {
        if (dims[i] < 1) return refuse(CUDA_ERROR_INVALID_VALUE, "a grid or block without threads");
    }
    if (dims[1] > 65535 || dims[2] > 65535) return refuse(CUDA_ERROR_INVALID_VALUE, "the grid is too large");
    const long threads = (long)dims[3] * dims[4] * dims[5];
    if (threads <= kernel->host->max_threads) return CUDA_SUCCESS;
    return refuse(CUDA_ERROR_INVALID_VALUE, "%s takes %d threads, not %ld", kernel->name, kernel->host->max_threads, threads);
}

// The caller's parameters are read during the call.
static uint64_t *packed(CUkernel kernel, void **parameters) {
    uint64_t *slots = calloc((size_t)kernel->host->count + 1, sizeof *slots);
    for (int i = 0; i < kernel->host->count; ++i) memcpy(&slots[i], parameters[i], kernel->host->sizes[i]);
    return slots;
}

static CUresult launch(CUfunction function, const CUlaunchConfig *config, void **parameters, void **extra) {
    CUstream stream;
    TRY(stream_find(config->hStream, &stream));
    CUkernel kernel = (CUkernel)(void *)function;
    CUcontext context = context_current();
    if (handle_live(FUNCTION, function)) {
        kernel = function->kernel;
        context = function->context;
    }
    TRY(kernel_known(kernel));
    if (context != stream->context) return refuse(CUDA_ERROR_INVALID_HANDLE, "the stream belongs to another context");
    if (extra != NULL || config->numAttrs > 0) return refuse(CUDA_ERROR_NOT_SUPPORTED, "attributes of a launch");
    const int dims[6] = {(int)config->gridDimX,  (int)config->gridDimY,  (int)config->gridDimZ,
                         (int)config->blockDimX, (int)config->blockDimY, (int)config->blockDimZ};
    TRY(dims_fit(dims, kernel));
    struct Work work = {.kind = WORK_KERNEL, .kernel = kernel, .arguments = packed(kernel, parameters)};
    memcpy(work.dims, dims, sizeof dims);
    kernel_check(kernel, work.arguments);
    return stream_submit(stream, work, NULL, NULL);
}

API cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra) {
    CALL_IN_CONTEXT();
    return launch(function, config, parameters, extra);
}

API cuLaunchKernel(
    CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z, unsigned int block_x, unsigned int block_y,
    unsigned int block_z, unsigned int shared, CUstream stream, void **parameters, void **extra) {
    CALL_IN_CONTEXT();
    const CUlaunchConfig config = {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared, stream, NULL, 0};
    return launch(function, &config, parameters, extra);
}

void kernel_check(CUkernel kernel, const uint64_t *arguments) {
    for (int i = 0; i < kernel->host->count; ++i) {
        const struct Block *block = kernel->host->pointers[i] ? block_of((void *)arguments[i]) : NULL;
        if (block != NULL && !block->live) fault("%s is given memory that was freed", kernel->name);
    }
}

static bool knows_addresses(CUkernel kernel, const uint64_t *arguments) {
    bool known = true;
    lock();
    for (int i = 0; i < kernel->host->count; ++i) {
        if (!kernel->host->pointers[i] || block_of((void *)arguments[i]) != NULL) continue;
        note("%s is given %p, which is no memory of the GPU", kernel->name, (void *)arguments[i]);
        known = false;
    }
    unlock();
    return known;
}

CUresult kernel_run(CUkernel kernel, const int *dims, uint64_t *arguments) {
    if (!knows_addresses(kernel, arguments)) return CUDA_ERROR_ILLEGAL_ADDRESS;
    pthread_mutex_lock(&one_kernel);
    const int failed = kernel->host->run(dims, arguments);
    pthread_mutex_unlock(&one_kernel);
    return failed == 0 ? CUDA_SUCCESS : CUDA_ERROR_LAUNCH_FAILED;
}
