// What both forms of upsample_argmax do: logits (count, C, h, w) -> labels (count, H, W), by bilinear interpolation, then argmax, skipping
// cells whose corners agree.
//
// A block makes the pixels of a tile of cells of one image (blockIdx.z): it finds the class at each corner once, writes every cell with
// the class of its top left corner in words of eight labels, and lists the cells whose corners disagree, the mixed ones. Those it makes
// anew, and that is where the forms differ: upsample_argmax_quarter.cuh and upsample_argmax_warp.cuh. The floor is one read of the logits
// and one write of the labels.
#pragma once

#include "half.cuh"
#include "upsample_argmax.cuh"

namespace rtf {

constexpr unsigned int kAllLanes = 0xffffffffu;
constexpr int kLanes = 32;
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kLanes;
constexpr int kMaxWords = 256 / kLanes;  // of candidates, a bit a class
constexpr int kWord = 8;                 // labels
constexpr int kRowsAtOnce = 8;           // whose weights may be read together

struct Tables {
    int classes, height, width;  // of the grid
    int out_height, out_width;   // of the frame
    const int* row_cells;        // height + 2: cell k holds the rows row_cells[k] .. row_cells[k + 1]
    const float* row_weight;     // out_height, and kRowsAtOnce - 1 more that mean nothing
    const int* column_cells;     // width + 2
    const float* column_weight;  // out_width
    const int* column_cell;      // out_width: the cell that holds a column
};

// A block's cells (k, l) .. (k + rows, l + columns), at most kHigh x kWide.
struct Place {
    int k, l, rows, columns;
};

// What a block's threads tell each other. winners[r][c] is the class at the top left corner of cell (k + r, l + c); a mixed cell is
// listed as r * kLanes + c.
template <int kHighCells, int kWideCells>
struct Tile {
    static constexpr int kHigh = kHighCells, kWide = kWideCells;
    static_assert(kHigh <= kWarps && kWide <= kLanes, "a warp judges a row of cells, a lane each");
    unsigned char winners[kHigh + 1][kWide + 1];
    unsigned char mixed[kHigh * kWide];
    int mixed_count;
};

template <typename Tile>
__device__ Place place_of_block(const Tables& tables) {
    Place place;
    place.k = blockIdx.y * Tile::kHigh;
    place.l = blockIdx.x * Tile::kWide;
    place.rows = min_int(Tile::kHigh, tables.height + 1 - place.k);
    place.columns = min_int(Tile::kWide, tables.width + 1 - place.l);
    return place;
}

// Lists the mixed cells of a row next to each other, so that those of one warp's work are neighbours.
template <typename Tile>
__device__ void list_mixed(const Tables& tables, const Place& place, Tile& tile) {
    const int r = threadIdx.x / kLanes, c = threadIdx.x % kLanes;
    bool mixed = false;
    if (r < place.rows && c < place.columns) {
        const int label = tile.winners[r][c], k = place.k + r, l = place.l + c;
        mixed = (tile.winners[r][c + 1] != label || tile.winners[r + 1][c] != label || tile.winners[r + 1][c + 1] != label) &&
                tables.row_cells[k] < tables.row_cells[k + 1] && tables.column_cells[l] < tables.column_cells[l + 1];
    }
    const unsigned int word = __ballot_sync(kAllLanes, mixed);
    int first = 0;
    if (c == 0 && word != 0) first = atomicAdd(&tile.mixed_count, __popc(word));
    first = __shfl_sync(kAllLanes, first, 0);
    if (mixed) tile.mixed[first + __popc(word & ((1u << c) - 1))] = static_cast<unsigned char>(threadIdx.x);
}

// The labels of the columns [from, to) in the eight from `start` on, in a row of cells whose classes are `winners`; the other bytes mean
// nothing. Most words see one cell or two.
__device__ inline unsigned long long word_of(const Tables& tables, const unsigned char* winners, int l, int start, int from, int to) {
    constexpr unsigned long long ones = 0x0101010101010101ull;
    const int first = tables.column_cell[from], last = tables.column_cell[to - 1];
    if (last - first <= 1) {
        const unsigned long long right = ~0ull << 8 * max_int(tables.column_cells[last] - start, 0);
        return (winners[first - l] * ones & ~right) | (winners[last - l] * ones & right);
    }
    unsigned long long word = 0;
    RTF_ROLLED
    for (int x = from; x < to; ++x) {
        const unsigned long long label = winners[tables.column_cell[x] - l];
        word |= label << 8 * (x - start);
    }
    return word;
}

// Labels that lie beside each other, in `rows` rows.
template <typename Word>
__device__ void store_rows(unsigned char* target, unsigned long long word, int rows, int out_width) {
    RTF_ROLLED
    for (; rows > 0; --rows) {
        *reinterpret_cast<Word*>(target) = static_cast<Word>(word);
        target += out_width;
    }
}

// Every pixel of the block gets the class of its cell's top left corner; a thread makes one word's columns in all rows of a cell. Half a
// word, as at the edges of blocks whose cells are eight wide, is one store as well.
template <typename Tile>
__device__ void fill(const Tables& tables, const Place& place, const Tile& tile, unsigned char* labels) {
    const int x0 = tables.column_cells[place.l], x1 = tables.column_cells[place.l + place.columns];
    if (x0 == x1) return;  // none of the block's cells holds a column
    const int first = x0 / kWord, words = (x1 + kWord - 1) / kWord - first;
    const unsigned long long odd = reinterpret_cast<unsigned long long>(labels) | static_cast<unsigned int>(tables.out_width);
    constexpr int beside = kWarps / Tile::kHigh * kLanes;  // threads of a row of cells
    const int r = threadIdx.x / beside;
    if (r >= place.rows) return;
    const int y = tables.row_cells[place.k + r], rows = tables.row_cells[place.k + r + 1] - y;
    unsigned char* row = labels + static_cast<long long>(y) * tables.out_width;
    RTF_ROLLED
    for (int i = threadIdx.x % beside; i < words; i += beside) {
        const int start = kWord * (first + i);
        const int from = max_int(x0, start), to = min_int(x1, start + kWord);
        const unsigned long long word = word_of(tables, tile.winners[r], place.l, start, from, to) >> 8 * (from - start);
        unsigned char* target = row + from;
        if (odd % kWord == 0 && to - from == kWord) {
            store_rows<unsigned long long>(target, word, rows, tables.out_width);
        } else if ((odd | static_cast<unsigned int>(from)) % 4 == 0 && to - from == 4) {
            store_rows<unsigned int>(target, word, rows, tables.out_width);
        } else {
            RTF_ROLLED
            for (int x = 0; x < to - from; ++x) store_rows<unsigned char>(target + x, word >> 8 * x, rows, tables.out_width);
        }
    }
}

}  // namespace rtf
