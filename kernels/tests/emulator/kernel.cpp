// One kernel source, compiled for the CPU: -DKERNEL_FILE names it.
#include "cuda_on_cpu.h"

#include "../../cuda/prelude.cuh"

#include KERNEL_FILE
