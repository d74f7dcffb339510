// How far Exp and its siblings are from float64, in units in the last place, where they
// are inlined as the operations inline them. Built with the library's own flags by
// test_functions.py, for each instruction set; writes one line "name largest error" for
// each use.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "functions.h"

namespace {

using namespace bert_tf::BERT_TF_ISA;
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

// All float32 numbers from -120 to 120 in steps of some last places, and special ones.
Numbers Arguments() {
  Numbers numbers = {0.0f, -0.0f, 1e-45f, -1e-45f, 1e-39f, -1e-39f, kInfinity,
                     -kInfinity, -3e38f, 3e38f, std::nanf("")};
  for (uint32_t bits = 0x30000000u; bits < 0x42F00000u; bits += 97) {
    float x;
    memcpy(&x, &bits, sizeof(x));
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
  numbers.resize(numbers.size() / 16 * 16);
  return numbers;
}

// The largest error(y, x) of y = function(x), sixteen numbers at a time.
template <typename Function, typename Error>
void Report(const char* name, const Numbers& x, const Function& function,
            const Error& error) {
  double largest = 0.0;
  float y[16];
  for (size_t i = 0; i + 16 <= x.size(); i += 16) {
    Write(y, function(Read(x.data() + i)));
    for (int j = 0; j < 16; ++j) largest = std::max(largest, error(y[j], x[i + j]));
  }
  std::printf("%s %.3f\n", name, largest);
}

}  // namespace

int main() {
  const Numbers x = Arguments();
  Numbers powers;
  for (int64_t i = -(149 << 12); i < 127 << 12; ++i) powers.push_back(i / 4096.0f);
  Numbers positive;
  for (const float number : x) {
    if (number > 1e-30f && number < 1e30f) positive.push_back(number);
  }
  const auto of_exp = [](float y, double z) { return UnitsOff(y, std::exp(z)); };
  Report("Exp", x, [](V z) { return Exp(z); }, of_exp);
  Report("Exp_of_a_difference", x, [](V z) { return Exp((z + Set(0.0f)) - Set(0.0f)); },
         of_exp);
  Report("Exp_times_a_constant", x, [](V z) { return Exp(z) * Set(0.5f); },
         [](float y, double z) {
           // Half of a number below the normal ones is rounded a second time.
           return z < -86.0 || z > 88.0 ? 0.0 : UnitsOff(2.0f * y, std::exp(z));
         });
  Report("PowerOfTwo", powers, [](V z) { return PowerOfTwo(z); },
         [](float y, double z) { return UnitsOff(y, std::exp2(z)); });
  Report("Reciprocal", positive, [](V z) { return Reciprocal(z); },
         [](float y, double z) { return UnitsOff(y, 1.0 / z); });
  // In units of 1, to which it is added.
  Report("Tanh", x, [](V z) { return Tanh(z); }, [](float y, double z) {
    if (std::isnan(z)) return std::isnan(y) ? 0.0 : 1e30;
    return std::fabs(y - std::tanh(z)) / 0x1p-23;
  });
  // In units of 1, or of its argument.
  Report("GeluTanh", x, [](V z) { return GeluTanh(z); }, [](float y, double z) {
    if (!(std::fabs(z) < 1e6)) return 0.0;
    const double t = std::tanh(0.79788456080 * (z + 0.044715 * z * z * z));
    return std::fabs(y - 0.5 * z * (1.0 + t)) / 0x1p-23 / std::max(1.0, std::fabs(z));
  });
  return 0;
}
