// One step of LAMB or Adam on one variable, in place: two passes over memory, or one.
// The formulas are those of bert_tf/training/updates.py.

#include <algorithm>
#include <cmath>
#include <vector>

#include "parallel.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace bert_tf {

using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::Var;

class AdamStepOp : public OpKernel {
 public:
  explicit AdamStepOp(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("beta_1", &beta_1_));
    OP_REQUIRES_OK(context, context->GetAttr("beta_2", &beta_2_));
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &epsilon_));
    OP_REQUIRES_OK(context, context->GetAttr("weight_decay_rate", &decay_));
    OP_REQUIRES_OK(context, context->GetAttr("layer_adaptation", &adapts_));
  }

  void Compute(OpKernelContext* context) override {
    tensorflow::core::RefCountPtr<Var> variables[3];
    for (int i = 0; i < 3; ++i) {
      OP_REQUIRES_OK(context,
                     tensorflow::LookupResource(
                         context, tensorflow::HandleFromInput(context, i),
                         &variables[i]));
    }
    tensorflow::mutex_lock first(*variables[0]->mu());
    tensorflow::mutex_lock second(*variables[1]->mu());
    tensorflow::mutex_lock third(*variables[2]->mu());
    const Tensor& gradient = context->input(3);
    const int64_t count = gradient.NumElements();
    float* values[3];
    for (int i = 0; i < 3; ++i) {
      Tensor* tensor = variables[i]->tensor();
      OP_REQUIRES(context, tensor->NumElements() == count,
                  tensorflow::errors::InvalidArgument(
                      "a variable and its gradient differ in size"));
      if (!tensor->RefCountIsOne()) {  // Somebody still reads the old value.
        Tensor copy;
        OP_REQUIRES_OK(context, context->allocate_temp(tensorflow::DT_FLOAT,
                                                       tensor->shape(), &copy));
        std::copy_n(tensor->flat<float>().data(), count, copy.flat<float>().data());
        *tensor = copy;
      }
      values[i] = tensor->flat<float>().data();
    }
    const float* scalars = context->input(4).flat<float>().data();
    Step(context, values[0], values[1], values[2], gradient.flat<float>().data(),
         count, scalars);
  }

 private:
  // scalars: learning rate, factor of the gradient, 1 / (1 - beta^step) of m and of v,
  // 1 - beta_1 and 1 - beta_2, which float32 cannot take from its own betas.
  void Step(OpKernelContext* context, float* w, float* m, float* v, const float* g,
            int64_t count, const float* scalars) const {
    const float rate = scalars[0], factor = scalars[1];
    const float m_scale = scalars[2], v_scale = scalars[3];
    const float m_rest = scalars[4], v_rest = scalars[5];
    std::vector<double> w_sums(kParts), u_sums(kParts);
    const bool adapts = adapts_;
    ForParts(context, count, 24, [&](int64_t part, int64_t begin, int64_t end) {
      double w_sum = 0.0, u_sum = 0.0;
      constexpr int64_t kBlock = 2048;  // Summed in float32: few enough numbers.
      for (int64_t first = begin; first < end; first += kBlock) {
        const int64_t last = std::min(first + kBlock, end);
        float w_part = 0.0f, u_part = 0.0f;
        for (int64_t i = first; i < last; ++i) {
          const float d = g[i] * factor;
          const float new_m = beta_1_ * m[i] + m_rest * d;
          const float new_v = beta_2_ * v[i] + v_rest * d * d;
          const float u = Direction(w[i], new_m * m_scale, new_v * v_scale);
          m[i] = new_m;
          v[i] = new_v;
          w_part += w[i] * w[i];
          u_part += u * u;
          if (!adapts) w[i] -= rate * u;
        }
        w_sum += w_part;
        u_sum += u_part;
      }
      w_sums[part] = w_sum;
      u_sums[part] = u_sum;
    });
    if (!adapts) return;
    double w_square = 0.0, u_square = 0.0;
    for (int64_t part = 0; part < kParts; ++part) {
      w_square += w_sums[part];
      u_square += u_sums[part];
    }
    const bool has_ratio = w_square > 0.0 && u_square > 0.0;
    const float step =
        rate * (has_ratio ? static_cast<float>(std::sqrt(w_square / u_square)) : 1.0f);
    ForParts(context, count, 16, [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        w[i] -= step * Direction(w[i], m[i] * m_scale, v[i] * v_scale);
    });
  }

  float Direction(float w, float m, float v) const {
    return m / (std::sqrt(v) + epsilon_) + decay_ * w;
  }

  float beta_1_, beta_2_, epsilon_, decay_;
  bool adapts_;
};

REGISTER_OP("BertAdamStep")
    .Input("weights: resource")
    .Input("first_moment: resource")
    .Input("second_moment: resource")
    .Input("gradient: float")
    .Input("scalars: float")
    .Attr("beta_1: float")
    .Attr("beta_2: float")
    .Attr("epsilon: float")
    .Attr("weight_decay_rate: float")
    .Attr("layer_adaptation: bool")
    .SetIsStateful()
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext*) {
      return absl::OkStatus();
    });
REGISTER_KERNEL_BUILDER(Name("BertAdamStep").Device(tensorflow::DEVICE_CPU),
                        AdamStepOp);

}  // namespace bert_tf
