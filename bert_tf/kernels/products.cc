// The matrix products of a dense layer on AMX: bfloat16 in, summed in float32.
// bert_tf/modeling/products.py says what each computes.

#include <sys/syscall.h>
#include <unistd.h>

#include "parallel.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tiles.h"

// Whether this processor and this build have tiles, and the system lets us use them.
extern "C" int bert_tf_has_tiles() {
#ifdef BERT_TF_TILES
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  static const bool granted =
      syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
#else
  return 0;
#endif
}

#ifdef BERT_TF_TILES

namespace bert_tf {

static const int kHasTiles = bert_tf_has_tiles();  // Asked for when we are loaded.

using tensorflow::DEVICE_CPU;
using tensorflow::OpInputList;
using tensorflow::OpKernelConstruction;
using tensorflow::OpOutputList;
using tensorflow::TensorShape;

// ------------------------------------------------------------------------- packing

// Kernels [I, O] side by side -> panels of W and of its transpose.
class PackKernelsOp : public Operation {
 public:
  using Operation::Operation;

 private:
  void Run(OpKernelContext* context) override {
    OpInputList kernels;
    OP_REQUIRES_OK(context, context->input_list("kernels", &kernels));
    OP_REQUIRES(context, kernels[0].dims() == 2 && kernels[0].NumElements() > 0,
                InvalidArgument("kernels must be matrices that are not empty, not ",
                                kernels[0].shape().DebugString()));
    const int64_t rows = kernels[0].dim_size(0), width = kernels[0].dim_size(1);
    const int64_t count = kernels.size();
    for (const Tensor& kernel : kernels)
      OP_REQUIRES_OK(context, RequireShape(kernel, "each of kernels", {rows, width}));
    OP_REQUIRES(context, count == 1 || width % kBlock == 0,
                InvalidArgument("kernels side by side must be 32 n wide, not ", width));
    const int64_t depth = RoundUp(rows), columns = RoundUp(count * width);
    Tensor *forward, *backward;
    const TensorShape shape({depth * columns});
    OP_REQUIRES_OK(context, context->allocate_output(0, shape, &forward));
    OP_REQUIRES_OK(context, context->allocate_output(1, shape, &backward));
    std::vector<const float*> data;
    for (const Tensor& kernel : kernels) data.push_back(Floats(kernel));
    bfloat *panels = Bfloats(forward), *transposed = Bfloats(backward);
    ForEach(context, depth / kBlock, columns * kBlock, [&](int64_t i) {
      for (int64_t j = 0; j < columns / kBlock; ++j) {
        const int64_t column = j * kBlock, kernel = column / width;
        alignas(64) bfloat block[kStep];
        Read(data[std::min(kernel, count - 1)] + i * kBlock * width + column % width,
             width, rows - i * kBlock, width - column % width, block);
        PackStep<true>(block, kBlock, kBlock, kBlock,
                       panels + j * depth * kBlock + i * kStep);
        PackStepOfTransposed<true>(block, kBlock, kBlock, kBlock,
                                   transposed + i * columns * kBlock + j * kStep);
      }
      _mm_sfence();  // Before another thread is told that they are there.
    });
  }

  static void Read(const float* x, int64_t stride, int64_t rows, int64_t columns,
                   bfloat* block) {
    const __mmask32 mask = FirstColumns(columns);
    for (int64_t i = 0; i < kBlock; ++i) {
      const float* row = x + i * stride;
      const __mmask32 here = i < rows ? mask : 0;
      _mm512_store_si512(block + i * kBlock,
                         Round(_mm512_maskz_loadu_ps(here & 0xffff, row),
                               _mm512_maskz_loadu_ps(here >> 16, row + 16)));
    }
  }
};

// ------------------------------------------------------------------- rows times panels

// Rows of x that stay in the second cache while all panels pass by, in numbers.
constexpr int64_t kResident = 400000;
constexpr int64_t kDeepest = 4096;  // Of a product that is made in one go.

struct Matrices {
  const bfloat *x, *panels;
  int64_t rows, depth, width;
};

struct Range {
  int64_t begin, end;
};

// Rows of x, 32 at a time as tiles read them. What is missing in the last ones is 0: these
// are copied, once for all panels.
class Left {
 public:
  Left(const Matrices& m, Range rows) : x_(m.x), depth_(m.depth) {
    static thread_local Scratch memory;
    last_ = rows.end / kBlock * kBlock;
    if (last_ == rows.end) return;
    const int64_t missing = last_ + kBlock - rows.end;
    bfloat* copy = memory.Get<bfloat>(kBlock * depth_);
    std::copy(x_ + last_ * depth_, x_ + rows.end * depth_, copy);
    std::fill_n(copy + (kBlock - missing) * depth_, missing * depth_, 0);
    copy_ = copy;
  }

