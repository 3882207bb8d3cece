// cuGetProcAddress: a function by its name and the version of CUDA that it is wanted of. Functions that the stub does not have get one that
// refuses under that name.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"

// Where a function changed its parameters: from which version on which form. NULL: the stub does not have it.
static const struct {
    const char *name;
    int since;
    const char *symbol;
} forms[] = {
    {"cuCtxCreate", 12050, "cuCtxCreate_v4"},
    {"cuCtxCreate", 11040, NULL},
    {"cuCtxCreate", 3020, "cuCtxCreate_v2"},
    {"cuCtxGetDevice", 13000, "cuCtxGetDevice_v2"},
    {"cuCtxGetDevice", 2000, "cuCtxGetDevice"},
    {"cuCtxSynchronize", 13000, "cuCtxSynchronize_v2"},
    {"cuCtxSynchronize", 2000, "cuCtxSynchronize"},
    {"cuStreamGetCtx", 12050, "cuStreamGetCtx_v2"},
    {"cuStreamGetCtx", 9020, "cuStreamGetCtx"},
    {"cuStreamGetCaptureInfo", 12030, "cuStreamGetCaptureInfo_v3"},
    {"cuStreamGetCaptureInfo", 11030, "cuStreamGetCaptureInfo_v2"},
    {"cuStreamGetCaptureInfo", 10010, NULL},
    {"cuStreamBeginCapture", 10010, "cuStreamBeginCapture_v2"},
    {"cuStreamBeginCapture", 10000, NULL},
    {"cuGraphExecUpdate", 12000, "cuGraphExecUpdate_v2"},
    {"cuGraphExecUpdate", 10020, NULL},
    {"cuEventElapsedTime", 12080, "cuEventElapsedTime_v2"},
    {"cuEventElapsedTime", 2000, "cuEventElapsedTime"},
    {"cuGetProcAddress", 12000, "cuGetProcAddress_v2"},
};

// ---- functions that refuse: as many as cuda.bindings asks for, each with a name of its own ----

enum { FIRST = 100, AFTER_LAST = 900 };

static struct Counter refusing[AFTER_LAST];

static CUresult refuse_unsupported(int index) {
    struct Call call __attribute__((cleanup(call_end), unused)) = call_begin(&refusing[index]);
    return refuse(CUDA_ERROR_NOT_SUPPORTED, "the stub has no such function");
}

#define TEN(of, n) of(n##0) of(n##1) of(n##2) of(n##3) of(n##4) of(n##5) of(n##6) of(n##7) of(n##8) of(n##9)
#define HUNDRED(of, n) \
    TEN(of, n##0) TEN(of, n##1) TEN(of, n##2) TEN(of, n##3) TEN(of, n##4) TEN(of, n##5) TEN(of, n##6) TEN(of, n##7) TEN(of, n##8) TEN(of, n##9)
#define ALL(of) HUNDRED(of, 1) HUNDRED(of, 2) HUNDRED(of, 3) HUNDRED(of, 4) HUNDRED(of, 5) HUNDRED(of, 6) HUNDRED(of, 7) HUNDRED(of, 8)
#define FUNCTION(n) \
    static CUresult refusing_##n(void) { return refuse_unsupported(n); }
#define ENTRY(n) [n] = refusing_##n,

ALL(FUNCTION)
static CUresult (*const refusers[AFTER_LAST])(void) = {ALL(ENTRY)};

static void *refuser(const char *name) {
    for (int i = FIRST; i < AFTER_LAST; ++i) {
        if (refusing[i].name == NULL) refusing[i].name = strdup(name);
        if (strcmp(refusing[i].name, name) == 0) {
            void *address;
            memcpy(&address, &refusers[i], sizeof address);
            return address;
        }
    }
    abort();  // there are more functions than this was made for
}

// ---- looking up ----

static void *own(const char *symbol) {
    static void *self;
    Dl_info where;
    if (self == NULL && dladdr(&self, &where) != 0) self = dlopen(where.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    return dlsym(self, symbol);
}

static void *found(const char *name, int version) {
    char symbol[128];
    for (size_t i = 0; i < sizeof forms / sizeof *forms; ++i) {
        if (strcmp(forms[i].name, name) == 0 && version >= forms[i].since) return forms[i].symbol == NULL ? NULL : own(forms[i].symbol);
    }
    snprintf(symbol, sizeof symbol, "%s_v2", name);
    void *address = own(symbol);
    return address != NULL ? address : own(name);
}

API cuGetProcAddress_v2(const char *name, void **address, int version, cuuint64_t flags, CUdriverProcAddressQueryResult *status) {
    CALL();
    const bool newer = version > driver_version();
    *address = newer ? NULL : found(name, version);
    if (!newer && (*address == NULL || (flags & 2) != 0)) *address = refuser(name);  // 2: forms with a default stream of each thread
    if (status != NULL) *status = newer ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT : CU_GET_PROC_ADDRESS_SUCCESS;
    return newer ? CUDA_ERROR_NOT_FOUND : CUDA_SUCCESS;
}
