// Finds the instruction sets that the processor, the system and this library have, and
// selects one.

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cpuid.h>
#include <cstring>
#include <new>

#include "isa.h"

namespace bert_tf {

// The table of an instruction set that the compiler does not know is not linked, and its
// address is null here.
extern __attribute__((weak)) const Isa kAmx, kAvx512Bf16, kAvx512, kAvx2;

namespace {

bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq");
}

// Not __builtin_cpu_supports: old compilers do not know AVX512-BF16 and AMX.
bool HasAvx512Bf16() {
  unsigned a, b, c, d;
  return HasAvx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5) != 0;
}

bool HasAmx() {
  unsigned a, b, c, d;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
  return HasAvx512Bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
         (d & kBf16) != 0 && (d & kTile) != 0;
}

// Linux grants a process the tile registers on request.
bool MayUseTiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

struct Choice {
  const char* name;
  const Isa* isa;
  bool (*is_in_processor)();
};

// Best first.
const Choice kChoices[] = {
    {"amx", &kAmx, HasAmx},
    {"avx512bf16", &kAvx512Bf16, HasAvx512Bf16},
    {"avx512", &kAvx512, HasAvx512},
    {"avx2", &kAvx2, HasAvx2},
};

const Choice* Find(const char* name) {
  for (const Choice& choice : kChoices) {
    if (std::strcmp(choice.name, name) == 0) return &choice;
  }
  return nullptr;
}

std::atomic<const Isa*> current{nullptr};

}  // namespace

const Isa& CurrentIsa() { return *current.load(std::memory_order_acquire); }

void OutOfMemory() { throw std::bad_alloc(); }

}  // namespace bert_tf

// What lacks an instruction set: 0 nothing, 1 the processor, 2 the system, which does not
// allow it, 3 the library, whose compiler did not know it.
extern "C" int bert_tf_lacks(const char* name) {
  const bert_tf::Choice* choice = bert_tf::Find(name);
  if (choice == nullptr || !choice->is_in_processor()) return 1;
  if (choice->is_in_processor == bert_tf::HasAmx && !bert_tf::MayUseTiles()) return 2;
  return choice->isa == nullptr ? 3 : 0;
}

// Selects an instruction set; 0 if it cannot be used.
extern "C" int bert_tf_use(const char* name) {
  if (bert_tf_lacks(name) != 0) return 0;
  bert_tf::current.store(bert_tf::Find(name)->isa, std::memory_order_release);
  return 1;
}

// Selects the best instruction set at load time: there always is one.
static const bool kIsChosen = [] {
  for (const bert_tf::Choice& choice : bert_tf::kChoices) {
    if (bert_tf_use(choice.name)) return true;
  }
  return false;
}();
