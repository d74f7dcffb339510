// What the operations share: views of tensors, work in parts, memory that may run out,
// places of tokens, dropout masks.

#ifndef BERT_TF_KERNELS_PARALLEL_H_
#define BERT_TF_KERNELS_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <new>
#include <vector>

#include "arithmetic.h"
#include "checks.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/util/work_sharder.h"

namespace bert_tf {

using tensorflow::OpKernelContext;

// Sums over rows are made of this many parts, whatever the number of threads, so that
// they are the same on every machine size.
constexpr int64_t kParts = 32;

// Not by flat(), which ends the process where memory begins at an odd address, as that of
// a tensor that was made elsewhere may.
inline const bfloat* Bfloats(const Tensor& tensor) {
  return static_cast<const bfloat*>(tensor.data());
}
inline bfloat* Bfloats(Tensor* tensor) { return static_cast<bfloat*>(tensor->data()); }
inline const float* Floats(const Tensor& tensor) {
  return static_cast<const float*>(tensor.data());
}
inline float* Floats(Tensor* tensor) { return static_cast<float*>(tensor->data()); }
inline const int32_t* Integers(const Tensor& tensor) {
  return static_cast<const int32_t*>(tensor.data());
}

// An operation for which memory that runs out is an error of its own, not the end of the
// process, in whatever thread it happens: what allocates throws std::bad_alloc.
class Operation : public tensorflow::OpKernel {
 public:
  using tensorflow::OpKernel::OpKernel;

  void Compute(OpKernelContext* context) final {
    try {
      Run(context);
    } catch (const std::bad_alloc&) {
      context->CtxFailure(tensorflow::errors::ResourceExhausted(
          "there is not enough memory for what ", type_string(),
          " works in; a smaller batch needs less"));
    }
  }

 private:
  virtual void Run(OpKernelContext* context) = 0;
};

// Threads that may work on one operation.
inline int64_t NumThreads(OpKernelContext* context) {
  return context->device()->tensorflow_cpu_worker_threads()->num_threads;
}

// Calls function(i) for each i in [0, total), in parallel; cost: cycles of each.
template <typename Function>
void ForEach(OpKernelContext* context, int64_t total, int64_t cost,
             const Function& function) {
  const auto& threads = *context->device()->tensorflow_cpu_worker_threads();
  std::atomic<bool> memory_ran_out{false};  // TensorFlow's threads know no exceptions.
  tensorflow::Shard(threads.num_threads, threads.workers, total,
                    std::max<int64_t>(1, cost), [&](int64_t first, int64_t last) {
                      try {
                        for (int64_t i = first; i < last; ++i) function(i);
                      } catch (const std::bad_alloc&) {
                        memory_ran_out = true;
                      }
                    });
  if (memory_ran_out) throw std::bad_alloc();
}

// Calls function(part, begin, end) for every part of [0, total), in parallel; cost:
// cycles of each of the `total`.
template <typename Function>
void ForParts(OpKernelContext* context, int64_t total, int64_t cost,
              const Function& function, int64_t parts = kParts) {
  ForEach(context, parts, total * cost / parts, [&](int64_t part) {
    function(part, total * part / parts, total * (part + 1) / parts);
  });
}

// Adds up rows of partial sums [kParts, width], in their order.
inline void AddParts(const std::vector<float>& parts, int64_t width, float* sums) {
  std::fill(sums, sums + width, 0.0f);
  for (int64_t part = 0; part < kParts; ++part) {
    const float* row = parts.data() + part * width;
    for (int64_t i = 0; i < width; ++i) sums[i] += row[i];
  }
}

// Where tokens stand in the rows [B, S] of their batch. Either all places are there, or
// what is behind the last token of each row is left out, and the rest of the rows stand
// one after another.
class Places {
 public:
  // input_mask: [B, S], 0 is padding. Of one that Check refuses nothing is read.
  Places(const Tensor& input_mask, int64_t tokens)
      : shape_(input_mask.shape()), tokens_(tokens) {
    if (input_mask.dims() != 2) return;
    length_ = input_mask.dim_size(1);
    if (input_mask.NumElements() == 0) return;
    begins_.resize(input_mask.dim_size(0) + 1);
    const int32_t* mask = Integers(input_mask);
    const bool are_all = tokens == input_mask.NumElements();
    for (size_t row = 0; row + 1 < begins_.size(); ++row, mask += length_) {
      int64_t count = length_;
      while (!are_all && count > 0 && mask[count - 1] == 0) --count;
      begins_[row + 1] = begins_[row] + count;
    }
  }

