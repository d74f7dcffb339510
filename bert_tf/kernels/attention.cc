// Self-attention of all heads on AMX, from the product of a layer's inputs with its three
// projections to the heads' outputs side by side, without the scores ever leaving the
// second cache; and its gradient, which makes them again. fused.py says what it computes.

#include "parallel.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tiles.h"

#ifdef BERT_TF_TILES

namespace bert_tf {

using tensorflow::DEVICE_CPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::TensorShape;
using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::InferenceContext;

// Sizes, inputs and dropout of one call.
struct Call {
  Call(const Tensor& x, const Tensor& bias, const Tensor& input_mask, const Tensor& key,
       int64_t heads, int64_t stream, int64_t kept)
      : batch(x.dim_size(0)),
        length(x.dim_size(1)),
        heads(heads),
        head(bias.NumElements() / 3 / heads),
        padded(RoundUp(length)),
        scale(1.0f / std::sqrt(static_cast<float>(head))),
        x(Bfloats(x)),
        bias(Floats(bias)),
        sequences(input_mask.flat<int32_t>().data()),
        dropout(key, stream, kept, heads * length * length) {}

  int64_t width() const { return heads * head; }

  // Query, key or value (0, 1, 2) of a head, the query scaled -> [padded, D].
  void Project(int64_t row, int64_t n, int part, bfloat* out) const {
    const int64_t column = part * width() + n * head;
    const float factor = part == 0 ? scale : 1.0f;
    const float* b = bias + column;
    for (int64_t s = 0; s < length; ++s) {
      const bfloat* a = x + (row * length + s) * 3 * width() + column;
      bfloat* o = out + s * head;
      for (int64_t i = 0; i < head; i += 16) {
        const __m512 sum = _mm512_add_ps(Widen(a + i), _mm512_loadu_ps(b + i));
        StoreRounded(o + i, _mm512_mul_ps(sum, _mm512_set1_ps(factor)));
      }
    }
    std::fill(out + length * head, out + padded * head, 0);
  }

  int64_t batch, length, heads, head, padded;
  float scale;
  const bfloat* x;           // [B, S, 3 H]
  const float* bias;         // [3 H]
  const int32_t* sequences;  // [B, S]
  DropoutMask dropout;
};

// [padded, D] -> panels whose columns are its rows.
void PackRows(const Call& call, const bfloat* x, bfloat* panels) {
  for (int64_t s = 0; s < call.padded; s += kBlock) {
    for (int64_t d = 0; d < call.head; d += kBlock) {
      PackStepOfTransposed(x + s * call.head + d, call.head, kBlock, kBlock, panels);
      panels += kStep;
    }
  }
}

// [padded, D] -> panels whose columns are its columns.
void PackColumns(const Call& call, const bfloat* x, bfloat* panels) {
  for (int64_t d = 0; d < call.head; d += kBlock) {
    for (int64_t s = 0; s < call.padded; s += kBlock) {
      PackStep(x + s * call.head + d, call.head, kBlock, kBlock, panels);
      panels += kStep;
    }
  }
}

// 32 rows times `count` panels -> [32, 32 * count] float32.
void Multiply(const Rows& left, const bfloat* panels, int64_t steps, int64_t count,
              float* sums) {
  for (int64_t i = 0; i < count; ++i) {
    ZeroTiles();
    MultiplyAdd(left, panels + i * steps * kStep, steps);
    StoreTiles(sums + i * kBlock, count * kBlock);
  }
}

// What one query sees, and which of its probabilities dropout keeps.
class View {
 public:
  // sequence: [padded], -1 beyond the length. place: the query's.
  View(const Call& call, int64_t row, int64_t n, const int32_t* sequence, int64_t place,
       uint8_t* memory)
      : sequence_(sequence), own_(_mm512_set1_epi32(sequence[place])) {
    if (!call.dropout.is_on()) return;
    bytes_ = call.dropout.Bytes(row, (n * call.length + place) * call.length,
                                call.length, memory);
    limit_ = _mm_set1_epi8(static_cast<char>(call.dropout.limit()));
  }

