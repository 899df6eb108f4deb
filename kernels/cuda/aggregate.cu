// Groups rows by (key, bin) and aggregates their values: count, sum, minimum, maximum. Exact, so that neither the order in which
// threads come nor the device shows in a result.
//
//   aggregate_bins    each row's bin: the start of its window
//   aggregate_slots   each row's slot in a hash table of groups
//   aggregate_number  numbers the groups that there are, and writes their keys
//   aggregate_scale   each group's greatest exponent, for sums of floats
//   aggregate_rows, aggregate_i64, aggregate_f64   one column of values into the groups
//
// Memory contract, in the order of the launches (all arrays are of the batch's `rows` unless said otherwise)
//   keys i64, times i64, values i64 or f64    read only; `times` may be null: then there are no windows and every bin is 0
//   selected, valid                           Arrow bitmaps as u32 words, padded to whole words; null means all
//   bins i64, slots u32                       written before they are read; a row that is not selected has the slot NO_SLOT
//   table u32[mask + 1]                       zeroed; the number of some row of the group plus one
//   numbers u32[mask + 1]                     the group's number, where `table` is not zero
//   state u32[4]                              zeroed; see STATE_*
//   group_keys, group_bins i64[most]          written for each group
//   counts, low, high, least, greatest u64[most], flags u32[most], exponents u32[most]   zeroed
// If STATE_FULL or STATE_RANGE is set afterwards the rest means nothing and the host does the batch.
//
// Sums are integers of 128 bits, added by two atomic additions with a carry, and integer addition doesn't care for order. A float is
// brought to an integer first: multiples of 2^(e - 42 - 1075), e being the greatest biased exponent in its group. So what is summed is
// each float down to 2^-95 of the greatest one, cut toward zero, and up to 2^32 of them can't overflow.

#define AGGREGATE_BLOCK 256
#define NO_SLOT 0xffffffffu
#define STATE_FULL 0   // more groups than `most`
#define STATE_RANGE 1  // a window starts before the first i64
#define STATE_FOUND 2  // groups in the table
#define STATE_GROUPS 3 // groups numbered
#define FLAG_NAN 1u
#define FLAG_INFINITY 2u
#define FLAG_MINUS_INFINITY 4u
#define CACHED 256 // groups that a block gathers in shared memory before it adds them to the others'
#define HEADROOM 42 // binary places between a group's greatest float and the lowest bit summed, beyond its own 53

INLINE bool bit_of(const u32 *bits, u32 row) { return !bits || (bits[row >> 5] >> (row & 31) & 1); }

extern "C" __global__ void __launch_bounds__(AGGREGATE_BLOCK)
aggregate_bins(const i64 *__restrict__ times, const u32 *__restrict__ selected, u32 rows, i64 width, i64 shift, i64 *__restrict__ bins,
               u32 *__restrict__ state) {
  // `shift` is the windows' origin modulo `width`, which is positive.
  for (u32 row = blockIdx.x * AGGREGATE_BLOCK + threadIdx.x; row < rows; row += gridDim.x * AGGREGATE_BLOCK) {
    i64 bin = 0;
    if (times && bit_of(selected, row)) {
      i64 time = times[row];
      i64 since = time % width;
      if (since < 0) since += width;
      since -= shift;
      if (since < 0) since += width;
      bin = (i64)((u64)time - (u64)since);
      if (bin > time) state[STATE_RANGE] = 1;
    }
    bins[row] = bin;
  }
}
EXPORT_KERNEL(aggregate_bins)

INLINE u64 mix(u64 x) {
  // The finisher of MurmurHash3.
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  return x ^ x >> 33;
}

extern "C" __global__ void __launch_bounds__(AGGREGATE_BLOCK)
aggregate_slots(const i64 *__restrict__ keys, const i64 *__restrict__ bins, const u32 *__restrict__ selected, u32 rows, u32 most, u32 mask,
                u32 *table, u32 *__restrict__ slots, u32 *state) {
  for (u32 row = blockIdx.x * AGGREGATE_BLOCK + threadIdx.x; row < rows; row += gridDim.x * AGGREGATE_BLOCK) {
    u32 slot = NO_SLOT;
    if (bit_of(selected, row)) {
      i64 key = keys[row], bin = bins[row];
      u32 at = (u32)mix((u64)key + mix((u64)bin)) & mask;
      // The table is at least twice as large as `most`, so an end is found; once it is too full nothing matters any more.
      while (!atomicAdd(&state[STATE_FULL], 0u)) {
        u32 found = ((volatile u32 *)table)[at];
        if (!found) {
          found = atomicCAS(&table[at], 0u, row + 1);
          if (!found) {
            if (atomicAdd(&state[STATE_FOUND], 1u) >= most) atomicExch(&state[STATE_FULL], 1u);
            slot = at;
            break;
          }
        }
        // What stands in the table names a row, and rows don't change: there is nothing half written to be seen here.
        if (keys[found - 1] == key && bins[found - 1] == bin) {
          slot = at;
          break;
        }
        at = (at + 1) & mask;
      }
    }
    slots[row] = slot;
  }
}
EXPORT_KERNEL(aggregate_slots)

