// The GPUs, which are alike: their name, their version and what they can do.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"

enum { FIRST_BUS = 0x3B };

int driver_version(void) {
    const char *set = getenv("STUB_DRIVER_VERSION");
    return set != NULL ? atoi(set) : 13000;
}

// Its two numbers.
int capability(int part) {
    const char *set = getenv("STUB_DRIVER_CAPABILITY");
    int numbers[2] = {9, 0};
    if (set != NULL) sscanf(set, "%d.%d", &numbers[0], &numbers[1]);
    return numbers[part];
}

CUresult device_known(CUdevice device) {
    return device >= 0 && device < GPUS ? CUDA_SUCCESS : refuse(CUDA_ERROR_INVALID_DEVICE, "there is no GPU %d", (int)device);
}

API cuInit(unsigned int flags) {
    CALL();
    settings.initialised = true;
    return flags == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API cuDriverGetVersion(int *version) {
    CALL();
    *version = driver_version();
    return CUDA_SUCCESS;
}

API cuDeviceGetCount(int *count) {
    CALL();
    if (!settings.initialised) return refuse(CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called");
    *count = GPUS;
    return CUDA_SUCCESS;
}

API cuDeviceGet(CUdevice *device, int index) {
    CALL();
    *device = index;
    return device_known(index);
}

API cuDeviceGetName(char *name, int room, CUdevice device) {
    CALL();
    snprintf(name, (size_t)room, "NVIDIA Stub H100");
    return device_known(device);
}

API cuDeviceTotalMem_v2(size_t *size, CUdevice device) {
    CALL();
    *size = (size_t)80 << 30;
    return device_known(device);
}

API cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
    CALL();
    memset(uuid, 7 + device, sizeof *uuid);
    return device_known(device);
}

API cuDeviceGetPCIBusId(char *id, int room, CUdevice device) {
    CALL();
    snprintf(id, (size_t)room, "0000:%02X:00.0", FIRST_BUS + (int)device);
    return device_known(device);
}

// {attribute, value} of an H100; what is not here is refused.
static const int attributes[][2] = {
    {1, 1024},    // threads of a block
    {2, 1024},    {3, 1024},  {4, 64},                    // its sides
    {5, 2147483647}, {6, 65535}, {7, 65535},              // a grid's sides
    {8, 49152},   // shared memory of a block
    {9, 65536},   {10, 32},   {12, 65536}, {13, 1980000}, // constant memory, warp, registers, clock
    {14, 512},    // how a texture is aligned
    {16, 132},    // multiprocessors
    {17, 0},      {18, 0},    {19, 1},     {20, 0},       // watchdog, integrated, mapped memory, compute mode
    {31, 1},      {32, 1},    {34, 0},                    // concurrent kernels, ECC, PCI
    {38, 52428800}, {39, 2048}, {40, 3},   {41, 1},       // cache, threads, copy engines, one address space
    {50, 0},      {78, 1},    {81, 233472}, {82, 65536},  // PCI domain, priorities, shared memory, registers
    {83, 0},      {84, 0},    {88, 0},     {89, 0},       // managed and pageable memory are not there
    {95, 0},      {97, 232448}, {99, 0},   {102, 0},      // cooperative launches, shared memory at most, registering, virtual memory
    {115, 1},     {119, 0},   {144, 0},                   // memory pools, what handles they have, pools of the host
};

API cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    CALL();
    TRY(device_known(device));
    if (attribute == 75 || attribute == 76) {
        *value = capability((int)attribute - 75);
        return CUDA_SUCCESS;
    }
    if (attribute == 33) {
        *value = FIRST_BUS + (int)device;
        return CUDA_SUCCESS;
    }
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; ++i) {
        if (attributes[i][0] != (int)attribute) continue;
        *value = attributes[i][1];
        return CUDA_SUCCESS;
    }
    return refuse(CUDA_ERROR_INVALID_VALUE, "device attribute %d", (int)attribute);
}

#define ERROR(name) {name, #name}
static const struct {
    int code;
    const char *name;
} errors[] = {
    ERROR(CUDA_SUCCESS),
    ERROR(CUDA_ERROR_INVALID_VALUE),
    ERROR(CUDA_ERROR_OUT_OF_MEMORY),
    ERROR(CUDA_ERROR_NOT_INITIALIZED),
    ERROR(CUDA_ERROR_INVALID_DEVICE),
    ERROR(CUDA_ERROR_INVALID_IMAGE),
    ERROR(CUDA_ERROR_INVALID_CONTEXT),
    ERROR(CUDA_ERROR_NO_BINARY_FOR_GPU),
    ERROR(CUDA_ERROR_INVALID_HANDLE),
    ERROR(CUDA_ERROR_ILLEGAL_STATE),
    ERROR(CUDA_ERROR_NOT_FOUND),
    ERROR(CUDA_ERROR_NOT_READY),
    ERROR(CUDA_ERROR_ILLEGAL_ADDRESS),
    ERROR(CUDA_ERROR_CONTEXT_IS_DESTROYED),
    ERROR(CUDA_ERROR_LAUNCH_FAILED),
    ERROR(CUDA_ERROR_NOT_PERMITTED),
    ERROR(CUDA_ERROR_NOT_SUPPORTED),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_MERGE),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNJOINED),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_ISOLATION),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT),
    ERROR(CUDA_ERROR_CAPTURED_EVENT),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD),
    ERROR(CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE),
};

static CUresult describe(CUresult error, const char **text) {
    *text = NULL;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; ++i) {
        if (errors[i].code == (int)error) *text = errors[i].name;
    }
    return *text != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API cuGetErrorName(CUresult error, const char **text) {
    CALL();
    return describe(error, text);
}

API cuGetErrorString(CUresult error, const char **text) {
    CALL();
    return describe(error, text);
}