  Rows From(int64_t row) const {
    return RowMajor(row == last_ ? copy_ : x_ + row * depth_, depth_);
  }

 private:
  const bfloat* x_;
  int64_t depth_, last_;
  const bfloat* copy_ = nullptr;
};

// x [rows, depth] times panels; finish(row, column, begin, end, sums, stride) is called
// with rows begin .. end of each 32 x 32 sums: a few with each step of the next product.
template <typename Finish>
void Multiply(const Matrices& m, Range rows, Range columns, const Finish& finish) {
  alignas(64) float sums[2][kStep];
  const Left left(m, rows);
  const int64_t steps = m.depth / kBlock;
  const int64_t blocks = (rows.end - rows.begin + kBlock - 1) / kBlock;
  const int64_t rows_each = (kBlock + steps - 1) / steps;
  const int64_t lines_each = (m.depth + blocks * steps - 1) / (blocks * steps);
  int64_t done_row = 0, done_column = 0, done = kBlock;  // Rows that are finished.
  int current = 0;
  for (int64_t column = columns.begin; column < columns.end; column += kBlock) {
    const bfloat* panel = m.panels + column * m.depth;
    // The next panel is called to the second cache, a share with each block of rows.
    const char* next = reinterpret_cast<const char*>(panel + m.depth * kBlock);
    for (int64_t row = rows.begin; row < rows.end; row += kBlock) {
      ZeroTiles();
      MultiplyAdd(left.From(row), panel, steps, [&] {
        for (int64_t j = 0; j < lines_each; ++j, next += 64)
          _mm_prefetch(next, _MM_HINT_T1);
        if (done == kBlock) return;
        const int64_t end = std::min(kBlock, done + rows_each);
        finish(done_row, done_column, done, end, sums[1 - current], kBlock);
        done = end;
      });
      StoreTiles(sums[current], kBlock);
      current = 1 - current;
      done_row = row;
      done_column = column;
      done = 0;
    }
  }
  finish(done_row, done_column, done, kBlock, sums[1 - current], kBlock);
}

// The same, part by part of the depth, so that rows and panels of a part stay in the
// cache.
template <typename Finish>
void MultiplyDeep(const Matrices& m, Range rows, Range columns, const Finish& finish) {
  static thread_local Scratch memory;
  const int64_t width = columns.end - columns.begin;
  float* sums = memory.Get<float>(RoundUp(rows.end - rows.begin) * width);
  const Left left(m, rows);
  for (int64_t start = 0; start < m.depth; start += kDeepest) {
    const int64_t steps = std::min(kDeepest, m.depth - start) / kBlock;
    for (int64_t column = columns.begin; column < columns.end; column += kBlock) {
      const bfloat* panel = m.panels + column * m.depth + start * kBlock;
      for (int64_t row = rows.begin; row < rows.end; row += kBlock) {
        float* sum = sums + (row - rows.begin) * width + column - columns.begin;
        if (start == 0) {
          ZeroTiles();
        } else {
          LoadTiles(sum, width);
        }
        Rows part = left.From(row);
        part.data += start;
        MultiplyAdd(part, panel, steps);
        StoreTiles(sum, width);
        if (start + kDeepest >= m.depth) finish(row, column, 0, kBlock, sum, width);
      }
    }
  }
}

// Shares the product out to the threads.
template <typename Finish>
void Multiply(OpKernelContext* context, const Matrices& m, const Finish& finish) {
  const int64_t row_blocks = (m.rows + kBlock - 1) / kBlock;
  const int64_t column_blocks = (m.width + kBlock - 1) / kBlock;
  const int64_t threads = NumThreads(context);
  const int64_t resident =
      std::max<int64_t>(1, kResident / std::min(m.depth, kDeepest) / kBlock);
  int64_t chunks = (row_blocks + resident - 1) / resident;
  chunks = std::min(row_blocks, (chunks + threads - 1) / threads * threads);
  const int64_t groups = std::min(column_blocks, (threads + chunks - 1) / chunks);
  const int64_t cost = m.rows * m.depth * m.width / chunks / groups / 1000;
  ForEach(context, chunks * groups, cost, [&](int64_t task) {
    const int64_t chunk = task % chunks, group = task / chunks;
    const Range rows{row_blocks * chunk / chunks * kBlock,
                     std::min(m.rows, row_blocks * (chunk + 1) / chunks * kBlock)};
    const Range columns{column_blocks * group / groups * kBlock,
                        column_blocks * (group + 1) / groups * kBlock};
    const TileScope scope;
    if (m.depth <= kDeepest) {
      Multiply(m, rows, columns, finish);
    } else {
      MultiplyDeep(m, rows, columns, finish);
    }
    _mm_sfence();  // What is written past the caches, for the threads that read it.
  });
}

// Rounds 32 numbers into a row of a matrix with `width` columns, from `column` on.
inline void Write(bfloat* row, int64_t column, int64_t width, __m512 low, __m512 high) {
  const __m512i value = Round(low, high);
  if (width % kBlock == 0) {
    // Past the caches: they cannot hold all of the matrix until it is read.
    _mm512_stream_si512(reinterpret_cast<__m512i*>(row + column), value);
  } else {
    _mm512_mask_storeu_epi16(row + column, FirstColumns(width - column), value);
  }
}

class ProductOp : public Operation {
 public:
  explicit ProductOp(OpKernelConstruction* context) : Operation(context) {
    OP_REQUIRES_OK(context, context->GetAttr("width", &width_));
  }

