// A stand-in for NVIDIA's libcuda that has one device, whose memory is the host's and whose kernels run in the emulator.
//
// Work on a stream is done when somebody waits for it or asks whether it is done for the second time, not before: who reads a result
// or reuses a buffer too early sees rubbish. Fresh memory is rubbish too. Tests can make any call fail (fake_fail), and count what is
// allocated (fake_live).
//
// The kernels of this program are built in, whatever image of them is loaded. An image that the stand-in for NVRTC made (nvrtc.cpp) is a
// shared object, which is loaded as one.
#include "cuda_on_cpu.h"
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <elf.h>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <unistd.h>
#include <vector>

extern "C" int emu_launch(void (*kernel)(void **), void **arguments, unsigned blocks, unsigned threads, unsigned shared);

typedef unsigned long long Pointer;

namespace {
std::recursive_mutex lock; // kernels of one device run one after the other here
std::string failing;       // the call that fails,
int fails_with, fails_after = -1; // how, and after how many more that don't
int retained;              // how often the context is
int sticky;                // once a kernel has failed every call answers this
std::map<void *, size_t> live; // allocations
int loaded;                    // modules that are not built in
void *const BUILT_IN = (void *)2;

struct Stream {
  std::vector<std::function<int()>> waiting;
  size_t begun = 0; // how many were ever put in
  size_t done = 0;
};
struct Event {
  Stream *stream = nullptr;
  size_t after = 0; // of the stream's work
  int asked = 0;
};

int work(Stream *stream, size_t until) {
  while (stream->done < until && !stream->waiting.empty()) {
    auto next = stream->waiting.front();
    stream->waiting.erase(stream->waiting.begin());
    stream->done++;
    int code = next();
    if (code && !sticky) sticky = code;
  }
  return sticky;
}

int enter(const char *name) {
  if (failing == name && fails_after >= 0 && fails_after-- == 0) {
    if (fails_with >= 700) sticky = fails_with;
    return fails_with;
  }
  return sticky;
}

int put(Stream *stream, std::function<int()> what) {
  stream->waiting.push_back(what);
  stream->begun++;
  return 0;
}

void *allocate(size_t size) {
  void *memory = aligned_alloc(256, (size + 255) / 256 * 256);
  if (memory) {
    memset(memory, 0xa5, size);
    live[memory] = size;
  }
  return memory;
}

// The length of a shared object in memory: its table of sections comes last.
size_t length(const Elf64_Ehdr *header) { return header->e_shoff + (size_t)header->e_shnum * header->e_shentsize; }

int release(void *memory) {
  if (!live.erase(memory)) return 1;
  free(memory);
  return 0;
}
} // namespace

#define CALL(name, ...)                                                                                                                             \
  extern "C" __attribute__((visibility("default"))) int name(__VA_ARGS__)
#define ENTER(name)                                                                                                                                 \
  std::lock_guard<std::recursive_mutex> held(lock);                                                                                                \
  if (int code = enter(name)) return code

CALL(fake_fail, const char *call, int code, int after) {
  std::lock_guard<std::recursive_mutex> held(lock);
  failing = call;
  fails_with = code;
  fails_after = after;
  if (after < 0) sticky = 0;
  return 0;
}
extern "C" __attribute__((visibility("default"))) size_t fake_live() {
  std::lock_guard<std::recursive_mutex> held(lock);
  return live.size();
}
extern "C" __attribute__((visibility("default"))) int fake_loaded() {
  std::lock_guard<std::recursive_mutex> held(lock);
  return loaded;
}