  __mmask16 Seen(int64_t j) const {
    return _mm512_cmpeq_epi32_mask(_mm512_loadu_si512(sequence_ + j), own_);
  }

  __mmask16 Kept(int64_t j) const {
    if (bytes_ == nullptr) return 0xffff;
    const void* here = bytes_ + j;
    return _mm_cmplt_epu8_mask(_mm_loadu_si128(static_cast<const __m128i*>(here)),
                               limit_);
  }

 private:
  const int32_t* sequence_;
  __m512i own_;
  const uint8_t* bytes_ = nullptr;
  __m128i limit_;
};

// exp(score - offset) of 16 keys; 0 for those that the query does not see. A query that
// sees nothing, padding, sees everything alike.
inline __m512 Exponential(const Call& call, const View& view, bool sees, int64_t j,
                          __m512 score, float offset) {
  const __m512 x = _mm512_sub_ps(score, _mm512_set1_ps(offset));
  if (sees) return _mm512_maskz_mov_ps(view.Seen(j), Exp(x));
  const __mmask16 inside = FirstColumns(call.length - j) & 0xffff;
  return _mm512_maskz_mov_ps(inside, Exp(_mm512_set1_ps(-offset)));
}

// What a head needs besides matrices.
struct Memory {
  Memory(const Call& call, int64_t row) {
    static thread_local Scratch numbers, random;
    sequence = numbers.Get<int32_t>(call.padded);
    std::copy_n(call.sequences + row * call.length, call.length, sequence);
    std::fill(sequence + call.length, sequence + call.padded, -1);
    bytes = random.Get<uint8_t>(call.padded + 16 * (Philox::kBlocksAtOnce + 1));
  }

  int32_t* sequence;  // [padded], -1 beyond the length.
  uint8_t* bytes;
};

// Checks what both operations read.
absl::Status Check(const Tensor& x, const Tensor& bias, const Tensor& input_mask,
                   int64_t heads) {
  const int64_t width = bias.NumElements();
  if (x.dims() != 3 || x.dim_size(2) != width || width % (3 * heads * kBlock) != 0)
    return InvalidArgument("attention needs [B, S, 3 H] and heads of 32 n");
  if (input_mask.dims() != 2 || input_mask.dim_size(0) != x.dim_size(0) ||
      input_mask.dim_size(1) != x.dim_size(1))
    return InvalidArgument("the mask must be [B, S]");
  return absl::OkStatus();
}

// What the operation and its gradient share: the attributes, and a call that is checked.
class AttentionKernel : public OpKernel {
 public:
  explicit AttentionKernel(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("heads", &heads_));
    OP_REQUIRES_OK(context, context->GetAttr("stream", &stream_));
    OP_REQUIRES_OK(context, context->GetAttr("kept", &kept_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor &x = context->input(0), &bias = context->input(1);
    OP_REQUIRES_OK(context, Check(x, bias, context->input(2), heads_));
    Run(context, Call(x, bias, context->input(2), context->input(3), heads_, stream_,
                      kept_));
  }

 private:
  virtual void Run(OpKernelContext* context, const Call& call) = 0;

  int64_t heads_, stream_, kept_;
};

class AttentionOp : public AttentionKernel {
 public:
  using AttentionKernel::AttentionKernel;

 private:
  void Run(OpKernelContext* context, const Call& call) override {
    Tensor *y, *normalisers;
    OP_REQUIRES_OK(context, context->allocate_output(
                                0, TensorShape({call.batch, call.length, call.width()}),
                                &y));
    OP_REQUIRES_OK(context, context->allocate_output(
                                1, TensorShape({call.batch, call.heads, call.length}),
                                &normalisers));
    bfloat* out = Bfloats(y);
    float* normaliser = Floats(normalisers);
    ForEach(context, call.batch * call.heads, call.length * call.length * 4,
            [&](int64_t task) {
              Head(call, task / call.heads, task % call.heads, out,
                   normaliser + task * call.length);
            });
  }

