// What the operations share: access to tensors, parallel loops, errors when memory runs
// out, positions of tokens, seeds of dropout.

#ifndef BERT_TF_FUSED_OPS_OPERATION_H_
#define BERT_TF_FUSED_OPS_OPERATION_H_

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <vector>

#include "checks.h"
#include "isa.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/platform/mutex.h"
#include "tensorflow/core/platform/threadpool.h"

namespace bert_tf {

using tensorflow::DEVICE_CPU;
using tensorflow::OpInputList;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::TensorShape;

// Not flat(), which ends the process if the memory is not aligned, which is possible for
// tensors that TensorFlow did not allocate.
template <typename T>
const T* Data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.data());
}
template <typename T>
T* Data(Tensor* tensor) {
  return static_cast<T*>(tensor->data());
}

// An operation that fails with ResourceExhausted when memory runs out in any thread,
// instead of ending the process: allocations throw std::bad_alloc.
class Operation : public tensorflow::OpKernel {
 public:
  using tensorflow::OpKernel::OpKernel;

  void Compute(OpKernelContext* context) final {
    try {
      Run(context);
    } catch (const std::bad_alloc&) {
      context->CtxFailure(tensorflow::errors::ResourceExhausted(
          "there is not enough memory for the buffers of ", type_string(),
          ": use a smaller batch"));
    }
  }

 private:
  virtual void Run(OpKernelContext* context) = 0;
};

// The calls of a parallel loop. Each thread takes the next one until there is none left; a
// thread that starts when all are taken does not touch the function, which may be gone.
class Calls {
 public:
  Calls(int64_t total, void (*call)(const void* function, int64_t i), const void* function)
      : total_(total), call_(call), function_(function) {}

  void Run() {
    int64_t count = 0;
    for (int64_t i; (i = next_.fetch_add(1)) < total_; ++count) {
      try {
        call_(function_, i);
      } catch (const std::bad_alloc&) {  // Exceptions must not leave a thread.
        memory_ran_out_ = true;
      }
    }
    if (count == 0 || ended_.fetch_add(count) + count < total_) return;
    tensorflow::mutex_lock lock(mutex_);
    is_over_ = true;
    over_.notify_all();
  }

  // Waits for the end of all calls.
  void Wait() {
    tensorflow::mutex_lock lock(mutex_);
    while (!is_over_) over_.wait(lock);
    if (memory_ran_out_) throw std::bad_alloc();
  }

 private:
  const int64_t total_;
  void (*const call_)(const void*, int64_t);
  const void* const function_;
  std::atomic<int64_t> next_{0}, ended_{0};
  std::atomic<bool> memory_ran_out_{false};
  tensorflow::mutex mutex_;
  tensorflow::condition_variable over_;
  bool is_over_ = false;
};

// The parallel loop of an instruction set, on the threads of an operation. Threads of the
// pool make all calls, while the operation's own thread sleeps. With tensorflow::Shard it
// often computes too: then one thread more than there are cores is active, the system may
// put two that compute on one core, and a loop of 2 ms takes twice its time.
inline Loop MakeLoop(OpKernelContext* context) {
  const auto run = [](const Loop& loop, int64_t total, int64_t cost,
                      void (*call)(const void*, int64_t), const void* function) {
    constexpr int64_t kWorth = 50'000;  // Cycles for which another thread is woken.
    auto* device = static_cast<OpKernelContext*>(loop.context)->device();
    auto* pool = device->tensorflow_cpu_worker_threads()->workers;
    const int64_t threads =
        std::min({loop.num_threads, total, 1 + total * std::max<int64_t>(0, cost) / kWorth});
    if (threads <= 1) {
      for (int64_t i = 0; i < total; ++i) call(function, i);
      return;
    }
    const auto calls = std::make_shared<Calls>(total, call, function);
    try {
      for (int64_t i = 0; i < threads; ++i) pool->Schedule([calls] { calls->Run(); });
    } catch (const std::bad_alloc&) {
      calls->Run();  // Those that were scheduled need the function until all have ended.
    }
    if (pool->CurrentThreadId() >= 0) calls->Run();  // Else all might wait for each other.
    calls->Wait();
  };
  const int64_t threads =
      context->device()->tensorflow_cpu_worker_threads()->num_threads;
  return {run, context, threads};
}

// The positions of a mask [B, S] that have a token; see `Positions`. Of a mask that is not
// a matrix nothing is read.
class TokenPositions {
 public:
  // All positions if there are as many tokens, else those up to the last nonzero one of
  // each row.
  static TokenPositions WithoutGaps(const Tensor& mask, int64_t tokens) {
    TokenPositions positions(mask);
    const bool are_all = tokens == mask.NumElements();
    positions.ForRows([&](const int32_t* row) {
      int64_t count = positions.length_;
      while (!are_all && count > 0 && row[count - 1] == 0) --count;
      return count;
    });
    return positions;
  }

  // The nonzero positions.
  static TokenPositions Marked(const Tensor& mask) {
    TokenPositions positions(mask);
    positions.has_offsets_ = true;
    positions.ForRows([&](const int32_t* row) {
      const size_t before = positions.offsets_.size();
      for (int64_t i = 0; i < positions.length_; ++i) {
        if (row[i] != 0) positions.offsets_.push_back(static_cast<int32_t>(i));
      }
      return static_cast<int64_t>(positions.offsets_.size() - before);
    });
    return positions;
  }

  // Those of the two above that are as many as the tokens. If both are, they are equal.
  static TokenPositions Of(const Tensor& mask, int64_t tokens) {
    TokenPositions positions = WithoutGaps(mask, tokens);
    return positions.size() == tokens ? positions : Marked(mask);
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

  // Whether the positions, from `Marked`, are among others, from `WithoutGaps`.
  absl::Status CheckAmong(const TokenPositions& others) const {
    if (mask_.shape() != others.mask_.shape())
      return InvalidArgument("queries must have the shape of input_mask, ",
                             others.mask_.shape().DebugString(), ", not ",
                             mask_.shape().DebugString());
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

  Positions positions() const {
    return {static_cast<int64_t>(begins_.size()) - 1, length_, begins_.data(),
            has_offsets_ ? offsets_.data() : nullptr};
  }

 private:
  explicit TokenPositions(const Tensor& mask) : mask_(mask) {}

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

// seed: [B, 3] int32: seed, step, and the row's number in the global batch; the other rows
// follow the first. Without rows nothing is read.
inline Dropout MakeDropout(const Tensor& seed, int64_t stream, int64_t kept) {
  const auto number = [&](int64_t i) -> uint64_t {
    return seed.NumElements() == 0 ? 0 : static_cast<int64_t>(Data<int32_t>(seed)[i]);
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

// Registers an operation for activations in bfloat16 and in float32.
#define BERT_TF_REGISTER(name, Class)                                              \
  REGISTER_KERNEL_BUILDER(                                                         \
      Name(name).Device(DEVICE_CPU).TypeConstraint<tensorflow::bfloat16>("T"),     \
      Class<bfloat>);                                                              \
  REGISTER_KERNEL_BUILDER(Name(name).Device(DEVICE_CPU).TypeConstraint<float>("T"), \
                          Class<float>)

}  // namespace bert_tf

#endif  // BERT_TF_FUSED_OPS_OPERATION_H_
