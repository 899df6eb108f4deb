// What kernels of expressions are written in. Such a kernel is generated at run time (src/expr/generate.rs); this text stands in front of
// it, behind the shared prelude.
//
// Memory contract of a generated kernel
//   cN          i32, i64, f64[rows], or u32 words of bits   read only
//   cN_valid    u32 words of bits; null means all           read only
//   rN          as cN, every word written                   zero where the result is NULL
//   rN_valid    u32 words of bits, every word written       bits beyond the last row are zero
//   selected    u32 words of bits, every word written       only with a filter
//   faults      u32[1], zeroed before                       FAULT_*; if there is any, the rest means nothing
// One thread computes one row, and a warp writes whole words.
//
// Floating-point arithmetic is rounded operation by operation. The bits of a NaN are never those that the device gives: see `rounded`.

#define EXPR_BLOCK 256
#define FAULT_OVERFLOW 1u
#define FAULT_DIVISION_BY_ZERO 2u
#define FAULT_CAST 4u
#define FAULT_NAN 8u

typedef int i32;

// A value or NULL. The value of a NULL is zero.
template <class T> struct Cell {
  T value;
  bool valid;
};

template <class T> INLINE Cell<T> null() { return {T(), false}; }
template <class T> INLINE Cell<T> some(T value) { return {value, true}; }
template <class T> INLINE Cell<T> fault(u32 which, u32 &faults) {
  faults |= which;
  return null<T>();
}

INLINE u64 bits_of(double value) { return (u64)__double_as_longlong(value); }
INLINE double of_bits(u64 bits) { return __longlong_as_double((i64)bits); }

INLINE bool bit_of(const u32 *bits, u32 row) { return bits[row >> 5] >> (row & 31) & 1; }

template <class T> INLINE Cell<T> load(const T *values, const u32 *valid, u32 row) {
  return !valid || bit_of(valid, row) ? some(values[row]) : null<T>();
}
INLINE Cell<bool> load_bit(const u32 *values, const u32 *valid, u32 row) {
  return !valid || bit_of(valid, row) ? some(bit_of(values, row)) : null<bool>();
}

// The words of a warp's rows. All lanes come here, those beyond the last row with NULL.
INLINE void store_bits(u32 *words, u32 row, bool bit) {
  u32 word = __ballot_sync(ALL_LANES, bit);
  if ((row & 31) == 0) words[row >> 5] = word;
}
template <class T> INLINE void store(T *values, u32 *valid, u32 row, u32 rows, Cell<T> cell) {
  if (row < rows) values[row] = cell.value;
  store_bits(valid, row, cell.valid);
}
INLINE void store_bit(u32 *values, u32 *valid, u32 row, Cell<bool> cell) {
  store_bits(values, row, cell.value);
  store_bits(valid, row, cell.valid);
}

// Comparisons: of floats as of IEEE 754's total order, but that both zeros are one.
INLINE i32 ordered(bool value) { return value; }
INLINE i32 ordered(i32 value) { return value; }
INLINE i64 ordered(i64 value) { return value; }
INLINE i64 ordered(double value) {
  u64 bits = bits_of(value);
  if (bits << 1 == 0) bits = 0;
  return (i64)(bits >> 63 ? bits ^ ~(1ull << 63) : bits);
}

INLINE Cell<bool> truth(bool valid, bool value) { return {valid && value, valid}; }
template <class T> INLINE Cell<bool> equal(Cell<T> a, Cell<T> b) { return truth(a.valid && b.valid, ordered(a.value) == ordered(b.value)); }
template <class T> INLINE Cell<bool> not_equal(Cell<T> a, Cell<T> b) { return truth(a.valid && b.valid, ordered(a.value) != ordered(b.value)); }
template <class T> INLINE Cell<bool> less(Cell<T> a, Cell<T> b) { return truth(a.valid && b.valid, ordered(a.value) < ordered(b.value)); }
template <class T> INLINE Cell<bool> less_or_equal(Cell<T> a, Cell<T> b) { return truth(a.valid && b.valid, ordered(a.value) <= ordered(b.value)); }
template <class T> INLINE Cell<bool> greater(Cell<T> a, Cell<T> b) { return less(b, a); }
template <class T> INLINE Cell<bool> greater_or_equal(Cell<T> a, Cell<T> b) { return less_or_equal(b, a); }
template <class T> INLINE Cell<bool> not_distinct(Cell<T> a, Cell<T> b) {
  // Two NULLs have the same value, zero.
  return some(a.valid == b.valid && ordered(a.value) == ordered(b.value));
}
template <class T> INLINE Cell<bool> distinct(Cell<T> a, Cell<T> b) { return some(!not_distinct(a, b).value); }

