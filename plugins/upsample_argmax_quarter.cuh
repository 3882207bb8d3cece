// The form of upsample_argmax that lanes use: eight lanes, a quarter of a warp, make a mixed cell, so a block makes 32 cells at a time.
//
// Why, reckoned for an H100 (132 multiprocessors, 528 instructions a cycle, 1.755 GHz) and 19 classes at 1024x2048 in FP16. NO GPU HAS
// RUN THIS YET: all of it is a prediction, and benchmarks/gpu_kernels.py measures both forms.
//
// - Bytes: 1.25 MB of logits and 2.10 MB of labels, 1.15 us at the rate of a copy (2.9 TB/s). In that time the GPU
//   executes at most 1.07 million instructions of a warp.
// - Cells: 33,153, a quarter of them mixed. In the logits of a trained network (rtformer-slim-camvid on a photograph) 2.8 classes may win
//   in a mixed cell, in the benchmark's even ones 7.2, in its sloped ones 2.6.
// - A warp a cell (upsample_argmax_warp.cuh) executes about 480 instructions for a mixed cell and 60 for each of its classes: two lerps of
//   the columns and one of the rows at each pixel, integer divisions to find the pixel, and reductions in which most lanes idle. Mixed
//   cells are five sixths of its 6.0 to 8.0 million instructions: 6.4 to 8.7 us, 5.6 to 7.5 times the copy, if no cycle is lost.
// - A quarter a cell: a lane makes a column of eight pixels, so the lerps of the columns are shared by eight rows, nothing is divided, and
//   four cells share every other instruction. 231 instructions for four cells and 69 for each class of the one that has most (3.7 and 10.4
//   on average): 1.8 million instructions with a trained network's logits, 2.7 with the even ones: 1.9 to 2.9 us, 1.7 to 2.5 times the
//   copy, if no cycle is lost. So it is three to four times as fast as the other form, and reaches two copies with real logits at best.
// - Waves at batch 1: 171 blocks, 1.3 for each multiprocessor, all at once (four fit: 64 registers, 12 KB of shared memory in FP16, 22 KB
//   in FP32). The slowest block of the drawn logits has 89 mixed cells, three rounds of 32; in the other form 64 of 128, eight rounds of
//   eight, each as long as one of these. A round waits for memory once or twice, and that decides at batch 1.
// - Logits are read once: the thread that finds a corner's class leaves them in shared memory, where up to kStagedClasses fit. It asks for
//   kAtOnce of them before it waits: two waits for 19 classes, where a loop that the compiler unrolls by four waits for six. 8 x 32 corners
//   are 256 threads, and 31 cells beside each other divide the 2^n + 1 of a grid better than 32, which leave one column for a block.
// - Not done: listing the mixed cells of the whole image first would even out the blocks, but takes a second launch and a second read of
//   the logits, each about as long as what it saves at batch 1. Sorting a block's cells by the number of their classes would spare a
//   third of the 69s with even logits, a quarter with real ones. Leaving out classes that lose to one class at all four corners brings 7.2
//   down to 4.9, but 2.8 to 2.5 only, for 80 instructions.
//
// Registers (nvcc 13.0, no spills): 64 for compute capability 7.5, 8.0 and 9.0, 62 for 8.9, 63 for 12.0; the other form takes 48 to 64.
#pragma once

#include "upsample_argmax_block.cuh"

namespace rtf {

constexpr int kQuarter = 8;  // lanes, and the columns of a cell of stride 8
constexpr int kQuarters = kThreads / kQuarter;
constexpr int kNearRows = kRowsAtOnce, kFarRows = kRowsAtOnce / 2;  // that a lane makes at a time; far cells take more registers
constexpr int kAtOnce = 10;         // logits that a thread asks for before it looks at the first
constexpr int kStagedClasses = 20;  // that shared memory holds; with more the cells read the logits through the first-level cache
constexpr int kHeld = (kStagedClasses + kQuarter - 1) / kQuarter;
static_assert(kStagedClasses % kAtOnce == 0, "what is asked for past the last class has its place too");

// NaN, for which no comparison holds.
RTF_HD float nothing() {
#if defined(__CUDA_ARCH__)
    return __int_as_float(0x7fc00000);
#else
    return float_of(0x7fc00000u);
#endif
}

// Seven rows of 31 cells have 8 x 32 corners, one for each thread.
using QuarterTile = Tile<7, 31>;
static_assert((QuarterTile::kHigh + 1) * (QuarterTile::kWide + 1) == kThreads, "a thread finds the class at one corner");

// The logits of a block's corners, class after class. One bank between the classes keeps a quarter's reads of eight classes apart.
template <typename T>
struct Staged {
    static constexpr int kPlane = kThreads + 4 / static_cast<int>(sizeof(T));
    T logits[kStagedClasses * kPlane];
};

// What a block's threads share. `candidates` are the classes that may win in a quarter's cell, a bit each.
template <typename T>
struct Shared {
    QuarterTile tile;
    Staged<T> staged;
    unsigned int candidates[kQuarters][kMaxWords];
};

struct Pixels {
    int x0, x1, y0, y1;
};

// The value `index` times `pitch` bytes after the first, in one multiplication.
template <typename T>
__device__ const T* at(const T* first, unsigned int pitch, int index) {
    const unsigned long long bytes = static_cast<unsigned long long>(static_cast<unsigned int>(index)) * pitch;
    return reinterpret_cast<const T*>(reinterpret_cast<const char*>(first) + bytes);
}

// A cell whose logits are staged, from its top left corner of class 0 on.
template <typename T>
struct NearCell {
    Pixels pixels;
    const T* staged;

