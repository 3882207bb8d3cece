// The form of upsample_argmax that lanes use: eight lanes, a quarter of a warp, make a mixed cell, so a block makes 32 cells at a time.
#pragma once

#include "upsample_argmax_block.cuh"

namespace rtf {

constexpr int kQuarter = 8;  // lanes, and the columns of a cell of stride 8
constexpr int kQuarters = kThreads / kQuarter;
constexpr int kRows = 8;             // that a lane makes of its column at a time
constexpr int kAtOnce = 10;          // logits that a thread asks for before it looks at the first
constexpr int kStagedClasses = 24;   // that shared memory holds; with more the cells read the logits through the first-level cache
constexpr int kHeld = kStagedClasses / kQuarter;

// Seven rows of 31 cells have 8 x 32 corners, one for each thread.
using QuarterTile = Tile<7, 31>;
static_assert((QuarterTile::kHigh + 1) * (QuarterTile::kWide + 1) == kThreads, "a thread finds the class at one corner");

// The logits of a block's corners, class after class. One bank between the classes keeps a quarter's reads of eight classes apart.
template <typename T>
struct Staged {
    static constexpr int kPlane = kThreads + 4 / static_cast<int>(sizeof(T));
    T logits[kStagedClasses * kPlane];
};

// What a block's threads share.
template <typename T>
struct Shared {
    QuarterTile tile;
    Staged<T> staged;
    unsigned int candidates[kQuarters][kMaxWords];
};

// A cell: its pixels, and its class 0 in the rows of the grid above and below it; a class lies `plane` further, `right` is 1 or 0.
template <typename T>
struct Cell {
    int x0, x1, y0, y1;
    const T *upper, *lower;
    int right;
};

// The class of one corner, whose logits lie `from` and every `plane` further, the lowest on a tie; if kKeep keeps them at `staged`. Past
// the last class the last one is taken again, which changes nothing. `finite` becomes false where a logit is NaN or infinite.
template <bool kKeep, typename T>
__device__ int find_winner(const T* from, int plane, int classes, T* staged, bool& finite) {
    float best = -3.402823466e+38f;
    int winner = 0;
    RTF_ROLLED
    for (int start = 0; start < classes; start += kAtOnce) {
        T logits[kAtOnce];
        for (int i = 0; i < kAtOnce; ++i) logits[i] = from[static_cast<long long>(min_int(start + i, classes - 1)) * plane];
        for (int i = 0; i < kAtOnce; ++i) {
            const int c = min_int(start + i, classes - 1);
            if (kKeep) staged[c * Staged<T>::kPlane] = logits[i];
            const float value = to_float(logits[i]);
            finite = finite && value - value == 0.0f;
            winner = value > best ? c : winner;
            best = value > best ? value : best;
        }
    }
    return winner;
}

template <bool kKeep, typename T>
__device__ void find_winners(const Tables& tables, const T* logits, const Place& place, Shared<T>& shared, int* flag) {
    const int r = threadIdx.x / kLanes, c = threadIdx.x % kLanes;
    const int y = min_int(max_int(place.k + r - 1, 0), tables.height - 1), x = min_int(max_int(place.l + c - 1, 0), tables.width - 1);
    const T* from = logits + static_cast<long long>(y) * tables.width + x;
    bool finite = true;
    const int winner = find_winner<kKeep>(from, tables.height * tables.width, tables.classes, shared.staged.logits + threadIdx.x, finite);
    shared.tile.winners[r][c] = static_cast<unsigned char>(winner);
    if (!finite && flag != nullptr) atomicOr(flag, 1);
}

// The highest value of a quarter's lanes, to each of them.
__device__ inline float highest_of_quarter(float value) {
    for (int distance = kQuarter / 2; distance > 0; distance /= 2) value = max_float(value, __shfl_xor_sync(kAllLanes, value, distance));
    return value;
}

// The votes of a quarter's lanes as the bits 0 .. 7.
__device__ inline unsigned int votes_of_quarter(bool vote, int lane) {
    return __ballot_sync(kAllLanes, vote) >> (lane & ~(kQuarter - 1)) & ((1u << kQuarter) - 1);
}

// The classes that may win in the cells of a warp's quarters, a bit each in `words` of the quarter; a lane looks at every eighth class.
// Every lane of the warp comes here. This one is for at most kStagedClasses classes: a lane reads each of its corners once.
template <typename T>
__device__ void find_candidates(const Cell<T>& cell, int plane, int classes, int lane, unsigned int* words) {
    const int rank = lane % kQuarter;
    float floor = -3.402823466e+38f, top[kHeld];
    for (int i = 0; i < kHeld; ++i) {
        const int c = min_int(i * kQuarter + rank, classes - 1);
        const Corners at = load_corners(cell.upper + c * plane, cell.lower + c * plane, cell.right);
        floor = max_float(floor, lowest(at));
        top[i] = highest(at);
    }
    floor = highest_of_quarter(floor);
    floor -= slack(floor);
    unsigned int word = 0;
    for (int i = 0; i < kHeld; ++i) {
        word |= votes_of_quarter(i * kQuarter + rank < classes && may_win(top[i], floor), lane) << i * kQuarter;
    }
    if (rank == 0) words[0] = word;
    __syncwarp();
}

// The same for any number of classes, which a lane reads twice.
template <typename T>
__device__ void find_candidates(const Cell<T>& cell, long long plane, int classes, int lane, unsigned int* words) {
    const int rank = lane % kQuarter;
    float floor = -3.402823466e+38f;
    RTF_ROLLED
    for (int c = rank; c < classes; c += kQuarter) {
        floor = max_float(floor, lowest(load_corners(cell.upper + c * plane, cell.lower + c * plane, cell.right)));
    }
    floor = highest_of_quarter(floor);
    floor -= slack(floor);
    RTF_ROLLED
    for (int start = 0; start < classes; start += kLanes) {
        unsigned int word = 0;
        for (int i = 0; i < kLanes; i += kQuarter) {
            const int c = min_int(start + i + rank, classes - 1);
            const float top = highest(load_corners(cell.upper + c * plane, cell.lower + c * plane, cell.right));
            word |= votes_of_quarter(start + i + rank < classes && may_win(top, floor), lane) << i;
        }
        if (rank == 0) words[start / kLanes] = word;
    }
    __syncwarp();
}

// A lane's column of up to kRows pixels of a cell, from (x0 + rank, y0) down. Nothing here waits for other lanes.
template <typename T, typename Plane>
__device__ void make_column(const Tables& tables, const Cell<T>& cell, Plane plane, int x, int y, const unsigned int* words,
                            unsigned char* labels) {
    const float column_weight = tables.column_weight[x];
    float row_weight[kRows], best[kRows];
    int winner[kRows];
    for (int i = 0; i < kRows; ++i) {
        row_weight[i] = tables.row_weight[min_int(y + i, cell.y1 - 1)];
        winner[i] = 0;
    }
    bool first = true;
    RTF_ROLLED
    for (int word = 0; word * kLanes < tables.classes; ++word) {
        RTF_ROLLED
        for (unsigned int left_over = words[word]; left_over != 0; left_over &= left_over - 1) {
            const int c = word * kLanes + __ffs(static_cast<int>(left_over)) - 1;
            const Corners at = load_corners(cell.upper + c * plane, cell.lower + c * plane, cell.right);
            const float above = lerp(at.top_left, at.top_right, column_weight), below = lerp(at.bottom_left, at.bottom_right, column_weight);
            for (int i = 0; i < kRows; ++i) {
                const float value = lerp(above, below, row_weight[i]);
                const bool wins = first || value > best[i];
                best[i] = wins ? value : best[i];
                winner[i] = wins ? c : winner[i];
            }
            first = false;
        }
    }
    unsigned char* target = labels + static_cast<long long>(y) * tables.out_width + x;
    for (int i = 0; i < kRows; ++i) {
        if (y + i < cell.y1) *target = static_cast<unsigned char>(winner[i]);
        target += tables.out_width;
    }
}

// The mixed cells of a block; `cell_at(r, c)` gives cell (k + r, l + c) with where its logits are.
template <typename T, typename Plane, typename CellAt>
__device__ void make_cells(const Tables& tables, Shared<T>& shared, Plane plane, const CellAt& cell_at, unsigned char* labels) {
    const QuarterTile& tile = shared.tile;
    const int lane = threadIdx.x % kLanes, rank = lane % kQuarter, quarter = threadIdx.x / kQuarter;
    RTF_ROLLED
    for (int first = quarter - lane / kQuarter; first < tile.mixed_count; first += kQuarters) {  // the same in all lanes of a warp
        const int index = first + lane / kQuarter, listed = tile.mixed[min_int(index, tile.mixed_count - 1)];
        unsigned int* candidates = shared.candidates[quarter];
        const Cell<T> cell = cell_at(listed / kLanes, listed % kLanes);
        find_candidates(cell, plane, tables.classes, lane, candidates);
        if (index < tile.mixed_count) {
            RTF_ROLLED
            for (int x = cell.x0 + rank; x < cell.x1; x += kQuarter) {
                RTF_ROLLED
                for (int y = cell.y0; y < cell.y1; y += kRows) make_column(tables, cell, plane, x, y, candidates, labels);
            }
        }
        __syncwarp();  // the candidates are read before the next cells' are written
    }
}

template <typename T>
__device__ Cell<T> pixels_of_cell(const Tables& tables, int k, int l) {
    return {tables.column_cells[l], tables.column_cells[l + 1], tables.row_cells[k], tables.row_cells[k + 1], nullptr, nullptr, 1};
}

// kStaged: there are at most kStagedClasses classes, and shared memory holds the logits.
template <bool kStaged, typename T>
__device__ void upsample_tile(const Tables& tables, const T* logits, Shared<T>& shared, unsigned char* labels, int* flag) {
    const Place place = place_of_block<QuarterTile>(tables);
    if (threadIdx.x == 0) shared.tile.mixed_count = 0;
    find_winners<kStaged>(tables, logits, place, shared, flag);
    __syncthreads();
    list_mixed(tables, place, shared.tile);
    fill(tables, place, shared.tile, labels);
    __syncthreads();
    if constexpr (kStaged) {
        const auto cell_at = [&](int r, int c) {
            Cell<T> cell = pixels_of_cell<T>(tables, place.k + r, place.l + c);
            cell.upper = shared.staged.logits + r * kLanes + c;
            cell.lower = cell.upper + kLanes;
            return cell;
        };
        make_cells(tables, shared, Staged<T>::kPlane, cell_at, labels);
    } else {
        const auto cell_at = [&](int r, int c) {
            const int k = place.k + r, l = place.l + c, left = max_int(l - 1, 0);
            Cell<T> cell = pixels_of_cell<T>(tables, k, l);
            cell.upper = logits + static_cast<long long>(max_int(k - 1, 0)) * tables.width + left;
            cell.lower = logits + static_cast<long long>(min_int(k, tables.height - 1)) * tables.width + left;
            cell.right = min_int(l, tables.width - 1) - left;
            return cell;
        };
        make_cells(tables, shared, static_cast<long long>(tables.height) * tables.width, cell_at, labels);
    }
}

template <typename T>
__device__ void upsample_by_quarters(const Tables& tables, const T* logits, unsigned char* labels, int* flag) {
    __shared__ Shared<T> shared;
    logits += static_cast<long long>(tables.classes) * tables.height * tables.width * blockIdx.z;
    labels += static_cast<long long>(tables.out_height) * tables.out_width * blockIdx.z;
    if (tables.classes <= kStagedClasses) {
        upsample_tile<true>(tables, logits, shared, labels, flag);
    } else {
        upsample_tile<false>(tables, logits, shared, labels, flag);
    }
}

}  // namespace rtf
