// Scores rows with a model: one thread scores one row. A forest, boosted trees, or a linear model.
//
// Memory contract, all three
//   reads   x        f64[width][stride]    features, one column after the other; NaN is a missing value
//   writes  out      f64[rows][outputs]    every cell; a thread reads back only what it wrote
//   shared  staged = 1: f64[width][BLOCK], the block's rows; staged = 0: none, features are read from global memory
// forest_score and boosted_score
//   reads   nodes    Node[]                all trees' nodes; the host has checked that every path ends in a leaf
//           roots    u32[trees]            each tree's first node
// forest_score
//   reads   shares   f64[]                 class shares of all leaves
// boosted_score
//   reads   firsts   u32[margins + 1]      where in roots each margin's trees begin, and where the last one's end
//           base     f64[margins]          what each margin is before its first tree
// linear_score
//   reads   coefficients  f64[width][margins]
//           intercepts    f64[margins]
//           fill, centre, scale  f64[width], or null
//
// Results: additions, products and divisions in a fixed order, each rounded once (the compiler is told to fuse none), and an exponential
// made of these: the same bits as src/score gives, which says what is computed. NaN has one form.

#define SCORE_BLOCK 128

// ---- Links ----

#define LINK_SIGMOID 1
#define LINK_SOFTMAX 2

// e to the power of x, operation for operation as in src/score/exp.rs, which explains it.
INLINE double exponential(double x) {
  double within = x < -746.0 ? -746.0 : x;
  within = within > 710.0 ? 710.0 : within;
  double shifted = within * 1.44269504088896338700 + 6755399441055744.0;
  double k = shifted - 6755399441055744.0;
  double high = within - k * 6.93147180369123816490e-01;
  double low = k * 1.90821492927058770002e-10;
  double r = high - low;
  double rest = 1.0 / 6227020800.0;
  rest = 1.0 / 479001600.0 + r * rest;
  rest = 1.0 / 39916800.0 + r * rest;
  rest = 1.0 / 3628800.0 + r * rest;
  rest = 1.0 / 362880.0 + r * rest;
  rest = 1.0 / 40320.0 + r * rest;
  rest = 1.0 / 5040.0 + r * rest;
  rest = 1.0 / 720.0 + r * rest;
  rest = 1.0 / 120.0 + r * rest;
  rest = 1.0 / 24.0 + r * rest;
  rest = 1.0 / 6.0 + r * rest;
  rest = 0.5 + r * rest;
  double power = 1.0 + (high - (low - (r * r) * rest));
  int whole = (int)(u32)(u64)__double_as_longlong(shifted);
  int half = whole >> 1;
  double first = __longlong_as_double((i64)((u64)((u32)half + 1023u) << 52));
  double second = __longlong_as_double((i64)((u64)((u32)whole - (u32)half + 1023u) << 52));
  return power * first * second;
}

// NaN in its one form: which bits an operation gives it is each device's own affair.
INLINE double one_nan(double value) {
  u64 bits = (u64)__double_as_longlong(value);
  bool nan = (bits & 0x7fffffffffffffffull) > 0x7ff0000000000000ull;
  return __longlong_as_double((i64)(nan ? 0x7ff8000000000000ull : bits));
}

// Turns a row's margins into what the model gives out, in place; a sigmoid makes two of one.
INLINE void apply_link(u32 link, double *row, u32 margins) {
  if (link == LINK_SIGMOID) {
    double z = row[0];
    double e = exponential(z < 0.0 ? z : -z);
    double sum = 1.0 + e;
    double greater = one_nan(1.0 / sum), less = one_nan(e / sum);
    row[0] = z < 0.0 ? greater : less;
    row[1] = z < 0.0 ? less : greater;
    return;
  }
  if (link == LINK_SOFTMAX) {
    double most = row[0];
    for (u32 m = 1; m < margins; m++) most = row[m] > most ? row[m] : most;
    double sum = 0.0;
    for (u32 m = 0; m < margins; m++) {
      double e = exponential(row[m] == most ? 0.0 : row[m] - most);
      row[m] = e;
      sum += e;
    }
    for (u32 m = 0; m < margins; m++) row[m] /= sum;
  }
  for (u32 m = 0; m < margins; m++) row[m] = one_nan(row[m]);
}

// ---- Trees ----

#define MISSING_LEFT 0x80000000u

struct Node {
  double value; // a row whose value is less goes left; in a leaf what it holds
  u32 feature;  // the top bit says that missing values go left; 0 in a leaf
  u32 next;     // the left child, the right one being the next; a leaf's own number
};

// A row's features: where the first one lies, and how far it is to the next.
struct Row {
  const double *first;
  u32 step;
};

// What the leaf holds that a row reaches.
INLINE double leaf_of(const Node *nodes, u32 at, Row row) {
  Node node = nodes[at];
  while (node.next != at) {
    double value = row.first[(u64)(node.feature & ~MISSING_LEFT) * row.step];
    bool left = value < node.value || (value != value && (node.feature & MISSING_LEFT));
    at = node.next + (left ? 0 : 1);
    node = nodes[at];
  }
  return node.value;
}

// This thread's row, which it puts into shared memory first if that is asked for.
INLINE Row row_of(const double *x, u32 row, u32 stride, u32 width, u32 staged, double *tile) {
  if (!staged) return {x + row, stride};
  // Each thread reads back only what it wrote, so nobody waits for anybody.
  for (u32 f = 0; f < width; f++) tile[f * SCORE_BLOCK + threadIdx.x] = x[(u64)f * stride + row];
  return {tile + threadIdx.x, SCORE_BLOCK};
}

