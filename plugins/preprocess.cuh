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

// One pixel of the picture in the engine's input -> its three values. It lies `row_weight` of the way from row `row_low` of the
// frame to the next, and so in its columns. Where both weights are 0, interpolating would change nothing.
RTF_HD void preprocess_pixel(const unsigned char* frame, int height, int width, int row_low, float row_weight, int column_low,
                             float column_weight, const float* scale, const float* bias, float* values) {
    const unsigned char* a = frame + 3 * (static_cast<long long>(row_low) * width + column_low);
    if (row_weight == 0.0f && column_weight == 0.0f) {
        for (int c = 0; c < 3; ++c) values[c] = scale_add(a[c], scale[c], bias[c]);
        return;
    }
    const int right = 3 * (min_int(column_low + 1, width - 1) - column_low);
    const unsigned char* b = a + 3ll * width * (min_int(row_low + 1, height - 1) - row_low);
    for (int c = 0; c < 3; ++c) {
        const float upper = lerp(a[c], a[right + c], column_weight), lower = lerp(b[c], b[right + c], column_weight);
        values[c] = scale_add(lerp(upper, lower, row_weight), scale[c], bias[c]);
    }
}

}  // namespace rtf