  static void Head(const Call& call, int64_t row, int64_t n, bfloat* out,
                   float* normalisers) {
    static thread_local Scratch bfloats, floats;
    const int64_t size = call.padded * call.head;
    bfloat* query = bfloats.Get<bfloat>(4 * size + kBlock * call.padded);
    bfloat *plain = query + size, *keys = plain + size, *values = keys + size;
    bfloat* probabilities = values + size;
    float* scores = floats.Get<float>(kBlock * std::max(call.padded, call.head));
    const Memory memory(call, row);
    const TileScope scope;
    call.Project(row, n, 1, plain);
    PackRows(call, plain, keys);
    call.Project(row, n, 2, plain);
    PackColumns(call, plain, values);
    call.Project(row, n, 0, query);
    for (int64_t first = 0; first < call.length; first += kBlock) {
      const int64_t count = std::min(kBlock, call.length - first);
      Multiply(RowMajor(query + first * call.head, call.head), keys, call.head / kBlock,
               call.padded / kBlock, scores);
      for (int64_t i = 0; i < count; ++i) {
        const View view(call, row, n, memory.sequence, first + i, memory.bytes);
        normalisers[first + i] =
            Row(call, view, memory.sequence[first + i] > 0, scores + i * call.padded,
                probabilities + i * call.padded);
      }
      std::fill(probabilities + count * call.padded,
                probabilities + kBlock * call.padded, 0);
      Multiply(RowMajor(probabilities, call.padded), values, call.padded / kBlock,
               call.head / kBlock, scores);
      for (int64_t i = 0; i < count; ++i) {
        bfloat* o = out + (row * call.length + first + i) * call.width() + n * call.head;
        for (int64_t d = 0; d < call.head; d += 16)
          StoreRounded(o + d, _mm512_loadu_ps(scores + i * call.head + d));
      }
    }
  }

  // One query: scores -> probabilities after dropout. Returns the logarithm of the sum of
  // the scores' exponentials.
  static float Row(const Call& call, const View& view, bool sees, float* scores,
                   bfloat* probabilities) {
    float largest = 0.0f;
    if (sees) {
      const __m512 lowest = _mm512_set1_ps(-3e38f);
      __m512 most = lowest;
      for (int64_t j = 0; j < call.padded; j += 16)
        most = _mm512_max_ps(most, _mm512_mask_loadu_ps(lowest, view.Seen(j), scores + j));
      largest = _mm512_reduce_max_ps(most);
    }
    __m512 sums = _mm512_setzero_ps();
    for (int64_t j = 0; j < call.padded; j += 16) {
      const __m512 score = _mm512_loadu_ps(scores + j);
      const __m512 e = Exponential(call, view, sees, j, score, largest);
      sums = _mm512_add_ps(sums, e);
      _mm512_storeu_ps(scores + j, e);
    }
    const float total = _mm512_reduce_add_ps(sums);
    const __m512 factor = _mm512_set1_ps(call.dropout.scale() / total);
    for (int64_t j = 0; j < call.padded; j += 16) {
      const __m512 e = _mm512_maskz_loadu_ps(view.Kept(j), scores + j);
      StoreRounded(probabilities + j, _mm512_mul_ps(e, factor));
    }
    return largest + std::log(total);
  }
};

class AttentionGradOp : public AttentionKernel {
 public:
  using AttentionKernel::AttentionKernel;