    __device__ Corners corners(int c) const {
        const T* upper = staged + c * Staged<T>::kPlane;
        return load_corners(upper, upper + kLanes, 1);
    }
};

// A cell whose logits are where the engine wrote them, from its top left corner of class 0 on; its lower and its right corners lie that
// many logits further, none at the edges of the grid.
template <typename T>
struct FarCell {
    Pixels pixels;
    const T* first;
    int lower, right;
    unsigned int pitch;  // bytes from class to class

    __device__ Corners corners(int c) const {
        const T* upper = at(first, pitch, c);
        return load_corners(upper, upper + lower, right);
    }
};

// The class of one corner, whose logits lie `from` and every `pitch` bytes further, the lowest on a tie; if kKeep keeps them at `staged`.
// Past the last class the last one is taken again, which changes nothing. `finite` becomes false where a logit is NaN or infinite.
template <bool kKeep, typename T>
__device__ int find_winner(const T* from, unsigned int pitch, int classes, T* staged, bool& finite) {
    float best = -3.402823466e+38f;
    int winner = 0;
    RTF_ROLLED
    for (int start = 0; start < classes; start += kAtOnce) {
        T logits[kAtOnce];
        for (int i = 0; i < kAtOnce; ++i) logits[i] = *at(from, pitch, min_int(start + i, classes - 1));
        for (int i = 0; i < kAtOnce; ++i) {
            if (kKeep) staged[(start + i) * Staged<T>::kPlane] = logits[i];
            const float value = to_float(logits[i]);
            finite = finite && value - value == 0.0f;
            winner = value > best ? start + i : winner;
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
    const unsigned int pitch = tables.height * tables.width * sizeof(T);
    bool finite = true;
    const int winner = find_winner<kKeep>(from, pitch, tables.classes, shared.staged.logits + threadIdx.x, finite);
    shared.tile.winners[r][c] = static_cast<unsigned char>(winner);
    if (!finite && flag != nullptr) atomicOr(flag, 1);
}

// The highest value of a quarter's lanes, to each of them.
__device__ inline float highest_of_quarter(float value) {
    for (int distance = kQuarter / 2; distance > 0; distance /= 2) value = greater(value, __shfl_xor_sync(kAllLanes, value, distance));
    return value;
}

// The votes of a quarter's lanes as the bits 0 .. 7.
__device__ inline unsigned int votes_of_quarter(bool vote, int lane) {
    return __ballot_sync(kAllLanes, vote) >> (lane & ~(kQuarter - 1)) & ((1u << kQuarter) - 1);
}

// The classes, at most kStagedClasses, that may win in the cells of a warp's quarters, a bit each. A lane looks at every eighth class.
// Every lane of the warp comes here.
template <typename T>
__device__ unsigned int find_candidates(const NearCell<T>& cell, int classes, int lane) {
    const int rank = lane % kQuarter;
    float floor = -3.402823466e+38f, top[kHeld];
    for (int i = 0; i < kHeld; ++i) {
        const Corners at = cell.corners(min_int(i * kQuarter + rank, classes - 1));
        floor = greater(floor, lowest(at));
        top[i] = highest(at);
    }
    floor = highest_of_quarter(floor);
    floor -= slack(floor);
    unsigned int candidates = 0;
    for (int i = 0; i < kHeld; ++i) {
        candidates |= votes_of_quarter(i * kQuarter + rank < classes && may_win(top[i], floor), lane) << i * kQuarter;
    }
    return candidates;
}

// The same for any number of classes, which a lane reads twice, into the quarter's `candidates`.
template <typename T>
__device__ void find_candidates(const FarCell<T>& cell, int classes, int lane, unsigned int* candidates) {
    const int rank = lane % kQuarter;
    float floor = -3.402823466e+38f;
    RTF_ROLLED
    for (int c = rank; c < classes; c += kQuarter) floor = greater(floor, lowest(cell.corners(c)));
    floor = highest_of_quarter(floor);
    floor -= slack(floor);
    RTF_ROLLED
    for (int start = 0; start < classes; start += kLanes) {
        unsigned int word = 0;
        RTF_ROLLED
        for (int i = 0; i < kLanes; i += kQuarter) {
            const int c = start + i + rank;
            word |= votes_of_quarter(c < classes && may_win(highest(cell.corners(min_int(c, classes - 1))), floor), lane) << i;
        }
        if (rank == 0) candidates[start / kLanes] = word;
    }
    __syncwarp();
}

// A lane's column of up to kRows pixels of a cell.
template <int kRows>
struct Column {
    float column_weight, row_weight[kRows], best[kRows];
    int winner[kRows];
};

template <int kRows>
__device__ void start_column(const Tables& tables, int x, int y, Column<kRows>& column) {
    column.column_weight = tables.column_weight[x];
    for (int i = 0; i < kRows; ++i) {
        column.row_weight[i] = tables.row_weight[y + i];
        column.best[i] = nothing();
        column.winner[i] = 0;
    }
}

// Lets the classes `first` + the bits of `candidates` compete, in ascending order.
template <typename Cell, int kRows>
__device__ void compete(const Cell& cell, unsigned int candidates, int first, Column<kRows>& column) {
    RTF_ROLLED
    for (; candidates != 0; candidates &= candidates - 1) {
        const int c = first + __ffs(static_cast<int>(candidates)) - 1;
        const Corners at = cell.corners(c);
        const float above = lerp(at.top_left, at.top_right, column.column_weight);
        const float below = lerp(at.bottom_left, at.bottom_right, column.column_weight);
        for (int i = 0; i < kRows; ++i) {
            const float value = lerp(above, below, column.row_weight[i]);
            const bool wins = !(value <= column.best[i]);  // every value beats nothing
            column.best[i] = wins ? value : column.best[i];
            column.winner[i] = wins ? c : column.winner[i];
        }
    }
}

template <int kRows>
__device__ void store_column(const Tables& tables, const Pixels& pixels, int x, int y, const Column<kRows>& column, unsigned char* labels) {
    unsigned char* target = labels + static_cast<long long>(y) * tables.out_width + x;
    for (int i = 0; i < kRows; ++i) {
        if (y + i < pixels.y1) *target = static_cast<unsigned char>(column.winner[i]);
        target += tables.out_width;
    }
}

// A quarter's cell; `let_compete(column)` is called for each of a lane's columns. Nothing here waits for other lanes.
template <int kRows, typename LetCompete>
__device__ void make_pixels(const Tables& tables, const Pixels& pixels, int rank, unsigned char* labels, const LetCompete& let_compete) {
    RTF_ROLLED
    for (int x = pixels.x0 + rank; x < pixels.x1; x += kQuarter) {
        RTF_ROLLED
        for (int y = pixels.y0; y < pixels.y1; y += kRows) {
            Column<kRows> column;
            start_column(tables, x, y, column);
            let_compete(column);
            store_column(tables, pixels, x, y, column, labels);
        }
    }
}

__device__ inline Pixels pixels_of(const Tables& tables, int k, int l) {
    return {tables.column_cells[l], tables.column_cells[l + 1], tables.row_cells[k], tables.row_cells[k + 1]};
}

// One cell for each quarter of a warp, (k + r, l + c); those of quarters that are not `busy` are looked at only.
template <typename T>
__device__ void make_near_cells(const Tables& tables, const Place& place, int r, int c, bool busy, const Shared<T>& shared,
                                unsigned char* labels) {
    const int lane = threadIdx.x % kLanes;
    const NearCell<T> cell = {pixels_of(tables, place.k + r, place.l + c), shared.staged.logits + r * kLanes + c};
    const unsigned int candidates = find_candidates(cell, tables.classes, lane);
    if (!busy) return;
    make_pixels<kNearRows>(tables, cell.pixels, lane % kQuarter, labels, [&](auto& column) { compete(cell, candidates, 0, column); });
}

template <typename T>
__device__ void make_far_cells(const Tables& tables, const T* logits, int k, int l, bool busy, unsigned int* candidates,
                               unsigned char* labels) {
    const int lane = threadIdx.x % kLanes, top = max_int(k - 1, 0), left = max_int(l - 1, 0);
    const int lower = (min_int(k, tables.height - 1) - top) * tables.width, right = min_int(l, tables.width - 1) - left;
    const unsigned int pitch = tables.height * tables.width * sizeof(T);
    const FarCell<T> cell = {pixels_of(tables, k, l), logits + static_cast<long long>(top) * tables.width + left, lower, right, pitch};
    find_candidates(cell, tables.classes, lane, candidates);
    if (!busy) return;
    make_pixels<kFarRows>(tables, cell.pixels, lane % kQuarter, labels, [&](auto& column) {
        RTF_ROLLED
        for (int first = 0; first < tables.classes; first += kLanes) compete(cell, candidates[first / kLanes], first, column);
    });
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
    const int quarter = threadIdx.x / kQuarter, of_warp = quarter % (kLanes / kQuarter);
    RTF_ROLLED
    for (int first = quarter - of_warp; first < shared.tile.mixed_count; first += kQuarters) {  // the same in all lanes of a warp
        const bool busy = first + of_warp < shared.tile.mixed_count;
        const int listed = shared.tile.mixed[busy ? first + of_warp : first], r = listed / kLanes, c = listed % kLanes;
        if (kStaged) {
            make_near_cells(tables, place, r, c, busy, shared, labels);
        } else {
            make_far_cells(tables, logits, place.k + r, place.l + c, busy, shared.candidates[quarter], labels);
            __syncwarp();  // the candidates are read before the next cells' are written
        }
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