 protected:
  // Checks the inputs.
  absl::Status Start(OpKernelContext* context, Matrices* m) {
    const Tensor &x = context->input(0), &panels = context->input(1);
    int64_t rows, depth;
    TF_RETURN_IF_ERROR(RequireRows(x, "x", &rows, &depth));
    if (depth % kBlock != 0)
      return InvalidArgument("x must have a depth of 32 n, not ", depth);
    // Compared before it is rounded up, by which it might overflow.
    if (panels.dims() != 1 || width_ > panels.NumElements() ||
        panels.NumElements() % depth != 0 ||
        panels.NumElements() / depth != RoundUp(width_))
      return InvalidArgument("panels must be those of a [", depth, ", ", width_,
                             "] matrix, not ", panels.shape().DebugString());
    *m = {Bfloats(x), Bfloats(panels), rows, depth, width_};
    return absl::OkStatus();
  }

  // Makes an output, [..., width]; none, where nobody reads it.
  absl::Status Allocate(OpKernelContext* context, int output, bfloat** y) {
    *y = nullptr;
    if (!context->output_required(output)) return absl::OkStatus();
    TensorShape shape = context->input(0).shape();
    TF_RETURN_IF_ERROR(shape.SetDimWithStatus(shape.dims() - 1, width_));
    Tensor* tensor;
    TF_RETURN_IF_ERROR(context->allocate_output(output, shape, &tensor));
    *y = Bfloats(tensor);
    return absl::OkStatus();
  }

  int64_t width_;
};

// x [..., depth] times panels -> y [..., width], plus a matrix like y if there is one.
class PlainProductOp : public ProductOp {
 public:
  using ProductOp::ProductOp;

 private:
  void Run(OpKernelContext* context) override {
    Matrices m;
    bfloat* y;
    OP_REQUIRES_OK(context, Start(context, &m));
    OpInputList added;
    OP_REQUIRES_OK(context, context->input_list("added", &added));
    OP_REQUIRES(context, added.size() <= 1,
                InvalidArgument("what is added must be one matrix, not ", added.size()));
    for (const Tensor& tensor : added) {
      // The gradient of x [B, S, H] may come as [T, H].
      OP_REQUIRES(context,
                  width_ % kBlock == 0 && tensor.dims() > 0 &&
                      tensor.dim_size(tensor.dims() - 1) == width_ &&
                      tensor.NumElements() / width_ == m.rows,
                  InvalidArgument("what is added must be [", m.rows, ", ", width_,
                                  "], 32 n wide, not ", tensor.shape().DebugString()));
    }
    OP_REQUIRES_OK(context, Allocate(context, 0, &y));
    if (m.rows == 0 || y == nullptr) return;
    const bfloat* terms = added.size() > 0 ? Bfloats(added[0]) : nullptr;
    Multiply(context, m, [&](int64_t row, int64_t column, int64_t begin, int64_t end,
                             const float* sums, int64_t stride) {
      for (int64_t i = begin; i < std::min(end, m.rows - row); ++i) {
        const float* sum = sums + i * stride;
        __m512 low = _mm512_loadu_ps(sum), high = _mm512_loadu_ps(sum + 16);
        const int64_t start = (row + i) * width_;
        if (terms != nullptr) {
          low = _mm512_add_ps(low, Widen(terms + start + column));
          high = _mm512_add_ps(high, Widen(terms + start + column + 16));
        }
        Write(y + start, column, width_, low, high);
      }
    });
  }
};

// The product, and its activation after a bias was added. Only the gradient reads the
// product: a prediction does not write it.
class GeluProductOp : public ProductOp {
 public:
  explicit GeluProductOp(OpKernelConstruction* context) : ProductOp(context) {
    OP_REQUIRES_OK(context, context->GetAttr("approximate", &approximate_));
  }

