// Linear interpolation, as the CPU code and the CUDA kernels both mean it: one order of operations, every product and
// sum rounded on its own. (1 - t) * a + t * b is monotone in a and b, so a class that beats another at every corner of
// a cell still does after rounding (or ties with it); a + t * (b - a), or a fused multiply-add, would not keep that.
#pragma once

#if defined(__CUDACC__)
#define RTF_HD __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define RTF_HD __forceinline
#else
#define RTF_HD inline __attribute__((always_inline))
#endif

// Before a loop that the CUDA compiler is to leave as it is: unrolled, the rare ones cost registers and the frequent ones gain nothing.
#if defined(__CUDACC__)
#define RTF_ROLLED _Pragma("unroll 1")
#else
#define RTF_ROLLED
#endif

namespace rtf {

// a * x + b, rounded twice.
RTF_HD float scale_add(float a, float x, float b) {
#if defined(__CUDA_ARCH__)
    return __fadd_rn(__fmul_rn(a, x), b);
#else
    return a * x + b;
#endif
}

// The value `weight` of the way from `low` to `high`; 0 <= weight < 1.
RTF_HD float lerp(float low, float high, float weight) {
#if defined(__CUDA_ARCH__)
    return __fadd_rn(__fmul_rn(__fsub_rn(1.0f, weight), low), __fmul_rn(weight, high));
#else
    return (1.0f - weight) * low + weight * high;
#endif
}

RTF_HD int min_int(int a, int b) { return a < b ? a : b; }
RTF_HD int max_int(int a, int b) { return a > b ? a : b; }
RTF_HD float min_float(float a, float b) { return a < b ? a : b; }
RTF_HD float max_float(float a, float b) { return a > b ? a : b; }

}  // namespace rtf
