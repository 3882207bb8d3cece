// How sure the winner of each pixel is: logits interpolated bilinearly, softmax over the classes, its largest value in 8 bits. One row
// of cells at a time, so that the classes are never held at the frame's full size.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "_native_rows.hpp"

namespace {

// Columns that are worked on together: the classes of both rows of the grid then stay in the cache.
constexpr int kColumnsAtOnce = 256;

struct Confidence : Grid {
    const int* column_low;          // out_width
    const int* column_high;         // out_width
    const float* column_weight;     // out_width
    unsigned char* levels;
};

// Both rows of the grid around a row of cells, interpolated to a block of columns, class by class.
struct ConfidenceScratch {
    std::vector<float> upper, lower;
    explicit ConfidenceScratch(const Confidence& job) {
        upper.resize(static_cast<size_t>(job.classes) * kColumnsAtOnce);
        lower.resize(static_cast<size_t>(job.classes) * kColumnsAtOnce);
    }
};

// e^x for -87 <= x <= 0, to two units in the last place (Cephes' expf), in operations that every compiler and NumPy round alike.
RTF_HD float exp_of_negative(float x) {
    const float turns = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    const float rest = (x - turns * 0.693359375f) - turns * -2.12194440e-4f;
    float sum = 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * (rest * rest) + rest + 1.0f;
    const std::uint32_t bits = static_cast<std::uint32_t>(static_cast<int>(turns) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return sum * power;
}

RTF_HD void interpolate_block(const Confidence& job, int row, int x0, int count, float* values) {
    const long plane = static_cast<long>(job.height) * job.width;
    for (int c = 0; c < job.classes; ++c) {
        const float* source = job.logits + c * plane + static_cast<long>(row) * job.width;
        float* target = values + static_cast<long>(c) * kColumnsAtOnce;
        for (int i = 0; i < count; ++i) {
            target[i] = lerp(source[job.column_low[x0 + i]], source[job.column_high[x0 + i]], job.column_weight[x0 + i]);
        }
    }
}

// One row of the frame in a block of columns.
RTF_HD void confidence_row(const Confidence& job, const float* upper, const float* lower, float weight, int count, unsigned char* levels) {
    float best[kColumnsAtOnce], below[kColumnsAtOnce], sum[kColumnsAtOnce];
    for (int i = 0; i < count; ++i) {
        best[i] = lerp(upper[i], lower[i], weight);
        sum[i] = 0.0f;
    }
    for (int c = 1; c < job.classes; ++c) {
        const float* up = upper + static_cast<long>(c) * kColumnsAtOnce;
        const float* down = lower + static_cast<long>(c) * kColumnsAtOnce;
        for (int i = 0; i < count; ++i) best[i] = max_float(best[i], lerp(up[i], down[i], weight));
    }
    for (int c = 0; c < job.classes; ++c) {
        const float* up = upper + static_cast<long>(c) * kColumnsAtOnce;
        const float* down = lower + static_cast<long>(c) * kColumnsAtOnce;
        for (int i = 0; i < count; ++i) below[i] = max_float(lerp(up[i], down[i], weight) - best[i], -87.0f);
        for (int i = 0; i < count; ++i) sum[i] += exp_of_negative(below[i]);
    }
    for (int i = 0; i < count; ++i) levels[i] = static_cast<unsigned char>(static_cast<int>(255.0f / sum[i] + 0.5f));
}

RTF_HD void confidence_body(const Confidence& job, ConfidenceScratch& scratch, int first, int last) {
    for (int k = first; k < last; ++k) {
        const int y0 = job.row_cells[k], y1 = job.row_cells[k + 1];
        for (int x0 = 0; y0 < y1 && x0 < job.out_width; x0 += kColumnsAtOnce) {
            const int count = min_int(kColumnsAtOnce, job.out_width - x0);
            interpolate_block(job, max_int(k - 1, 0), x0, count, scratch.upper.data());
            interpolate_block(job, min_int(k, job.height - 1), x0, count, scratch.lower.data());
            for (int y = y0; y < y1; ++y) {
                unsigned char* levels = job.levels + static_cast<long>(y) * job.out_width + x0;
                confidence_row(job, scratch.upper.data(), scratch.lower.data(), job.row_weight[y], count, levels);
            }
        }
    }
}

void confidence_base(const Confidence& job, ConfidenceScratch& scratch, int first, int last) { confidence_body(job, scratch, first, last); }

#if RTF_DISPATCH
RTF_AVX2 void confidence_avx2(const Confidence& job, ConfidenceScratch& scratch, int first, int last) {
    confidence_body(job, scratch, first, last);
}
RTF_AVX512 void confidence_avx512(const Confidence& job, ConfidenceScratch& scratch, int first, int last) {
    confidence_body(job, scratch, first, last);
}
#endif

}  // namespace
