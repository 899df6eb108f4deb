// A stand-in for NVIDIA's libcuda with the behaviour that -D chooses: only what the device probe calls or looks for.
//   -DINIT=n            cuInit answers n (0: fine, 34: stub, 100: no device)
//   -DDEVICES=n         how many devices there are
//   -DWITHOUT_COUNT     an old driver: cuDeviceGetCount is missing
//   -DWITHOUT_LAUNCH    an old driver: what kernels are launched with is missing
//   -DONLY_INIT         the barest stub: nothing but cuInit
//   -DCONTEXT=n         cuDevicePrimaryCtxRetain answers n (46: another process holds the device)
//   -DCOUNT=n           cuDeviceGetCount answers n
//   -DLONG_NAME         the device's name fills the whole buffer
#include <stddef.h>
#include <string.h>

#ifndef INIT
#define INIT 0
#endif
#ifndef DEVICES
#define DEVICES 1
#endif
#ifndef CONTEXT
#define CONTEXT 0
#endif
#ifndef COUNT
#define COUNT 0
#endif

int cuInit(unsigned flags) { return INIT; }

#ifndef ONLY_INIT
static int retained;

int cuDriverGetVersion(int *version) { *version = 12040; return 0; }
#ifndef WITHOUT_COUNT
int cuDeviceGetCount(int *count) { *count = DEVICES; return COUNT; }
#endif
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 40; return ordinal < DEVICES ? 0 : 101; }
int cuDeviceGetName(char *name, int length, int device) {
#ifdef LONG_NAME
  memset(name, 'x', length);
#else
  strncpy(name, device == 40 ? "fake device" : "another fake device", length);
#endif
  return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 9 : attribute == 76 ? 1 : -1; return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 80000000000u; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &retained; retained += CONTEXT == 0; return CONTEXT; }
int cuDevicePrimaryCtxRelease_v2(int device) { retained--; return 0; }
int cuCtxSetCurrent(void *context) { return 0; }
// Fails unless exactly one context is held, so a probe that keeps one shows with a second device.
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 70000000000u; *total = 80000000000u; return retained == 1 ? 0 : 201; }
int cuGetErrorName(int code, const char **name) {
  *name = code == 46 ? "CUDA_ERROR_DEVICE_UNAVAILABLE" : code == 999 ? "CUDA_ERROR_UNKNOWN" : NULL;
  return *name ? 0 : 1;
}
// Looked for, never called by the probe.
#define LATER(name) int name(void) { return 999; }
LATER(cuModuleLoadData) LATER(cuModuleUnload) LATER(cuModuleGetFunction)
LATER(cuStreamCreate) LATER(cuStreamDestroy_v2) LATER(cuStreamSynchronize)
LATER(cuEventCreate) LATER(cuEventDestroy_v2) LATER(cuEventRecord) LATER(cuEventQuery) LATER(cuEventElapsedTime)
LATER(cuMemAlloc_v2) LATER(cuMemFree_v2) LATER(cuMemHostAlloc) LATER(cuMemFreeHost)
LATER(cuMemcpyHtoD_v2) LATER(cuMemcpyHtoDAsync_v2) LATER(cuMemcpyDtoHAsync_v2) LATER(cuMemsetD8Async)
#ifndef WITHOUT_LAUNCH
LATER(cuLaunchKernel)
#endif
#endif