// Few classes: the sums stay in registers.
template <u32 CLASSES>
INLINE void mean_of_few(Row row, const Node *nodes, const u32 *roots, u32 trees, const double *shares, double *out) {
  double sums[CLASSES];
#pragma unroll
  for (u32 c = 0; c < CLASSES; c++) sums[c] = 0.0;
  for (u32 t = 0; t < trees; t++) {
    const double *leaf = shares + (u32)leaf_of(nodes, roots[t], row);
#pragma unroll
    for (u32 c = 0; c < CLASSES; c++) sums[c] += leaf[c];
  }
#pragma unroll
  for (u32 c = 0; c < CLASSES; c++) out[c] = sums[c] / (double)trees;
}

extern "C" __global__ void __launch_bounds__(SCORE_BLOCK)
forest_score(const double *__restrict__ x, u32 rows, u32 stride, u32 width, const Node *__restrict__ nodes, const u32 *__restrict__ roots,
             u32 trees, const double *__restrict__ shares, u32 classes, u32 staged, double *__restrict__ out) {
  DYNAMIC_SHARED(double, tile);
  u32 number = blockIdx.x * SCORE_BLOCK + threadIdx.x;
  if (number >= rows) return;
  Row row = row_of(x, number, stride, width, staged, tile);
  double *mine = out + (u64)number * classes;
  switch (classes) {
  case 2: mean_of_few<2>(row, nodes, roots, trees, shares, mine); break;
  case 3: mean_of_few<3>(row, nodes, roots, trees, shares, mine); break;
  case 4: mean_of_few<4>(row, nodes, roots, trees, shares, mine); break;
  default:
    for (u32 c = 0; c < classes; c++) mine[c] = 0.0;
    for (u32 t = 0; t < trees; t++) {
      const double *leaf = shares + (u32)leaf_of(nodes, roots[t], row);
      for (u32 c = 0; c < classes; c++) mine[c] += leaf[c];
    }
    for (u32 c = 0; c < classes; c++) mine[c] /= (double)trees;
  }
}
EXPORT_KERNEL(forest_score)

extern "C" __global__ void __launch_bounds__(SCORE_BLOCK)
boosted_score(const double *__restrict__ x, u32 rows, u32 stride, u32 width, const Node *__restrict__ nodes, const u32 *__restrict__ roots,
              const u32 *__restrict__ firsts, const double *__restrict__ base, u32 margins, u32 link, u32 staged, double *__restrict__ out) {
  DYNAMIC_SHARED(double, tile);
  u32 number = blockIdx.x * SCORE_BLOCK + threadIdx.x;
  if (number >= rows) return;
  Row row = row_of(x, number, stride, width, staged, tile);
  double *mine = out + (u64)number * (link == LINK_SIGMOID ? 2 : margins);
  for (u32 m = 0; m < margins; m++) {
    double sum = base[m];
    for (u32 t = firsts[m]; t < firsts[m + 1]; t++) sum += leaf_of(nodes, roots[t], row);
    mine[m] = sum;
  }
  apply_link(link, mine, margins);
}
EXPORT_KERNEL(boosted_score)

// ---- Linear models ----

// What turns a feature's value into the model's input; null where there is nothing of the kind.
struct Inputs {
  const double *fill, *centre, *scale;
};

// Some margins of a row: each feature is read and prepared once for all of them.
template <u32 COUNT>
INLINE void margins_of(const double *x, u32 stride, u32 width, const double *coefficients, u32 step, const double *intercepts, Inputs inputs, double *out) {
  double sums[COUNT];
#pragma unroll
  for (u32 m = 0; m < COUNT; m++) sums[m] = 0.0;
  for (u32 f = 0; f < width; f++) {
    double value = x[(u64)f * stride];
    if (inputs.fill && value != value) value = inputs.fill[f];
    if (inputs.centre) value -= inputs.centre[f];
    if (inputs.scale) value /= inputs.scale[f];
#pragma unroll
    for (u32 m = 0; m < COUNT; m++) sums[m] += coefficients[(u64)f * step + m] * value;
  }
#pragma unroll
  for (u32 m = 0; m < COUNT; m++) out[m] = sums[m] + intercepts[m];
}

extern "C" __global__ void __launch_bounds__(SCORE_BLOCK)
linear_score(const double *__restrict__ x, u32 rows, u32 stride, u32 width, const double *__restrict__ coefficients,
             const double *__restrict__ intercepts, const double *__restrict__ fill, const double *__restrict__ centre,
             const double *__restrict__ scale, u32 margins, u32 link, double *__restrict__ out) {
  u32 number = blockIdx.x * SCORE_BLOCK + threadIdx.x;
  if (number >= rows) return;
  double *mine = out + (u64)number * (link == LINK_SIGMOID ? 2 : margins);
  Inputs inputs = {fill, centre, scale};
  const double *row = x + number;
  u32 m = 0;
  for (; m + 4 <= margins; m += 4) margins_of<4>(row, stride, width, coefficients + m, margins, intercepts + m, inputs, mine + m);
  switch (margins - m) {
  case 1: margins_of<1>(row, stride, width, coefficients + m, margins, intercepts + m, inputs, mine + m); break;
  case 2: margins_of<2>(row, stride, width, coefficients + m, margins, intercepts + m, inputs, mine + m); break;
  case 3: margins_of<3>(row, stride, width, coefficients + m, margins, intercepts + m, inputs, mine + m); break;
  }
  apply_link(link, mine, margins);
}
EXPORT_KERNEL(linear_score)