extern "C" __global__ void __launch_bounds__(AGGREGATE_BLOCK)
aggregate_number(const u32 *__restrict__ table, u32 mask, u32 most, const i64 *__restrict__ keys, const i64 *__restrict__ bins,
                 u32 *__restrict__ numbers, i64 *__restrict__ group_keys, i64 *__restrict__ group_bins, u32 *state) {
  for (u32 at = blockIdx.x * AGGREGATE_BLOCK + threadIdx.x; at <= mask; at += gridDim.x * AGGREGATE_BLOCK) {
    if (!table[at]) continue;
    u32 row = table[at] - 1, number = atomicAdd(&state[STATE_GROUPS], 1u);
    numbers[at] = number < most ? number : 0;
    if (number < most) {
      group_keys[number] = keys[row];
      group_bins[number] = bins[row];
    }
  }
}
EXPORT_KERNEL(aggregate_number)

INLINE u64 bits_of(double value) { return (u64)__double_as_longlong(value); }

// The biased exponent: that of subnormal numbers is 1 as well, and 2047 stands for infinities and what is no number.
INLINE u32 exponent_of(u64 bits) {
  u32 e = (u32)(bits >> 52) & 2047;
  return e ? e : 1;
}

extern "C" __global__ void __launch_bounds__(AGGREGATE_BLOCK)
aggregate_scale(const double *__restrict__ values, const u32 *__restrict__ valid, u32 rows, const u32 *__restrict__ slots,
                const u32 *__restrict__ numbers, const u32 *__restrict__ state, u32 *exponents) {
  if (state[STATE_FULL] | state[STATE_RANGE]) return;
  for (u32 row = blockIdx.x * AGGREGATE_BLOCK + threadIdx.x; row < rows; row += gridDim.x * AGGREGATE_BLOCK) {
    if (slots[row] == NO_SLOT || !bit_of(valid, row)) continue;
    u32 exponent = exponent_of(bits_of(values[row]));
    u32 *greatest = &exponents[numbers[slots[row]]];
    // Exponents only grow, so a stale one costs an atomic operation and nothing else.
    if (exponent < 2047 && *(volatile u32 *)greatest < exponent) atomicMax(greatest, exponent);
  }
}
EXPORT_KERNEL(aggregate_scale)

// What one value adds to its group. Least and greatest are kept as the greatest of an ascending and of a descending picture of the
// value, so that zero is where both begin.
struct Cell {
  u64 count, low, high, least, greatest;
  u32 flags;
};

// Shared memory's cells, or the groups themselves.
struct Cells {
  u64 *counts, *low, *high, *least, *greatest;
  u32 *flags;
};

INLINE void add(const Cells &cells, u32 at, const Cell &cell, bool counts_only) {
  atomicAdd(&cells.counts[at], cell.count);
  if (counts_only) return;
  u64 carry = 0;
  if (cell.low) carry = atomicAdd(&cells.low[at], cell.low) + cell.low < cell.low;
  if (cell.high + carry) atomicAdd(&cells.high[at], cell.high + carry);
  if (((volatile u64 *)cells.least)[at] < cell.least) atomicMax(&cells.least[at], cell.least);
  if (((volatile u64 *)cells.greatest)[at] < cell.greatest) atomicMax(&cells.greatest[at], cell.greatest);
  if (cell.flags) atomicOr(&cells.flags[at], cell.flags);
}

struct NoValue {
  static const bool counts_only = true;
  static INLINE void read(const void *, u32, u32, Cell &) {}
};

struct Integer {
  static const bool counts_only = false;
  static INLINE void read(const void *values, u32 row, u32, Cell &cell) {
    i64 value = ((const i64 *)values)[row];
    cell.low = (u64)value;
    cell.high = value < 0 ? ~0ull : 0;
    cell.greatest = (u64)value ^ 1ull << 63;
    cell.least = ~cell.greatest;
  }
};

