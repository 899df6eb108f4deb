// What all kernels share. This text stands in front of each kernel's own, also when NVRTC compiles it: there are no include files.
//
// The tests compile the same text with an ordinary C++ compiler (tests/emulator/cuda_on_cpu.h comes first then, and defines
// CUDA_ON_CPU), so kernels keep to C++17 without inline PTX, and dynamic shared memory is declared with DYNAMIC_SHARED.
#ifndef CUDA_ON_CPU
#define DYNAMIC_SHARED(T, name) extern __shared__ T name[]
#define EXPORT_KERNEL(name)
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define ALL_LANES 0xffffffffu
#define INLINE __device__ __forceinline__
