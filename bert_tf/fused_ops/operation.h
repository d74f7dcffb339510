// What the operations share: views of tensors, work in parallel, memory that may run out,
// positions of tokens, keys of dropout.

#ifndef BERT_TF_FUSED_OPS_OPERATION_H_
#define BERT_TF_FUSED_OPS_OPERATION_H_

#include <algorithm>
#include <atomic>
#include <new>
#include <vector>

#include "checks.h"
#include "isa.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/util/work_sharder.h"

namespace bert_tf {

using tensorflow::DEVICE_CPU;
using tensorflow::OpInputList;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::TensorShape;

// Not by flat(), which ends the process where memory begins at an odd address, as that of
// a tensor that was made elsewhere may.
template <typename T>
const T* Data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.data());
}
template <typename T>
T* Data(Tensor* tensor) {
  return static_cast<T*>(tensor->data());
}

// An operation that fails with ResourceExhausted where memory runs out, in any thread,
// instead of ending the process: what allocates throws std::bad_alloc.
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

// Lets an instruction set work in parallel on the threads of an operation.
inline Loop MakeLoop(OpKernelContext* context) {
  const auto run = [](const Loop& loop, int64_t total, int64_t cost,
                      void (*call)(const void*, int64_t), const void* function) {
    auto* device = static_cast<OpKernelContext*>(loop.context)->device();
    const auto& threads = *device->tensorflow_cpu_worker_threads();
    std::atomic<bool> memory_ran_out{false};  // TensorFlow's threads know no exceptions.
    tensorflow::Shard(threads.num_threads, threads.workers, total,
                      std::max<int64_t>(1, cost), [&](int64_t first, int64_t last) {
                        try {
                          for (int64_t i = first; i < last; ++i) call(function, i);
                        } catch (const std::bad_alloc&) {
                          memory_ran_out = true;
                        }
                      });
    if (memory_ran_out) throw std::bad_alloc();
  };
  const int64_t threads =
      context->device()->tensorflow_cpu_worker_threads()->num_threads;
  return {run, context, threads};
}

// Which positions of a mask [B, S] have a token; see `Places`. Of a mask that Check refuses
// nothing is read.
class TokenPlaces {
 public:
  // All positions, or those up to the last of each row that is not 0.
  static TokenPlaces WithoutGaps(const Tensor& mask, int64_t tokens) {
    TokenPlaces places(mask);
    const bool are_all = tokens == mask.NumElements();
    places.ForRows([&](const int32_t* row) {
      int64_t count = places.length_;
      while (!are_all && count > 0 && row[count - 1] == 0) --count;
      return count;
    });
    return places;
  }

  // Those that are not 0.
  static TokenPlaces Marked(const Tensor& mask) {
    TokenPlaces places(mask);
    places.has_offsets_ = true;
    places.ForRows([&](const int32_t* row) {
      const size_t before = places.offsets_.size();
      for (int64_t i = 0; i < places.length_; ++i) {
        if (row[i] != 0) places.offsets_.push_back(static_cast<int32_t>(i));
      }
      return static_cast<int64_t>(places.offsets_.size() - before);
    });
    return places;
  }

  // Whichever are as many as there are tokens. Where both are, they are the same.
  static TokenPlaces Of(const Tensor& mask, int64_t tokens) {
    TokenPlaces places = WithoutGaps(mask, tokens);
    return places.size() == tokens ? places : Marked(mask);
  }

  int64_t size() const { return begins_.back(); }

  // Whether the mask has as many positions as there are tokens.
  absl::Status Check(int64_t tokens) const {
    if (mask_.dims() == 2 && tokens == size()) return absl::OkStatus();
    return InvalidArgument("input_mask, ", mask_.shape().DebugString(), ", has ", size(),
                           has_offsets_ ? " positions that are not 0"
                                        : " positions without the padding behind",
                           ", and does not fit ", tokens, " tokens: it must be [B, S] "
                           "with as many positions in all, or without that padding",
                           has_offsets_ ? ", or that are not 0" : "");
  }

  // Whether the positions, which are marked, are among others without gaps.
  absl::Status CheckAmong(const TokenPlaces& others) const {
    if (mask_.shape() != others.mask_.shape())
      return InvalidArgument("queries must have the shape of input_mask, ",
                             others.mask_.shape().DebugString(), ", not ", mask_.shape().DebugString());
    for (size_t row = 0; row + 1 < begins_.size(); ++row) {
      const int64_t count = others.begins_[row + 1] - others.begins_[row];
      if (begins_[row] == begins_[row + 1]) continue;
      const int32_t last = offsets_[begins_[row + 1] - 1];
      if (last >= count)
        return InvalidArgument("queries[", row, ", ", last, "] is not 0, but x has ",
                               count, " tokens of that row");
    }
    return absl::OkStatus();
  }

  Places places() const {
    return {static_cast<int64_t>(begins_.size()) - 1, length_, begins_.data(),
            has_offsets_ ? offsets_.data() : nullptr};
  }

 private:
  explicit TokenPlaces(const Tensor& mask) : mask_(mask) {}

  // Calls count(row), the number of a row's tokens, for each row.
  template <typename Count>
  void ForRows(const Count& count) {
    if (mask_.dims() != 2 || mask_.NumElements() == 0) return;
    length_ = mask_.dim_size(1);
    begins_.resize(mask_.dim_size(0) + 1);
    const int32_t* row = Data<int32_t>(mask_);
    for (size_t i = 0; i + 1 < begins_.size(); ++i, row += length_)
      begins_[i + 1] = begins_[i] + count(row);
  }

  Tensor mask_;  // Shares its memory.
  int64_t length_ = 0;
  std::vector<int64_t> begins_ = {0};  // [B + 1]
  std::vector<int32_t> offsets_;
  bool has_offsets_ = false;
};

// key: [B, 3] int32: seed, step, and place of the first row in the global batch. Where
// there are no rows, nothing is dropped and nothing read.
inline Dropout MakeDropout(const Tensor& key, int64_t stream, int64_t kept) {
  const auto number = [&](int64_t i) -> uint64_t {
    return key.NumElements() == 0 ? 0 : static_cast<int64_t>(Data<int32_t>(key)[i]);
  };
  return {(number(0) << 32) + static_cast<uint64_t>(stream), number(1), number(2), kept};
}

// The functions of the instruction set in use for activations of type T.
template <typename T>
const Operations<T>& CurrentOperations();
template <>
inline const Operations<bfloat>& CurrentOperations<bfloat>() {
  return CurrentIsa().bf16;
}
template <>
inline const Operations<float>& CurrentOperations<float>() {
  return CurrentIsa().fp32;
}

// Registers the kernels of an operation whose activations are bfloat16 or float32.
#define BERT_TF_REGISTER(name, Class)                                              \
  REGISTER_KERNEL_BUILDER(                                                         \
      Name(name).Device(DEVICE_CPU).TypeConstraint<tensorflow::bfloat16>("T"),     \
      Class<bfloat>);                                                              \
  REGISTER_KERNEL_BUILDER(Name(name).Device(DEVICE_CPU).TypeConstraint<float>("T"), \
                          Class<float>)

}  // namespace bert_tf

#endif  // BERT_TF_FUSED_OPS_OPERATION_H_
