// Logits on a coarse grid -> the same logits on a finer one, class by class: the first of two steps, where logits are read at the
// engine's input size before they are read at the frame's.
#pragma once

#include "_native_rows.hpp"

namespace {

struct Interpolate {
    const float* logits;
    int classes, height, width;     // of the grid
    int out_height, out_width;
    float* out;
    const int* row_low;             // out_height
    const int* row_high;            // out_height: row_low, or the row after it
    const float* row_weight;        // out_height
    const int* column_low;          // out_width
    const int* column_high;         // out_width
    const float* column_weight;     // out_width
};

// Rows first .. last of all classes; `held` are two rows of the grid, interpolated to the columns of `out`.
RTF_HD void interpolate_body(const Interpolate& job, float* const* held, int first, int last) {
    for (int c = 0; c < job.classes; ++c) {
        const float* plane = job.logits + static_cast<long>(c) * job.height * job.width;
        int rows_held[2] = {-1, -1};
        for (int y = first; y < last; ++y) {
            const int rows[2] = {job.row_low[y], job.row_high[y]};
            for (const int row : rows) {
                if (rows_held[row & 1] == row) continue;
                const float* source = plane + static_cast<long>(row) * job.width;
                float* target = held[row & 1];
                for (int x = 0; x < job.out_width; ++x) {
                    target[x] = lerp(source[job.column_low[x]], source[job.column_high[x]], job.column_weight[x]);
                }
                rows_held[row & 1] = row;
            }
            const float* upper = held[rows[0] & 1];
            const float* lower = held[rows[1] & 1];
            const float weight = job.row_weight[y];
            float* __restrict out = job.out + (static_cast<long>(c) * job.out_height + y) * job.out_width;
            for (int x = 0; x < job.out_width; ++x) out[x] = lerp(upper[x], lower[x], weight);
        }
    }
}

void interpolate_base(const Interpolate& job, float* const* held, int first, int last) { interpolate_body(job, held, first, last); }

#if RTF_DISPATCH
RTF_AVX2 void interpolate_avx2(const Interpolate& job, float* const* held, int first, int last) {
    interpolate_body(job, held, first, last);
}
RTF_AVX512 void interpolate_avx512(const Interpolate& job, float* const* held, int first, int last) {
    interpolate_body(job, held, first, last);
}
#endif

}  // namespace
