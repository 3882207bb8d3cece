// Softmax in one pass over the values: the largest so far, and the sum of exp(value - largest), which is scaled where a larger one comes.
#pragma once

#include "bilinear.cuh"

#if !defined(__CUDA_ARCH__)
#include <cmath>
#endif

namespace rtf {

RTF_HD float exponential(float value) {
#if defined(__CUDA_ARCH__)
    return expf(value);
#else
    return std::exp(value);
#endif
}

RTF_HD float minus_infinity() {
#if defined(__CUDA_ARCH__)
    return __int_as_float(static_cast<int>(0xff800000u));
#else
    return -HUGE_VALF;
#endif
}

struct Softmax {
    float largest = -3.402823466e+38f, sum = 0.0f;  // of no values; finite, so that the difference of two such is 0
};

// Takes `count` values in; -infinity leaves things as they are, NaN makes the sum NaN.
template <int count>
RTF_HD Softmax take(Softmax state, const float (&values)[count]) {
    float largest = state.largest;
    for (int i = 0; i < count; ++i) largest = max_float(largest, values[i]);
    float sum = state.sum * exponential(state.largest - largest);
    for (int i = 0; i < count; ++i) sum += exponential(values[i] - largest);
    return {largest, sum};
}

RTF_HD Softmax merge(Softmax a, Softmax b) {
    const float largest = max_float(a.largest, b.largest);
    return {largest, a.sum * exponential(a.largest - largest) + b.sum * exponential(b.largest - largest)};
}

// The softmax of one value, given the largest of its row and 1 / sum.
RTF_HD float share(float value, float largest, float inverse) { return exponential(value - largest) * inverse; }

// What a share is multiplied by, given the sum of its group's; the epsilon is the network's.
RTF_HD float group_factor(float sum) { return 1.0f / (sum + 1e-6f); }

}  // namespace rtf