 private:
  void Run(OpKernelContext* context, const Call& call) override {
    const Tensor &x = context->input(0), &bias = context->input(1);
    const float* normalisers = Floats(context->input(4));
    const bfloat* dy = Bfloats(context->input(5));
    Tensor *dx, *dbias;
    OP_REQUIRES_OK(context, context->allocate_output(0, x.shape(), &dx));
    OP_REQUIRES_OK(context, context->allocate_output(1, bias.shape(), &dbias));
    const int64_t width = bias.NumElements();
    std::vector<float> sums(call.batch * width);
    ForEach(context, call.batch * call.heads, call.length * call.length * 10,
            [&](int64_t task) {
              const int64_t row = task / call.heads;
              Head(call, row, task % call.heads, normalisers + task * call.length, dy,
                   Bfloats(dx), sums.data() + row * width);
            });
    float* total = Floats(dbias);
    std::fill(total, total + width, 0.0f);
    for (int64_t row = 0; row < call.batch; ++row) {
      for (int64_t i = 0; i < width; ++i) total[i] += sums[row * width + i];
    }
  }

  static void Head(const Call& call, int64_t row, int64_t n, const float* normalisers,
                   const bfloat* dy, bfloat* dx, float* dbias) {
    static thread_local Scratch bfloats, floats;
    const int64_t size = call.padded * call.head, square = call.padded * call.padded;
    const int64_t key_blocks = call.padded / kBlock, steps = call.head / kBlock;
    bfloat* query = bfloats.Get<bfloat>(8 * size + 2 * square + kBlock * call.padded);
    bfloat *plain = query + size, *upstream = plain + size;
    bfloat *key_rows = upstream + size, *key_columns = key_rows + size;
    bfloat *value_rows = key_columns + size, *query_columns = value_rows + size;
    bfloat* upstream_columns = query_columns + size;
    bfloat *dropped = upstream_columns + size, *dscores = dropped + square;
    bfloat* turned = dscores + square;
    const int64_t width = std::max(call.padded, call.head);
    float* scores = floats.Get<float>(2 * kBlock * width);
    float* dprobabilities = scores + kBlock * width;
    const Memory memory(call, row);
    const TileScope scope;
    call.Project(row, n, 1, plain);
    PackRows(call, plain, key_rows);
    PackColumns(call, plain, key_columns);
    call.Project(row, n, 2, plain);
    PackRows(call, plain, value_rows);
    call.Project(row, n, 0, query);
    PackColumns(call, query, query_columns);
    for (int64_t s = 0; s < call.length; ++s) {
      std::memcpy(upstream + s * call.head,
                  dy + (row * call.length + s) * call.width() + n * call.head,
                  call.head * sizeof(bfloat));
    }
    std::fill(upstream + call.length * call.head, upstream + size, 0);
    PackColumns(call, upstream, upstream_columns);
    const int64_t columns[3] = {n * call.head, call.width() + n * call.head,
                                2 * call.width() + n * call.head};
    for (int part = 0; part < 3; ++part)
      std::fill_n(dbias + columns[part], call.head, 0.0f);
    std::fill(dropped + call.length * call.padded, dropped + square, 0);
    std::fill(dscores + call.length * call.padded, dscores + square, 0);
    for (int64_t first = 0; first < call.length; first += kBlock) {
      Multiply(RowMajor(query + first * call.head, call.head), key_rows, steps,
               key_blocks, scores);
      Multiply(RowMajor(upstream + first * call.head, call.head), value_rows, steps,
               key_blocks, dprobabilities);
      for (int64_t i = 0; i < std::min(kBlock, call.length - first); ++i) {
        const int64_t place = first + i;
        const View view(call, row, n, memory.sequence, place, memory.bytes);
        Row(call, view, memory.sequence[place] > 0, normalisers[place],
            scores + i * call.padded, dprobabilities + i * call.padded,
            dropped + place * call.padded, dscores + place * call.padded);
      }
      Multiply(RowMajor(dscores + first * call.padded, call.padded), key_columns,
               key_blocks, steps, scores);
      Write(call, row, first, columns[0], call.scale, scores, dx, dbias);
    }
    for (int64_t first = 0; first < call.length; first += kBlock) {
      Turn(call, dscores + first, turned);
      Multiply(Packed(turned), query_columns, key_blocks, steps, scores);
      Write(call, row, first, columns[1], 1.0f, scores, dx, dbias);
      Turn(call, dropped + first, turned);
      Multiply(Packed(turned), upstream_columns, key_blocks, steps, scores);
      Write(call, row, first, columns[2], 1.0f, scores, dx, dbias);
    }
  }

