// How far Exp and its siblings are from float64, in units in the last place, where they
// are inlined as the operations inline them. Built with the library's own flags by
// test_arithmetic.py; writes one line "name largest error" for each use.

#include <cstdio>
#include <limits>
#include <vector>

#include "arithmetic.h"
#include "tiles.h"

namespace {

using bert_tf::Exp;
using bert_tf::ToFloat;
using Numbers = std::vector<float>;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The distance of `found` from `exact`, in units of the last place of `exact`.
double UnitsOff(float found, double exact) {
  const float nearest = static_cast<float>(exact);
  if (std::isnan(exact)) return std::isnan(found) ? 0.0 : 1e30;
  if (std::isinf(nearest) || std::isinf(found)) return found == nearest ? 0.0 : 1e30;
  const double unit = std::ldexp(1.0, std::max(std::ilogb(exact), -126) - 23);
  return std::fabs(found - exact) / unit;
}

class Report {
 public:
  explicit Report(const char* name) : name_(name) {}
  ~Report() { std::printf("%s %.3f\n", name_, largest_); }

  void OfExp(float found, double x) {
    // The documented bounds.
    if (x < -87.68 && found == 0.0f) return;
    if (x >= 88.37 && std::isinf(found)) return;
    Add(UnitsOff(found, std::exp(x)));
  }
  void Add(double error) { largest_ = error > largest_ ? error : largest_; }

 private:
  const char* name_;
  double largest_ = 0.0;
};

// All float32 numbers from -120 to 120 in steps of some last places, and special ones.
Numbers Arguments() {
  Numbers numbers = {0.0f, -0.0f, 1e-45f, -1e-45f, 1e-39f, -1e-39f, kInfinity,
                     -kInfinity, -3e38f, 3e38f, std::nanf("")};
  for (uint32_t bits = 0x30000000u; bits < 0x42F00000u; bits += 97) {
    float x;
    std::memcpy(&x, &bits, sizeof(x));
    numbers.push_back(x);
    numbers.push_back(-x);
  }
  for (float x = -3.0f; x < 91.0f; x += 1.0f) {  // Where the power of two changes.
    float edge = (x - 0.5f) * 0.69314718f;
    for (int i = 0; i < 64; ++i) edge = std::nextafter(edge, -kInfinity);
    for (int i = 0; i < 128; ++i) {
      edge = std::nextafter(edge, kInfinity);
      numbers.push_back(edge);
      numbers.push_back(-edge);
    }
  }
  return numbers;
}

// Each use in a function of its own, which the compiler may turn into vector code.
__attribute__((noinline)) void Alone(const Numbers& x, float* y) {
  for (size_t i = 0; i < x.size(); ++i) y[i] = Exp(x[i]);
}
__attribute__((noinline)) float One(float x) { return Exp(x); }
__attribute__((noinline)) void OfDifference(const Numbers& x, float m, float* y) {
  for (size_t i = 0; i < x.size(); ++i) y[i] = Exp(x[i] - m);
}
__attribute__((noinline)) void OfLogit(const bert_tf::bfloat* a, const float* b,
                                       float m, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = Exp(ToFloat(a[i]) + b[i] - m);
}
__attribute__((noinline)) void TimesConstant(const Numbers& x, float d, float* y) {
  for (size_t i = 0; i < x.size(); ++i) y[i] = Exp(x[i]) * d;
}
__attribute__((noinline)) void OfNegative(const Numbers& x, float* y) {
  for (size_t i = 0; i < x.size(); ++i) y[i] = Exp(-2.0f * std::fabs(x[i]));
}
__attribute__((noinline)) void Tanhs(const Numbers& x, float* y) {
  for (size_t i = 0; i < x.size(); ++i) y[i] = bert_tf::Tanh(x[i]);
}
__attribute__((noinline)) void Gelus(const Numbers& x, float* y) {
  for (size_t i = 0; i < x.size(); ++i) y[i] = bert_tf::GeluTanh(x[i]);
}

// Arguments that are the same float32 number in whatever order they are added up.
void ReportSums() {
  Report report("Exp_of_a_logit");
  Numbers biases;
  std::vector<bert_tf::bfloat> logits;
  for (int a = -127; a < 128; ++a) {
    for (int b = -64; b < 64; ++b) {
      logits.push_back(bert_tf::ToBfloat(a * 0.25f));
      biases.push_back(b / 1024.0f);
    }
  }
  Numbers y(logits.size());
  for (float m : {0.0f, 31.75f, -12.5f, 3.0f}) {
    OfLogit(logits.data(), biases.data(), m, y.size(), y.data());
    for (size_t i = 0; i < y.size(); ++i)
      report.OfExp(y[i], static_cast<double>(ToFloat(logits[i])) + biases[i] - m);
  }
}

void ReportTanh(const Numbers& x) {
  Numbers y(x.size());
  Tanhs(x, y.data());
  Report tanh("Tanh");  // Of 1, to which it is added.
  for (size_t i = 0; i < x.size(); ++i) {
    if (!std::isnan(x[i])) tanh.Add(std::fabs(y[i] - std::tanh(1.0 * x[i])) / 0x1p-23);
    if (std::isnan(x[i]) != std::isnan(y[i])) tanh.Add(1e30);
  }
  Gelus(x, y.data());
  Report gelu("GeluTanh");  // Of the argument, or of 1.
  for (size_t i = 0; i < x.size(); ++i) {
    if (!(std::fabs(x[i]) < 1e6f)) continue;
    const double z = x[i], t = std::tanh(0.79788456080 * (z + 0.044715 * z * z * z));
    gelu.Add(std::fabs(y[i] - 0.5 * z * (1.0 + t)) / 0x1p-23 /
             std::max(1.0, std::fabs(z)));
  }
}

#ifdef BERT_TF_TILES
// Numbers whose difference from `m` is exact.
__attribute__((noinline)) void Powers(const float* x, int64_t count, float m, float* y) {
  for (int64_t i = 0; i + 16 <= count; i += 16) {
    const __m512 difference = _mm512_sub_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(m));
    _mm512_storeu_ps(y + i, bert_tf::PowerOfTwo(difference));
  }
}

