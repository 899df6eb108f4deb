// Runs the blocks of a launch one after the other in random order, each block's threads as fibres. See cuda_on_cpu.h.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <vector>

struct Dim {
  unsigned x, y, z;
};

namespace {
enum State { READY, AT_BARRIER, IN_COLLECTIVE, DONE };

struct Fibre {
  ucontext_t context;
  char *stack;
  Dim thread;
  unsigned number;
  State state;
  const void *site;
  unsigned mask;
  uint64_t brought, got[32];
};

constexpr size_t STACK = 1 << 16;
constexpr size_t MOST_SHARED = 48 << 10; // what a kernel may have without asking for more
std::vector<Fibre> fibres;
Fibre *current;
ucontext_t scheduler;
Dim block, block_size, grid_size;
void (*call)(void **);
void **call_arguments;
bool failed;
alignas(16) char dynamic_shared[MOST_SHARED + 4096];
uint64_t random_state = 1;

extern "C" char __start_cushared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_cushared[] __attribute__((weak, visibility("hidden")));

unsigned random_number() {
  random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
  return (unsigned)(random_state >> 33);
}

void fail(const char *what) {
  if (!failed) fprintf(stderr, "emulator: block %u thread %u: %s\n", block.x, current ? current->number : 0, what);
  failed = true;
}

void to_scheduler() { swapcontext(&current->context, &scheduler); }

void start() {
  call(call_arguments);
  current->state = DONE;
  to_scheduler();
  abort();
}

// A lane has come to a collective: do all others wait there?
void meet(Fibre &lane, unsigned threads, std::vector<unsigned> &ready) {
  unsigned first = lane.number & ~31u;
  for (unsigned k = 0; k < 32; k++) {
    if (!(lane.mask >> k & 1)) continue;
    if (first + k >= threads) return fail("a collective's mask names a lane outside the block");
    Fibre &other = fibres[first + k];
    if (other.state == DONE) return fail("a collective's mask names a lane that has ended");
    if (other.state != IN_COLLECTIVE) return;
    if (other.mask != lane.mask || other.site != lane.site) return fail("lanes disagree on a collective's mask or place");
  }
  for (unsigned k = 0; k < 32; k++) {
    if (!(lane.mask >> k & 1)) continue;
    Fibre &other = fibres[first + k];
    for (unsigned from = 0; from < 32; from++) other.got[from] = lane.mask >> from & 1 ? fibres[first + from].brought : 0;
    other.state = READY;
    ready.push_back(first + k);
  }
}

void open_barrier(unsigned threads, unsigned done, std::vector<unsigned> &ready) {
  const void *site = nullptr;
  unsigned waiting = 0;
  for (unsigned i = 0; i < threads; i++) {
    if (fibres[i].state != AT_BARRIER) continue;
    waiting++;
    if (site && site != fibres[i].site) return fail("__syncthreads is waited for at different places");
    site = fibres[i].site;
  }
  if (waiting + done != threads) return fail("deadlock: a collective's lanes never all come");
  if (done) return fail("__syncthreads after some threads have ended");
  for (unsigned i = 0; i < threads; i++) ready.push_back(i);
}

void run_block(unsigned threads) {
  if (__start_cushared) memset(__start_cushared, 0xcd, __stop_cushared - __start_cushared);
  memset(dynamic_shared, 0xcd, sizeof dynamic_shared);
  while (fibres.size() < threads) {
    fibres.emplace_back();
    fibres.back().stack = (char *)malloc(STACK);
  }
  std::vector<unsigned> ready(threads);
  for (unsigned i = 0; i < threads; i++) {
    Fibre &fibre = fibres[i];
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack;
    fibre.context.uc_stack.ss_size = STACK;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, start, 0);
    fibre.state = READY;
    fibre.number = i;
    fibre.thread = {i, 0, 0};
    ready[i] = i;
  }
  for (unsigned done = 0; done < threads && !failed;) {
    if (ready.empty()) {
      open_barrier(threads, done, ready);
      continue;
    }
    unsigned chosen = random_number() % ready.size(), number = ready[chosen];
    ready[chosen] = ready.back();
    ready.pop_back();
    current = &fibres[number];
    current->state = READY;
    swapcontext(&scheduler, &current->context);
    if (current->state == DONE) done++;
    else if (current->state == READY) ready.push_back(number);
    else if (current->state == IN_COLLECTIVE) meet(*current, threads, ready);
  }
  current = nullptr;
}
} // namespace

extern "C" {
const Dim *emu_thread() { return &current->thread; }
const Dim *emu_block() { return &block; }
const Dim *emu_block_size() { return &block_size; }
const Dim *emu_grid_size() { return &grid_size; }
char *emu_dynamic_shared() { return dynamic_shared; }
void emu_seed(unsigned seed) { random_state = seed * 2654435761u + 1; }

void emu_maybe_yield() {
  if (random_number() % 4 == 0) to_scheduler();
}

void emu_barrier(const void *site) {
  current->site = site;
  current->state = AT_BARRIER;
  to_scheduler();
}

const uint64_t *emu_collect(unsigned mask, uint64_t value, const void *site) {
  Fibre *me = current;
  if (!(mask >> (me->number & 31) & 1)) fail("a lane is not in the mask it names");
  me->mask = mask;
  me->brought = value;
  me->site = site;
  me->state = IN_COLLECTIVE;
  to_scheduler();
  return me->got;
}

// Runs a launch to its end: 0, or the driver's code for a bad launch or a failed kernel.
int emu_launch(void (*kernel)(void **), void **arguments, unsigned blocks, unsigned threads, unsigned shared) {
  if (!blocks || !threads || threads > 1024 || shared > MOST_SHARED) return 1;
  failed = false;
  grid_size = {blocks, 1, 1};
  block_size = {threads, 1, 1};
  call = kernel;
  call_arguments = arguments;
  std::vector<unsigned> order(blocks);
  for (unsigned i = 0; i < blocks; i++) order[i] = i;
  for (unsigned i = blocks; i > 1; i--) std::swap(order[i - 1], order[random_number() % i]);
  for (unsigned number : order) {
    block = {number, 0, 0};
    run_block(threads);
    if (failed) return 719;
  }
  return 0;
}
}