  // One query: its probabilities after dropout, and the gradient of its scores, which
  // is none for padding.
  static void Row(const Call& call, const View& view, bool sees, float normaliser,
                  float* scores, float* dprobabilities, bfloat* dropped,
                  bfloat* dscores) {
    const __m512 scale = _mm512_set1_ps(call.dropout.scale());
    __m512 sums = _mm512_setzero_ps();
    for (int64_t j = 0; j < call.padded; j += 16) {
      const __m512 p = Exponential(call, view, sees, j, _mm512_loadu_ps(scores + j),
                                   normaliser);
      const __mmask16 kept = view.Kept(j);
      const __m512 dp =
          _mm512_mul_ps(_mm512_maskz_loadu_ps(kept, dprobabilities + j), scale);
      sums = _mm512_fmadd_ps(dp, p, sums);
      _mm512_storeu_ps(scores + j, p);
      _mm512_storeu_ps(dprobabilities + j, dp);
      StoreRounded(dropped + j, _mm512_maskz_mul_ps(kept, p, scale));
    }
    const __m512 total = _mm512_set1_ps(_mm512_reduce_add_ps(sums));
    for (int64_t j = 0; j < call.padded; j += 16) {
      const __m512 dp = _mm512_loadu_ps(dprobabilities + j);
      const __m512 p = _mm512_maskz_loadu_ps(sees ? 0xffff : 0, scores + j);
      StoreRounded(dscores + j, _mm512_mul_ps(p, _mm512_sub_ps(dp, total)));
    }
  }

  // 32 columns of [padded, padded], as 32 rows of a left matrix.
  static void Turn(const Call& call, const bfloat* x, bfloat* turned) {
    for (int64_t s = 0; s < call.padded; s += kBlock)
      PackTransposed(x + s * call.padded, call.padded, kBlock, kBlock,
                     turned + s * kBlock);
  }

  // Rows of one head's [S, D] times `factor` into dx, and their sum into dbias.
  static void Write(const Call& call, int64_t row, int64_t first, int64_t column,
                    float factor, const float* sums, bfloat* dx, float* dbias) {
    for (int64_t i = 0; i < std::min(kBlock, call.length - first); ++i) {
      bfloat* o = dx + (row * call.length + first + i) * 3 * call.width() + column;
      for (int64_t d = 0; d < call.head; d += 16) {
        const __m512 value = _mm512_mul_ps(_mm512_loadu_ps(sums + i * call.head + d),
                                           _mm512_set1_ps(factor));
        StoreRounded(o + d, value);
        float* sum = dbias + column + d;
        _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), value));
      }
    }
  }
};

REGISTER_OP("BertAttention")
    .Input("x: bfloat16")
    .Input("bias: float")
    .Input("input_mask: int32")
    .Input("key: int32")
    .Output("y: bfloat16")
    .Output("normalisers: float")
    .Attr("heads: int >= 1")
    .Attr("stream: int")
    .Attr("kept: int")
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->UnknownShapeOfRank(3));
      c->set_output(1, c->UnknownShapeOfRank(3));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertAttention").Device(DEVICE_CPU), AttentionOp);

REGISTER_OP("BertAttentionGrad")
    .Input("x: bfloat16")
    .Input("bias: float")
    .Input("input_mask: int32")
    .Input("key: int32")
    .Input("normalisers: float")
    .Input("dy: bfloat16")
    .Output("dx: bfloat16")
    .Output("dbias: float")
    .Attr("heads: int >= 1")
    .Attr("stream: int")
    .Attr("kept: int")
    .SetShapeFn([](InferenceContext* c) {
      c->set_output(0, c->input(0));
      c->set_output(1, c->input(1));
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertAttentionGrad").Device(DEVICE_CPU), AttentionGradOp);

}  // namespace bert_tf

#endif  // BERT_TF_TILES
