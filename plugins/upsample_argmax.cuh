// Logits on a coarse grid -> the class of every pixel of a frame: bilinear interpolation, then argmax, the lowest class
// on a tie. Interpolation is a convex combination of four corners, so a cell (the pixels between four logits) whose
// corners agree on the class has that class everywhere; only the other cells are interpolated, and there only the
// classes that may win.
//
// Cell (k, l) lies between the rows k-1 and k and the columns l-1 and l of the grid, clamped to it, so there are
// (h+1) x (w+1) cells. Logits are finite; labels are below 256.
#pragma once

#include "bilinear.cuh"
#include "half.cuh"

namespace rtf {

// Bounds: one instruction each on a GPU, where it does not matter which of two zeros comes out, nor what becomes of a NaN.
#if defined(__CUDA_ARCH__)
RTF_HD float lesser(float a, float b) { return fminf(a, b); }
RTF_HD float greater(float a, float b) { return fmaxf(a, b); }
RTF_HD float magnitude(float value) { return fabsf(value); }
#else
RTF_HD float lesser(float a, float b) { return min_float(a, b); }
RTF_HD float greater(float a, float b) { return max_float(a, b); }
RTF_HD float magnitude(float value) { return value < 0.0f ? -value : value; }
#endif

// Interpolating four equal values in float32 moves them by at most six roundings (2^-24 each); this allows sixteen, and
// a little more for values so small that they lose bits.
RTF_HD float slack(float value) {
    const float relative = magnitude(value) * 9.5367431640625e-7f;
    return relative + 1e-30f;
}

// The lowest and highest of one class's four corners: interpolation stays between them, up to `slack`.
RTF_HD float lowest(float a, float b, float c, float d) { return lesser(lesser(a, b), lesser(c, d)); }
RTF_HD float highest(float a, float b, float c, float d) { return greater(greater(a, b), greater(c, d)); }

// Whether a class whose highest corner is `top` can reach the winner anywhere in a cell in which some class never falls
// below `floor`, less its slack. A class for which this is false loses strictly, so leaving it out changes nothing.
RTF_HD bool may_win(float top, float floor_less_slack) { return top + slack(top) >= floor_less_slack; }

// The pixels of a cell that are worked on together: wide enough for one AVX vector, and a stride-8 cell exactly.
constexpr int kTile = 8;

// Before a loop over a tile's columns: GCC would unroll it first and then fail to make a vector of it.
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define RTF_LANES _Pragma("GCC unroll 1")
#else
#define RTF_LANES
#endif


// A mixed cell. The candidates' classes ascend; `upper` and `lower` point to the cell's left corners in the rows of the
// grid above and below it, one class every `plane` floats, the right corners beside them. Writes the labels of
// rows [y0, y1) and columns [x0, x1); the column weights may be read up to kTile - 1 beyond x1.
RTF_HD void upsample_cell(const float* upper, const float* lower, long plane, const int* candidates, int count, int y0, int y1,
                          const float* row_weight, int x0, int x1, const float* column_weight, unsigned char* labels,
                          long label_stride) {
    for (int x = x0; x < x1; x += kTile) {
        const int width = min_int(kTile, x1 - x);
        for (int y = y0; y < y1; y += kTile) {
            const int height = min_int(kTile, y1 - y);
            float best[kTile][kTile];
            int winner[kTile][kTile];
            for (int n = 0; n < count; ++n) {
                const float* up = upper + candidates[n] * plane;
                const float* down = lower + candidates[n] * plane;
                float top[kTile], bottom[kTile];
                RTF_LANES
                for (int i = 0; i < kTile; ++i) {
                    top[i] = lerp(up[0], up[1], column_weight[x + i]);
                    bottom[i] = lerp(down[0], down[1], column_weight[x + i]);
                }
                for (int r = 0; r < height; ++r) {
                    const float weight = row_weight[y + r];
                    RTF_LANES
                    for (int i = 0; i < kTile; ++i) {
                        const float value = lerp(top[i], bottom[i], weight);
                        const bool wins = n == 0 || value > best[r][i];
                        best[r][i] = wins ? value : best[r][i];
                        winner[r][i] = wins ? candidates[n] : winner[r][i];
                    }
                }
            }
            for (int r = 0; r < height; ++r) {
                unsigned char* row = labels + (y + r) * label_stride + x;
                for (int i = 0; i < width; ++i) row[i] = static_cast<unsigned char>(winner[r][i]);
            }
        }
    }
}

// The four logits of one class around a cell.
struct Corners {
    float top_left, top_right, bottom_left, bottom_right;
};

// A class's corners: its logits in the rows of the grid above and below the cell; `right` is 1, or 0 at the grid's edges.
template <typename T>
RTF_HD Corners load_corners(const T* upper, const T* lower, int right) {
    return {to_float(upper[0]), to_float(upper[right]), to_float(lower[0]), to_float(lower[right])};
}

RTF_HD float lowest(const Corners& at) { return lowest(at.top_left, at.top_right, at.bottom_left, at.bottom_right); }
RTF_HD float highest(const Corners& at) { return highest(at.top_left, at.top_right, at.bottom_left, at.bottom_right); }

// One class at one pixel, in the order of `upsample_cell`.
RTF_HD float interpolate(const Corners& at, float row_weight, float column_weight) {
    return lerp(lerp(at.top_left, at.top_right, column_weight), lerp(at.bottom_left, at.bottom_right, column_weight), row_weight);
}

// The class of one logit's place, the lowest on a tie; `finite` becomes false where a logit is NaN or infinite.
template <typename T>
RTF_HD int argmax(const T* logits, long long plane, int classes, bool& finite) {
    float best = to_float(logits[0]);
    int winner = 0;
    finite = finite && best - best == 0.0f;
    for (int c = 1; c < classes; ++c) {
        const float value = to_float(logits[c * plane]);
        finite = finite && value - value == 0.0f;
        winner = value > best ? c : winner;
        best = value > best ? value : best;
    }
    return winner;
}

}  // namespace rtf