CALL(cuInit, unsigned) { return 0; }
CALL(cuDriverGetVersion, int *version) { *version = 13000; return 0; }
CALL(cuDeviceGetCount, int *count) { *count = 1; return 0; }
CALL(cuDeviceGet, int *device, int ordinal) { *device = ordinal; return ordinal ? 101 : 0; }
CALL(cuDeviceGetName, char *name, int length, int) { strncpy(name, "emulated device", length); return 0; }
CALL(cuDeviceGetAttribute, int *value, int attribute, int) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 2 : 0;
  return 0;
}
CALL(cuDeviceTotalMem_v2, size_t *bytes, int) { *bytes = 1ull << 30; return 0; }
CALL(cuDevicePrimaryCtxRetain, void **context, int) {
  std::lock_guard<std::recursive_mutex> held(lock);
  if (int code = enter("cuDevicePrimaryCtxRetain")) return code;
  *context = (void *)1;
  retained++;
  return 0;
}
// When the last one gives the context up, its memory and its failure go with it.
CALL(cuDevicePrimaryCtxRelease_v2, int) {
  std::lock_guard<std::recursive_mutex> held(lock);
  if (--retained) return 0;
  sticky = 0;
  for (auto &[memory, size] : live) free(memory);
  live.clear();
  return 0;
}
CALL(cuCtxSetCurrent, void *) { return 0; }
CALL(cuMemGetInfo_v2, size_t *free, size_t *total) { *free = *total = 1ull << 30; return 0; }
CALL(cuStreamCreate, void **stream, unsigned) { ENTER("cuStreamCreate"); *stream = new Stream; return 0; }
CALL(cuStreamDestroy_v2, void *stream) { delete (Stream *)stream; return 0; }
CALL(cuStreamSynchronize, void *stream) { ENTER("cuStreamSynchronize"); return work((Stream *)stream, ((Stream *)stream)->begun); }
CALL(cuEventCreate, void **event, unsigned) { ENTER("cuEventCreate"); *event = new Event; return 0; }
CALL(cuEventDestroy_v2, void *event) { delete (Event *)event; return 0; }
CALL(cuEventRecord, void *event, void *stream) {
  ENTER("cuEventRecord");
  *(Event *)event = {(Stream *)stream, ((Stream *)stream)->begun, 0};
  return 0;
}
CALL(cuEventQuery, void *event) {
  ENTER("cuEventQuery");
  Event *e = (Event *)event;
  if (e->stream->done >= e->after) return 0;
  if (e->asked++ == 0) return 600;
  return work(e->stream, e->after);
}
CALL(cuEventSynchronize, void *event) { ENTER("cuEventSynchronize"); return work(((Event *)event)->stream, ((Event *)event)->after); }
CALL(cuEventElapsedTime, float *milliseconds, void *, void *) { ENTER("cuEventElapsedTime"); *milliseconds = 0.25f; return 0; }
CALL(cuMemAlloc_v2, Pointer *pointer, size_t size) {
  ENTER("cuMemAlloc_v2");
  void *memory = size > 1ull << 30 ? nullptr : allocate(size);
  *pointer = (Pointer)memory;
  return memory ? 0 : 2;
}
CALL(cuMemFree_v2, Pointer pointer) { ENTER("cuMemFree_v2"); return release((void *)pointer); }
CALL(cuMemHostAlloc, void **pointer, size_t size, unsigned) {
  ENTER("cuMemHostAlloc");
  *pointer = allocate(size);
  return *pointer ? 0 : 2;
}
CALL(cuMemFreeHost, void *pointer) { ENTER("cuMemFreeHost"); return release(pointer); }
// Looked for by the probe.
CALL(cuMemAllocAsync, Pointer *pointer, size_t size, void *) { return cuMemAlloc_v2(pointer, size); }
CALL(cuMemFreeAsync, Pointer pointer, void *) { return cuMemFree_v2(pointer); }
CALL(cuMemcpyHtoDAsync_v2, Pointer to, const void *from, size_t size, void *stream) {
  ENTER("cuMemcpyHtoDAsync_v2");
  return put((Stream *)stream, [=] { memcpy((void *)to, from, size); return 0; });
}
CALL(cuMemcpyHtoD_v2, Pointer to, const void *from, size_t size) { ENTER("cuMemcpyHtoD_v2"); memcpy((void *)to, from, size); return 0; }
CALL(cuMemcpyDtoHAsync_v2, void *to, Pointer from, size_t size, void *stream) {
  ENTER("cuMemcpyDtoHAsync_v2");
  return put((Stream *)stream, [=] { memcpy(to, (void *)from, size); return 0; });
}
CALL(cuMemsetD8Async, Pointer to, unsigned char value, size_t size, void *stream) {
  ENTER("cuMemsetD8Async");
  return put((Stream *)stream, [=] { memset((void *)to, value, size); return 0; });
}
CALL(cuModuleLoadData, void **module, const void *image) {
  ENTER("cuModuleLoadData");
  *module = BUILT_IN;
  const Elf64_Ehdr *header = (const Elf64_Ehdr *)image;
  // Machine code for a GPU is ELF, too.
  if (memcmp(header->e_ident, ELFMAG, SELFMAG) || header->e_machine == EM_CUDA) return 0;
  char name[] = "/tmp/emulated-kernel-XXXXXX";
  int file = mkstemp(name);
  if (file < 0) return 999;
  bool written = write(file, image, length(header)) == (ssize_t)length(header);
  close(file);
  *module = written ? dlopen(name, RTLD_NOW | RTLD_LOCAL) : nullptr;
  if (!*module) fprintf(stderr, "emulator: %s\n", dlerror());
  unlink(name);
  if (!*module) return 200;
  loaded++;
  return 0;
}
CALL(cuModuleUnload, void *module) {
  std::lock_guard<std::recursive_mutex> held(lock);
  if (module == BUILT_IN) return 0;
  loaded--;
  return dlclose(module) ? 1 : 0;
}
CALL(cuModuleGetFunction, void **function, void *module, const char *name) {
  ENTER("cuModuleGetFunction");
  Dl_info self;
  dladdr((void *)&cuInit, &self);
  void *library = module == BUILT_IN ? dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD) : module;
  *function = library ? dlsym(library, (std::string("emu_kernel_") + name).c_str()) : nullptr;
  return *function ? 0 : 500;
}
CALL(cuLaunchKernel, void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream,
     void **arguments, void **) {
  ENTER("cuLaunchKernel");
  if (gy != 1 || gz != 1 || by != 1 || bz != 1) return 1;
  const EmuKernel *kernel = (const EmuKernel *)function;
  // Like a driver: arguments are copied now. Each lies in eight bytes of its own.
  std::vector<uint64_t> copies(kernel->arguments);
  for (unsigned i = 0; i < kernel->arguments; i++) memcpy(&copies[i], arguments[i], 8);
  return put((Stream *)stream, [=]() mutable {
    std::vector<void *> places;
    for (auto &copy : copies) places.push_back(&copy);
    return emu_launch(kernel->call, places.data(), gx, bx, shared);
  });
}
CALL(cuGetErrorName, int code, const char **name) {
  *name = code == 719 ? "CUDA_ERROR_LAUNCH_FAILED" : code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : nullptr;
  return *name ? 0 : 1;
}
