// Rows of a frame shared out among threads, around the bodies in plugins/*.cuh, which the CUDA kernels share.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#include "preprocess.cuh"
#include "upsample_argmax.cuh"

using namespace rtf;

// Each loop body is compiled for several instruction sets and the best one is chosen when it runs. None of them fuses
// a product and a sum, so all of them give the same bits.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define RTF_DISPATCH 1
#define RTF_AVX2 __attribute__((target("avx2,bmi2")))
#define RTF_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,bmi2")))
#else
#define RTF_DISPATCH 0
#endif

namespace {

constexpr int kMaxClasses = 256;
constexpr int kRowsAtOnce = 8;

// Calls work(thread) on up to `threads` threads, the caller's among them. Where the system grants fewer, those do all:
// work takes its share from a counter.
template <typename Work>
void on_threads(int threads, const Work& work) {
    std::vector<std::thread> others;
    others.reserve(static_cast<size_t>(threads));
    for (int i = 1; i < threads; ++i) {
        try {
            others.emplace_back(work, i);
        } catch (const std::system_error&) {
            break;
        }
    }
    work(0);
    for (std::thread& other : others) other.join();
}

// Logits on a grid, and the rows of a frame in it.
struct Grid {
    const float* logits;
    int classes, height, width;     // of the grid
    int out_height, out_width;      // of the frame
    const int* row_cells;           // height + 2: cell k holds the rows row_cells[k] .. row_cells[k + 1]
    const float* row_weight;        // out_height
};

struct Upsample : Grid {
    const int* column_cells;        // width + 2
    const float* column_weight;     // out_width + kTile - 1
    unsigned char* labels;
    int stride;                     // floats between two classes of a row of the grid in the scratch
};

// What one thread needs: two rows of the grid with one more column at each end, class by class, and their winners.
struct Scratch {
    std::vector<float> values[2];
    std::vector<int> winners[2];
    std::vector<float> best, floors;
    explicit Scratch(const Upsample& job) {
        for (int i = 0; i < 2; ++i) {
            values[i].resize(static_cast<size_t>(job.classes) * job.stride);
            winners[i].resize(job.stride);
        }
        best.resize(job.stride);
        floors.resize(job.stride);
    }
};

// Copies row `row` of the grid, its ends repeated, and finds the class of each logit, the lowest on a tie.
RTF_HD void load_row(const Upsample& job, int row, float* values, int* winners, float* best) {
    const int columns = job.width + 2;
    const long plane = static_cast<long>(job.height) * job.width;
    for (int c = 0; c < job.classes; ++c) {
        const float* source = job.logits + c * plane + static_cast<long>(row) * job.width;
        float* target = values + static_cast<long>(c) * job.stride;
        target[0] = source[0];
        for (int x = 0; x < job.width; ++x) target[x + 1] = source[x];
        target[columns - 1] = source[job.width - 1];
        if (c == 0) {
            for (int x = 0; x < columns; ++x) {
                best[x] = target[x];
                winners[x] = 0;
            }
            continue;
        }
        for (int x = 0; x < columns; ++x) {
            const bool wins = target[x] > best[x];
            best[x] = wins ? target[x] : best[x];
            winners[x] = wins ? c : winners[x];
        }
    }
}

// Per cell of a row of cells, the value below which some class never falls, less its slack.
RTF_HD void find_floors(const Upsample& job, const float* upper, const float* lower, float* floors) {
    for (int c = 0; c < job.classes; ++c) {
        const float* up = upper + static_cast<long>(c) * job.stride;
        const float* down = lower + static_cast<long>(c) * job.stride;
        if (c == 0) {
            for (int l = 0; l <= job.width; ++l) floors[l] = lowest(up[l], up[l + 1], down[l], down[l + 1]);
            continue;
        }
        for (int l = 0; l <= job.width; ++l) floors[l] = max_float(floors[l], lowest(up[l], up[l + 1], down[l], down[l + 1]));
    }
    for (int l = 0; l <= job.width; ++l) floors[l] -= slack(floors[l]);
}

RTF_HD bool agree(const int* upper, const int* lower, int l) {
    return (upper[l] == upper[l + 1]) & (upper[l] == lower[l]) & (upper[l] == lower[l + 1]);
}

// The frame's rows of one row of cells: runs of agreeing cells are filled, the others interpolated.
RTF_HD void fill_cells(const Upsample& job, int k, const float* upper, const float* lower, const int* upper_winners,
                       const int* lower_winners, float* floors) {
    const int y0 = job.row_cells[k], y1 = job.row_cells[k + 1];
    unsigned char* first = job.labels + static_cast<long>(y0) * job.out_width;
    for (int l = 0; l <= job.width;) {
        const int label = upper_winners[l];
        int end = l + 1;
        if (agree(upper_winners, lower_winners, l)) {
            while (end <= job.width && upper_winners[end] == label && agree(upper_winners, lower_winners, end)) ++end;
        }
        const int x0 = job.column_cells[l], x1 = job.column_cells[end];
        std::memset(first + x0, label, static_cast<size_t>(x1 - x0));
        l = end;
    }
    for (int y = y0 + 1; y < y1; ++y) std::memcpy(first + static_cast<long>(y - y0) * job.out_width, first, static_cast<size_t>(job.out_width));

    find_floors(job, upper, lower, floors);
    int candidates[kMaxClasses];
    for (int l = 0; l <= job.width; ++l) {
        const int x0 = job.column_cells[l], x1 = job.column_cells[l + 1];
        if (x0 == x1 || agree(upper_winners, lower_winners, l)) continue;
        int count = 0;
        for (int c = 0; c < job.classes; ++c) {
            const float* up = upper + static_cast<long>(c) * job.stride + l;
            const float* down = lower + static_cast<long>(c) * job.stride + l;
            candidates[count] = c;
            count += may_win(highest(up[0], up[1], down[0], down[1]), floors[l]);
        }
        upsample_cell(upper + l, lower + l, job.stride, candidates, count, y0, y1, job.row_weight, x0, x1, job.column_weight,
                      job.labels, job.out_width);
    }
}

RTF_HD void upsample_body(const Upsample& job, Scratch& scratch, int first, int last) {
    int held[2] = {-1, -1};
    for (int k = first; k < last; ++k) {
        if (job.row_cells[k] == job.row_cells[k + 1]) continue;
        const int rows[2] = {max_int(k - 1, 0), min_int(k, job.height - 1)};
        for (const int row : rows) {
            if (held[row & 1] == row) continue;
            load_row(job, row, scratch.values[row & 1].data(), scratch.winners[row & 1].data(), scratch.best.data());
            held[row & 1] = row;
        }
        const int up = rows[0] & 1, down = rows[1] & 1;
        fill_cells(job, k, scratch.values[up].data(), scratch.values[down].data(), scratch.winners[up].data(),
                   scratch.winners[down].data(), scratch.floors.data());
    }
}

struct Preprocess {
    const unsigned char* frame;
    int height, width;              // of the frame
    float* out;                     // the three planes' first pixel that the picture covers
    long plane, stride;             // floats between two planes and between two rows
    int rows, columns;              // of the picture in `out`
    const int* row_low;             // null: the frame has this size already
    const float* row_weight;
    const int* column_low;
    const float* column_weight;
    float scale[3], bias[3];
};

RTF_HD void preprocess_body(const Preprocess& job, float* const* held_values, int first, int last) {
    const long bytes = 3L * job.width;
    int held[2] = {-1, -1};
    for (int y = first; y < last; ++y) {
        float* out = job.out + y * job.stride;
        if (job.row_low == nullptr) {
            normalise_row(job.frame + y * bytes, job.columns, job.scale, job.bias, out, job.plane);
            continue;
        }
        const int rows[2] = {job.row_low[y], min_int(job.row_low[y] + 1, job.height - 1)};
        for (const int row : rows) {
            if (held[row & 1] == row) continue;
            interpolate_columns(job.frame + row * bytes, job.width, job.column_low, job.column_weight, job.columns,
                                held_values[row & 1], job.columns);
            held[row & 1] = row;
        }
        const float* upper = held_values[rows[0] & 1];
        const float* lower = held_values[rows[1] & 1];
        for (int c = 0; c < 3; ++c) {
            const long at = static_cast<long>(c) * job.columns;
            interpolate_rows(upper + at, lower + at, job.row_weight[y], job.scale[c], job.bias[c], job.columns, out + c * job.plane);
        }
    }
}

void upsample_base(const Upsample& job, Scratch& scratch, int first, int last) { upsample_body(job, scratch, first, last); }
void preprocess_base(const Preprocess& job, float* const* held, int first, int last) { preprocess_body(job, held, first, last); }

#if RTF_DISPATCH
RTF_AVX2 void upsample_avx2(const Upsample& job, Scratch& scratch, int first, int last) { upsample_body(job, scratch, first, last); }
RTF_AVX2 void preprocess_avx2(const Preprocess& job, float* const* held, int first, int last) {
    preprocess_body(job, held, first, last);
}
RTF_AVX512 void upsample_avx512(const Upsample& job, Scratch& scratch, int first, int last) {
    upsample_body(job, scratch, first, last);
}
RTF_AVX512 void preprocess_avx512(const Preprocess& job, float* const* held, int first, int last) {
    preprocess_body(job, held, first, last);
}
#endif

// Shares `rows` out in blocks of kRowsAtOnce among threads; `work(thread, first, last)` does one block.
template <typename Work>
void share_rows(int rows, int threads, const Work& work) {
    const int blocks = (rows + kRowsAtOnce - 1) / kRowsAtOnce;
    std::atomic<int> next{0};
    on_threads(std::min(threads, blocks), [&](int thread) {
        for (int block = next++; block < blocks; block = next++) {
            work(thread, block * kRowsAtOnce, std::min(rows, (block + 1) * kRowsAtOnce));
        }
    });
}

}  // namespace
