// The matrix products of a dense layer: bfloat16 in, summed in float32.
// bert_tf/modeling/backends/fused_products.py defines the results.

#ifndef BERT_TF_FUSED_OPS_PRODUCTS_H_
#define BERT_TF_FUSED_OPS_PRODUCTS_H_

#include "functions.h"
#include "panels.h"

namespace bert_tf {
namespace BERT_TF_ISA {

// ------------------------------------------------------------------------- packing

// 32 x 32 of a float32 matrix, rounded; 0 beyond `rows` and `columns`.
inline void ReadBlock(const float* x, int64_t stride, int64_t rows, int64_t columns,
                      bfloat* block) {
  for (int64_t i = 0; i < kBlock; ++i) {
    const float* row = x + i * stride;
    const int64_t here = i < rows ? columns : 0;
    Write(block + i * kBlock, ReadFirst(row, here), ReadFirst(row + 16, here - 16));
  }
}

// Kernels [rows, width] side by side -> panels of them and of their transpose.
inline void PackKernels(const Loop& loop, const float* const* kernels, int64_t count,
                        int64_t rows, int64_t width, bfloat* forward, bfloat* backward) {
  const int64_t depth = RoundUp(rows), columns = RoundUp(count * width);
  ForEach(loop, depth / kBlock, columns * kBlock, [&](int64_t i) {
    for (int64_t j = 0; j < columns / kBlock; ++j) {
      const int64_t column = j * kBlock, kernel = Least(column / width, count - 1);
      const int64_t first = column - kernel * width;
      alignas(64) bfloat block[kStep];
      ReadBlock(kernels[kernel] + i * kBlock * width + first, width, rows - i * kBlock,
                width - first, block);
      PackStep<true>(block, kBlock, kBlock, kBlock,
                     forward + j * depth * kBlock + i * kStep);
      PackStepOfTransposed<true>(block, kBlock, kBlock, kBlock,
                                 backward + i * columns * kBlock + j * kStep);
    }
    _mm_sfence();  // Other threads read the non-temporal stores next.
  });
}

// ------------------------------------------------------------------- rows times panels

// Numbers of x that stay in the second-level cache while all panels are read.
constexpr int64_t kResident = 800000 / sizeof(Factor);
constexpr int64_t kDeepest = 4096;  // Deeper products are split, see below.
// Steps of a panel that are multiplied by all rows before the next ones: with tiles, those
// that stay in the first-level cache.
#if defined(__AMX_BF16__)
constexpr int64_t kPartSteps = 16;
#else
constexpr int64_t kPartSteps = kDeepest / kBlock;
#endif

struct Range {
  int64_t begin, end;
};

// Rows of x, 32 at a time, and of each row the numbers in `depth`.
template <typename T>
class Left;

#if defined(__AMX_BF16__)

// All rows are copied, once for all panels: then each tile is 16 cache lines in a row, and
// a product up to 1.2 times as fast.
template <>
class Left<bfloat> {
 public:
  Left(const Product& m, Range rows, Range depth)
      : begin_(rows.begin), depth_(depth.end - depth.begin) {
    static thread_local Scratch memory;
    copy_ = memory.Get<bfloat>(RoundUp(rows.end - rows.begin) * depth_);
    for (int64_t row = rows.begin; row < rows.end; row += kBlock) {
      for (int64_t first = 0; first < depth_; first += kColumns) {
        for (int64_t r = 0; r < kBlock; ++r) {
          const bfloat* from = m.x + (row + r) * m.depth + depth.begin;
          bfloat* to = copy_ + (row - begin_) * depth_ + r * kBlock;
          const int64_t there = row + r < rows.end ? kBlock : 0;  // Then zeros.
          for (int64_t d = first; d < Least(first + kColumns, depth_); d += kBlock)
            Write(to + d * kBlock, ReadFirst(from + d, there));
        }
      }
    }
  }

  Rows<bfloat> From(int64_t row) const {
    return Packed<bfloat>(copy_ + (row - begin_) * depth_);
  }

 private:
  // Copied of each row at a time: steps are 2 KB apart, which share sets of the cache.
  static constexpr int64_t kColumns = 256;
  int64_t begin_, depth_;
  bfloat* copy_;
};

#else

// The last block, if it is not whole, is copied and filled with 0, once for all panels.
template <>
class Left<bfloat> {
 public:
  Left(const Product& m, Range rows, Range depth)
      : x_(m.x + depth.begin), stride_(m.depth) {
    static thread_local Scratch memory;
    last_ = rows.end / kBlock * kBlock;
    if (last_ == rows.end) return;
    bfloat* copy = memory.Get<bfloat>(kBlock * stride_);
    for (int64_t r = 0; r < kBlock; ++r) {
      const int64_t there = last_ + r < rows.end ? depth.end - depth.begin : 0;
      memcpy(copy + r * stride_, x_ + (last_ + r) * stride_, there * sizeof(bfloat));
      memset(copy + r * stride_ + there, 0, (stride_ - there) * sizeof(bfloat));
    }
    copy_ = copy;
  }

