// The first form of upsample_argmax: a warp makes a mixed cell, each lane kPixelsAtOnce pixels at a time. The lanes share the classes out
// to find the ones that may win, and read the logits of a cell through the first-level cache. Kept to be measured beside
// upsample_argmax_quarter.cuh, which says why it should be the faster one.
#pragma once

#include "upsample_argmax_block.cuh"

namespace rtf {

constexpr int kPixelsAtOnce = 2;  // a cell of stride 8 has 64

using WarpTile = Tile<4, 32>;

template <typename T>
__device__ void find_winners(const Tables& tables, const T* logits, const Place& place, WarpTile& tile, int* flag) {
    const long long plane = static_cast<long long>(tables.height) * tables.width;
    bool finite = true;
    RTF_ROLLED
    for (int i = threadIdx.x; i < (place.rows + 1) * (place.columns + 1); i += kThreads) {
        const int r = i / (place.columns + 1), c = i % (place.columns + 1);
        const int y = min_int(max_int(place.k + r - 1, 0), tables.height - 1);
        const int x = min_int(max_int(place.l + c - 1, 0), tables.width - 1);
        const T* first = logits + static_cast<long long>(y) * tables.width + x;
        tile.winners[r][c] = static_cast<unsigned char>(argmax(first, plane, tables.classes, finite));
    }
    if (!finite && flag != nullptr) atomicOr(flag, 1);
}

// The classes that may win in a cell, a bit each, found by one warp.
template <typename T>
__device__ void find_candidates_by_warp(const T* upper, const T* lower, int right, long long plane, int classes, int lane, unsigned int* words) {
    float floor = -3.402823466e+38f;
    RTF_ROLLED
    for (int c = lane; c < classes; c += kLanes) {
        floor = greater(floor, lowest(load_corners(upper + c * plane, lower + c * plane, right)));
    }
    for (int distance = kLanes / 2; distance > 0; distance /= 2) floor = greater(floor, __shfl_xor_sync(kAllLanes, floor, distance));
    floor -= slack(floor);
    RTF_ROLLED
    for (int start = 0; start < classes; start += kLanes) {
        const int c = start + lane;
        const bool may = c < classes && may_win(highest(load_corners(upper + c * plane, lower + c * plane, right)), floor);
        const unsigned int word = __ballot_sync(kAllLanes, may);
        if (lane == 0) words[start / kLanes] = word;
    }
    __syncwarp();
}

// One mixed cell, made by one warp: each lane makes kPixelsAtOnce pixels at a time.
template <typename T>
__device__ void make_cell_by_warp(const Tables& tables, const T* logits, int k, int l, int lane, unsigned int* candidates, unsigned char* labels) {
    const int left = max_int(l - 1, 0), right = min_int(l, tables.width - 1) - left;
    const long long plane = static_cast<long long>(tables.height) * tables.width;
    const T* upper = logits + static_cast<long long>(max_int(k - 1, 0)) * tables.width + left;
    const T* lower = logits + static_cast<long long>(min_int(k, tables.height - 1)) * tables.width + left;
    find_candidates_by_warp(upper, lower, right, plane, tables.classes, lane, candidates);

    const int x0 = tables.column_cells[l], y0 = tables.row_cells[k], wide = tables.column_cells[l + 1] - x0;
    const int pixels = wide * (tables.row_cells[k + 1] - y0);
    RTF_ROLLED
    for (int start = lane; start < pixels; start += kLanes * kPixelsAtOnce) {
        float row_weight[kPixelsAtOnce], column_weight[kPixelsAtOnce], best[kPixelsAtOnce];
        int winner[kPixelsAtOnce];
        for (int i = 0; i < kPixelsAtOnce; ++i) {
            const int pixel = min_int(start + i * kLanes, pixels - 1);
            row_weight[i] = tables.row_weight[y0 + pixel / wide];
            column_weight[i] = tables.column_weight[x0 + pixel % wide];
            winner[i] = -1;
        }
        RTF_ROLLED
        for (int word = 0; word * kLanes < tables.classes; ++word) {
            RTF_ROLLED
            for (unsigned int left_over = candidates[word]; left_over != 0; left_over &= left_over - 1) {
                const int c = word * kLanes + __ffs(static_cast<int>(left_over)) - 1;
                const Corners corners = load_corners(upper + c * plane, lower + c * plane, right);
                for (int i = 0; i < kPixelsAtOnce; ++i) {
                    const float value = interpolate(corners, row_weight[i], column_weight[i]);
                    const bool wins = winner[i] < 0 || value > best[i];
                    best[i] = wins ? value : best[i];
                    winner[i] = wins ? c : winner[i];
                }
            }
        }
        for (int i = 0; i < kPixelsAtOnce; ++i) {
            const int pixel = start + i * kLanes;
            if (pixel >= pixels) break;
            const long long row = y0 + pixel / wide;
            labels[row * tables.out_width + x0 + pixel % wide] = static_cast<unsigned char>(winner[i]);
        }
    }
    __syncwarp();  // the candidates are read before the next cell's are written
}

template <typename T>
__device__ void upsample_by_warps(const Tables& tables, const T* logits, unsigned char* labels, int* flag) {
    __shared__ WarpTile tile;
    __shared__ unsigned int candidates[kWarps][kMaxWords];
    const Place place = place_of_block<WarpTile>(tables);
    logits += static_cast<long long>(tables.classes) * tables.height * tables.width * blockIdx.z;
    labels += static_cast<long long>(tables.out_height) * tables.out_width * blockIdx.z;
    if (threadIdx.x == 0) tile.mixed_count = 0;
    find_winners(tables, logits, place, tile, flag);
    __syncthreads();
    list_mixed(tables, place, tile);
    fill(tables, place, tile, labels);
    __syncthreads();
    const int warp = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
    RTF_ROLLED
    for (int i = warp; i < tile.mixed_count; i += kWarps) {
        const int k = place.k + tile.mixed[i] / kLanes, l = place.l + tile.mixed[i] % kLanes;
        make_cell_by_warp(tables, logits, k, l, lane, candidates[warp], labels);
    }
}

}  // namespace rtf
