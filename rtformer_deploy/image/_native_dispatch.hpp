// Which instruction set each loop runs on: the best that this processor has.
#pragma once

#include "_native_confidence.hpp"
#include "_native_interpolate.hpp"
#include "_native_rows.hpp"

namespace {

struct Kernels {
    const char* name;
    decltype(&upsample_base) upsample;
    decltype(&preprocess_base) preprocess;
    decltype(&confidence_base) confidence;
    decltype(&interpolate_base) interpolate;
};

// The kernels of this processor, best first; `limit` leaves that many of the best out (for tests).
Kernels choose(int limit) {
#if RTF_DISPATCH
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (avx512 && limit-- <= 0) return {"avx512", upsample_avx512, preprocess_avx512, confidence_avx512, interpolate_avx512};
    if (avx2 && limit-- <= 0) return {"avx2", upsample_avx2, preprocess_avx2, confidence_avx2, interpolate_avx2};
#endif
    (void)limit;
    return {"base", upsample_base, preprocess_base, confidence_base, interpolate_base};
}

Kernels kernels = choose(0);

}  // namespace
