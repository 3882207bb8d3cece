// Functions that FFmpeg looks up before it uses a GPU at all, and does not call where it decodes. They are there, and refuse.
#include "driver.h"

// The name is the symbol's alone: NVIDIA's header has the parameters, which do not matter here.
#define REFUSES(name)                                                                                    \
    EXPORTED CUresult looked_up_##name(void) __asm__(#name);                                             \
    CUresult looked_up_##name(void) {                                                                    \
        static struct Counter counter = {#name, 0, false, NULL};                                         \
        struct Call call __attribute__((cleanup(call_end), unused)) = call_begin(&counter);              \
        return refuse(CUDA_ERROR_NOT_SUPPORTED, "the stub has no such function");                        \
    }

REFUSES(cuArray3DCreate_v2)
REFUSES(cuArrayCreate_v2)
REFUSES(cuArrayDestroy)
REFUSES(cuCtxSetLimit)
REFUSES(cuDestroyExternalMemory)
REFUSES(cuDestroyExternalSemaphore)
REFUSES(cuDeviceComputeCapability)
REFUSES(cuDeviceGetByPCIBusId)
REFUSES(cuDeviceGetLuid)
REFUSES(cuDeviceGetUuid)
REFUSES(cuDevicePrimaryCtxRelease)
REFUSES(cuDevicePrimaryCtxReset)
REFUSES(cuDevicePrimaryCtxSetFlags)
REFUSES(cuEGLStreamConsumerDisconnect)
REFUSES(cuEGLStreamProducerConnect)
REFUSES(cuEGLStreamProducerDisconnect)
REFUSES(cuEGLStreamProducerPresentFrame)
REFUSES(cuEGLStreamProducerReturnFrame)
REFUSES(cuExternalMemoryGetMappedBuffer)
REFUSES(cuExternalMemoryGetMappedMipmappedArray)
REFUSES(cuGLGetDevices_v2)
REFUSES(cuGraphicsGLRegisterImage)
REFUSES(cuGraphicsMapResources)
REFUSES(cuGraphicsResourceGetMappedPointer_v2)
REFUSES(cuGraphicsSubResourceGetMappedArray)
REFUSES(cuGraphicsUnmapResources)
REFUSES(cuGraphicsUnregisterResource)
REFUSES(cuImportExternalMemory)
REFUSES(cuImportExternalSemaphore)
REFUSES(cuLinkAddData)
REFUSES(cuLinkComplete)
REFUSES(cuLinkCreate)
REFUSES(cuLinkDestroy)
REFUSES(cuMemAllocManaged)
REFUSES(cuMemAllocPitch_v2)
REFUSES(cuMemcpy2D_v2)
REFUSES(cuMipmappedArrayDestroy)
REFUSES(cuMipmappedArrayGetLevel)
REFUSES(cuModuleGetGlobal)
REFUSES(cuSignalExternalSemaphoresAsync)
REFUSES(cuStreamAddCallback)
REFUSES(cuTexObjectCreate)
REFUSES(cuTexObjectDestroy)
REFUSES(cuWaitExternalSemaphoresAsync)
