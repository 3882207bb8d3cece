// FP16 as its 16 bits, without CUDA's headers: the GPU converts it, and on the host a few lines do the same, rounding to nearest even.
#pragma once

#include "bilinear.cuh"

#if !defined(__CUDA_ARCH__)
#include <cstdint>
#include <cstring>
#endif

namespace rtf {

struct half {
    unsigned short bits;
};

#if !defined(__CUDA_ARCH__)
inline std::uint32_t bits_of(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float float_of(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
#endif

RTF_HD float to_float(float value) { return value; }

RTF_HD float to_float(half value) {
#if defined(__CUDA_ARCH__)
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
#else
    const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000u) << 16;
    const std::uint32_t magnitude = value.bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return float_of(sign | 0x7f800000u | magnitude << 13);
    const float small = static_cast<float>(magnitude) * 5.9604644775390625e-8f;  // a subnormal counts 2^-24s
    if (magnitude < 0x0400u) return float_of(sign | bits_of(small));
    return float_of(sign | ((magnitude << 13) + 0x38000000u));
#endif
}

RTF_HD void store(float* target, float value) { *target = value; }

RTF_HD void store(half* target, float value) {
#if defined(__CUDA_ARCH__)
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(target->bits) : "f"(value));
#else
    const std::uint32_t bits = bits_of(value), magnitude = bits & 0x7fffffffu;
    std::uint32_t result;
    if (magnitude > 0x7f800000u) {
        result = 0x7fffu;
    } else if (magnitude >= 0x477ff000u) {  // 65520 and more round to infinity
        result = 0x7c00u;
    } else if (magnitude < 0x38800000u) {  // beside a half, float32 counts 2^-24s, as FP16's subnormals do
        result = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
    } else {
        result = (magnitude - 0x38000000u + 0x0fffu + (magnitude >> 13 & 1u)) >> 13;
    }
    target->bits = static_cast<unsigned short>(bits >> 16 & 0x8000u) | static_cast<unsigned short>(result);
#endif
}

}  // namespace rtf
