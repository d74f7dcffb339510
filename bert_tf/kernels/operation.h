// What the operations share: views of tensors, work in parallel, memory that may run out,
// positions of tokens, keys of dropout.

#ifndef BERT_TF_KERNELS_OPERATION_H_
#define BERT_TF_KERNELS_OPERATION_H_

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

// Where tokens stand in the rows of a mask [B, S]; see `Places`.
class TokenPlaces {
 public:
  // Of a mask that Check refuses nothing is read.
  TokenPlaces(const Tensor& input_mask, int64_t tokens)
      : shape_(input_mask.shape()), tokens_(tokens) {
    if (input_mask.dims() != 2 || input_mask.NumElements() == 0) return;
    length_ = input_mask.dim_size(1);
    begins_.resize(input_mask.dim_size(0) + 1);
    const int32_t* mask = Data<int32_t>(input_mask);
    const bool are_all = tokens == input_mask.NumElements();
    for (size_t row = 0; row + 1 < begins_.size(); ++row, mask += length_) {
      int64_t count = length_;
      while (!are_all && count > 0 && mask[count - 1] == 0) --count;
      begins_[row + 1] = begins_[row] + count;
    }
  }

  // Whether the mask has as many positions as there are tokens.
  absl::Status Check() const {
    if (shape_.dims() == 2 && tokens_ == begins_.back()) return absl::OkStatus();
    return InvalidArgument("input_mask, ", shape_.DebugString(), ", has ",
                           begins_.back(), " positions without the padding behind, and "
                           "does not fit ", tokens_, " tokens: it must be [B, S] with as "
                           "many positions in all, or without that padding");
  }

  Places places() const {
    return {static_cast<int64_t>(begins_.size()) - 1, length_, begins_.data()};
  }

 private:
  TensorShape shape_;
  int64_t tokens_, length_ = 0;
  std::vector<int64_t> begins_ = {0};  // [B + 1]
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

#endif  // BERT_TF_KERNELS_OPERATION_H_