  // Whether the mask has as many places as there are tokens.
  absl::Status Check() const {
    if (shape_.dims() == 2 && tokens_ == begins_.back()) return absl::OkStatus();
    return InvalidArgument("input_mask, ", shape_.DebugString(), ", has ",
                           begins_.back(), " places without the padding behind, and "
                           "does not fit ", tokens_, " tokens: it must be [B, S] with as "
                           "many places in all, or without that padding");
  }

  int64_t length() const { return length_; }  // S
  int64_t begin(int64_t row) const { return begins_[row]; }
  int64_t count(int64_t row) const { return begins_[row + 1] - begins_[row]; }
  int64_t RowOf(int64_t token) const {
    return std::upper_bound(begins_.begin(), begins_.end(), token) - begins_.begin() - 1;
  }

 private:
  tensorflow::TensorShape shape_;
  int64_t tokens_, length_ = 0;
  std::vector<int64_t> begins_ = {0};  // [B + 1]
};

// The dropout of one layer: which bytes keep which numbers.
class DropoutMask {
 public:
  // key: [B, 3] int32: seed, step, and place of the first row in the global batch. Where
  // there are no rows, nothing is dropped and nothing read.
  DropoutMask(const Tensor& key, int64_t stream, int64_t kept, uint64_t row_size)
      : philox_((Number(key, 0) << 32) + static_cast<uint64_t>(stream), Number(key, 1)),
        first_row_(Number(key, 2)),
        blocks_((row_size + 15) / 16),
        kept_(kept) {}

  bool is_on() const { return kept_ < 256; }
  float scale() const { return is_on() ? 256.0f / kept_ : 1.0f; }

  int limit() const { return static_cast<int>(kept_); }  // Bytes below keep a number.

  // The bytes that decide on `count` numbers of a row of the batch, from place `begin`
  // on: a pointer into `memory`, which holds count + 16 * (kBlocksAtOnce + 1) bytes.
  const uint8_t* Bytes(int64_t row, int64_t begin, int64_t count,
                       uint8_t* memory) const {
    const uint64_t first = (first_row_ + row) * blocks_ + begin / 16;
    const int64_t offset = begin % 16;
    for (int64_t i = 0; 16 * i < offset + count; i += Philox::kBlocksAtOnce)
      philox_.Fill(first + i, memory + 16 * i);
    return memory + offset;
  }

  // scale() or 0 for `count` numbers of a row of the batch, from place `begin` on.
  void Fill(int64_t row, int64_t begin, int64_t count, float* mask) const {
    if (!is_on()) {
      std::fill(mask, mask + count, 1.0f);
      return;
    }
    constexpr int64_t kBytes = 16 * Philox::kBlocksAtOnce;
    alignas(64) uint8_t bytes[kBytes];
    const float scale = this->scale();
    const int limit = static_cast<int>(kept_);
    const uint64_t row_block = (first_row_ + row) * blocks_;
    int64_t done = 0;
    while (done < count) {
      const int64_t place = begin + done;
      philox_.Fill(row_block + place / 16, bytes);
      const int64_t offset = place % 16;
      const int64_t here = std::min(kBytes - offset, count - done);
      const uint8_t* source = bytes + offset;
      float* target = mask + done;
      for (int64_t i = 0; i < here; ++i) {
        target[i] = source[i] < limit ? scale : 0.0f;
      }
      done += here;
    }
  }

 private:
  static uint64_t Number(const Tensor& key, int64_t place) {
    return key.NumElements() == 0 ? 0 : static_cast<int64_t>(Integers(key)[place]);
  }

  Philox philox_;
  uint64_t first_row_;
  uint64_t blocks_;
  int64_t kept_;
};

}  // namespace bert_tf

#endif  // BERT_TF_KERNELS_PARALLEL_H_
