// Logits (count, C, h, w) -> labels (count, H, W): bilinear interpolation, then argmax, skipping cells whose corners agree.
//
// A block makes the pixels of kCellsHigh x kCellsWide cells of one image (blockIdx.z): it finds the class at each corner once, writes
// every cell with the class of its top left corner in words of eight labels, and lists the cells whose corners disagree. Those its
// warps make anew: the lanes share the classes out to find the ones that may win, then the pixels. The floor is one read of the logits
// and one write of the labels.
#pragma once

#include "half.cuh"
#include "upsample_argmax.cuh"

namespace rtf {

constexpr int kLanes = 32;
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kLanes;
constexpr int kCellsWide = 32;
constexpr int kCellsHigh = 4;
constexpr int kMaxWords = 256 / kLanes;  // of candidates, a bit a class
constexpr int kPixelsAtOnce = 2;         // that a lane makes of a cell: a cell of stride 8 has 64
constexpr int kWord = 8;                 // labels

static_assert(kCellsWide * kCellsHigh <= kThreads, "one thread a cell judges them");

struct Tables {
    int classes, height, width;  // of the grid
    int out_height, out_width;   // of the frame
    const int* row_cells;        // height + 2: cell k holds the rows row_cells[k] .. row_cells[k + 1]
    const float* row_weight;     // out_height
    const int* column_cells;     // width + 2
    const float* column_weight;  // out_width
    const int* column_cell;      // out_width: the cell that holds a column
};

// A block's cells (k, l) .. (k + rows, l + columns), and what its threads tell each other. winners[r][c] is the class at the top left
// corner of cell (k + r, l + c).
struct Tile {
    unsigned char winners[kCellsHigh + 1][kCellsWide + 1];
    unsigned char mixed[kCellsHigh * kCellsWide];  // r * kCellsWide + c
    unsigned int candidates[kWarps][kMaxWords];
    int mixed_count;
};

struct Place {
    int k, l, rows, columns;
};

template <typename T>
__device__ void find_winners(const Tables& tables, const T* logits, const Place& place, Tile& tile, int* flag) {
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

__device__ inline void list_mixed(const Tables& tables, const Place& place, Tile& tile) {
    const int r = threadIdx.x / kCellsWide, c = threadIdx.x % kCellsWide;
    if (r >= place.rows || c >= place.columns) return;
    const int label = tile.winners[r][c];
    if (tile.winners[r][c + 1] == label && tile.winners[r + 1][c] == label && tile.winners[r + 1][c + 1] == label) return;
    const int k = place.k + r, l = place.l + c;
    if (tables.row_cells[k] == tables.row_cells[k + 1] || tables.column_cells[l] == tables.column_cells[l + 1]) return;
    tile.mixed[atomicAdd(&tile.mixed_count, 1)] = static_cast<unsigned char>(threadIdx.x);
}

// Every pixel of the block gets the class of its cell's top left corner; a thread makes one word's columns in all rows of a cell.
__device__ inline void fill(const Tables& tables, const Place& place, const Tile& tile, unsigned char* labels) {
    const int x0 = tables.column_cells[place.l], x1 = tables.column_cells[place.l + place.columns];
    const int first = x0 / kWord, words = (x1 + kWord - 1) / kWord - first;
    const bool aligned = ((reinterpret_cast<unsigned long long>(labels) | static_cast<unsigned int>(tables.out_width)) & (kWord - 1)) == 0;
    RTF_ROLLED
    for (int i = threadIdx.x; i < place.rows * words; i += kThreads) {
        const int r = i / words, start = kWord * (first + i % words);
        const int from = max_int(x0, start), to = min_int(x1, start + kWord);
        unsigned long long word = 0;
        for (int x = from; x < to; ++x) {
            const unsigned long long label = tile.winners[r][tables.column_cell[x] - place.l];
            word |= label << 8 * (x - start);
        }
        const bool whole = aligned && to - from == kWord;
        RTF_ROLLED
        for (int y = tables.row_cells[place.k + r]; y < tables.row_cells[place.k + r + 1]; ++y) {
            unsigned char* target = labels + static_cast<long long>(y) * tables.out_width + start;
            if (whole) {
                *reinterpret_cast<unsigned long long*>(target) = word;
            } else {
                RTF_ROLLED
                for (int x = from; x < to; ++x) target[x - start] = static_cast<unsigned char>(word >> 8 * (x - start));
            }
        }
    }
}

// The classes that may win in a cell, a bit each, found by one warp.
template <typename T>
__device__ void find_candidates(const T* upper, const T* lower, int right, long long plane, int classes, int lane, unsigned int* words) {
    float floor = -3.402823466e+38f;
    RTF_ROLLED
    for (int c = lane; c < classes; c += kLanes) {
        floor = max_float(floor, lowest(load_corners(upper + c * plane, lower + c * plane, right)));
    }
    for (int distance = kLanes / 2; distance > 0; distance /= 2) floor = max_float(floor, __shfl_xor_sync(0xffffffffu, floor, distance));
    floor -= slack(floor);
    RTF_ROLLED
    for (int start = 0; start < classes; start += kLanes) {
        const int c = start + lane;
        const bool may = c < classes && may_win(highest(load_corners(upper + c * plane, lower + c * plane, right)), floor);
        const unsigned int word = __ballot_sync(0xffffffffu, may);
        if (lane == 0) words[start / kLanes] = word;
    }
    __syncwarp();
}

// One mixed cell, made by one warp: each lane makes kPixelsAtOnce pixels at a time.
template <typename T>
__device__ void make_cell(const Tables& tables, const T* logits, int k, int l, int lane, unsigned int* candidates, unsigned char* labels) {
    const int left = max_int(l - 1, 0), right = min_int(l, tables.width - 1) - left;
    const long long plane = static_cast<long long>(tables.height) * tables.width;
    const T* upper = logits + static_cast<long long>(max_int(k - 1, 0)) * tables.width + left;
    const T* lower = logits + static_cast<long long>(min_int(k, tables.height - 1)) * tables.width + left;
    find_candidates(upper, lower, right, plane, tables.classes, lane, candidates);

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
__device__ void upsample_block(const Tables& tables, const T* logits, unsigned char* labels, int* flag) {
    __shared__ Tile tile;
    Place place;
    place.k = blockIdx.y * kCellsHigh;
    place.l = blockIdx.x * kCellsWide;
    place.rows = min_int(kCellsHigh, tables.height + 1 - place.k);
    place.columns = min_int(kCellsWide, tables.width + 1 - place.l);
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
        const int cell = tile.mixed[i];
        make_cell(tables, logits, place.k + cell / kCellsWide, place.l + cell % kCellsWide, lane, tile.candidates[warp], labels);
    }
}

}  // namespace rtf