  Rows<bfloat> From(int64_t row) const {
    return RowMajor(row == last_ ? copy_ : x_ + row * stride_, stride_);
  }

 private:
  const bfloat* x_;
  int64_t stride_, last_;
  const bfloat* copy_ = nullptr;
};

// All of `depth`.
template <>
class Left<float> {
 public:
  Left(const Product& m, Range rows, Range depth) : begin_(rows.begin), depth_(m.depth) {
    static thread_local Scratch memory;
    const Left<bfloat> left(m, rows, depth);
    float* wide = memory.Get<float>(RoundUp(rows.end - rows.begin) * depth_);
    wide_ = wide;
    for (int64_t row = rows.begin; row < rows.end; row += kBlock) {
      const bfloat* from = left.From(row).data;
      for (int64_t i = 0; i < kBlock * depth_; i += 16, wide += 16)
        Write(wide, Read(from + i));
    }
  }

  Rows<float> From(int64_t row) const {
    return RowMajor(wide_ + (row - begin_) * depth_, depth_);
  }

 private:
  int64_t begin_, depth_;
  const float* wide_;
};

#endif

// x [rows, depth] times panels. finish(row, column, begin, end, sums, stride) writes rows
// begin .. end of a block of 32 x 32 sums: a few rows with each step of the next product.
template <typename Finish>
void MultiplyRange(const Product& m, Range rows, Range columns, const Finish& finish) {
  static thread_local Scratch memory, sums_memory;
  const Left<Factor> left(m, rows, {0, m.depth});
  const int64_t steps = m.depth / kBlock;
  const int64_t parts = (steps + kPartSteps - 1) / kPartSteps;
  const int64_t blocks = (rows.end - rows.begin + kBlock - 1) / kBlock;
  // Of all blocks while there are more parts to add, else of this one and the one before.
  const int64_t places = parts == 1 ? 2 : blocks;
  float* sums = sums_memory.Get<float>(places * kStep);
  int64_t place = 0;
  const int64_t fewest = steps / parts;  // Steps of a part.
  const int64_t rows_each = (kBlock + fewest - 1) / fewest;
  const int64_t lines_each = (m.depth + blocks * steps - 1) / (blocks * steps);
  int64_t done_row = 0, done_column = 0, done = kBlock;  // Of the previous block.
  const float* done_sums = sums;
  for (int64_t column = columns.begin; column < columns.end; column += kBlock) {
    const bfloat* panel = m.panels + column * m.depth;
    // Prefetches the next panel into the second-level cache, a part per block of rows.
    const char* next = reinterpret_cast<const char*>(panel + m.depth * kBlock);
    const Factor* factors = WidenPanel(panel, steps, &memory);
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t first = steps * part / parts, last = steps * (part + 1) / parts;
      for (int64_t row = rows.begin; row < rows.end; row += kBlock) {
        Rows<Factor> here = left.From(row);
        here.data += first * here.step;
        float* sum = sums + place * kStep;
        place = (place + 1) % places;
        Multiply(here, factors + first * kStep, last - first, sum, kBlock, part > 0, [&] {
          for (int64_t j = 0; j < lines_each; ++j, next += 64)
            _mm_prefetch(next, _MM_HINT_T1);
          if (done == kBlock) return;
          const int64_t end = Least(kBlock, done + rows_each);
          finish(done_row, done_column, done, end, done_sums, kBlock);
          done = end;
        });
        if (part + 1 < parts) continue;
        done_sums = sum;
        done_row = row;
        done_column = column;
        done = 0;
      }
    }
  }
  finish(done_row, done_column, done, kBlock, done_sums, kBlock);
}

// The same with a depth that is split, so that the rows and panels of a part fit the cache.
template <typename Finish>
void MultiplyDeep(const Product& m, Range rows, Range columns, const Finish& finish) {
  static thread_local Scratch memory;
  const int64_t width = columns.end - columns.begin;
  float* sums = memory.Get<float>(RoundUp(rows.end - rows.begin) * width);
  for (int64_t start = 0; start < m.depth; start += kDeepest) {
    const int64_t end = Least(m.depth, start + kDeepest);
    const int64_t steps = (end - start) / kBlock;
    const Left<bfloat> left(m, rows, {start, end});
    for (int64_t column = columns.begin; column < columns.end; column += kBlock) {
      const bfloat* panel = m.panels + column * m.depth + start * kBlock;
      for (int64_t row = rows.begin; row < rows.end; row += kBlock) {
        float* sum = sums + (row - rows.begin) * width + column - columns.begin;
        Multiply(left.From(row), panel, steps, sum, width, start > 0);
        if (end == m.depth) finish(row, column, 0, kBlock, sum, width);
      }
    }
  }
}

// Distributes the product over the threads.
template <typename Finish>
void MultiplyAll(const Loop& loop, const Product& m, const Finish& finish) {
  if (m.rows == 0 || m.width == 0) return;
  const int64_t row_blocks = (m.rows + kBlock - 1) / kBlock;
  const int64_t column_blocks = (m.width + kBlock - 1) / kBlock;
  const int64_t threads = loop.num_threads;
  const int64_t resident = Most(1, kResident / Least(m.depth, kDeepest) / kBlock);
  int64_t chunks = (row_blocks + resident - 1) / resident;
  chunks = Least(row_blocks, (chunks + threads - 1) / threads * threads);
  const int64_t groups = Least(column_blocks, (threads + chunks - 1) / chunks);
  const int64_t cost = m.rows * m.depth * m.width / chunks / groups / kMultiplyAdds;
  ForEach(loop, chunks * groups, cost, [&](int64_t task) {
    const int64_t chunk = task % chunks, group = task / chunks;
    const Range rows{row_blocks * chunk / chunks * kBlock,
                     Least(m.rows, row_blocks * (chunk + 1) / chunks * kBlock)};
    const Range columns{column_blocks * group / groups * kBlock,
                        column_blocks * (group + 1) / groups * kBlock};
    const TileScope scope;
    if (m.depth <= kDeepest) {
      MultiplyRange(m, rows, columns, finish);
    } else {
      MultiplyDeep(m, rows, columns, finish);
    }
    _mm_sfence();  // For the threads that read the non-temporal stores.
  });
}

// Rounds 32 numbers into a row of a matrix of `width` columns, from `column` on.
BERT_TF_INLINE void WriteColumns(bfloat* row, int64_t column, int64_t width, V low,
                                 V high) {
  if (width % kBlock == 0) {
    // Non-temporal: the caches cannot hold the whole matrix until it is read.
    Stream(row + column, Rounded(low, high));
  } else {
    WriteFirst(row + column, width - column, Rounded(low, high));
  }
}

// x [rows, depth] times panels -> y [rows, width], plus a matrix like y if there is one.
inline void PlainProduct(const Loop& loop, const Product& m, const bfloat* added,
                         bfloat* y) {
  MultiplyAll(loop, m, [&](int64_t row, int64_t column, int64_t begin, int64_t end,
                           const float* sums, int64_t stride) {
    for (int64_t i = begin; i < Least(end, m.rows - row); ++i) {
      const float* sum = sums + i * stride;
      V low = Read(sum), high = Read(sum + 16);
      const int64_t start = (row + i) * m.width;
      if (added != nullptr) {
        low = low + Read(added + start + column);
        high = high + Read(added + start + column + 16);
      }
      WriteColumns(y + start, column, m.width, low, high);
    }
  });
}

// The product, and the activation of product + bias. Only the gradient reads the product:
// a prediction does not write it.
template <bool kApproximate>
void GeluProduct(const Loop& loop, const Product& m, const float* bias, bfloat* y,
                 bfloat* activated) {
  // Rounded, as the gradient will read it.
  const auto activate = [](V product, const float* b) {
    const V x = AsBfloat(product) + Read(b);
    return kApproximate ? GeluTanh(x) : Gelu(x);
  };
  MultiplyAll(loop, m, [&](int64_t row, int64_t column, int64_t begin, int64_t end,
                           const float* sums, int64_t stride) {
    const float* b = bias + column;
    for (int64_t i = begin; i < Least(end, m.rows - row); ++i) {
      const float* sum = sums + i * stride;
      const int64_t start = (row + i) * m.width;
      const V low = Read(sum), high = Read(sum + 16);
      if (y != nullptr) WriteColumns(y + start, column, m.width, low, high);
      if (activated == nullptr) continue;
      WriteColumns(activated + start, column, m.width, activate(low, b),
                   activate(high, b + 16));
    }
  });
}

inline void ProductGelu(const Loop& loop, const Product& m, const float* bias,
                        bool approximate, bfloat* y, bfloat* activated) {
  if (approximate) {
    GeluProduct<true>(loop, m, bias, y, activated);
  } else {
    GeluProduct<false>(loop, m, bias, y, activated);
  }
}

// ------------------------------------------------------------- gradients of the kernels

// Blocks of a gradient per task: what a task packs of x stays in the second-level cache.
// Panels packed at a time: a row of a single one is only one cache line of a page.
#if defined(__AMX_BF16__)
constexpr int64_t kChunkBlocks = 16, kPanels = 8;
#else
constexpr int64_t kChunkBlocks = 12, kPanels = 16;
#endif
constexpr int64_t kGroupBlocks = 48;
constexpr int64_t kDeep = 1024 / sizeof(Factor);  // Rows of x and dy taken at a time.

struct Matrix {
  const bfloat* data;
  int64_t stride, columns;
};

// Writes 32 x 32 of a gradient, or adds to it.
inline void AddBlock(const Rows<Factor>& left, const Factor* right, int64_t steps,
                     bool adds, int64_t rows, int64_t columns, int64_t stride,
                     float* target) {
  if (rows >= kBlock && columns >= kBlock) {
    Multiply(left, right, steps, target, stride, adds);
    return;
  }
  alignas(64) float sums[kStep];
  Multiply(left, right, steps, sums, kBlock, false);
  for (int64_t i = 0; i < Least(rows, kBlock); ++i) {
    for (int64_t j = 0; j < Least(columns, kBlock); ++j) {
      float* place = target + i * stride + j;
      *place = sums[i * kBlock + j] + (adds ? *place : 0.0f);
    }
  }
}

inline void GradientChunk(const Matrix& x, const Matrix& dy, int64_t rows, bool adds,
                          Range row_blocks, Range column_blocks, float* gradient) {
  static thread_local Scratch left_memory, right_memory, wide_left, wide_right;
  const int64_t most = Least(RoundUp(rows), kDeep);
  const int64_t height = row_blocks.end - row_blocks.begin;
  bfloat* left = left_memory.Get<bfloat>(height * kBlock * most);
  bfloat* right = right_memory.Get<bfloat>(kPanels * kBlock * most);
  const TileScope scope;
  for (int64_t start = 0; start < rows; start += kDeep) {
    const int64_t here = Least(kDeep, rows - start);
    const int64_t steps = (here + kBlock - 1) / kBlock;
    for (int64_t s = 0; s < steps; ++s) {
      const bfloat* from = x.data + (start + s * kBlock) * x.stride;
      for (int64_t i = row_blocks.begin; i < row_blocks.end; ++i) {
        PackTransposed(from + i * kBlock, x.stride, here - s * kBlock,
                       x.stride - i * kBlock,
                       left + ((i - row_blocks.begin) * steps + s) * kStep);
      }
    }
    const Factor* rows_of_x = Widen(left, height * steps * kStep, &wide_left);
    for (int64_t first = column_blocks.begin; first < column_blocks.end;
         first += kPanels) {
      const int64_t last = Least(first + kPanels, column_blocks.end);
      for (int64_t s = 0; s < steps; ++s) {
        const bfloat* from = dy.data + (start + s * kBlock) * dy.stride;
        for (int64_t j = first; j < last; ++j) {
          PackStep(from + j * kBlock, dy.stride, here - s * kBlock,
                   dy.columns - j * kBlock, right + ((j - first) * steps + s) * kStep);
        }
      }
      const Factor* panels = WidenPanel(right, (last - first) * steps, &wide_right);
      for (int64_t j = first; j < last; ++j) {
        for (int64_t i = row_blocks.begin; i < row_blocks.end; ++i) {
          AddBlock(Packed(rows_of_x + (i - row_blocks.begin) * steps * kStep),
                   panels + (j - first) * steps * kStep, steps, adds || start > 0,
                   x.columns - i * kBlock, dy.columns - j * kBlock, dy.columns,
                   gradient + i * kBlock * dy.columns + j * kBlock);
        }
      }
    }
  }
}

// x transposed times dy: `count` gradients side by side.
inline void ComputeKernelGradients(const Loop& loop, const KernelGradients& k) {
  if (k.rows == 0) return;
  // A task: some rows and some columns of one gradient.
  const int64_t threads = loop.num_threads, total = k.count * k.width;
  const int64_t row_blocks = (k.height + kBlock - 1) / kBlock;
  const int64_t column_blocks = (k.width + kBlock - 1) / kBlock;
  int64_t chunks = (row_blocks + kChunkBlocks - 1) / kChunkBlocks;
  chunks = Least(row_blocks, (chunks + threads - 1) / threads * threads);
  const int64_t groups = (column_blocks + kGroupBlocks - 1) / kGroupBlocks;
  const int64_t tasks = chunks * groups * k.count;
  ForEach(loop, tasks, k.rows * k.height * total / tasks / kMultiplyAdds, [&](int64_t task) {
    const int64_t chunk = task % chunks, group = task / chunks % groups;
    const int64_t part = task / chunks / groups;
    GradientChunk(
        {k.x, k.depth, k.height}, {k.dy + part * k.width, total, k.width}, k.rows, k.adds,
        {row_blocks * chunk / chunks, row_blocks * (chunk + 1) / chunks},
        {column_blocks * group / groups, column_blocks * (group + 1) / groups},
        k.gradients[part]);
  });
}

}  // namespace BERT_TF_ISA
}  // namespace bert_tf

#endif  // BERT_TF_FUSED_OPS_PRODUCTS_H_