// `found`: whether one of the list has the value's bits.
template <class T> INLINE Cell<bool> in_list(Cell<T> a, bool found, bool null_in_list) {
  return truth(a.valid && (found || !null_in_list), found);
}

// Logic with three values. A NULL's value is false.
INLINE bool is_true(Cell<bool> a) { return a.value; }
INLINE bool is_false(Cell<bool> a) { return a.valid && !a.value; }
INLINE Cell<bool> logical_and(Cell<bool> a, Cell<bool> b) { return truth((a.valid && b.valid) || is_false(a) || is_false(b), a.value && b.value); }
INLINE Cell<bool> logical_or(Cell<bool> a, Cell<bool> b) { return truth((a.valid && b.valid) || a.value || b.value, a.value || b.value); }
INLINE Cell<bool> logical_not(Cell<bool> a) { return truth(a.valid, !a.value); }
template <class T> INLINE Cell<bool> is_null(Cell<T> a) { return some(!a.valid); }

// Integers modulo 2^32 or 2^64.
INLINE i32 plus(i32 a, i32 b) { return (i32)((u32)a + (u32)b); }
INLINE i64 plus(i64 a, i64 b) { return (i64)((u64)a + (u64)b); }
INLINE i32 minus(i32 a, i32 b) { return (i32)((u32)a - (u32)b); }
INLINE i64 minus(i64 a, i64 b) { return (i64)((u64)a - (u64)b); }
INLINE i32 times(i32 a, i32 b) { return (i32)((u32)a * (u32)b); }
INLINE i64 times(i64 a, i64 b) { return (i64)((u64)a * (u64)b); }

// Whether they are what they would be without a bound.
template <class T> INLINE bool plus_fits(T a, T b) { return ((a ^ plus(a, b)) & (b ^ plus(a, b))) >= 0; }
template <class T> INLINE bool minus_fits(T a, T b) { return ((a ^ b) & (a ^ minus(a, b))) >= 0; }
INLINE bool times_fits(i32 a, i32 b) { return (i64)a * b == times(a, b); }
INLINE bool times_fits(i64 a, i64 b) { return __mul64hi(a, b) == (times(a, b) < 0 ? -1 : 0); }

template <class T> INLINE Cell<T> both(Cell<T> a, Cell<T> b, T value) { return a.valid && b.valid ? some(value) : null<T>(); }
template <class T> INLINE Cell<T> add_wrapping(Cell<T> a, Cell<T> b) { return both(a, b, plus(a.value, b.value)); }
template <class T> INLINE Cell<T> subtract_wrapping(Cell<T> a, Cell<T> b) { return both(a, b, minus(a.value, b.value)); }
template <class T> INLINE Cell<T> multiply_wrapping(Cell<T> a, Cell<T> b) { return both(a, b, times(a.value, b.value)); }

// A NULL's value is zero, with which nothing is out of range.
template <class T> INLINE Cell<T> add(Cell<T> a, Cell<T> b, u32 &faults) {
  return plus_fits(a.value, b.value) ? add_wrapping(a, b) : fault<T>(FAULT_OVERFLOW, faults);
}
template <class T> INLINE Cell<T> subtract(Cell<T> a, Cell<T> b, u32 &faults) {
  // But for zero less the least number.
  return !a.valid || minus_fits(a.value, b.value) ? subtract_wrapping(a, b) : fault<T>(FAULT_OVERFLOW, faults);
}
template <class T> INLINE Cell<T> multiply(Cell<T> a, Cell<T> b, u32 &faults) {
  return times_fits(a.value, b.value) ? multiply_wrapping(a, b) : fault<T>(FAULT_OVERFLOW, faults);
}
template <class T> INLINE Cell<T> divide(Cell<T> a, Cell<T> b, u32 &faults) {
  if (!a.valid || !b.valid) return null<T>();
  if (b.value == 0) return fault<T>(FAULT_DIVISION_BY_ZERO, faults);
  if (b.value == -1) return minus_fits(T(), a.value) ? some(minus(T(), a.value)) : fault<T>(FAULT_OVERFLOW, faults);
  return some<T>(a.value / b.value);
}
template <class T> INLINE Cell<T> remainder(Cell<T> a, Cell<T> b, u32 &faults) {
  if (!a.valid || !b.valid) return null<T>();
  if (b.value == 0) return fault<T>(FAULT_DIVISION_BY_ZERO, faults);
  return some<T>(b.value == -1 ? 0 : a.value % b.value);
}
template <class T> INLINE Cell<T> negate(Cell<T> a) { return {minus(T(), a.value), a.valid}; }