 private:
  void Run(OpKernelContext* context) override {
    Matrices m;
    bfloat *y, *activated;
    const Tensor& bias = context->input(2);
    OP_REQUIRES(context, width_ % kBlock == 0,
                InvalidArgument("width must be 32 n, not ", width_));
    OP_REQUIRES_OK(context, RequireShape(bias, "bias", {width_}));
    OP_REQUIRES_OK(context, Start(context, &m));
    OP_REQUIRES_OK(context, Allocate(context, 0, &y));
    OP_REQUIRES_OK(context, Allocate(context, 1, &activated));
    if (m.rows == 0) return;
    Multiply(context, m, [&](int64_t row, int64_t column, int64_t begin, int64_t end,
                             const float* sums, int64_t stride) {
      const float* b = Floats(bias) + column;
      for (int64_t i = begin; i < std::min(end, m.rows - row); ++i) {
        const float* sum = sums + i * stride;
        const __m512 low = _mm512_loadu_ps(sum), high = _mm512_loadu_ps(sum + 16);
        if (y != nullptr) Write(y + (row + i) * width_, column, width_, low, high);
        if (activated == nullptr) continue;
        Write(activated + (row + i) * width_, column, width_, Activate(low, b),
              Activate(high, b + 16));
      }
    });
  }

  // The gradient knows the product as it is written: rounded.
  __m512 Activate(__m512 product, const float* bias) const {
    const __m512 x =
        _mm512_add_ps(Widen(_mm512_cvtneps_pbh(product)), _mm512_loadu_ps(bias));
    return approximate_ ? GeluTanh(x) : Gelu(x);
  }

  bool approximate_;
};

// ------------------------------------------------------------- gradients of the kernels

// x [rows, I] and dy [rows, n O] -> n gradients [I', O], x transposed times dy, added to
// sums where they are given and not empty. Columns of x from I' on are padding.
class KernelGradientsOp : public Operation {
 public:
  explicit KernelGradientsOp(OpKernelConstruction* context) : Operation(context) {
    OP_REQUIRES_OK(context, context->GetAttr("height", &height_));
  }

