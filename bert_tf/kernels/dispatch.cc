// Which instruction sets this processor and its system have, and which one is in use.

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cpuid.h>
#include <cstring>
#include <new>

#include "isa.h"

namespace bert_tf {
namespace {

// Best first.
const Isa* const kAll[] = {&kAmx, &kAvx512Bf16, &kAvx512, &kAvx2};

std::atomic<const Isa*> current{nullptr};

bool HasTiles() {
  unsigned a, b, c, d;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  if ((d & kBf16) == 0 || (d & kTile) == 0) return false;
  // Linux lets a process have the tiles' registers when it asks for them.
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool IsSupported(const Isa& isa) {
  if (&isa == &kAvx2)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
    return false;
  if (&isa == &kAvx512) return true;
  if (!__builtin_cpu_supports("avx512bf16")) return false;
  return &isa == &kAvx512Bf16 || HasTiles();
}

const Isa* Find(const char* name) {
  for (const Isa* isa : kAll) {
    if (std::strcmp(isa->name, name) == 0) return isa;
  }
  return nullptr;
}

}  // namespace

const Isa& CurrentIsa() { return *current.load(std::memory_order_acquire); }

void OutOfMemory() { throw std::bad_alloc(); }

}  // namespace bert_tf

// Whether this processor runs an instruction set.
extern "C" int bert_tf_supports(const char* name) {
  const bert_tf::Isa* isa = bert_tf::Find(name);
  return isa != nullptr && bert_tf::IsSupported(*isa);
}

// Makes an instruction set the one in use; 0 if this processor does not run it.
extern "C" int bert_tf_use(const char* name) {
  if (!bert_tf_supports(name)) return 0;
  bert_tf::current.store(bert_tf::Find(name), std::memory_order_release);
  return 1;
}

// The best instruction set from the start: an operation never finds none.
static const bool kIsChosen = [] {
  for (const bert_tf::Isa* isa : bert_tf::kAll) {
    if (bert_tf_use(isa->name)) return true;
  }
  return false;
}();
