// Checks of shapes, attributes and indices, made before any data is read. A message names
// the argument; TensorFlow adds the operation. Shape functions make the same checks while a
// graph is built, as far as sizes are known then.

#ifndef BERT_TF_FUSED_OPS_CHECKS_H_
#define BERT_TF_FUSED_OPS_CHECKS_H_

#include <algorithm>
#include <initializer_list>
#include <string>

#include "absl/types/span.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/util/overflow.h"

namespace bert_tf {

using tensorflow::Tensor;
using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

constexpr int64_t kAnySize = -1;
using Sizes = absl::Span<const int64_t>;

// The first error among several.
inline absl::Status FirstError(std::initializer_list<absl::Status> statuses) {
  for (const absl::Status& status : statuses) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

inline absl::Status RequireShape(const Tensor& tensor, const char* name, Sizes sizes) {
  bool fits = tensor.dims() == static_cast<int>(sizes.size());
  int axis = 0;
  std::string expected;
  for (const int64_t size : sizes) {
    fits = fits && (size == kAnySize || tensor.dim_size(axis) == size);
    expected += axis++ == 0 ? "" : ", ";
    expected += size == kAnySize ? "any" : std::to_string(size);
  }
  if (fits) return absl::OkStatus();
  return InvalidArgument(name, " must have the shape [", expected, "], not ",
                         tensor.shape().DebugString());
}

inline absl::Status RequireSameShape(const Tensor& tensor, const char* name,
                                     const Tensor& other, const char* other_name) {
  if (tensor.shape() == other.shape()) return absl::OkStatus();
  return InvalidArgument(name, " must have the shape of ", other_name, ", ",
                         other.shape().DebugString(), ", not ",
                         tensor.shape().DebugString());
}

// The rows and the width, at least 1, of a tensor [..., width].
inline absl::Status RequireRows(const Tensor& tensor, const char* name, int64_t* rows,
                                int64_t* width) {
  *width = tensor.dims() > 0 ? tensor.dim_size(tensor.dims() - 1) : 0;
  if (*width == 0)
    return InvalidArgument(name, " must have a last axis of at least 1 number, not the "
                           "shape ", tensor.shape().DebugString());
  *rows = tensor.NumElements() / *width;
  return absl::OkStatus();
}

// A matrix whose columns from `size` on are padding.
inline absl::Status RequireWideMatrix(const Tensor& tensor, const char* name,
                                      int64_t size) {
  if (tensor.dims() == 2 && size > 0 && tensor.dim_size(1) >= size)
    return absl::OkStatus();
  return InvalidArgument(name, " must have rows of at least ", std::max<int64_t>(size, 1),
                         " numbers, not the shape ", tensor.shape().DebugString());
}

// Each number within [0, end).
inline absl::Status RequireIndices(const Tensor& tensor, const char* name, int64_t end) {
  const int32_t* values = static_cast<const int32_t*>(tensor.data());
  for (int64_t i = 0; i < tensor.NumElements(); ++i) {
    if (values[i] < 0 || values[i] >= end)
      return InvalidArgument(name, "[", i, "] is ", values[i],
                             ", which is out of range: it must lie within [0, ", end,
                             ")");
  }
  return absl::OkStatus();
}

// Sizes whose product must fit int64.
inline absl::Status RequireProduct(const char* name, Sizes sizes) {
  int64_t product = 1;
  for (const int64_t size : sizes)
    product = tensorflow::MultiplyWithoutOverflow(product, size);
  if (product >= 0) return absl::OkStatus();
  return InvalidArgument(name, " is too large");
}

// The attributes of dropout: `kept` of the 256 values of a random byte keep a number.
inline absl::Status GetDropout(tensorflow::OpKernelConstruction* context,
                               int64_t* stream, int64_t* kept) {
  TF_RETURN_IF_ERROR(context->GetAttr("stream", stream));
  TF_RETURN_IF_ERROR(context->GetAttr("kept", kept));
  if (*kept >= 1 && *kept <= 256) return absl::OkStatus();
  return InvalidArgument("kept must lie within [1, 256], not be ", *kept);
}

// The seed of dropout [B, 3] for the rows of a mask [B, S].
inline absl::Status RequireSeed(const Tensor& seed, const Tensor& input_mask) {
  if (input_mask.dims() == 0)
    return InvalidArgument("input_mask must be [B, S], not a scalar");
  return RequireShape(seed, "seed", {input_mask.dim_size(0), 3});
}

// ------------------------------------------------------------------ shape functions

// The shape of input `rows`, [..., H], where input `vector` is [H].
inline absl::Status InferRows(InferenceContext* c, int rows, int vector,
                              ShapeHandle* shape) {
  ShapeHandle x, v;
  DimensionHandle width;
  TF_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(rows), 1, &x));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(vector), 1, &v));
  TF_RETURN_IF_ERROR(c->Merge(c->Dim(x, -1), c->Dim(v, 0), &width));
  return c->ReplaceDim(x, -1, width, shape);
}

// Merges the shape of an input with the shape that it must have.
inline absl::Status InferSame(InferenceContext* c, int input, ShapeHandle* shape) {
  return c->Merge(*shape, c->input(input), shape);
}

// The inputs `mask` [B, S] and `seed` [B, 3].
inline absl::Status InferMaskAndSeed(InferenceContext* c, int mask, int seed) {
  ShapeHandle rows, numbers;
  DimensionHandle dimension;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(mask), 2, &rows));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(seed), 2, &numbers));
  TF_RETURN_IF_ERROR(c->WithValue(c->Dim(numbers, 1), 3, &dimension));
  return c->Merge(c->Dim(rows, 0), c->Dim(numbers, 0), &dimension);
}

}  // namespace bert_tf

#endif  // BERT_TF_FUSED_OPS_CHECKS_H_