 private:
  void Run(OpKernelContext* context) override {
    const Tensor& x = context->input(0);
    const Tensor& dy = context->input(1);
    OpOutputList outputs;
    OP_REQUIRES_OK(context, context->output_list("gradients", &outputs));
    int64_t rows, depth, dy_rows, total;
    OP_REQUIRES_OK(context, FirstError({RequireRows(x, "x", &rows, &depth),
                                        RequireRows(dy, "dy", &dy_rows, &total)}));
    OP_REQUIRES(context, rows == dy_rows,
                InvalidArgument("dy must have the rows of x, but for its last axis: ",
                                "shape ", dy.shape().DebugString(), " and shape ",
                                x.shape().DebugString()));
    OP_REQUIRES(context, height_ <= depth,
                InvalidArgument("height must be at most the depth of x, ", depth,
                                ", not ", height_));
    OP_REQUIRES(context, total % outputs.size() == 0,
                InvalidArgument("dy must be as wide as ", outputs.size(),
                                " gradients side by side, not ", total));
    const int64_t width = total / outputs.size();
    TensorShape shape;
    OP_REQUIRES_OK(context, TensorShape::BuildTensorShape({height_, width}, &shape));
    OpInputList sums;
    OP_REQUIRES_OK(context, context->input_list("sums", &sums));
    const bool adds = sums.size() > 0 && sums[0].NumElements() > 0;
    OP_REQUIRES(context, sums.size() == 0 || sums.size() == outputs.size(),
                InvalidArgument("there must be a sum for each gradient, or none"));
    std::vector<float*> gradients;
    for (int i = 0; i < outputs.size(); ++i) {
      Tensor* gradient;
      if (adds) {
        OP_REQUIRES_OK(context,
                       RequireShape(sums[i], "each sum in sums", {height_, width}));
        // In place, unless somebody else still reads the sum.
        OP_REQUIRES_OK(context, context->forward_input_or_allocate_output(
                                    {2 + i}, i, shape, &gradient));
        if (Floats(gradient) != Floats(sums[i]))
          std::copy_n(Floats(sums[i]), height_ * width, Floats(gradient));
      } else {
        OP_REQUIRES_OK(context, outputs.allocate(i, shape, &gradient));
        OP_REQUIRES(context, sums.size() == 0 || sums[i].NumElements() == 0,
                    InvalidArgument("either all sums are empty or none"));
        if (rows == 0) std::fill_n(Floats(gradient), height_ * width, 0.0f);
      }
      gradients.push_back(Floats(gradient));
    }
    if (rows == 0) return;
    // Each task: some rows of one gradient, some of its columns.
    const int64_t threads = NumThreads(context);
    const int64_t row_blocks = (height_ + kBlock - 1) / kBlock;
    const int64_t column_blocks = (width + kBlock - 1) / kBlock;
    int64_t chunks = (row_blocks + kChunkBlocks - 1) / kChunkBlocks;
    chunks = std::min(row_blocks, (chunks + threads - 1) / threads * threads);
    const int64_t groups = (column_blocks + kGroupBlocks - 1) / kGroupBlocks;
    const int64_t tasks = chunks * groups * outputs.size();
    const bfloat *in = Bfloats(x), *up = Bfloats(dy);
    ForEach(context, tasks, rows * height_ * total / tasks / 1000, [&](int64_t task) {
      const int64_t chunk = task % chunks, group = task / chunks % groups;
      const int64_t part = task / chunks / groups;
      Chunk({in, depth, height_}, {up + part * width, total, width}, rows, adds,
            row_blocks * chunk / chunks, row_blocks * (chunk + 1) / chunks,
            column_blocks * group / groups, column_blocks * (group + 1) / groups,
            gradients[part]);
    });
  }

  // Of a gradient, in blocks: what a task packs of x stays in the second cache.
  static constexpr int64_t kChunkBlocks = 12, kGroupBlocks = 48;
  static constexpr int64_t kDeep = 512;  // Rows of x and dy taken at a time.
  // Panels packed at a time: a row of one alone is but one cache line of a page.
  static constexpr int64_t kPanels = 16;

  struct Matrix {
    const bfloat* data;
    int64_t stride, columns;
  };

  static void Chunk(const Matrix& x, const Matrix& dy, int64_t rows, bool adds,
                    int64_t first_row, int64_t last_row, int64_t first_column,
                    int64_t last_column, float* gradient) {
    static thread_local Scratch left_memory, right_memory;
    const int64_t most = std::min(RoundUp(rows), kDeep);
    bfloat* left = left_memory.Get<bfloat>((last_row - first_row) * kBlock * most);
    bfloat* right = right_memory.Get<bfloat>(kPanels * kBlock * most);
    const TileScope scope;
    for (int64_t start = 0; start < rows; start += kDeep) {
      const int64_t here = std::min(kDeep, rows - start);
      const int64_t steps = (here + kBlock - 1) / kBlock;
      for (int64_t s = 0; s < steps; ++s) {
        for (int64_t i = first_row; i < last_row; ++i) {
          PackTransposed(x.data + (start + s * kBlock) * x.stride + i * kBlock, x.stride,
                         here - s * kBlock, x.stride - i * kBlock,
                         left + ((i - first_row) * steps + s) * kStep);
        }
      }
      for (int64_t first = first_column; first < last_column; first += kPanels) {
        const int64_t last = std::min(first + kPanels, last_column);
        for (int64_t s = 0; s < steps; ++s) {
          for (int64_t j = first; j < last; ++j) {
            PackStep(dy.data + (start + s * kBlock) * dy.stride + j * kBlock, dy.stride,
                     here - s * kBlock, dy.columns - j * kBlock,
                     right + ((j - first) * steps + s) * kStep);
          }
        }
        for (int64_t j = first; j < last; ++j) {
          for (int64_t i = first_row; i < last_row; ++i) {
            Add(Packed(left + (i - first_row) * steps * kStep),
                right + (j - first) * steps * kStep, steps, adds || start > 0,
                x.columns - i * kBlock, dy.columns - j * kBlock, dy.columns,
                gradient + i * kBlock * dy.columns + j * kBlock);
          }
        }
      }
    }
  }

