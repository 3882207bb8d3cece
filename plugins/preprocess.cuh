// RGB bytes (H, W, 3) -> normalised float32 planes (3, H', W'): bilinear with half-pixel centres, the columns first, then
// the rows, then value * scale + bias, which is /255, minus the mean, over the deviation.
#pragma once

#include "bilinear.cuh"

namespace rtf {

// One row of the frame (`width` pixels) -> three rows of `columns` interpolated values, `plane` floats apart.
RTF_HD void interpolate_columns(const unsigned char* pixels, int width, const int* low, const float* weight, int columns,
                                float* __restrict values, long plane) {
    for (int x = 0; x < columns; ++x) {
        const unsigned char* a = pixels + 3 * low[x];
        const unsigned char* b = pixels + 3 * min_int(low[x] + 1, width - 1);
        values[x] = lerp(a[0], b[0], weight[x]);
        values[plane + x] = lerp(a[1], b[1], weight[x]);
        values[2 * plane + x] = lerp(a[2], b[2], weight[x]);
    }
}

// Two rows of one channel -> one normalised row between them.
RTF_HD void interpolate_rows(const float* upper, const float* lower, float weight, float scale, float bias, int columns,
                             float* __restrict out) {
    for (int x = 0; x < columns; ++x) out[x] = scale_add(lerp(upper[x], lower[x], weight), scale, bias);
}

// One row of a frame that already has the right size -> its three normalised rows.
RTF_HD void normalise_row(const unsigned char* pixels, int columns, const float* scale, const float* bias, float* __restrict out, long plane) {
    const float s0 = scale[0], s1 = scale[1], s2 = scale[2], b0 = bias[0], b1 = bias[1], b2 = bias[2];
    float* red = out;
    float* green = out + plane;
    float* blue = out + 2 * plane;
    for (int x = 0; x < columns; ++x) {
        red[x] = scale_add(pixels[3 * x], s0, b0);
        green[x] = scale_add(pixels[3 * x + 1], s1, b1);
        blue[x] = scale_add(pixels[3 * x + 2], s2, b2);
    }
}

}  // namespace rtf
