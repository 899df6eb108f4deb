// Scores rows with a decision forest in its flat form: one thread scores one row, tree after tree.
//
// Memory contract
//   reads   x        f64[width][stride]   features, one column after the other; NaN is a missing value
//           nodes    Node[]               all trees' nodes; the host has checked that every path ends in a leaf
//           roots    u32[trees]           each tree's first node
//           shares   f64[]                class shares of all leaves
//   writes  out      f64[rows][classes]   every cell, once
//   shared  staged = 1: f64[width][BLOCK], the block's rows; staged = 0: none, features are read from global memory
//
// Result: the mean over the trees of the shares in the leaf that the row reaches, added up in the order of the trees from 0.0 and
// divided once. Only additions and one division, each rounded once: the same bits as the CPU's scorer.

#define FOREST_BLOCK 128
#define LEAF 0xffffffffu
#define MISSING_LEFT 0x80000000u

struct ForestNode {
  double threshold; // a row whose value is less goes left
  u32 feature;      // LEAF in a leaf; the top bit says that missing values go left
  u32 next;         // the left child, the right one being the next; in a leaf the place of its shares
};

// Where the shares of the leaf lie that a row reaches.
INLINE u32 leaf_of(const ForestNode *nodes, u32 at, const double *row, u32 stride) {
  ForestNode node = nodes[at];
  while (node.feature != LEAF) {
    double value = row[(u64)(node.feature & ~MISSING_LEFT) * stride];
    bool left = value < node.threshold || (value != value && (node.feature & MISSING_LEFT));
    node = nodes[node.next + (left ? 0 : 1)];
  }
  return node.next;
}

// Few classes: the sums stay in registers.
template <u32 CLASSES>
INLINE void score_few(const double *row, u32 stride, const ForestNode *nodes, const u32 *roots, u32 trees, const double *shares, double *out) {
  double sums[CLASSES];
#pragma unroll
  for (u32 c = 0; c < CLASSES; c++) sums[c] = 0.0;
  for (u32 t = 0; t < trees; t++) {
    const double *leaf = shares + leaf_of(nodes, roots[t], row, stride);
#pragma unroll
    for (u32 c = 0; c < CLASSES; c++) sums[c] += leaf[c];
  }
#pragma unroll
  for (u32 c = 0; c < CLASSES; c++) out[c] = sums[c] / (double)trees;
}

extern "C" __global__ void __launch_bounds__(FOREST_BLOCK)
forest_score(const double *__restrict__ x, u32 rows, u32 stride, u32 width, const ForestNode *__restrict__ nodes, const u32 *__restrict__ roots,
             u32 trees, const double *__restrict__ shares, u32 classes, u32 staged, double *__restrict__ out) {
  DYNAMIC_SHARED(double, tile);
  u32 row = blockIdx.x * FOREST_BLOCK + threadIdx.x;
  if (row >= rows) return;
  const double *features = x + row;
  u32 step = stride;
  if (staged) {
    // Each thread reads back only what it wrote, so nobody waits for anybody.
    for (u32 f = 0; f < width; f++) tile[f * FOREST_BLOCK + threadIdx.x] = x[(u64)f * stride + row];
    features = tile + threadIdx.x;
    step = FOREST_BLOCK;
  }
  double *mine = out + (u64)row * classes;
  switch (classes) {
  case 2: score_few<2>(features, step, nodes, roots, trees, shares, mine); break;
  case 3: score_few<3>(features, step, nodes, roots, trees, shares, mine); break;
  case 4: score_few<4>(features, step, nodes, roots, trees, shares, mine); break;
  default:
    for (u32 c = 0; c < classes; c++) mine[c] = 0.0;
    for (u32 t = 0; t < trees; t++) {
      const double *leaf = shares + leaf_of(nodes, roots[t], features, step);
      for (u32 c = 0; c < classes; c++) mine[c] += leaf[c];
    }
    for (u32 c = 0; c < classes; c++) mine[c] /= (double)trees;
  }
}
EXPORT_KERNEL(forest_score)