struct Float {
  static const bool counts_only = false;
  static INLINE void read(const void *values, u32 row, u32 exponent, Cell &cell) {
    u64 bits = bits_of(((const double *)values)[row]);
    // IEEE 754's total order, as integers.
    cell.greatest = bits >> 63 ? ~bits : bits | 1ull << 63;
    cell.least = ~cell.greatest;
    u64 fraction = bits & ((1ull << 52) - 1);
    u32 e = (u32)(bits >> 52) & 2047;
    if (e == 2047) {
      cell.flags = fraction ? FLAG_NAN : bits >> 63 ? FLAG_MINUS_INFINITY : FLAG_INFINITY;
      return;
    }
    u64 mantissa = e ? fraction | 1ull << 52 : fraction;
    u32 below = exponent - (e ? e : 1);
    u64 low = 0, high = 0;
    if (below <= HEADROOM) {
      u32 up = HEADROOM - below;
      low = mantissa << up;
      high = up ? mantissa >> (64 - up) : 0;
    } else if (below - HEADROOM < 64) {
      low = mantissa >> (below - HEADROOM);
    }
    if (bits >> 63) {
      low = ~low + 1;
      high = ~high + (low == 0);
    }
    cell.low = low;
    cell.high = high;
  }
};

template <class Value>
INLINE void gather(const void *values, const u32 *valid, u32 rows, const u32 *slots, const u32 *numbers, const u32 *state,
                   const u32 *exponents, Cells groups) {
  __shared__ u32 tags[CACHED], flags[CACHED];
  __shared__ u64 counts[CACHED], low[CACHED], high[CACHED], least[CACHED], greatest[CACHED];
  for (u32 i = threadIdx.x; i < CACHED; i += AGGREGATE_BLOCK) {
    tags[i] = NO_SLOT;
    flags[i] = 0;
    counts[i] = low[i] = high[i] = least[i] = greatest[i] = 0;
  }
  __syncthreads();
  Cells cached = {counts, low, high, least, greatest, flags};
  if (!(state[STATE_FULL] | state[STATE_RANGE])) {
    for (u32 row = blockIdx.x * AGGREGATE_BLOCK + threadIdx.x; row < rows; row += gridDim.x * AGGREGATE_BLOCK) {
      if (slots[row] == NO_SLOT || !bit_of(valid, row)) continue;
      u32 group = numbers[slots[row]];
      Cell cell = {1, 0, 0, 0, 0, 0};
      Value::read(values, row, exponents ? exponents[group] : 0, cell);
      u32 at = group % CACHED;
      u32 owner = ((volatile u32 *)tags)[at];
      if (owner == NO_SLOT) owner = atomicCAS(&tags[at], NO_SLOT, group);
      bool mine = owner == NO_SLOT || owner == group;
      add(mine ? cached : groups, mine ? at : group, cell, Value::counts_only);
    }
  }
  __syncthreads();
  for (u32 i = threadIdx.x; i < CACHED; i += AGGREGATE_BLOCK) {
    if (tags[i] == NO_SLOT) continue;
    Cell cell = {counts[i], low[i], high[i], least[i], greatest[i], flags[i]};
    add(groups, tags[i], cell, Value::counts_only);
  }
}

extern "C" __global__ void __launch_bounds__(AGGREGATE_BLOCK)
aggregate_rows(u32 rows, const u32 *__restrict__ slots, const u32 *__restrict__ numbers, const u32 *__restrict__ state, u64 *counts) {
  Cells groups = {counts, 0, 0, 0, 0, 0};
  gather<NoValue>(0, 0, rows, slots, numbers, state, 0, groups);
}
EXPORT_KERNEL(aggregate_rows)

extern "C" __global__ void __launch_bounds__(AGGREGATE_BLOCK)
aggregate_i64(const i64 *__restrict__ values, const u32 *__restrict__ valid, u32 rows, const u32 *__restrict__ slots,
              const u32 *__restrict__ numbers, const u32 *__restrict__ state, u64 *counts, u64 *low, u64 *high, u64 *least, u64 *greatest) {
  Cells groups = {counts, low, high, least, greatest, 0};
  gather<Integer>(values, valid, rows, slots, numbers, state, 0, groups);
}
EXPORT_KERNEL(aggregate_i64)

extern "C" __global__ void __launch_bounds__(AGGREGATE_BLOCK)
aggregate_f64(const double *__restrict__ values, const u32 *__restrict__ valid, u32 rows, const u32 *__restrict__ slots,
              const u32 *__restrict__ numbers, const u32 *__restrict__ state, const u32 *__restrict__ exponents, u64 *counts, u64 *low,
              u64 *high, u64 *least, u64 *greatest, u32 *flags) {
  Cells groups = {counts, low, high, least, greatest, flags};
  gather<Float>(values, valid, rows, slots, numbers, state, exponents, groups);
}
EXPORT_KERNEL(aggregate_f64)
