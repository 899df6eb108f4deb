// CUDA C++ on the CPU, for tests: what kernels use of the language and its built-ins, over the runtime in runtime.cpp.
//
// One fibre is one CUDA thread; a block's fibres run on one thread of the system in a random order that a seed decides, and change
// places at barriers, at warp collectives and, now and then, at atomics. A block whose threads don't all come to a barrier, or whose
// lanes don't agree on a collective, is an error. Shared memory is filled with rubbish before each block.
#pragma once
#define CUDA_ON_CPU
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

struct Dim {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

extern "C" {
const Dim *emu_thread();
const Dim *emu_block();
const Dim *emu_block_size();
const Dim *emu_grid_size();
void emu_barrier(const void *site);
// Waits for all lanes in `mask`, and gives what each of them brought.
const uint64_t *emu_collect(unsigned mask, uint64_t value, const void *site);
void emu_maybe_yield();
char *emu_dynamic_shared();
}

// A place in the source: lanes must meet at the same one.
#define EMU_SITE ([]() -> const void * { static char site; return &site; }())

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("cushared")))
#define DYNAMIC_SHARED(T, name) T *name = (T *)emu_dynamic_shared()
#define threadIdx (*emu_thread())
#define blockIdx (*emu_block())
#define blockDim (*emu_block_size())
#define gridDim (*emu_grid_size())
#define __syncthreads() emu_barrier(EMU_SITE)
#define __ballot_sync(mask, predicate) emu_ballot(emu_collect(mask, (predicate) ? 1 : 0, EMU_SITE), mask)

inline unsigned emu_ballot(const uint64_t *brought, unsigned mask) {
  unsigned result = 0;
  for (int lane = 0; lane < 32; lane++)
    if ((mask >> lane & 1) && brought[lane]) result |= 1u << lane;
  return result;
}

template <class T, class Change> inline T emu_change(T *place, Change change) {
  emu_maybe_yield();
  T old = *place;
  *place = change(old);
  emu_maybe_yield();
  return old;
}
template <class T> inline T atomicAdd(T *place, T value) {
  return emu_change(place, [value](T old) -> T { return old + value; });
}
template <class T> inline T atomicMax(T *place, T value) {
  return emu_change(place, [value](T old) -> T { return old > value ? old : value; });
}
template <class T> inline T atomicOr(T *place, T value) {
  return emu_change(place, [value](T old) -> T { return old | value; });
}
template <class T> inline T atomicExch(T *place, T value) {
  return emu_change(place, [value](T) -> T { return value; });
}
template <class T> inline T atomicCAS(T *place, T expected, T value) {
  return emu_change(place, [expected, value](T old) -> T { return old == expected ? value : old; });
}
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned long long)((unsigned __int128)a * b >> 64); }
inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }
inline double __longlong_as_double(long long bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
inline long long __double_as_longlong(double value) {
  long long bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// What the stand-in driver finds by a kernel's name: how many arguments it takes, and a call with them as cuLaunchKernel gets them.
struct EmuKernel {
  unsigned arguments;
  void (*call)(void **arguments);
};
template <class... A, size_t... I> inline void emu_apply(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
  kernel(*(std::remove_cv_t<std::remove_reference_t<A>> *)arguments[I]...);
}
template <class... A> inline void emu_call(void (*kernel)(A...), void **arguments) { emu_apply(kernel, arguments, std::index_sequence_for<A...>{}); }
template <class... A> constexpr unsigned emu_count(void (*)(A...)) { return sizeof...(A); }
#define EXPORT_KERNEL(name)                                                                                                                         \
  extern "C" __attribute__((visibility("default"))) const EmuKernel emu_kernel_##name;                                                             \
  const EmuKernel emu_kernel_##name = {emu_count(&name), [](void **arguments) { emu_call(&name, arguments); }};