  // Writes 32 x 32 of a gradient, or adds to it.
  static void Add(const Rows& left, const bfloat* right, int64_t steps, bool adds,
                  int64_t rows, int64_t columns, int64_t stride, float* target) {
    if (rows >= kBlock && columns >= kBlock) {
      if (adds) {
        LoadTiles(target, stride);
      } else {
        ZeroTiles();
      }
      MultiplyAdd(left, right, steps);
      StoreTiles(target, stride);
      return;
    }
    alignas(64) float sums[kStep];
    ZeroTiles();
    MultiplyAdd(left, right, steps);
    StoreTiles(sums, kBlock);
    for (int64_t i = 0; i < std::min(rows, kBlock); ++i) {
      for (int64_t j = 0; j < std::min(columns, kBlock); ++j) {
        float* place = target + i * stride + j;
        *place = sums[i * kBlock + j] + (adds ? *place : 0.0f);
      }
    }
  }

  int64_t height_;
};

// ------------------------------------------------------------------- registrations

REGISTER_OP("BertPackKernels")
    .Input("kernels: count * float")
    .Output("forward: bfloat16")
    .Output("backward: bfloat16")
    .Attr("count: int >= 1")
    .SetShapeFn([](InferenceContext* c) {
      ShapeHandle kernel;
      for (int i = 0; i < c->num_inputs(); ++i) {
        TF_RETURN_IF_ERROR(c->WithRank(c->input(i), 2, &kernel));
        TF_RETURN_IF_ERROR(InferSame(c, 0, &kernel));
      }
      for (int i = 0; i < 2; ++i)
        c->set_output(i, c->Vector(InferenceContext::kUnknownDim));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertPackKernels").Device(DEVICE_CPU), PackKernelsOp);

absl::Status WidthOfAttribute(InferenceContext* c) {
  int64_t width;
  TF_RETURN_IF_ERROR(c->GetAttr("width", &width));
  ShapeHandle shape;
  TF_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(0), 1, &shape));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 1, &shape));
  TF_RETURN_IF_ERROR(c->ReplaceDim(c->input(0), -1, c->MakeDim(width), &shape));
  c->set_output(0, shape);
  return absl::OkStatus();
}

REGISTER_OP("BertProduct")
    .Input("x: bfloat16")
    .Input("panels: bfloat16")
    .Input("added: num_added * bfloat16")
    .Output("y: bfloat16")
    .Attr("num_added: int >= 0")
    .Attr("width: int >= 1")
    .SetShapeFn(WidthOfAttribute);
REGISTER_KERNEL_BUILDER(Name("BertProduct").Device(DEVICE_CPU), PlainProductOp);

REGISTER_OP("BertProductGelu")
    .Input("x: bfloat16")
    .Input("panels: bfloat16")
    .Input("bias: float")
    .Output("y: bfloat16")
    .Output("activated: bfloat16")
    .Attr("width: int >= 1")
    .Attr("approximate: bool")
    .SetShapeFn([](InferenceContext* c) {
      TF_RETURN_IF_ERROR(WidthOfAttribute(c));
      ShapeHandle bias;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(2), 1, &bias));
      c->set_output(1, c->output(0));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertProductGelu").Device(DEVICE_CPU), GeluProductOp);

REGISTER_OP("BertKernelGradients")
    .Input("x: bfloat16")
    .Input("dy: bfloat16")
    .Input("sums: num_sums * float")
    .Output("gradients: count * float")
    .Attr("num_sums: int >= 0")
    .Attr("count: int >= 1")
    .Attr("height: int >= 1")
    .SetShapeFn([](InferenceContext* c) {
      int64_t height;
      TF_RETURN_IF_ERROR(c->GetAttr("height", &height));
      ShapeHandle x, dy;
      DimensionHandle width;
      TF_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(0), 1, &x));
      TF_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(1), 1, &dy));
      TF_RETURN_IF_ERROR(c->Divide(c->Dim(dy, -1), c->num_outputs(), true, &width));
      for (int i = 0; i < c->num_outputs(); ++i)
        c->set_output(i, c->Matrix(height, width));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertKernelGradients").Device(DEVICE_CPU),
                        KernelGradientsOp);

}  // namespace bert_tf

#endif  // BERT_TF_TILES