void ReportPowers() {
  Report report("PowerOfTwo");
  Numbers x, y;
  for (int64_t i = -(125 << 12); i < 127 << 12; ++i) x.push_back(i / 4096.0f);
  y.resize(x.size());
  for (float m : {0.0f, 1.0f}) {
    Powers(x.data(), x.size(), m, y.data());
    for (size_t i = 0; i < x.size() / 16 * 16; ++i)
      report.Add(UnitsOff(y[i], std::exp2(static_cast<double>(x[i]) - m)));
  }
}
#endif

}  // namespace

int main() {
  const Numbers x = Arguments();
  Numbers y(x.size());
  {
    Report report("Exp_alone");
    Alone(x, y.data());
    for (size_t i = 0; i < x.size(); ++i) report.OfExp(y[i], x[i]);
  }
  {
    Report report("Exp_of_one_number");
    for (size_t i = 0; i < x.size(); i += 7) report.OfExp(One(x[i]), x[i]);
  }
  {
    Report report("Exp_of_a_difference");
    for (const float m : {0.0f, 0.5f, 17.0f}) {
      Numbers sums;  // Whose difference from m is exact.
      for (const float number : x) {
        const double whole = static_cast<double>(number) + m;
        if (number < 88.0f && static_cast<float>(whole) == whole) sums.push_back(number + m);
      }
      OfDifference(sums, m, y.data());
      for (size_t i = 0; i < sums.size(); ++i)
        report.OfExp(y[i], static_cast<double>(sums[i]) - m);
    }
  }
  {
    Report report("Exp_times_a_constant");
    TimesConstant(x, 0.5f, y.data());
    for (size_t i = 0; i < x.size(); ++i) {
      if (x[i] < 88.0f) report.OfExp(y[i] * 2.0f, x[i]);
    }
  }
  {
    Report report("Exp_of_a_product");
    OfNegative(x, y.data());
    for (size_t i = 0; i < x.size(); ++i)
      report.OfExp(y[i], -2.0 * std::fabs(static_cast<double>(x[i])));
  }
  ReportSums();
  ReportTanh(x);
#ifdef BERT_TF_TILES
  ReportPowers();
#endif
}