// The result of an operation on floats. Processors disagree on the bits of NaNs, and the total order shows them: a single NaN goes on as
// it is but for the bit that makes it quiet, as IEEE 754 recommends and processors do; everything else is left to the host.
INLINE Cell<double> rounded(Cell<double> a, Cell<double> b, double result, u32 &faults) {
  if (!a.valid || !b.valid) return null<double>();
  if (result == result) return some(result);
  u64 quiet = 1ull << 51, left = bits_of(a.value) | quiet, right = bits_of(b.value) | quiet;
  bool left_nan = a.value != a.value, right_nan = b.value != b.value;
  if (left_nan == right_nan && (!left_nan || left != right)) return fault<double>(FAULT_NAN, faults);
  return some(of_bits(left_nan ? left : right));
}
INLINE Cell<double> add(Cell<double> a, Cell<double> b, u32 &faults) { return rounded(a, b, a.value + b.value, faults); }
INLINE Cell<double> subtract(Cell<double> a, Cell<double> b, u32 &faults) { return rounded(a, b, a.value - b.value, faults); }
INLINE Cell<double> multiply(Cell<double> a, Cell<double> b, u32 &faults) { return rounded(a, b, a.value * b.value, faults); }
INLINE Cell<double> divide(Cell<double> a, Cell<double> b, u32 &faults) { return rounded(a, b, a.value / b.value, faults); }
INLINE Cell<double> remainder(Cell<double> a, Cell<double> b, u32 &faults) { return rounded(a, b, fmod(a.value, b.value), faults); }
INLINE Cell<double> negate(Cell<double> a) { return a.valid ? some(of_bits(bits_of(a.value) ^ 1ull << 63)) : a; }

// Casts: whether the other type holds the value.
template <class T> INLINE bool convert(T from, bool &to) {
  to = from != 0;
  return true;
}
INLINE bool convert(bool from, i32 &to) {
  to = from;
  return true;
}
INLINE bool convert(bool from, i64 &to) {
  to = from;
  return true;
}
INLINE bool convert(bool from, double &to) {
  to = from ? 1.0 : 0.0;
  return true;
}
INLINE bool convert(i32 from, i64 &to) {
  to = from;
  return true;
}
INLINE bool convert(i32 from, double &to) {
  to = from;
  return true;
}
INLINE bool convert(i64 from, double &to) {
  to = (double)from;
  return true;
}
INLINE bool convert(i64 from, i32 &to) {
  to = (i32)from;
  return to == from;
}
INLINE bool convert(double from, i32 &to) {
  bool holds = from > -2147483649.0 && from < 2147483648.0;
  if (holds) to = (i32)from;
  return holds;
}
INLINE bool convert(double from, i64 &to) {
  bool holds = from >= -9223372036854775808.0 && from < 9223372036854775808.0;
  if (holds) to = (i64)from;
  return holds;
}
template <class To, class From> INLINE Cell<To> try_cast(Cell<From> a) {
  To to = To();
  return a.valid && convert(a.value, to) ? some(to) : null<To>();
}
template <class To, class From> INLINE Cell<To> cast(Cell<From> a, u32 &faults) {
  Cell<To> result = try_cast<To>(a);
  if (a.valid && !result.valid) faults |= FAULT_CAST;
  return result;
}

// The begin of the stride that a time is in; times are multiples of `scale` nanoseconds. NULL if any step doesn't fit.
INLINE Cell<i64> date_bin(Cell<i64> a, i64 scale, i64 stride, i64 origin) {
  if (!a.valid || !times_fits(a.value, scale)) return null<i64>();
  i64 time = times(a.value, scale);
  if (!minus_fits(time, origin)) return null<i64>();
  i64 since = minus(time, origin), rest = since % stride;
  if (rest < 0) rest += stride;
  if (!minus_fits(since, rest)) return null<i64>();
  i64 to_begin = minus(since, rest);
  return plus_fits(origin, to_begin) ? some(plus(origin, to_begin) / scale) : null<i64>();
}
